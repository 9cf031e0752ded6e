"""A pass on demand stands behind the scheduled ones: its failures are its own, and it never blocks them."""

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from world import T0, FakeClock, InProcess, World

from gapless.domain import from_us, to_us
from gapless.ledger import passes
from gapless.reconcile.pace import Pace
from gapless.reconcile.stream_run import MOST_ATTEMPTS

pytestmark = pytest.mark.anyio
DAY = timedelta(days=1)


class RefusesOld(httpx.AsyncBaseTransport):
    """A vendor that answers `status` to every list of events from before `T0`."""

    def __init__(self, vendor: httpx.AsyncBaseTransport) -> None:
        self._vendor, self.status, self.refused = vendor, 400, 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        since = request.url.params.get("created[gte]")
        if since is not None and int(since) < T0.timestamp() - 3600:
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
            clock.advance(hours=3)
            await daemon.run_source()
        (row,) = await rows(world, "demand")
        assert (row["state"], row["attempts"]) == ("finished", MOST_ATTEMPTS)
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
        vendor.status = 200

        async def answer(request: httpx.Request) -> httpx.Response:
            return await vendor._vendor.handle_async_request(request)

        vendor.handle_async_request = answer  # type: ignore[method-assign]
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
