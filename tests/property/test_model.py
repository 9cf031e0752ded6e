"""A model of a provider against the real engine: whatever happens, in whatever order, the ledger's promises hold."""

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledgers import run_sql
from sqlalchemy import select
from sqlalchemy.engine import make_url
from world import T0, Daemon, FakeClock, InProcess, World, new_fake

from gapless.ledger import leases
from gapless.ledger.engine import Store, open_store
from gapless.ledger.tables import EVENT
from gapless_reconcilers.providers.stripe import Stripe
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.webhook_sender import Faults

GRACE = Stripe.capabilities.grace
EXAMPLES = int(os.environ.get("GAPLESS_MODEL_EXAMPLES", "40"))


class Crash(Exception):
    """The process dies here."""


class Model(RuleBasedStateMachine):
    """One source of a provider whose webhooks get lost and whose list lags, errs, and has another clock."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.unsent: list[FakeEvent] = []
        self.sent: list[FakeEvent] = []
        self.hidden: list[FakeEvent] = []
        """Events whose webhooks came at once, and that the list does not show."""

    def faults(self, **others: Any) -> Faults:
        return Faults(hidden_keys=frozenset(event.key for event in self.hidden), **others)

    def do(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    @initialize(skew_s=st.integers(-40, 40), page_limit=st.integers(1, 7))
    def open(self, skew_s: int, page_limit: int) -> None:
        self.clock = FakeClock()
        self.fake = new_fake(lambda: self.clock() + timedelta(seconds=skew_s))
        self.transport = InProcess(fake=self.fake)
        self.page_limit = page_limit
        self.do(self._open())

    async def _open(self) -> None:
        client = await self.stack.enter_async_context(httpx.AsyncClient(transport=self.transport))
        self.world = World(store=self.store, clock=self.clock, fake=self.fake, client=client)
        await self.world.open()
        await self._boot()

    async def _boot(self) -> None:
        self.process = AsyncExitStack()
        daemon = self.world.daemon(page_limit=self.page_limit, lookback=timedelta(minutes=15))
        self.daemon: Daemon = await self.process.enter_async_context(daemon)

    @rule(number=st.integers(1, 6), lag_s=st.sampled_from([0, 0, 0, 5, 50, 300]), lost=st.booleans())
    def something_happens(self, number: int, lag_s: int, lost: bool) -> None:
        self.fake.faults = self.faults(late_visible=1.0 if lag_s else 0.0, late_visible_s=lag_s)
        for _ in range(number):
            event = self.fake.emit("invoice.paid")
            if not lost:
                self.unsent.append(event)
        self.fake.faults = self.faults()

    @precondition(lambda self: len(self.hidden) < 4)
    @rule(number=st.integers(1, 2))
    def the_list_lacks_what_came(self, number: int) -> None:
        lacked = [self.fake.emit("invoice.paid") for _ in range(number)]
        self.do(self.daemon.push(*lacked))
        self.hidden += lacked
        self.fake.faults = self.faults()

    @precondition(lambda self: self.hidden)
    @rule()
    def the_list_shows_it_after_all(self) -> None:
        self.hidden.pop()
        self.fake.faults = self.faults()

    @rule(seconds=st.sampled_from([0.2, 1, 7, 61, 400]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds=seconds)

    @precondition(lambda self: self.unsent)
    @rule(data=st.data())
    def webhooks_arrive(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.unsent), min_size=1, max_size=5))
        self.do(self.daemon.push(*chosen))
        self.sent += chosen
        self.unsent = [event for event in self.unsent if event not in chosen]

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def webhooks_are_repeated(self, data: st.DataObject) -> None:
        self.do(self.daemon.push(*data.draw(st.lists(st.sampled_from(self.sent), min_size=1, max_size=3))))

    @rule()
    def the_source_is_run(self) -> None:
        self.do(self.daemon.run_source())

    @rule(after=st.integers(0, 4), status=st.sampled_from([429, 500, 401]))
    def a_run_meets_an_error(self, after: int, status: int) -> None:
        """From the request number `after` on, the provider only refuses."""
        self.transport.before = partial(self._refuse, [after], status)
        self.do(self.daemon.run_source())
        self.transport.before = lambda _: None
        self.fake.faults = self.faults()

    def _refuse(self, left: list[int], status: int, _request: httpx.Request) -> None:
        if left[0] == 0:
            refusals = {429: self.faults(throttle_every=1, retry_after="0"), 500: self.faults(error_rate=1.0)}
            self.fake.faults = refusals.get(status, self.faults(key_revoked=True))
        left[0] = max(0, left[0] - 1)

    @rule(after=st.integers(0, 4))
    def the_process_dies_in_a_run_and_another_starts(self, after: int) -> None:
        left = [after]

        def before(_request: httpx.Request) -> None:
            if left[0] == 0:
                raise Crash
            left[0] -= 1

        self.transport.before = before
        self.do(self._die())
        self.transport.before = lambda _: None

    async def _die(self) -> None:
        try:
            await self.daemon.run_source()
        except* Crash:
            pass
        await self.process.aclose()
        await self.store.write(leases.clear)
        await self._boot()

    @invariant()
    def the_ledger_keeps_its_promises(self) -> None:
        if hasattr(self, "daemon"):
            self.do(self._check())

    async def _check(self) -> None:
        recorded = await self.world.keys()
        assert recorded <= self.world.listed()
        counts = (await self.world.totals()).counts
        missed = select(EVENT.c.key).where(EVENT.c.missed_cause.is_not(None))
        rows = await self.store.read(lambda connection: connection.execute(missed).scalars().all())
        assert sum(counts[name] for name in counts if name.startswith("missed_")) == len(rows)
        assert counts["by_webhook"] + counts["by_list"] == len(recorded)
        assert counts["late"] <= len(rows)
        up_to = await self.world.complete_up_to()
        if up_to is not None:
            settled = {event.key for event in self.fake.events if self._is_settled(event, up_to)}
            assert settled <= recorded

    def _is_settled(self, event: FakeEvent, up_to: datetime) -> bool:
        """True if it occurred before `up_to`, is ours, and was listed within the grace that the watermark keeps."""
        in_time = event.visible_at - event.occurred_at <= GRACE
        return in_time and T0 <= event.occurred_at < up_to

    def teardown(self) -> None:
        if hasattr(self, "daemon"):
            self.do(self._come_to_rest())
        self.do(self.stack.aclose())
        self.runner.close()

    async def _come_to_rest(self) -> None:
        """With nothing more going wrong, everything that the list shows is there."""
        self.clock.advance(minutes=10)
        for _ in range(3):
            await self.daemon.run_source()
            self.clock.advance(seconds=61)
        await self._check()
        lacked = [event.occurred_at for event in self.hidden if event.occurred_at >= T0]
        if lacked and (up_to := await self.world.complete_up_to()) is not None:
            assert up_to <= min(lacked)
        assert (await self.world.totals()).counts["unlisted"] >= len(lacked) or await self._is_disbelieved()
        ours = {event.key for event in self.fake.events if event.occurred_at >= T0}
        assert ours <= await self.world.keys()
        await self.process.aclose()

    async def _is_disbelieved(self) -> bool:
        return (await self.world.stream()).last_outcome == "suspect_listing"


def run(machine: Any, examples: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    profile = settings(max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(machine, settings=profile)


def test_the_ledger_keeps_its_promises_whatever_happens_on_sqlite(sqlite_template: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:

        class OnSqlite(Model):
            def __init__(self) -> None:
                path = Path(shutil.copy(sqlite_template, Path(folder) / f"{secrets.token_hex(8)}.db"))
                super().__init__(open_store(f"sqlite:///{path}"))

            def teardown(self) -> None:
                super_store = self.store
                try:
                    super().teardown()
                finally:
                    asyncio.run(super_store.close())

        run(OnSqlite, EXAMPLES)


@pytest.fixture
def postgres_names(postgres_server: str) -> Iterator[list[str]]:
    names: list[str] = []
    yield names
    for name in names:
        asyncio.run(run_sql(postgres_server, f"DROP DATABASE {name} WITH (FORCE)"))


def test_the_ledger_keeps_its_promises_whatever_happens_on_postgresql(
    postgres_server: str, postgres_template: str, postgres_names: list[str]
) -> None:
    class OnPostgres(Model):
        def __init__(self) -> None:
            name = f"gapless_model_{secrets.token_hex(6)}"
            asyncio.run(run_sql(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}"))
            postgres_names.append(name)
            url = make_url(postgres_server).set(drivername="postgresql", database=name)
            super().__init__(open_store(url.render_as_string(hide_password=False)))

        def teardown(self) -> None:
            try:
                if hasattr(self, "daemon"):
                    self.do(self._come_to_rest())
                self.do(self.store.close())
            finally:
                self.do(self.stack.aclose())
                self.runner.close()

    run(OnPostgres, max(5, EXAMPLES // 8))
