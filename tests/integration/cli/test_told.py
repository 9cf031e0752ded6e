"""What goes wrong is told in a sentence: which store, which file, which option; and JSON is JSON alone."""

import asyncio
import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from inside import call, serving
from outside import ENVIRONMENT, PROGRAM, Gapless, free_port

from gapless.cli.main import main
from gapless.domain import Mode, Source
from gapless.reconcile.scheduler import is_scheduled
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

NOBODY = "http://127.0.0.1:1"
SOURCE = """
[[source]]
name = "stripe-live"
provider = "stripe"
[source.options]
api_base = "{api}"
api_key_env = "STRIPE_API_KEY"
"""
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder, with this text as its configuration."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, config: str = "", **environ: str | None) -> Result:
        ports = f"[public]\nport = {free_port()}\n[private]\nport = {free_port()}\n"
        (tmp_path / "my.toml").write_text(config if "[public]" in config else ports + config)
        given = {**ENVIRONMENT, **environ}
        return CliRunner().invoke(main, ["--config", str(tmp_path / "my.toml"), *arguments], env=given)

    return call


def test_postgresql_without_its_package_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    done = run("check", "--offline", config='[store]\nurl = "postgresql://127.0.0.1/gapless"')
    assert "pip install 'gapless[postgres]'" in done.output
    assert done.exit_code == 2
    for command in ("serve", "status"):
        done = run(command, config=SOURCE.format(api=NOBODY) + '[store]\nurl = "postgresql://127.0.0.1/gapless"')
        assert (done.exit_code, done.output.count("\n")) == (2, 1)
        assert "pip install 'gapless[postgres]'" in done.output


@pytest.mark.parametrize("command", ["serve", "status", "check"])
def test_a_store_out_of_reach_is_named_without_its_password(run: Run, command: str) -> None:
    url = "postgresql://gapless:hush@127.0.0.1:1/ledger"
    done = run(command, config='[store]\nurl_env = "STORE_URL"\nstart_within = "0s"', STORE_URL=url)
    assert "the store postgresql://gapless:***@127.0.0.1:1/ledger cannot be used" in done.output
    assert "see whether it runs and can be reached from here" in done.output
    assert "hush" not in done.output
    assert done.exit_code == (1 if command == "check" else 3)


def test_status_says_that_the_schema_is_old(run: Run, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "gapless.db") as file:
        file.execute("CREATE TABLE alembic_version (version_num TEXT)")
        file.execute("INSERT INTO alembic_version VALUES ('0003')")
    done = run("status")
    assert "the ledger's schema is 0003" in done.output
    assert "run gapless db upgrade" in done.output
    assert done.exit_code == 2


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_file_of_something_else_is_refused(run: Run, command: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "gapless.db") as file:
        file.execute("CREATE TABLE customers (id INTEGER)")
    done = run(command)
    assert "tables of something else" in done.output
    assert done.exit_code == (1 if command == "check" else 2)
    with sqlite3.connect(tmp_path / "gapless.db") as file:
        assert file.execute("SELECT name FROM sqlite_master").fetchall() == [("customers",)]


def test_a_file_that_is_no_database_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "gapless.db").write_bytes(b"not a database" * 100)
    done = run("check")
    assert "problem  store: " in done.output
    assert done.exit_code == 1


def test_a_missing_folder_of_the_ledger_is_told(run: Run, tmp_path: Path) -> None:
    done = run("check", config=f'[store]\nurl = "sqlite:///{tmp_path}/none/gapless.db"')
    assert f"there is no folder {tmp_path}/none for the ledger" in done.output
    assert done.exit_code == 1


def test_a_taken_port_is_told(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("check", config=f'[public]\nhost = "127.0.0.1"\nport = {port}\n[private]\nport = 0')
    assert f"problem  public: cannot listen on 127.0.0.1:{port}" in done.output
    assert done.exit_code == 1


def test_an_unknown_option_lists_the_forms_of_secrets(run: Run) -> None:
    done = run("check", config=SOURCE.format(api=NOBODY) + 'api_kye_env = "X"\n')
    assert "did you mean 'api_key_env'?" in done.output
    assert "api_key_env, api_key_file" in done.output
    assert done.exit_code == 2


def test_an_include_that_matches_nothing_is_told(run: Run) -> None:
    done = run("check", "--offline", config='include = ["sources.d/*.toml"]\n[public]\nport = 0\n[private]\nport = 0')
    assert (
        'warning  config: config my.toml: option include names "sources.d/*.toml", and no file matches' in done.output
    )


def test_a_missing_configuration_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["check", "--offline"], ["audit", "stripe-live"]):
        assert f"there is no gapless.toml in {tmp_path}" in CliRunner().invoke(main, command).output


