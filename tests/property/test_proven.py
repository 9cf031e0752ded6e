"""What is proven is delivered in the order of occurrence, whatever gets lost, comes late or lags in the list."""

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ledgers import run_sql
from sqlalchemy import select
from sqlalchemy.engine import make_url
from world import T0, Daemon, FakeClock, InProcess, World, new_fake

from gapless.bootstrap.destinations import make_destination
from gapless.deliver.breaker import BreakerRule
from gapless.deliver.dispatcher import Dispatcher
from gapless.deliver.retry import DeliveryRetryPolicy
from gapless.deliver.routing import Destination, build_route
from gapless.destinations.contract import Delivered, Delivery, Failed, FailureReason, Result
from gapless.domain import Order, Release, to_us
from gapless.ledger import destinations, leases, proof
from gapless.ledger.engine import Store, open_store
from gapless.ledger.tables import DELIVERY, EVENT
from gapless.settings import DestinationSettings
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.webhook_sender import Faults

PATIENT = DeliveryRetryPolicy(
    first=timedelta(seconds=1), longest=timedelta(seconds=2), max_attempts=1000, waits=(), max_age=None
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one example does."""

    seed: int
    steps: int
    concurrency: int
    fails: float
    by_object: bool


PLANS = st.builds(
    Plan,
    seed=st.integers(0, 1 << 32),
    steps=st.integers(5, 16),
    concurrency=st.sampled_from([1, 4, 32]),
    fails=st.sampled_from([0.0, 0.3]),
    by_object=st.booleans(),
)


@dataclass(kw_only=True)
class Consumer:
    """Fails at random; notes what it applies, and that each event was proven when it came."""

    world: World
    plan: Plan
    rng: Random
    got: list[Delivery] = field(default_factory=list)
    proven_us: int = 0

    async def send(self, delivery: Delivery) -> Result:
        now_us = await self.world.store.read(proof.complete_up_to_us, source_id=self.world.source_id)
        self.proven_us = max(self.proven_us, now_us or 0)
        assert to_us(delivery.occurred_at) < self.proven_us
        if self.rng.random() < self.plan.fails:
            return Failed(reason=FailureReason.CONSUMER_5XX, detail="HTTP 500")
        self.got.append(delivery)
        return Delivered()

    async def close(self) -> None:
        return


@asynccontextmanager
async def process(world: World, plan: Plan, destination: Destination) -> AsyncIterator[tuple[Daemon, Dispatcher]]:
    route = build_route([destination])
    async with world.daemon(route=route, page_limit=3, lookback=timedelta(minutes=15)) as daemon:
        dispatcher = Dispatcher([destination], daemon.runtime, rng=Random(plan.seed))
        daemon.runtime.writer.recorder.wake = dispatcher.wake
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(dispatcher.run())
            try:
                yield daemon, dispatcher
            finally:
                dispatcher.stop()


async def live(plan: Plan, store: Store) -> None:
    rng, clock = Random(plan.seed), FakeClock()
    fake = new_fake(clock)
    async with httpx.AsyncClient(transport=InProcess(fake=fake)) as client:
        world = World(store=store, clock=clock, fake=fake, client=client)
        await world.open()
        row_id = await store.write(destinations.register_destination, name="app", since=T0)
        consumer = Consumer(world=world, plan=plan, rng=rng)
        destination = replace(
            make_destination(DestinationSettings(name="app"), row_id, 0, consumer),
            retry=PATIENT,
            breaker=BreakerRule(threshold=10_000),
            concurrency=plan.concurrency,
            order=Order.OBJECT if plan.by_object else Order.NONE,
            release=Release.PROVEN,
        )
        unsent: list[FakeEvent] = []
        for half in range(2):  # the second half is another process
            async with process(world, plan, destination) as (daemon, dispatcher):
                for _ in range(plan.steps):
                    await step(rng, world, daemon, dispatcher, unsent)
                if half:
                    await come_to_rest(world, daemon, dispatcher)
            await store.write(leases.clear)
        await check(plan, store, consumer)


async def step(rng: Random, world: World, daemon: Daemon, dispatcher: Dispatcher, unsent: list[FakeEvent]) -> None:
    """Let something happen: events, of which some get lost or lag; webhooks in any order; time; a reading."""
    lag_s = rng.choice([0, 0, 5, 50, 300, 400])
    world.fake.faults = Faults(late_visible=1.0 if lag_s else 0.0, late_visible_s=lag_s)
    for _ in range(rng.randint(0, 4)):
        event = world.fake.emit("invoice.paid")
        unsent += [event] * (rng.random() < 0.7)
        world.clock.advance(seconds=rng.choice([0, 0.3, 2]))
    world.fake.faults = Faults()
    arriving = [event for event in unsent if rng.random() < 0.5]
    rng.shuffle(arriving)
    if arriving:
        await daemon.push(*arriving)
        unsent[:] = [event for event in unsent if event not in arriving]
    world.clock.advance(seconds=rng.choice([0.2, 7, 61, 400]))
    if rng.random() < 0.6:
        await daemon.run_source()
    dispatcher.wake()
    for _ in range(rng.choice([0, 3, 20])):
        await asyncio.sleep(0)


async def come_to_rest(world: World, daemon: Daemon, dispatcher: Dispatcher) -> None:
    """With nothing more happening, everything is proven and delivered."""
    query = select(DELIVERY.c.state).where(DELIVERY.c.state != "delivered")
    for _ in range(40):
        world.clock.advance(seconds=61)
        await daemon.run_source()
        dispatcher.wake()
        await asyncio.sleep(0.005)
        if await world.store.read(lambda c: c.execute(query).first()) is None:
            return
    async with asyncio.timeout(60):
        while await world.store.read(lambda c: c.execute(query).first()) is not None:
            world.clock.advance(seconds=2)
            dispatcher.wake()
            await asyncio.sleep(0.005)


async def check(plan: Plan, store: Store, consumer: Consumer) -> None:
    """Everything was delivered, in the order of occurrence save what says that it is late."""
    events = select(EVENT.c.key, EVENT.c.seq, EVENT.c.object_key).join(DELIVERY, DELIVERY.c.event_seq == EVENT.c.seq)
    rows = {row.key: row for row in await store.read(lambda c: list(c.execute(events)))}
    assert {each.key for each in consumer.got} == rows.keys()
    lines: dict[Any, list[tuple[Any, int]]] = {}
    for each in consumer.got:
        if each.late is None:
            line = each.object_key if plan.by_object else "all"
            lines.setdefault(line, []).append((each.occurred_at, rows[each.key].seq))
    for line, order in lines.items():
        if line is not None:
            assert order == sorted(order)


def examples(number: int) -> Any:
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=number, deadline=None, suppress_health_check=checks, phases=[Phase.generate])


def test_proven_events_are_never_out_of_order_on_sqlite(sqlite_template: Path) -> None:
    @examples(4)
    @given(plan=PLANS)
    def run(plan: Plan) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(shutil.copy(sqlite_template, Path(folder) / "ledger.db"))
            asyncio.run(_run(plan, f"sqlite:///{path}"))

    run()


def test_proven_events_are_never_out_of_order_on_postgresql(postgres_server: str, postgres_template: str) -> None:
    @examples(2)
    @given(plan=PLANS)
    def run(plan: Plan) -> None:
        name = f"gapless_proven_{secrets.token_hex(6)}"
        asyncio.run(run_sql(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}"))
        try:
            url = make_url(postgres_server).set(drivername="postgresql", database=name)
            asyncio.run(_run(plan, url.render_as_string(hide_password=False)))
        finally:
            asyncio.run(run_sql(postgres_server, f"DROP DATABASE {name} WITH (FORCE)"))

    run()


async def _run(plan: Plan, url: str) -> None:
    store = open_store(url)
    try:
        await live(plan, store)
    finally:
        await store.close()
