"""What the provider has left to us is believed, a refusal halves the rate, and every request counts by its purpose."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from world import HASTY, SECRET, T0, Daemon, FakeClock, World, make_stripe

from gapless.domain import Mode, Purpose, Source, Sources, from_us, to_us
from gapless.ledger import budgets, sources
from gapless.metrics import Metrics
from gapless.provider_api.client import ProviderClient
from gapless.provider_api.earnings import list_earning
from gapless.provider_api.throttle import Throttle, spacing
from gapless.reconcile.pace import Pace
from gapless.reconcile.scheduler import Scheduler
from gapless_reconcilers.kit.contract import Quota, Window
from gapless_reconcilers.kit.errors import RateLimited
from gapless_reconcilers.providers.stripe import Stripe
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = pytest.mark.anyio
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
URL = "http://vendor.test"
REQUEST = httpx.Request("GET", f"{URL}/v1/events")

Answer = Callable[[], httpx.Response]


@asynccontextmanager
async def asking(clock: FakeClock, answer: Answer, **options: Any) -> AsyncIterator[ProviderClient]:
    source = Source(id=1, name="acme", provider=make_stripe(URL), mode=Mode.POLL, start=T0)
    settled = {"clock": clock, "metrics": Metrics("t"), "rate": 10_000, "retry": HASTY}
    transport = httpx.MockTransport(lambda _: answer())
    async with httpx.AsyncClient(transport=transport) as client:
        yield ProviderClient(client, Sources([source]), "acme", **settled, **options)


def told(remaining: int, resets_in: timedelta, status: int = 200, **headers: str) -> httpx.Response:
    named = {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": str(remaining)}
    named["x-ratelimit-reset"] = str(int(resets_in.total_seconds()))
    return httpx.Response(status, json={}, headers=named | headers)


async def test_the_newest_word_of_the_provider_is_kept_until_the_reset(clock: FakeClock) -> None:
    answers = [told(4_000, HOUR), httpx.Response(200, json={}), told(3_999, HOUR - MINUTE)]
    async with asking(clock, lambda: answers.pop(0)) as client:
        assert client.quota is None
        for _ in range(2):
            await client.send(REQUEST, Purpose.HEARTBEAT)
            assert client.quota == Quota(remaining=4_000, limit=5_000, resets_at=T0 + HOUR)
        await client.send(REQUEST, Purpose.HEARTBEAT)
        assert client.quota == Quota(remaining=3_999, limit=5_000, resets_at=T0 + HOUR - MINUTE)
        clock.advance(minutes=59)
        assert client.quota is None


async def test_nothing_is_sent_once_nothing_is_left(clock: FakeClock) -> None:
    answers = [told(0, 20 * MINUTE), told(5_000, HOUR)]
    async with asking(clock, lambda: answers.pop(0)) as client:
        await client.send(REQUEST, Purpose.HEARTBEAT)
        for _ in range(2):
            with pytest.raises(RateLimited):
                await client.send(REQUEST, Purpose.HEARTBEAT)
        assert client.waits_until == T0 + 20 * MINUTE
        clock.advance(minutes=20)
        await client.send(REQUEST, Purpose.HEARTBEAT)
    assert answers == []


async def test_what_is_not_sent_is_not_counted(clock: FakeClock) -> None:
    counted: list[int] = []

    async def spend(_: Purpose, requests: int) -> None:
        counted.append(requests)

    async with asking(clock, lambda: told(0, 20 * MINUTE), spend=spend) as client:
        await client.send(REQUEST, Purpose.HEARTBEAT)
        with pytest.raises(RateLimited):
            await client.send(REQUEST, Purpose.HEARTBEAT)
    assert counted == [1]


async def test_little_that_is_left_is_spread_until_the_reset(clock: FakeClock) -> None:
    throttle = Throttle(clock, rate=10)
    throttle.note(Quota(remaining=60, limit=5_000, resets_at=clock() + HOUR))
    await throttle.turn()
    with pytest.raises(RateLimited) as refused:
        await throttle.turn()
    assert refused.value.retry_after == MINUTE
    clock.advance(minutes=1)
    await throttle.turn()
    clock.advance(minutes=59)
    await throttle.turn()
    await throttle.turn()


@pytest.mark.parametrize("remaining", [0, 1])
async def test_one_odd_header_stops_a_source_for_an_hour_at_most(clock: FakeClock, remaining: int) -> None:
    throttle = Throttle(clock, rate=10)
    throttle.note(Quota(remaining=remaining, limit=5_000, resets_at=clock() + DAY))
    if remaining:
        await throttle.turn()
    with pytest.raises(RateLimited) as refused:
        await throttle.turn()
    assert refused.value.retry_after == HOUR
    clock.advance(hours=1)
    await throttle.turn()


@pytest.mark.parametrize(
    ("remaining", "limit", "wanted"),
    [
        (2_501, 5_000, timedelta(0)),
        (2_500, 5_000, HOUR / 2_500),
        (1, 5_000, HOUR),
        (0, 5_000, HOUR),
        (3_600, None, timedelta(seconds=1)),
    ],
)
def test_requests_are_spread_once_half_is_used(remaining: int, limit: int | None, wanted: timedelta) -> None:
    assert spacing(Quota(remaining=remaining, limit=limit, resets_at=T0 + HOUR), HOUR) == wanted
    assert spacing(Quota(remaining=remaining, limit=limit, resets_at=T0), -HOUR) == timedelta(0)


async def test_refusals_are_noted_once_a_minute_and_halve_for_an_hour(clock: FakeClock) -> None:
    noted: list[int] = []

    async def limited() -> None:
        noted.append(len(noted))

    answers = {"status": 429}

    def answer() -> httpx.Response:
        return httpx.Response(answers["status"], json={}, headers={"retry-after": "0"})

    async with asking(clock, answer, limited=limited) as client:
        for _ in range(3):
            with pytest.raises(RateLimited):
                await client.send_once(REQUEST, Purpose.SWEEP)
        assert noted == [0]
        assert client._throttle.is_halved
        clock.advance(minutes=2)
        with pytest.raises(RateLimited):
            await client.send_once(REQUEST, Purpose.SWEEP)
        assert noted == [0, 1]
        answers["status"] = 200
        clock.advance(minutes=59)
        await client.send(REQUEST, Purpose.SWEEP)
        assert client._throttle.is_halved
        clock.advance(minutes=2)
        assert not client._throttle.is_halved


async def test_a_refusal_that_another_process_noted_halves_too(clock: FakeClock) -> None:
    async def spend(_: Purpose, requests: int) -> Any:  # noqa: ARG001
        return clock() + HOUR / 2

    async with asking(clock, lambda: httpx.Response(200, json={}), spend=spend) as client:
        await client.send(REQUEST, Purpose.SWEEP)
        assert client._throttle.is_halved
        clock.advance(minutes=31)
        assert not client._throttle.is_halved


async def test_halved_turns_are_twice_as_far_apart(clock: FakeClock) -> None:
    throttle = Throttle(clock, rate=0.05)
    await throttle.turn()
    await throttle.turn()
    throttle.note_refusal()
    await throttle.turn()
    with pytest.raises(RateLimited) as refused:
        await throttle.turn()
    assert refused.value.retry_after == timedelta(seconds=2 / 0.05)


async def test_a_wait_after_a_wrong_clock_halves_nothing(clock: FakeClock) -> None:
    throttle = Throttle(clock, rate=10)
    throttle.note_halved(clock() + 400 * DAY)
    assert not throttle.is_halved


async def test_requests_now_and_then_are_reserved_one_by_one(clock: FakeClock) -> None:
    counted: list[tuple[Purpose, int]] = []

    async def spend(purpose: Purpose, requests: int) -> None:
        counted.append((purpose, requests))

    async with asking(clock, lambda: httpx.Response(200, json={}), spend=spend) as client:
        for _ in range(5):
            await client.spending(Purpose.HEARTBEAT).send(REQUEST)
            clock.advance(seconds=30)
        assert counted == [(Purpose.HEARTBEAT, 1)] * 5
        for _ in range(40):
            await client.spending(Purpose.SWEEP).send(REQUEST)
        assert [n for purpose, n in counted if purpose is Purpose.SWEEP] == [1, 2, 4, 8, 16, 20]
        await client.spending(Purpose.HEARTBEAT).send(REQUEST)
    assert counted[-1] == (Purpose.HEARTBEAT, 1)


@asynccontextmanager
async def scheduled(daemon: Daemon, **policy: Any) -> AsyncIterator[Callable[[], Any]]:
    """Run the scheduler. Yield a function that waits until the source was read once more."""
    world = daemon.world
    policies = {"acme": replace(daemon.policy, **policy)}
    scheduler = Scheduler(daemon.runtime, policies, world.client, holder="one", tick_s=0.05, retry=HASTY)

    async def row() -> Any:
        return await world.store.read(sources.source_row, source_id=world.source_id)

    async def next_run() -> None:
        world.clock.now = max(world.clock.now, from_us((await row())["next_pass_us"]))
        while (now := await row())["next_pass_us"] <= to_us(world.clock()) or now["lease_holder"] is not None:
            await asyncio.sleep(0.005)

    running = asyncio.create_task(scheduler.run())
    try:
        yield next_run
    finally:
        scheduler.stop()
        await running


async def use(daemon: Daemon, period: timedelta = 30 * DAY) -> dict[str, int]:
    return await daemon.world.store.read(
        budgets.used_in_period,
        scope=daemon.source.provider.budget_scope(),
        period=period,
        now_us=to_us(daemon.world.clock()),
    )


HOURLY = Pace(shortest=HOUR, longest=HOUR, adaptive=True)


async def test_everything_that_is_asked_counts_by_its_purpose(world: World, clock: FakeClock) -> None:
    world.fake.add_endpoint("/webhooks/acme", secret=SECRET)
    async with world.daemon(pace=HOURLY, sweep_every=DAY) as daemon:
        clock.advance(minutes=5)
        async with scheduled(daemon, grant=Stripe.capabilities.grant) as next_run:
            for _ in range(27):
                await next_run()
        counted = await use(daemon)
        asked = Counter(each.path for each in world.fake.requests)
        assert set(counted) == {"account", "endpoint", "start", "heartbeat", "sweep"}
        assert counted["account"] == asked["/v1/account"]
        assert counted["endpoint"] == asked["/v1/webhook_endpoints"]
        listed = counted["start"] + counted["heartbeat"] + counted["sweep"]
        assert asked["/v1/events"] <= listed <= asked["/v1/events"] + budgets.BLOCK
        (source,) = (await world.whole_report()).sources
        assert source.listed is not None
        assert source.listed.grant_used == pytest.approx(sum(counted.values()) / 10_000)


async def test_the_grant_follows_the_transactions_of_the_ledger(world: World, clock: FakeClock) -> None:
    world.fake.add_endpoint("/webhooks/acme", secret=SECRET)
    async with world.daemon(pace=HOURLY) as daemon:
        clock.advance(minutes=5)
        await daemon.push(*(world.fake.emit("charge.succeeded") for _ in range(30)))
        await daemon.push(*(world.fake.emit("invoice.paid") for _ in range(30)))
        async with scheduled(daemon, grant=Stripe.capabilities.grant) as next_run:
            await next_run()
        scope = daemon.source.provider.budget_scope()
        found = await world.store.read(budgets.grant_use, scope=scope, now_us=to_us(clock()))
        assert found is not None
        assert found.granted == 15_000


async def test_a_refusal_is_durable(world: World, clock: FakeClock) -> None:
    async with world.daemon(pace=HOURLY) as daemon:
        clock.advance(minutes=5)
        world.fake.faults = Faults(throttle_every=2)
        async with scheduled(daemon) as next_run:
            await next_run()
        world.fake.faults = Faults()
        scope, terms = daemon.source.provider.budget_scope(), budgets.PurseTerms(granted=100, period=DAY, full=10)
        purse = await world.store.read(budgets.purse, scope=scope, terms=terms, now_us=to_us(clock()))
        assert purse.halved_until_us is not None
        assert from_us(purse.halved_until_us) <= clock() + HOUR


async def test_the_events_that_earn_are_listed_until_enough_were_seen(world: World, clock: FakeClock) -> None:
    wanted = []
    for _ in range(25):
        wanted.append(world.fake.emit("charge.succeeded").occurred_at)
        world.fake.emit("invoice.paid")
        clock.advance(minutes=1)
    world.make = lambda url, page_limit=10: make_stripe(url, page_limit)
    async with world.daemon() as daemon:
        sender, window = daemon.client.spending(Purpose.START), Window(start=T0, end=clock())
        assert sorted(await list_earning(sender, "", window)) == wanted
        assert {dict(each.params)["type"] for each in world.fake.requests} == {"charge.succeeded"}
        assert len(await list_earning(sender, "", window, enough=1)) == 25
