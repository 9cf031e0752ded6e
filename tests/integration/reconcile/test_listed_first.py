"""Deliveries that wait until the provider's list has shown their event."""

from typing import Any

import pytest
from sqlalchemy import select
from world import SECRET, Daemon, FakeClock, InProcess, World, github_in_pages_of

from gapless.domain import Owed, Via, to_us
from gapless.ledger.tables import DELIVERY, EVENT
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.formats.github import GitHubFormat
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = pytest.mark.anyio
MESSAGE = b"sixteen bytes ok"


def route(*_: Any) -> list[Owed]:
    return [Owed(destination_id=1, not_before_us=0)]


def patient(*_: Any) -> list[Owed]:
    return [Owed(destination_id=1, not_before_us=0, until_listed=True)]


async def deliveries(world: World) -> dict[str, tuple[str, str | None]]:
    query = select(EVENT.c.key, DELIVERY.c.state, DELIVERY.c.reason).join(EVENT, EVENT.c.seq == DELIVERY.c.event_seq)
    rows = await world.store.read(lambda c: c.execute(query.order_by(EVENT.c.seq)).all())
    return {row.key: (row.state, row.reason) for row in rows}


async def push_message(daemon: Daemon, event: FakeEvent) -> None:
    """Receive the webhook of an event whose signed message has come before."""
    (webhook,) = await daemon.webhook(event)
    seen = daemon.sighting(webhook.event, Via.WEBHOOK, webhook.body, digest=MESSAGE)
    await daemon.runtime.writer.record((seen,), 500)


async def test_a_repeated_message_is_delivered_once_the_list_shows_its_event(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    world.make, transport.fake = github_in_pages_of(100), FakeProvider(GitHubFormat(), clock=clock)
    world.fake = transport.fake
    world.fake.add_endpoint("/webhooks/acme", secret=SECRET)
    async with world.daemon(route=route) as daemon:
        clock.advance(minutes=10)
        first, second, forged = (world.fake.emit("issues.opened") for _ in range(3))
        world.fake.faults = Faults(hidden_keys=frozenset({forged.key}))
        for event in first, second, forged:
            await push_message(daemon, event)
        states = list((await deliveries(world)).values())
        assert states == [("pending", None), ("held", "not_listed"), ("held", "not_listed")]
        clock.advance(minutes=12)
        await daemon.run_source(health=True)
        states = list((await deliveries(world)).values())
        assert states == [("pending", None), ("pending", None), ("held", "not_listed")]
        assert (await world.passes())[0]["outcome"] == "clean"  # that the list lacks the forged one is no contradiction


async def test_a_repeated_message_that_a_list_has_shown_before_is_delivered_at_once(
    world: World, clock: FakeClock
) -> None:
    async with world.daemon(route=route) as daemon:
        event = world.fake.emit("invoice.paid")
        (webhook,) = await daemon.webhook(event)
        clock.advance(minutes=1)
        await daemon.run_source()
        assert list((await deliveries(world)).values()) == [("pending", None)]
        seen = daemon.sighting(webhook.event, Via.WEBHOOK, webhook.body, digest=MESSAGE)
        await daemon.runtime.writer.record((seen,), 500)
        assert list((await deliveries(world)).values()) == [("pending", None)]


async def test_a_destination_that_requires_it_gets_every_webhook_once_the_list_shows_it(
    world: World, clock: FakeClock
) -> None:
    async with world.daemon(route=patient) as daemon:
        daemon.runtime.writer.recorder.requires_listed = True
        pushed, listed = world.fake.emit("invoice.paid"), world.fake.emit("invoice.paid")
        await daemon.push(pushed)
        assert list((await deliveries(world)).values()) == [("held", "not_listed")]
        clock.advance(minutes=1)
        await daemon.run_source()
        assert await deliveries(world) == {pushed.key: ("pending", None), listed.key: ("pending", None)}
        due = select(DELIVERY.c.next_us).order_by(DELIVERY.c.event_seq)
        assert await world.store.read(lambda c: c.execute(due).scalars().first()) <= to_us(clock())
