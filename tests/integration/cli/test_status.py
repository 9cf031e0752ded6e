"""`gapless status`, and the commands by which a person answers it, on a prepared ledger: output and exit codes."""

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from getpass import getuser
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result
from ledgers import run_sql
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.engine import make_url

from gapless.cli.main import main
from gapless.domain import to_us
from gapless.ledger import destinations, sources
from gapless.ledger.engine import open_store, postgres
from gapless.ledger.tables import ABSENCE, DELIVERY, EVENT, MISSING, PASS, SOURCE, STREAM, UNRECOVERABLE
from gapless.ledger.watermarks import EVENT_LOST

CONFIG = """
[store]
url = "{url}"
[[source]]
name = "acme"
provider = "stripe"
[source.options]
webhook_secret_env = "SECRET"
api_key_env = "KEY"
"""
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


class Ledger:
    """A ledger file with one healthy source, and its configuration."""

    def __init__(self, folder: Path, url: str) -> None:
        self.config, self.url, self.now = folder / "gapless.toml", url, datetime.now(UTC)
        self.config.write_text(CONFIG.format(url=url))

    def write(self, work: Callable[[Connection], object]) -> None:
        async def run() -> None:
            store = open_store(self.url)
            try:
                await store.write(work)
            finally:
                await store.close()

        asyncio.run(run())

    def open(self) -> None:
        """Make the source, read a minute ago."""
        at_us = to_us(self.now)
        read = {"watermark_us": at_us, "checked_us": at_us, "last_complete_pass_us": at_us, "last_outcome": "clean"}

        def work(connection: Connection) -> None:
            sources.register_source(connection, "acme", "stripe", "hybrid", self.now - 9 * DAY, self.now)
            connection.execute(update(STREAM).values(**read))

        self.write(work)

    def lose(self, reason: str = "history_exceeded") -> None:
        at_us = to_us(self.now - 5 * DAY)
        lost = {"start_us": at_us - 60_000_000, "end_us": at_us, "reason": reason, "recorded_us": at_us}
        self.write(
            lambda connection: connection.execute(
                insert(UNRECOVERABLE).values(stream_id=select(STREAM.c.id).scalar_subquery(), **lost)
            )
        )

    def miss(self, ago: timedelta) -> None:
        """An event that was found missing `ago`."""
        at_us = to_us(self.now - ago)
        values: dict[str, Any] = {"key": "evt_1", "type": "x", "occurred_us": at_us, "found_us": at_us}
        ids = {"source_id": select(SOURCE.c.id).scalar_subquery(), "stream_id": select(STREAM.c.id).scalar_subquery()}
        row = insert(MISSING).values(reason="detail", next_attempt_us=at_us, **values, **ids)
        self.write(lambda connection: connection.execute(row))

    def lack(self, *keys: str) -> None:
        """Events that came by webhook, and that the list lacked twice."""
        at_us = to_us(self.now - DAY)

        def work(connection: Connection) -> None:
            source_id, stream_id = connection.execute(select(STREAM.c.source_id, STREAM.c.id)).one()
            for key in keys:
                values = {"source_id": source_id, "stream_id": stream_id, "key": key, "type": "x", "via": "webhook"}
                times = {"occurred_us": at_us, "first_seen_us": at_us, "webhook_us": at_us}
                seq = connection.execute(insert(EVENT).values(**values, **times).returning(EVENT.c.seq)).scalar_one()
                absent = {"event_seq": seq, "stream_id": stream_id, "occurred_us": at_us, "found_us": at_us}
                connection.execute(insert(ABSENCE).values(**absent, pass_id=1, tries=2, next_us=at_us))

        self.write(work)

    def owe(self, **delivery: object) -> None:
        """A delivery of an event to the destination "shop"."""
        at_us = to_us(self.now)

        def work(connection: Connection) -> None:
            ids = dict(connection.execute(select(STREAM.c.source_id, STREAM.c.id.label("stream_id"))).mappings().one())
            event = {"key": "evt_1", "type": "x", "via": "list", "occurred_us": at_us, "first_seen_us": at_us}
            connection.execute(insert(EVENT).values(seq=1, **event, **ids))
            destination_id = destinations.register_destination(connection, "shop", self.now)
            row = {"event_seq": 1, "destination_id": destination_id, "attempts": 1, "created_us": at_us}
            connection.execute(insert(DELIVERY).values(**row | delivery))

        self.write(work)

    def change(self, table: Any, **values: object) -> None:
        self.write(lambda connection: connection.execute(update(table).values(**values)))

    def call(self, *args: str) -> Result:
        return CliRunner(env={"SECRET": "whsec_1", "KEY": "rk_live_1"}).invoke(
            main, ["--config", str(self.config), *args]
        )


