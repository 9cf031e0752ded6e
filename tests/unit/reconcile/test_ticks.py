"""The tick of the scheduler: it comes whatever the clock of the machine does."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gapless.reconcile.scheduler import Every, Ticks

TICK = timedelta(milliseconds=20)
YEAR = timedelta(days=365)


async def ticks_after(shown: timedelta) -> int:
    """Return how often a job runs in three ticks, whose time is `shown` from now: so a clock that jumped shows it."""
    ran = list[int]()

    async def tick() -> None:
        ran.append(1)
        if len(ran) == 3:
            done.set()

    done = asyncio.Event()
    ticks = Ticks(TICK)
    job = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    ticks.add_job(tick, Every(TICK), next_run_time=datetime.now(UTC) + shown, **job)
    ticks.start()
    try:
        async with asyncio.timeout(10):
            await done.wait()
    finally:
        ticks.shutdown(wait=False)
        await asyncio.sleep(0)
    return len(ran)


@pytest.mark.anyio
@pytest.mark.parametrize("shown", [timedelta(hours=1), YEAR, -timedelta(hours=1), -YEAR], ids=str)
async def test_the_tick_survives_any_jump(shown: timedelta) -> None:
    assert await ticks_after(shown) == 3


def test_a_missed_tick_is_never_made_up_for() -> None:
    now = datetime.now(UTC)
    assert Every(TICK).get_next_fire_time(None, now) == now
    assert Every(TICK).get_next_fire_time(now - YEAR, now) == now + TICK
