"""One turn of one source, by the process that holds its lease: health, its streams, its missing rows, its pace."""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gapless.domain import Mode, Source, TypesOrigin, from_us, span_us, to_us
from gapless.ledger import Connection, budgets, leases, passes, quarantine, silence, sources, streams, watermarks
from gapless.ledger.passes import Pass
from gapless.ledger.streams import Stream
from gapless.ledger.watermarks import UnrecoverableInterval
from gapless.provider_api.health import ProviderHealth, read_health, read_subscription, repair_endpoint, stream_names
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.diff import Circumstances
from gapless.reconcile.pace import (
    Signals,
    Spending,
    affordable_interval,
    latest_next_pass,
    next_interval,
    slow_down,
    sweep_allowance,
)
from gapless.reconcile.recovery import recover_missing
from gapless.reconcile.stream_run import StreamRun
from gapless_reconcilers.kit.contract import OWN_STREAM, Reading
from gapless_reconcilers.kit.errors import NeedsOperator, ProviderError, UnexpectedShape

log = logging.getLogger(__name__)


class AccountShared(NeedsOperator):
    """Another source reads the same account, so that each event would be counted twice."""


class SubscriptionInactive(NeedsOperator):
    """While our endpoint is not active, the provider's list shows nothing of what happens."""


async def record_health(leased: LeasedSource, known: ProviderHealth) -> None:
    """Record what the provider said, in the ledger and in `runtime.sources`. Raises `AccountShared`."""
    source = leased.source
    twins = await leased.write(_write, now=leased.runtime.clock(), source=source, known=known)
    if twins and not leased.policy.share_account:
        raise AccountShared(
            f"source {source.name!r} reads the same account as {', '.join(twins)}: each event would be recorded twice; "
            "remove one, or set share_account = true"
        )
    if known.subscription is not None:
        leased.runtime.sources.replace(source.subscribed(known.subscription, leased.runtime.clock()))


def _write(connection: Connection, now: datetime, source: Source, known: ProviderHealth) -> list[str]:
    twins = [] if known.account is None else sources.note_account(connection, source.id, known.account.fingerprint)
    told = known.subscription
    sources.note_subscription(connection, source.id, told, now)
    if told is not None and told.types is not None and source.types_origin is not TypesOrigin.CONFIG:
        sources.note_types(connection, source.id, told.types, TypesOrigin.SUBSCRIPTION.value)
    return twins


log = logging.getLogger(__name__)
LONGEST_RETRY = timedelta(days=3)
"""How long vendors go on sending a webhook: how far back what is known of outages may explain a loss."""


