"""One process: its parts, wired, and the order in which they start and stop."""

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import httpx
from litestar import Litestar

import gapless
from gapless.bootstrap.destinations import make_destinations
from gapless.bootstrap.ledger import OpenLedger, take_slot
from gapless.bootstrap.registration import RegisteredRows, register_rows
from gapless.bootstrap.runtime import holder_name
from gapless.bootstrap.sources import make_policies
from gapless.console.app import build_console_app
from gapless.console.auth import Access
from gapless.console.guard import ConsoleOptions
from gapless.daemon import maintenance
from gapless.daemon.listeners import Listener
from gapless.deliver.destination import Destination
from gapless.deliver.dispatcher import Dispatcher
from gapless.deliver.routing import build_route
from gapless.domain import Clock, Sources, system_clock
from gapless.ledger import schema, slots
from gapless.ledger.engine import StoreInvalid
from gapless.ledger.engine.lock import LockHolder
from gapless.ledger.recorder import Recorder
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics
from gapless.operations.context import OperationContext
from gapless.provider_api.client import PATIENT, RequestRetryPolicy, new_client
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.quarantine import QuarantineOptions
from gapless.receive.receiver import ReceiveOptions, Receiver, make_receiver
from gapless.receive.server import SERVING, build_app
from gapless.receive.stream_ids import StreamIds
from gapless.reconcile.context import SourcePolicy
from gapless.reconcile.scheduler import TICK_S, Scheduler
from gapless.runtime import Runtime
from gapless.settings import SecretRef, Settings
from gapless_reconcilers.kit.contract import Secret


def receive_options(settings: Settings) -> ReceiveOptions:
    """The receive road's options."""
    kept = settings.quarantine
    return ReceiveOptions(
        body_limit=settings.public.body_limit,
        min_free=settings.store.min_free,
        quarantine=QuarantineOptions(max_rows=kept.max_rows, max_bytes=kept.max_bytes, per_minute=kept.per_minute),
    )


class Role(StrEnum):
    """What a process does. On SQLite one process has all roles."""

    RECEIVE = "receive"
    RECONCILE = "reconcile"
    DELIVER = "deliver"
    CONSOLE = "console"


