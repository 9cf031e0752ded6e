"""When a source is read, on the real scheduler: heartbeats, siblings, looks out of turn, the purse, sweeps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from world import HASTY, SECRET, T0, Daemon, FakeClock, InProcess, World

from gapless.domain import Purpose, from_us, to_us
from gapless.ledger import budgets, earnings, learned, looks, quarantine, silence, sources, streams
from gapless.ledger.looks import StoredLook
from gapless.ledger.quarantine import Caps, QuarantinedWebhook
from gapless.reconcile.grants import purse_terms
from gapless.reconcile.pace import Pace
from gapless.reconcile.scheduler import Scheduler
from gapless_reconcilers.kit.contract import Grant
from gapless_reconcilers.providers.stripe import Stripe
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = pytest.mark.anyio
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PACE = Pace(shortest=30 * SECOND, longest=15 * MINUTE, adaptive=True)
PLENTY = Grant(requests=1_000_000, period=30 * DAY)
FLOOR = Grant(requests=10_000, period=30 * DAY)
CAPS = Caps(rows=100, size_bytes=1_000_000)


@pytest.fixture
def world(world: World) -> World:
    world.fake.add_endpoint("/webhooks/acme", secret=SECRET)
    return world


class Runs:
    """The scheduler of a daemon, on a clock that moves when the test says so."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon, self.world = daemon, daemon.world

    async def row(self) -> Any:
        return await self.world.store.read(sources.source_row, source_id=self.world.source_id)

    async def due(self) -> datetime:
        """Return when the source is due next, once it is not being read."""
        while True:
            row = await self.row()
            if row["lease_holder"] is None and row["next_pass_us"] > to_us(self.world.clock()):
                return from_us(row["next_pass_us"])
            await asyncio.sleep(0.005)

    async def next(self) -> timedelta:
        """Move to the due time, wait until the source was read, and return the wait until the next time."""
        self.world.clock.now = max(self.world.clock.now, await self.due())
        return await self.due() - self.world.clock()

    async def settle(self, runs: int = 3) -> None:
        """Let the first looks pass, until only the heartbeat is left."""
        for _ in range(runs):
            await self.next()

    async def hear(self, *events: FakeEvent) -> None:
        """Receive the webhooks, and note when the last one came, as a receiver does every other second."""
        await self.daemon.push(*events)
        heard = {self.world.source_id: to_us(self.world.clock())}
        await self.daemon.runtime.write(silence.note_heard, heard=heard)

    def lists(self) -> int:
        """Return how many requests of lists the provider has answered."""
        return sum(each.path == "/v1/events" for each in self.world.fake.requests)


@asynccontextmanager
async def scheduled(daemon: Daemon, **policy: Any) -> AsyncIterator[Runs]:
    policies = {"acme": replace(daemon.policy, pace=PACE, **policy)}
    scheduler = Scheduler(daemon.runtime, policies, daemon.world.client, holder="one", tick_s=0.02, retry=HASTY)
    running = asyncio.create_task(scheduler.run())
    try:
        yield Runs(daemon)
    finally:
        scheduler.stop()
        await running


async def empty_the_purse(daemon: Daemon, grant: Grant) -> None:
    terms = purse_terms(grant, 0)
    await daemon.runtime.write(
        budgets.reserve,
        scope=daemon.source.provider.budget_scope(),
        terms=terms,
        purpose=Purpose.HEARTBEAT,
        requests=int(terms.full),
        now_us=to_us(daemon.world.clock()),
    )


async def test_a_generous_grant_is_read_every_half_minute(world: World, clock: FakeClock) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon, scheduled(daemon, grant=PLENTY) as runs:
        waits = [await runs.next() for _ in range(6)]
        assert waits[-3:] == [30 * SECOND] * 3


async def test_a_short_grant_is_spread_over_the_day(world: World, clock: FakeClock) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon, scheduled(daemon, grant=FLOOR) as runs:
        await runs.settle(12)
        assert 5 * MINUTE < await runs.next() <= 15 * MINUTE


