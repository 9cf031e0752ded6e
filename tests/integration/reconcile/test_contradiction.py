"""A list that lacks events whose webhooks came is no proof: it is read again in other ways, and the watermark waits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest
from declared import changed
from sqlalchemy import select
from world import HASTY, SECRET, T0, Daemon, FakeClock, InProcess, World

from gapless.domain import from_us, to_us
from gapless.ledger import absences, leases, sources
from gapless.ledger.tables import AUDIT_LOG, EVENT, SHOWN, SOURCE
from gapless.operations.context import OperationContext, OperationRefused
from gapless.operations.registry import perform
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds
from gapless.reconcile.contradiction import MOST_WINDOWS
from gapless.reconcile.scheduler import Scheduler
from gapless.status.reader import read_report
from gapless.status.troubles import Trouble, TroubleKind, troubles
from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.providers.github import GitHub, GitHubOptions
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.formats.github import GitHubFormat
from gapless_reconcilers.testing.fake.formats.plain import written
from gapless_reconcilers.testing.fake.formats.rest import GoCardlessFormat
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = pytest.mark.anyio
SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class Died(Exception):
    """The process ends here."""


async def row_of(world: World) -> Mapping[str, Any]:
    return await world.store.read(sources.source_row, source_id=world.source_id)


async def watermark(world: World) -> Any:
    return from_us((await world.stream()).watermark_us)


async def unlisted(world: World) -> int:
    return (await world.totals()).counts["unlisted"]


async def outcomes(world: World) -> list[tuple[str, str]]:
    """The passes as (kind, outcome), oldest first."""
    return [(row["kind"], row["outcome"]) for row in reversed(await world.passes())]


async def contradictions(world: World, daemon: Daemon) -> list[Trouble]:
    report = await read_report(world.store, daemon.runtime.sources, {}, world.clock())
    return [each for each in troubles(report) if each.kind is TroubleKind.LIST_CONTRADICTED]


async def accept(world: World, daemon: Daemon, *keys: str) -> dict[str, object]:
    evidence = EvidenceFetcher(world.client, world.clock, daemon.runtime.metrics)
    context = OperationContext(
        runtime=daemon.runtime, evidence=evidence, stream_ids=StreamIds(daemon.runtime), actor="ann"
    )
    args = {"source": "acme", "keys": keys, "reason": "sent by hand"}
    return await perform(context, "event.accept_unlisted", args)


@asynccontextmanager
async def scheduled(daemon: Daemon) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Run the real scheduler. Yield a function that waits until the source has been run at its due time."""
    world = daemon.world
    scheduler = Scheduler(daemon.runtime, {"acme": daemon.policy}, world.client, holder="one", tick_s=0.05, retry=HASTY)

    async def next_run() -> None:
        world.clock.now = max(world.clock.now, from_us((await row_of(world))["next_pass_us"]))
        while (row := await row_of(world))["next_pass_us"] <= to_us(world.clock()) or row["lease_holder"] is not None:
            await asyncio.sleep(0.005)

    running = asyncio.create_task(scheduler.run())
    try:
        yield next_run
    finally:
        scheduler.stop()
        await running


def within_seconds(world: World, *numbers: int) -> list[FakeEvent]:
    """Make that many events in each of as many seconds."""
    made: list[FakeEvent] = []
    for at, number in enumerate(numbers):
        made += [world.fake.emit("invoice.paid", occurred_at=T0 + MINUTE + at * SECOND) for _ in range(number)]
    return made


async def test_a_list_that_drops_ties_is_read_until_all_are_found(world: World, clock: FakeClock) -> None:
    """Pages of 100: the second one would go on inside a second, and comes empty and as the last."""
    async with world.daemon() as daemon:
        events = within_seconds(world, 83, 83, 84)
        await daemon.push(*events[:83:9], *events[83:166:9])
        world.fake.faults = Faults(drops_ties=True)
        clock.advance(minutes=5)
        async with scheduled(daemon) as next_run:
            await next_run()
            assert await world.keys() == {event.key for event in events}
            await next_run()
        pushed = len(events[:83:9]) + len(events[83:166:9])
        assert await world.missed() == 250 - pushed
        assert (await unlisted(world), await contradictions(world, daemon)) == (0, [])
        assert await watermark(world) >= T0 + 4 * MINUTE
        assert (await outcomes(world))[0] == ("scheduled", "found")


