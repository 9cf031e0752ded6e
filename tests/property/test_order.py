"""A consumer never gets two events of an object out of the ledger's order, whatever fails and whoever delivers."""

import asyncio
import secrets
import shutil
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledgers import run_sql
from sqlalchemy import select
from sqlalchemy.engine import make_url

from gapless.bootstrap.destinations import make_destination
from gapless.bootstrap.runtime import make_writer
from gapless.deliver.breaker import BreakerRule
from gapless.deliver.dispatcher import Dispatcher
from gapless.deliver.retry import DeliveryRetryPolicy, ReceiptRule
from gapless.deliver.routing import Destination, build_route
from gapless.destinations.contract import Delivered, Delivery, Failed, FailureReason, Result
from gapless.domain import Cause, Mode, Order, Source, Sources, Via, system_clock, to_us
from gapless.ledger import Connection, dead_letters, deliveries, destinations, sources, streams
from gapless.ledger.engine import Store, open_store
from gapless.ledger.recorder import Recorder, Sighting
from gapless.ledger.tables import DELIVERY, EVENT
from gapless.metrics import Metrics
from gapless.runtime import Runtime
from gapless.settings import DestinationSettings, PublicSettings
from gapless_reconcilers.kit.contract import RemoteEvent, Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

QUICK = DeliveryRetryPolicy(
    first=timedelta(milliseconds=1), longest=timedelta(milliseconds=3), max_attempts=5, waits=(), max_age=None
)
START = datetime.fromisoformat("2026-11-20T12:00:00+00:00")
PROVIDER = Stripe(StripeOptions(api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one example does."""

    seed: int
    objects: int
    events: int
    concurrency: int
    fails: float
    """Share of attempts that fail."""
    confirms: bool
    skips_dead: bool
    restarts: int


PLANS = st.builds(
    Plan,
    seed=st.integers(0, 1 << 32),
    objects=st.integers(1, 6),
    events=st.integers(1, 40),
    concurrency=st.sampled_from([1, 2, 8, 32]),
    fails=st.sampled_from([0.0, 0.2, 0.6]),
    confirms=st.booleans(),
    skips_dead=st.booleans(),
    restarts=st.integers(0, 3),
)


@dataclass(kw_only=True)
class Consumer:
    """Gets events from all replicas, fails at random, and notes what it has applied and what it was in at once."""

    rng: Random
    plan: Plan
    got: list[Delivery] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    inside: set[str | None] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    """Events that it has said to have applied, whatever it got: an attempt that is under way then comes for nothing."""
    is_calm: bool = False

    async def send(self, delivery: Delivery) -> Result:
        if delivery.object_key is not None and delivery.late != "replayed":
            assert self.told or delivery.object_key not in self.inside
            self.inside.add(delivery.object_key)
        self.got.append(delivery)
        try:
            await asyncio.sleep(self.rng.choice([0, 0, 0.001]))
            if not self.is_calm and self.rng.random() < self.plan.fails:
                permanent = self.rng.random() < 0.1
                return Failed(reason=FailureReason.CONSUMER_5XX, detail="HTTP 500", permanent=permanent)
            is_applied = self.is_calm or self.rng.random() < 0.6
            if is_applied or not self.plan.confirms:
                self.applied.append(delivery.key)
            return Delivered(applied=is_applied)
        finally:
            if delivery.late != "replayed":
                self.inside.discard(delivery.object_key)

    async def close(self) -> None:
        return


@dataclass(kw_only=True)
class Replica:
    """One process: it records and delivers."""

    runtime: Runtime
    dispatcher: Dispatcher
    source: Source
    stream_id: int

    async def record(self, *sightings: Sighting) -> None:
        await self.runtime.write(self.runtime.writer.recorder.store, sightings=sightings)

    def sighting(self, key: str, about: str | None, at: int, via: Via) -> Sighting:
        occurred_at = START + timedelta(seconds=at)
        event = RemoteEvent(key=key, type="t", occurred_at=occurred_at, payload=b"{}", object_key=about)
        cause = Cause.UNEXPLAINED if via is Via.LIST else None
        seen_us, stream_id = self.runtime.now_us, self.stream_id
        return Sighting(source=self.source, stream_id=stream_id, event=event, via=via, seen_us=seen_us, cause=cause)


def destination_for(plan: Plan, destination_id: int, consumer: Consumer) -> Destination:
    made = make_destination(DestinationSettings(name="app", order=Order.OBJECT), destination_id, 0, consumer)
    rule = ReceiptRule(within=timedelta(milliseconds=1), max_answers=4)
    return replace(
        made,
        retry=QUICK,
        breaker=BreakerRule(threshold=10_000),
        concurrency=plan.concurrency,
        confirm=rule if plan.confirms else None,
        order_skips_dead=plan.skips_dead,
    )


@asynccontextmanager
async def replica(store: Store, plan: Plan, consumer: Consumer, slot: int) -> AsyncIterator[Replica]:
    def rows(connection: Connection) -> tuple[int, int, int]:
        source_id = sources.register_source(connection, "acme", "stripe", "hybrid", START, START)
        stream_id = streams.streams(connection, source_id)[0].id
        return source_id, stream_id, destinations.register_destination(connection, "app", START)

    source_id, stream_id, destination_id = await store.write(rows)
    source = Source(id=source_id, name="acme", provider=PROVIDER, mode=Mode.HYBRID, start=START)
    destination = destination_for(plan, destination_id, consumer)
    recorder, metrics = Recorder(slot, build_route([destination])), Metrics("test")
    writer = make_writer(PublicSettings(), store, recorder, metrics)
    known = Sources([source])
    runtime = Runtime(store=store, writer=writer, clock=system_clock, metrics=metrics, sources=known)
    dispatcher = Dispatcher([destination], runtime, rng=Random(plan.seed))
    recorder.wake = dispatcher.wake
    async with runtime, asyncio.TaskGroup() as tasks:
        tasks.create_task(dispatcher.run())
        try:
            yield Replica(runtime=runtime, dispatcher=dispatcher, source=source, stream_id=stream_id)
        finally:
            dispatcher.stop()


async def live(plan: Plan, stores: list[Store]) -> None:
    """Record and deliver through all of the stores at once, with restarts, failures, requeues and replays."""
    rng = Random(plan.seed)
    consumer = Consumer(rng=rng, plan=plan)
    names = [None, *(f"cus_{n}" for n in range(plan.objects))]
    left = [(f"evt_{n:03}", rng.choice(names), n) for n in range(plan.events)]
    for round_ in range(plan.restarts + 1):
        now = left[: len(left) // (plan.restarts + 1 - round_)]
        left = left[len(now) :]
        async with AsyncExitStack() as running:
            replicas = [
                await running.enter_async_context(replica(store, plan, consumer, slot))
                for slot, store in enumerate(stores)
            ]
            await asyncio.gather(*(record(each, now, Random(plan.seed + n)) for n, each in enumerate(replicas)))
            await disturb(replicas[0], consumer, rng)
            await replicas[0].record(*(replicas[0].sighting(*each, Via.LIST) for each in now))
            if not left:
                await come_to_rest(replicas[0], consumer)
    await check(plan, stores[0], consumer)


async def record(replica: Replica, events: list[tuple[str, str | None, int]], rng: Random) -> None:
    """Record most of the events, in batches: what both replicas see, each of them records, by webhook or in a list."""
    left = [each for each in events if rng.random() < 0.6]
    rng.shuffle(left)
    while left:
        size, via = rng.randint(1, 5), rng.choice([Via.WEBHOOK, Via.LIST])
        await replica.record(*(replica.sighting(*each, via) for each in left[:size]))
        left = left[size:]


async def disturb(replica: Replica, consumer: Consumer, rng: Random) -> None:
    """Replay an event, requeue dead letters, and send a receipt for an event that waits."""
    write, now_us = replica.runtime.write, replica.runtime.now_us
    keys = select(EVENT.c.seq, EVENT.c.key)
    known = await replica.runtime.read(lambda c: [tuple(row) for row in c.execute(keys)])
    if known and rng.random() < 0.5:
        seq, _ = rng.choice(known)
        await write(dead_letters.replay, destination_id=1, seqs=[seq], now_us=now_us)
    if known and rng.random() < 0.5:
        _, key = rng.choice(known)
        consumer.told.add(key)
        arguments = {"source_id": replica.source.id, "destination_id": 1, "now_us": now_us}
        await write(deliveries.settle_applied, keys=[key], **arguments)
    await write(dead_letters.requeue, now_us=now_us)
    replica.dispatcher.wake()


async def come_to_rest(replica: Replica, consumer: Consumer) -> None:
    """With nothing failing any more, everything is delivered."""
    consumer.is_calm = True
    query = select(DELIVERY.c.state).where(DELIVERY.c.state != "delivered")
    async with asyncio.timeout(60):
        while await replica.runtime.read(lambda c: c.execute(query).first()) is not None:
            await replica.runtime.write(dead_letters.requeue, now_us=to_us(system_clock()))
            replica.dispatcher.wake()
            await asyncio.sleep(0.005)


async def check(plan: Plan, store: Store, consumer: Consumer) -> None:
    """Every event was delivered, and those of an object in the order of their seqs, save what says that it is late."""
    seqs = dict(await store.read(lambda c: [tuple(row) for row in c.execute(select(EVENT.c.key, EVENT.c.seq))]))
    assert len(seqs) == plan.events
    states = await store.read(lambda c: set(c.execute(select(DELIVERY.c.state)).scalars()))
    assert states == {"delivered"}
    by_object: defaultdict[str, list[int]] = defaultdict(list)
    for delivery in consumer.got:
        if delivery.object_key is not None and delivery.late != "replayed" and delivery.key not in consumer.told:
            by_object[delivery.object_key].append(seqs[delivery.key])
    for order in by_object.values():
        assert order == sorted(order)
    newest: dict[str, datetime] = {}
    again = {each.key for each in consumer.got if each.late == "replayed"}  # a dead one has left its line: none is late
    for key, _ in sorted(seqs.items(), key=lambda each: each[1]):
        first = next((each for each in consumer.got if each.key == key), None)
        if first is None or first.object_key is None:
            continue
        latest = newest.get(first.object_key, first.occurred_at)
        if first.via is Via.LIST and first.late != "replayed" and first.occurred_at < latest:
            assert first.late == "recovered"
        if not (plan.skips_dead and (key in consumer.told or key in again)):
            newest[first.object_key] = max(latest, first.occurred_at)


def examples(number: int) -> Any:
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=number, deadline=None, suppress_health_check=checks, derandomize=False)


def test_no_event_of_an_object_overtakes_another_on_sqlite(sqlite_template: Path) -> None:
    @examples(8)
    @given(plan=PLANS)
    def run(plan: Plan) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(shutil.copy(sqlite_template, Path(folder) / "ledger.db"))
            asyncio.run(_run(plan, [f"sqlite:///{path}"]))

    run()


@pytest.fixture
def new_database(postgres_server: str, postgres_template: str) -> Iterator[Callable[[], str]]:
    names: list[str] = []

    def make() -> str:
        names.append(f"gapless_order_{secrets.token_hex(6)}")
        asyncio.run(run_sql(postgres_server, f"CREATE DATABASE {names[-1]} TEMPLATE {postgres_template}"))
        return (
            make_url(postgres_server)
            .set(drivername="postgresql", database=names[-1])
            .render_as_string(hide_password=False)
        )

    yield make
    for name in names:
        asyncio.run(run_sql(postgres_server, f"DROP DATABASE {name} WITH (FORCE)"))


def test_no_event_of_an_object_overtakes_another_with_two_replicas(new_database: Callable[[], str]) -> None:
    """Two processes on one PostgreSQL: both record, both deliver, and each sees the other's events."""

    @examples(5)
    @given(plan=PLANS)
    def run(plan: Plan) -> None:
        asyncio.run(_run(plan, [new_database()] * 2))

    run()


async def _run(plan: Plan, urls: list[str]) -> None:
    stores = [open_store(url) for url in urls]
    try:
        await live(plan, stores)
    finally:
        for store in stores:
            await store.close()