async def test_without_a_grant_the_shortest_interval_is_kept(world: World, clock: FakeClock) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon, scheduled(daemon) as runs:
        assert [await runs.next() for _ in range(4)][-1] == 30 * SECOND


async def test_an_empty_purse_puts_a_reading_off_until_it_can_pay(world: World, clock: FakeClock) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon:
        await empty_the_purse(daemon, FLOOR)
        async with scheduled(daemon, grant=FLOOR) as runs:
            due = await runs.due()
            assert runs.lists() == 0
            assert clock() + MINUTE < due < clock() + HOUR
            assert (await world.comparison()).unpaid_until == due
            await runs.next()
            assert runs.lists() >= 1
            assert (await world.comparison()).unpaid_until is None


async def test_history_that_runs_out_is_read_whatever_the_purse_says(world: World, clock: FakeClock) -> None:
    known = replace(Stripe.capabilities, history=4 * DAY)
    async with world.daemon(capabilities=known) as daemon:
        clock.advance(days=3, hours=6)
        await empty_the_purse(daemon, FLOOR)
        async with scheduled(daemon, grant=FLOOR) as runs:
            await runs.due()
            assert runs.lists() >= 1


async def test_siblings_of_a_webhook_are_read_when_they_have_settled(world: World, clock: FakeClock) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon, scheduled(daemon, grant=FLOOR) as runs:
        await runs.settle(12)
        pushed, lost = world.fake.emit("charge.succeeded"), world.fake.emit("invoice.paid")
        await runs.hear(pushed)
        before = runs.lists()
        await asyncio.sleep(0.2)
        assert runs.lists() == before
        clock.advance(seconds=25)
        while lost.key not in await world.keys():
            await asyncio.sleep(0.01)
        assert clock() < await runs.due()


async def test_a_reading_for_siblings_is_one_reading(world: World, clock: FakeClock) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon, scheduled(daemon, grant=FLOOR) as runs:
        await runs.settle(12)
        await runs.hear(world.fake.emit("charge.succeeded"))
        before = runs.lists()
        clock.advance(seconds=25)
        while runs.lists() == before:
            await asyncio.sleep(0.005)
        await runs.due()
        assert runs.lists() == before + 1


async def test_a_silence_that_has_ended_is_not_looked_into(world: World, clock: FakeClock) -> None:
    clock.advance(minutes=5)
    ended = StoredLook(reason="silence", due_us=to_us(clock()), wait_us=1_000_000)
    async with world.daemon() as daemon:
        await daemon.runtime.write(looks.note, source_id=world.source_id, look=ended)
        await daemon.run_source()
        assert await world.store.read(looks.read, source_id=world.source_id) is None
        assert (await Runs(daemon).row())["next_pass_us"] > to_us(clock())


async def test_a_look_that_cannot_be_paid_for_is_made_later(world: World, clock: FakeClock) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon, scheduled(daemon, grant=FLOOR) as runs:
        await runs.settle(12)
        await empty_the_purse(daemon, FLOOR)
        look = StoredLook(reason="find", due_us=to_us(clock()), wait_us=30_000_000)
        await daemon.runtime.write(looks.want, source_id=world.source_id, look=look, now_us=to_us(clock()))
        before, due = runs.lists(), await runs.due()
        assert runs.lists() == before
        assert due > clock() + MINUTE
        put_off = await world.store.read(looks.read, source_id=world.source_id)
        assert put_off is not None
        assert put_off.reason == "find"
        assert put_off.wait_us - put_off.put_off_us == 30_000_000  # that it was put off is no clean look
        while runs.lists() == before:
            await runs.next()


async def test_a_find_is_followed_by_looks_that_become_rarer(world: World, clock: FakeClock) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon, scheduled(daemon, grant=FLOOR) as runs:
        await runs.settle(12)
        world.fake.emit("invoice.paid")
        assert await runs.next() == 30 * SECOND
        waits = [await runs.next() for _ in range(4)]
        assert waits[:2] == [45 * SECOND, 67.5 * SECOND]
        assert waits == sorted(waits)