@pytest.fixture
def ledger(tmp_path: Path, sqlite_url: str) -> Ledger:
    made = Ledger(tmp_path, sqlite_url)
    made.open()
    return made


def test_all_is_well_exits_with_0(ledger: Ledger) -> None:
    done = ledger.call("status")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "Nothing is wrong."), done.output
    assert "note: acme: It is assumed that every type is subscribed" in done.output


CHECK_KEY = "Run `gapless check`, correct the key or options, then `gapless source pass acme`."


@pytest.mark.parametrize(
    ("table", "values", "kind", "told", "advice"),
    [
        (
            STREAM, {"last_outcome": "suspect_listing"}, "list_suspect",
            "The provider's list shows none of the events that came by webhook.", "See whether the key reads this",
        ),
        (
            STREAM, {"last_outcome": "unexpected_shape"}, "list_unreadable",
            "The provider's list has a shape that is not known.", "look at the log line pass_failed",
        ),
        (STREAM, {"parked_reason": "401: revoked"}, "stream_parked", "Not read: 401: revoked.", CHECK_KEY),
        (
            STREAM, {"checked_us": None, "last_complete_pass_us": None}, "never_compared",
            "Not compared with the provider's list yet.", "or ask for it: `gapless source pass acme`.",
        ),
        (
            SOURCE, {"state": "parked", "reason": "by hand"}, "source_parked",
            "It is parked: by hand.", "Run `gapless check`",
        ),
        (
            SOURCE, {"subscription_healthy": False, "subscription_reason": "disabled"}, "endpoint_off",
            "The provider does not send to us: disabled.", "Run `gapless source repair acme`",
        ),
        (
            SOURCE, {"name": "renamed"}, "source_unknown",
            "It is configured, but the ledger does not know it yet.", "Start `gapless serve` with this configuration",
        ),
    ],
)  # fmt: skip
def test_what_needs_a_person_exits_with_1(
    ledger: Ledger, table: Any, values: dict[str, object], kind: str, told: str, advice: str
) -> None:
    """Most of these exited with 0."""
    ledger.change(table, **values)
    done = ledger.call("status", "--json")
    report = json.loads(done.stdout)
    assert [each["kind"] for each in report["troubles"]] == [kind]
    assert (done.exit_code, report["verdict"] in ("trouble", "unknown")) == (1, True)
    shown = ledger.call("status").stdout
    assert f": acme: {told}" in shown
    assert advice in shown


def test_a_clock_that_is_wrong_is_told(ledger: Ledger) -> None:
    ledger.change(SOURCE, skew_us=600_000_000)
    done = ledger.call("status")
    assert done.exit_code == 1
    assert "trouble: acme: Our clock is 10m ahead of the provider's." in done.stdout
    assert "Synchronise the clock (NTP)" in done.stdout
    ledger.change(SOURCE, skew_us=-600_000_000)
    assert "Our clock is 10m behind the provider's." in ledger.call("status").stdout
    ledger.change(SOURCE, skew_us=1_000_000)
    assert ledger.call("status").exit_code == 0


@pytest.mark.parametrize(
    ("table", "column", "name"),
    [
        (SOURCE, "next_pass_us", "next pass"),
        (STREAM, "last_complete_pass_us", "last complete pass"),
        (STREAM, "watermark_us", "watermark"),
    ],
)
def test_stored_times_in_the_future_are_told(ledger: Ledger, table: Any, column: str, name: str) -> None:
    ledger.change(table, **{column: to_us(ledger.now + DAY)})
    done = ledger.call("status")
    assert done.exit_code == 1
    assert f"trouble: acme: Stored times lie in the future: {name}. A clock was ahead" in done.stdout
    assert "`gapless serve` does at once what it would wait for." in done.stdout


