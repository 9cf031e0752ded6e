"""Open the runtime of a process from its settings, in the same way for the daemon and for a command that writes."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import httpx

import gapless
from gapless.bootstrap.audit_key import open_audit_key
from gapless.bootstrap.destinations import make_destinations
from gapless.bootstrap.ledger import OpenLedger, RegisteredRows, open_ledger, register_rows, take_next_slot, take_slot
from gapless.bootstrap.policies import make_policies
from gapless.bootstrap.sources import open_provider_client
from gapless.clock import ProcessClock
from gapless.deliver.routing import Destination, build_route, that_hear_webhooks
from gapless.domain import Clock, Sources
from gapless.ledger import destinations as destination_rows
from gapless.ledger import leases, sources
from gapless.ledger.engine import Store, bind
from gapless.ledger.engine.lock import LedgerLock
from gapless.ledger.recorder import Recorder
from gapless.ledger.times import ledger_time
from gapless.ledger.writer import Work, Writer
from gapless.metrics import Metrics
from gapless.provider_api.client import new_client
from gapless.provider_api.health import ask_time
from gapless.reconcile.policy import SourcePolicy
from gapless.runtime import Runtime
from gapless.settings import PublicSettings, Settings, SourceSettings, lacks_key


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessParts:
    """A process's runtime, and the other parts that were built from the settings."""

    runtime: Runtime
    lock: LedgerLock | None
    """The lock of the ledger; None on PostgreSQL."""
    rows: RegisteredRows
    destinations: list[Destination]
    policies: Mapping[str, SourcePolicy]
    """The policy of each source, by name."""
    client: httpx.AsyncClient
    """The one HTTP client towards providers."""
    holder: str
    """The name of this process in leases."""


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    serves: bool = False,
    receives: bool = False,
    clock: Clock | None = None,
) -> AsyncIterator[ProcessParts]:
    """Open the ledger, make rows and parts, and run the writer. At the end, close and release everything.

    `serves`: this process is a daemon. Its configuration comes into force if it is new, and providers are asked for
    their time before a new source or destination gets its start. `receives`: this process receives webhooks, so the
    downtime of the receiver ends here. `clock` None: the ledger's.
    Raises `LedgerHeld` if another process holds the SQLite ledger, `StoreError`, `DestinationInvalid`,
    `SecretUnavailable` and `OptionsInvalid`.
    """
    with ExitStack() as held:
        ledger = await open_ledger(settings, held)
        try:
            clock = clock or await _open_clock(ledger.store)
            times = await provider_times(settings, environ, ledger.store, clock) if serves else {}
            parts = await _make_parts(settings, environ, ledger, times, serves=serves, receives=receives, clock=clock)
            async with parts.client, parts.runtime as runtime:
                yield parts
                await runtime.write(leases.leave_slot, slot=runtime.writer.recorder.slot, holder=parts.holder)
        finally:
            await ledger.store.close()


async def _make_parts(
    settings: Settings,
    environ: Mapping[str, str],
    ledger: OpenLedger,
    times: Mapping[str, datetime],
    *,
    serves: bool,
    receives: bool,
    clock: Clock,
) -> ProcessParts:
    rows = await register_rows(settings, environ, ledger.store, clock(), times, serves=serves)
    sources, metrics, holder = Sources(rows.sources), Metrics(gapless.__version__), _holder_name()
    destinations = make_destinations(settings, rows, sources, clock)
    standing = rows.standing if serves else None
    slot = await take_slot(ledger, holder, metrics, receives=receives, now=clock(), standing=standing)
    again = None if ledger.lock else bind(take_next_slot, holder=holder, receives=receives, standing=standing)
    recorder = Recorder(
        slot,
        build_route(destinations),
        withdraws=that_hear_webhooks(destinations),
        requires_listed=any(each.require_listed for each in destinations),
    )
    writer = make_writer(settings.public, ledger.store, recorder, metrics, take_slot=again)
    return ProcessParts(
        runtime=Runtime(
            store=ledger.store,
            writer=writer,
            clock=clock,
            metrics=metrics,
            sources=sources,
            audit_key=open_audit_key(settings, ledger.store, makes=True),
            keyring=ledger.keyring,
        ),
        lock=ledger.lock,
        rows=rows,
        destinations=destinations,
        policies=make_policies(settings.sources, sources, settings.public_url),
        client=new_client(),
        holder=holder,
    )


async def _open_clock(store: Store) -> ProcessClock:
    """Return the clock of this process, set by the ledger's. Raises `StoreError`."""
    clock = ProcessClock()
    now, _ = await ledger_time(store, clock)
    clock.set(now)
    return clock


async def provider_times(
    settings: Settings, environ: Mapping[str, str], store: Store, clock: Clock
) -> dict[str, datetime]:
    """Return the time at each source's provider, if a source or a destination is new.

    A start by a clock that is ahead would leave out what happens until then; by one that is behind, it would deliver
    what happened before. A source whose provider does not answer, or does not say what time it is, has no entry. Raises
    `StoreError`.
    """
    known = {row["name"] for row in await store.read(sources.sources)}
    addressed = await store.read(destination_rows.names)
    new = [each for each in settings.sources if each.name not in known]
    asked = settings.sources if any(each.name not in addressed for each in settings.destinations) else new

    async def ask(source: SourceSettings) -> tuple[str, datetime | None]:
        async with open_provider_client(source, settings.public_url, environ, clock) as client:
            return source.name, await ask_time(client)

    found = await asyncio.gather(*(ask(each) for each in asked if not lacks_key(each)))
    return {name: time for name, time in found if time is not None}


def make_writer(
    settings: PublicSettings,
    store: Store,
    recorder: Recorder,
    metrics: Metrics,
    *,
    take_slot: Work[int] | None = None,
) -> Writer:
    """Return the writer, with the bounds of its queue. `take_slot` takes a new slot after a lost connection."""
    writer = Writer(
        store,
        recorder,
        metrics,
        queue_max=settings.queue_max,
        queue_max_bytes=settings.queue_max_bytes,
        take_slot=take_slot,
    )
    metrics.ledger_writable.set_function(lambda: writer.failure is None)
    return writer


def _holder_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
