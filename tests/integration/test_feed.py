"""Following the ledger by cursor: nothing is skipped, and a cursor of another ledger is told from ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from gapless.bootstrap.runtime import make_writer
from gapless.cli.commands.event import _next
from gapless.deliver.routing import build_route
from gapless.domain import Mode, Source, Via, to_us
from gapless.ledger import feed, retention, sources, streams
from gapless.ledger.engine import Store, open_store
from gapless.ledger.feed import NOTHING_KNOWN, START, FeedEvent, Position, Settled
from gapless.ledger.recorder import Recorder, Sighting
from gapless.metrics import Metrics
from gapless.settings import PublicSettings
from gapless_reconcilers.kit.contract import RemoteEvent, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio
T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
HELD_OPEN = (
    "INSERT INTO event (source_id, stream_id, key, type, occurred_us, first_seen_us, via) "
    "VALUES (1, 1, $1, 'invoice.paid', 0, 0, 'webhook')"
)


class Ledger:
    """A ledger with one source, and somebody who follows it as a reader does."""

    def __init__(self, store: Store, record: object) -> None:
        self.store, self._record = store, record
        self.known, self.after = NOTHING_KNOWN, 0
        self.seen: list[str] = []

    async def record(self, *keys: str, at: datetime = T0, payload: bytes = b"{}") -> None:
        await self._record(keys, at, payload)  # type: ignore[operator]

    async def follow(self) -> Settled:
        """Read on as far as one may."""
        self.known = await self.store.read(feed.settled, self.known)
        rows = await self.store.read(feed.page, self.after, self.known.seq or 0, 1000)
        self.seen += [row.key for row in rows]
        self.after = rows[-1].seq if rows else self.after
        return self.known

    async def events(self) -> list[FeedEvent]:
        return await self.store.read(feed.page, 0, 1 << 40, 1000)


@asynccontextmanager
async def ledger_at(store: Store) -> AsyncIterator[Ledger]:
    writer = make_writer(PublicSettings(), store, Recorder(0, build_route([])), Metrics("test"))
    running = asyncio.create_task(writer.run())
    start = T0 - timedelta(days=1)
    source_id = await writer.submit(
        sources.register_source, name="acme", provider="stripe", mode="hybrid", start=start, now=T0
    )
    (stream,) = await store.read(streams.streams, source_id=source_id)
    provider = Stripe(StripeOptions(api_key=Secret("sk_live_x")))
    source = Source(id=source_id, name="acme", provider=provider, mode=Mode.HYBRID, start=start)

    async def record(keys: tuple[str, ...], at: datetime, payload: bytes) -> None:
        seen = [
            Sighting(
                source=source,
                stream_id=stream.id,
                event=RemoteEvent(key=key, type="invoice.paid", occurred_at=at, payload=payload),
                via=Via.WEBHOOK,
                seen_us=to_us(at),
                body=payload,
            )
            for key in keys
        ]
        await writer.submit(writer.recorder.store, sightings=seen)

    try:
        yield Ledger(store, record)
    finally:
        writer.close()
        await running


@pytest.fixture
async def ledger(store: Store) -> AsyncIterator[Ledger]:
    async with ledger_at(store) as made:
        yield made


async def test_all_that_is_recorded_is_settled(ledger: Ledger) -> None:
    assert await ledger.follow() == Settled(seq=0, newest=0)
    await ledger.record("a", "b")
    await ledger.record("c")
    await ledger.follow()
    assert ledger.seen == ["a", "b", "c"]


async def test_nothing_is_skipped_while_a_transaction_is_open(postgres_url: str) -> None:
    """Its seq is lower than those that others commit meanwhile: whoever goes on after the highest never sees it."""
    store = open_store(postgres_url)
    session = await asyncpg.connect(postgres_url)
    try:
        async with ledger_at(store) as ledger:
            await ledger.record("first")
            await ledger.follow()
            async with session.transaction():
                await session.execute(HELD_OPEN, "held")
                await ledger.record("later", "latest")
                assert [row.key for row in await ledger.events()] == ["first", "later", "latest"]
                for _ in range(3):
                    assert (await ledger.follow()).writers
                assert ledger.seen == ["first"]
            await ledger.follow()
            assert ledger.seen == ["first", "held", "later", "latest"]
            async with session.transaction():
                await session.execute(HELD_OPEN, "taken back")
                await ledger.record("more")
                await ledger.follow()
                await session.execute("SAVEPOINT here")
                await session.execute(HELD_OPEN, "again")
                await session.execute("ROLLBACK TO here")
                await ledger.record("most")
                await ledger.follow()
                assert ledger.seen[4:] == []
                await session.execute("DELETE FROM event WHERE key = 'taken back'")
            await ledger.follow()
            await ledger.follow()
            assert ledger.seen[4:] == ["more", "most"]
    finally:
        await session.close()
        await store.close()


async def test_the_first_look_waits_for_an_open_transaction(postgres_url: str) -> None:
    """From now on is not known before it has ended."""
    store = open_store(postgres_url)
    session = await asyncpg.connect(postgres_url)
    try:
        async with ledger_at(store) as ledger:
            async with session.transaction():
                await session.execute(HELD_OPEN, "held")
                await ledger.record("later")
                assert (await ledger.follow()).seq is None
                assert (await ledger.follow()).seq is None
            assert (await ledger.follow()).seq == 2
    finally:
        await session.close()
        await store.close()


async def test_what_only_reads_the_ledger_holds_nothing_up(postgres_url: str) -> None:
    """A backup for hours, or somebody's query: it takes no seq."""
    store = open_store(postgres_url)
    session = await asyncpg.connect(postgres_url)
    try:
        async with ledger_at(store) as ledger, session.transaction(isolation="repeatable_read"):
            await session.fetch("SELECT * FROM event")
            await session.execute("SELECT pg_current_xact_id()")
            await ledger.record("a")
            assert (await ledger.follow()).seq == 1
    finally:
        await session.close()
        await store.close()


