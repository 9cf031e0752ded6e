"""Many connected accounts in one source: read side by side, each failing by itself."""

from datetime import timedelta

import httpx
import pytest
from world import SECRET, FakeClock, InProcess, World

from gapless.ledger import audit_log, sources, streams
from gapless.provider_api.client import new_limiter
from gapless.reconcile.source_run import in_order
from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio
GONE = "acct_07"


def make_platform(url: str, page_limit: int = 100) -> Provider:
    return Stripe(
        StripeOptions(
            api_key=Secret("sk_live_fake"),
            webhook_secret=(Secret(SECRET),),
            page_limit=page_limit,
            api_base=url,
            connect=True,
        )
    )


@pytest.fixture
async def platform(world: World) -> World:
    world.make = make_platform
    world.fake.add_endpoint("/webhooks/acme", secret=SECRET)
    world.fake.add_endpoint("/webhooks/acme", secret=SECRET, connect=True)
    for number in range(20):
        world.fake.emit("invoice.paid", stream=f"acct_{number:02}")
    return world


async def streams_of(world: World) -> dict[str, streams.Stream]:
    found = await world.store.read(lambda c: streams.streams(c, world.source_id))
    return {stream.name: stream for stream in found}


async def test_an_account_that_left_us_parks_only_itself(
    platform: World, clock: FakeClock, transport: InProcess
) -> None:
    accounts: list[str] = []

    def refuse(request: httpx.Request) -> None:
        account = request.headers.get("stripe-account", "")
        accounts.append(account)
        if account == GONE:
            raise httpx.ConnectError("never answered")

    async with platform.daemon() as daemon:
        clock.advance(minutes=2)
        transport.before = refuse
        await daemon.run_source(health=True)
        assert len(await platform.keys()) == 19
        assert await platform.missed() == 19
        streams = await streams_of(platform)
        assert streams[GONE].last_outcome == "provider_unavailable"
        assert {each.last_outcome for name, each in streams.items() if name not in (GONE, "")} == {"found"}


async def test_a_parked_account_is_skipped_until_the_next_health_check(platform: World, clock: FakeClock) -> None:
    async with platform.daemon() as daemon:
        clock.advance(minutes=2)
        await daemon.run_source(health=True)
        await platform.store.write(
            lambda c: c.exec_driver_sql(f"UPDATE stream SET parked_reason = 'gone' WHERE name = '{GONE}'")
        )
        before = len(platform.fake.requests)
        clock.advance(minutes=2)
        await daemon.run_source()
        assert len(platform.fake.requests) - before == 20  # 19 accounts and our own
        clock.advance(minutes=2)
        await daemon.run_source(health=True)
        assert (await streams_of(platform))[GONE].parked_reason is None


async def test_what_was_incomplete_is_read_first_and_then_the_busiest(platform: World, clock: FakeClock) -> None:
    async with platform.daemon() as daemon:
        clock.advance(minutes=2)
        for _ in range(5):
            platform.fake.emit("invoice.paid", stream="acct_03")
        clock.advance(minutes=2)
        await daemon.run_source(health=True)
        clock.advance(minutes=2)
        await daemon.run_source()
        await platform.store.write(
            lambda c: c.exec_driver_sql("UPDATE stream SET last_outcome = 'rate_limited' WHERE name = 'acct_11'")
        )
        order = [stream.name for stream in in_order((await streams_of(platform)).values(), retry_parked=False)]
        assert order[:2] == ["acct_11", "acct_03"]


def test_no_second_sees_more_requests_than_the_rate() -> None:
    for rate in (100.0, 25.0, 10.5):
        limiter = new_limiter(rate)
        assert limiter.max_rate + limiter.max_rate / limiter.time_period <= rate
    slow = new_limiter(0.5)
    assert (slow.max_rate, timedelta(seconds=slow.time_period)) >= (1, timedelta(seconds=2))


async def test_a_disabled_endpoint_is_enabled_again_only_with_repair(platform: World, clock: FakeClock) -> None:
    endpoint = platform.fake.endpoints[0]
    for repair in (False, True):
        endpoint.enabled = platform.fake.endpoints[1].enabled = False
        async with platform.daemon(repair=repair) as daemon:
            clock.advance(minutes=2)
            await daemon.run_source(health=True)
            assert endpoint.enabled is repair
    history = await platform.store.read(lambda c: sources.subscriptions(c, platform.source_id))
    assert [row["healthy"] for row in history] == [False, True]
    logged = await platform.store.read(audit_log.rows)
    assert [(row["actor"], row["action"], row["subject"]) for row in logged] == [("daemon", "source.repair", "acme")]
