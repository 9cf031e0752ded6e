"""Passes over a list that shows states and no events: what covers a state, what was missed, and when a list lies."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select
from world import SECRET, T0, Daemon, FakeClock, InProcess, World

from gapless.domain import Via, from_us, to_us
from gapless.ledger import events, leases, quarantine
from gapless.ledger.engine import Store
from gapless.ledger.quarantine import Caps
from gapless.ledger.tables import EVENT
from gapless.receive.turned_away import TurnedAway
from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.providers.shopify import Shopify, ShopifyOptions
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.formats.shopify import ShopifyFormat
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = pytest.mark.anyio
GRACE = Shopify.capabilities.grace


class Died(Exception):
    """The process ends here."""


def make_shopify(url: str, page_limit: int = 100) -> Provider:
    return Shopify(
        ShopifyOptions(
            shop="fake.myshopify.com",
            access_token=Secret("shpat_fake"),
            client_secret=(Secret(SECRET),),
            resources=("orders",),
            page_limit=page_limit,
            api_base=url,
        )
    )


@pytest.fixture
def transport(clock: FakeClock) -> InProcess:
    return InProcess(fake=FakeProvider(ShopifyFormat(), clock=clock))


@pytest.fixture
async def world(store: Store, clock: FakeClock, transport: InProcess) -> AsyncIterator[World]:
    async with httpx.AsyncClient(transport=transport) as client:
        world = World(store=store, clock=clock, fake=transport.fake, client=client, make=make_shopify)
        await world.open()
        yield world


def change(world: World, order: int = 7, kind: str = "orders/updated") -> FakeEvent:
    """One change of an order, now."""
    return world.fake.emit(kind, object_id=str(order), stream="orders")


async def listed(world: World) -> list[str]:
    """The keys of the states that were recorded from the list."""
    query = select(EVENT.c.key).where(EVENT.c.via == Via.LIST.value).order_by(EVENT.c.seq)
    return list(await world.store.read(lambda c: c.execute(query).scalars().all()))


def key_of(event: FakeEvent) -> str:
    at = event.occurred_at.isoformat().replace("+00:00", "Z")
    return f"gid://shopify/Order/{event.object_id}@{at}"


async def passes(daemon: Daemon, clock: FakeClock, count: int = 1) -> list[str | None]:
    """The outcome of the orders' stream after each of some passes, each later than the grace."""
    outcomes = []
    for _ in range(count):
        clock.advance(minutes=5)
        await daemon.run_source(health=True)
        outcomes.append((await daemon.world.stream("orders")).last_outcome)
    return outcomes


