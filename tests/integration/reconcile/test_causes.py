"""Why a webhook was missed is evidence of that event; what strangers send changes nothing."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from receiving import receiving
from sqlalchemy import insert
from world import T0, Daemon, FakeClock, World

from gapless.domain import to_us
from gapless.ledger import quarantine
from gapless.ledger.tables import DOWNTIME
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint

pytestmark = pytest.mark.anyio


async def causes(world: World) -> dict[str, int]:
    counts = (await world.totals()).counts
    return {name: n for name, n in counts.items() if name.startswith("missed_") and n}


async def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.post(url, content=body, headers=headers)).status_code


async def send(daemon: Daemon, url: str, event: FakeEvent, secret: str) -> int:
    """Send the webhook of `event`, signed with `secret`."""
    endpoint = FakeEndpoint(number=0, url="", secret=secret, types=("*",), connect=False)
    message = daemon.world.fake.vendor_format.message(event, endpoint, daemon.world.clock(), genuine=True)
    return await post(url, message.body, dict(message.headers))


async def settled(daemon: Daemon) -> None:
    """Return when the quarantine has written something."""
    while not await daemon.runtime.read(quarantine.entries):
        await asyncio.sleep(0.01)


async def test_forged_webhooks_change_no_cause(world: World, clock: FakeClock) -> None:
    """One an hour made 16 of 20 losses `refused`. A body full of guessed keys is no better."""
    async with world.daemon() as daemon, receiving(daemon) as url:
        for number in range(20):
            world.fake.emit("invoice.paid", push=False)
            guesses = " ".join(str(each) for each in range(1000 * number, 1000 * number + 1000))
            body = b'{"id":"evt_forged%d","object":"event","x":"%b"}' % (number, guesses.encode())
            assert await post(url, body, {"stripe-signature": "t=1,v1=00"}) == 401
            clock.advance(minutes=30)
        await settled(daemon)
        clock.advance(minutes=10)
        await daemon.run_source()
        assert await causes(world) == {"missed_unexplained": 20}


async def test_a_genuine_webhook_that_we_refused_is_refused(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon, receiving(daemon) as url:
        refused, lost = (world.fake.emit("invoice.paid", push=False) for _ in range(2))
        assert await send(daemon, url, refused, "whsec_other") == 401
        await settled(daemon)
        clock.advance(minutes=10)
        await daemon.run_source()
        assert await world.keys() == {refused.key, lost.key}
        assert await causes(world) == {"missed_refused": 1, "missed_unexplained": 1}


async def test_our_413_and_503_are_unexplained(world: World, clock: FakeClock) -> None:
    """What is not read to its end cannot name an event; the outcome is counted beside it."""
    async with world.daemon() as daemon, receiving(daemon) as url:
        event = world.fake.emit("invoice.paid", push=False)
        assert await post(url, b" " * (2 << 20), {"stripe-signature": "t=1,v1=00"}) == 413
        clock.advance(minutes=10)
        await daemon.run_source()
        assert await world.keys() == {event.key}
        assert await causes(world) == {"missed_unexplained": 1}


async def test_only_what_met_a_downtime_was_lost_to_it(world: World, clock: FakeClock) -> None:
    """Of 222 losses that were called so, 167 lay in the minute before it."""
    start = T0 + timedelta(minutes=5)
    async with world.daemon() as daemon:
        for second in (30, 61, 240, 285):  # before
            clock.now = T0 + timedelta(seconds=second)
            world.fake.emit("invoice.paid", push=False)
        for second in (295, 299, 301, 350):  # within seconds of its start, and in it
            clock.now = T0 + timedelta(seconds=second)
            world.fake.emit("invoice.paid", push=False)
        clock.now = T0 + timedelta(seconds=361)  # after
        world.fake.emit("invoice.paid", push=False)
        down: dict[str, Any] = {"start_us": to_us(start), "end_us": to_us(start + timedelta(minutes=1))}
        await daemon.runtime.write(lambda c: c.execute(insert(DOWNTIME).values(**down)).rowcount)
        clock.advance(minutes=10)
        await daemon.run_source()
        assert await causes(world) == {"missed_receiver_down": 4, "missed_unexplained": 5}
