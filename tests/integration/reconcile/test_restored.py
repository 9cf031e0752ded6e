"""A ledger that was restored from a backup: what it lacks is no miss, and nothing of it is delivered twice unseen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select
from world import T0, Daemon, FakeClock, World

from gapless.domain import Mode, Owed, Via, from_us
from gapless.ledger import destinations
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.engine.dialect import one_snapshot
from gapless.ledger.tables import DELIVERY, EVENT, METADATA
from gapless.operations.context import OperationContext, OperationRefused
from gapless.operations.registry import perform
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds

pytestmark = pytest.mark.anyio
Backup = dict[str, list[dict[str, Any]]]


def back_up(connection: Connection) -> Backup:
    one_snapshot(connection)
    return {
        table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
        for table in METADATA.sorted_tables
    }


def put_back(connection: Connection, backup: Backup) -> None:
    for table in METADATA.sorted_tables:
        connection.execute(delete(table))
        if backup[table.name]:
            connection.execute(insert(table), backup[table.name])


@asynccontextmanager
async def process(world: World) -> AsyncIterator[Daemon]:
    """Run a process with one destination, which is owed everything."""
    made = destinations.register_destination
    destination_id = await world.store.write(made, name="billing", since=world.start)
    async with world.daemon(route=lambda *args: [Owed(destination_id=destination_id, not_before_us=args[3])]) as daemon:
        yield daemon


async def note_restored(daemon: Daemon, since: datetime) -> dict[str, Any]:
    runtime = daemon.runtime
    evidence = EvidenceFetcher(daemon.world.client, runtime.clock, runtime.metrics)
    context = OperationContext(runtime=runtime, evidence=evidence, stream_ids=StreamIds(runtime.writer))
    return await perform(context, "db.restored", {"since": since})


async def owed(world: World, state: DeliveryState) -> set[str]:
    query = select(EVENT.c.key).join(DELIVERY, DELIVERY.c.event_seq == EVENT.c.seq).where(DELIVERY.c.state == state)
    return set(await world.store.read(lambda c: c.execute(query).scalars().all()))


async def restored_an_hour_later(world: World, clock: FakeClock) -> tuple[set[str], set[str]]:
    """Record webhooks for an hour, go back to a backup of its beginning; return the keys before and within the hour."""
    async with process(world) as daemon:
        before = [world.fake.emit("invoice.paid") for _ in range(20)]
        clock.advance(minutes=5)
        await daemon.push(*before[:10])
        backup, _ = await asyncio.gather(world.store.read(back_up), daemon.push(*before[10:]))  # under load
        for _ in range(30):
            clock.advance(minutes=2)
            await daemon.push(world.fake.emit("invoice.paid"))
        await daemon.run_source()
        assert await world.missed() == 0
    await world.store.write(put_back, backup=backup)
    clock.advance(minutes=1)
    kept = await world.keys()
    return kept, world.listed() - kept


async def test_what_a_backup_lacks_is_found_and_no_miss(world: World, clock: FakeClock) -> None:
    kept, gone = await restored_an_hour_later(world, clock)
    assert len(gone) >= 30
    async with process(world) as daemon:
        await note_restored(daemon, T0 + timedelta(minutes=5))
        clock.advance(minutes=2)
        lost = world.fake.emit("invoice.paid", push=False)
        clock.advance(minutes=2)
        await daemon.run_source()
    assert await world.keys() == world.listed()
    totals = await world.totals()
    assert (totals.missed, totals.counts["expected"]) == (1, len(kept) + 1)
    assert {key for key, via in (await world.via()).items() if via == Via.LIST} == gone | {lost.key}


async def test_what_may_have_been_delivered_before_is_held(world: World, clock: FakeClock) -> None:
    kept, gone = await restored_an_hour_later(world, clock)
    async with process(world) as daemon:
        done = await note_restored(daemon, T0 + timedelta(minutes=5))
        clock.advance(minutes=2)
        await daemon.run_source()
        assert done["held"] == len(kept)
        assert await owed(world, DeliveryState.HELD) == kept | gone
        new = world.fake.emit("invoice.paid")
        await daemon.push(new)
        assert await owed(world, DeliveryState.PENDING) == {new.key}


async def test_without_being_told_it_would_all_count_as_missed(world: World, clock: FakeClock) -> None:
    _, gone = await restored_an_hour_later(world, clock)
    clock.advance(minutes=2)
    async with process(world) as daemon:
        await daemon.run_source()
    assert await world.missed() == len(gone)


async def test_of_a_source_that_lists_nothing_the_interval_is_unrecoverable(world: World, clock: FakeClock) -> None:
    world.mode = Mode.WEBHOOK
    clock.advance(hours=1)
    async with process(world) as daemon:
        done = await note_restored(daemon, T0)
    assert done["unlisted"] == ["acme"]
    (loss,) = await world.unrecoverable()
    assert (from_us(loss.start_us), from_us(loss.end_us), loss.reason) == (T0, clock(), "restored")


async def test_a_backup_of_the_future_is_refused(world: World, clock: FakeClock) -> None:
    async with process(world) as daemon:
        with pytest.raises(OperationRefused, match="yet to come"):
            await note_restored(daemon, clock() + timedelta(minutes=1))
