"""Lists are read up to now: what they show early is recorded at once, and is missed only once its grace is over."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from world import T0, Daemon, FakeClock, InProcess, World

from gapless.domain import Mode, from_us, to_us
from gapless.ledger import Connection, events, leases, restored
from gapless.ledger.tables import EVENT, FINDING, SLICE, STREAM
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = pytest.mark.anyio
MINUTE, GRACE = timedelta(minutes=1), timedelta(seconds=60)


class Died(Exception):
    """The process ends here."""


async def counts(world: World) -> dict[str, int]:
    """What is counted of expected events and their webhooks."""
    found = (await world.totals()).counts
    names = ("expected", "missed_unexplained", "missed_refused", "late", "duplicates")
    return {name: found[name] for name in names if found[name]}


async def open_findings(world: World) -> int:
    return await world.store.read(lambda c: c.execute(select(func.count()).select_from(FINDING)).scalar_one())


async def missed_keys(world: World) -> set[str]:
    return {each.key for each in await world.store.read(events.recent, missed=True)}


async def found_early(world: World, daemon: Daemon, clock: FakeClock) -> FakeEvent:
    """An event that a pass has recorded, and whose webhook may still come."""
    lost = world.fake.emit("invoice.paid")
    clock.advance(seconds=12)
    await daemon.run_source()
    assert await world.via() == {lost.key: "list"}
    assert await counts(world) == {"expected": 1}
    assert await open_findings(world) == 1
    return lost


async def test_a_listed_event_is_recorded_early_and_missed_late(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        lost = await found_early(world, daemon, clock)
        assert await missed_keys(world) == set()
        clock.advance(seconds=50)
        await daemon.run_source()
        assert await counts(world) == {"expected": 1, "missed_unexplained": 1}
        assert (await missed_keys(world), await open_findings(world)) == ({lost.key}, 0)
        losses = (await world.report()).losses
        assert losses is not None
        assert (losses.expected, losses.missed_in_all, losses.recovered) == (1, 1, 1)
        await daemon.push(lost)
        await daemon.push(lost)
        assert await counts(world) == {"expected": 1, "missed_unexplained": 1, "late": 1, "duplicates": 1}


async def test_a_webhook_before_the_grace_is_over_leaves_nothing_missed(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        lost = await found_early(world, daemon, clock)
        clock.advance(seconds=10)
        await daemon.push(lost)
        for _ in range(3):
            clock.advance(minutes=2)
            await daemon.run_source()
        assert await counts(world) == {"expected": 1}
        assert await open_findings(world) == 0
        await daemon.push(lost)
        assert await counts(world) == {"expected": 1, "duplicates": 1}


async def test_the_watermark_judges_even_if_it_comes_late_itself(world: World, clock: FakeClock) -> None:
    """Between grace and judgement a webhook is still in time, because nothing was claimed."""
    async with world.daemon() as daemon:
        lost = await found_early(world, daemon, clock)
        clock.advance(minutes=30)
        await daemon.push(lost)
        await daemon.run_source()
        assert await counts(world) == {"expected": 1}


async def test_what_is_younger_than_settle_is_left_to_the_next_pass(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        old = world.fake.emit("invoice.paid")
        clock.advance(seconds=6)
        young = world.fake.emit("invoice.paid")
        clock.advance(seconds=6)
        await daemon.run_source()
        assert await world.keys() == {old.key}
        clock.advance(seconds=10)
        await daemon.run_source()
        assert await world.keys() == {old.key, young.key}


async def test_a_pass_reads_to_now_and_claims_to_the_grace(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        clock.advance(minutes=5, milliseconds=300)
        await daemon.run_source()
        (row,) = await world.passes()
        assert from_us(row["end_us"]) == T0 + 5 * MINUTE + timedelta(seconds=1)
        stream = await world.stream()
        assert from_us(stream.watermark_us) == T0 + 4 * MINUTE
        assert stream.checked_us == row["started_us"]


async def test_a_pass_on_demand_leaves_young_events_too(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        clock.advance(minutes=5)
        await daemon.run_source()
        old = world.fake.emit("invoice.paid")
        clock.advance(seconds=12)
        young = world.fake.emit("invoice.paid")
        clock.advance(seconds=1)
        await daemon.demand(T0, clock())
        await daemon.run_source()
        assert await world.keys() == {old.key}
        assert await counts(world) == {"expected": 1}
        assert young.key not in await world.keys()


async def test_a_source_that_only_polls_waits_for_no_webhook(world: World, clock: FakeClock) -> None:
    world.mode = Mode.POLL
    async with world.daemon(types=["*"]) as daemon:
        event = world.fake.emit("invoice.paid")
        clock.advance(seconds=1)
        await daemon.run_source()
        assert await world.keys() == {event.key}
        assert (await counts(world), await open_findings(world)) == ({}, 0)


async def test_settle_stays_below_the_grace(world: World, clock: FakeClock) -> None:
    async with world.daemon(settle=timedelta(hours=1)) as daemon:
        event = world.fake.emit("invoice.paid")
        clock.advance(seconds=58)
        await daemon.run_source()
        assert await world.keys() == set()
        clock.advance(seconds=1)
        await daemon.run_source()
        assert (await world.keys(), await open_findings(world)) == ({event.key}, 1)


async def test_the_age_is_that_of_the_page_not_of_the_pass(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    """A pass that goes on later reads older rows, and its claim stays that of its start."""
    events = [world.fake.emit("invoice.paid") for _ in range(4)]
    clock.advance(seconds=5)
    asked: list[httpx.Request] = []

    def die(request: httpx.Request) -> None:
        asked.append(request)
        if len(asked) == 2:
            raise Died

    transport.before = die
    with pytest.raises(BaseExceptionGroup):
        async with world.daemon(page_limit=2) as daemon:
            await daemon.run_source()
    assert await world.keys() == set()
    await world.store.write(leases.clear)
    clock.advance(seconds=90)
    async with world.daemon(page_limit=2) as daemon:
        await daemon.run_source()
        assert await world.keys() == {event.key for event in events}
        assert await counts(world) == {"expected": 4, "missed_unexplained": 4}


async def test_nothing_is_claimed_from_a_row_that_was_left(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    """The first page was read while its rows were young, and its cursor is stored with the first of them."""
    world.fake.emit("invoice.paid")
    world.fake.emit("invoice.paid")
    clock.advance(seconds=30)
    young = [world.fake.emit("invoice.paid") for _ in range(2)]
    clock.advance(seconds=1)

    def fail(request: httpx.Request) -> None:
        world.fake.faults = Faults(error_rate=1.0 if "starting_after" in request.url.params else 0.0)

    transport.before = fail
    async with world.daemon(page_limit=2) as daemon:
        await daemon.demand(T0, clock())
        await daemon.run_source()
        transport.before, world.fake.faults = (lambda _: None), Faults()
        lefts = await world.store.read(lambda c: list(c.execute(select(SLICE.c.left_us)).scalars()))
        assert to_us(young[0].occurred_at) in lefts


async def test_what_lies_behind_the_watermark_is_judged_at_once(world: World, clock: FakeClock) -> None:
    """A clock that was ahead has left the watermark there: nothing may stay unjudged behind it."""
    ahead = to_us(T0 + timedelta(hours=1))

    def move(connection: Connection) -> Any:
        return connection.execute(STREAM.update().values(watermark_us=ahead)).rowcount

    async with world.daemon() as daemon:
        world.fake.emit("invoice.paid")
        clock.advance(seconds=12)
        await daemon.runtime.write(move)
        await daemon.run_source()
        assert await counts(world) == {"expected": 1, "missed_unexplained": 1}
        assert await open_findings(world) == 0


async def test_findings_survive_the_process(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        await found_early(world, daemon, clock)
    await world.store.write(leases.clear)
    clock.advance(minutes=2)
    async with world.daemon() as daemon:
        await daemon.run_source()
    assert await counts(world) == {"expected": 1, "missed_unexplained": 1}


async def test_a_restored_backup_judges_nothing_of_before(world: World, clock: FakeClock) -> None:
    """The webhook may have come after the backup."""
    async with world.daemon() as daemon:
        await found_early(world, daemon, clock)
        now_us = daemon.runtime.now_us
        await daemon.runtime.write(lambda c: restored.note(c, now_us, now_us, ()))
        clock.advance(minutes=5)
        await daemon.run_source()
        assert await counts(world) == {"expected": 1}


async def test_what_the_vendor_forgets_is_judged_first(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        await found_early(world, daemon, clock)
        clock.advance(days=40)
        await daemon.run_source()
        assert await counts(world) == {"expected": 1, "missed_unexplained": 1}
        assert len(await world.unrecoverable()) == 1


@pytest.mark.parametrize("seconds", [0, 30, 59])
async def test_no_event_is_twice_expected(world: World, clock: FakeClock, seconds: int) -> None:
    async with world.daemon() as daemon:
        lost = await found_early(world, daemon, clock)
        clock.advance(seconds=seconds)
        for _ in range(3):
            await daemon.run_source()
        await daemon.push(lost)
        clock.advance(minutes=2)
        await daemon.run_source()
        found = await counts(world)
        assert found["expected"] == 1
        assert found.get("missed_unexplained", 0) == found.get("late", 0) == (seconds == 59)


def _recount(connection: Connection) -> int:
    return connection.execute(select(func.count()).where(EVENT.c.missed_cause.is_not(None))).scalar_one()


async def test_figures_are_a_recount_of_the_events(world: World, clock: FakeClock) -> None:
    recount: Callable[[Connection], int] = _recount
    async with world.daemon() as daemon:
        for number in range(12):
            event = world.fake.emit("invoice.paid")
            clock.advance(seconds=17)
            await daemon.run_source()
            if number % 3 == 0:
                await daemon.push(event)
            assert await world.missed() == await world.store.read(recount)
        clock.advance(minutes=5)
        await daemon.run_source()
        assert (await world.missed(), await open_findings(world)) == (8, 0)
