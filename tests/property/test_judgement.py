"""Webhooks and listings late in any order and at any age, over restarts: what is missed is exact, never too soon."""

import asyncio
import secrets
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledgers import run_sql
from sqlalchemy import select
from sqlalchemy.engine import make_url
from world import Daemon, FakeClock, InProcess, World, new_fake

from gapless.bootstrap.destinations import make_destination
from gapless.deliver.routing import build_route, that_hear_webhooks
from gapless.domain import Via, align_down, from_us, to_us
from gapless.ledger import Connection, leases
from gapless.ledger.engine import Store, open_store
from gapless.ledger.tables import DELIVERY, EVENT, FINDING
from gapless.settings import DestinationSettings
from gapless_reconcilers.providers.stripe import Stripe
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.webhook_sender import Faults

pytestmark = pytest.mark.timeout(900)
SECOND = timedelta(seconds=1)
EXAMPLES = 60
SENDER: Any = object()  # nothing is sent
GAPS = make_destination(DestinationSettings(name="gaps", via=(Via.LIST,), delay=timedelta(0)), 1, 0, SENDER)

emits = st.tuples(st.just("emit"), st.sampled_from([0, 0, 0, 3, 20, 90]))
"""An event happens; the list shows it after so many seconds."""
finds = st.tuples(st.just("find"), st.sampled_from([0, 1, 3]))
"""An event happens, and a pass looks so many seconds after it has settled."""
waits = st.tuples(st.just("wait"), st.sampled_from([0.3, 1, 4, 9, 11, 30, 61, 200]))
pushes = st.tuples(st.just("push"), st.integers(0, 4))
"""The webhook of one of the last events comes, perhaps once more."""
runs = st.tuples(st.just("run"), st.just(0))
dies = st.tuples(st.just("die"), st.integers(0, 2))
"""The process dies in a run, before the request of that number, and another starts."""
steps = st.lists(st.one_of(emits, finds, finds, waits, waits, pushes, pushes, runs, dies), min_size=12, max_size=40)
ages = {"settle_s": st.sampled_from([10, 2, 0, 100]), "grace_s": st.sampled_from([60, 15, 60, 1, 0])}


class Died(Exception):
    """The process ends here."""


@dataclass(kw_only=True)
class Row:
    """What the ledger has of one event."""

    seq: int
    via: str
    missed: bool
    seen_us: int
    awaited: bool


