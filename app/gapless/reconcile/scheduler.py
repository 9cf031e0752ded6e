"""Decide when sources are read: a tick claims the sources that are due. The due times are columns of the source."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial

import httpx
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from gapless.domain import Mode, Purpose, Source, from_us, span_us
from gapless.ledger import budgets, earnings, leases, sources
from gapless.ledger.budgets import PurseTerms
from gapless.ledger.engine import StoreError, StoreUnavailable
from gapless.ledger.leases import SOURCE_LEASE, Lease, LeaseLost
from gapless.provider_api.client import DEFAULT_RETRY, ProviderClient, RequestRetryPolicy
from gapless.reconcile.agenda import Heard, is_sibling_due
from gapless.reconcile.context import LeasedSource, SourceMemory
from gapless.reconcile.grants import COUNTED_EVERY, allowance_of, purse_terms
from gapless.reconcile.pace import due_at_start, endpoint_every
from gapless.reconcile.policy import SourcePolicy
from gapless.reconcile.release import CHECK_EVERY
from gapless.reconcile.source_run import SourceRun
from gapless.runtime import Runtime
from gapless_reconcilers.kit.contract import ReadsSubscription

log = logging.getLogger(__name__)
TICK_S = 1.0
STOP_WITHIN = timedelta(seconds=5)
"""Time that the runs under way have to reach a point where they can stop."""
ACCOUNT_EVERY = timedelta(days=1)
"""Time between two looks at the account, where the grant is so short that the endpoint is looked at every 3 hours."""


class Every(BaseTrigger):  # type: ignore[misc] # it has no types
    """Fires `every` after the last time, whatever the clock did meanwhile: no missed time is ever made up for."""

    def __init__(self, every: timedelta) -> None:
        self.every = every

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Return the next time, reckoned from `now`."""
        return now if previous_fire_time is None else now + self.every


class Ticks(AsyncIOScheduler):  # type: ignore[misc] # it has no types
    """An APScheduler with one job, which it runs every `every` even if the machine's clock jumps.

    APScheduler reads the machine's clock. It would wait for a job until a clock that was set back shows the time again.
    """

    def __init__(self, every: timedelta) -> None:
        super().__init__(timezone="UTC")
        self._every = every

    def wakeup(self) -> None:
        """Run what is due. A time that lies further ahead than `every` is due."""
        if not self.running:  # it was asked for before the end, and comes after it
            return
        for job in self.get_jobs():
            if job.next_run_time - datetime.now(self.timezone) > self._every:
                job.modify(next_run_time=datetime.now(self.timezone))
        super().wakeup()

    def _start_timer(self, wait_seconds: float | None) -> None:
        if not self.running:  # it was stopped while it ran what is due
            return
        longest = self._every.total_seconds()
        super()._start_timer(longest if wait_seconds is None else min(wait_seconds, longest))