async def test_seqs_are_taken_one_by_one(postgres_url: str) -> None:
    """`settled` needs it: a session with a block of its own could take a low seq late."""
    session = await asyncpg.connect(postgres_url)
    try:
        cached = "SELECT seqcache FROM pg_sequence WHERE seqrelid = pg_get_serial_sequence('event', 'seq')::regclass"
        assert await session.fetchval(cached) == 1
    finally:
        await session.close()


async def test_event_tail_waits_for_what_may_still_precede(postgres_url: str) -> None:
    store = open_store(postgres_url)
    session = await asyncpg.connect(postgres_url)
    try:
        async with ledger_at(store) as ledger:
            await ledger.record("before")
            known, after, rows = await store.read(_next, NOTHING_KNOWN, None, None)
            assert (after, rows) == (1, [])
            async with session.transaction():
                await session.execute(HELD_OPEN, "held")
                await ledger.record(*(f"later-{n}" for n in range(1500)))
                known, after, rows = await store.read(_next, known, after, None)
                assert rows == []
            found = []
            while not found or rows:
                known, after, rows = await store.read(_next, known, after, None)
                found += [row.key for row in rows]
            assert found == ["held", *sorted(f"later-{n}" for n in range(1500))]
    finally:
        await session.close()
        await store.close()


async def test_a_cursor_is_known_again_and_one_of_another_ledger_is_not(ledger: Ledger) -> None:
    await ledger.record("a", "b", "c")
    second = (await ledger.events())[1]
    position = feed.read_cursor(second.position.cursor)
    assert position == second.position
    assert position is not None
    assert await ledger.store.read(feed.is_known, position)
    assert await ledger.store.read(feed.is_known, START)
    for other in (
        Position(seq=2, mark=bytes(8)),
        Position(seq=99, mark=position.mark),
        Position(seq=3, mark=position.mark),
    ):
        assert not await ledger.store.read(feed.is_known, other)
    rest = await ledger.store.read(feed.page, position.seq, 1 << 40, 10)
    assert [row.key for row in rest] == ["c"]


@pytest.mark.parametrize("text", ["", "x", "é" * 23, "!" * 23, "A" * 23, "Ag" + "A" * 21, "A" * 24, "Af" + "_" * 21])
def test_what_is_no_cursor_is_told_at_once(text: str) -> None:
    assert feed.read_cursor(text) is None


async def test_a_time_leads_to_a_position_before_all_that_was_recorded_since(ledger: Ledger) -> None:
    for n in range(40):
        await ledger.record(f"e{n}", at=T0 + timedelta(minutes=n))
    position = await ledger.store.read(feed.position_since, to_us(T0 + timedelta(minutes=20)))
    keys = [row.key for row in await ledger.store.read(feed.page, position.seq, 1 << 40, 100)]
    assert keys[-20:] == [f"e{n}" for n in range(20, 40)]
    assert len(keys) <= 22
    assert await ledger.store.read(feed.position_since, 0) == START
    end = await ledger.store.read(feed.position_since, to_us(T0 + timedelta(days=1)))
    assert await ledger.store.read(feed.page, end.seq, 1 << 40, 100) == []


async def test_payloads_are_read_within_bytes_and_pruned_ones_are_left_out(ledger: Ledger) -> None:
    for n in range(4):
        await ledger.record(f"e{n}", at=T0 + timedelta(hours=n), payload=b'"%b"' % (b"x" * 998))
    ids = [row.payload_id for row in await ledger.events()]
    count, found = await ledger.store.read(feed.payloads, ids, 2500)
    assert (count, sorted(found)) == (2, ids[:2])
    assert (await ledger.store.read(feed.payloads, ids, 1))[0] == 1
    await ledger.store.write(retention.prune_payloads, before_us=to_us(T0) + 1)
    count, found = await ledger.store.read(feed.payloads, ids, 1 << 20)
    assert (count, sorted(found)) == (4, ids[1:])