def test_deliveries_due_too_far_ahead_are_told(ledger: Ledger) -> None:
    ahead_us = to_us(ledger.now + DAY)
    ledger.owe(next_us=ahead_us, wait_us=60_000_000)
    done = ledger.call("status")
    assert done.exit_code == 1
    assert "trouble: shop: Deliveries are due further ahead than they are to wait." in done.stdout
    assert "Synchronise the clock (NTP)" in done.stdout
    ledger.change(DELIVERY, wait_us=ahead_us - to_us(ledger.now))
    assert ledger.call("status").exit_code == 0


@pytest.mark.parametrize(
    ("reason", "told", "advice"),
    [
        ("version_mismatch", "of another API version than the endpoint's", "Set on_version_mismatch. Release them: "),
        ("other_account", "listed while the key read another account", "`gapless source accept-account` sends or"),
        ("restored", "of a time that a restored backup lacks", "`gapless dead requeue --held --destination shop`."),
    ],
)
def test_held_deliveries_are_told_with_their_reason(ledger: Ledger, reason: str, told: str, advice: str) -> None:
    ledger.owe(state="held", reason=reason, next_us=0)
    done = ledger.call("status")
    assert done.exit_code == 1
    assert f"trouble: shop: Waiting for a decision: 1 delivery ({told})." in done.stdout
    assert "See `gapless dead list --held`. " in done.stdout
    assert f"{ledger.now:%Y-%m-%d %H:%M}" in ledger.call("dead", "list", "--held").stdout
    assert advice in done.stdout


def test_a_clock_that_nothing_verifies_is_told(ledger: Ledger) -> None:
    ledger.change(SOURCE, skew_us=None)
    done = ledger.call("status")
    assert "note: acme: Our clock is unverified: the provider has not said what time it is" in done.stdout
    assert done.exit_code == 0
    ledger.change(SOURCE, skew_us=0)
    assert "unverified" not in ledger.call("status").stdout


def test_a_silent_source_exits_with_1(ledger: Ledger) -> None:
    text = ledger.config.read_text().replace('provider = "stripe"', 'provider = "stripe"\nsilence_after = "2h"')
    ledger.config.write_text(text)
    ledger.change(SOURCE, last_webhook_us=to_us(ledger.now - DAY))
    done = ledger.call("status")
    assert done.exit_code == 1
    assert "trouble: acme: No webhook has come for longer than is usual for this source. Since " in done.stdout
    assert "Run `gapless check`" in done.stdout


def test_what_is_in_hand_exits_with_0_until_it_takes_too_long(ledger: Ledger) -> None:
    ledger.miss(MINUTE)
    done = ledger.call("status")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "1 is in hand.")
    assert "in hand: acme: Not recorded yet: 1 known event." in done.stdout
    assert "Nothing: they are requested one by one." in done.stdout
    ledger.change(MISSING, found_us=to_us(ledger.now - 40 * MINUTE))
    done = ledger.call("status")
    assert (done.exit_code, "See `gapless missing list --source acme`" in done.stdout) == (1, True)


def test_an_unrecoverable_time_exits_with_1_until_acknowledged(ledger: Ledger) -> None:
    ledger.lose()
    before = ledger.call("status")
    assert before.exit_code == 1
    assert 'gapless source acknowledge acme --reason "…"' in before.stdout
    assert "interval 1, " in before.stdout
    assert ledger.call("source", "acknowledge", "acme").exit_code == 2
    assert ledger.call("source", "acknowledge", "acme", "--reason", " ").exit_code == 2
    done = ledger.call("source", "acknowledge", "acme", "--reason", "no difference in the payouts")
    assert (done.exit_code, done.stdout) == (0, "acknowledged: 1 unrecoverable intervals\n"), done.output
    after = ledger.call("status")
    assert after.exit_code == 0
    assert f"acknowledged by {getuser()}: no difference in the payouts" in after.stdout


