"""The read budget, on the real scheduler: it slows passes to an hour at most, and sweeps take what passes leave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from world import HASTY, SECRET, T0, Daemon, FakeClock, InProcess, World

from gapless.domain import Purpose, from_us, to_us
from gapless.ledger import budgets, sources, streams
from gapless.reconcile.pace import RESERVED, Pace
from gapless.reconcile.scheduler import Scheduler
from gapless_reconcilers.kit.contract import Provider, ReadBudget, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = pytest.mark.anyio
MINUTE, HOUR, DAY, MONTH = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(days=30)
DEFAULT_PACE = Pace(shortest=5 * MINUTE, longest=30 * MINUTE, adaptive=True)
HOURLY = Pace(shortest=HOUR, longest=HOUR, adaptive=True)

NextRun = Callable[[], Awaitable[timedelta]]


def make_platform(url: str, page_limit: int = 100) -> Provider:
    keys = {"api_key": Secret("sk_live_fake"), "webhook_secret": (Secret(SECRET),)}
    return Stripe(StripeOptions(**keys, page_limit=page_limit, api_base=url, connect=True))


@pytest.fixture
def world(world: World) -> World:
    world.fake.add_endpoint("/webhooks/acme", secret=SECRET)
    return world


async def row_of(world: World) -> Any:
    return await world.store.read(sources.source_row, source_id=world.source_id)


async def last_sweep(world: World) -> datetime | None:
    swept_us = (await row_of(world))["last_sweep_us"]
    return None if swept_us is None else from_us(swept_us)


@asynccontextmanager
async def scheduled(daemon: Daemon) -> AsyncIterator[NextRun]:
    """Run the scheduler. Yield a function that waits for the next run, at its due time, and returns the interval."""
    world = daemon.world
    policies = {"acme": daemon.policy}
    scheduler = Scheduler(daemon.runtime, policies, world.client, holder="one", tick_s=0.05, retry=HASTY)

    async def next_run() -> timedelta:
        world.clock.now = max(world.clock.now, from_us((await row_of(world))["next_pass_us"]))
        while (row := await row_of(world))["next_pass_us"] <= to_us(world.clock()) or row["lease_holder"] is not None:
            await asyncio.sleep(0.005)
        return from_us(row["next_pass_us"]) - world.clock()

    running = asyncio.create_task(scheduler.run())
    try:
        yield next_run
    finally:
        scheduler.stop()
        await running


async def use(daemon: Daemon, requests: int) -> None:
    """Use so many requests of the budget, in a period that starts now."""
    budget = daemon.policy.budget
    assert budget is not None
    terms = budgets.PurseTerms(granted=budget.requests, period=budget.period)
    await daemon.runtime.writer.submit(
        budgets.reserve,
        scope=daemon.source.provider.budget_scope(),
        terms=terms,
        purpose=Purpose.HEARTBEAT,
        requests=requests,
        now_us=to_us(daemon.world.clock()),
    )


async def used(daemon: Daemon) -> int:
    taken = await daemon.world.store.read(budgets.used, scope=daemon.source.provider.budget_scope())
    assert taken is not None
    return taken.used


async def test_a_spent_budget_slows_passes_to_an_hour(world: World, clock: FakeClock) -> None:
    async with world.daemon(budget=Stripe.capabilities.budget, pace=DEFAULT_PACE) as daemon:
        await use(daemon, 10_000)
        clock.advance(minutes=5)
        async with scheduled(daemon) as next_run:
            intervals = [await next_run() for _ in range(3)]
        assert intervals == [HOUR] * 3
        assert await used(daemon) > 10_000


async def test_a_busy_account_is_read_every_hour(world: World, clock: FakeClock) -> None:
    budget = ReadBudget(requests=120, period=MONTH)
    pace = Pace(shortest=30 * MINUTE, longest=30 * MINUTE, adaptive=True)
    async with world.daemon(budget=budget, pace=pace, sweep_every=DAY, page_limit=10) as daemon:
        clock.advance(minutes=5)
        async with scheduled(daemon) as next_run:
            intervals = []
            while clock() < T0 + 30 * HOUR:
                for _ in range(10):
                    world.fake.emit("invoice.paid")
                intervals.append(await next_run())
        assert await used(daemon) > budget.requests
        assert max(intervals) == HOUR
        due = {each.key for each in world.fake.events if each.occurred_at < clock() - HOUR}
        assert due <= await world.keys()


async def test_an_interval_that_the_operator_chose_stays(world: World, clock: FakeClock) -> None:
    pace = Pace(shortest=3 * HOUR, longest=3 * HOUR, adaptive=True)
    async with world.daemon(budget=Stripe.capabilities.budget, pace=pace) as daemon:
        await use(daemon, 10_000)
        clock.advance(minutes=5)
        async with scheduled(daemon) as next_run:
            assert await next_run() == 3 * HOUR


async def test_a_sweep_takes_what_the_passes_leave_over(world: World, clock: FakeClock) -> None:
    budget, page, events = ReadBudget(requests=9_000, period=MONTH), 2, 200
    an_hour = budget.requests * (1 - RESERVED) / (budget.period / HOUR)
    async with world.daemon(budget=budget, pace=HOURLY, sweep_every=DAY, page_limit=page) as daemon:
        clock.advance(minutes=20)
        await daemon.push(*(world.fake.emit("invoice.paid") for _ in range(events)))
        clock.advance(minutes=20)
        async with scheduled(daemon) as next_run:
            while clock() < T0 + 23 * HOUR:
                assert await next_run() == HOUR
            while await last_sweep(world) is None:
                assert await next_run() == HOUR
                assert await used(daemon) >= len(world.fake.requests)
                granted = an_hour * ((clock() - T0) / HOUR + 1)
                assert len(world.fake.requests) <= granted + 2 * daemon.policy.slices
                assert clock() < T0 + 4 * DAY
        (sweep,) = [row for row in await world.passes() if row["kind"] == "sweep"]
        assert (sweep["state"], sweep["listed"]) == ("finished", events)
        assert sweep["requests"] >= events / page
        assert from_us(sweep["finished_us"]) - from_us(sweep["started_us"]) >= 2 * HOUR, "one run made all of it"
        assert await last_sweep(world) == clock()


async def test_a_sweep_within_the_budget_is_made_in_one_run(world: World, clock: FakeClock) -> None:
    async with world.daemon(budget=Stripe.capabilities.budget, pace=HOURLY, sweep_every=DAY) as daemon:
        clock.advance(minutes=5)
        async with scheduled(daemon) as next_run:
            while await last_sweep(world) is None:
                await next_run()
        assert await last_sweep(world) == T0 + DAY + 5 * MINUTE
        assert [row["outcome"] for row in await world.passes() if row["kind"] == "sweep"] == ["clean"]


async def test_a_spent_budget_does_not_stop_the_last_look(world: World, clock: FakeClock) -> None:
    known = replace(Stripe.capabilities, history=4 * DAY)
    budget = ReadBudget(requests=100, period=MONTH)
    async with world.daemon(budget=budget, pace=HOURLY, sweep_every=DAY, capabilities=known) as daemon:
        await use(daemon, 100)
        clock.advance(minutes=1)
        world.fake.faults = Faults(late_visible=1.0, late_visible_s=2 * 86_400)
        late = world.fake.emit("invoice.paid")
        world.fake.faults = Faults()
        clock.advance(minutes=5)
        async with scheduled(daemon) as next_run:
            await next_run()
            clock.advance(days=2, hours=1)
            await next_run()
            assert await world.keys() == {late.key}
            assert await next_run() == HOUR
        kinds = [row["kind"] for row in await world.passes()]
        assert kinds.count("horizon") == 1
        assert "sweep" not in kinds
        assert await last_sweep(world) is None


async def test_a_sweep_that_fails_is_made_later(world: World, clock: FakeClock, transport: InProcess) -> None:
    failing = True

    def fail(request: httpx.Request) -> None:
        since = request.url.params.get("created[gte]")
        deep = since is not None and clock().timestamp() - int(since) > 3 * 3600
        world.fake.faults = Faults(error_rate=1.0 if failing and deep else 0.0)

    async with world.daemon(sweep_every=timedelta(hours=20)) as daemon:
        for _ in range(25):
            clock.advance(hours=1)
            await daemon.run_source()
        transport.before = fail
        clock.advance(hours=1)
        await daemon.run_source()
        before = await last_sweep(world)
        for _ in range(20):
            clock.advance(hours=1)
            await daemon.run_source()
        assert from_us((await world.stream()).watermark_us) == clock() - MINUTE
        assert await last_sweep(world) == before
        failing = False
        clock.advance(hours=1)
        await daemon.run_source()
        assert await last_sweep(world) == clock()


async def test_a_stream_is_not_swept_again_for_another(world: World, clock: FakeClock, transport: InProcess) -> None:
    world.make = make_platform
    for name in ("acct_1", "acct_2"):
        world.fake.emit("invoice.paid", stream=name)

    def fail(request: httpx.Request) -> None:
        since = request.url.params.get("created[gte]")
        deep = since is not None and clock().timestamp() - int(since) > 3 * 3600
        broken = deep and request.headers.get("stripe-account") == "acct_2"
        world.fake.faults = Faults(error_rate=1.0 if broken else 0.0)

    async with world.daemon(sweep_every=DAY) as daemon:
        clock.advance(minutes=5)
        await daemon.run_source(health=True)
        clock.advance(hours=23)
        await daemon.run_source()
        transport.before = fail
        for _ in range(3):
            clock.advance(hours=1)
            await daemon.run_source()
        names = {row["id"]: row["name"] for row in await world.store.read(_streams(world))}
        swept = [(names[row["stream_id"]], row["state"]) for row in await world.passes() if row["kind"] == "sweep"]
        assert sorted(swept) == [("", "finished"), ("acct_1", "finished"), ("acct_2", "running")]
        assert await last_sweep(world) is None


def _streams(world: World) -> Callable[[Any], list[dict[str, Any]]]:
    return lambda c: [{"id": each.id, "name": each.name} for each in streams.streams(c, world.source_id)]