@dataclass(slots=True, kw_only=True)
class SourceRun:
    """One run of a leased source. What is learned of it is recorded in `runtime.sources` for the whole process."""

    leased: LeasedSource
    check_health: bool
    found: bool = False
    failures: list[ProviderError] = field(default_factory=list)

    async def run(self) -> None:
        """Do all that is due, then give the lease back with the time of the next turn.

        Raises `LeaseLost` if another process took the source over, and `StoreError`.
        """
        streams = await self._streams()
        turn = await self._turn(streams)
        try:
            if self.check_health:
                streams = await self._learn()
                turn = await self._turn(streams)  # with what was just learnt of our endpoint
            if self.leased.source.mode is not Mode.WEBHOOK:
                await self._reconcile(turn, streams)
        except ProviderError as error:  # a source-wide request raised it: no stream can be read
            for stream in streams:
                await turn.note_failure(stream, error)
        await self.leased.runtime.write(self._give_back, turn=turn, now=self.leased.runtime.clock())

    async def _reconcile(self, turn: StreamRun, streams: list[Stream]) -> None:
        if self.leased.capabilities.precondition:
            await self._hold_precondition(streams)
        await self._read(turn, streams)
        if not turn.is_down and not self.leased.stopping.is_set():
            turn.failures += await recover_missing(self.leased, turn.slots)

    async def _streams(self) -> list[Stream]:
        return await self.leased.runtime.read(streams.streams, source_id=self.leased.source.id)

    async def _learn(self) -> list[Stream]:
        """Ask the provider about our key, our endpoint and the account's streams; returns all streams."""
        if self.leased.policy.repair:
            await self._repair()
        known = await read_health(self.leased.client, self.leased.policy.webhook_url)
        await record_health(self.leased, known)
        for name in await stream_names(self.leased.client):
            await self.leased.write(streams.ensure_stream, source_id=self.leased.source.id, name=name)
        return await self._streams()

    async def _repair(self) -> None:
        """Opt-in. What the key may not do is for a person, and no reason not to read the list."""
        try:
            await repair_endpoint(self.leased.client, self.leased.policy.webhook_url)
        except (NeedsOperator, UnexpectedShape) as error:
            log.warning("subscription_not_repaired", extra={"source": self.leased.source.name, "error": str(error)})

    async def _hold_precondition(self, streams: Iterable[Stream]) -> None:
        """The list is complete only while our endpoint is active. Raises `SubscriptionInactive`.

        When it is active again, what happened since it was last seen so can no longer be listed.
        """
        leased, source_id = self.leased, self.leased.source.id
        if not self.check_health:
            told = await read_subscription(leased.client, leased.policy.webhook_url)
            await record_health(leased, ProviderHealth(subscription=told))
        row = await leased.runtime.read(sources.source_row, source_id=source_id)
        if row["subscription_healthy"] is False:
            await leased.write(sources.note_lapse, source_id=source_id)
            raise SubscriptionInactive(f"{row['subscription_reason']}: meanwhile the list proves nothing")
        if row["lapsed_us"] is not None and row["subscription_healthy"]:
            lost = UnrecoverableInterval(
                start_us=row["lapsed_us"], end_us=row["subscription_us"], reason="subscription_inactive"
            )
            log.error(
                "subscription_was_inactive",
                extra={
                    "source": leased.source.name,
                    "start": str(from_us(lost.start_us)),
                    "end": str(from_us(lost.end_us)),
                },
            )
            await leased.write(_end_lapse, source_id=source_id, stream_ids=[each.id for each in streams], loss=lost)

    async def _turn(self, streams: Iterable[Stream]) -> StreamRun:
        leased = self.leased
        row = await leased.runtime.read(sources.source_row, source_id=leased.source.id)
        since_us = min(stream.watermark_us for stream in streams) - span_us(LONGEST_RETRY)
        return StreamRun(
            leased=leased,
            lookback=max(leased.policy.lookback, timedelta(microseconds=row["lookback_us"] or 0)),
            circumstances=await leased.runtime.read(
                _circumstances, source_id=leased.source.id, since_us=since_us, now_us=leased.runtime.now_us
            ),
            slots=asyncio.Semaphore(leased.policy.at_once),
        )

    async def _read(self, turn: StreamRun, streams: Iterable[Stream]) -> None:
        """Make the passes of all streams, and only then sweep those that could be read: sweeps take what is left."""
        leased = self.leased
        ahead, behind = defaultdict[int, list[Pass]](list), defaultdict[int, list[Pass]](list)
        for row in await leased.runtime.read(passes.unfinished, source_id=leased.source.id):
            (behind if row.kind in passes.LOOKS_BEHIND else ahead)[row.stream_id].append(row)
        ordered = in_order(streams, retry_parked=self.check_health)
        complete = await self._each(ordered, lambda stream: turn.run(stream, ahead[stream.id]))
        if complete and leased.capabilities.reading is not Reading.CONSUME:
            await self._sweep(turn, complete, behind)

    async def _sweep(self, turn: StreamRun, streams: list[Stream], left_open: Mapping[int, list[Pass]]) -> None:
        """Sweep the streams as far as the budget allows. The sweep is noted when it is done, and only then."""
        leased = self.leased
        row = await leased.runtime.read(sources.source_row, source_id=leased.source.id)
        due = self._sweep_is_due(row["last_sweep_us"])
        if not due and not any(left_open.values()):
            return
        limit = leased.client.requests + await leased.runtime.read(self._sweep_allowance)

        def sweep(stream: Stream) -> Awaitable[bool]:
            return turn.sweep(stream, left_open.get(stream.id, []), due=due, limit=limit)

        swept = await self._each(streams, sweep)
        if leased.client.requests >= limit:
            log.info("sweep_postponed", extra={"source": leased.source.name, "reason": "read budget"})
        if due and len(swept) == len(streams) and not leased.stopping.is_set():
            now_us = leased.runtime.now_us
            await leased.write(watermarks.note_sweep, source_id=leased.source.id, now_us=now_us)

    async def _each(self, streams: Iterable[Stream], work: Callable[[Stream], Awaitable[bool]]) -> list[Stream]:
        """Do `work` for every stream, for some at a time; returns those for which it came out true."""
        rooms = asyncio.Semaphore(self.leased.policy.at_once)
        done: list[Stream] = []

        async def run(stream: Stream) -> None:
            async with rooms:
                if await work(stream):
                    done.append(stream)

        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(run(stream))
        return done

    def _sweep_is_due(self, last_us: int | None) -> bool:
        since_us = to_us(self.leased.source.start) if last_us is None else last_us
        return self.leased.runtime.now_us - since_us >= span_us(self.leased.policy.sweep_every)

    def _sweep_allowance(self, connection: Connection) -> float:
        """Requests that the sweeps of this turn may use; infinity: nothing is counted."""
        spending = self._spending(connection)
        if spending is None:
            return math.inf
        return sweep_allowance(spending, self.leased.runtime.clock(), self.leased.policy.pace.longest)

    def _give_back(self, connection: Connection, turn: StreamRun, now: datetime) -> None:
        source_id = self.leased.source.id
        row = sources.source_row(connection, source_id)
        last = None if row["interval_us"] is None else timedelta(microseconds=row["interval_us"])
        signals = Signals(
            found=turn.found,
            unwell=turn.is_down
            or row["subscription_healthy"] is False
            or _may_pass(turn.failures)
            or self._is_silent(connection, now),
            parked=turn.is_down and any(isinstance(error, NeedsOperator) for error in turn.failures),
        )
        interval = self._affordable(connection, next_interval(self.leased.policy.pace, last, signals), now)
        asked_again = row["next_pass_us"] > self.leased.lease.taken_us  # a pass was demanded meanwhile
        interrupted = self.leased.stopping.is_set() and bool(passes.unfinished(connection, source_id))
        next_us = to_us(now if asked_again or interrupted else now + interval)
        leases.release(connection, self.leased.lease, next_pass_us=next_us, interval_us=span_us(interval))

    def _is_silent(self, connection: Connection, now: datetime) -> bool:
        wanted = self.leased.source.silence
        heard = silence.read_heard(connection, self.leased.source.id, wanted, now)
        return wanted is not None and heard is not None and bool(silence.is_silent(wanted, heard, now))

    def _affordable(self, connection: Connection, interval: timedelta, now: datetime) -> timedelta:
        """The interval, stretched so that the read budget lasts."""
        spending = self._spending(connection)
        if spending is None:
            return interval
        watermark = min(stream.watermark_us for stream in streams.streams(connection, self.leased.source.id))
        latest = latest_next_pass(self.leased.capabilities.history, from_us(watermark))
        return slow_down(interval, affordable_interval(spending, now), now, latest)

    def _spending(self, connection: Connection) -> Spending | None:
        """How the read budget stands; None: there is none, or nothing of it was ever used."""
        budget, source = self.leased.policy.budget, self.leased.source
        used = budgets.used(connection, source.provider.budget_scope()) if budget else None
        if budget is None or used is None:
            return None
        count = len(streams.streams(connection, source.id))
        return Spending(
            budget=budget,
            used=used.used,
            period_start=from_us(used.period_start_us),
            cost=passes.request_count(connection, source.id) * count,
        )