class Scheduler:
    """Runs every scheduled source when it is due, until `stop`.

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
        retry: RequestRetryPolicy = DEFAULT_RETRY,
        stop_within: timedelta = STOP_WITHIN,
    ) -> None:
        self._runtime = runtime
        self._policies = policies
        self._client = client
        self._holder = holder
        self._tick_s = tick_s
        self._retry = retry
        self._stop_within = stop_within
        self._stopping = asyncio.Event()
        self._made_due = False
        self._busy: dict[str, LeasedSource] = {}
        self._cut: set[str] = set()
        """Sources that this process may still hold although it does not read them: the store was away."""
        self._runs: set[asyncio.Task[None]] = set()
        self._clients: dict[str, ProviderClient] = {}
        self._memories: defaultdict[str, SourceMemory] = defaultdict(SourceMemory)
        self._terms: dict[str, tuple[PurseTerms, int]] = {}
        """What is granted to each source, and when that was counted, in elapsed microseconds."""

    async def run(self) -> None:
        """Tick until `stop`; then finish the current pages and release every lease."""
        every = timedelta(seconds=self._tick_s)
        ticks = Ticks(every)
        async with asyncio.TaskGroup() as group:
            ticks.add_job(self._tick, Every(every), [group], coalesce=True, max_instances=1, misfire_grace_time=None)
            await self._tick(group)
            ticks.start()
            await self._stopping.wait()
            ticks.shutdown(wait=False)
            if self._runs:
                _, late = await asyncio.wait(self._runs, timeout=self._stop_within.total_seconds())
                for run in late:  # it waits for a provider; what it had read is durable
                    run.cancel()

    def stop(self) -> None:
        """Begin nothing new; `run` returns when every run under way has reached a point where it can stop."""
        self._stopping.set()

    async def _make_due(self) -> None:
        """Make every source due that was not read within its shortest interval. Raises `StoreError`."""
        for source in self._runtime.sources:
            if is_scheduled(source):
                pace, now = self._policies[source.name].pace, self._runtime.clock()
                await self._runtime.write(
                    sources.make_due, source_id=source.id, due=partial(due_at_start, pace=pace, now=now)
                )

    async def _tick(self, group: asyncio.TaskGroup) -> None:
        if self._runtime.keyring.state.blocked:  # what a list shows could not be recorded
            return
        try:
            if not self._made_due:
                await self._make_due()
                self._made_due = True
            await self._note_replaced_keys()
            for each in await self._runtime.read(sources.due, now_us=self._runtime.now_us):
                under_way = self._busy.get(each.name)
                if under_way is None:
                    await self._claim(each.name, group)
                elif each.next_pass_us > under_way.lease.taken_us:
                    under_way.wanted.set()
            for unread in await self._runtime.read(sources.unread, now_us=self._runtime.now_us):
                if self._is_sibling_due(unread):
                    await self._claim_for_siblings(unread, group)
        except StoreError as error:
            log.warning("tick_failed", extra={"error": str(error)})

    async def _note_replaced_keys(self) -> None:
        """Make a source due whose key was replaced, if it is not being read. Raises `StoreError`."""
        for source in self._runtime.sources:
            memory = self._memories[source.name]
            if memory.provider not in (None, source.provider) and source.name not in self._busy:
                memory.use(source.provider)
                await self._runtime.write(sources.make_due_now, source_id=source.id, now_us=self._runtime.now_us)

    def _is_sibling_due(self, unread: sources.UnreadSource) -> bool:
        """Return True if webhooks of the source came a while ago and their siblings are to be looked for."""
        reckoning = self._memories[unread.name].reckoning
        if reckoning is None or not reckoning.plan.siblings or unread.name not in self._policies:
            return False
        policy, now = self._policies[unread.name], self._runtime.clock()
        is_too_soon = timedelta(0) <= now - from_us(unread.read_us) < policy.capabilities.least_interval
        if not policy.pace.adaptive or is_too_soon:
            return False
        heard = Heard(
            newest=from_us(unread.last_webhook_us),
            oldest=from_us(unread.unread_us),
            read_at=from_us(unread.read_us),
            due=from_us(unread.next_pass_us),
        )
        return is_sibling_due(heard, reckoning.settle, policy.pace.shortest, now)

    async def _claim_for_siblings(self, unread: sources.UnreadSource, group: asyncio.TaskGroup) -> None:
        under_way = self._busy.get(unread.name)
        if under_way is None:
            await self._claim(unread.name, group, for_siblings=True)
        else:
            under_way.wanted.set()

    async def _claim(self, name: str, group: asyncio.TaskGroup, *, for_siblings: bool = False) -> None:
        if name not in self._runtime.sources or name not in self._policies:
            return
        source = self._runtime.sources[name]
        if not is_scheduled(source) or self._stopping.is_set():
            return
        terms = await self._purse_terms(name)  # first: nothing is waited for between the lease and the run
        lease = await self._take(source, for_siblings=for_siblings)
        if lease is not None:
            self._busy[name] = leased = self._leased(name, lease, terms)
            run = group.create_task(self._run_source(leased))
            self._runs.add(run)
            run.add_done_callback(self._runs.discard)

    async def _take(self, source: Source, *, for_siblings: bool) -> Lease | None:
        """Return a new lease of the source, or None. Raises `StoreError`."""
        reckoning = self._memories[source.name].reckoning
        try:
            lease = await self._runtime.write(
                leases.claim,
                source_id=source.id,
                holder=self._holder,
                now_us=self._runtime.now_us,
                is_idle=source.name in self._cut,
                for_siblings=for_siblings,
                settle_us=0 if reckoning is None else span_us(reckoning.settle),
            )
        except StoreUnavailable:
            self._cut.add(source.name)  # the claim may have taken effect
            raise
        self._cut.discard(source.name)
        return lease

    async def _run_source(self, leased: LeasedSource) -> None:
        """Run the source once and renew its lease meanwhile. An error ends only this run."""
        name, lease = leased.source.name, leased.lease
        renewal = asyncio.create_task(self._renew(lease))
        run = asyncio.create_task(self._source_run(leased).run())
        try:
            await asyncio.wait((renewal, run), return_when=asyncio.FIRST_COMPLETED)
            run.cancel()
            await run
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                log.warning("lease_lost", extra={"source": name, "epoch": lease.epoch})
        except BaseExceptionGroup as errors:
            if errors.split((LeaseLost, StoreError))[1] is not None:
                self._runtime.metrics.passes.labels(name, "bug").inc()
            if errors.split((LeaseLost, StoreUnavailable))[1] is None:
                self._cut.add(name)
            log.exception("run_failed", extra={"source": name})
        except (LeaseLost, StoreError) as error:
            if isinstance(error, StoreUnavailable):
                self._cut.add(name)
            log.warning("run_ended", extra={"source": name, "error": str(error)})
        except Exception:
            self._runtime.metrics.passes.labels(name, "bug").inc()
            log.exception("run_failed", extra={"source": name})
        finally:
            renewal.cancel()
            run.cancel()
            await asyncio.gather(renewal, run, return_exceptions=True)
            del self._busy[name]

    async def _renew(self, lease: Lease) -> None:
        """Renew the lease each third of its life; return when it is lost."""
        while True:
            await asyncio.sleep(SOURCE_LEASE.total_seconds() / 3)
            try:
                await self._runtime.write(leases.fence, lease=lease)
            except LeaseLost:
                return
            except StoreError as error:
                log.warning("lease_not_renewed", extra={"error": str(error)})

    def _leased(self, name: str, lease: Lease, terms: PurseTerms) -> LeasedSource:
        scope = self._runtime.sources[name].provider.budget_scope()
        return LeasedSource(
            runtime=self._runtime,
            client=self.client(name),
            policy=self._policies[name],
            lease=lease,
            stopping=self._stopping,
            memory=self._memories[name],
            terms=terms,
            sharing=sum(each.provider.budget_scope() == scope for each in self._runtime.sources),
        )

    def _source_run(self, leased: LeasedSource) -> SourceRun:
        """Return the run of a source. Account and endpoint are checked until that succeeds, and after a new key."""
        memory, at_us = leased.memory, self._runtime.elapsed_us
        if memory.provider is not leased.provider:
            memory.use(leased.provider)
        allowance = allowance_of(leased.terms, leased.sharing)
        every = CHECK_EVERY if allowance is None else endpoint_every(allowance.per_day, CHECK_EVERY)
        account_every = CHECK_EVERY if every == CHECK_EVERY else ACCOUNT_EVERY
        return SourceRun(
            leased=leased,
            check_account=memory.account_us is None or at_us - memory.account_us >= span_us(account_every),
            check_endpoint=memory.endpoint_us is None or at_us - memory.endpoint_us >= span_us(every),
            learns=True,
        )

    def client(self, name: str) -> ProviderClient:
        """Return the client of the source `name`, whose requests are counted and paid for."""
        if name not in self._clients:
            self._clients[name] = ProviderClient(
                self._client,
                self._runtime.sources,
                name,
                clock=self._runtime.clock,
                metrics=self._runtime.metrics,
                rate=self._policies[name].rate,
                spend=partial(self._spend, name),
                limited=partial(self._note_limit, name),
                retry=self._retry,
                within=self._policies[name].request_within,
            )
        return self._clients[name]

    async def _spend(self, name: str, purpose: Purpose, requests: int) -> datetime | None:
        """Count requests against the source's scope. Return the time until which its rate is halved."""
        purse = await self._runtime.write(
            budgets.reserve,
            scope=self._runtime.sources[name].provider.budget_scope(),
            terms=await self._purse_terms(name),
            purpose=purpose,
            requests=requests,
            now_us=self._runtime.now_us,
        )
        return None if purse is None or purse.halved_until_us is None else from_us(purse.halved_until_us)

    async def _note_limit(self, name: str) -> None:
        scope = self._runtime.sources[name].provider.budget_scope()
        await self._runtime.write(budgets.note_limit, scope=scope, now_us=self._runtime.now_us)

    async def _purse_terms(self, name: str) -> PurseTerms:
        """Return what is granted to the source. The events that earn requests are counted once an hour."""
        at_us, known = self._runtime.elapsed_us, self._terms.get(name)
        memory = self._memories[name]
        if known is not None and at_us - known[1] < span_us(COUNTED_EVERY) and not memory.has_earned:
            return known[0]
        memory.has_earned = False
        grant, events = self._policies[name].grant, 0
        if grant is not None and grant.per_event:
            events = await self._runtime.read(
                earnings.earned,
                source_id=self._runtime.sources[name].id,
                types=grant.types,
                since_us=self._runtime.now_us - span_us(grant.period),
            )
        terms = purse_terms(grant, events)
        self._terms[name] = terms, at_us
        return terms


def is_scheduled(source: Source) -> bool:
    """Return True if there is a list to read or, for a source of webhooks alone, the state of our endpoint."""
    return source.can_ask and (source.mode is not Mode.WEBHOOK or isinstance(source.provider, ReadsSubscription))
