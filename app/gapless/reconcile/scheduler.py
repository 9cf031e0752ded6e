"""When sources are read: a tick that claims what is due. The times themselves are columns of the source."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta
from functools import partial

import httpx
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from gapless.domain import Mode, Source
from gapless.ledger import budgets, leases, sources
from gapless.ledger.engine import StoreError
from gapless.ledger.leases import SOURCE_LEASE, Lease, LeaseLost
from gapless.provider_api.client import PATIENT, ProviderClient, RequestRetryPolicy
from gapless.reconcile.context import LeasedSource, SourcePolicy
from gapless.reconcile.pace import due_at_start
from gapless.reconcile.source_run import SourceRun
from gapless.runtime import Runtime
from gapless_reconcilers.kit.contract import Provider, ReadsSubscription

log = logging.getLogger(__name__)
TICK_S = 1.0
STOP_WITHIN_S = 5.0
"""How long turns under way may take to come to a good place to stop."""
HEALTH_EVERY = timedelta(hours=1)


class Scheduler:
    """Runs the turns of every source that is listed, as long as `run` runs.

    `holder` names this process in leases. `policies` has one entry per source name.
    """

    def __init__(
        self,
        runtime: Runtime,
        policies: Mapping[str, SourcePolicy],
        client: httpx.AsyncClient,
        *,
        holder: str,
        tick_s: float = TICK_S,
        patience: RequestRetryPolicy = PATIENT,
    ) -> None:
        self._runtime = runtime
        self._policies = policies
        self._client = client
        self._holder = holder
        self._tick_s = tick_s
        self._patience = patience
        self._stopping = asyncio.Event()
        self._busy: set[str] = set()
        self._turns: set[asyncio.Task[None]] = set()
        self._clients: dict[str, ProviderClient] = {}
        self._checked: dict[str, tuple[Provider, int]] = {}

    async def run(self) -> None:
        """Tick until `stop`; then finish the pages in hand and give every lease back."""
        ticks = AsyncIOScheduler(timezone="UTC")
        async with asyncio.TaskGroup() as group:
            ticks.add_job(
                self._tick,
                "interval",
                [group],
                seconds=self._tick_s,
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
            )
            await self._make_due()
            await self._tick(group)
            ticks.start()
            await self._stopping.wait()
            ticks.shutdown(wait=False)
            if self._turns:
                _, late = await asyncio.wait(self._turns, timeout=STOP_WITHIN_S)
                for turn in late:  # it waits for a provider; what it had read is durable
                    turn.cancel()

    def stop(self) -> None:
        """Begin nothing new; `run` returns when what is under way has come to a good place to stop."""
        self._stopping.set()

    async def _make_due(self) -> None:
        """A start-up pass for every source that was not read within its shortest interval."""
        for source in self._runtime.sources:
            if is_scheduled(source):
                pace, now = self._policies[source.name].pace, self._runtime.clock()
                await self._runtime.write(
                    sources.make_due, source_id=source.id, due=partial(due_at_start, pace=pace, now=now)
                )

    async def _tick(self, group: asyncio.TaskGroup) -> None:
        try:
            due = await self._runtime.read(sources.due, now_us=self._runtime.now_us)
            for name in due:
                if name in self._runtime.sources and name in self._policies and name not in self._busy:
                    await self._claim(name, group)
        except StoreError as error:
            log.warning("tick_failed", extra={"error": str(error)})

    async def _claim(self, name: str, group: asyncio.TaskGroup) -> None:
        source = self._runtime.sources[name]
        if not is_scheduled(source) or self._stopping.is_set():
            return
        now_us = self._runtime.now_us
        lease = await self._runtime.write(leases.claim, source_id=source.id, holder=self._holder, now_us=now_us)
        if lease is not None:
            self._busy.add(name)
            turn = group.create_task(self._turn(name, lease))
            self._turns.add(turn)
            turn.add_done_callback(self._turns.discard)

    async def _turn(self, name: str, lease: Lease) -> None:
        """One turn, with the lease kept alive beside it. Whatever goes wrong ends only this turn."""
        renewal = asyncio.create_task(self._renew(lease))
        turn = asyncio.create_task(self._cycle(name, lease).run())
        try:
            await asyncio.wait((renewal, turn), return_when=asyncio.FIRST_COMPLETED)
            turn.cancel()
            await turn
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                log.warning("lease_lost", extra={"source": name, "epoch": lease.epoch})
        except BaseExceptionGroup as errors:
            if errors.split((LeaseLost, StoreError))[1] is not None:
                self._runtime.metrics.passes.labels(name, "bug").inc()
            log.exception("turn_failed", extra={"source": name})
        except (LeaseLost, StoreError) as error:
            log.warning("turn_ended", extra={"source": name, "error": str(error)})
        except Exception:
            self._runtime.metrics.passes.labels(name, "bug").inc()
            log.exception("turn_failed", extra={"source": name})
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, turn, return_exceptions=True)
            self._busy.discard(name)

    async def _renew(self, lease: Lease) -> None:
        """Renew at a third of the lease's life; returns when the lease is lost."""
        while True:
            await asyncio.sleep(SOURCE_LEASE.total_seconds() / 3)
            try:
                await self._runtime.write(leases.fence, lease=lease)
            except LeaseLost:
                return
            except StoreError as error:
                log.warning("lease_not_renewed", extra={"error": str(error)})

    def _cycle(self, name: str, lease: Lease) -> SourceRun:
        policy = self._policies[name]
        leased = LeasedSource(
            runtime=self._runtime,
            client=self._provider_client(name),
            policy=policy,
            lease=lease,
            stopping=self._stopping,
        )
        return SourceRun(leased=leased, check_health=self._health_is_due(name))

    def _health_is_due(self, name: str) -> bool:
        """At start, once an hour, and when a credential was replaced."""
        provider, now_us = self._runtime.sources[name].provider, self._runtime.now_us
        last = self._checked.get(name)
        if last is not None and last[0] is provider and now_us - last[1] < HEALTH_EVERY / timedelta(microseconds=1):
            return False
        self._checked[name] = (provider, now_us)
        return True

    def _provider_client(self, name: str) -> ProviderClient:
        if name not in self._clients:
            self._clients[name] = ProviderClient(
                self._client,
                self._runtime.sources,
                name,
                clock=self._runtime.clock,
                metrics=self._runtime.metrics,
                rate=self._policies[name].rate,
                spend=partial(self._spend, name),
                patience=self._patience,
            )
        return self._clients[name]

    async def _spend(self, name: str, requests: int) -> None:
        budget = self._policies[name].budget
        if budget is not None:
            scope, now_us = self._runtime.sources[name].provider.budget_scope(), self._runtime.now_us
            await self._runtime.write(budgets.reserve, scope=scope, budget=budget, requests=requests, now_us=now_us)


def is_scheduled(source: Source) -> bool:
    """Whether there is anything to ask its provider: a source of webhooks alone is asked how our endpoint stands."""
    return source.mode is not Mode.WEBHOOK or isinstance(source.provider, ReadsSubscription)