def test_what_was_purged_unjudged_exits_with_1_until_acknowledged(ledger: Ledger) -> None:
    ledger.change(SOURCE, quarantine_expired=3, quarantine_expired_us=to_us(ledger.now - DAY))
    before = ledger.call("status")
    assert before.exit_code == 1
    assert "3 refused webhooks that may be genuine" in before.stdout
    assert 'gapless source acknowledge acme --reason "…"' in before.stdout
    done = ledger.call("source", "acknowledge", "acme", "--reason", "read the list again")
    assert "acknowledged: 3 refused webhooks that were purged unjudged\n" in done.stdout
    assert ledger.call("status").exit_code == 0


def test_what_waits_for_the_list_is_in_hand_until_it_takes_too_long(ledger: Ledger) -> None:
    ledger.owe(state="held", reason="not_listed", next_us=0)
    done = ledger.call("status")
    assert done.exit_code == 0
    assert "in hand: shop: Waiting until the provider's list shows them: 1 delivery." in done.stdout
    ledger.change(DELIVERY, created_us=to_us(ledger.now - DAY))
    done = ledger.call("status")
    assert done.exit_code == 1
    assert "(the provider's list has not shown them)" in done.stdout


def test_a_lost_event_exits_with_1_until_acknowledged(ledger: Ledger) -> None:
    ledger.lose(EVENT_LOST)
    before = ledger.call("status")
    assert before.exit_code == 1
    assert (
        "trouble: acme: The provider listed what it no longer has, and the ledger lacks it: an event of"
        in before.stdout
    )
    assert "The log line event_lost names each; look them up by other means, then `gapless source ack" in before.stdout
    assert ledger.call("source", "acknowledge", "acme", "--reason", "looked up").exit_code == 0
    assert ledger.call("status").exit_code == 0


def test_passes_are_listed_and_one_on_demand_is_cancelled(ledger: Ledger) -> None:
    at_us = to_us(ledger.now - DAY)
    ids = {"source_id": select(SOURCE.c.id).scalar_subquery(), "stream_id": select(STREAM.c.id).scalar_subquery()}
    times = {"start_us": at_us, "end_us": at_us + 1, "started_us": at_us}
    failed = {"attempts": 2, "next_attempt_us": at_us, "last_error": "UnexpectedShape: 400"}
    ledger.write(
        lambda c: c.execute(insert(PASS).values(kind="scheduled", state="finished", outcome="clean", **times, **ids))
    )
    ledger.write(lambda c: c.execute(insert(PASS).values(kind="demand", **times, **ids, **failed)))
    (line,) = ledger.call("pass", "list", "--json").stdout.splitlines()
    row = json.loads(line)
    assert (row["id"], row["source"], row["kind"], row["state"]) == (2, "acme", "demand", "running")
    assert (row["attempts"], row["last_error"]) == (2, "UnexpectedShape: 400")
    assert "UnexpectedShape: 400" in ledger.call("pass", "list").stdout
    status = ledger.call("status")
    assert (status.exit_code, "in hand: acme: Pass 2 on demand" in status.stdout) == (0, True), status.output
    ledger.write(lambda c: c.execute(update(PASS).where(PASS.c.id == 2).values(state="failed", outcome="x")))
    status = ledger.call("status")
    assert (status.exit_code, "`gapless pass cancel 2`" in status.stdout) == (1, True), status.output
    assert "UnexpectedShape: 400" in ledger.call("pass", "list").stdout
    assert len(ledger.call("pass", "list", "--all", "--source", "acme", "--json").stdout.splitlines()) == 2
    done = ledger.call("pass", "cancel", "2", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"cancelled": [2]}), done.output
    assert ledger.call("status").exit_code == 0
    again = ledger.call("pass", "cancel", "2")
    assert (again.exit_code, "has ended already (cancelled)" in again.output) == (2, True)
    assert "no pass is under way" in ledger.call("pass", "list").output


def test_events_that_the_list_lacks_exit_with_1_until_accepted(ledger: Ledger) -> None:
    ledger.lack("evt_1", "evt_2")
    before = ledger.call("status")
    assert before.exit_code == 1
    assert "acme: The provider's list lacks 2 events that came by webhook: evt_1, evt_2." in before.stdout
    assert 'gapless event accept-unlisted acme evt_1 --reason "…"' in before.stdout
    assert ledger.call("event", "accept-unlisted", "acme", "evt_1").exit_code == 2
    refused = ledger.call("event", "accept-unlisted", "acme", "evt_1", "evt_3", "--reason", "a test")
    assert (refused.exit_code, "does not lack evt_3" in refused.output) == (2, True)
    done = ledger.call("event", "accept-unlisted", "acme", "evt_1", "evt_2", "--reason", "sent by the simulator")
    assert (done.exit_code, done.stdout) == (0, "accepted: 2 events; the next pass moves the watermark over them\n")
    assert ledger.call("status").exit_code == 0


