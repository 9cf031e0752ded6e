"""SIGTERM ends the daemon within `stop_within`, and a signal ends a command, whatever they wait for."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
from outside import PROGRAM, WEBHOOK_SECRET, Consumer, Gapless, running, until
from stream_server import stream_server

from gapless.daemon import STOPPED_LATE
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio
STOP = {"GAPLESS_STOP_WITHIN": "3s"}
SOURCE = """
[[source]]
name = "{name}"
provider = "stripe"
[source.options]
api_base = "{api}"
api_key_env = "STRIPE_API_KEY"
webhook_secret_env = "STRIPE_WEBHOOK_SECRET"
"""
PAUSE = b"HTTP/1.1 429 X\r\nretry-after: %b\r\ncontent-length: 2\r\n\r\n{}"


class Vendor:
    """A provider of one answer: nothing at all, a drip, or a pause."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.asked = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                if self.behaviour == "drip":
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
                while self.behaviour == "drip":
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.1)
                if self.behaviour != "silent":
                    writer.write(PAUSE % self.behaviour.encode())
                    await writer.drain()
        writer.close()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        async with stream_server(self.answer) as port:
            yield f"http://127.0.0.1:{port}"


async def test_sigterm_ends_whatever_the_providers_do(sqlite_url: str, tmp_path: Path) -> None:
    """One answers nothing, one drips, one wants a short pause, and one an hour."""
    vendors = [Vendor(behaviour) for behaviour in ("silent", "drip", "25", "3600")]
    async with AsyncExitStack() as stack:
        first, *others = [await stack.enter_async_context(vendor.serve()) for vendor in vendors]
        more = "".join(SOURCE.format(name=f"vendor-{number}", api=api) for number, api in enumerate(others))
        gapless = Gapless(tmp_path, sqlite_url, first, options=more, environment=STOP)
        daemon = await stack.enter_async_context(running(gapless))
        await until(lambda: all(vendor.asked for vendor in vendors))
        assert await daemon.end() == 0
    assert "stop_took_too_long" not in daemon.log.read_text()


async def test_sigterm_ends_while_a_consumer_is_silent(sqlite_url: str, tmp_path: Path) -> None:
    silent, fake = Vendor("silent"), FakeProvider(StripeFormat())
    async with silent.serve() as url, fake.serve() as api:
        consumer = Consumer(port=int(url.rpartition(":")[2]))
        gapless = Gapless(tmp_path, sqlite_url, api, consumer, environment=STOP)
        async with running(gapless) as daemon:
            fake.add_endpoint(daemon.public, secret=WEBHOOK_SECRET)
            fake.emit("invoice.paid")
            await fake.settle()
            await until(lambda: silent.asked)
            assert await daemon.end() == 0
    assert "stop_took_too_long" not in daemon.log.read_text()


async def test_sigterm_ends_while_the_database_hangs(postgres_url: str, tmp_path: Path) -> None:
    async with Vendor("25").serve() as api, running(Gapless(tmp_path, postgres_url, api, environment=STOP)) as daemon:
        locking = await asyncpg.connect(postgres_url)
        try:
            async with locking.transaction():
                await locking.execute("LOCK TABLE slot, source, stream IN ACCESS EXCLUSIVE MODE")
                assert await daemon.end() == STOPPED_LATE
        finally:
            await locking.close()
    assert "stop_took_too_long" in daemon.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_a_command(number: signal.Signals, sqlite_url: str, tmp_path: Path) -> None:
    vendor = Vendor("silent")
    async with vendor.serve() as api:
        gapless = Gapless(tmp_path, sqlite_url, api)
        command = (PROGRAM, "--config", str(gapless.config), "source", "pass", "stripe-live", "--since", "1d")
        quiet = asyncio.subprocess.DEVNULL
        with _heeding(number):
            process = await asyncio.create_subprocess_exec(*command, env=gapless.env, stdout=quiet, stderr=quiet)
        await until(lambda: vendor.asked)
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 30) != 0


@contextmanager
def _heeding(number: signal.Signals) -> Iterator[None]:
    """Start what is started here with the default: a background job of a shell ignores SIGINT."""
    before = signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(number, before)
