"""A pass on demand stands behind the scheduled ones: its failures are its own, and it never blocks them."""

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from world import T0, FakeClock, InProcess, World

from gapless.domain import from_us, to_us
from gapless.ledger import passes
from gapless.ledger.retention import prune_passes
from gapless.reconcile.pace import Pace
from gapless.reconcile.pass_run import FAILURES
from gapless.reconcile.stream_run import MOST_ATTEMPTS
from gapless.status.troubles import Severity, Trouble, TroubleKind, troubles

pytestmark = pytest.mark.anyio
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


class RefusesOld(httpx.AsyncBaseTransport):
    """A vendor that answers `status` to every list of events from before `refuses_before`."""

    def __init__(self, vendor: httpx.AsyncBaseTransport) -> None:
        self._vendor, self.status, self.refused, self.seen = vendor, 400, 0, 0
        self.refuses_before = T0 - timedelta(hours=1)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        since = request.url.params.get("created[gte]")
        self.seen += since is not None
        if since is not None and int(since) < self.refuses_before.timestamp():
            self.refused += 1
            return httpx.Response(self.status, json={"error": {"message": "too old"}})
        return await self._vendor.handle_async_request(request)


@pytest.fixture
async def vendor(world: World, transport: InProcess) -> AsyncIterator[RefusesOld]:
    refuses = RefusesOld(transport)
    async with httpx.AsyncClient(transport=refuses) as client:
        world.client = client
        yield refuses


async def rows(world: World, kind: str) -> list[dict[str, object]]:
    return [each for each in await world.passes() if each["kind"] == kind]


@pytest.mark.parametrize("status", [400, 401, 404, 500])
async def test_a_failing_pass_on_demand_blocks_no_other(
    world: World, clock: FakeClock, vendor: RefusesOld, status: int
) -> None:
    vendor.status = status
    async with world.daemon() as daemon:
        await daemon.demand(T0 - 20 * DAY, T0)
        lost = {world.fake.emit("invoice.paid").key for _ in range(5)}
        clock.advance(minutes=5)
        await daemon.run_source()
        assert await world.keys() == lost
        stream = await world.stream()
        assert (stream.last_outcome, stream.parked_reason) == ("found", None)
        assert from_us(stream.watermark_us) == clock() - timedelta(minutes=1)
        (row,) = await rows(world, "demand")
        assert (row["state"], row["attempts"]) == ("running", 1)
        assert row["last_error"]
        refused = vendor.refused
        await daemon.run_source()  # it waits
        assert vendor.refused == refused
        for _ in range(MOST_ATTEMPTS):
            clock.advance(minutes=65)
            await daemon.run_source()
        (row,) = await rows(world, "demand")
        assert (row["state"], row["attempts"]) == ("failed", MOST_ATTEMPTS)
        assert row["outcome"] not in ("clean", "found", None)
        assert (await world.stream()).last_outcome == "clean"
        assert {each["outcome"] for each in await rows(world, "scheduled")} == {"found", "clean"}


async def test_a_pass_on_demand_goes_on_once_it_can(world: World, clock: FakeClock, vendor: RefusesOld) -> None:
    world.fake.emit("invoice.paid", occurred_at=T0 - 10 * DAY)
    async with world.daemon() as daemon:
        await daemon.demand(T0 - 20 * DAY, T0)
        clock.advance(minutes=5)
        await daemon.run_source()
        assert not await world.keys()
        due = await daemon.runtime.read(lambda c: c.exec_driver_sql("SELECT next_pass_us FROM source").scalar())
        assert from_us(due) <= clock() + timedelta(minutes=1)
        vendor.refuses_before = T0 - 30 * DAY
        clock.advance(minutes=1)
        await daemon.run_source()
        assert len(await world.keys()) == 1
        (row,) = await rows(world, "demand")
        assert (row["state"], row["outcome"]) == ("finished", "found")


async def test_a_long_pass_on_demand_gives_way(world: World, clock: FakeClock) -> None:
    """Here after each page, as if each had taken a whole interval."""
    for hours in range(1, 30):
        world.fake.emit("invoice.paid", occurred_at=T0 - timedelta(hours=hours))
    hasty = Pace(shortest=timedelta(0), longest=timedelta(minutes=5), adaptive=True)
    async with world.daemon(page_limit=2, slices=1, pace=hasty) as daemon:
        await daemon.demand(T0 - 2 * DAY, T0)
        clock.advance(minutes=5)
        await daemon.run_source()
        assert len(await rows(world, "scheduled")) == 1
        (row,) = await rows(world, "demand")
        assert row["state"] == "running"


