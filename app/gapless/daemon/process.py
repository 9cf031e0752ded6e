"""One process: its parts, wired, and the order in which they start and stop."""

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gapless
from gapless.daemon import assembly, upkeep
from gapless.daemon.core import ALL_ROLES, Core, Role, Running, Timing
from gapless.daemon.listeners import Listener
from gapless.daemon.opening import Ledger, register, take_slot
from gapless.daemon.private import private_app
from gapless.daemon.wiring import holder_name, make_destinations, make_policies
from gapless.deliver.destination import Destination
from gapless.deliver.dispatcher import Dispatcher
from gapless.deliver.routing import build_route
from gapless.domain import Sources
from gapless.ledger import leases
from gapless.ledger.engine import StoreInvalid
from gapless.ledger.lock import Holder
from gapless.ledger.recorder import Recorder
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics
from gapless.operations.context import OperationContext
from gapless.receive.endpoint import Receiver
from gapless.receive.evidence import Evidence
from gapless.receive.server import SERVING, build_app, make_receiver
from gapless.receive.streams import Streams
from gapless.reconcile.fetch import new_client
from gapless.reconcile.road import Road
from gapless.reconcile.schedule import Scheduler
from gapless.settings import Settings
from gapless_reconcilers.kit.contract import Secret

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

    async def run(self, stop: asyncio.Event, started: Callable[[Running], None]) -> None:
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
            await writer.submit(partial(leases.leave_slot, slot=writer.recorder.slot, holder=self.core.holder))
            writer.close()
        await self.core.client.aclose()
        log.info("stopped")

    @property
    def _listeners(self) -> list[Listener]:
        return [each for each in (self.public, self.private) if each is not None]

    def _upkeep(self) -> list[Coroutine[Any, Any, None]]:
        core = self.core
        tasks = [
            upkeep.beat(core.writer, core.holder, receives=core.receives),
            upkeep.watch_secrets(core.settings.sources, core.book, core.environ),
        ]
        if self.public is not None:
            tasks += [
                self.receiver.intake.watch(core.ledger.store, core.settings.store.min_free),
                self.receiver.quarantine.run(),
            ]
        if self.dispatcher is not None:
            ids = [each.id for each in self.destinations]
            tasks += [
                upkeep.prune(core.writer, core.settings.retention, ids, core.timing.clock),
                upkeep.wake_on_notice(core.ledger.store, self.dispatcher.wake),
            ]
        return tasks

    def _announce(self, started: Callable[[Running], None]) -> None:
        public = self.public.address if self.public else ""
        log.info("started", extra={"public": public, "private": self.private.address})
        started(Running(private=self.private.address, public=public))

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
    settings: Settings, environ: Mapping[str, str], ledger: Ledger, roles: frozenset[Role], timing: Timing
) -> Process:
    """Wire a process with these roles. Nothing runs yet, but rows are made and ports are bound."""
    if ledger.lock is not None and roles != ALL_ROLES:
        raise StoreInvalid("on SQLite one process has all roles; leave --role out, or use a postgresql:// store")
    registered = await register(settings, environ, ledger.store, timing.clock())
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
        options=assembly.receive_options(core.settings),
    )
    token = secrets.token_urlsafe(32)
    dispatcher = _dispatcher(core, destinations) if Role.DELIVER in core.roles else None
    if dispatcher is not None:
        core.writer.recorder.wake = dispatcher.wake
    private = Listener(
        private_app(core, _operations(core), Secret(token)), core.settings.private.host, core.settings.private.port
    )
    if core.ledger.lock is not None:
        core.ledger.lock.tell(Holder(pid=os.getpid(), url=private.address, token=token))
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
        evidence=Evidence(core.client, core.timing.clock, core.metrics),
        stream_ids=Streams(core.writer),
        wake=core.writer.recorder.wake,
    )


def _scheduler(core: Core) -> Scheduler:
    road = Road(store=core.ledger.store, writer=core.writer, clock=core.timing.clock, metrics=core.metrics)
    timing = core.timing
    return Scheduler(
        road, core.book, core.policies, core.client, holder=core.holder, tick_s=timing.tick_s, patience=timing.patience
    )