ALL_ROLES = frozenset(Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenAddresses:
    """Where a daemon answers. `public` is empty without the role `receive`."""

    private: str
    public: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The clock, and how patient the daemon is with providers."""

    clock: Clock = system_clock
    tick_s: float = TICK_S
    patience: RequestRetryPolicy = PATIENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """What every role of a process shares."""

    settings: Settings
    environ: Mapping[str, str]
    roles: frozenset[Role]
    timing: Timing
    ledger: OpenLedger
    registered: RegisteredRows
    book: Sources
    writer: Writer
    metrics: Metrics
    holder: str
    client: httpx.AsyncClient
    policies: Mapping[str, SourcePolicy]
    """How each source is read, by name."""

    @property
    def receives(self) -> bool:
        """True if this process takes webhooks."""
        return Role.RECEIVE in self.roles


def private_app(core: Core, context: OperationContext, run_token: Secret) -> Litestar:
    """The application of the private listener."""
    private = core.settings.private
    options = ConsoleOptions(
        access=Access(
            bind=private.host,
            run_token=run_token,
            token=partial(_read, private.token),
            metrics_token=partial(_read, private.metrics_token),
        ),
        roles=frozenset(role.value for role in core.roles),
        version=gapless.__version__,
        started_at=core.timing.clock(),
        schema_is_current=schema.is_current,
        budgets={name: policy.budget for name, policy in core.policies.items()},
    )
    return build_console_app(options, context, core.metrics)


def _read(reference: SecretRef | None) -> Secret | None:
    return None if reference is None else reference.read()


log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Process:
    """A process that is ready to run."""

    core: Core
    receiver: Receiver
    private: Listener
    public: Listener | None
    scheduler: Scheduler | None
    dispatcher: Dispatcher | None
    destinations: list[Destination]

    async def run(self, stop: asyncio.Event, started: Callable[[ListenAddresses], None]) -> None:
        """Start everything, wait for `stop`, and end everything in order."""
        writer = self.core.writer
        async with asyncio.TaskGroup() as group:
            group.create_task(writer.run())
            beside = [group.create_task(each) for each in self._upkeep()]
            roads = [group.create_task(each.run()) for each in (self.scheduler, self.dispatcher) if each is not None]
            listening = [group.create_task(each.run()) for each in self._listeners]
            for listener in self._listeners:
                await listener.started()
            self._announce(started)
            await stop.wait()
            log.info("stopping")
            await self._stop_taking(listening)
            await self._stop_roads(roads)
            for task in beside:
                task.cancel()
            self.private.stop()
            await writer.submit(partial(slots.leave_slot, slot=writer.recorder.slot, holder=self.core.holder))
            writer.close()
        await self.core.client.aclose()
        log.info("stopped")

    @property
    def _listeners(self) -> list[Listener]:
        return [each for each in (self.public, self.private) if each is not None]

    def _upkeep(self) -> list[Coroutine[Any, Any, None]]:
        core = self.core
        tasks = [
            maintenance.beat(core.writer, core.holder, receives=core.receives),
            maintenance.watch_secrets(core.settings.sources, core.book, core.environ),
        ]
        if self.public is not None:
            tasks += [
                self.receiver.intake.watch(core.ledger.store, core.settings.store.min_free),
                self.receiver.quarantine.run(),
            ]
        if self.dispatcher is not None:
            ids = [each.id for each in self.destinations]
            tasks += [
                maintenance.prune(core.writer, core.settings.retention, ids, core.timing.clock),
                maintenance.wake_on_notice(core.ledger.store, self.dispatcher.wake),
            ]
        return tasks

    def _announce(self, started: Callable[[ListenAddresses], None]) -> None:
        public = self.public.address if self.public else ""
        log.info("started", extra={"public": public, "private": self.private.address})
        started(ListenAddresses(private=self.private.address, public=public))

    async def _stop_taking(self, listening: list[asyncio.Task[None]]) -> None:
        if self.public is not None:
            self.receiver.intake.pause("shutting down")
            self.public.stop()
            await listening[0]

    async def _stop_roads(self, roads: list[asyncio.Task[None]]) -> None:
        for road in (self.scheduler, self.dispatcher):
            if road is not None:
                road.stop()
        if roads:
            await asyncio.wait(roads)


async def make_process(
    settings: Settings, environ: Mapping[str, str], ledger: OpenLedger, roles: frozenset[Role], timing: Timing
) -> Process:
    """Wire a process with these roles. Nothing runs yet, but rows are made and ports are bound."""
    if ledger.lock is not None and roles != ALL_ROLES:
        raise StoreInvalid("on SQLite one process has all roles; leave --role out, or use a postgresql:// store")
    registered = await register_rows(settings, environ, ledger.store, timing.clock())
    book = Sources(registered.sources)
    destinations = make_destinations(settings, registered, book, timing.clock)
    holder = holder_name()
    metrics = Metrics(gapless.__version__)
    slot = await take_slot(ledger, holder, receives=Role.RECEIVE in roles, now=timing.clock())
    recorder = Recorder(slot, build_route(destinations))
    writer = Writer(
        ledger.store,
        recorder,
        metrics,
        queue_max=settings.public.queue_max,
        queue_max_bytes=settings.public.queue_max_bytes,
    )
    core = Core(
        settings=settings,
        environ=environ,
        roles=roles,
        timing=timing,
        ledger=ledger,
        registered=registered,
        book=book,
        writer=writer,
        metrics=metrics,
        holder=holder,
        client=new_client(),
        policies=make_policies(settings.sources, book, settings.public_url),
    )
    return _process(core, destinations)


def _process(core: Core, destinations: list[Destination]) -> Process:
    receiver = make_receiver(
        sources=core.book,
        writer=core.writer,
        metrics=core.metrics,
        clock=core.timing.clock,
        client=core.client,
        options=receive_options(core.settings),
    )
    token = secrets.token_urlsafe(32)
    dispatcher = _dispatcher(core, destinations) if Role.DELIVER in core.roles else None
    if dispatcher is not None:
        core.writer.recorder.wake = dispatcher.wake
    private = Listener(
        private_app(core, _operations(core), Secret(token)), core.settings.private.host, core.settings.private.port
    )
    if core.ledger.lock is not None:
        core.ledger.lock.tell(LockHolder(pid=os.getpid(), url=private.address, token=token))
    return Process(
        core=core,
        receiver=receiver,
        private=private,
        public=_public(core, receiver) if core.receives else None,
        scheduler=_scheduler(core) if Role.RECONCILE in core.roles else None,
        dispatcher=dispatcher,
        destinations=destinations,
    )


def _public(core: Core, receiver: Receiver) -> Listener:
    public = core.settings.public
    return Listener(build_app(receiver, core.registered.retired), public.host, public.port, **SERVING)


def _dispatcher(core: Core, destinations: list[Destination]) -> Dispatcher:
    return Dispatcher(destinations, core.ledger.store, core.writer, core.metrics, clock=core.timing.clock)


def _operations(core: Core) -> OperationContext:
    return OperationContext(
        store=core.ledger.store,
        writer=core.writer,
        sources=core.book,
        clock=core.timing.clock,
        evidence=EvidenceFetcher(core.client, core.timing.clock, core.metrics),
        stream_ids=StreamIds(core.writer),
        wake=core.writer.recorder.wake,
    )


def _scheduler(core: Core) -> Scheduler:
    road = Runtime(store=core.ledger.store, writer=core.writer, clock=core.timing.clock, metrics=core.metrics)
    timing = core.timing
    return Scheduler(
        road, core.book, core.policies, core.client, holder=core.holder, tick_s=timing.tick_s, patience=timing.patience
    )