def test_a_source_that_only_receives_can_be_well(ledger: Ledger) -> None:
    text = ledger.config.read_text().replace('provider = "stripe"', 'provider = "stripe"\nmode = "webhook"')
    ledger.config.write_text(text)
    done = ledger.call("status")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "Nothing is wrong.")
    assert "note: acme: There is no list to compare with: lost webhooks cannot be seen." in done.stdout


def run_all(url: str, *statements: str) -> None:
    for each in statements:
        asyncio.run(run_sql(url, each))


def test_the_store_is_told_about_while_something_is_wrong_with_it(
    tmp_path: Path, postgres_url: str, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command asks PostgreSQL itself: it may run on another machine than the daemons."""
    monkeypatch.setattr(postgres, "LOCKS_WITHIN_S", 1)
    ledger, name = Ledger(tmp_path, postgres_url), make_url(postgres_url).database
    ledger.open()
    ledger.config.write_text(re.sub('url = ".*"', 'url_env = "STORE_URL"', ledger.config.read_text()))
    monkeypatch.setenv("STORE_URL", postgres_url)
    assert ledger.call("status").exit_code == 0
    with closing(asyncio.new_event_loop()) as loop:
        session = loop.run_until_complete(asyncpg.connect(postgres_url))
        loop.run_until_complete(session.execute("BEGIN; LOCK TABLE event IN EXCLUSIVE MODE"))
        locked = ledger.call("status")
        loop.run_until_complete(session.close())
    assert (locked.exit_code, "pg_stat_activity" in locked.output) == (1, True)
    assert "Another program holds a lock on the ledger" in locked.output
    run_all(postgres_server, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    standby = ledger.call("status")
    run_all(postgres_server, f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert (standby.exit_code, "Name the primary server in the store url" in standby.output) == (1, True)
    assert ledger.call("status").exit_code == 0
    run_all(postgres_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    away = ledger.call("status")
    run_all(postgres_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert (away.exit_code, len(away.output.splitlines())) == (3, 1), away.output


def test_the_identity_of_a_source_is_shown_and_can_be_set(ledger: Ledger) -> None:
    assert json.loads(ledger.call("source", "list", "--json").stdout)[0]["identity_seed"] == "acme"
    done = ledger.call("source", "identity", "acme", "acme-eu", "--yes")
    assert (done.exit_code, done.stdout) == (0, "identity of acme: acme-eu\n"), done.output
    assert "acme-eu" in ledger.call("source", "list").stdout


def test_an_identity_that_another_source_has_is_refused(ledger: Ledger) -> None:
    ledger.write(
        lambda connection: sources.register_source(connection, "other", "stripe", "hybrid", ledger.now, ledger.now)
    )
    done = ledger.call("source", "identity", "acme", "other", "--yes")
    assert done.exit_code == 2
    assert "two events could get one id; nothing was changed" in done.output


def test_a_restored_ledger_is_told_so(ledger: Ledger) -> None:
    done = ledger.call("db", "restored", "--since", "1h")
    assert done.exit_code == 0, done.output
    assert "noted for 1 streams; 0 deliveries are held" in done.stdout
    assert "gapless dead requeue --held --reason restored" in done.stdout
    assert ledger.call("status").exit_code == 0


def test_a_restored_ledger_of_webhooks_alone_is_told_in_status(ledger: Ledger) -> None:
    text = ledger.config.read_text().replace('provider = "stripe"', 'provider = "stripe"\nmode = "webhook"')
    ledger.config.write_text(text)
    assert "it is unrecoverable" in ledger.call("db", "restored", "--since", "1h").stdout
    done = ledger.call("status")
    assert done.exit_code == 1
    assert re.search(r"trouble: acme: Losses from .* can never be found: restored", done.stdout), done.stdout
    assert "Compare that time by other means, then `gapless source acknowledge acme" in done.stdout