def test_webhooks_alone_need_no_key(run: Run) -> None:
    config = SOURCE.format(api=NOBODY).replace("api_key_env", "webhook_secret_env").replace("API_KEY", "WEBHOOK_SECRET")
    done = run("check", config=config.replace('"stripe"', '"stripe"\nmode = "webhook"'))
    assert "it has no key: the provider is asked nothing" in done.output
    assert done.exit_code == 0, done.output
    assert run("check", config=config).exit_code == 2


def test_a_source_without_a_key_is_never_asked() -> None:
    provider = Stripe(StripeOptions(api_key=Secret("")))
    source = Source(id=1, name="a", provider=provider, mode=Mode.WEBHOOK, start=datetime.now(UTC), can_ask=False)
    assert not is_scheduled(source)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id;type\nevt_1;a\n", "separated by semicolons"),
        ("id\ttype\n", "separated by tabs"),
        ("", "is empty"),
        ("\n", "is empty"),
    ],
)
def test_a_file_that_is_no_csv_is_told(run: Run, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "ids.csv").write_text(text)
    done = run("audit", "stripe-live", "--against", str(tmp_path / "ids.csv"), config=SOURCE.format(api=NOBODY))
    assert told in done.output
    assert done.exit_code == 2


@pytest.mark.anyio
async def test_audit_needs_no_other_secret_and_its_json_is_alone(tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    now = datetime.now(UTC)
    fake.backfill(30, now - timedelta(days=10), now - timedelta(hours=1), ["invoice.paid"])
    fake.faults.throttle_every, fake.faults.retry_after = 2, "0"
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, "", api, environment={"STRIPE_WEBHOOK_SECRET": "", "STORE_URL": ""})
        ids = "\n".join(event.key for event in fake.events)
        code, out, err = await gapless.call("audit", "stripe-live", "--json", "--against", "-", stdin=ids)
        assert code == 0, err
        assert json.loads(out)["listed"] == 30
        done = await call(gapless, "serve")
        assert done.exit_code == 2
        assert "STRIPE_WEBHOOK_SECRET" in done.output


@pytest.mark.anyio
async def test_audit_into_head_ends_quietly(tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    now = datetime.now(UTC)
    fake.backfill(3000, now - timedelta(days=25), now - timedelta(hours=1), ["invoice.paid"])
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, "", api)
        command = f"{PROGRAM} --config {gapless.config} audit stripe-live --json --against /dev/stdin | head -1"
        piped = {"env": gapless.env, "input": "evt_none\n", "capture_output": True, "text": True, "timeout": 60}
        done = await asyncio.to_thread(subprocess.run, ["sh", "-c", command], **piped)
    assert done.stdout == "{\n"
    assert "Broken pipe" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.anyio
async def test_commands_end_without_their_provider(sqlite_url: str, tmp_path: Path) -> None:
    gapless = Gapless(tmp_path, sqlite_url, NOBODY)
    checking = asyncio.create_task(gapless.call("check"))
    done = await call(gapless, "source", "pass", "stripe-live", "--since", "1d")
    assert "source 'stripe-live' could not be read: " in done.stderr
    assert f"{NOBODY}: ConnectError" in done.stderr
    assert done.exit_code == 3
    _, out, _ = await checking
    assert f"problem  source stripe-live: the provider cannot be reached: {NOBODY}: ConnectError" in out


@pytest.mark.anyio
async def test_a_pass_in_the_daemon_ends_without_its_provider(sqlite_url: str, tmp_path: Path) -> None:
    gapless = Gapless(tmp_path, sqlite_url, NOBODY)
    async with serving(gapless):
        done = await call(gapless, "source", "pass", "stripe-live", "--since", "1d")
    assert "source 'stripe-live' could not be read: " in done.stderr
    assert f"{NOBODY}: ConnectError" in done.stderr
    assert "a running daemon goes on with the pass" in done.stderr
    assert done.exit_code == 3


@pytest.mark.anyio
async def test_a_pass_says_that_the_provider_wants_a_pause(store_url: str, tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    fake.faults.throttle_every, fake.faults.retry_after = 1, "3600"
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, store_url, api)
        for arguments in (("--since", "1d"), ()):
            done = await call(gapless, "source", "pass", "stripe-live", *arguments)
            assert "waiting until 20" in done.stderr
            assert "because the provider said so" in done.stderr
            assert "nothing to read yet" not in done.output
            assert done.exit_code == 3
        asked = len(fake.requests)
        done = await call(gapless, "status")
        assert "Waiting until 20" in done.output
        assert "lower requests_per_second, or ask the provider for a higher limit" in done.output
        assert len(fake.requests) == asked