async def test_a_cancelled_pass_reads_no_more(world: World, clock: FakeClock, vendor: RefusesOld) -> None:
    async with world.daemon() as daemon:
        row = await daemon.demand(T0 - 20 * DAY, T0)
        await daemon.runtime.write(passes.finish, pass_id=row.id, outcome="cancelled", now_us=to_us(clock()))
        clock.advance(minutes=5)
        await daemon.run_source()
        assert vendor.refused == 0
        (found,) = await rows(world, "demand")
        assert (found["state"], found["outcome"]) == ("finished", "cancelled")


async def test_an_event_that_a_page_shows_twice_is_found_once(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    class Doubles(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await transport.handle_async_request(request)
            body = response.json()
            body["data"] = [row for row in body["data"] for _ in range(2)]
            return httpx.Response(200, headers={"date": response.headers["date"]}, json=body)

    async with httpx.AsyncClient(transport=Doubles()) as world.client, world.daemon() as daemon:
        for _ in range(12):
            world.fake.emit("invoice.paid")
        kept = world.fake.emit("invoice.paid")
        await daemon.push(kept)
        clock.advance(minutes=10)
        await daemon.run_source()
        (row,) = await world.passes()
        assert (row["found"], row["missed"], row["listed"]) == (12, 12, 13)
        clock.advance(minutes=10)
        await daemon.run_source()
        (row, _) = await world.passes()
        parts = await daemon.runtime.read(passes.slices, pass_id=row["id"])
        assert sum(part.matched for part in parts) == sum(part.witnesses for part in parts) == 1


async def trouble_of(world: World) -> Trouble | None:
    found = [each for each in troubles(await world.whole_report()) if each.kind is TroubleKind.DEMAND_FAILED]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.usefixtures("vendor")
async def test_a_failed_pass_is_a_trouble_until_cancelled(world: World, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        row = await daemon.demand(T0 - 3 * HOUR, T0 - 2 * HOUR)
        assert await trouble_of(world) is None
        clock.advance(minutes=5)
        await daemon.run_source()
        found = await trouble_of(world)
        assert found is not None
        assert (found.severity, f"gapless pass cancel {row.id}" in found.next) == (Severity.IN_HAND, True)
        assert "400" in found.text
        for _ in range(MOST_ATTEMPTS):
            clock.advance(minutes=65)
            await daemon.run_source()
        found = await trouble_of(world)
        assert found is not None
        assert found.severity is Severity.TROUBLE
        assert "gapless source pass acme --since 2026-11-20T09:00:00Z" in found.next
        await daemon.runtime.write(prune_passes, before_us=to_us(clock() + DAY))
        assert await trouble_of(world) == found
        await daemon.runtime.write(passes.cancel, pass_id=row.id, now_us=to_us(clock()))
        assert await trouble_of(world) is None


async def test_a_pass_that_reads_a_failed_window_settles_it(world: World, clock: FakeClock, vendor: RefusesOld) -> None:
    clock.advance(minutes=5)
    async with world.daemon() as daemon:
        row = await daemon.demand(T0 - 4 * HOUR, T0 - 2 * HOUR)
        failed = {"attempts": 8, "error": "OptionsInvalid: 400", "outcome": "options_invalid"}
        await daemon.runtime.write(passes.fail, pass_id=row.id, now_us=to_us(clock()), **failed)
        vendor.refuses_before = T0 - DAY
        await daemon.demand(T0 - 3 * HOUR, T0)
        await daemon.run_source()
        assert await trouble_of(world) is not None
        await daemon.demand(T0 - 5 * HOUR, T0)
        await daemon.run_source()
        assert await trouble_of(world) is None


async def test_a_failing_slice_leaves_newer_ones_alone(world: World, clock: FakeClock, vendor: RefusesOld) -> None:
    """The list refuses what is more than a day old; the first slices of the pass are older."""
    vendor.refuses_before = T0 - DAY
    old = world.fake.emit("invoice.paid", occurred_at=T0 - 30 * HOUR).key
    new = {world.fake.emit("invoice.paid", occurred_at=T0 - hours * HOUR).key for hours in (2, 5, 20)}
    async with world.daemon() as daemon:
        await daemon.demand(T0 - 2 * DAY, T0)
        clock.advance(minutes=5)
        await daemon.run_source()
        assert await world.keys() == new
        (row,) = await rows(world, "demand")
        assert (row["state"], row["attempts"], vendor.refused) == ("running", 1, 24)
        vendor.refuses_before = T0 - 30 * DAY
        before = vendor.seen
        clock.advance(minutes=2)
        await daemon.run_source()
        assert await world.keys() == new | {old}
        (row,) = await rows(world, "demand")
        assert (row["state"], row["outcome"]) == ("finished", "found")
        assert vendor.seen - before == 24 + 1  # the slices that had failed, and the scheduled pass


async def test_a_vendor_that_is_down_is_asked_little(world: World, clock: FakeClock, vendor: RefusesOld) -> None:
    vendor.status = 500
    async with world.daemon() as daemon:
        await daemon.demand(T0 - 20 * DAY, T0)
        clock.advance(minutes=5)
        await daemon.run_source()
        assert FAILURES <= vendor.refused < FAILURES + daemon.policy.slices


@pytest.mark.parametrize("status", [429, 500])
async def test_a_request_on_demand_is_sent_once_a_run(
    world: World, clock: FakeClock, vendor: RefusesOld, status: int
) -> None:
    """The client would retry it for two minutes, and the source's next scheduled pass would wait for that."""
    vendor.status = status
    async with world.daemon() as daemon:
        await daemon.demand(T0 - 2 * HOUR, T0 - HOUR)
        for run in range(1, 4):
            clock.advance(hours=1)
            await daemon.run_source()
            assert vendor.refused == run
            assert (await rows(world, "demand"))[0]["attempts"] == run
            assert len(await rows(world, "scheduled")) == run


async def test_a_pass_that_gets_on_is_not_given_up(world: World, clock: FakeClock, transport: InProcess) -> None:
    """Each run reads one page more, and then fails."""
    for minutes in range(1, 21):
        world.fake.emit("invoice.paid", occurred_at=T0 - timedelta(hours=1, minutes=minutes))
    turn = {"bad": False}

    def fail_each_second(request: httpx.Request) -> None:
        if int(request.url.params.get("created[gte]", 0)) < T0.timestamp() - 3600:
            turn["bad"] = not turn["bad"]
            if not turn["bad"]:
                raise httpx.ConnectError("reset")

    transport.before = fail_each_second
    async with world.daemon(page_limit=2, lookback=timedelta(0)) as daemon:
        await daemon.demand(T0 - 2 * HOUR, T0 - HOUR)
        for _ in range(11):
            clock.advance(minutes=2)
            await daemon.run_source()
        (row,) = await rows(world, "demand")
        assert (row["state"], row["outcome"]) == ("finished", "found")
        assert len(await world.keys()) == 20


async def test_a_pass_that_is_cancelled_stops_after_its_page(
    world: World, clock: FakeClock, transport: InProcess
) -> None:
    for minutes in range(1, 30):
        world.fake.emit("invoice.paid", occurred_at=T0 - timedelta(hours=1, minutes=minutes))
    asked: list[httpx.Request] = []

    class Slow(httpx.AsyncBaseTransport):
        """Cancels the pass while its second page is under way."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if int(request.url.params.get("created[gte]", 0)) < T0.timestamp() - 3600:
                asked.append(request)
                if len(asked) == 2:
                    await daemon.runtime.write(passes.cancel, pass_id=row.id, now_us=to_us(clock()))
            return await transport.handle_async_request(request)

    async with httpx.AsyncClient(transport=Slow()) as world.client, world.daemon(page_limit=2) as daemon:
        row = await daemon.demand(T0 - 2 * HOUR, T0 - HOUR)
        clock.advance(minutes=5)
        await daemon.run_source()
        assert len(asked) in (2, 3)
        assert len(await world.keys()) <= 4
        (found,) = await rows(world, "demand")
        assert (found["state"], found["outcome"]) == ("finished", "cancelled")
