"""How long it took to recover a missed event is counted once, and only of events that were missed."""

import pytest
from world import Daemon, FakeClock, World

from gapless.domain import Mode

pytestmark = pytest.mark.anyio
NOTHING = (0, 0.0)


def record_delays(daemon: Daemon, via: str) -> float | None:
    labels = {"source": "acme", "via": via}
    return daemon.runtime.metrics.registry.get_sample_value("gapless_record_delay_seconds_count", labels)


async def test_what_is_recorded_early_counts_when_it_is_judged(world: World, clock: FakeClock) -> None:
    """The time ends when it was recorded, not when it was judged."""
    async with world.daemon() as daemon:
        world.fake.emit("invoice.paid")
        clock.advance(seconds=12)
        await daemon.run_source()
        assert daemon.recoveries() == NOTHING
        clock.advance(minutes=5)
        await daemon.run_source()
        assert daemon.recoveries() == (1, 12.0)
        await daemon.run_source()
        assert daemon.recoveries()[0] == 1


async def test_what_a_webhook_brings_in_time_is_no_recovery(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        event = world.fake.emit("invoice.paid")
        clock.advance(seconds=12)
        await daemon.run_source()
        await daemon.push(event)
        clock.advance(minutes=5)
        await daemon.run_source()
        assert (daemon.recoveries(), await world.missed()) == (NOTHING, 0)


async def test_what_is_found_when_its_grace_is_over_counts_at_once(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        world.fake.emit("invoice.paid")
        world.fake.emit("invoice.paid")
        clock.advance(minutes=10)
        await daemon.run_source()
        assert daemon.recoveries() == (2, 1_200.0)
        assert await world.missed() == 2
        clock.advance(minutes=10)
        await daemon.run_source()
        assert daemon.recoveries()[0] == 2


async def test_in_mode_poll_nothing_is_missed_and_the_delay_is_that_of_the_list(world: World, clock: FakeClock) -> None:
    world.mode = Mode.POLL
    async with world.daemon(types=["*"]) as daemon:
        world.fake.emit("invoice.paid")
        clock.advance(minutes=5)
        await daemon.run_source()
        assert (daemon.recoveries(), record_delays(daemon, "list")) == (NOTHING, 1)


async def test_in_mode_hybrid_the_delay_is_that_of_webhooks_alone(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        world.fake.emit("invoice.paid")
        clock.advance(minutes=5)
        await daemon.run_source()
        assert record_delays(daemon, "list") is None


async def test_a_crash_between_record_and_judgement_loses_no_recovery(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        world.fake.emit("invoice.paid")
        clock.advance(seconds=12)
        await daemon.run_source()
    clock.advance(minutes=5)
    async with world.daemon(holder="two") as daemon:
        await daemon.run_source()
        assert daemon.recoveries() == (1, 12.0)
