"""`gapless listen`: a handler that somebody develops gets all events, signed, whatever happens to the connection."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT

import pytest
import standardwebhooks
import stripe
from inside import call, serving
from outside import PROGRAM, WEBHOOK_SECRET, Consumer, Gapless, running, until

from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio
APP_SECRET = "whsec_dGhlIHNlY3JldCBvZiB0aGUgYXBwIQ=="


@dataclass
class Handler(Consumer):
    """Keeps what it got: headers and bodies, in order."""

    requests: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """The next answers; 200 when there are none left."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:]
                headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head) if v}
                self.requests.append((headers, await reader.readexactly(int(headers["content-length"]))))
                status = self.statuses.pop(0) if self.statuses else 200
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()

    @property
    def keys(self) -> list[str]:
        return [json.loads(body)["id"] for _, body in self.requests]


@dataclass
class Listen:
    """A running `gapless listen`, and what it has printed."""

    process: asyncio.subprocess.Process
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    async def read(self, stream: asyncio.StreamReader, into: list[str]) -> None:
        while line := await stream.readline():
            into.append(line.decode().rstrip())

    def said(self, text: str) -> bool:
        return any(text in line for line in (*self.out, *self.err))

    async def interrupt(self) -> str:
        """Ctrl-C; return the cursor that it prints."""
        self.process.send_signal(SIGINT)
        assert await asyncio.wait_for(self.process.wait(), 60) == 0, self.err
        await until(lambda: self.said("to go on: --after "), every_s=0.01)
        return self.err[-1].rpartition(" ")[2]


@asynccontextmanager
async def listening(gapless: Gapless, *arguments: str) -> AsyncIterator[Listen]:
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        "--config",
        str(gapless.config),
        "listen",
        *arguments,
        env={**gapless.env, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    listen = Listen(process)
    reading = [
        asyncio.create_task(listen.read(process.stdout, listen.out)),
        asyncio.create_task(listen.read(process.stderr, listen.err)),
    ]
    try:
        yield listen
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await asyncio.gather(*reading)


@pytest.fixture
def fake() -> FakeProvider:
    return FakeProvider(StripeFormat())


@pytest.mark.parametrize("store_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True)
async def test_a_handler_gets_all_events_signed_as_the_vendor_signs(
    fake: FakeProvider, store_url: str, tmp_path: Path
) -> None:
    """What was recorded before it listened, while it fails, and what no webhook brought."""
    async with Handler().serve() as handler, fake.serve() as api:
        assert isinstance(handler, Handler)
        gapless = Gapless(tmp_path, store_url, api, environment={"APP_SECRET": APP_SECRET})
        forward = f"http://localhost:{handler.port}/hook"
        async with serving(gapless):
            fake.add_endpoint(gapless.public, secret=WEBHOOK_SECRET)
            await asyncio.sleep(1.1)  # the subscription counts from its own second on
            before = fake.emit("invoice.paid")
            await until(gapless_has(gapless, before.key))
            arguments = ("--forward", forward, "--since", "1h", "--secret-env", "APP_SECRET")
            async with listening(gapless, *arguments) as listen:
                await until(lambda: handler.keys == [before.key], every_s=0.02)
                handler.statuses[:] = [500, 429]
                failing = fake.emit("charge.failed")
                await until(lambda: handler.keys == [before.key, *[failing.key] * 3], every_s=0.02)
                lost = fake.emit("invoice.paid", push=False)
                await until(lambda: lost.key in handler.keys, every_s=0.02)
                await until(lambda: listen.said("→ HTTP 200"), every_s=0.02)
                handler.statuses[:] = [410]
                refused = fake.emit("invoice.paid")
                await until(lambda: listen.said("not tried again"), every_s=0.02)
                cursor = await listen.interrupt()
                assert listen.said("3 events taken by the handler, 1 not")
            for headers, body in handler.requests:
                event = stripe.Webhook.construct_event(body, headers["stripe-signature"], APP_SECRET)
                assert headers["gapless-event-key"] == event.id
            attempts = [headers["gapless-attempt"] for headers, _ in handler.requests]
            assert attempts == ["1", "1", "2", "3", "1", "1"]
            assert handler.keys[-1] == refused.key
            handler.requests.clear()
            while_away = fake.emit("invoice.paid")
            await until(gapless_has(gapless, while_away.key))
            again = (
                "--forward",
                forward,
                "--after",
                cursor,
                "--key",
                before.key,
                "--signature",
                "standard",
                "--secret-env",
                "APP_SECRET",
            )
            async with listening(gapless, *again) as listen:
                await until(lambda: handler.keys == [before.key, while_away.key], every_s=0.02)
                fake.push(while_away)  # as somebody does in the vendor's dashboard
                await until(lambda: handler.keys == [before.key, *[while_away.key] * 2], every_s=0.02)
                assert await listen.interrupt() != cursor
                assert listen.said("  again  → HTTP 200")
            for (headers, body), key in zip(handler.requests, (before.key, *[while_away.key] * 2), strict=True):
                assert standardwebhooks.Webhook(APP_SECRET).verify(body, dict(headers))["id"] == key


def gapless_has(gapless: Gapless, key: str) -> object:
    async def has() -> bool:
        return key in await gapless.ledger_ids()

    return has


async def test_a_listener_outlives_a_killed_daemon(fake: FakeProvider, sqlite_url: str, tmp_path: Path) -> None:
    async with fake.serve() as api, running(Gapless(tmp_path, sqlite_url, api)) as gapless:
        fake.add_endpoint(gapless.public, secret=WEBHOOK_SECRET)
        await asyncio.sleep(1.1)
        first = fake.emit("invoice.paid")
        arguments = ("--url", gapless.private, "--since", "1h", "--types", "invoice.*")
        async with listening(gapless, *arguments) as listen:
            await until(lambda: listen.said(first.key), every_s=0.02)
            await gapless.kill()
            await until(lambda: listen.said("trying again"), every_s=0.02)
            await gapless.start()
            second = fake.emit("invoice.paid")
            await until(lambda: listen.said(second.key), every_s=0.02)
            assert listen.said("connected again")
            await listen.interrupt()
        assert [line.split("  ")[3] for line in listen.out] == [first.key, second.key]


async def test_what_cannot_work_is_said_at_once(fake: FakeProvider, sqlite_url: str, tmp_path: Path) -> None:
    async with fake.serve() as api:
        gapless = Gapless(tmp_path, sqlite_url, api)
        nobody = await call(gapless, "listen")
        assert (nobody.exit_code, "start `gapless serve`" in nobody.output) == (3, True)
        async with serving(gapless):
            for arguments, code, said in (
                (("--types", "in*voice"), 2, "such as invoice.paid"),
                (("--after", "AQ"), 2, "is no cursor"),
                (("--source", "nobody"), 2, "source 'nobody' is not configured"),
                (("--forward", "localhost:3000"), 2, "is no http:// or https:// address"),
                (("--forward", "http://localhost:1", "--secret-env", "NOT_SET"), 2, "NOT_SET, which is not set"),
                (("--url", "nowhere"), 2, "wanted http://host:port"),
            ):
                done = await call(gapless, "listen", *arguments)
                assert (done.exit_code, said in done.output) == (code, True), done.output
