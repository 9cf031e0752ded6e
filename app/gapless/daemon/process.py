"""One daemon process: its roles, its parts, and the order in which they start and stop."""

import asyncio
import logging
import os
import resource
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

import gapless
from gapless.bootstrap.runtime import ProcessParts
from gapless.bootstrap.tls import Certificates, tls_files
from gapless.client_address import TrustedProxies
from gapless.connections.limits import OWN_DESCRIPTORS, ConnectionLimits, share_descriptors
from gapless.connections.register import Connections
from gapless.console.app import build_console_app
from gapless.console.auth import Access
from gapless.console.feed.hub import Hub
from gapless.console.feed.limits import FeedLimits
from gapless.console.oidc import options_of
from gapless.console.routing import ConsoleOptions
from gapless.daemon import maintenance
from gapless.daemon.keys import watch_keys
from gapless.daemon.listeners import Listener
from gapless.deliver.dispatcher import Dispatcher
from gapless.deliver.hydration import hydrating
from gapless.domain import Clock
from gapless.ledger import schema
from gapless.ledger.engine import SqliteStore, StoreInvalid
from gapless.ledger.engine.lock import LockHolder, identity
from gapless.operations.context import OperationContext
from gapless.operations.jobs import JobRunner
from gapless.provider_api.client import DEFAULT_RETRY, RequestRetryPolicy
from gapless.receive.endpoint import ReceiveOptions, Receiver, make_receiver
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.quarantine import QuarantineOptions
from gapless.receive.server import build_app
from gapless.receive.stream_ids import StreamIds
from gapless.reconcile.scheduler import TICK_S, Scheduler
from gapless.settings import (
    OidcSettings,
    PrivateSettings,
    PublicSettings,
    SecretRef,
    SecretUnavailable,
    Settings,
    weakness_of,
)
from gapless_reconcilers.kit.contract import Secret

if TYPE_CHECKING:
    from gapless.console.identity_provider import IdentityProvider

log = logging.getLogger(__name__)
RECEIVING, WORKING, ANSWERING = 0.2, 0.4, 0.1
"""Shares of `stop_within`, in the order of a stop: webhooks under way, then pages and attempts, then the console.

The rest is for the commits, the leases and the connections. What takes longer is cut: it is done again later."""
LOOPBACK = "127.0.0.1"
STREAM_SHARE = 0.75
"""Most of the private listener's connections that listeners of the live stream may have, whatever is configured."""
SLACK = 0.05
"""Share of `stop_within` that a part may take to end beyond its own limit."""


class Role(StrEnum):
    """A part of the work of a daemon. On SQLite one process has all roles."""

    RECEIVE = "receive"
    RECONCILE = "reconcile"
    DELIVER = "deliver"
    CONSOLE = "console"


ALL_ROLES = frozenset(Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenAddresses:
    """The addresses of the listeners. `public` is empty without the role `receive`."""

    private: str
    public: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The clock, the tick of the scheduler, and the retries of requests to providers."""

    clock: Clock | None = None
    """None: the ledger's clock."""
    tick_s: float = TICK_S
    patience: RequestRetryPolicy = DEFAULT_RETRY


@dataclass(slots=True, kw_only=True)
class Process:
    """A process that is ready to run."""

    settings: Settings
    environ: Mapping[str, str]
    roles: frozenset[Role]
    parts: ProcessParts
    receiver: Receiver
    private: Listener
    commands: Listener | None
    """For commands on this machine, where the private listener has TLS. Only the token of this process opens it."""
    public: Listener | None
    scheduler: Scheduler | None
    dispatcher: Dispatcher | None

    async def run(self, stop: asyncio.Event, started: Callable[[ListenAddresses], None]) -> None:
        """Start everything, wait for `stop`, and stop everything in order; the runtime stops the writer."""
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(each) for each in self._maintenance()]
            workers = [group.create_task(each.run()) for each in self._workers]
            listeners = [group.create_task(each.run()) for each in self._listeners]
            for listener in self._listeners:
                await listener.started()
            self._announce(started)
            await stop.wait()
            log.info("stopping")
            await self._stop_receiving(listeners)
            await self._stop_workers(workers)
            for task in background:
                task.cancel()
            for listener in self._listeners:
                listener.stop()
            await self._end(listeners, ANSWERING)
        log.info("stopped")

    @property
    def _listeners(self) -> list[Listener]:
        return [each for each in (self.public, self.private, self.commands) if each is not None]

    @property
    def _workers(self) -> list[Scheduler | Dispatcher]:
        return [each for each in (self.scheduler, self.dispatcher) if each is not None]

    def _maintenance(self) -> list[Coroutine[Any, Any, None]]:
        runtime, settings = self.parts.runtime, self.settings
        tasks = [
            maintenance.watch_clock(runtime),
            maintenance.beat(
                runtime, self.parts.holder, receives=Role.RECEIVE in self.roles, standing=self.parts.rows.standing
            ),
            watch_keys(runtime, settings, self.receiver.admission),
            maintenance.watch_secrets(settings.sources, runtime.sources, self.environ),
            maintenance.watch_certificates([each.certificates for each in self._listeners if each.certificates]),
        ]
        if self.public is not None:
            tasks += [
                self.receiver.admission.watch(runtime.store, settings.store.min_free),
                self.receiver.quarantine.run(),
                self.receiver.turned_away.run(),
            ]
        if self.dispatcher is not None:
            ids = [each.id for each in self.parts.destinations]
            tasks += [
                maintenance.prune(runtime, settings.retention, ids, settings.quarantine.max_age),
                maintenance.wake_on_notice(runtime.store, self.dispatcher.wake),
                JobRunner(runtime, self.dispatcher.wake).run(),
            ]
        return tasks

    def _announce(self, started: Callable[[ListenAddresses], None]) -> None:
        public = self.public.address if self.public else ""
        log.info("started", extra={"public": public, "private": self.private.address})
        started(ListenAddresses(private=self.private.address, public=public))

    async def _stop_receiving(self, listeners: list[asyncio.Task[None]]) -> None:
        if self.public is not None:
            self.receiver.admission.pause("shutting down")
            self.public.stop()
            await self._end(listeners[:1], RECEIVING)

    async def _stop_workers(self, workers: list[asyncio.Task[None]]) -> None:
        for each in self._workers:
            each.stop()
        await self._end(workers, WORKING)

    async def _end(self, tasks: list[asyncio.Task[None]], share: float) -> None:
        """Wait for tasks that were told to stop, a little longer than their own limit, then cancel them."""
        if not tasks:
            return
        within_s = self.settings.stop_within.total_seconds()
        _, late = await asyncio.wait(tasks, timeout=(share + SLACK) * within_s)
        for task in late:
            log.warning("stop_cut", extra={"part": str(task.get_coro())})
            task.cancel()


