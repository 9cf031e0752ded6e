"""Everything around the daemon, with a proxy on each of its four ways, and what each kind of fault does to it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Protocol

import httpx
from ledgers import upgrade
from outside import WEBHOOK_SECRET, Consumer, Gapless
from shims import can_compile, compile_shim
from sqlalchemy.engine import make_url

from gapless_reconcilers.testing.fake import utc_now
from gapless_reconcilers.testing.fake.webhook_sender import Faults
from storm.evidence import Emitted, Evidence
from storm.faults import CLOCK_JUMPS_S, OF_POSTGRES, Fault, Kind, Step
from storm.postgres import OwnPostgres, own_postgres
from storm.proxy import EVENT_KEY, Proxy, to_port, to_socket
from storm.supervisor import ShiftedClock, Supervisor
from storm.vendor import ODD_FOR, LyingVendor, oddity
from storm.watcher import Watcher, read_rows, read_totals

SQLITE, POSTGRESQL = "sqlite", "postgresql"
TYPES = ("invoice.paid", "charge.succeeded", "payout.paid", "charge.refunded")
RETRIES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
BURST = 60
CONSUMER_FAILS = 0.05
FAIR_WEATHER = Faults()
POOR_WEATHER = Faults(drop=0.1, duplicate=0.05, reorder=0.05, late_visible=0.05, late_visible_s=3.0, error_rate=0.01)
"""The vendor all through the storm, whatever else happens."""


@dataclass
class StormConsumer(Consumer):
    """A consumer that notes when it first accepted each event, and can be down."""

    chance: Random = field(default_factory=Random)
    failure_rate: float = CONSUMER_FAILS
    accepted_at: dict[str, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.answers = self._answer

    def key_of(self, body: bytes) -> str:
        """Return the id of the event, whatever else is odd about it."""
        found = EVENT_KEY.search(body)
        assert found is not None
        return found[1].decode()

    def _answer(self, key: str) -> int:
        if self.chance.random() < self.failure_rate:
            return 503
        self.accepted_at.setdefault(key, utc_now())
        return 200


@dataclass(slots=True, kw_only=True)
class World:
    """One store's storm: the parts, and the faults that happened so far."""

    store: str
    chance: Random
    vendor: LyingVendor
    consumer: StormConsumer
    to_list: Proxy
    to_daemon: Proxy
    to_consumer: Proxy
    to_store: Proxy | None
    postgres: OwnPostgres | None
    clock: ShiftedClock
    supervisor: Supervisor
    watcher: Watcher
    ledger_url: str
    began: datetime
    faults: list[Fault] = field(default_factory=list)
    under_way: Counter[Kind] = field(default_factory=Counter)

    @property
    def kinds(self) -> frozenset[Kind]:
        """Return the faults that are possible here."""
        impossible = set[Kind]() if self.postgres else set(OF_POSTGRES)
        if self.clock.library is None:
            impossible.add(Kind.CLOCK)
        return frozenset(Kind) - impossible

    async def kill(self, *, alone: bool = False) -> None:
        """Kill the daemon; the fault ends when the next process is started."""
        began = utc_now()
        await self.supervisor.kill()
        self._note(Kind.KILL, began, "", alone=alone)

    async def happen(self, step: Step, *, alone: bool = False) -> None:
        """Let a fault begin after its time, last, and end."""
        await asyncio.sleep(step.after_s)
        if step.kind is Kind.KILL:
            await self.kill(alone=alone)
            return
        began = utc_now()
        self.under_way[step.kind] += 1
        try:
            async with EFFECTS[step.kind](self, step):
                await asyncio.sleep(0.0 if step.kind in AT_ONCE else step.lasts_s)
        finally:
            self.under_way[step.kind] -= 1
        self._note(step.kind, began, f"{step.lasts_s:.1f} s", alone=alone)

    def _note(self, kind: Kind, began: datetime, detail: str, *, alone: bool) -> None:
        self.faults.append(Fault(kind=kind, began=began, ended=utc_now(), detail=detail, alone=alone))

    def emit(self, count: int = 1) -> None:
        """Let events occur now; their webhooks are sent as the weather is."""
        for _ in range(count):
            self.vendor.emit(self.chance.choice(TYPES))

    async def trade(self) -> None:
        """Let events occur at random times, until cancelled."""
        while True:
            self.emit(self.chance.choice((1, 1, 1, 2, 3)))
            await asyncio.sleep(self.chance.uniform(0.2, 0.8))

    async def gather_evidence(self, calm: timedelta) -> Evidence:
        """Return what the storm left behind."""
        await self.watcher.sample()
        status = await self.watcher.status()
        pushes = [push for push in self.vendor.pushes if push.genuine]
        answered = [push for push in pushes if push.status is not None and push.status // 100 == 2]
        first_acknowledged: dict[str, datetime] = {}
        for push in answered:
            first_acknowledged.setdefault(push.event.key, push.at)
        posts = Counter(push.event.key for push in pushes if push.attempt) + self.to_daemon.repeated
        return Evidence(
            store=self.store,
            began=self.began,
            ended=utc_now(),
            events=[
                Emitted(key=event.key, occurred_at=event.occurred_at, visible_at=event.visible_at)
                for event in self.vendor.events
            ],
            ledger=await read_rows(self.ledger_url),
            recorded_at=self.watcher.recorded_at,
            acknowledged=Counter(push.event.key for push in answered),
            first_acknowledged_at=first_acknowledged,
            posts=posts,
            never_posted=frozenset({event.key for event in self.vendor.events} - posts.keys()),
            first_shown_at=self.vendor.first_shown,
            lies=self.vendor.told,
            attempts=self.consumer.got,
            accepted_at=self.consumer.accepted_at,
            totals=None if status is None else read_totals(status),
            samples=self.watcher.samples,
            faults=[*self.faults, *self._odd_rows()],
            calm=calm,
            ended_by_itself=self.supervisor.ended_by_itself,
        )

    def _odd_rows(self) -> list[Fault]:
        """Return the rows that could not be read for a while, each as a fault."""
        odd = [event for event in self.vendor.events if self.vendor.is_unreadable(event)]
        return [
            Fault(
                kind=Kind.ODD_ROW,
                began=event.visible_at,
                ended=event.visible_at + ODD_FOR,
                detail=str(oddity(event.number)),
            )
            for event in odd
        ]


# --- what each kind of fault does

Effect = Callable[[World, Step], AbstractAsyncContextManager[None]]
AT_ONCE = frozenset(
    {Kind.RESTART, Kind.STORE_CUT, Kind.LIST_CUT, Kind.WEBHOOKS_CUT, Kind.CONSUMER_CUT, Kind.WEBHOOKS_BURST}
)
"""Faults that last only as long as they take."""


@asynccontextmanager
async def _clock(world: World, step: Step) -> AsyncIterator[None]:
    world.clock.set(CLOCK_JUMPS_S[step.turn % len(CLOCK_JUMPS_S)])
    try:
        yield
    finally:
        world.clock.set(0)


@asynccontextmanager
async def _restart(world: World, _step: Step) -> AsyncIterator[None]:
    assert world.postgres is not None
    await world.postgres.restart()
    yield


@asynccontextmanager
async def _read_only(world: World, _step: Step) -> AsyncIterator[None]:
    assert world.postgres is not None
    await world.postgres.set_read_only(on=True)
    try:
        yield
    finally:
        await world.postgres.set_read_only(on=False)


def _silent(way: Callable[[World], Proxy]) -> Effect:
    """Return a fault: open connections are half-open for good, new ones until it ends."""

    @asynccontextmanager
    async def effect(world: World, _step: Step) -> AsyncIterator[None]:
        proxy = way(world)
        proxy.fall_silent()
        proxy.swallows = True
        try:
            yield
        finally:
            proxy.swallows = False

    return effect


def _cut(way: Callable[[World], Proxy]) -> Effect:
    @asynccontextmanager
    async def effect(world: World, _step: Step) -> AsyncIterator[None]:
        way(world).cut()
        yield

    return effect


def _repeated(way: Callable[[World], Proxy]) -> Effect:
    @asynccontextmanager
    async def effect(world: World, _step: Step) -> AsyncIterator[None]:
        way(world).begin_capture()
        try:
            yield
        finally:
            await way(world).repeat()

    return effect


class Switch(Protocol):
    """Switches a fault on or off."""

    def __call__(self, world: World, *, on: bool) -> None: ...


def _while(set_to: Switch) -> Effect:
    """Return a fault that is switched on and off again."""

    @asynccontextmanager
    async def effect(world: World, _step: Step) -> AsyncIterator[None]:
        set_to(world, on=True)
        try:
            yield
        finally:
            set_to(world, on=False)

    return effect


def _of_proxy(way: Callable[[World], Proxy], name: str, value: float) -> Effect:
    return _while(lambda world, *, on: setattr(way(world), name, value if on else 0.0))


def _of_lies(name: str, value: float) -> Effect:
    return _while(lambda world, *, on: setattr(world.vendor.lies, name, value if on else 0.0))


def _of_vendor(**faults: object) -> Effect:
    """Return a fault of the vendor: each field has its value of poor weather again when it ends."""

    def switch(world: World, on: bool) -> None:
        for name, value in faults.items():
            setattr(world.vendor.faults, name, value if on else getattr(POOR_WEATHER, name))

    return _while(switch)


@asynccontextmanager
async def _burst(world: World, _step: Step) -> AsyncIterator[None]:
    world.emit(BURST)
    yield


def _consumer_down(world: World, on: bool) -> None:
    world.consumer.failure_rate = 1.0 if on else CONSUMER_FAILS


def _to_store(world: World) -> Proxy:
    assert world.to_store is not None
    return world.to_store


def _to_list(world: World) -> Proxy:
    return world.to_list


def _to_daemon(world: World) -> Proxy:
    return world.to_daemon


def _to_consumer(world: World) -> Proxy:
    return world.to_consumer


EFFECTS: Mapping[Kind, Effect] = {
    Kind.CLOCK: _clock,
    Kind.RESTART: _restart,
    Kind.READ_ONLY: _read_only,
    Kind.STORE_SILENT: _silent(_to_store),
    Kind.STORE_CUT: _cut(_to_store),
    Kind.STORE_SLOW: _of_proxy(_to_store, "delay_s", 0.05),
    Kind.LIST_SILENT: _silent(_to_list),
    Kind.LIST_CUT: _cut(_to_list),
    Kind.LIST_DRIP: _of_proxy(_to_list, "drip_s", 0.5),
    Kind.LIST_LACKS: _of_lies("lacks", 0.1),
    Kind.LIST_EMPTY: _of_lies("empty", 0.3),
    Kind.LIST_TRUNCATED: _of_lies("truncated", 0.15),
    Kind.LIST_REST_OF_SECOND: _of_lies("rest_of_second", 1),
    Kind.LIST_ERRORS: _of_vendor(error_rate=0.5),
    Kind.LIST_THROTTLED: _of_vendor(throttle_every=2, retry_after="1"),
    Kind.WEBHOOKS_LOST: _of_vendor(drop=1.0),
    Kind.WEBHOOKS_UNRULY: _of_vendor(duplicate=0.5, delay_s=0.3, reorder=0.5, bad_signature=0.1),
    Kind.WEBHOOKS_BURST: _burst,
    Kind.WEBHOOKS_SILENT: _silent(_to_daemon),
    Kind.WEBHOOKS_CUT: _cut(_to_daemon),
    Kind.WEBHOOKS_REPEATED: _repeated(_to_daemon),
    Kind.CONSUMER_DOWN: _while(_consumer_down),
    Kind.CONSUMER_SILENT: _silent(_to_consumer),
    Kind.CONSUMER_CUT: _cut(_to_consumer),
    Kind.CONSUMER_REPEATED: _repeated(_to_consumer),
}


# --- opening it


@asynccontextmanager
async def open_world(store: str, seed: int, folder: Path, kinds: Collection[Kind]) -> AsyncIterator[World]:
    """Start everything and yield it when the daemon is ready, in poor weather, without trade.

    `kinds`: the faults that are wanted; without odd rows and wrong clocks, nothing is prepared for them.
    """
    began = utc_now().replace(microsecond=0)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        vendor = LyingVendor(has_oddities=Kind.ODD_ROW in kinds, seed=seed, retries_s=RETRIES_S)
        consumer = StormConsumer(chance=Random(f"consumer {seed}"))
        await enter(consumer.serve())
        to_consumer = await enter(Proxy(to_port(consumer.port)).serve())
        api = await enter(vendor.serve())
        to_list = await enter(Proxy(to_port(make_url(api).port or 0)).serve())
        postgres = await enter(own_postgres()) if store == POSTGRESQL else None
        to_store = await enter(Proxy(to_socket(postgres.socket)).serve()) if postgres else None
        ledger_url = postgres.url() if postgres else f"sqlite:///{folder / 'ledger.db'}"
        if postgres is None:
            await upgrade(ledger_url)
        can_shift = Kind.CLOCK in kinds and can_compile()
        clock = ShiftedClock(folder / "clock", compile_shim("wrong_clock", folder) if can_shift else None)
        daemon = Gapless(
            folder,
            postgres.url_by_port(to_store.port) if postgres and to_store else ledger_url,
            f"http://127.0.0.1:{to_list.port}",
            replace(consumer, port=to_consumer.port),
            source=f'start = {began:%Y-%m-%dT%H:%M:%SZ}\ntypes = ["*"]',
            options="page_limit = 25",
            environment={**_settings(), **clock.environment},
        )
        to_daemon = await enter(Proxy(to_port(daemon.public_port)).serve())
        vendor.add_endpoint(f"http://127.0.0.1:{to_daemon.port}/webhooks/stripe-live", secret=WEBHOOK_SECRET)
        client = await enter(httpx.AsyncClient(trust_env=False, timeout=2.0))
        supervisor = await enter(Supervisor(daemon, client).running())
        watcher = Watcher(status_url=f"{daemon.private}/api/status", ledger_url=ledger_url, clock=clock, client=client)
        world = World(
            store=store,
            chance=Random(f"world {seed}"),
            vendor=vendor,
            consumer=consumer,
            to_list=to_list,
            to_daemon=to_daemon,
            to_consumer=to_consumer,
            to_store=to_store,
            postgres=postgres,
            clock=clock,
            supervisor=supervisor,
            watcher=watcher,
            ledger_url=ledger_url,
            began=began,
        )
        if not await supervisor.until_ready(60):
            raise RuntimeError(f"the daemon did not get ready; its log is {daemon.log}")
        vendor.faults = replace(POOR_WEATHER)
        yield world


def _settings() -> dict[str, str]:
    """Return the settings of the storm that differ from those of the acceptance tests."""
    return {"GAPLESS_SOURCE__STRIPE_LIVE__LOOKBACK": "2m", "GAPLESS_SOURCE__STRIPE_LIVE__SWEEP": "4m"}
