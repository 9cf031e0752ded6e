"""A clock of ours that is wrong, or that jumps, while the provider says what time it is."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import httpx
import pytest
from sqlalchemy import update
from world import T0, FakeClock, InProcess, World, new_fake

from gapless.clock import ProcessClock
from gapless.domain import Purpose, from_us, span_us, to_us
from gapless.ledger import leases, sources
from gapless.ledger.engine import Store
from gapless.ledger.tables import PASS, SOURCE, STREAM

pytestmark = pytest.mark.anyio
MINUTE, HOUR, YEAR = timedelta(minutes=1), timedelta(hours=1), timedelta(days=365)


class OurClock(ProcessClock):
    """The clock of a process: time elapses and the clock jumps only as a test says."""

    def __init__(self) -> None:
        self._elapsed_us = 0
        super().__init__(lambda: T0)

    def elapsed_us(self) -> int:
        return self._elapsed_us

    def advance(self, span: timedelta) -> None:
        self._elapsed_us += span_us(span)

    def jump(self, by: timedelta) -> None:
        self.set(self() + by)


@dataclass(kw_only=True)
class TwoClocks:
    """A world in which our clock and the provider's are not the same."""

    world: World
    ours: OurClock
    theirs: FakeClock

    def advance(self, span: timedelta) -> None:
        self.ours.advance(span)
        self.theirs.now += span


@pytest.fixture
async def two(store: Store) -> AsyncIterator[TwoClocks]:
    ours, theirs = OurClock(), FakeClock()
    fake, known = new_fake(theirs), cast("FakeClock", ours)
    async with httpx.AsyncClient(transport=InProcess(fake=fake)) as client:
        world = World(store=store, clock=known, fake=fake, client=client)
        await world.open()
        yield TwoClocks(world=world, ours=ours, theirs=theirs)


async def test_nothing_is_written_off_by_a_clock_that_is_a_year_ahead(two: TwoClocks) -> None:
    """Before the first answer of a process, only its own clock is known."""
    two.advance(5 * MINUTE)
    two.ours.jump(YEAR)
    lost = two.world.fake.emit("invoice.paid")
    two.theirs.now += 5 * MINUTE
    async with two.world.daemon() as daemon:
        await daemon.run_source()
    assert await two.world.keys() == {lost.key}
    assert await two.world.unrecoverable() == ()
    assert (await two.world.stream()).watermark_us == to_us(two.theirs() - MINUTE)


async def test_a_jump_by_a_year_between_passes_writes_nothing_off(two: TwoClocks) -> None:
    async with two.world.daemon() as daemon:
        for jump in (timedelta(0), YEAR, -YEAR, -YEAR, YEAR):
            two.advance(5 * MINUTE)
            lost = two.world.fake.emit("invoice.paid")
            two.advance(5 * MINUTE)
            two.ours.jump(jump)
            await daemon.run_source()
            assert lost.key in await two.world.keys()
        assert await two.world.unrecoverable() == ()


async def test_a_clock_that_is_behind_blinds_nothing_and_claims_nothing(two: TwoClocks) -> None:
    two.ours.jump(-HOUR)
    lost = two.world.fake.emit("invoice.paid")
    two.advance(5 * MINUTE)
    async with two.world.daemon() as daemon:
        await daemon.run_source(health=True)
    assert await two.world.keys() == {lost.key}
    assert from_us((await two.world.stream()).watermark_us) <= max(T0, two.ours())


async def test_a_watermark_in_the_future_stops_no_pass(two: TwoClocks) -> None:
    await two.world.store.write(lambda c: c.execute(update(STREAM).values(watermark_us=to_us(T0 + YEAR))))
    lost = two.world.fake.emit("invoice.paid")
    two.advance(5 * MINUTE)
    async with two.world.daemon() as daemon:
        await daemon.run_source()
    assert await two.world.keys() == {lost.key}


async def test_a_run_records_how_far_the_clocks_differ(two: TwoClocks) -> None:
    assert (await two.world.report()).clock_skew is None
    two.ours.jump(10 * MINUTE)
    async with two.world.daemon() as daemon:
        await daemon.run_source()
        assert (await two.world.report()).clock_skew == 10 * MINUTE
        two.ours.jump(-11 * MINUTE)
        await daemon.run_source()
        assert (await two.world.report()).clock_skew == -MINUTE


async def test_a_pass_that_began_in_the_future_goes_on(two: TwoClocks) -> None:
    """Its process was killed, and then the clock was corrected."""
    two.advance(5 * MINUTE)
    lost = two.world.fake.emit("invoice.paid")
    two.advance(5 * MINUTE)
    async with two.world.daemon() as daemon:
        await daemon.demand(T0, two.ours())
        await two.world.store.write(lambda c: c.execute(update(PASS).values(started_us=to_us(T0 + YEAR))))
        await daemon.run_source()
        assert await two.world.keys() == {lost.key}
        assert (await two.world.stream()).watermark_us <= to_us(two.theirs() - MINUTE)


async def test_a_sweep_noted_in_the_future_is_made(two: TwoClocks) -> None:
    two.advance(timedelta(days=2))
    await two.world.store.write(lambda c: c.execute(update(SOURCE).values(last_sweep_us=to_us(T0 + YEAR))))
    async with two.world.daemon(sweep_every=timedelta(days=1)) as daemon:
        await daemon.run_source()
    assert "sweep" in {each["kind"] for each in await two.world.passes()}
    row = await two.world.store.read(sources.source_row, source_id=two.world.source_id)
    assert row["last_sweep_us"] == to_us(two.ours())


async def test_a_release_stores_the_wait_beside_the_next_pass(two: TwoClocks) -> None:
    async with two.world.daemon() as daemon:
        lease = await daemon.lease()
        assert lease is not None
        due_us = to_us(T0 + HOUR)
        await daemon.runtime.write(
            leases.release, lease=lease, next_pass_us=due_us, wait_us=span_us(HOUR), interval_us=span_us(HOUR)
        )
    row = await two.world.store.read(sources.source_row, source_id=two.world.source_id)
    assert (row["next_pass_us"], row["wait_us"]) == (due_us, span_us(HOUR))


async def test_the_skew_is_right_at_once_after_a_jump(two: TwoClocks) -> None:
    """No new answer has come, but elapsed time tells what the provider's clock shows now."""
    async with two.world.daemon() as daemon:
        await daemon.client.send(httpx.Request("GET", "http://vendor.test/v1/account"), Purpose.ACCOUNT)
        two.advance(HOUR)
        two.ours.jump(YEAR)
        assert (daemon.client.skew, daemon.client.now, daemon.client.provider_now) == (YEAR, T0 + HOUR, T0 + HOUR)
        two.ours.jump(-2 * YEAR)
        assert (daemon.client.skew, daemon.client.provider_now) == (-YEAR, T0 + HOUR)
        assert daemon.client.now == two.ours()
