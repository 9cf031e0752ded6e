"""Delivering on a real store of each kind, with real consumers on free ports."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import pytest
from sqlalchemy import select, update
from stream_server import stream_server

from gapless.bootstrap.destinations import make_destination
from gapless.bootstrap.runtime import make_writer
from gapless.deliver.breaker import BreakerRule
from gapless.deliver.dispatcher import Dispatcher
from gapless.deliver.retry import DeliveryRetryPolicy
from gapless.deliver.routing import Destination, build_route, that_hear_webhooks
from gapless.destinations.contract import HoldReason, Sender, SenderContext
from gapless.destinations.http import DeliverySignature, HttpOptions, HttpSender
from gapless.domain import Cause, Mode, Source, Sources, Via, system_clock, to_us
from gapless.ledger import destinations, streams
from gapless.ledger import sources as ledger_sources
from gapless.ledger.engine import Store, open_store
from gapless.ledger.recorder import Recorder, Sighting
from gapless.ledger.tables import ATTEMPT, DELIVERY, METADATA
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics
from gapless.runtime import Runtime
from gapless.settings import DestinationSettings, PublicSettings, SecretRef
from gapless_reconcilers.kit.contract import RemoteEvent, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
QUICK = DeliveryRetryPolicy(
    first=timedelta(milliseconds=20), longest=timedelta(milliseconds=100), max_attempts=4, waits=(), max_age=None
)
APP = DestinationSettings(name="app")
NEVER_OPENS = BreakerRule(threshold=10_000)


@dataclass(frozen=True, kw_only=True)
class Got:
    """A request that a consumer got."""

    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["idempotency-key"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int = 200
    headers: tuple[str, ...] = ()
    after_s: float = 0
    body: bytes = b""


@dataclass(kw_only=True)
class Consumer:
    """A real HTTP server that answers with `answers`, one by one, and then 200 for ever."""

    port: int = 0
    answers: list[Answer] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def will_answer(self, status: int, *headers: str, after_s: float = 0, body: bytes = b"", times: int = 1) -> None:
        self.answers += [Answer(status=status, headers=headers, after_s=after_s, body=body)] * times

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[1:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.got.append(Got(headers=headers, body=body, at=asyncio.get_running_loop().time()))
        answer = self.answers.pop(0) if self.answers else Answer()
        await asyncio.sleep(answer.after_s)
        lines = [f"HTTP/1.1 {answer.status} X", f"content-length: {len(answer.body)}", *answer.headers, "", ""]
        writer.write("\r\n".join(lines).encode() + answer.body)
        await writer.drain()


@pytest.fixture
async def consumer() -> AsyncIterator[Consumer]:
    consumer = Consumer()
    async with stream_server(consumer.serve) as consumer.port:
        yield consumer


@pytest.fixture
def certificate(tmp_path: Path, absent: Callable[[str, str], NoReturn]) -> Path:
    """A certificate of `localhost`, signed by itself, and its key in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        absent("openssl", "it is not on the PATH")
    path = tmp_path / "localhost.pem"
    made: list[str] = [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(path),
        "-out",
        str(path),
    ]
    subprocess.run([openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made], check=True, capture_output=True)
    return path