def connection_limits(settings: Settings, descriptors: int | None) -> tuple[ConnectionLimits, ConnectionLimits]:
    """Return the limits of the public and of the private listener, for a process that may open so many descriptors.

    `descriptors` None: as many as it likes.
    """
    wanted = settings.connections
    own = OWN_DESCRIPTORS + settings.store.connections + sum(each.concurrency for each in settings.destinations)
    public, private = share_descriptors(descriptors, own=own, public=wanted.public, private=wanted.private)
    limits = ConnectionLimits(
        most=public,
        per_address=wanted.per_address,
        head_bytes=wanted.head_limit,
        head_within_s=wanted.head_within.total_seconds(),
        body_starts_within_s=wanted.body_starts_within.total_seconds(),
        body_within_s=wanted.body_within.total_seconds(),
        idle_within_s=wanted.idle_within.total_seconds(),
        trusted=trusted_proxies(settings),
    )
    return limits, replace(limits, most=private)


def _descriptors() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def receive_options(settings: Settings) -> ReceiveOptions:
    """Return the options of the receiver, from the settings."""
    quarantine = settings.quarantine
    return ReceiveOptions(
        answer_within=settings.public.answer_within,
        body_limit=settings.public.body_limit,
        allow_from={each.name: each.allow_from for each in settings.sources if each.allow_from is not None},
        trusted_proxies=trusted_proxies(settings),
        body_within=settings.connections.body_within,
        body_limits={each.name: each.body_limit for each in settings.sources if each.body_limit is not None},
        quarantine=QuarantineOptions(
            max_rows=quarantine.max_rows, max_bytes=quarantine.max_bytes, per_minute=quarantine.per_minute
        ),
    )


def trusted_proxies(settings: Settings) -> TrustedProxies | None:
    """Return the proxies that both listeners trust; None: there are none."""
    wanted = settings.connections
    if not wanted.proxies:
        return None
    return TrustedProxies(networks=wanted.proxies, header=wanted.proxy_header.lower())


def make_process(
    settings: Settings, environ: Mapping[str, str], parts: ProcessParts, roles: frozenset[Role], timing: Timing
) -> Process:
    """Return a process with these roles. Nothing runs yet, but ports are bound. Raises `StoreInvalid`, `OSError`."""
    if parts.lock is not None and roles != ALL_ROLES:
        raise StoreInvalid("on SQLite one process has all roles; leave --role out, or use a postgresql:// store")
    runtime = parts.runtime
    descriptors = _descriptors()
    public_limits, private_limits = connection_limits(settings, descriptors)
    allowed = {"descriptors": descriptors, "public": public_limits.most, "private": private_limits.most}
    log.info("connections_allowed", extra=allowed)
    receiver = make_receiver(runtime, client=parts.client, options=receive_options(settings))
    receiver.admission.note_keys(runtime.keyring.state.blocked)
    grace = WORKING * settings.stop_within
    private, commands = _private(settings, parts, roles, private_limits)
    scheduler = _scheduler(parts, timing, grace)  # its clients also fetch the data of thin events
    destinations = hydrating(parts.destinations, runtime.sources, scheduler.client)
    dispatcher = Dispatcher(destinations, runtime, grace=grace) if Role.DELIVER in roles else None
    if dispatcher is not None:
        runtime.writer.recorder.wake = dispatcher.wake
    return Process(
        settings=settings,
        environ=environ,
        roles=roles,
        parts=parts,
        receiver=receiver,
        private=private,
        commands=commands,
        public=_public(settings, parts, receiver, public_limits) if Role.RECEIVE in roles else None,
        scheduler=scheduler if Role.RECONCILE in roles else None,
        dispatcher=dispatcher,
    )


