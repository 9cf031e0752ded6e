"""A shop that loses webhooks, end to end: the fake on a socket, the real receiver, passes, and the ledger.

All that a list of states can bring back is brought back: the last state of each object. What it cannot
show, deletions among it, is not claimed.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from receiving import receiving
from sqlalchemy import select
from world import SECRET, T0, Daemon, FakeClock, World

from gapless.domain import Mode, TypesOrigin, from_us, to_us
from gapless.ledger.engine import Store
from gapless.ledger.tables import EVENT, SOURCE
from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.providers.shopify import Shopify, ShopifyOptions
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.shopify import ShopifyFormat
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint, Faults

pytestmark = pytest.mark.anyio
RESOURCES = ("orders", "products", "customers")
UPDATES = {"orders": "orders/updated", "products": "products/update", "customers": "customers/update"}
TOPICS = (*UPDATES.values(), "orders/create", "orders/delete", "products/delete", "app/uninstalled")
GRACE = Shopify.capabilities.grace


def make_shopify(url: str, page_limit: int = 20) -> Provider:
    return Shopify(
        ShopifyOptions(
            shop="fake.myshopify.com",
            access_token=Secret("shpat_fake"),
            client_secret=(Secret(SECRET),),
            read_all_orders=True,
            page_limit=page_limit,
            api_base=url,
        )
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def world(store: Store, clock: FakeClock) -> AsyncIterator[World]:
    fake = FakeProvider(ShopifyFormat(), clock=clock, seed=11, retries_s=(0.01, 0.01))
    async with fake.serve() as url, httpx.AsyncClient(trust_env=False, timeout=60) as client:
        world = World(store=store, clock=clock, fake=fake, client=client, make=make_shopify, url=url)
        await world.open()
        yield world


@asynccontextmanager
async def subscribed(
    daemon: Daemon, *, topics: tuple[str, ...] = TOPICS
) -> AsyncIterator[tuple[FakeEndpoint, FakeEndpoint]]:
    """Run the receiver with two endpoints at the shop: one for the resources, one for everything else."""
    add = daemon.world.fake.add_endpoint
    listed = tuple(topic for topic in topics if topic.partition("/")[0] in RESOURCES)
    async with receiving(daemon) as url:
        yield (
            add(url, secret=SECRET, types=listed, connect=True),
            add(url, secret=SECRET, types=tuple(set(topics) - set(listed))),
        )


async def states(world: World) -> dict[str, int]:
    """{object: the last version that the ledger has of it}, deletions left out."""
    query = select(EVENT.c.object_key, EVENT.c.object_version, EVENT.c.type)
    rows = await world.store.read(lambda c: c.execute(query).all())
    found: dict[str, int] = {}
    for row in rows:
        if row.object_version is not None and not row.type.endswith("/delete"):
            found[row.object_key] = max(found.get(row.object_key, 0), row.object_version)
    return found


def truth(world: World) -> dict[str, int]:
    """{object: its last version} of every object that the shop still has."""
    names = {"orders": "Order", "products": "Product", "customers": "Customer"}
    last = {(event.stream, event.object_id): event for event in world.fake.events if event.stream}
    return {
        f"gid://shopify/{names[stream]}/{number}": to_us(event.occurred_at)
        for (stream, number), event in last.items()
        if not event.type.endswith("/delete")
    }


async def settle(world: World, daemon: Daemon, clock: FakeClock) -> None:
    await world.fake.settle()
    clock.advance(minutes=5)
    await daemon.run_source(health=True)


async def test_every_last_state_that_a_lost_webhook_left_out_is_recovered(world: World, clock: FakeClock) -> None:
    chance = random.Random(3)
    async with world.daemon() as daemon, subscribed(daemon):
        await daemon.run_source(health=True)
        world.fake.faults = Faults(drop=0.4, duplicate=0.1, bad_signature=0.1)
        for _ in range(200):
            resource = chance.choice(RESOURCES)
            number = f"{RESOURCES.index(resource) + 1}{chance.randrange(30):03}"
            world.fake.emit(UPDATES[resource], object_id=number, stream=resource)
            if chance.random() < 0.3:
                clock.advance(seconds=chance.randrange(40))
            if chance.random() < 0.05:
                await settle(world, daemon, clock)
        world.fake.faults = Faults()
        await settle(world, daemon, clock)
        await settle(world, daemon, clock)
        wanted, got = truth(world), await states(world)
        assert got == wanted
        by = (await world.totals()).counts
        assert by["by_list"] == await world.missed() > 0
        assert by["unlisted"] == 0
        for name in RESOURCES:
            stream = await world.stream(name)
            assert (stream.last_outcome, stream.parked_reason) == ("clean", None)
            assert from_us(stream.watermark_us) == clock() - GRACE
        assert daemon.source.types_origin is TypesOrigin.SUBSCRIPTION
        assert await world.missing_open() == 0


async def test_what_no_list_shows_is_not_claimed(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon, subscribed(daemon):
        await daemon.run_source(health=True)
        kept = world.fake.emit("app/uninstalled")
        gone = world.fake.emit("orders/updated", object_id="1", stream="orders")
        await world.fake.settle()
        clock.advance(seconds=30)
        world.fake.faults = Faults(webhooks_off=True)
        lost = world.fake.emit("app/uninstalled")
        lost_deletion = world.fake.emit("orders/delete", object_id="1", stream="orders")
        other = world.fake.emit("orders/updated", object_id="2", stream="orders")
        await settle(world, daemon, clock)
        await settle(world, daemon, clock)
        keys = await world.keys()
        assert {kept.key, gone.key} < keys
        assert not {lost.key, lost_deletion.key} & keys
        assert (await world.totals()).expected == 2
        assert await world.missed() == 1
        assert f"gid://shopify/Order/{other.object_id}" in await states(world)


async def test_a_webhook_of_a_state_that_the_list_showed_first_is_late_and_not_expected_again(
    world: World, clock: FakeClock
) -> None:
    async with world.daemon() as daemon, subscribed(daemon):
        await settle(world, daemon, clock)
        late = world.fake.emit("orders/updated", object_id="7", stream="orders", push=False)
        await settle(world, daemon, clock)
        before = await world.totals()
        assert (before.expected, before.missed, before.counts["late"]) == (1, 1, 0)
        world.fake.push(late)
        await world.fake.settle()
        assert late.key in await world.keys()
        await settle(world, daemon, clock)
        after = await world.totals()
        assert (after.expected, after.missed, after.counts["late"]) == (1, 1, 1)
        assert (await world.stream("orders")).last_outcome == "clean"


async def test_a_subscription_that_vanished_is_seen_and_what_it_lost_comes_back(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon, subscribed(daemon) as (endpoint, _):
        await settle(world, daemon, clock)
        endpoint.enabled = False  # as Shopify deletes it after 8 failures
        for number in range(10):
            world.fake.emit("orders/updated", object_id=str(number), stream="orders")
        await settle(world, daemon, clock)
        await settle(world, daemon, clock)
        row = await world.store.read(lambda c: c.execute(select(SOURCE)).mappings().one())
        assert row["subscription_healthy"] is False
        assert await states(world) == truth(world)
        counts = (await world.totals()).counts
        assert counts["missed_subscription"] == 10
        endpoint.enabled = True
        await settle(world, daemon, clock)
        row = await world.store.read(lambda c: c.execute(select(SOURCE)).mappings().one())
        assert row["subscription_healthy"] is True


async def test_a_scope_that_is_missing_parks_its_resource_alone(world: World, clock: FakeClock) -> None:
    world.fake.vendor_format = ShopifyFormat(scopes=("read_orders", "read_products", "read_all_orders"))
    async with world.daemon() as daemon, subscribed(daemon):
        world.fake.emit("orders/updated", object_id="1", stream="orders", push=False)
        world.fake.emit("customers/update", object_id="2", stream="customers", push=False)
        await settle(world, daemon, clock)
        assert await states(world) == {"gid://shopify/Order/1": to_us(T0)}
        assert "customers" in ((await world.stream("customers")).parked_reason or "")
        assert (await world.stream("orders")).parked_reason is None
        assert (await world.stream("orders")).last_outcome == "found"


async def test_a_throttled_query_is_waited_out_and_loses_nothing(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon, subscribed(daemon):
        for number in range(50):
            world.fake.emit("products/update", object_id=str(number), stream="products", push=False)
        world.fake.faults = Faults(throttle_every=1)
        clock.advance(minutes=5)
        before = (await world.stream()).watermark_us
        await daemon.run_source()
        assert (await world.stream()).last_outcome == "rate_limited"
        assert (await world.stream()).watermark_us == before
        world.fake.faults = Faults()
        await settle(world, daemon, clock)
        assert await states(world) == truth(world)


async def test_a_source_that_only_polls_records_each_state_and_misses_none(world: World, clock: FakeClock) -> None:
    world.mode = Mode.POLL
    async with world.daemon() as daemon:
        for number in range(5):
            world.fake.emit("orders/updated", object_id=str(number), stream="orders")
        await settle(world, daemon, clock)
        clock.advance(minutes=1)
        world.fake.emit("orders/updated", object_id="0", stream="orders")
        await settle(world, daemon, clock)
        assert set((await world.via()).values()) == {"list"}
        assert (len(await world.keys()), await world.missed()) == (6, 0)