async def test_a_webhook_of_the_same_version_covers_the_listed_state(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        pushed = change(world)
        await daemon.push(pushed)
        assert await passes(daemon, clock, 2) == ["clean", "clean"]
        assert await world.via() == {pushed.key: "webhook"}
        assert await world.missed() == 0
        assert from_us((await world.stream("orders")).watermark_us) == clock() - GRACE


async def test_a_webhook_of_a_later_version_covers_what_is_still_listed(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        change(world)
        clock.advance(seconds=90)
        world.fake.faults = Faults(late_visible=1.0, late_visible_s=3600)  # the list goes on showing what was before
        later = change(world)
        await daemon.push(later)
        assert await passes(daemon, clock) == ["clean"]
        assert await world.via() == {later.key: "webhook"}
        assert await world.missed() == 0


async def test_a_lost_update_is_recorded_once_as_a_state_and_missed_once(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        lost, kept = change(world, 7), change(world, 8)
        await daemon.push(kept)
        assert await passes(daemon, clock, 3) == ["found", "clean", "clean"]
        assert await world.via() == {key_of(lost): "list", kept.key: "webhook"}
        assert await world.missed() == 1
        (row,) = await world.store.read(events.by_key, key=key_of(lost))
        assert (row.type, row.stream, row.object_key) == ("orders.state", "orders", "gid://shopify/Order/7")
        assert (row.expected, from_us(row.occurred_us)) == (True, lost.occurred_at)


async def test_a_webhook_of_a_state_listed_early_leaves_nothing_missed(world: World, clock: FakeClock) -> None:
    """Two webhooks tell of the version; the first one decides, and neither is late."""
    async with world.daemon() as daemon:
        pushed = change(world, kind="orders/updated"), change(world, kind="orders/paid")
        clock.advance(seconds=20)
        await daemon.run_source(health=True)
        assert (await listed(world), await world.missed()) == ([key_of(pushed[0])], 0)
        await daemon.push(*pushed)
        await passes(daemon, clock, 2)
        totals = await world.totals()
        assert (totals.expected, totals.missed, totals.counts["late"]) == (1, 0, 0)


async def test_two_late_webhooks_of_one_state_are_late_once(world: World, clock: FakeClock) -> None:
    """Late are a part of the missed, and one state was missed."""
    async with world.daemon() as daemon:
        pushed = change(world, kind="orders/updated"), change(world, kind="orders/paid")
        await passes(daemon, clock)
        await daemon.push(*pushed)
        totals = await world.totals()
        assert (totals.expected, totals.missed, totals.counts["late"]) == (1, 1, 1)


async def test_a_newer_version_makes_another_state(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        first = change(world)
        await passes(daemon, clock)
        second = change(world)
        assert await passes(daemon, clock, 2) == ["found", "clean"]
        assert await listed(world) == [key_of(first), key_of(second)]
        assert await world.missed() == 2


async def test_steps_between_two_readings_leave_no_trace_but_the_last(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        for _ in range(4):
            last = change(world)
            clock.advance(seconds=10)
        await passes(daemon, clock)
        assert await listed(world) == [key_of(last)]
        assert await world.missed() == 1


async def test_webhooks_of_one_object_of_which_the_last_is_listed_are_not_suspect_nor_unlisted(
    world: World, clock: FakeClock
) -> None:
    async with world.daemon() as daemon:
        for number in range(6):
            await daemon.push(change(world))
            if number == 2:
                assert await passes(daemon, clock) == ["clean"]
            clock.advance(seconds=30)
        assert await passes(daemon, clock, 4) == ["clean"] * 4
        totals = await world.totals()
        assert (totals.counts["unlisted"], totals.missed, totals.expected) == (0, 0, 6)


async def test_an_object_that_moves_on_behind_the_window_does_not_make_its_list_suspect(
    world: World, clock: FakeClock
) -> None:
    async with world.daemon() as daemon:
        await daemon.push(change(world))
        clock.advance(minutes=5)
        await daemon.push(change(world))  # too young to be listed; the older state is listed no more
        await daemon.run_source(health=True)
        assert (await world.stream("orders")).last_outcome == "clean"
        assert await passes(daemon, clock) == ["clean"]
        assert (await world.totals()).missed == 0


async def test_a_list_of_states_that_lies_is_not_believed(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        await daemon.push(*[change(world, order) for order in range(5)])
        before = (await world.stream("orders")).watermark_us
        world.fake.faults = Faults(empty_lists=True)
        assert await passes(daemon, clock, 3) == ["suspect_listing"] * 3
        assert (await world.stream("orders")).watermark_us == before
        world.fake.faults = Faults()
        assert await passes(daemon, clock) == ["clean"]
        assert (await world.totals()).counts["unlisted"] == 0


async def test_an_object_that_was_deleted_is_no_sign_of_a_lie(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        await daemon.push(change(world))
        clock.advance(seconds=30)
        await daemon.push(change(world, kind="orders/delete"))
        assert await passes(daemon, clock, 2) == ["clean", "clean"]
        assert (await world.totals()).expected == 1


async def test_of_two_webhooks_of_one_version_the_expected_one_bears_witness(world: World, clock: FakeClock) -> None:
    async with world.daemon(types=["orders/updated", "orders.state"]) as daemon:
        await daemon.push(change(world, kind="orders/create"))
        await daemon.push(change(world, kind="orders/updated"))
        await daemon.push(change(world, kind="orders/paid"))
        assert await passes(daemon, clock, 2) == ["clean", "clean"]
        assert (await world.totals()).expected == 1


async def test_a_webhook_that_comes_after_its_state_was_recorded_is_recorded_too_and_covers_nothing_twice(
    world: World, clock: FakeClock
) -> None:
    async with world.daemon() as daemon:
        late = change(world)
        await passes(daemon, clock)
        await daemon.push(late)
        assert await passes(daemon, clock, 2) == ["clean", "clean"]
        assert await world.via() == {key_of(late): "list", late.key: "webhook"}
        assert await world.missed() == 1


async def test_states_that_nobody_subscribed_to_are_neither_recorded_nor_missed(world: World, clock: FakeClock) -> None:
    async with world.daemon(types=["orders/create"]) as daemon:
        change(world)
        assert await passes(daemon, clock) == ["clean"]
        assert (await world.keys(), await world.missed()) == (set(), 0)


async def test_many_states_on_many_pages_are_each_recorded_once(world: World, clock: FakeClock) -> None:
    async with world.daemon(page_limit=7) as daemon:
        changes: Sequence[FakeEvent] = [change(world, order) for order in range(60)]
        await daemon.push(*changes[::3])
        assert await passes(daemon, clock, 2) == ["found", "clean"]
        assert set(await listed(world)) == {key_of(event) for number, event in enumerate(changes) if number % 3}
        assert await world.missed() == 40


async def test_a_walk_deeper_than_one_query_goes_on_from_its_cursor_after_a_crash(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    world.fake.backfill(25_300, T0, T0 + timedelta(minutes=30), ["orders/updated"], stream="orders")
    clock.advance(minutes=33)
    requests: list[httpx.Request] = []

    def die(request: httpx.Request) -> None:
        if b"updated_at" in request.content:
            requests.append(request)
            if len(requests) == 60:
                raise Died

    transport.before = die
    with pytest.raises(BaseExceptionGroup) as raised:
        async with world.daemon(page_limit=250) as daemon:
            await daemon.run_source(health=True)
    assert raised.value.split(Died)[1] is None
    await world.store.write(leases.clear)
    async with world.daemon(page_limit=250) as daemon:
        await daemon.run_source(health=True)
    assert len(await world.keys()) == 25_300
    assert await world.missed() == 25_300
    depths = [request.url.fragment.partition("read=")[2] for request in requests]
    assert depths[60] in depths[57:60]
    assert depths.index("0") < depths.index("250", 10)


async def test_a_state_whose_webhook_got_503_was_refused(world: World, clock: FakeClock) -> None:
    """The list has another key for it than its webhook."""
    async with world.daemon() as daemon:
        refused, lost = change(world, 7), change(world, 8)
        turned_away = TurnedAway(daemon.runtime.writer, Caps(rows=9, size_bytes=1 << 20))
        turned_away.note(daemon.source, [each.event for each in await daemon.webhook(refused)], to_us(clock()))
        writing = asyncio.create_task(turned_away.run())
        while not await daemon.runtime.read(quarantine.entries):
            await asyncio.sleep(0.01)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert await passes(daemon, clock) == ["found"]
        assert await world.via() == {key_of(refused): "list", key_of(lost): "list"}
        assert ((await world.totals()).counts["missed_refused"], await world.missed()) == (1, 2)
