"""What vendors and strangers send never reaches a terminal as a command; nothing is run from the working folder."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from inside import call, serving
from outside import ENVIRONMENT, PROGRAM, WEBHOOK_SECRET, Gapless, free_port, until

from gapless.cli import output
from gapless.cli.main import main
from gapless.cli.terminal import guard
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e\r"
CONTROLS = set("\x1b\x07\x9b\u202e\r")
PLANTED = 'import pathlib, os\npathlib.Path(os.environ["PROOF"], __name__).touch()\n'
CONFIG = """
[public]
host = "127.0.0.1"
port = {public}
[private]
port = {private}
[store]
url = "sqlite:///{folder}/ledger.db"
min_free = "1MB"
"""
PYTHON = """
[[destination]]
name = "books"
type = "python"
target = "acme_books:handle"
"""


@pytest.mark.anyio
async def test_events_are_shown_without_control_characters(sqlite_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, sqlite_url, api)
        async with serving(gapless):
            fake.add_endpoint(gapless.public, secret=WEBHOOK_SECRET)
            event = fake.emit(json.dumps(f"invoice{HOSTILE}paid")[1:-1])  # the fake writes it into its JSON as it is

            async def is_recorded() -> bool:
                return bool(await gapless.ledger_ids())

            await until(is_recorded)
            for command in (["event", "list"], ["event", "list", "--json"], ["event", "show", event.key]):
                done = await call(gapless, *command)
                assert not set(done.output) & CONTROLS, command
                assert "\\u009b2J" in done.output, command
            shown = json.loads((await call(gapless, "event", "show", event.key)).output)
            assert shown["type"] == f"invoice{HOSTILE}paid"
            piped = await call(gapless, "event", "show", event.key, "--payload")
            assert json.loads(piped.stdout_bytes)["id"] == event.key


@click.command()
def hostile() -> None:
    """Write what a vendor has sent in each way in which commands write."""
    click.echo(f"echo {HOSTILE}")
    output.table(["name"], [[f"cell {HOSTILE}\n"]], empty="")
    raise click.UsageError(HOSTILE)


def test_whatever_a_command_writes_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(main.commands, "hostile", hostile)
    done = CliRunner().invoke(main, ["hostile"])
    assert not set(done.output) & CONTROLS
    escaped = "\\u001b]0;owned\\u0007\\u009b2J\\u202e\\u000d"
    assert [line.rstrip() for line in done.stdout.splitlines()] == [f"echo {escaped}", "name", f"cell {escaped}\\n"]
    assert escaped in done.stderr


def test_payload_bytes_reach_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", written)
    guard()
    output.as_bytes(HOSTILE.encode())
    assert not set(written.getvalue()) & CONTROLS


def run(folder: Path, *command: str, config: str = "") -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a command in `folder`; return it with the names of what has run there beside it."""
    proof = folder / "proof"
    proof.mkdir(exist_ok=True)
    text = CONFIG.format(public=free_port(), private=free_port(), folder=folder) + config
    (folder / "gapless.toml").write_text(text)
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "PROOF": str(proof), **ENVIRONMENT}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=60)
    return done, {each.name for each in proof.iterdir()}


AS_SCRIPT, AS_MODULE = (PROGRAM,), (sys.executable, "-m", "gapless")


@pytest.mark.parametrize(
    ("program", "option", "ran"),
    [(AS_MODULE, "", set()), (AS_SCRIPT, 'folder = "."', {"acme_books"})],
    ids=["none", "named"],
)
def test_only_the_target_of_a_named_folder_is_run(
    program: tuple[str, ...], option: str, ran: set[str], tmp_path: Path
) -> None:
    for name in ("uvloop", "structlog", "litestar", "stringprep", "sitecustomize", "asyncpg"):
        (tmp_path / f"{name}.py").write_text(PLANTED)
    (tmp_path / "acme_books.py").write_text(PLANTED + "import uvloop\nraise SystemError('it has run')\n")
    done, found = run(tmp_path, *program, "serve", config=PYTHON + option)
    assert done.returncode == 2, done.stderr
    assert ("it has run" in done.stderr) is bool(ran), done.stderr
    assert ("name its folder" in done.stderr) is not bool(ran)
    assert found == ran
