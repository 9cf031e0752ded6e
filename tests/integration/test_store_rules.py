"""The promises of the recorder, the writer and the leases, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
import pytest
from sqlalchemy import func, select, text

from gapless.bootstrap.runtime import make_writer
from gapless.deliver.routing import build_route
from gapless.domain import Cause, Mode, Owed, Route, Source, Via, to_us
from gapless.ledger import (
    Connection,
    events,
    leases,
    missing,
    passes,
    retention,
    snapshot,
    sources,
    streams,
    tallies,
    watermarks,
)
from gapless.ledger.engine import BadData, Store, StoreUnavailable, open_store
from gapless.ledger.leases import Lease, LeaseLost
from gapless.ledger.missing import Missing
from gapless.ledger.passes import Pass, PassKind
from gapless.ledger.recorder import Recorder, Sighting
from gapless.ledger.tables import DELIVERY, EVENT, PAYLOAD, TALLY
from gapless.ledger.writer import QueueFull, Unstorable, Writer
from gapless.metrics import Metrics
from gapless.settings import PublicSettings
from gapless_reconcilers.kit.contract import RemoteEvent, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio
T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
NO_ROUTE = build_route([])


def owed_to_one(*_: object) -> list[Owed]:
    return [Owed(destination_id=1, not_before_us=0)]


class LedgerSetup:
    """A ledger with one source, a recorder and a running writer."""

    def __init__(self, store: Store, source: Source, stream_id: int, writer: Writer) -> None:
        self.store, self.source, self.stream_id, self.writer = store, source, stream_id, writer

    def seen(self, key: str, via: Via = Via.WEBHOOK, body: bytes | None = None, **fields: object) -> Sighting:
        event = RemoteEvent(key=key, type="invoice.paid", occurred_at=T0, payload=b'{"id":"%b"}' % key.encode())
        cause = None if via in (Via.WEBHOOK, Via.IMPORT) else Cause.UNEXPLAINED
        raw = body or bytes(event.payload) if via is Via.WEBHOOK else None
        return Sighting(
            source=self.source,
            stream_id=self.stream_id,
            event=event,
            via=via,
            seen_us=to_us(T0),
            body=raw,
            cause=cause,
            **fields,  # type: ignore[arg-type]
        )

    async def push(self, *keys: str) -> list[int]:
        return list(await asyncio.gather(*(self.writer.record((self.seen(key),), 10) for key in keys)))

    async def list(self, *keys: str) -> int:
        seen = [self.seen(key, Via.LIST) for key in keys]
        return len(await self.writer.submit(self.writer.recorder.store, sightings=seen))

    async def note(self, via: Via, *keys: str) -> None:
        seen = [self.seen(key, via) for key in keys]
        await self.writer.submit(self.writer.recorder.store, sightings=seen)

    async def counts(self) -> dict[str, int]:
        totals = await self.store.read(tallies.totals, source_id=self.source.id)
        return {name: count for name, count in totals.counts.items() if count}

    async def oldest_missing_us(self) -> int | None:
        ledger = await self.store.read(snapshot.take_snapshot, sources=[self.source], now=T0)
        missed = ledger.sources[0].missing.get(self.stream_id)
        return None if missed is None else missed.oldest_open_us

    async def count(self, table: object) -> int:
        return int(await self.store.read(lambda c: c.execute(select(func.count()).select_from(table)).scalar_one()))


@asynccontextmanager
async def open_setup(store: Store, slot: int = 0, route: Route = NO_ROUTE) -> AsyncIterator[LedgerSetup]:
    writer = make_writer(PublicSettings(), store, Recorder(slot, route), Metrics("test"))
    running = asyncio.create_task(writer.run())
    source_id = await writer.submit(
        sources.register_source, name="acme", provider="stripe", mode="hybrid", start=T0 - HOUR, now=T0
    )
    (stream,) = await store.read(streams.streams, source_id=source_id)
    provider = Stripe(StripeOptions(api_key=Secret("sk_live_x")))

    source = Source(id=source_id, name="acme", provider=provider, mode=Mode.HYBRID, start=T0 - HOUR)
    try:
        yield LedgerSetup(store, source, stream.id, writer)
    finally:
        writer.close()
        await running


@pytest.fixture
async def setup(store: Store) -> AsyncIterator[LedgerSetup]:
    async with open_setup(store, route=owed_to_one) as setup:
        yield setup


async def test_a_webhook_and_then_the_list_is_one_event_that_was_not_missed(setup: LedgerSetup) -> None:
    assert await setup.push("a") == [1]
    assert await setup.list("a") == 0
    assert await setup.counts() == {"by_webhook": 1, "expected": 1}


async def test_the_list_and_then_the_webhook_is_one_event_missed_once_and_late_once(setup: LedgerSetup) -> None:
    assert await setup.list("a") == 1
    assert await setup.push("a", "a") == [0, 0]
    assert await setup.push("a") == [0]
    counts = {"by_list": 1, "expected": 1, "missed_unexplained": 1, "late": 1, "duplicates": 2}
    assert await setup.counts() == counts


async def test_listing_twice_counts_once(setup: LedgerSetup) -> None:
    assert (await setup.list("a", "b"), await setup.list("a", "b", "c")) == (2, 1)
    assert await setup.counts() == {"by_list": 3, "expected": 3, "missed_unexplained": 3}


async def test_what_was_imported_is_neither_missed_nor_late_nor_repeated(setup: LedgerSetup) -> None:
    await setup.note(Via.IMPORT, "a", "b")
    assert await setup.push("a") == [0]
    assert await setup.list("a", "b") == 0
    counts = await setup.counts()
    assert (counts["by_import"], counts.get("late", 0), counts.get("missed_unexplained", 0)) == (2, 0, 0)


async def test_repeats_within_one_batch_are_one_event_and_duplicates(setup: LedgerSetup) -> None:
    assert sorted(await setup.push(*["a"] * 40, *["b"] * 2)) == [0] * 40 + [1, 1]
    assert await setup.counts() == {"by_webhook": 2, "expected": 2, "duplicates": 40}
    assert await setup.count(EVENT) == await setup.count(PAYLOAD) == await setup.count(DELIVERY) == 2


async def test_every_event_keeps_its_own_payload_when_a_page_spans_two_blocks_of_ids(setup: LedgerSetup) -> None:
    await setup.list(*(f"first-{number}" for number in range(970)))
    await setup.push("known")
    await setup.list("known", *(f"second-{number}" for number in range(120)))
    rows = select(EVENT.c.key, PAYLOAD.c.body).outerjoin(PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id)
    found = await setup.store.read(lambda connection: connection.execute(rows).all())
    assert len(found) == 1091
    assert all(body == b'{"id":"%b"}' % key.encode() for key, body in found)


async def test_payload_ids_are_not_used_again_after_pruning_or_by_another_process(store: Store) -> None:
    async with open_setup(store) as setup:
        await setup.push("a", "b")
        gone = await setup.writer.submit(retention.prune_payloads, before_us=to_us(T0 + HOUR))
    assert gone.count == 2
    async with open_setup(store, slot=1) as setup:
        await setup.push("c")
        ids = select(EVENT.c.payload_id).order_by(EVENT.c.seq)
        a, b, c = await store.read(lambda connection: connection.execute(ids).scalars().all())
        assert c not in (a, b)
        assert await store.read(events.payload, seq=1) is None


async def test_tallies_of_several_writer_slots_are_summed(store: Store) -> None:
    for slot, keys in ((0, "ab"), (1, "bcd"), (2, "e")):
        async with open_setup(store, slot=slot) as setup:
            await setup.push(*keys)
            counts = await setup.counts()
            assert await setup.count(TALLY) == slot + 1
    assert counts == {"by_webhook": 5, "expected": 5, "duplicates": 1}


async def test_a_missing_row_counts_as_missed_once_whatever_closes_it(setup: LedgerSetup) -> None:
    def row(key: str) -> Missing:
        return Missing(
            source_id=setup.source.id,
            stream_id=setup.stream_id,
            key=key,
            type="invoice.paid",
            occurred_us=to_us(T0),
            found_us=to_us(T0),
            expected=True,
            cause=Cause.UNEXPLAINED,
            reason="unstorable",
        )

    for _ in range(2):
        await setup.writer.submit(missing.add, slot=0, found=[row("a"), row("b")])
    assert await setup.counts() == {"expected": 2, "missed_unexplained": 2}
    assert await setup.oldest_missing_us() == to_us(T0)
    await setup.list("a")
    await setup.push("b")
    counts = {"expected": 2, "missed_unexplained": 2, "by_list": 1, "by_webhook": 1, "late": 1}
    assert await setup.counts() == counts
    assert await setup.oldest_missing_us() is None


async def test_overlapping_batches_of_two_processes_in_both_orders_lose_nothing(postgres_url: str) -> None:
    stores = open_store(postgres_url), open_store(postgres_url)
    keys = [f"evt-{number}" for number in range(200)]
    try:
        async with open_setup(stores[0], 0) as one, open_setup(stores[1], 1) as two:
            for round_ in range(5):
                mine = [f"{key}-{round_}" for key in keys]
                await asyncio.gather(
                    one.push(*mine), two.push(*reversed(mine)), one.list(*mine), two.list(*reversed(mine))
                )
            counts = await one.counts()
            assert await one.count(EVENT) == 1000
            listed = counts.get("by_list", 0)
            assert counts["by_webhook"] + listed == counts["expected"] == 1000
            assert counts.get("missed_unexplained", 0) == listed
    finally:
        for store in stores:
            await store.close()


async def test_only_one_of_two_processes_gets_a_source_and_a_stale_epoch_writes_nothing(postgres_url: str) -> None:
    stores = open_store(postgres_url), open_store(postgres_url)
    try:
        async with open_setup(stores[0], 0) as one, open_setup(stores[1], 1) as two:
            short = timedelta(milliseconds=300)
            claim = partial(leases.claim, source_id=one.source.id, now_us=to_us(T0), ttl=short)
            both = await asyncio.gather(one.writer.submit(claim, holder="one"), two.writer.submit(claim, holder="two"))
            (first,) = [lease for lease in both if lease is not None]
            await asyncio.sleep(0.5)
            second = await two.writer.submit(claim, holder="two")
            assert second is not None
            assert second.epoch == first.epoch + 1

            row = await two.writer.submit(_begin, setup=two, lease=second)
            with pytest.raises(LeaseLost):
                await one.writer.submit(_move_watermark, lease=first, row=row, stream_id=one.stream_id)
            (stream,) = await one.store.read(streams.streams, source_id=one.source.id)
            assert stream.watermark_us == to_us(T0 - HOUR)
            await two.writer.submit(_move_watermark, lease=second, row=row, stream_id=two.stream_id)
            (stream,) = await one.store.read(streams.streams, source_id=one.source.id)
            assert stream.watermark_us == to_us(T0)
    finally:
        for store in stores:
            await store.close()


async def test_the_locks_of_a_process_that_is_paused_in_a_transaction_end_before_its_lease(postgres_url: str) -> None:
    store = open_store(postgres_url)
    shown = text("SELECT setting::int FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'")
    try:
        for _ in range(2):
            allowed_ms = await store.write(lambda connection: connection.execute(shown).scalar_one())
            assert timedelta() < timedelta(milliseconds=allowed_ms) < leases.SOURCE_LEASE
    finally:
        await store.close()


def _begin(connection: Connection, setup: LedgerSetup, lease: Lease) -> Pass:
    leases.fence(connection, lease)
    planned = Pass(
        id=0,
        source_id=setup.source.id,
        stream_id=setup.stream_id,
        kind=PassKind.SCHEDULED,
        start_us=to_us(T0 - HOUR),
        end_us=to_us(T0),
        started_us=to_us(T0),
    )
    return passes.begin(connection, planned, [(planned.start_us, planned.end_us)])


def _move_watermark(connection: Connection, lease: Lease, row: Pass, stream_id: int) -> None:
    assert row.stream_id == stream_id
    leases.fence(connection, lease)
    (part,) = passes.slices(connection, row.id)
    passes.finish_slice(connection, part.id, 0, 0)
    watermarks.advance(connection, row, watermarks.Limits(latest_us=row.end_us), slot=0)


async def test_a_full_queue_says_so_at_once_and_closing_commits_what_waits(store: Store) -> None:
    async with open_setup(store) as setup:
        small = make_writer(
            PublicSettings(queue_max=3, queue_max_bytes=1000), store, Recorder(0, NO_ROUTE), Metrics("test")
        )
        waiting = [small.record((setup.seen(key),), 10) for key in "abc"]
        with pytest.raises(QueueFull):
            small.record((setup.seen("d"),), 10)
        running = asyncio.create_task(small.run())
        small.close()
        assert await asyncio.gather(*waiting) == [1, 1, 1]
        await running
        with pytest.raises(StoreUnavailable):
            await small.submit(tallies.totals)


async def test_one_webhook_that_cannot_be_stored_fails_alone(setup: LedgerSetup) -> None:
    bad = setup.seen("bad")
    msgspec.structs.force_setattr(bad.event, "type", "\ud800")  # past the check that keeps it out
    results = await asyncio.gather(
        *(setup.writer.record((setup.seen(f"good-{number}"),), 1) for number in range(9)),
        setup.writer.record((bad,), 1),
        return_exceptions=True,
    )
    assert results[:9] == [1] * 9
    assert isinstance(results[9], Unstorable)
    with pytest.raises(BadData):
        await setup.writer.submit(setup.writer.recorder.store, sightings=[bad])
    assert await setup.count(EVENT) == 9
