"""Passes through the real engine and store: the watermark covers what was read, and nothing else."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from world import T0, FakeClock, InProcess, World

from gapless.daemon import maintenance
from gapless.domain import Owed, Via, from_us, to_us
from gapless.ledger import Connection, leases, sources
from gapless.ledger.engine import BadData
from gapless.ledger.recorder import EventKey, Recorder, Sighting
from gapless.ledger.tables import PASS, SLICE
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.endpoint_checks import record_subscription
from gapless.settings import RetentionSettings
from gapless_reconcilers.kit.contract import Secret, Subscription
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = pytest.mark.anyio
MINUTE = timedelta(minutes=1)
NEW = Stripe(StripeOptions(api_key=Secret("rk_live_new"), webhook_secret=(Secret("whsec_new"),)))


class Died(Exception):
    """The process ends here."""


def owed_to_one(*_: object) -> list[Owed]:
    return [Owed(destination_id=1, not_before_us=0)]


async def test_a_lost_webhook_is_recorded_by_the_next_pass_and_counted_once(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        lost, kept = world.fake.emit("invoice.paid"), world.fake.emit("invoice.paid")
        await daemon.push(kept)
        for _ in range(3):
            clock.advance(minutes=2)
            await daemon.run_source()
        assert await world.via() == {lost.key: "list", kept.key: "webhook"}
        assert await world.missed() == 1
        assert from_us((await world.stream()).watermark_us) == clock() - MINUTE


async def test_pass_keeps_watermark_when_second_page_fails(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    async with world.daemon(page_limit=2) as daemon:
        events = [world.fake.emit("invoice.paid") for _ in range(5)]
        clock.advance(minutes=5)
        before = (await world.stream()).watermark_us
        seen = []

        def fail(request: httpx.Request) -> None:
            seen.append(request)
            world.fake.faults = Faults(error_rate=1.0 if len(seen) > 1 else 0.0)

        transport.before = fail
        await daemon.run_source()
        assert (await world.stream()).watermark_us == before
        assert (await world.stream()).last_outcome == "provider_unavailable"
        assert len(await world.keys()) == 2
        transport.before, world.fake.faults = (lambda _: None), Faults()
        await daemon.run_source()
        assert await world.keys() == {event.key for event in events}
        assert (await world.stream()).watermark_us > before


async def test_trap_friendly_stripe_sync_each_page_is_durable_before_the_walk_ends(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    events = [world.fake.emit("invoice.paid") for _ in range(9)]
    clock.advance(minutes=5)
    requests: list[httpx.Request] = []

    def die(request: httpx.Request) -> None:
        requests.append(request)
        if len(requests) == 3:
            raise Died

    transport.before = die
    with pytest.raises(BaseExceptionGroup) as raised:
        async with world.daemon(page_limit=2) as daemon:
            await daemon.run_source()
    assert raised.value.split(Died)[1] is None
    await world.store.write(leases.clear)
    async with world.daemon(page_limit=2) as daemon:
        await daemon.run_source()
    assert "starting_after" in requests[3].url.params
    assert await world.keys() == {event.key for event in events}
    assert await world.missed() == 9


async def test_a_pass_whose_process_died_before_closing_it_is_closed_by_the_next(
    world: World, clock: FakeClock
) -> None:
    world.fake.emit("invoice.paid")
    clock.advance(minutes=5)
    async with world.daemon() as daemon:
        await daemon.run_source()
        (row, *_) = await world.passes()

        def reopen(connection: object) -> None:
            connection.exec_driver_sql(f"UPDATE pass SET state = 'running' WHERE id = {row['id']}")  # type: ignore[attr-defined]

        await daemon.runtime.writer.submit(reopen)
        clock.advance(minutes=5)
        await daemon.run_source()
        assert {each["state"] for each in await world.passes()} == {"finished"}
        assert from_us((await world.stream()).watermark_us) == clock() - MINUTE


async def test_a_list_that_lies_is_not_believed_and_the_watermark_stays(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        pushed = [world.fake.emit("invoice.paid") for _ in range(5)]
        await daemon.push(*pushed)
        before = (await world.stream()).watermark_us
        world.fake.faults = Faults(empty_lists=True)
        for _ in range(4):
            clock.advance(minutes=5)
            await daemon.run_source()
            assert (await world.stream()).last_outcome == "suspect_listing"
        assert (await world.stream()).watermark_us == before
        world.fake.faults = Faults()
        await daemon.run_source()
        assert (await world.stream()).last_outcome == "clean"


async def test_what_becomes_visible_late_is_found_by_the_lookback(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        world.fake.faults = Faults(late_visible=1.0, late_visible_s=300)
        late = world.fake.emit("invoice.paid")
        world.fake.faults = Faults()
        clock.advance(minutes=2)
        await daemon.run_source()
        assert await world.keys() == set()
        clock.advance(minutes=5)
        await daemon.run_source()
        assert await world.keys() == {late.key}
        assert (await world.totals()).counts["behind_watermark"] == 1


async def test_checked_at_is_when_the_whole_lookback_was_read(world: World, clock: FakeClock) -> None:
    """An event that is listed late lies behind where most readings begin: they may not claim to have seen it."""
    async with world.daemon() as daemon:
        await daemon.run_source()
        clock.advance(minutes=2)
        world.fake.faults = Faults(late_visible=1.0, late_visible_s=240)
        late = world.fake.emit("invoice.paid")
        world.fake.faults = Faults()
        found_at = None
        for _ in range(12):
            clock.advance(minutes=1)
            await daemon.run_source()
            proof = await world.comparison()
            has_it = late.key in await world.keys()
            complete, checked = proof.proof.complete_up_to, proof.proof.checked_at
            assert complete is not None
            assert checked is not None
            if complete > late.occurred_at and checked >= late.visible_at:
                assert has_it
                found_at = found_at or clock()
        assert found_at is not None


async def test_what_becomes_visible_later_still_is_found_by_the_sweep_which_widens_the_lookback(
    world: World, clock: FakeClock
) -> None:
    async with world.daemon(sweep_every=timedelta(hours=6)) as daemon:
        world.fake.faults = Faults(late_visible=1.0, late_visible_s=2 * 3600)
        late = world.fake.emit("invoice.paid")
        world.fake.faults = Faults()
        clock.advance(minutes=30)
        await daemon.run_source()
        clock.advance(hours=7)
        await daemon.run_source()
        assert await world.keys() == {late.key}
        row = await world.store.read(sources.source_row, source_id=world.source_id)
        assert row["lookback_us"] > 6 * 3600 * 1_000_000


async def test_history_that_is_gone_is_written_off_and_never_skipped_in_silence(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        clock.advance(minutes=5)
        await daemon.run_source()
        stopped = (await world.stream()).watermark_us
        world.fake.emit("invoice.paid")
        clock.advance(days=33)
        recent = world.fake.emit("invoice.paid")
        clock.advance(minutes=5)
        await daemon.run_source()
        (loss,) = await world.unrecoverable()
        assert (loss.stream, loss.start_us, loss.reason) == ("", stopped, "history_exceeded")
        assert from_us(loss.end_us) == clock() - timedelta(days=30)
        assert await world.keys() == {recent.key}


async def test_a_first_start_records_and_owes_nothing_of_the_past(world: World, clock: FakeClock) -> None:
    world.fake.backfill(500, T0 - timedelta(days=29), T0, ["invoice.paid"])
    async with world.daemon(route=owed_to_one) as daemon:
        clock.advance(minutes=5)
        await daemon.run_source()
        assert (await world.keys(), await world.owed(), await world.missed()) == (set(), 0, 0)


async def test_a_pass_on_demand_reaches_back_without_expecting(world: World, clock: FakeClock) -> None:
    world.fake.backfill(50, T0 - timedelta(days=2), T0 - timedelta(days=1), ["invoice.paid"])
    async with world.daemon() as daemon:
        clock.advance(minutes=5)
        await daemon.demand(T0 - timedelta(days=3), T0)
        await daemon.run_source()
        assert len(await world.keys()) == 50
        assert (await world.totals()).expected == 0
        assert await world.missed() == 0


async def test_other_types_of_the_account_are_neither_recorded_nor_missed(world: World, clock: FakeClock) -> None:
    async with world.daemon(types=["invoice.*"]) as daemon:
        ours = [world.fake.emit("invoice.paid" if number % 10 == 0 else "charge.failed") for number in range(50)][::10]
        await daemon.push(*ours)
        clock.advance(minutes=5)
        await daemon.run_source()
        assert await world.keys() == {event.key for event in ours}
        assert await world.missed() == 0


async def test_a_revoked_key_parks_the_stream_until_it_is_back(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        world.fake.faults = Faults(key_revoked=True)
        clock.advance(minutes=5)
        await daemon.run_source()
        stream = await world.stream()
        assert stream.parked_reason is not None
        assert stream.last_outcome == "credentials_rejected"
        world.fake.faults = Faults()
        await daemon.run_source()
        assert (await world.stream()).parked_reason is None


async def test_a_webhook_that_the_list_never_shows_is_unlisted_after_two_complete_listings(
    world: World, clock: FakeClock
) -> None:
    async with world.daemon() as daemon:
        listed, hidden = world.fake.emit("invoice.paid"), world.fake.emit("payout.paid")
        await daemon.push(listed, hidden)
        world.fake.faults = Faults(hidden_types=frozenset({"payout.paid"}))
        found = []
        for _ in range(3):
            clock.advance(minutes=3)
            await daemon.run_source()
            found.append((await world.totals()).counts["unlisted"])
        assert found == [0, 1, 1]


async def test_the_watermark_stays_behind_a_provider_whose_clock_is_behind(world: World, clock: FakeClock) -> None:
    world.fake.clock = lambda: clock() - 10 * MINUTE
    async with world.daemon() as daemon:
        clock.advance(hours=1)
        await daemon.run_source()
        await daemon.run_source()
        assert from_us((await world.stream()).watermark_us) <= clock() - 11 * MINUTE
        late = world.fake.emit("invoice.paid")
        clock.advance(minutes=20)
        await daemon.run_source()
        assert await world.keys() == {late.key}


async def test_ties_within_a_second_that_straddle_pages_are_all_recorded(world: World, clock: FakeClock) -> None:
    events = [world.fake.emit("invoice.paid") for _ in range(30)]
    clock.advance(minutes=5)
    async with world.daemon(page_limit=7) as daemon:
        await daemon.run_source()
    assert await world.keys() == {event.key for event in events}


async def test_trap_one_poison_event_does_not_stop_later_ones(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.daemon() as daemon:
        poison, *others = [world.fake.emit("invoice.paid") for _ in range(5)]
        store = Recorder.store

        def choke(self: Recorder, connection: Connection, sightings: Sequence[Sighting]) -> dict[EventKey, int]:
            if clock() < T0 + timedelta(hours=1) and any(each.event.key == poison.key for each in sightings):
                raise BadData("refused")
            return store(self, connection, sightings)

        monkeypatch.setattr(Recorder, "store", choke)  # no value is known that passes the checks and a database refuses
        clock.advance(minutes=5)
        await daemon.run_source()
        assert await world.keys() == {event.key for event in others}
        assert await world.missing_open() == 1
        assert await world.missed() == 5
        assert await world.complete_up_to() == poison.occurred_at
        clock.advance(hours=2)
        await daemon.run_source()
        assert poison.key in await world.keys()
        assert (await world.missing_open(), await world.missed()) == (0, 5)


async def test_trap_a_throttled_pass_is_not_recorded_as_complete(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        world.fake.faults = Faults(throttle_every=1, retry_after="0")
        clock.advance(minutes=5)
        await daemon.run_source()
        stream = await world.stream()
        assert (stream.last_outcome, stream.last_complete_pass_us) == ("rate_limited", None)


async def test_trap_an_event_that_no_destination_wants_is_recorded_all_the_same(world: World) -> None:
    async with world.daemon() as daemon:
        event = world.fake.emit("invoice.paid")
        await daemon.push(event)
        assert await world.keys() == {event.key}
        assert await world.owed() == 0


async def test_trap_a_restart_does_not_forget_how_far_the_list_was_read(world: World, clock: FakeClock) -> None:
    for _ in range(2):
        async with world.daemon() as daemon:
            clock.advance(hours=2)
            await daemon.run_source()
    starts = [request.listing.query.start for request in world.fake.requests if request.listing]
    assert T0 + timedelta(hours=2) - MINUTE - timedelta(minutes=15) in starts
    assert starts.count(T0) == 1


async def test_two_runs_at_once_do_not_both_get_the_source(world: World) -> None:
    async with world.daemon() as daemon:
        leases_taken = await asyncio.gather(daemon.lease(), daemon.lease())
        assert sum(lease is not None for lease in leases_taken) == 1


async def test_a_webhook_during_a_pass_and_the_pass_itself_record_one_event(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    async with world.daemon() as daemon:
        event = world.fake.emit("invoice.paid")
        clock.advance(minutes=5)
        pushing: list[asyncio.Task[list[int]]] = []
        transport.before = lambda _: pushing.append(asyncio.ensure_future(daemon.push(event)))
        await daemon.run_source()
        await asyncio.gather(*pushing)
        counts = (await world.totals()).counts
        assert counts["by_webhook"] + counts["by_list"] == 1
        assert await world.via() in ({event.key: Via.WEBHOOK.value}, {event.key: Via.LIST.value})


async def test_finished_passes_are_pruned_with_their_slices_and_those_under_way_never(
    world: World, clock: FakeClock
) -> None:
    async with world.daemon() as daemon:
        for _ in range(5):
            clock.advance(minutes=10)
            await daemon.run_source()
        left = await daemon.demand(T0, T0 + timedelta(hours=2))
        clock.advance(days=30)
        await daemon.runtime.writer.submit(
            lambda c: c.execute(update(PASS).where(PASS.c.id == 2).values(state="running"))
        )
        young_us = to_us(clock())
        retention = RetentionSettings(passes=timedelta(days=29), payloads=None, attempts=None, deliveries=None)
        before = await world.passes()
        await maintenance.prune_once(daemon.runtime.writer, retention, [], to_us(clock()))
        after = await world.passes()
        assert {row["id"] for row in after} == {2, left.id}
        assert len(before) == 6
        slices = select(SLICE.c.pass_id).distinct()
        assert set(await world.store.read(lambda c: c.execute(slices).scalars().all())) == {2, left.id}
        keep = RetentionSettings(passes=None, payloads=None, attempts=None, deliveries=None)
        await daemon.runtime.writer.submit(
            lambda c: c.execute(update(PASS).values(state="finished", started_us=young_us))
        )
        await maintenance.prune_once(daemon.runtime.writer, keep, [], to_us(clock()))
        assert len(await world.passes()) == 2


async def test_passes_that_found_nothing_are_pruned_after_a_day(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        for number in range(4):
            clock.advance(minutes=10)
            if number == 1:
                world.fake.emit("invoice.paid")
                clock.advance(minutes=5)
            await daemon.run_source()
        found = [row["id"] for row in await world.passes() if row["outcome"] == "found"]
        clock.advance(days=2)
        await daemon.run_source()
        (newest, *_) = await world.passes()
        await maintenance.prune_once(daemon.runtime.writer, RetentionSettings(), [], to_us(clock()))
        assert [row["id"] for row in await world.passes() if row["kind"] == "scheduled"] == [newest["id"], *found]


class ReplacedMeanwhile(LeasedSource):
    """A leased source whose key file changes while the provider's answer is recorded."""

    async def write(self, *args: Any, **kwargs: Any) -> Any:
        result = await super().write(*args, **kwargs)
        self.runtime.sources.change(self.source.name, provider=NEW)
        return result


async def test_a_replaced_key_survives_the_record_of_health(world: World) -> None:
    async with world.daemon() as daemon:
        lease = await daemon.lease()
        assert lease is not None
        leased = ReplacedMeanwhile(
            runtime=daemon.runtime, client=daemon.client, policy=daemon.policy, lease=lease, stopping=daemon.stopping
        )
        answer = Subscription(healthy=True, reason="", types=("invoice.paid",))
        await record_subscription(leased, answer)
        assert daemon.source.provider is NEW
        assert daemon.source.types.patterns == ("invoice.paid",)
