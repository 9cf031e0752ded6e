"""The course of a storm over one store: rounds of overlapping faults, calms in which all must recover, the end."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from outside import until

from gapless_reconcilers.testing.fake import utc_now
from storm.evidence import Evidence
from storm.faults import Kind, Round, plan
from storm.vendor import Lies
from storm.world import FAIR_WEATHER, POSTGRESQL, World, open_world


@dataclass(frozen=True, slots=True, kw_only=True)
class StormOptions:
    """The size of the storm over one store."""

    store: str
    seed: int
    kills: int
    restarts: int
    kills_a_round: int = 14
    minutes: float | None = None
    """No round begins after this time; None: all rounds."""
    kinds: Collection[Kind] = frozenset(Kind)
    calm_s: float = 90.0
    """The longest calm after the faults of a round, and after the one that is alone."""
    end_s: float = 300.0
    """The longest time in which everything must be recorded and delivered at the end."""


Say = Callable[[str], None]


async def run_storm(options: StormOptions, folder: Path, say: Say, rounds: Sequence[Round] | None = None) -> Evidence:
    """Run one storm and return what it left behind. `folder` keeps the ledger and the daemon's log.

    `rounds`: those of the plan, if none are given.
    """
    async with open_world(options.store, options.seed, folder, options.kinds) as world:
        restarts = options.restarts if options.store == POSTGRESQL else 0
        rounds = rounds or plan(
            options.seed,
            kills=options.kills,
            restarts=restarts,
            kills_a_round=options.kills_a_round,
            kinds=world.kinds & frozenset(options.kinds),
        )
        trading, watching = asyncio.create_task(world.trade()), asyncio.create_task(world.watcher.watch())
        try:
            await until(lambda: _is_compared(world), every_s=0.02)
            await _play(world, rounds, options, say)
            trading.cancel()
            await _end(world, options, say)
        finally:
            for task in (trading, watching):
                task.cancel()
            await asyncio.gather(trading, watching, return_exceptions=True)
        return await world.gather_evidence(timedelta(seconds=options.calm_s))


def _is_compared(world: World) -> bool:
    """Return True once a pass has been completed: a source that was never compared has nothing to lose yet."""
    return any(sample.watermark for sample in world.watcher.samples)


async def _play(world: World, rounds: Sequence[Round], options: StormOptions, say: Say) -> None:
    started, until = time.monotonic(), None if options.minutes is None else options.minutes * 60
    for number, each in enumerate(rounds, start=1):
        if until is not None and time.monotonic() - started > until:
            say(f"{world.store}: the time is over after {number - 1} of {len(rounds)} rounds")
            return
        async with asyncio.TaskGroup() as group:
            for step in each.steps:
                group.create_task(world.happen(step))
            group.create_task(_kills(world, each.kills))
        storm_calm = await _calm(world, options.calm_s, say)
        if each.alone is None:
            continue
        await world.happen(each.alone, alone=storm_calm is not None)
        alone_calm = await _calm(world, options.calm_s, say)
        say(_progress(world, number, len(rounds), time.monotonic() - started, storm_calm, each.alone.kind, alone_calm))


async def _kills(world: World, waits: Sequence[float]) -> None:
    for wait_s in waits:
        if wait_s:
            await world.supervisor.until_ready()
        await asyncio.sleep(wait_s)
        await world.kill()


async def _calm(world: World, longest_s: float, say: Say) -> float | None:
    """Wait until everything of before has recovered. Return the seconds it took, or None after `longest_s`."""
    began, truth = utc_now(), {event.key for event in world.vendor.events}
    wanted = began.replace(microsecond=0)
    visible = max((event.visible_at for event in world.vendor.events), default=began)
    while utc_now() - began < timedelta(seconds=longest_s):
        await asyncio.sleep(0.5)
        last = world.watcher.samples[-1] if world.watcher.samples else None
        is_proven = last is not None and last.is_healthy and last.watermark is not None and last.watermark >= wanted
        if is_proven and utc_now() > visible and truth <= world.consumer.accepted_at.keys():
            return (utc_now() - began).total_seconds()
    owed = sorted(truth - world.consumer.accepted_at.keys())
    last = next((each for each in reversed(world.watcher.samples) if each.answered), None)
    say(f"{world.store}: not well again after {longest_s:.0f} s; owed: {owed[:5]} of {len(owed)}; {last}")
    return None


async def _end(world: World, options: StormOptions, say: Say) -> None:
    """Make fair weather and wait until the ledger, the consumer and the figures have everything."""
    world.vendor.faults, world.vendor.lies = replace(FAIR_WEATHER), Lies()
    world.consumer.failure_rate = 0.0
    say(f"{world.store}: the storm is over, {len(world.vendor.events):,} events; waiting until all is in order")
    with suppress(TimeoutError):
        async with asyncio.timeout(options.end_s):
            await world.vendor.settle()
            while await _calm(world, options.end_s, say) is None or not await _is_idle(world):
                pass


async def _is_idle(world: World) -> bool:
    """Return True if nothing is missing and no delivery is under way."""
    status = await world.watcher.status()
    if status is None:
        return False
    backlog = status["destinations"][0]["backlog"]
    return not status["sources"][0]["list"]["missing_open"] and not backlog["pending"]


def _progress(
    world: World, number: int, rounds: int, took_s: float, calm: float | None, alone: Kind, alone_calm: float | None
) -> str:
    happened = Counter(fault.kind for fault in world.faults)
    return (
        f"{world.store}: round {number} of {rounds}, {took_s / 60:.1f} min, {happened[Kind.KILL]:,} kills, "
        f"{happened[Kind.RESTART]:,} restarts, {len(world.vendor.events):,} events, "
        f"{len(world.vendor.events) - len(world.consumer.accepted_at):,} still owed; well again after "
        f'{_seconds(calm)}, and after "{alone}" alone {_seconds(alone_calm)}'
    )


def _seconds(value: float | None) -> str:
    return "NEVER" if value is None else f"{value:.1f} s"
