"""What commands say of accounts, modes and versions."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from outside import WEBHOOK_SECRET, Gapless
from sqlalchemy import Connection, update

from gapless.bootstrap.runtime import open_runtime
from gapless.cli.main import main
from gapless.domain import Via, to_us
from gapless.ledger import accounts, sources
from gapless.ledger.engine import open_store
from gapless.ledger.recorder import Sighting
from gapless.ledger.tables import STREAM
from gapless.settings import load
from gapless_reconcilers.kit.contract import RemoteEvent
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

CONFIG = """
[store]
url_env = "STORE_URL"
[[source]]
name = "acme"
provider = "stripe"
start = "2020-01-01"
[source.options]
api_key_env = "KEY"
[[destination]]
name = "app"
url = "https://app.example/"
secret_env = "SECRET"
since = "2020-01-01"
[[destination]]
name = "both"
url = "https://both.example/"
secret_env = "SECRET"
since = "2020-01-01"
modes = ["live", "test"]
"""
ENVIRON = {"KEY": "rk_live_1", "SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}


@pytest.fixture
def config(tmp_path: Path, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, and a ledger with a live event and one of test mode."""
    path, environ = tmp_path / "gapless.toml", ENVIRON | {"STORE_URL": store_url}
    path.write_text(CONFIG)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    async def record() -> None:
        async with open_runtime(load(path, environ), environ) as parts:
            source = parts.runtime.sources["acme"]
            stream_id = await parts.runtime.write(lambda c: c.exec_driver_sql("SELECT id FROM stream").scalar_one())
            for livemode in (True, False):
                key = f"evt_{'live' if livemode else 'test'}"
                event = RemoteEvent(
                    key=key, type="invoice.paid", occurred_at=datetime.now(UTC), payload=b"{}", livemode=livemode
                )
                seen_us = to_us(datetime.now(UTC))
                sighting = Sighting(
                    source=source, stream_id=stream_id, event=event, via=Via.WEBHOOK, seen_us=seen_us, body=b"{}"
                )
                await parts.runtime.write(parts.runtime.writer.recorder.store, sightings=[sighting])

    asyncio.run(record())
    return path


def call(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(config), *arguments])


def change(url: str, work: Callable[[Connection], object]) -> None:
    async def run() -> None:
        store = open_store(url)
        try:
            await store.write(work)
        finally:
            await store.close()

    asyncio.run(run())


def test_event_show_names_who_is_not_owed_the_other_mode(config: Path) -> None:
    shown = json.loads(call(config, "event", "show", "evt_test").output)
    assert shown["livemode"] is False
    assert [{name: each[name] for name in ("destination", "state", "reason")} for each in shown["deliveries"]] == [
        {"destination": "both", "state": "pending", "reason": None},
        {"destination": "app", "state": "not_owed", "reason": "other_mode"},
    ]
    assert {"answered_at", "applied_at", "done_at"} <= shown["deliveries"][0].keys()
    shown = json.loads(call(config, "event", "show", "evt_live").output)
    assert {each["destination"]: each["state"] for each in shown["deliveries"]} == {"app": "pending", "both": "pending"}


def test_event_show_names_whose_condition_is_false(config: Path) -> None:
    table = '[[destination]]\nname = "{}"\nurl = "https://x.example/"\nsignature = "none"\nwhen = "{}"\n'
    rich, other = table.format("rich", "amount == `1`"), table.format("other", "amount == `1`")
    config.write_text(CONFIG + rich + other + 'types = ["charge.*"]\n' + table.format("odd", "amount > `1`"))
    shown = json.loads(call(config, "event", "show", "evt_live").output)
    assert shown["deliveries"][2:] == [{"destination": "rich", "state": "not_owed", "reason": "condition"}]


def test_a_replay_of_a_time_leaves_the_other_mode_out(config: Path) -> None:
    replay = ("event", "replay", "--since", "1h", "--destination", "app", "--yes")
    assert "1 events will be sent" in call(config, *replay).output
    assert "2 events will be sent" in call(config, *replay, "--other-mode").output
    assert "1 events will be sent" in call(config, "event", "replay", "evt_test", *replay[4:]).output


def test_status_says_what_to_do_about_another_account(config: Path, store_url: str) -> None:
    def swap(connection: Connection) -> None:
        row = sources.source_named(connection, "acme")
        assert row is not None
        now_us = to_us(datetime.now(UTC))
        connection.execute(update(STREAM).values(checked_us=now_us, last_complete_pass_us=now_us, watermark_us=now_us))
        accounts.note(connection, row["id"], "acct_1", now_us)
        accounts.note(connection, row["id"], "acct_2", now_us)

    change(store_url, swap)
    result = call(config, "status")
    assert result.exit_code == 1
    assert "trouble: acme: Its key reads account acct_2, and the source is that of acct_1" in result.output
    assert "gapless source accept-account acme" in result.output
    assert "note: acme: 1 event of test mode came by webhook" in result.output
    assert 'delivered only to destinations with modes = ["test"]' in result.output
    result = call(config, "source", "accept-account", "acme", "--account", "acct_2", "--dismiss")
    assert (result.exit_code, result.output) == (
        0,
        "acme is the source of account acct_2; of the held deliveries, 0 dismissed\n",
    )
    assert "acct_2" not in call(config, "status").output


@pytest.mark.anyio
async def test_check_compares_the_versions_of_list_and_endpoint(tmp_path: Path) -> None:
    fake = FakeProvider(StripeFormat())
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, f"sqlite:///{tmp_path}/none.db", api)
        endpoint = fake.add_endpoint(gapless.public, secret=WEBHOOK_SECRET)
        fake.emit("invoice.paid", occurred_at=datetime.now(UTC) - timedelta(minutes=5))
        fake.endpoints[0] = replace(endpoint, api_version="2020-08-27")
        _, out, err = await gapless.call("check")
    assert "the list shows events of API version 2026-09-30.endive, and our endpoint has 2020-08-27" in out, out + err
    assert "on_version_mismatch" in out
