"""A webhook and a pass that meet at one event, each in its own connection: one event, one count, no row left open."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from msgspec import structs
from sqlalchemy import select

from gapless.deliver.routing import build_route
from gapless.domain import Cause, Mode, Source, Via, to_us
from gapless.ledger import Connection, findings, missing, sources, streams, tallies
from gapless.ledger.engine import Store, open_store
from gapless.ledger.missing import Missing
from gapless.ledger.recorder import Recorder, Sighting
from gapless.ledger.tables import EVENT, MISSING
from gapless_reconcilers.kit.contract import RemoteEvent, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio
Work = Callable[[Connection], object]
T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
RECORDER = Recorder(0, build_route([]))
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def sighting() -> Sighting:
    event = RemoteEvent(key="evt_1", type="invoice.paid", occurred_at=T0, payload=b"{}")
    provider = Stripe(StripeOptions(api_key=Secret("sk_live_x")))
    source = Source(id=1, name="acme", provider=provider, mode=Mode.HYBRID, start=T0 - timedelta(hours=1))
    return Sighting(source=source, stream_id=1, event=event, via=Via.WEBHOOK, seen_us=to_us(T0), body=b"{}")


def record(connection: Connection) -> object:
    return RECORDER.record_webhooks(connection, [(sighting(),)])


def note_missing(connection: Connection) -> object:
    row = Missing(
        source_id=1, stream_id=1, key="evt_1", type="invoice.paid", occurred_us=to_us(T0), found_us=to_us(T0),
        expected=True, cause=Cause.UNEXPLAINED, reason="detail",
    )  # fmt: skip
    return missing.add(connection, 1, [row, row])


async def prepare(store: Store) -> None:
    def work(connection: Connection) -> None:
        source_id = sources.register_source(connection, "acme", "stripe", "hybrid", T0 - timedelta(hours=1), T0)
        assert (source_id, streams.streams(connection, source_id)[0].id) == (1, 1)

    await store.write(work)


async def outcome(store: Store) -> tuple[list[str], list[str], dict[str, int]]:
    """Return how the event was recorded, the states of missing rows, and the counts."""
    return (
        await store.read(lambda c: list(c.execute(select(EVENT.c.via)).scalars())),
        await store.read(lambda c: list(c.execute(select(MISSING.c.state)).scalars())),
        {name: n for name, n in (await store.read(tallies.totals, source_id=1)).counts.items() if n},
    )


@pytest.fixture
async def pair(postgres_url: str) -> AsyncIterator[tuple[Store, Store]]:
    """Two processes, each with its connection."""
    stores = open_store(postgres_url), open_store(postgres_url)
    try:
        await prepare(stores[0])
        yield stores
    finally:
        for each in stores:
            await each.close()


async def interleave(
    url: str, pair: tuple[Store, Store], first: Callable[[Connection], object], second: Callable[[Connection], object]
) -> None:
    """Run `first` up to its commit, begin `second`, which must then wait for it, and commit `first`."""
    loop, ready, go_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def hold(connection: Connection) -> None:
        first(connection)
        driver = connection.connection.dbapi_connection
        loop.call_soon(ready.set)
        driver.run_async(lambda _: go_on.wait())  # type: ignore[union-attr]

    async with asyncio.TaskGroup() as group:
        group.create_task(pair[0].write(hold))
        await ready.wait()
        group.create_task(pair[1].write(second))
        session = await asyncpg.connect(url)
        try:
            while not await session.fetchval(WAITS):
                await asyncio.sleep(0.01)
        finally:
            await session.close()
        go_on.set()


async def test_a_webhook_under_way_makes_no_missing_row(pair: tuple[Store, Store], postgres_url: str) -> None:
    await interleave(postgres_url, pair, record, note_missing)
    assert await outcome(pair[0]) == (["webhook"], [], {"by_webhook": 1, "expected": 1})


async def test_a_webhook_closes_a_missing_row_under_way(pair: tuple[Store, Store], postgres_url: str) -> None:
    await interleave(postgres_url, pair, note_missing, record)
    counts = {"by_webhook": 1, "expected": 1, "missed_unexplained": 1, "late": 1}
    assert await outcome(pair[0]) == (["webhook"], ["recovered"], counts)


def find(connection: Connection) -> object:
    """Record the event as a listing shows it before its grace is over."""
    listed = structs.replace(
        sighting(), via=Via.LIST, body=None, cause=Cause.UNEXPLAINED, awaited_until_us=to_us(T0 + timedelta(minutes=1))
    )
    return RECORDER.store(connection, [listed])


def note_awaited(connection: Connection) -> object:
    row = Missing(
        source_id=1, stream_id=1, key="evt_1", type="invoice.paid", occurred_us=to_us(T0), found_us=to_us(T0),
        expected=True, cause=Cause.UNEXPLAINED, reason="detail", awaited=True,
    )  # fmt: skip
    return missing.add(connection, 1, [row])


def judge(connection: Connection) -> object:
    return findings.judge(connection, 1, 1, to_us(T0) + 1)


@pytest.mark.parametrize(
    ("found", "by", "states"), [(find, "by_list", []), (note_awaited, "by_webhook", ["recovered"])]
)
async def test_a_webhook_under_way_leaves_nothing_missed(
    pair: tuple[Store, Store], postgres_url: str, found: Work, by: str, states: list[str]
) -> None:
    await pair[0].write(found)
    await interleave(postgres_url, pair, record, judge)
    assert await outcome(pair[0]) == ([by.removeprefix("by_")], states, {by: 1, "expected": 1})


@pytest.mark.parametrize(
    ("found", "by", "states"), [(find, "by_list", []), (note_awaited, "by_webhook", ["recovered"])]
)
async def test_a_webhook_that_waits_for_the_judgement_is_late(
    pair: tuple[Store, Store], postgres_url: str, found: Work, by: str, states: list[str]
) -> None:
    await pair[0].write(found)
    await interleave(postgres_url, pair, judge, record)
    counts = {by: 1, "expected": 1, "missed_unexplained": 1, "late": 1}
    assert await outcome(pair[0]) == ([by.removeprefix("by_")], states, counts)


@pytest.mark.parametrize("found", [find, note_awaited])
@pytest.mark.parametrize("judged_first", [True, False])
async def test_the_order_of_webhook_and_judgement_decides(store: Store, found: Work, *, judged_first: bool) -> None:
    await prepare(store)
    for work in (found, *((judge, record) if judged_first else (record, judge))):
        await store.write(work)
    _, _, counts = await outcome(store)
    assert counts["expected"] == 1
    assert (counts.get("missed_unexplained", 0), counts.get("late", 0)) == ((1, 1) if judged_first else (0, 0))
    assert "duplicates" not in counts


async def test_the_insert_decides_on_both_stores(store: Store) -> None:
    await prepare(store)
    await store.write(record)
    await store.write(note_missing)
    assert await outcome(store) == (["webhook"], [], {"by_webhook": 1, "expected": 1})


async def test_a_claim_leaves_no_event(store: Store) -> None:
    await prepare(store)
    for _ in range(2):
        await store.write(note_missing)
    assert await outcome(store) == ([], ["open"], {"expected": 1, "missed_unexplained": 1})
    await store.write(record)
    counts = {"by_webhook": 1, "expected": 1, "missed_unexplained": 1, "late": 1}
    assert await outcome(store) == (["webhook"], ["recovered"], counts)
