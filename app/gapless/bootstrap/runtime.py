"""What the daemon and a command that works on the ledger directly make alike."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import gapless
from gapless.bootstrap.destinations import make_destinations
from gapless.bootstrap.ledger import open_ledger, take_slot
from gapless.bootstrap.registration import register_rows
from gapless.bootstrap.sources import make_policies
from gapless.deliver.routing import build_route
from gapless.domain import Clock, Sources, system_clock
from gapless.ledger import slots
from gapless.ledger.engine import Store
from gapless.ledger.recorder import Recorder
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics
from gapless.operations.context import OperationContext
from gapless.provider_api.client import new_client
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds
from gapless.reconcile.context import SourcePolicy
from gapless.settings import Settings


def holder_name() -> str:
    """Who this process is, in leases."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """An open ledger with a writer of its own, for a command that writes while no daemon holds it."""

    context: OperationContext
    store: Store
    writer: Writer
    book: Sources
    policies: Mapping[str, SourcePolicy]
    metrics: Metrics
    clock: Clock
    holder: str


@asynccontextmanager
async def open_runtime(
    settings: Settings, environ: Mapping[str, str], clock: Clock = system_clock
) -> AsyncIterator[Workbench]:
    """Open the ledger, and give everything back at the end. Raises `LedgerHeld` if a daemon has it, `StoreError`."""
    with ExitStack() as held:
        ledger = await open_ledger(settings, held)
        try:
            registered = await register_rows(settings, environ, ledger.store, clock())
            book, holder = Sources(registered.sources), holder_name()
            slot = await take_slot(ledger, holder, receives=False, now=clock())
            metrics = Metrics(gapless.__version__)
            route = build_route(make_destinations(settings, registered, book, clock))
            writer = Writer(ledger.store, Recorder(slot, route), metrics)
            policies = make_policies(settings.sources, book, settings.public_url)
            client = new_client()
            context = OperationContext(
                store=ledger.store,
                writer=writer,
                sources=book,
                clock=clock,
                evidence=EvidenceFetcher(client, clock, metrics),
                stream_ids=StreamIds(writer),
                actor="command",
            )
            running = asyncio.create_task(writer.run())
            try:
                yield Workbench(
                    context=context,
                    store=ledger.store,
                    writer=writer,
                    book=book,
                    policies=policies,
                    metrics=metrics,
                    clock=clock,
                    holder=holder,
                )
                await writer.submit(partial(slots.leave_slot, slot=slot, holder=holder))
            finally:
                writer.close()
                await running
                await client.aclose()
        finally:
            await ledger.store.close()