@pytest.mark.parametrize(("reason", "look"), [("signature", looks.DOUBTED), (quarantine.UNAVAILABLE, looks.REFUSED)])
async def test_what_we_refused_is_looked_into_soon(world: World, clock: FakeClock, reason: str, look: str) -> None:
    row = QuarantinedWebhook(
        source_id=world.source_id, received_us=to_us(T0 + MINUTE), reason=reason, detail="", headers="[]", body=b"[]"
    )
    async with world.daemon() as daemon:
        clock.advance(minutes=1)
        lease = await daemon.lease()
        assert lease is not None
        await daemon.source_run(lease).run()
        await daemon.runtime.write(quarantine.add, refused=[row], caps=CAPS)
        stored = await world.store.read(looks.read, source_id=world.source_id)
        assert stored == StoredLook(reason=look, due_us=to_us(T0 + MINUTE + 30 * SECOND), wait_us=30_000_000)
        next_us = (await world.store.read(sources.source_row, source_id=world.source_id))["next_pass_us"]
        assert next_us <= stored.due_us


async def test_a_rejected_key_is_tried_again_after_one_two_and_four_minutes(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon, scheduled(daemon, grant=PLENTY) as runs:
        await runs.settle()

        def reject(_: httpx.Request) -> None:
            world.fake.faults = Faults(key_revoked=True)

        transport.before = reject
        assert [await runs.next() for _ in range(7)] == [n * MINUTE for n in (1, 2, 4, 8, 16, 30, 30)]


async def test_a_replaced_key_is_used_at_once(world: World, clock: FakeClock) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon, scheduled(daemon, grant=PLENTY) as runs:
        await runs.settle()
        asked = len(world.fake.requests)
        daemon.runtime.sources.change("acme", provider=world.provider())
        while len(world.fake.requests) == asked:
            await asyncio.sleep(0.01)
        assert world.fake.requests[asked].path == "/v1/account"


async def test_heads_are_read_while_a_long_sweep_goes_on(world: World, clock: FakeClock, transport: InProcess) -> None:
    """Each page takes five seconds of the told clock; a sweep of hundreds of pages never makes a heartbeat late."""
    async with world.daemon(sweep_every=DAY, page_limit=2) as daemon:
        clock.advance(minutes=30)
        await daemon.push(*(world.fake.emit("invoice.paid") for _ in range(200)))
        clock.advance(days=1, hours=1)

        def take_long(_: httpx.Request) -> None:
            clock.advance(seconds=5)

        async with scheduled(daemon, grant=PLENTY, slices=1, rate=10) as runs:
            await runs.settle(2)
            transport.before = take_long
            heads: list[int] = []
            while len(heads) < 30:
                row, stream = await runs.row(), await world.stream()
                if stream.head_us is not None and stream.head_us not in heads:
                    heads.append(stream.head_us)
                if row["lease_holder"] is None:
                    clock.now = max(clock.now, from_us(row["next_pass_us"]))
                await asyncio.sleep(0.005)
        kinds = {row["kind"]: row for row in await world.passes()}
        assert kinds["sweep"]["requests"] > 5
        assert max(later - sooner for sooner, later in pairwise(heads)) <= 60_000_000


async def test_the_first_start_lists_what_earns_requests(world: World, clock: FakeClock) -> None:
    for _ in range(150):
        world.fake.emit("charge.succeeded")
        clock.advance(seconds=1)
    clock.advance(hours=1)
    grant = Stripe.capabilities.grant
    assert grant is not None
    world.start = clock()
    async with world.daemon() as daemon, scheduled(daemon, grant=grant) as runs:
        await runs.settle(2)
        since_us = to_us(clock() - 30 * DAY)
        earned = await world.store.read(
            earnings.earned, source_id=world.source_id, types=grant.types, since_us=since_us
        )
        assert earned == 150
        await runs.next()
        stored = await world.store.read(learned.read, source_id=world.source_id)
        assert stored is not None
        assert stored[1].granted == 150 * 500


async def test_what_was_learned_is_stored_and_used_by_the_next_process(world: World, clock: FakeClock) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon:
        for _ in range(2):
            async with scheduled(daemon, grant=PLENTY) as runs:
                for _ in range(12):
                    await runs.hear(*(world.fake.emit("invoice.paid") for _ in range(50)))
                    clock.advance(seconds=45)
                    await runs.next()
        stored = await world.store.read(learned.read, source_id=world.source_id)
        assert stored is not None
        facts = stored[1]
        assert facts.webhooks >= 1000
        assert facts.settle_s < 20
        assert facts.shown > 100
        assert facts.plan is not None
        assert facts.plan.words.startswith("reads every 30s, and soon after each webhook")


async def owe(daemon: Daemon, grant: Grant, share: float) -> None:
    """Spend so much of the purse."""
    terms = purse_terms(grant, 0)
    await daemon.runtime.write(
        budgets.reserve,
        scope=daemon.source.provider.budget_scope(),
        terms=terms,
        purpose=Purpose.HEARTBEAT,
        requests=int(terms.full * share),
        now_us=to_us(daemon.world.clock()),
    )


async def test_a_forged_webhook_postpones_no_heartbeat(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon, scheduled(daemon, grant=FLOOR) as runs:
        await runs.settle(12)
        await owe(daemon, FLOOR, 0.7)
        due = await runs.due()
        row = QuarantinedWebhook(
            source_id=world.source_id,
            received_us=to_us(clock()),
            reason="signature",
            detail="",
            headers="[]",
            body=b"[]",
        )
        await daemon.runtime.write(quarantine.add, refused=[row], caps=CAPS)
        await runs.next()
        assert clock() < due
        assert await runs.due() <= due


async def test_a_key_of_another_account_is_asked_more_and_more_rarely(world: World, clock: FakeClock) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon, scheduled(daemon, grant=PLENTY) as runs:
        await runs.settle(2)
        other = replace(world.fake.vendor_format, account="acct_other")  # type: ignore[type-var]
        world.fake.vendor_format = other
        clock.advance(hours=1)
        assert [await runs.next() for _ in range(6)] == [n * MINUTE for n in (2, 4, 8, 16, 30, 30)]


async def test_the_checks_of_endpoint_and_account_wait_for_a_purse_but_not_for_ever(
    world: World, clock: FakeClock
) -> None:
    def checks() -> int:
        return sum(each.path in ("/v1/account", "/v1/webhook_endpoints") for each in world.fake.requests)

    clock.advance(minutes=5)
    async with world.daemon() as daemon, scheduled(daemon, grant=FLOOR) as runs:
        await runs.settle()
        made = checks()
        await owe(daemon, FLOOR, 0.7)
        clock.advance(hours=4)
        await runs.next()
        assert (made > 0, checks()) == (True, made)
        await owe(daemon, FLOOR, 0.5)
        clock.advance(hours=24)
        await runs.next()
        assert checks() > made


async def test_a_purse_that_cannot_pay_for_all_streams_pays_for_some_and_then_for_the_others(
    world: World, clock: FakeClock
) -> None:
    async def unread() -> int:
        known = await world.store.read(streams.streams, source_id=world.source_id)
        return sum(each.head_us is None for each in known)

    clock.advance(minutes=5)
    async with world.daemon() as daemon:
        for number in range(60):
            await daemon.runtime.write(streams.ensure_stream, source_id=world.source_id, name=f"acct_{number}")
        async with scheduled(daemon, grant=Grant(requests=500, period=30 * DAY)) as runs:
            assert await runs.due() < clock() + DAY
            left = await unread()
            for _ in range(3):
                await runs.next()
            assert 0 < left < 40
            assert await unread() < left