async def test_a_second_that_fills_pages_is_read_with_a_larger_page(world: World, clock: FakeClock) -> None:
    """250 events of one second and pages of 100: no window is narrow enough, but the vendor has larger pages."""
    world.make, world.fake.vendor_format = make_gocardless, GoCardlessFormat()
    world.fake.semantics = world.fake.vendor_format.semantics
    world.fake.__post_init__()
    async with world.daemon() as daemon:
        events = within_seconds(world, 250)
        await daemon.push(*events[:150:7])
        world.fake.faults = Faults(drops_ties=True)
        clock.advance(minutes=5)
        async with scheduled(daemon) as next_run:
            await next_run()
        assert await world.keys() == {event.key for event in events}
        assert (await world.missed(), await unlisted(world)) == (250 - 22, 0)
        assert await outcomes(world) == [("scheduled", "found")]


def make_gocardless(url: str, page_limit: int = 100) -> Provider:
    table = changed("event", {"type": "{resource_type}.{action}"})
    params = {
        "limit": page_limit,
        "created_at[gte]": "{window.start|rfc3339}",
        "created_at[lt]": "{window.end|rfc3339}",
    }
    table["auth"]["token"], table["base_url"] = Secret("token_fake"), url
    signature = {"scheme": "hmac", "header": "Webhook-Signature", "secret": [Secret(SECRET)]}
    table["webhook"] = {"root": "events", "many": True, "signature": signature}
    table["list"] |= {
        "headers": {"GoCardless-Version": "2015-07-06"},
        "params": params,
        "records": "events",
        "order": "newest_first",
        "page": {"type": "cursor", "param": "after", "cursor": "meta.cursors.after"},
        "other_cuts": [{"limit": 500}],
    }
    return registry.build("rest_list", table)


@dataclass(kw_only=True)
class Lacking:
    """A source whose list lacks three events that came by webhook; they are alone in their hour."""

    world: World
    hidden: list[FakeEvent] = field(default_factory=list)

    async def push(self, daemon: Daemon) -> None:
        listed = [self.world.fake.emit("invoice.paid") for _ in range(5)]
        self.world.clock.advance(hours=2)
        for _ in range(3):
            self.hidden.append(self.world.fake.emit("invoice.paid"))
            self.world.clock.advance(seconds=7)
        self.world.clock.advance(hours=2)
        await daemon.push(*listed, *self.hidden, self.world.fake.emit("invoice.paid"))
        self.world.clock.advance(minutes=5)
        self.world.fake.faults = Faults(hidden_keys=frozenset(event.key for event in self.hidden))


@pytest.fixture
def lacking(world: World) -> Lacking:
    return Lacking(world=world)


async def test_three_events_alone_in_their_slice_are_unlisted_once(lacking: Lacking, world: World) -> None:
    async with world.daemon() as daemon:
        await lacking.push(daemon)
        found = []
        for _ in range(5):
            await daemon.run_source()
            found.append(await unlisted(world))
            world.clock.advance(minutes=20)
        assert found == [0, 3, 3, 3, 3]
        assert (await outcomes(world))[:3] == [
            ("scheduled", "contradicted"),
            ("scheduled", "clean"),
            ("recheck", "contradicted"),
        ]


async def test_the_watermark_stops_before_the_first_absent_event(lacking: Lacking, world: World) -> None:
    async with world.daemon() as daemon:
        await lacking.push(daemon)
        for _ in range(4):
            await daemon.run_source()
            assert await watermark(world) == await world.complete_up_to() == lacking.hidden[0].occurred_at
            lost = world.fake.emit("invoice.paid")
            world.clock.advance(minutes=10)
        assert lost.key not in await world.keys()
        await daemon.run_source()
        assert lost.key in await world.keys()  # what comes later is read and recovered all the same
        starts = [request.listing.query.start for request in world.fake.requests if request.listing]
        assert starts[-1] > world.clock() - HOUR  # and not from the watermark on


