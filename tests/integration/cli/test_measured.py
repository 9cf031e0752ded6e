"""What is measured on a user's own account, and what `gapless source show` says of a source."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from reports import LEARNED
from sqlalchemy import Connection, insert, select, update

from gapless.cli.main import main
from gapless.domain import HOUR_US, Cause, Mode, Purpose, Source, Via, span_us, to_us
from gapless.ledger import learned, looks, measures, sources
from gapless.ledger.engine import Store, open_store
from gapless.ledger.looks import StoredLook
from gapless.ledger.tables import BUDGET, BUDGET_USE, EVENT, MISSING, PASS, SLICE, SOURCE, STREAM, TALLY
from gapless.operations.measure import MeasuredTimes, Measures, read_measures, times_of, times_of_counts
from gapless.reconcile.lateness import AgeCounts
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.providers.github import GitHub, GitHubOptions
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
DAY, HOUR, MINUTE, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
DAY_US, MINUTE_US, SECOND_US = span_us(DAY), span_us(MINUTE), span_us(SECOND)


def events(
    connection: Connection,
    stream_id: int,
    occurred_us: list[int],
    *,
    took_us: int | Callable[[int], int] = SECOND_US,
    via: Via = Via.WEBHOOK,
    cause: Cause | None = None,
) -> None:
    """Events of a stream that came by webhook, or were missed and recorded, each so long after it occurred."""
    source_id = connection.execute(select(STREAM.c.source_id).where(STREAM.c.id == stream_id)).scalar_one()
    for number, at_us in enumerate(occurred_us):
        came_us = at_us + (took_us if isinstance(took_us, int) else took_us(number))
        is_pushed = via in (Via.WEBHOOK, Via.REDELIVERY)
        values = {
            "source_id": source_id,
            "stream_id": stream_id,
            "key": f"{via.value}:{stream_id}:{at_us}",
            "type": "x",
            "via": via.value,
            "occurred_us": at_us,
            "first_seen_us": came_us,
            "missed_cause": None if cause is None else cause.value,
            "webhook_us": came_us if is_pushed else None,
        }
        connection.execute(insert(EVENT).values(**values))


def before(now: datetime, count: int, *, ago: timedelta = HOUR) -> list[int]:
    return [to_us(now - ago) - number * SECOND_US for number in range(count)]


def register(connection: Connection, name: str = "acme") -> tuple[int, int]:
    """Return the ids of a new source and of its stream."""
    source_id = sources.register_source(connection, name, "stripe", "hybrid", NOW - 30 * DAY, NOW)
    stream_id = connection.execute(select(STREAM.c.id).where(STREAM.c.source_id == source_id)).scalar_one()
    return source_id, stream_id


def acme(source_id: int) -> Source:
    options = StripeOptions(api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False)
    return Source(id=source_id, name="acme", provider=Stripe(options), mode=Mode.HYBRID, start=NOW - 30 * DAY)


async def measured(store: Store, source_id: int, since: timedelta = 7 * DAY) -> Measures:
    return await store.read(read_measures, source=acme(source_id), since=NOW - since, now=NOW)


pytestmark = pytest.mark.anyio


async def test_lags_and_recoveries_are_those_of_the_ledger(store: Store) -> None:
    def work(connection: Connection) -> int:
        source_id, stream_id = register(connection)
        _, other_id = register(connection, "other")
        events(connection, stream_id, before(NOW, 100), took_us=lambda number: (number + 1) * SECOND_US)
        events(connection, stream_id, before(NOW, 9, ago=9 * DAY), took_us=DAY_US)  # before the time that is asked for
        events(connection, other_id, before(NOW, 30), took_us=DAY_US)
        events(connection, stream_id, before(NOW, 25, ago=2 * HOUR), took_us=30 * SECOND_US, via=Via.LIST,
               cause=Cause.UNEXPLAINED)  # fmt: skip
        events(connection, stream_id, before(NOW, 2, ago=3 * HOUR), took_us=MINUTE_US, via=Via.REDELIVERY,
               cause=Cause.REFUSED)  # fmt: skip
        events(connection, stream_id, before(NOW, 5, ago=4 * HOUR), took_us=DAY_US, via=Via.LIST)  # not missed
        return source_id

    found = await measured(store, await store.write(work))
    assert found.webhook_lag == MeasuredTimes(
        samples=100, median=50 * SECOND, p95=95 * SECOND, p99=99 * SECOND, longest=100 * SECOND
    )
    assert (found.recovery.samples, found.recovery.median, found.recovery.longest) == (27, 30 * SECOND, MINUTE)
    assert found.recovery_by_cause[Cause.UNEXPLAINED].p95 == 30 * SECOND
    assert found.recovery_by_cause[Cause.REFUSED] == MeasuredTimes(samples=2)
    assert set(found.recovery_by_cause) == {Cause.UNEXPLAINED, Cause.REFUSED}
    assert found.since == NOW - 7 * DAY


async def test_what_was_never_seen_is_unknown_and_not_0(store: Store) -> None:
    found = await measured(store, (await store.write(register))[0])
    unknown = MeasuredTimes(samples=0)
    assert (found.webhook_lag, found.list_delay, found.recovery) == (unknown, unknown, unknown)
    assert (found.recovery_by_cause, found.requests, found.not_recovered) == ({}, None, 0)


async def test_delay_of_the_list_and_requests_are_what_was_counted(store: Store) -> None:
    def work(connection: Connection) -> int:
        source_id, _ = register(connection)
        ages = AgeCounts()
        ages.add(1.0, times=30)
        learned.note_list_delays(connection, source_id, to_us(NOW), ages.counts)
        learned.note_list_delays(connection, source_id, to_us(NOW - 20 * DAY), ages.counts)
        scope, now_us = acme(source_id).provider.budget_scope(), to_us(NOW)
        row = {"scope": scope, "period_start_us": now_us, "granted": 1_000, "period_us": DAY_US}
        connection.execute(insert(BUDGET).values(**row))
        use = {"scope": scope, "start_us": now_us, "requests": 40}
        connection.execute(insert(BUDGET_USE).values(purpose=Purpose.HEARTBEAT.value, **use))
        return source_id

    found = await measured(store, await store.write(work))
    assert found.list_delay.samples == 30
    assert found.list_delay.median is not None
    assert SECOND <= found.list_delay.median <= 1.1 * SECOND
    assert found.requests is not None
    assert (found.requests.granted, dict(found.requests.by_purpose)) == (1_000, {"heartbeat": 40})


async def test_missed_events_that_are_not_recorded_are_told(store: Store) -> None:
    def work(connection: Connection) -> int:
        source_id, stream_id = register(connection)
        row = {"source_id": source_id, "stream_id": stream_id, "type": "x", "reason": "detail", "next_attempt_us": 0}
        times = {"occurred_us": to_us(NOW - HOUR), "found_us": to_us(NOW)}
        for key, more in (("open", {}), ("lost", {"state": "lost"}), ("ok", {"state": "recovered"}),
                          ("early", {"counted": False}), ("not expected", {"expected": False})):  # fmt: skip
            values = {"expected": True, "counted": True, **row, **times, **more}
            connection.execute(insert(MISSING).values(key=key, **values))
        return source_id

    assert (await measured(store, await store.write(work))).not_recovered == 2


async def test_a_redelivery_is_measured_from_the_time_that_the_list_says(store: Store) -> None:
    """The webhook may not say when its event occurred, so that the event has the time of its arrival."""

    def work(connection: Connection) -> int:
        source_id, stream_id = register(connection)
        came = before(NOW, 20)
        events(connection, stream_id, came, took_us=0, via=Via.REDELIVERY, cause=Cause.UNEXPLAINED)
        for at_us in came:
            row = {"source_id": source_id, "stream_id": stream_id, "type": "x", "reason": "redelivery"}
            times = {"occurred_us": at_us - MINUTE_US, "found_us": at_us, "next_attempt_us": 0}
            key = f"redelivery:{stream_id}:{at_us}"
            connection.execute(insert(MISSING).values(key=key, state="recovered", **row, **times))
        return source_id

    found = await measured(store, await store.write(work))
    assert (found.recovery.samples, found.recovery.median) == (20, MINUTE)
    assert found.webhook_lag.samples == 0


async def test_webhooks_that_do_not_say_when_have_no_lag(store: Store) -> None:
    def work(connection: Connection) -> int:
        source_id, stream_id = register(connection)
        events(connection, stream_id, before(NOW, 30))
        return source_id

    source_id = await store.write(work)
    options = GitHubOptions(token=Secret("t"), webhook_secret=(Secret("s"),), repository="a/b", hook_id=1)
    github = Source(id=source_id, name="acme", provider=GitHub(options), mode=Mode.HYBRID, start=NOW - DAY)
    found = await store.read(read_measures, source=github, since=NOW - DAY, now=NOW)
    assert found.webhook_lag == MeasuredTimes(samples=0)


async def test_of_too_many_events_the_newest_are_measured(store: Store) -> None:
    def work(connection: Connection) -> int:
        source_id, stream_id = register(connection)
        events(connection, stream_id, before(NOW, 50))
        return source_id

    source_id, first_us = await store.write(work), to_us(NOW - HOUR)
    found = await store.read(measures.read_events, source_id=source_id, since_us=0, most_rows=10)
    assert len(found.lags) == 10
    assert first_us - 10 * SECOND_US < found.since_us <= first_us - 9 * SECOND_US
    all_of_them = await store.read(measures.read_events, source_id=source_id, since_us=0, most_rows=50)
    assert (len(all_of_them.lags), all_of_them.since_us) == (50, 0)


@pytest.mark.parametrize(
    ("samples", "known"),
    [(19, ()), (20, ("median", "p95", "longest")), (100, ("median", "p95", "p99", "longest")),
     (1000, ("median", "p95", "p99", "p999", "longest"))],
)  # fmt: skip
def test_a_share_needs_so_many_samples_that_one_is_beyond_it(samples: int, known: tuple[str, ...]) -> None:
    counted = AgeCounts()
    counted.add(1.0, times=samples)
    for found in (times_of([SECOND_US] * samples), times_of_counts(counted)):
        assert found.samples == samples
        assert tuple(n for n in ("median", "p95", "p99", "p999", "longest") if getattr(found, n) is not None) == known


# --- the commands


CONFIG = """
[store]
url_env = "URL"
[[source]]
name = "acme"
provider = "stripe"
[source.options]
webhook_secret_env = "SECRET"
api_key_env = "KEY"
"""


@dataclass(frozen=True, kw_only=True)
class OneSource:
    """A ledger with one source that was read just now, and its configuration."""

    config: Path
    url: str
    now: datetime

    def write(self, work: Callable[[Connection], object]) -> None:
        async def run() -> None:
            store = open_store(self.url)
            try:
                await store.write(work)
            finally:
                await store.close()

        asyncio.run(run())

    def call(self, *args: str) -> Result:
        environ = {"SECRET": "whsec_1", "KEY": "rk_live_1", "URL": self.url}
        return CliRunner(env=environ).invoke(main, ["--config", str(self.config), *args])


@pytest.fixture
def ledger(tmp_path: Path, store_url: str) -> OneSource:
    (tmp_path / "gapless.toml").write_text(CONFIG)
    made = OneSource(config=tmp_path / "gapless.toml", url=store_url, now=datetime.now(UTC))
    at_us = to_us(made.now)

    def work(connection: Connection) -> None:
        sources.register_source(connection, "acme", "stripe", "hybrid", made.now - 9 * DAY, made.now)
        connection.execute(update(STREAM).values(watermark_us=at_us, checked_us=at_us, last_complete_pass_us=at_us))

    made.write(work)
    return made


def note(ledger: OneSource, work: Callable[[Connection, int, int], object]) -> None:
    """Do `work` with the ids of the source and its stream."""

    def run(connection: Connection) -> None:
        work(connection, *connection.execute(select(STREAM.c.source_id, STREAM.c.id)).one())

    ledger.write(run)


def test_measure_says_what_is_known_and_what_is_a_fact(ledger: OneSource) -> None:
    now = ledger.now
    note(ledger, lambda c, _, stream_id: events(c, stream_id, before(now, 30)))
    note(ledger, lambda c, _, s: events(c, s, before(now, 3, ago=2 * HOUR), via=Via.LIST, cause=Cause.RECEIVER_DOWN))
    shown = ledger.call("measure", "acme")
    assert shown.exit_code == 0, shown.output
    lines = {line.split("  ")[0].strip(): line.split() for line in shown.stdout.splitlines()}
    assert lines["webhook after its event"][4:] == ["30", "1.0s", "1.0s", "unknown", "unknown", "1.0s"]
    assert lines["list shows an event"][4:] == ["0", *["unknown"] * 5]
    assert "receiver down" in shown.stdout
    assert "requests: unknown, nothing was asked yet" in shown.stdout
    assert "of your own account, are facts" in shown.stdout
    assert "docs/figures.md is simulated" in shown.stdout
    values = json.loads(ledger.call("measure", "acme", "--json", "--since", "30d").stdout)
    assert values["webhook_lag"] == {
        "samples": 30, "median_s": 1.0, "p95_s": 1.0, "p99_s": None, "p999_s": None, "longest_s": 1.0,
    }  # fmt: skip
    assert values["recovery_by_cause"]["receiver_down"]["median_s"] is None
    assert (values["list_delay"]["samples"], values["requests"]) == (0, None)


@pytest.mark.parametrize("command", [("measure", "acme"), ("source", "show", "acme")])
def test_a_source_that_the_ledger_does_not_know_is_refused(ledger: OneSource, command: tuple[str, ...]) -> None:
    note(ledger, lambda c, *_: c.execute(update(SOURCE).values(name="renamed")))
    done = ledger.call(*command)
    assert (done.exit_code, "the ledger does not know source 'acme' yet" in done.output) == (2, True), done.output
    assert ledger.call(*command[:-1], "nobody").exit_code == 2


def shown(ledger: OneSource) -> dict[str, str]:
    done = ledger.call("source", "show", "acme")
    assert done.exit_code == 0, done.output
    return {line[:22].strip(): line[22:].strip() for line in done.stdout.splitlines()}


def test_of_a_new_source_only_what_is_known_is_shown(ledger: OneSource) -> None:
    said = shown(ledger)
    assert said["source"] == "acme: stripe, hybrid, event_log"
    assert said["may be read"] == "every 30s to 15m"
    assert said["grant"].startswith("10,000 requests in 30d, or 500 for each charge.succeeded in it if that is more")
    unknown = {"last webhook", "rhythm known from", "busiest hours (UTC)", "quietest hours (UTC)", "learned"}
    assert {said[what] for what in unknown} == {"unknown"}
    assert said["plan"] == "unknown: none was made yet"
    assert said["used"] == "unknown: nothing was asked yet"
    assert said["last sweep"] == "none yet"
    values = json.loads(ledger.call("source", "show", "acme", "--json").stdout)
    assert (values["list"]["learned"], values["list"]["grant"], values["last_webhook"]) == (None, None, None)
    assert values["rhythm"] == {"known_from": None, "busiest": {}, "quietest": {}}


def test_everything_that_was_learned_is_shown(ledger: OneSource) -> None:
    now_us = to_us(ledger.now)
    due_us = now_us + 10 * SECOND_US

    def work(connection: Connection, source_id: int, stream_id: int) -> None:
        learned.note(connection, source_id, now_us, LEARNED)
        looks.note(connection, source_id, StoredLook(reason=looks.LATE, due_us=due_us, wait_us=30 * SECOND_US))
        times = {"next_pass_us": due_us, "wait_us": 30 * SECOND_US, "last_sweep_us": now_us - DAY_US}
        connection.execute(update(SOURCE).values(lookback_us=3_600 * SECOND_US, last_webhook_us=now_us, **times))
        hour = now_us // HOUR_US - 3
        connection.execute(insert(TALLY).values(source_id=source_id, hour=hour, slot=1, by_webhook=600))
        scope = connection.execute(insert(BUDGET).values(
            scope=Stripe(StripeOptions(
                api_key=Secret("rk_live_1"), webhook_secret=(Secret("whsec_1"),)
            )).budget_scope(),
            period_start_us=now_us, granted=15_000, period_us=30 * DAY_US,
        ).returning(BUDGET.c.scope)).scalar_one()  # fmt: skip
        for purpose, requests in (("heartbeat", 300), ("sweep", 1_200)):
            row = {"scope": scope, "start_us": now_us, "purpose": purpose, "requests": requests}
            connection.execute(insert(BUDGET_USE).values(**row))
        under_way = {"source_id": source_id, "stream_id": stream_id, "start_us": 0, "end_us": 2, "started_us": 0}
        pass_id = connection.execute(insert(PASS).values(kind="sweep", **under_way).returning(PASS.c.id)).scalar_one()
        for start_us, state in ((0, "done"), (1, "open")):
            piece = {"pass_id": pass_id, "start_us": start_us, "end_us": start_us + 1, "state": state}
            connection.execute(insert(SLICE).values(**piece))

    note(ledger, work)
    said = shown(ledger)
    assert said["plan"] == LEARNED.plan.words  # type: ignore[union-attr]
    assert said["planned recovery"] == "half within 40s, 99 in 100 within 4m50s"
    assert said["planned sweeps"] == "every 1d"
    assert said["events a day"] == "2,000, in 500 groups"
    assert said["webhook lag"] == "half within 1.2s, 999 in 1000 within 8.0s (900 samples)"
    assert said["list delay"] == "unknown (0 samples)"
    assert said["settle"].startswith("10s:")
    assert said["grace"].startswith("1m:")
    assert said["lookback"] == "15m, widened to 1h by what came late"
    assert said["used"] == "1,500 requests of 15,000 granted at present (10.0%) in the last 30d"
    assert (said["sweep"], said["heartbeat"]) == ("1,200", "300")
    assert said["next reading"].endswith(": a webhook came late")
    assert said["last sweep"].endswith("; one is under way, 1 of 2 pieces read")
    assert "(600.0 events)" not in said["quietest hours (UTC)"]
    values = json.loads(ledger.call("source", "show", "acme", "--json").stdout)
    assert values["next_reading"]["look"] == "late"
    assert values["sweep"]["pieces_done"] == 1
    assert values["list"]["learned"]["plan"]["median_s"] == 40
    assert values["list"]["grant"]["by_purpose"] == {"heartbeat": 300, "sweep": 1_200}
    assert values["configuration"]["every_s"] == 30
    assert ledger.call("status").stdout.count("reading: acme: It reads every 30s to 5m") == 1
