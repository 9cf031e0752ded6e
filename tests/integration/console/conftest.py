"""Fixtures of the private listener as in the daemon: a real store, a real writer, a real uvicorn on a free port."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select, update

from gapless.bootstrap.runtime import make_writer
from gapless.connections.limits import ConnectionLimits
from gapless.connections.register import Connections
from gapless.console.app import build_console_app
from gapless.console.auth import Access
from gapless.console.routing import ConsoleOptions
from gapless.daemon.listeners import Listener
from gapless.domain import Cause, Mode, Owed, Source, Sources, TypePatterns, Via, to_us
from gapless.ledger import destinations, schema
from gapless.ledger import sources as ledger_sources
from gapless.ledger.engine import Store
from gapless.ledger.recorder import Recorder, Sighting
from gapless.ledger.tables import AUDIT_LOG, STREAM
from gapless.metrics import Metrics
from gapless.operations.context import OperationContext
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds
from gapless.runtime import Runtime
from gapless.settings import PublicSettings
from gapless_reconcilers.kit.contract import RemoteEvent, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
RUN_TOKEN = "run-token-of-this-process"


def stripe() -> Stripe:
    return Stripe(StripeOptions(api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False))


@dataclass(kw_only=True)
class ConsoleSetup:
    """The context of operations on a real store, with methods that fill the ledger as receiving and reconciling do."""

    context: OperationContext
    metrics: Metrics
    now: list[datetime] = field(default_factory=lambda: [NOW])
    owed_to: list[int] = field(default_factory=list)
    woken: list[bool] = field(default_factory=list)
    connections: Connections | None = None
    """Those of the listener that runs."""

    def source(self, name: str = "acme") -> Source:
        return self.context.sources[name]

    def use(self, **changes: Any) -> None:
        """Use other parts of the runtime from now on."""
        runtime = self.context.runtime
        parts = {name: getattr(runtime, name) for name in ("store", "writer", "clock", "metrics", "sources")}
        self.context = replace(self.context, runtime=Runtime(**(parts | changes)))

    async def add_source(self, name: str, mode: Mode = Mode.HYBRID, types: Sequence[str] = ("*",)) -> Source:
        start = NOW - timedelta(days=30)
        source_id = await self.context.runtime.write(
            ledger_sources.register_source, name=name, provider="stripe", mode=mode.value, start=start, now=NOW
        )
        source = Source(id=source_id, name=name, provider=stripe(), mode=mode, start=start, types=TypePatterns(types))
        self.use(sources=Sources([*self.context.sources, source]))
        return source

    async def add_destination(self, name: str) -> int:
        destination_id: int = await self.context.runtime.write(
            destinations.register_destination, name=name, since=NOW - timedelta(days=1)
        )
        self.owed_to.append(destination_id)
        return destination_id

    async def stream_id(self, name: str = "acme") -> int:
        return int(await self.sql(select(STREAM.c.id).where(STREAM.c.source_id == self.source(name).id)))

    async def record(self, via: Via, *keys: str, ago: timedelta = timedelta(minutes=10), source: str = "acme") -> None:
        """Record events that occurred `ago`, each as receiving, listing or importing would."""
        stream_id = await self.stream_id(source)
        cause = Cause.UNEXPLAINED if via is Via.LIST else None
        for key in keys:
            event = RemoteEvent(key=key, type="invoice.paid", occurred_at=self.now[0] - ago, payload=b"{}")
            sighting = Sighting(
                source=self.source(source),
                stream_id=stream_id,
                event=event,
                via=via,
                seen_us=to_us(self.now[0]),
                cause=cause,
            )
            await self.context.runtime.write(self.context.runtime.writer.recorder.store, sightings=[sighting])

    async def listed(self, name: str = "acme", *, ago: timedelta = timedelta(minutes=5), **changes: Any) -> None:
        """Write the state of a complete pass that read the source's list up to `ago`."""
        at_us = to_us(self.now[0])
        values = {
            "watermark_us": at_us - to_us_of(ago),
            "checked_us": at_us,
            "last_complete_pass_us": at_us,
            "last_outcome": "clean",
        }
        where = STREAM.c.source_id == self.source(name).id
        await self.context.runtime.write(
            lambda c: c.execute(update(STREAM).where(where).values(**values | changes)).rowcount
        )

    async def sql(self, query: Any) -> Any:
        return await self.context.read(lambda connection: connection.execute(query).scalars().first())

    async def rows(self, table: Any, **values: Any) -> None:
        await self.context.runtime.write(lambda c: c.execute(insert(table).values(**values)).rowcount)

    async def audited(self) -> list[tuple[str, str]]:
        query = select(AUDIT_LOG.c.action, AUDIT_LOG.c.subject).order_by(AUDIT_LOG.c.id)
        return await self.context.read(lambda c: [(row.action, row.subject) for row in c.execute(query)])


def to_us_of(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


@pytest.fixture
async def console(store: Store) -> AsyncIterator[ConsoleSetup]:
    """The context of operations with one source, `acme`, and a running writer."""
    now, owed_to = [NOW], list[int]()
    metrics = Metrics("1.2.3")
    recorder = Recorder(0, lambda *_: [Owed(destination_id=each, not_before_us=0) for each in owed_to])
    writer = make_writer(PublicSettings(), store, recorder, metrics)
    writing = asyncio.create_task(writer.run())

    woken: list[bool] = []
    client = httpx.AsyncClient()
    runtime = Runtime(store=store, writer=writer, clock=lambda: now[0], metrics=metrics, sources=Sources())
    context = OperationContext(
        runtime=runtime,
        evidence=EvidenceFetcher(client, lambda: now[0], metrics),
        stream_ids=StreamIds(writer),
        wake=lambda: woken.append(True),
    )
    console = ConsoleSetup(context=context, metrics=metrics, now=now, owed_to=owed_to, woken=woken)
    await console.add_source("acme")
    yield console
    writer.close()
    await writing
    await client.aclose()


def private_options(**changes: Any) -> ConsoleOptions:
    options = ConsoleOptions(
        access=Access(bind="127.0.0.1", run_token=Secret(RUN_TOKEN)),
        roles=frozenset({"receive", "reconcile", "deliver", "console"}),
        version="1.2.3",
        started_at=NOW - timedelta(hours=2),
        schema_is_current=schema.is_current,
    )
    return replace(options, **changes)


@asynccontextmanager
async def listening(
    console: ConsoleSetup, connections: ConnectionLimits | None = None, **changes: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the private listener, which runs on a free port."""
    app = build_console_app(private_options(**changes), console.context, console.metrics)
    register = Connections("private", console.metrics, connections or ConnectionLimits())
    listener = Listener(app, "127.0.0.1", 0, register, websockets=True)
    serving = asyncio.create_task(listener.run())
    await listener.started()
    console.connections = listener.connections
    try:
        async with httpx.AsyncClient(base_url=listener.address, timeout=120) as client:
            yield client
    finally:
        listener.stop()
        await serving


@pytest.fixture
def listen(console: ConsoleSetup) -> Callable[..., Any]:
    """`async with listen(roles=…) as client`: the private listener of the fixture `console`."""
    return partial(listening, console)