def _private(
    settings: Settings, parts: ProcessParts, roles: frozenset[Role], limits: ConnectionLimits
) -> tuple[Listener, Listener | None]:
    """Return the private listener, and one for commands if that has TLS.

    Its address is written beside the ledger so that commands find it.
    """
    private, token = settings.private, secrets.token_urlsafe(32)
    options = ConsoleOptions(
        access=Access(
            bind=private.host,
            run_token=Secret(token),
            token=partial(_read_secret, private.token),
            metrics_token=partial(_read_secret, private.metrics_token),
            consumer_token=partial(_read_secret, private.consumer_token),
        ),
        roles=frozenset(role.value for role in roles),
        version=gapless.__version__,
        started_at=parts.runtime.clock(),
        schema_is_current=schema.is_current,
        trusted_proxies=trusted_proxies(settings),
        identity_provider=_identity_provider(settings.oidc),
        hub=Hub(parts.runtime, FeedLimits(clients=min(private.stream_clients, int(limits.most * STREAM_SHARE)))),
    )
    store = parts.runtime.store
    certificates = _certificates("private", private)
    listener = _console(settings, parts, options, (private.host, private.port), limits, certificates)
    commands = None
    if parts.lock is not None and isinstance(store, SqliteStore):
        if certificates is not None:
            only = replace(options.access, bind=LOOPBACK, owner_only=True)
            commands = _console(
                settings, parts, replace(options, access=only, identity_provider=None), (LOOPBACK, 0), limits
            )
        url = (commands or listener).address
        parts.lock.write_holder(LockHolder(pid=os.getpid(), url=url, token=token, file=identity(store.path)))
    return listener, commands


def _console(
    settings: Settings,
    parts: ProcessParts,
    options: ConsoleOptions,
    bind: tuple[str, int],
    limits: ConnectionLimits,
    certificates: Certificates | None = None,
) -> Listener:
    runtime = parts.runtime
    context = OperationContext(
        runtime=runtime,
        evidence=EvidenceFetcher(parts.client, runtime.clock, runtime.metrics),
        stream_ids=StreamIds(runtime.writer),
        destinations=parts.destinations,
        wake=runtime.writer.recorder.wake,
        second_person_above=settings.private.second_person_above,
    )
    app = build_console_app(options, context, runtime.metrics)
    drain_s = ANSWERING * settings.stop_within.total_seconds()
    connections = Connections("private", runtime.metrics, limits)
    return Listener(app, *bind, connections, certificates=certificates, drain_s=drain_s, websockets=True)


def _identity_provider(settings: OidcSettings) -> "IdentityProvider | None":
    if (options := options_of(settings)) is None:
        return None
    from gapless.console.identity_provider import IdentityProvider  # noqa: PLC0415 - it needs the extra oidc

    return IdentityProvider(options)


def _certificates(listener: str, settings: PublicSettings | PrivateSettings) -> Certificates | None:
    """Return the certificates of a listener; None: it has no TLS. Raises `TlsInvalid`."""
    return Certificates.of(tls_files(listener, settings))


def _read_secret(reference: SecretRef | None) -> Secret | None:
    """Return the token now. Raises `SecretUnavailable`, also if its file has one that could be guessed by now."""
    if reference is None:
        return None
    token = reference.read()
    if (weakness := weakness_of(token)) is not None:
        raise SecretUnavailable(f"the token {weakness}")
    return token


def _public(settings: Settings, parts: ProcessParts, receiver: Receiver, limits: ConnectionLimits) -> Listener:
    public = settings.public
    drain_s = RECEIVING * settings.stop_within.total_seconds()
    connections = Connections("public", parts.runtime.metrics, limits)
    app, certificates = build_app(receiver, parts.rows.retired), _certificates("public", public)
    return Listener(app, public.host, public.port, connections, certificates=certificates, drain_s=drain_s)


def _scheduler(parts: ProcessParts, timing: Timing, stop_within: timedelta) -> Scheduler:
    return Scheduler(
        parts.runtime,
        parts.policies,
        parts.client,
        holder=parts.holder,
        tick_s=timing.tick_s,
        retry=timing.patience,
        stop_within=stop_within,
    )
