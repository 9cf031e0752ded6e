"""Sweeps: what fails is made later, and a stream is not swept again for another."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from world import SECRET, FakeClock, InProcess, World

from gapless.domain import from_us
from gapless.ledger import sources, streams
from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = pytest.mark.anyio
MINUTE, HOUR, DAY, MONTH = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(days=30)


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
