"""Every wait for a provider has an end: a dripped or endless answer, and a pause that the provider asks for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from stream_server import stream_server
from world import HASTY, FakeClock, World

from gapless.domain import Mode, Purpose, Source, Sources, system_clock
from gapless.ledger import sources
from gapless.metrics import Metrics
from gapless.provider_api.client import ProviderClient, new_client, read_answer
from gapless.status.reader import read_report
from gapless.status.troubles import TroubleKind, troubles
from gapless.status.values import of_report
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.errors import ProviderUnavailable, UnexpectedShape
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def dripping() -> AsyncIterator[str]:
    """A provider that answers a byte now and then, for ever."""
    ended = asyncio.Semaphore(0)
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n")
        try:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()
            ended.release()

    async with stream_server(answer) as port:
        yield f"http://127.0.0.1:{port}"
        for _ in range(connections):
            await ended.acquire()


async def test_an_answer_that_drips_is_cut_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    provider = Stripe(StripeOptions(api_key=Secret("sk_live_x")))
    source = Source(id=1, name="acme", provider=provider, mode=Mode.POLL, start=datetime(2026, 1, 1, tzinfo=UTC))
    async with dripping() as url, new_client() as client:
        asking = ProviderClient(
            client,
            Sources([source]),
            "acme",
            clock=system_clock,
            metrics=Metrics("t"),
            rate=10_000,
            retry=HASTY,
            within=timedelta(seconds=0.2),
        )
        async with asyncio.timeout(20):
            with pytest.raises(ProviderUnavailable, match=rf"{url}: no whole answer within 0.2 s"):
                await asking.send(httpx.Request("GET", f"{url}/v1/events"), Purpose.HEARTBEAT)
    assert "provider_request_cut" in [record.msg for record in caplog.records]


async def test_an_answer_without_end_is_given_up() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1000

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=endless()))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(UnexpectedShape, match="body is longer than 5000 bytes"):
            await read_answer(client, httpx.Request("GET", "http://vendor.test/"), None, most=5000)


async def test_a_long_pause_is_a_state_and_not_a_sleep(world: World, clock: FakeClock) -> None:
    world.fake.faults.throttle_every, world.fake.faults.retry_after = 1, "3600"
    async with world.daemon() as daemon:
        async with asyncio.timeout(20):  # it slept for an hour
            await daemon.run_source(health=True)
        row = await world.store.read(sources.source_row, source_id=world.source_id)
        requests = len(world.fake.requests)
        until = clock() + timedelta(hours=1)

        assert row["lease_holder"] is None
        clock.advance(minutes=59)
        assert await world.store.read(sources.due, now_us=daemon.runtime.now_us) == []
        report = await read_report(world.store, Sources([world.source()]), clock())
        (found,) = [each for each in troubles(report) if each.kind is TroubleKind.PROVIDER_WAITS]
        assert f"Waiting until {until:%Y-%m-%d %H:%M:%S}" in found.text
        assert "because the provider said so" in found.text
        assert of_report(report)["sources"][0]["list"]["waiting_until"] == until

        await daemon.run_source()  # a person asks meanwhile: nothing is sent
        assert len(world.fake.requests) == requests

        world.fake.faults.throttle_every = 0
        clock.advance(minutes=2)
        assert [each.name for each in await world.store.read(sources.due, now_us=daemon.runtime.now_us)] == ["acme"]
        await daemon.run_source()
    report = await read_report(world.store, Sources([world.source()]), clock())
    assert TroubleKind.PROVIDER_WAITS not in {each.kind for each in troubles(report)}
    assert (await world.stream()).last_outcome == "clean"


async def test_a_pause_from_a_wrong_clock_is_over(world: World, clock: FakeClock) -> None:
    world.fake.faults.throttle_every, world.fake.faults.retry_after = 1, "3600"
    async with world.daemon() as daemon:
        await daemon.run_source(health=True)
        assert (await world.comparison()).waiting_until is not None
        clock.advance(hours=-5)
        await daemon.runtime.write(sources.make_due_now, source_id=world.source_id, now_us=daemon.runtime.now_us)
        assert [each.name for each in await world.store.read(sources.due, now_us=daemon.runtime.now_us)] == ["acme"]


async def test_status_says_why_the_last_pass_failed(world: World, clock: FakeClock) -> None:
    world.fake.faults.outage = True
    async with world.daemon() as daemon:
        await daemon.run_source(health=True)
    report = await read_report(world.store, Sources([world.source()]), clock())
    (found,) = [each for each in troubles(report) if each.kind is TroubleKind.READ_FAILED]
    assert "was answered with 503" in found.text
    assert f"{world.url}/" in found.text