def in_order(streams: Iterable[Stream], *, retry_parked: bool) -> list[Stream]:
    """Streams in the order in which they are read: what was not complete last time first, then the busiest.

    A parked one, the account's own apart, is left alone until the provider is asked about all of them again.
    """
    waiting = [each for each in streams if retry_parked or each.parked_reason is None or each.name == OWN_STREAM]
    return sorted(waiting, key=lambda each: (each.last_outcome == "clean", -each.last_listed))


def _may_pass(failures: Iterable[ProviderError]) -> bool:
    """Whether one of the failures may go away by itself."""
    return any(not isinstance(error, NeedsOperator) for error in failures)


def _end_lapse(connection: Connection, source_id: int, stream_ids: Iterable[int], loss: UnrecoverableInterval) -> None:
    for stream_id in stream_ids:
        watermarks.note_unrecoverable(connection, stream_id, loss, loss.end_us)
    sources.end_lapse(connection, source_id)


def _circumstances(connection: Connection, source_id: int, since_us: int, now_us: int) -> Circumstances:
    return Circumstances(
        downtimes=leases.downtimes(connection, since_us, now_us),
        refusals=quarantine.received_since(connection, source_id, since_us),
        subscription_healthy=sources.source_row(connection, source_id)["subscription_healthy"],
    )