@dataclass(kw_only=True)
class Story:
    """One source, told step by step. The model knows of each event whether a webhook had come when it was judged."""

    store: Store
    grace: timedelta
    settle: timedelta
    clock: FakeClock = field(default_factory=FakeClock)
    events: list[FakeEvent] = field(default_factory=list)
    pushed: dict[str, int] = field(default_factory=dict)
    """Webhooks that came, by key."""
    awaited: set[str] = field(default_factory=set)
    """The events that are not judged yet."""
    judged: set[str] = field(default_factory=set)
    missed: set[str] = field(default_factory=set)
    late: set[str] = field(default_factory=set)

    async def tell(self, actions: list[tuple[str, float]]) -> None:
        self.fake = new_fake(self.clock)
        self.transport = InProcess(fake=self.fake)
        async with httpx.AsyncClient(transport=self.transport) as client:
            self.world = World(store=self.store, clock=self.clock, fake=self.fake, client=client)
            await self.world.open()
            await self._boot()
            for name, number in actions:
                await getattr(self, f"_{name}")(number)
                await self._check()
            await self._rest()
            await self.process.aclose()

    async def _boot(self) -> None:
        self.process = AsyncExitStack()
        known = replace(Stripe.capabilities, grace=self.grace)
        made = self.world.daemon(page_limit=2, route=build_route([GAPS]), capabilities=known, settle=self.settle)
        self.daemon: Daemon = await self.process.enter_async_context(made)
        self.daemon.runtime.writer.recorder.withdraws = that_hear_webhooks([GAPS])

    async def _emit(self, lag_s: float) -> None:
        self.fake.faults = Faults(late_visible=1.0 if lag_s else 0.0, late_visible_s=lag_s)
        self.events.append(self.fake.emit("invoice.paid"))

    async def _find(self, seconds: float) -> None:
        await self._emit(0)
        await self._wait(self.settle.total_seconds() + seconds)
        await self._run(0)

    async def _wait(self, seconds: float) -> None:
        self.clock.advance(seconds=seconds)

    async def _push(self, number: float) -> None:
        if not self.events:
            return
        event = self.events[-1 - int(number) % len(self.events)]
        await self.daemon.push(event)
        if event.key in self.missed and event.key not in self.pushed:
            self.late.add(event.key)
        self.pushed[event.key] = self.pushed.get(event.key, 0) + 1

    async def _run(self, _: float) -> None:
        await self.daemon.run_source()
        await self._judge()
        over = align_down(self.clock() - self.grace, SECOND)
        assert not {each.key for each in self.events if each.key in self.awaited and each.occurred_at < over}

    async def _die(self, number: float) -> None:
        left = [int(number)]

        def before(_: httpx.Request) -> None:
            if left[0] == 0:
                raise Died
            left[0] -= 1

        self.transport.before = before
        try:
            await self.daemon.run_source()
        except* Died:
            pass
        self.transport.before = lambda _: None
        await self.process.aclose()
        await self.store.write(leases.clear)
        await self._judge()
        await self._boot()

    async def _judge(self) -> None:
        """Compare what was judged in this run with the webhooks that had come before it."""
        rows, when = await self._rows(), {event.key: event.occurred_at for event in self.events}
        listed = {key for key, row in rows.items() if row.via == "list"}
        settle = max(timedelta(0), min(self.settle, self.grace - SECOND))
        assert all(from_us(rows[key].seen_us) - when[key] >= settle for key in listed)
        self.awaited = {key for key in listed if rows[key].awaited}
        judged = listed - self.awaited - self.judged
        assert all(self.clock() - when[key] >= self.grace for key in judged)
        self.missed |= judged - self.pushed.keys()
        self.judged |= judged

    async def _rows(self) -> dict[str, Row]:
        def work(connection: Connection) -> dict[str, Row]:
            awaited = set(connection.execute(select(FINDING.c.key)).scalars())
            columns = (EVENT.c.key, EVENT.c.seq, EVENT.c.via, EVENT.c.missed_cause, EVENT.c.first_seen_us)
            return {
                key: Row(seq=seq, via=via, missed=cause is not None, seen_us=seen_us, awaited=key in awaited)
                for key, seq, via, cause, seen_us in connection.execute(select(*columns))
            }

        return await self.store.read(work)

    async def _check(self) -> None:
        rows, counts = await self._rows(), (await self.world.totals()).counts
        assert {key for key, row in rows.items() if row.missed} == self.missed
        assert sum(counts[name] for name in counts if name.startswith("missed_")) == len(self.missed)
        assert (counts["expected"], counts["late"]) == (len(rows), len(self.late))
        assert counts["by_webhook"] == sum(row.via == "webhook" for row in rows.values())
        assert counts["duplicates"] == sum(max(0, count - 1) for count in self.pushed.values())
        watermark_us = (await self.world.stream()).watermark_us
        assert all(to_us(e.occurred_at) >= watermark_us for e in self.events if e.key in rows and rows[e.key].awaited)
        owed = {key for key, row in rows.items() if row.via == "list"} - self.pushed.keys()
        assert await self._gaps() == {rows[key].seq for key in owed}

    async def _gaps(self) -> set[int]:
        """Return the events that the handler with its own webhooks is owed, none of them before it is overdue."""
        query = select(DELIVERY.c.event_seq, DELIVERY.c.next_us, EVENT.c.occurred_us)
        query = query.join(EVENT, EVENT.c.seq == DELIVERY.c.event_seq)
        rows = await self.store.read(lambda connection: list(connection.execute(query)))
        assert all(from_us(next_us) - from_us(occurred_us) >= self.grace for _, next_us, occurred_us in rows)
        return {seq for seq, _, _ in rows}

    async def _rest(self) -> None:
        """All that happened is in the ledger at last, and nothing waits to be judged."""
        self.clock.advance(minutes=10)
        for _ in range(2):
            await self._run(0)
            await self._check()
            self.clock.advance(minutes=2)
        assert {event.key for event in self.events} == await self.world.keys()
        assert self.awaited == set()


def tell(store: Store, actions: list[tuple[str, float]], settle_s: float, grace_s: float) -> None:
    async def story() -> None:
        try:
            made = Story(store=store, settle=timedelta(seconds=settle_s), grace=timedelta(seconds=grace_s))
            await made.tell(actions)
        finally:
            await store.close()

    asyncio.run(story())


def bounded(examples: int) -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks)


@bounded(EXAMPLES)
@given(actions=steps, **ages)
def test_what_is_missed_is_exact_on_sqlite(
    sqlite_template: Path, tmp_path: Path, actions: list[tuple[str, float]], settle_s: float, grace_s: float
) -> None:
    path = Path(shutil.copy(sqlite_template, tmp_path / f"{secrets.token_hex(8)}.db"))
    tell(open_store(f"sqlite:///{path}"), actions, settle_s, grace_s)


@bounded(EXAMPLES // 8)
@given(actions=steps, **ages)
def test_what_is_missed_is_exact_on_postgresql(
    postgres_server: str, postgres_template: str, actions: list[tuple[str, float]], settle_s: float, grace_s: float
) -> None:
    name = f"gapless_judged_{secrets.token_hex(6)}"
    asyncio.run(run_sql(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}"))
    try:
        url = make_url(postgres_server).set(drivername="postgresql", database=name)
        tell(open_store(url.render_as_string(hide_password=False)), actions, settle_s, grace_s)
    finally:
        asyncio.run(run_sql(postgres_server, f"DROP DATABASE {name} WITH (FORCE)"))