async def test_the_trouble_names_the_events_and_what_to_do(lacking: Lacking, world: World) -> None:
    async with world.daemon() as daemon:
        await lacking.push(daemon)
        await daemon.run_source()
        (first,) = await contradictions(world, daemon)
        assert (first.severity.value, first.next) == ("in_hand", "Nothing: the list is read again in other ways.")
        world.clock.advance(minutes=5)
        await daemon.run_source()
        (trouble,) = await contradictions(world, daemon)
        keys = [event.key for event in lacking.hidden]
        assert trouble.severity.value == "trouble"
        assert f"lacks 3 events that came by webhook: {', '.join(keys)}." in trouble.text
        assert f"`gapless event accept-unlisted acme {keys[0]} --reason" in trouble.next


async def test_accepted_events_let_the_watermark_pass(lacking: Lacking, world: World) -> None:
    async with world.daemon() as daemon:
        await lacking.push(daemon)
        await daemon.run_source()
        one, *others = (event.key for event in lacking.hidden)
        assert (await accept(world, daemon, one))["accepted"] == [one]
        world.clock.advance(minutes=1)
        await daemon.run_source()
        assert await watermark(world) == lacking.hidden[1].occurred_at
        await accept(world, daemon, *others)
        assert (await row_of(world))["next_pass_us"] <= to_us(world.clock())
        await daemon.run_source()
        assert await watermark(world) == world.clock() - MINUTE
        assert (await outcomes(world))[-1] == ("scheduled", "clean")
        assert await contradictions(world, daemon) == []
        logged = await world.store.read(lambda c: c.execute(select(AUDIT_LOG)).mappings().all())
        assert [(row["actor"], row["action"]) for row in logged] == [("ann", "event.accept_unlisted")] * 2
        assert "sent by hand" in logged[0]["detail"]


