"""Why a webhook was missed is evidence of that event; what strangers send changes nothing."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from receiving import receiving
from sqlalchemy import insert
from world import SECRET, T0, Daemon, FakeClock, World

from gapless.domain import to_us
from gapless.ledger import quarantine
from gapless.ledger.engine import Store, StoreUnavailable
from gapless.ledger.quarantine import Caps
from gapless.ledger.tables import DOWNTIME
from gapless.operations.context import OperationContext
from gapless.operations.quarantine import ReleaseQuarantined, release_quarantined
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.quarantine import StillRefused, release_webhook
from gapless.receive.stream_ids import StreamIds
from gapless.receive.turned_away import IN_A_ROW, MOST, TurnedAway
from gapless.settings import PublicSettings
from gapless_reconcilers.kit.contract import RemoteEvent
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


async def test_a_webhook_refused_after_the_listing_is_evidence(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon, receiving(daemon) as url:
        event = world.fake.emit("invoice.paid", push=False)
        clock.advance(seconds=12)
        await daemon.run_source()
        assert (await world.keys(), await causes(world)) == ({event.key}, {})
        assert await send(daemon, url, event, "whsec_other") == 401
        await settled(daemon)
        clock.advance(minutes=2)
        await daemon.run_source()
        assert await causes(world) == {"missed_refused": 1}


async def test_a_413_whose_headers_name_nothing_is_unexplained(world: World, clock: FakeClock) -> None:
    """What is not read to its end names its event only in a header, and Stripe has none for that."""
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


async def noted(daemon: Daemon, reason: str, count: int = 1) -> None:
    """Return when so many rows of that reason are durable."""
    while [row.reason for row in await daemon.runtime.read(quarantine.entries)].count(reason) < count:
        await asyncio.sleep(0.01)


TINY = PublicSettings(queue_max_bytes=1)
"""The queue of webhooks is full at once, so that each is answered 503."""


async def test_a_verified_webhook_that_got_503_is_refused(world: World, clock: FakeClock) -> None:
    """Also for the next process. A forged one changes nothing."""
    turned_away, lost = (world.fake.emit("invoice.paid", push=False) for _ in range(2))
    async with world.daemon(settings=TINY) as daemon, receiving(daemon) as url:
        assert await send(daemon, url, turned_away, SECRET) == 503
        assert await post(url, b'{"id":"evt_2"}', {"stripe-signature": "t=1,v1=00"}) == 401
        await noted(daemon, "unavailable")
    clock.advance(minutes=10)
    async with world.daemon() as daemon:
        await daemon.run_source()
        assert await world.keys() == {turned_away.key, lost.key}
        assert await causes(world) == {"missed_refused": 1, "missed_unexplained": 1}


async def test_names_wait_until_the_store_is_back(world: World, clock: FakeClock) -> None:
    store = Outage(world.store)
    async with world.daemon(store=store) as daemon, receiving(daemon) as url:
        event = world.fake.emit("invoice.paid", push=False)
        store.lasts = True
        assert await send(daemon, url, event, SECRET) == 503
        while store.failed < 2:  # the webhook, and its name
            await asyncio.sleep(0.01)
        store.lasts = False
        await noted(daemon, "unavailable")
        clock.advance(minutes=10)
        await daemon.run_source()
        assert await causes(world) == {"missed_refused": 1}


class Outage(Store):
    """A store that cannot write while `lasts` is True."""

    def __init__(self, store: Store) -> None:
        self.store, self.dialect, self.lasts, self.failed = store, store.dialect, False, 0

    async def read(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        return await self.store.read(query, *args, **kwargs)

    async def write(self, work: Any, /, *args: Any, **kwargs: Any) -> Any:
        if self.lasts:
            self.failed += 1
            raise StoreUnavailable("the disk is gone")
        return await self.store.write(work, *args, **kwargs)

    async def close(self) -> None:
        await self.store.close()

    def free_bytes(self) -> int | None:
        return self.store.free_bytes()


async def test_names_that_wait_are_bounded(world: World) -> None:
    async with world.daemon() as daemon:
        turned_away = TurnedAway(daemon.runtime.writer, Caps(rows=100, size_bytes=1 << 20))
        for number in range(MOST + 500):
            event = RemoteEvent(key=f"evt_{number}", type="x", occurred_at=T0, payload=b"{}")
            turned_away.note(daemon.source, [event], to_us(T0))
        writing = asyncio.create_task(turned_away.run())
        await noted(daemon, "unavailable", MOST // IN_A_ROW)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        wanted = [RemoteEvent(key=f"evt_{n}", type="x", occurred_at=T0, payload=b"{}") for n in (0, 499, 500, MOST)]
        named = await daemon.runtime.read(
            quarantine.named_in, source_id=world.source_id, events=wanted, since_us=to_us(T0)
        )
        assert named == {"evt_500", f"evt_{MOST}"}


async def test_what_was_not_kept_whole_is_not_released(world: World, clock: FakeClock) -> None:
    async with world.daemon(settings=TINY) as daemon, receiving(daemon) as url:
        assert await send(daemon, url, world.fake.emit("invoice.paid", push=False), SECRET) == 503
        await noted(daemon, "unavailable")
        runtime = daemon.runtime
        evidence = EvidenceFetcher(world.client, clock, runtime.metrics)
        done = await release_webhook(1, runtime=runtime, stream_ids=StreamIds(runtime.writer), evidence=evidence)
        assert isinstance(done, StillRefused)
        assert done.reason == "unavailable"
        context = OperationContext(runtime=runtime, evidence=evidence, stream_ids=StreamIds(runtime.writer))
        whole = await release_quarantined(context, ReleaseQuarantined(source="acme"))
        assert (whole["released"], whole["refused"]) == (0, 0)
