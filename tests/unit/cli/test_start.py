"""Commands start at once: imports of help and version; the listed help equals the help of each command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gapless.__main__ import WIDTH
from gapless.cli import commands
from gapless.cli.main import COMMANDS, LazyCommand, main

HEAVY = frozenset({
    "alembic", "apscheduler", "asyncio", "cryptography", "gapless_reconcilers", "httpx", "importlib.metadata", "jinja2",
    "litestar", "msgspec", "prometheus_client", "pydantic", "rich", "sqlalchemy", "sqlmodel", "stamina", "structlog",
    "uvicorn",
})  # fmt: skip
OF_THE_DAEMON = HEAVY - {
    "asyncio", "cryptography", "gapless_reconcilers", "httpx", "importlib.metadata", "msgspec", "rich", "sqlalchemy",
}  # fmt: skip
CONFIG = """
[[source]]
name = "acme"
provider = "stripe"
[source.options]
api_key_env = "API_KEY"
webhook_secret_env = "WEBHOOK_SECRET"

[[destination]]
name = "billing"
url = "https://billing.example/hook"
secret_env = "BILLING_SECRET"
"""
SECRETS = {
    "API_KEY": "sk_live_1",
    "WEBHOOK_SECRET": "whsec_1",
    "BILLING_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}


def run(*args: str, folder: Path, **environ: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """The finished command and what it imported: each module, and the packages that hold it."""
    command = [sys.executable, "-X", "importtime", "-m", "gapless", *args]
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(("GAPLESS_", "COLUMNS"))}
    done = subprocess.run(command, env=inherited | environ, cwd=folder, capture_output=True, text=True, check=False)
    modules = set(re.findall(r"^import time:[ \d|]+\| +(\S+)$", done.stderr, re.MULTILINE))
    return done, {name.rsplit(".", depth)[0] for name in modules for depth in range(name.count(".") + 1)}


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_help_and_version_do_not_even_import_click(option: str, tmp_path: Path) -> None:
    done, imported = run(option, folder=tmp_path)
    assert done.returncode == 0
    assert imported & (HEAVY | {"click"}) == set()
    assert done.stdout == CliRunner().invoke(main, [option], prog_name="gapless", terminal_width=WIDTH - 2).output


def test_help_in_a_narrow_terminal_imports_no_command(tmp_path: Path) -> None:
    done, imported = run("--help", folder=tmp_path, COLUMNS="60")
    assert max(map(len, done.stdout.partition("Exit codes")[2].splitlines())) <= 60
    assert imported & HEAVY == set()
    assert {name for name in imported if name.startswith("gapless.")} == {"gapless.cli", "gapless.cli.main"}


def test_help_lists_every_command_and_no_other() -> None:
    assert set(COMMANDS) == {path.stem.strip("_") for path in Path(commands.__path__[0]).glob("[!_]*.py")}
    table = CliRunner().invoke(main, ["--help"]).output.partition("Commands:")[2]
    assert re.findall(r"^  (\w+) {2,}\S", table, re.MULTILINE) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_listed_help_is_the_first_sentence_of_the_command(name: str) -> None:
    listed = main.commands[name]
    assert isinstance(listed, LazyCommand)
    own = listed.load()
    assert own.name == name
    assert listed.get_short_help_str(limit=500) == own.get_short_help_str(limit=500)
    assert listed.help == listed.get_short_help_str(limit=500), "hold the first sentence, and no more"


def test_a_command_is_loaded_once_it_is_named() -> None:
    context = click.Context(main)
    name, command, rest = main.resolve_command(context, ["import", "acme", "-"])
    assert (name, rest) == ("import", ["acme", "-"])
    assert isinstance(command, click.Command)
    assert not isinstance(command, LazyCommand)


def test_a_wrong_name_is_refused() -> None:
    result = CliRunner().invoke(main, ["stat"])
    assert (result.exit_code, "No such command 'stat'" in result.output) == (2, True)


def test_check_offline_imports_no_database_before_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "gapless.toml").write_text(CONFIG)
    done, imported = run("check", "--offline", folder=tmp_path, **SECRETS)
    assert (done.returncode, "will be created by `gapless serve`" in done.stdout) == (0, True), done.stdout
    assert imported & (OF_THE_DAEMON | {"sqlalchemy"}) == set()
    running = {"gapless.ledger", "gapless.daemon", "gapless.runtime", "gapless.provider_api", "gapless.console"}
    assert imported & running == set()


def test_check_offline_reads_the_ledger_without_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "gapless.toml").write_text(CONFIG)
    (tmp_path / "gapless.db").touch()
    done, imported = run("check", "--offline", folder=tmp_path, **SECRETS)
    assert (done.returncode, "schema is empty" in done.stdout) == (0, True), done.stdout
    assert "sqlalchemy" in imported
    assert imported & OF_THE_DAEMON == set()


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite:///:memory:", "mysql://here/gapless"])
def test_check_refuses_a_store_that_is_no_file(url: str, tmp_path: Path) -> None:
    (tmp_path / "gapless.toml").write_text(CONFIG)
    done, _ = run("check", "--offline", folder=tmp_path, GAPLESS_STORE__URL=url, **SECRETS)
    assert done.returncode == 2, done.stdout