async def test_an_accepted_event_that_is_listed_covers_no_other(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        one, other, _ = events = [world.fake.emit("invoice.paid") for _ in range(3)]
        await daemon.push(*events)
        for hidden in (one, other):
            world.fake.faults = Faults(hidden_keys=frozenset({hidden.key}))
            clock.advance(minutes=2)
            await daemon.run_source()
            (trouble,) = await contradictions(world, daemon)
            assert hidden.key in trouble.text
            await accept(world, daemon, hidden.key)
        assert (await outcomes(world)) == [("scheduled", "contradicted")] * 2


async def test_accepting_what_is_listed_is_refused(lacking: Lacking, world: World) -> None:
    async with world.daemon() as daemon:
        await lacking.push(daemon)
        await daemon.run_source()
        with pytest.raises(OperationRefused, match=r"does not lack evt_else; .* nothing was accepted"):
            await accept(world, daemon, lacking.hidden[0].key, "evt_else")
        (trouble,) = await contradictions(world, daemon)
        assert "lacks 3 events" in trouble.text


async def test_events_that_are_listed_later_are_absent_no_more(lacking: Lacking, world: World) -> None:
    async with world.daemon() as daemon:
        await lacking.push(daemon)
        await daemon.run_source()
        world.fake.faults = Faults()
        world.clock.advance(minutes=1)
        await daemon.run_source()
        assert (await unlisted(world), await contradictions(world, daemon)) == (0, [])
        assert await watermark(world) == world.clock() - MINUTE


async def test_many_that_are_listed_later_are_absent_no_more_at_once(world: World, clock: FakeClock) -> None:
    """Hundreds of events that one page lacked are not looked for by twenty seconds a pass."""
    async with world.daemon() as daemon:
        events = []
        for _ in range(200):
            events.append(world.fake.emit("invoice.paid"))
            clock.advance(seconds=30)
        await daemon.push(*events)
        clock.advance(minutes=5)
        world.fake.faults = Faults(hidden_keys=frozenset(event.key for event in events[10:190]))
        await daemon.run_source()
        world.fake.faults = Faults()
        clock.advance(minutes=1)
        await daemon.run_source()
        assert (await unlisted(world), await contradictions(world, daemon)) == (0, [])
        assert await watermark(world) == world.clock() - MINUTE


async def test_as_many_as_are_allowed_hold_nothing(lacking: Lacking, world: World) -> None:
    async with world.daemon() as daemon:
        for allowed, held in ((3, False), (2, True)):
            daemon.runtime.sources.change("acme", absences_allowed=allowed)
            if not lacking.hidden:
                await lacking.push(daemon)
            else:
                late = world.fake.emit("invoice.paid")
                await daemon.push(late)
                lacking.hidden.append(late)
                world.fake.faults = Faults(hidden_keys=frozenset(event.key for event in lacking.hidden))
                world.clock.advance(minutes=5)
            await daemon.run_source()
            assert (await watermark(world) < world.clock() - MINUTE) is held
            assert bool(await contradictions(world, daemon)) is held
        assert await unlisted(world) == 3


async def test_other_cuts_are_tried_twice_and_then_with_sweeps(lacking: Lacking, world: World) -> None:
    async with world.daemon(sweep_every=DAY) as daemon:
        await lacking.push(daemon)
        seconds = {event.occurred_at for event in lacking.hidden}
        tries = []
        for _ in range(15):
            asked = len(world.fake.requests)
            await daemon.run_source()
            queries = [each.listing.query for each in world.fake.requests[asked:] if each.listing]
            tries.append(
                sum(each.start in seconds and each.end == each.start + SECOND for each in queries if each.start)
            )
            world.clock.advance(hours=2)
        assert tries[:2] == [6, 6]  # three seconds, each in two sizes of page
        assert sum(tries) == 18
        assert await unlisted(world) == 3


async def test_a_list_that_is_whole_is_read_with_no_request_more(world: World, clock: FakeClock) -> None:
    async with world.daemon(page_limit=10) as daemon:
        for _ in range(5):
            await daemon.push(*[world.fake.emit("invoice.paid") for _ in range(15)])
            clock.advance(minutes=16)
            await daemon.run_source()
        # 15 events are new to each pass, and from the second on it reads 15 again: pages of 10
        assert len(world.fake.requests) == 2 + 4 * 3
        assert {outcome for _, outcome in await outcomes(world)} == {"clean"}


async def test_what_a_slice_showed_before_a_restart_is_not_absent(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    """The slice goes on from its cursor: what its first pages showed is remembered, and what they lacked is not."""
    events = [world.fake.emit("invoice.paid") for _ in range(40)]
    pushed, lost, hidden = events[:18] + events[20:], events[18:20], [events[3], events[33]]
    asked: list[httpx.Request] = []

    def die(request: httpx.Request) -> None:
        asked.append(request)
        if len(asked) == 6:
            raise Died

    async with world.daemon(page_limit=5) as daemon:
        await daemon.push(*pushed)
        clock.advance(minutes=5)
        world.fake.faults = Faults(hidden_keys=frozenset(event.key for event in hidden))
        transport.before = die
        with pytest.raises(BaseExceptionGroup) as raised:
            await daemon.run_source()
    assert raised.value.split(Died)[1] is None
    transport.before = lambda _: None
    await world.store.write(leases.clear)
    assert await world.store.read(lambda c: c.execute(select(SHOWN.c.seqs)).scalars().all())
    async with world.daemon(page_limit=5) as daemon:
        await daemon.run_source()
        known = await world.store.read(absences.open_absences, stream_id=world.stream_id)
        query = select(EVENT.c.key).where(EVENT.c.seq.in_([each.event_seq for each in known]))
        absent = await world.store.read(lambda c: set(c.execute(query).scalars().all()))
        assert absent == {event.key for event in hidden}
        assert {event.key for event in lost} <= await world.keys()
        assert await world.store.read(lambda c: c.execute(select(SHOWN.c.id)).all()) == []
        clock.advance(minutes=1)
        await daemon.run_source()
        assert await unlisted(world) == 2


class OutOfOrder(GitHubFormat):
    """A log whose first page shows one delivery of two days ago among the newest."""

    def row(self, event: FakeEvent) -> dict[str, Any]:
        row = super().row(event)
        if event.key == OLD[0]:
            row["delivered_at"] = written(event.occurred_at - 2 * DAY, "seconds")
        return row


OLD = [""]
"""The key of the delivery that is out of order."""


def make_github(url: str, page_limit: int = 100) -> Provider:
    return GitHub(
        GitHubOptions(
            token=Secret("ghp_fake"),
            webhook_secret=(Secret(SECRET),),
            repository="acme/shop",
            hook_id=77,
            page_limit=min(page_limit, 17),
            api_base=url,
        )
    )


async def test_one_old_delivery_on_the_first_page_does_not_end_a_walk(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    world.make, transport.fake = make_github, FakeProvider(OutOfOrder(), clock=clock)
    world.fake = transport.fake
    world.fake.add_endpoint("/webhooks/acme", secret=SECRET)
    await world.store.write(lambda c: c.execute(SOURCE.update().values(provider="github")))
    async with world.daemon() as daemon:
        for _ in range(117):
            event = world.fake.emit("issues.opened")
            clock.advance(seconds=1)
        OLD[0] = event.key
        clock.advance(minutes=6)
        await daemon.run_source(health=True)
        assert len(await world.keys()) == 116  # all but the one whose time is before the source's start
        assert (await world.missed(), await world.missing_open()) == (116, 0)


async def test_a_walk_looks_for_absent_deliveries_in_pages_of_another_size(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    """Its list has no filter by time: one walk, and one in pages of another size, look for all of them."""
    world.make, transport.fake = make_github, FakeProvider(GitHubFormat(), clock=clock)
    world.fake = transport.fake
    world.fake.add_endpoint("/webhooks/acme", secret=SECRET)
    async with world.daemon() as daemon:
        clock.advance(minutes=10)
        events = []
        for _ in range(6):
            events.append(world.fake.emit("issues.opened"))
            await daemon.push(events[-1])
            clock.advance(minutes=1)
        hidden = events[2:4]
        world.fake.faults = Faults(hidden_keys=frozenset(event.key for event in hidden))
        clock.advance(minutes=12)
        await daemon.run_source(health=True)
        sizes = [dict(each.params)["per_page"] for each in world.fake.requests if each.path.endswith("/deliveries")]
        assert sizes == ["17", "17", "100"]
        (trouble,) = await contradictions(world, daemon)
        assert "lacks 2 events" in trouble.text
        assert await watermark(world) == hidden[0].occurred_at - 5 * MINUTE
        world.fake.faults = Faults()
        clock.advance(minutes=1)
        await daemon.run_source()
        assert (await contradictions(world, daemon), await unlisted(world)) == ([], 0)


async def test_a_list_without_any_of_them_is_asked_by_the_second_too(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        hidden = world.fake.emit("invoice.paid")
        await daemon.push(hidden)
        world.fake.faults = Faults(hidden_keys=frozenset({hidden.key}))
        for _ in range(3):
            clock.advance(minutes=5)
            await daemon.run_source()
        assert (await world.stream()).last_outcome == "suspect_listing"
        assert (await unlisted(world), await watermark(world)) == (0, T0)
        (trouble,) = await contradictions(world, daemon)
        assert hidden.key in trouble.text
        listed = world.fake.emit("invoice.paid")
        await daemon.push(listed)
        clock.advance(minutes=5)
        await daemon.run_source()
        clock.advance(minutes=5)
        await daemon.run_source()
        assert await unlisted(world) == 1
        await accept(world, daemon, hidden.key)
        await daemon.run_source()
        assert await watermark(world) == clock() - MINUTE


async def test_a_cut_that_is_refused_fails_no_pass(
    lacking: Lacking, world: World, transport: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.daemon() as daemon:
        await lacking.push(daemon)

        def refuse(request: httpx.Request) -> None:
            world.fake.faults.key_revoked = request.url.params["limit"] != "100"

        transport.before = refuse
        await daemon.run_source()
        assert await outcomes(world) == [("scheduled", "contradicted")]
        assert await watermark(world) == lacking.hidden[0].occurred_at
        assert "other_cut_failed" in caplog.messages


async def test_many_absent_events_are_looked_for_in_few_requests(world: World, clock: FakeClock) -> None:
    """A list that lies costs at most `MOST_WINDOWS` windows a pass, each in two sizes of page."""
    async with world.daemon() as daemon:
        for _ in range(90):
            await daemon.push(world.fake.emit("invoice.paid"))
            clock.advance(seconds=1)
        world.fake.faults = Faults(empty_lists=True)
        clock.advance(minutes=5)
        await daemon.run_source()
        assert len(world.fake.requests) == 1 + 2 * MOST_WINDOWS
        world.fake.faults = Faults()
        await daemon.run_source()
        assert (await contradictions(world, daemon), await unlisted(world)) == ([], 0)
        assert await watermark(world) == clock() - MINUTE