async def run_sql(url: str, statement: str) -> None:
    import asyncpg  # noqa: PLC0415 - an extra

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@dataclass(kw_only=True)
class DeliverySetup:
    """A ledger with a source and one destination, with ways to record events and to read deliveries."""

    store: Store
    writer: Writer
    recorder: Recorder
    metrics: Metrics
    source: Source
    sources: Sources
    stream_id: int
    destination_id: int
    secret: str = SECRET

    @property
    def runtime(self) -> Runtime:
        return Runtime(
            store=self.store, writer=self.writer, clock=system_clock, metrics=self.metrics, sources=self.sources
        )

    def sighting(self, key: str, via: Via = Via.WEBHOOK, body: bytes | None = None, **changes: Any) -> Sighting:
        payload = body or b'{"id":"%b", "spaced":  true}' % key.encode()
        event: dict[str, Any] = {"key": key, "type": "invoice.paid", "occurred_at": system_clock(), "payload": payload}
        return Sighting(
            source=self.source,
            stream_id=self.stream_id,
            event=RemoteEvent(**(event | changes)),
            via=via,
            seen_us=to_us(system_clock()),
            cause=Cause.UNEXPLAINED if via is Via.LIST else None,
        )

    async def record(self, *sightings: Sighting) -> dict[str, int]:
        """Return {key: seq} of the new events."""
        new = await self.writer.submit(lambda c: self.recorder.store(c, sightings))
        return {key: seq for (_, key), seq in new.items()}

    async def add_destination(self, name: str) -> str:
        """Make the row of another destination, and return its name."""
        await self.store.write(destinations.register_destination, name=name, since=system_clock())
        return name

    def destination(self, sender: Sender, **changes: Any) -> Destination:
        quick: dict[str, Any] = {"retry": QUICK, "breaker": NEVER_OPENS, "timeout": timedelta(seconds=20)}
        return replace(make_destination(APP, self.destination_id, 0, sender), **(quick | changes))

    def context(self, *releases: HoldReason) -> SenderContext:
        return SenderContext(
            name="app",
            sources=self.sources,
            clock=system_clock,
            concurrency=APP.concurrency,
            releases=frozenset(releases),
            timeout=APP.timeout,
        )

    def http(
        self, url: str, tls: ssl.SSLContext | None = None, releases: Sequence[HoldReason] = (), **changes: Any
    ) -> HttpSender:
        options: dict[str, Any] = {
            "signature": DeliverySignature.STANDARD,
            "secret": SecretRef(value=Secret(SECRET)),
            "allow": ("127.0.0.1",),
        }
        return HttpSender(HttpOptions(url=url, **(options | changes)), self.context(*releases), tls)

    @asynccontextmanager
    async def delivering(self, destination: Destination, **options: Any) -> AsyncIterator[Dispatcher]:
        """Record with this destination's route, and deliver to it, while inside."""
        dispatcher = Dispatcher([destination], self.runtime, rng=Random(1), **options)
        self.recorder.route, self.recorder.withdraws = build_route([destination]), that_hear_webhooks([destination])
        self.recorder.wake = dispatcher.wake
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(dispatcher.run())
            try:
                yield dispatcher
            finally:
                dispatcher.stop()

    async def deliveries(self) -> list[Any]:
        query = select(DELIVERY).order_by(DELIVERY.c.event_seq)
        return list(await self.store.read(lambda c: c.execute(query).all()))

    async def end_delays(self, dispatcher: Dispatcher) -> None:
        """Make every pending delivery due now."""
        await self.writer.submit(lambda c: c.execute(update(DELIVERY).values(next_us=0)).rowcount)
        dispatcher.wake()

    async def states(self) -> set[str]:
        return {row.state for row in await self.deliveries()}

    async def until(self, state: str, seconds: float = 120) -> list[Any]:
        """Return every delivery, once all of them are in `state`."""
        await self.wait_for(lambda rows: {row.state for row in rows} == {state}, seconds)
        return await self.deliveries()

    async def wait_for(self, wanted: Callable[[list[Any]], bool], seconds: float = 120) -> None:
        """Wait until `wanted` is true of the deliveries."""
        async with asyncio.timeout(seconds):
            while not wanted(await self.deliveries()):
                await asyncio.sleep(0.01)

    async def outcomes(self) -> list[str]:
        query = select(ATTEMPT.c.outcome).order_by(ATTEMPT.c.id)
        return list(await self.store.read(lambda c: c.execute(query).scalars().all()))

    def counted(self, outcome: str) -> float:
        labels = {"destination": "app", "outcome": outcome}
        return self.metrics.registry.get_sample_value("gapless_deliveries_total", labels) or 0.0


@pytest.fixture
async def setup(store_url: str) -> AsyncIterator[DeliverySetup]:
    store = open_store(store_url)
    await store.write(METADATA.create_all)
    start = datetime.now(UTC) - timedelta(days=1)
    source_id = await store.write(
        lambda c: ledger_sources.register_source(c, "acme", "stripe", "hybrid", start, system_clock())
    )
    stream_id = (await store.read(lambda c: streams.streams(c, source_id)))[0].id
    destination_id = await store.write(lambda c: destinations.register_destination(c, "app", start))
    provider = Stripe(StripeOptions(api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False))
    source = Source(id=source_id, name="acme", provider=provider, mode=Mode.HYBRID, start=start)
    sources, metrics = Sources([source]), Metrics("test")
    route = build_route([make_destination(APP, destination_id, 0, Unused())])
    recorder = Recorder(0, route)
    writer = make_writer(PublicSettings(), store, recorder, metrics)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(writer.run())
        yield DeliverySetup(
            store=store, writer=writer, recorder=recorder, metrics=metrics, source=source, sources=sources,
            stream_id=stream_id, destination_id=destination_id,
        )  # fmt: skip
        writer.close()
    await store.close()


class Unused:
    """A sender for destinations that only route."""

    async def send(self, delivery: Any) -> NoReturn:
        raise AssertionError(delivery)

    async def close(self) -> None:
        return
