"""Open the runtime of a process from its settings, in the same way for the daemon and for a command that writes."""

import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

import gapless
from gapless.bootstrap.destinations import make_destinations
from gapless.bootstrap.ledger import OpenLedger, RegisteredRows, open_ledger, register_rows, take_slot
from gapless.bootstrap.sources import make_policies
from gapless.deliver.routing import Destination, build_route
from gapless.domain import Clock, Sources, system_clock
from gapless.ledger import leases
from gapless.ledger.engine import Store, bind
from gapless.ledger.engine.lock import LedgerLock
from gapless.ledger.recorder import Recorder
from gapless.ledger.writer import Work, Writer
from gapless.metrics import Metrics
from gapless.provider_api.client import new_client
from gapless.reconcile.context import SourcePolicy
from gapless.runtime import Runtime
from gapless.settings import PublicSettings, Settings


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
    settings: Settings, environ: Mapping[str, str], *, receives: bool = False, clock: Clock = system_clock
) -> AsyncIterator[ProcessParts]:
    """Open the ledger, make rows and parts, and run the writer. At the end, close and release everything.

    `receives`: this process receives webhooks, so the downtime of the receiver ends here.
    Raises `LedgerHeld` if another process holds the SQLite ledger, `StoreError`, `DestinationInvalid`,
    `SecretUnavailable` and `OptionsInvalid`.
    """
    with ExitStack() as held:
        ledger = await open_ledger(settings, held)
        try:
            parts = await _make_parts(settings, environ, ledger, receives=receives, clock=clock)
            async with parts.client, parts.runtime as runtime:
                yield parts
                await runtime.write(leases.leave_slot, slot=runtime.writer.recorder.slot, holder=parts.holder)
        finally:
            await ledger.store.close()


async def _make_parts(
    settings: Settings, environ: Mapping[str, str], ledger: OpenLedger, *, receives: bool, clock: Clock
) -> ProcessParts:
    rows = await register_rows(settings, environ, ledger.store, clock())
    sources, metrics, holder = Sources(rows.sources), Metrics(gapless.__version__), _holder_name()
    destinations = make_destinations(settings, rows, sources, clock)
    slot = await take_slot(ledger, holder, receives=receives, now=clock())
    again = None if ledger.lock else bind(leases.take_slot, holder=holder, receives=receives)
    recorder = Recorder(slot, build_route(destinations))
    writer = make_writer(settings.public, ledger.store, recorder, metrics, take_slot=again)
    return ProcessParts(
        runtime=Runtime(store=ledger.store, writer=writer, clock=clock, metrics=metrics, sources=sources),
        lock=ledger.lock,
        rows=rows,
        destinations=destinations,
        policies=make_policies(settings.sources, sources, settings.public_url),
        client=new_client(),
        holder=holder,
    )


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
