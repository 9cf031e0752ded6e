"""One run of one source, by the process that holds its lease: its health, its streams, its missing events, its pace."""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from gapless.clock import is_due
from gapless.domain import DAY_US, Mode, Purpose, align_down, span_us, to_us
from gapless.ledger import (
    Connection,
    budgets,
    earnings,
    events,
    learned,
    leases,
    looks,
    passes,
    restored,
    sources,
    streams,
    watermarks,
)
from gapless.ledger.looks import StoredLook
from gapless.ledger.passes import Pass, PassKind
from gapless.ledger.streams import Stream, note_heads
from gapless.provider_api.earnings import ENOUGH, list_earning
from gapless.reconcile import account_checks, endpoint_checks
from gapless.reconcile.agenda import Occasion, Wanted, choose, in_turn, is_look_due, wishes
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.diff import Circumstances
from gapless.reconcile.grants import allowance_of, purse_of
from gapless.reconcile.planner import reckon
from gapless.reconcile.purse import Allowance, Purse, first_affordable, spend, spendable
from gapless.reconcile.recovery import recover_missing, wait_after
from gapless.reconcile.release import RunOutcome, due_again, expected_silence, release, rhythm_of
from gapless.reconcile.stream_run import StreamRun, sweep_every
from gapless.reconcile.urgency import Reason
from gapless_reconcilers.kit.contract import OWN_STREAM, Reading, Window
from gapless_reconcilers.kit.errors import NeedsOperator, ProviderError

T = TypeVar("T")
log = logging.getLogger(__name__)
LEAST_READ = 20
"""Requests that a reading may make at least, whatever the purse holds: it was begun because one could be paid for."""
LONGEST_RETRY = timedelta(days=3)
"""Time for which vendors retry a webhook: an outage so far back may explain a loss."""


@dataclass(slots=True, kw_only=True)
class SourceRun:
    """One run of a leased source. It puts the provider's answers into `runtime.sources`, for the whole process."""

    leased: LeasedSource
    check_account: bool
    check_endpoint: bool
    learns: bool = False
    """The plan by which the source is read is made from what the ledger shows of it."""
    look: StoredLook | None = None
    """The look out of turn that this run is; None: it is none."""
    unpaid: dict[Purpose, datetime] = field(default_factory=dict)
    """When the purse can pay for what was put off, by what it was for; empty: it could pay."""

    async def run(self) -> None:
        """Do everything that is due, then release the lease with the time of the next run.

        Raises `LeaseLost` if another process took the source over, and `StoreError`.
        """
        streams = await self._streams()
        stream_run = await self._stream_run(streams)
        look = await self.leased.runtime.read(looks.read, source_id=self.leased.source.id)
        self.look = look if is_look_due(look, self.leased.runtime.clock()) else None
        try:
            await self._put_checks_off()
            self.check_account |= await self._is_parked()
            if self.check_account:
                await account_checks.compare(self.leased)
            if self.check_account or self.check_endpoint:
                await endpoint_checks.check(self.leased)
                streams = await self._streams()
                stream_run = await self._stream_run(streams)  # with the new state of our endpoint
            await account_checks.require_own(self.leased)
            if self.leased.source.mode is not Mode.WEBHOOK:
                await self._reconcile(stream_run, streams)
        except ProviderError as error:  # a source-wide request raised it: no stream can be read
            for stream in streams:
                await stream_run.note_failure(stream, error)
        outcome = RunOutcome(
            found=stream_run.found,
            is_down=stream_run.is_down,
            needs_operator=any(isinstance(error, NeedsOperator) for error in stream_run.failures),
            look=self.look,
            unpaid=self.unpaid,
        )
        await self.leased.runtime.write(release, leased=self.leased, outcome=outcome, now=self.leased.runtime.clock())

    async def _reconcile(self, stream_run: StreamRun, streams: list[Stream]) -> None:
        open_passes = await self._unfinished()
        demanded = {row.stream_id for row in open_passes if row.kind is PassKind.DEMAND}
        tried = in_order(streams, retry_parked=self._checks, demanded=demanded)
        wanted = await self._choose(streams, tried)
        stream_run.purpose = wanted.purpose
        if wanted.purpose is not Purpose.HISTORY:
            stream_run.limit = self.leased.client.requests + max(await self._spendable(Purpose.URGENT), LEAST_READ)
        inactive = None
        if self.leased.capabilities.precondition and wanted.streams:
            inactive = await endpoint_checks.precondition(self.leased, streams, is_known=self._checks)
        stream_run.circumstances = await self._read_circumstances(streams)
        complete = await self._make_scheduled(stream_run, wanted, open_passes)
        self.leased.memory.was_read |= bool(complete)
        if inactive is not None:
            for stream in streams:
                await stream_run.note_failure(stream, inactive)
        if complete:
            await self._list_earning(streams)
        stream_run.must_give_way = await self._giving_way()
        await self._look_behind(stream_run, streams, complete if wanted.streams else tried, open_passes)

    async def _choose(self, streams: Sequence[Stream], tried: Sequence[Stream]) -> Wanted:
        """Return those of the streams that may be `tried` to read now: none, if the purse cannot pay for them."""
        leased, runtime = self.leased, self.leased.runtime
        if self.learns:
            await self._reckon(streams)
        occasion = await runtime.read(self._occasion, streams=tried)
        wanted = await self._pay(tried, choose(tried, rhythm_of(leased), occasion, runtime.clock()))
        if wanted.streams:
            await leased.write(note_heads, stream_ids=[each.id for each in wanted.streams], at_us=runtime.now_us)
        return wanted

    async def _pay(self, streams: Sequence[Stream], wanted: Wanted) -> Wanted:
        """Return what is read: what the purse can pay for of what is wanted, or else of the heartbeats that are due.

        What is out of turn never keeps a heartbeat waiting. A heartbeat that is long overdue is urgent. If not all
        streams can be paid for, those are read that were read the longest ago, and the others when they can be.
        """
        leased = self.leased
        purse, allowance = await self._purse(), allowance_of(leased.terms)
        if purse is None or allowance is None or not wanted.streams:
            return wanted
        now, rhythm = max(purse.at, leased.runtime.clock()), rhythm_of(leased)
        for each in (wanted, in_turn(streams, rhythm, now)):
            if each.streams and each.purpose not in self.unpaid:
                due = wishes(each, rhythm, now, details_wait=leased.memory.details_wait)
                at, purpose = first_affordable(purse, allowance, due, leased.memory.cost)
                if at <= now:
                    self.unpaid.clear()
                    return self._share(replace(each, purpose=purpose), purse, allowance)
                self.unpaid[each.purpose] = at
                extra = {"source": leased.source.name, "purpose": each.purpose.value, "until": str(at)}
                log.info("reading_put_off", extra=extra)
        return replace(wanted, streams=())

    def _share(self, wanted: Wanted, purse: Purse, allowance: Allowance) -> Wanted:
        """Return as many of the wanted streams as can be paid for, at least one. The others wait for the purse."""
        cost, can_spend = self.leased.memory.cost, spendable(purse, allowance, wanted.purpose)
        if cost * len(wanted.streams) <= can_spend:
            return wanted
        number = max(1, int(can_spend / cost))
        by_age = sorted(wanted.streams, key=lambda each: each.head_us or 0)
        chosen, left = {each.id for each in by_age[:number]}, by_age[number:]
        streams = [each for each in wanted.streams if each.id in chosen]
        if left:
            due = wishes(Wanted(streams=left, purpose=Purpose.HEARTBEAT), rhythm_of(self.leased), purse.at)
            self.unpaid[Purpose.HEARTBEAT], _ = first_affordable(
                spend(purse, cost * len(streams)), allowance, due, cost
            )
        return replace(wanted, streams=streams)

    def _occasion(self, connection: Connection, streams: Sequence[Stream]) -> Occasion:
        leased, now = self.leased, self.leased.runtime.clock()
        row, look = sources.source_row(connection, leased.source.id), self.look
        if look is not None and look.reason == Reason.SILENCE:
            expected = expected_silence(connection, leased, now)
            leased.memory.silence, look = (leased.memory.silence, None) if expected is None else (expected, look)
        return Occasion(
            everything=not row["wait_us"],
            is_first=self.learns and not leased.memory.was_read,
            look=look,
            heard=events.heard_streams(connection, leased.source.id, self._heard_since_us(streams)),
        )

    def _heard_since_us(self, streams: Sequence[Stream]) -> int:
        """Return when webhooks would have come that no reading has followed."""
        read = [each.head_us for each in streams if each.head_us is not None]
        return max(read, default=0) - span_us(self.leased.settle)

    async def _reckon(self, streams: Sequence[Stream]) -> None:
        """Learn from the ledger how the source is to be read, from time to time."""
        leased, now, memory = self.leased, self.leased.runtime.clock(), self.leased.memory
        if memory.reckoning is None or memory.reckoning.is_stale(now):
            memory.cost = await leased.runtime.read(passes.request_count, source_id=leased.source.id)
            memory.reckoning, known = await leased.runtime.read(  # it takes long where there are many events
                reckon,
                source=leased.source,
                streams=streams,
                policy=leased.policy,
                allowance=allowance_of(leased.terms, leased.sharing),
                granted=leased.terms.granted,
                now=now,
            )
            await leased.write(learned.note, source_id=leased.source.id, at_us=to_us(now), learned=known)

    async def _purse(self) -> Purse | None:
        """Return the purse of the source's scope; None: nothing limits its requests."""
        leased = self.leased
        if leased.terms.granted is None:
            return None
        state = await leased.runtime.read(
            budgets.purse, scope=leased.provider.budget_scope(), terms=leased.terms, now_us=leased.runtime.now_us
        )
        return purse_of(state, leased.terms)

    async def _giving_way(self) -> Callable[[], bool]:
        """Return the function that tells whether the source is to be read again by now."""
        runtime, now = self.leased.runtime, self.leased.runtime.clock()
        due = await runtime.read(due_again, leased=self.leased, now=now)
        next_us = runtime.elapsed_us + span_us(max(due - now, timedelta(0)))
        return lambda: self.leased.wanted.is_set() or runtime.elapsed_us >= next_us

    async def _look_behind(
        self, stream_run: StreamRun, streams: Iterable[Stream], complete: list[Stream], open_passes: Iterable[Pass]
    ) -> None:
        """Do what is not urgent until the source is to be read again: missing events, passes on demand, sweeps."""
        if not stream_run.is_down and not self.leased.stopping.is_set():
            stream_run.failures += await recover_missing(
                self.leased,
                stream_run.circumstances,
                stream_run.slots,
                stream_run.must_give_way,
                self.leased.client.requests + await self._spendable(Purpose.DETAIL),
            )
        await self._run_demanded(stream_run, streams)
        if complete and self.leased.capabilities.reading is not Reading.CONSUME:
            await self._sweep(stream_run, complete, open_passes)

    @property
    def _checks(self) -> bool:
        return self.check_account or self.check_endpoint

    async def _list_earning(self, streams: Iterable[Stream]) -> None:
        """List the events that earn requests, once: until there are some in the ledger, the grant is at its floor.

        What cannot be listed is tried again after a day: it costs requests.
        """
        leased, grant = self.leased, self.leased.policy.grant
        if not self.learns or grant is None or not grant.per_event:
            return
        tried_us, now_us = leased.memory.earning_us, leased.runtime.elapsed_us
        if tried_us is not None and now_us - tried_us < DAY_US:
            return
        leased.memory.earning_us = now_us
        if await leased.runtime.read(earnings.is_listed, source_id=leased.source.id):
            return
        end = align_down(leased.client.now, leased.capabilities.resolution)
        window, times = Window(start=end - grant.period, end=end), list[datetime]()
        try:
            for stream in streams:
                times += await list_earning(leased.client.spending(Purpose.START), stream.name, window)
                if len(times) >= ENOUGH:
                    break
        except ProviderError as error:
            log.info("grant_not_listed", extra={"source": leased.source.name, "error": str(error)})
            return
        times_us = [to_us(each) for each in times]
        await leased.write(
            earnings.note_listed, source_id=leased.source.id, times_us=times_us, end_us=to_us(end), part_us=DAY_US
        )
        leased.memory.has_earned = True

    async def _unfinished(self) -> list[Pass]:
        return await self.leased.runtime.read(passes.unfinished, source_id=self.leased.source.id)

    async def _run_demanded(self, stream_run: StreamRun, streams: Iterable[Stream]) -> None:
        """Go on with the passes on demand that are due."""
        now_us, by_id = self.leased.runtime.now_us, {stream.id: stream for stream in streams}
        due = [row for row in await self._unfinished() if row.kind is PassKind.DEMAND and _goes_on(row, now_us)]
        await self._for_each(due, lambda row: stream_run.run_demanded(by_id[row.stream_id], row))

    async def _streams(self) -> list[Stream]:
        return await self.leased.runtime.read(streams.streams, source_id=self.leased.source.id)

    async def _put_checks_off(self) -> None:
        """Leave the checks for later if the purse cannot pay for them, and each was made within a day.

        They are never refused their requests, so that a small grant would be spent on them, and nothing left to read.
        """
        memory, now_us = self.leased.memory, self.leased.runtime.elapsed_us
        last_us = [each for each in (memory.account_us, memory.endpoint_us) if each is not None]
        is_recent = len(last_us) > 1 and now_us - min(last_us) < DAY_US
        if self._checks and is_recent and await self._spendable(Purpose.ENDPOINT) < 1:
            self.check_account = self.check_endpoint = False

    async def _is_parked(self) -> bool:
        row = await self.leased.runtime.read(sources.source_row, source_id=self.leased.source.id)
        return bool(row["state"] == "parked")

    async def _stream_run(self, streams: Iterable[Stream]) -> StreamRun:
        leased = self.leased
        row = await leased.runtime.read(sources.source_row, source_id=leased.source.id)
        return StreamRun(
            leased=leased,
            lookback=max(leased.policy.lookback, timedelta(microseconds=row["lookback_us"] or 0)),
            circumstances=await self._read_circumstances(streams),
            slots=asyncio.Semaphore(leased.policy.at_once),
        )

    async def _read_circumstances(self, streams: Iterable[Stream]) -> Circumstances:
        since_us = min(stream.watermark_us for stream in streams) - span_us(LONGEST_RETRY)
        runtime = self.leased.runtime
        return await runtime.read(
            _circumstances, source_id=self.leased.source.id, since_us=since_us, now_us=runtime.now_us
        )

    async def _make_scheduled(self, stream_run: StreamRun, wanted: Wanted, open_passes: Iterable[Pass]) -> list[Stream]:
        """Make the scheduled passes of the wanted streams. Return the streams whose passes were completed."""
        ahead = _by_stream(row for row in open_passes if row.kind not in passes.GIVES_WAY)
        return await self._for_each(wanted.streams, lambda stream: stream_run.run(stream, ahead[stream.id]))

    async def _sweep(self, stream_run: StreamRun, streams: list[Stream], open_passes: Iterable[Pass]) -> None:
        """Sweep the streams as far as the budget allows. The sweep is noted only when it is done."""
        leased = self.leased
        left_open = _by_stream(row for row in open_passes if row.kind in passes.LOOKS_BEHIND)
        row = await leased.runtime.read(sources.source_row, source_id=leased.source.id)
        due = self._sweep_is_due(row["last_sweep_us"])
        if not due and not left_open:
            return
        limit = leased.client.requests + await self._spendable(Purpose.SWEEP)

        def sweep(stream: Stream) -> Awaitable[bool]:
            return stream_run.sweep(stream, left_open[stream.id], due=due, limit=limit)

        swept = await self._for_each(streams, sweep)
        if leased.client.requests >= limit:
            log.info("sweep_postponed", extra={"source": leased.source.name, "reason": "the grant"})
        if due and len(swept) == len(streams) and not leased.stopping.is_set():
            now_us = leased.runtime.now_us
            await leased.write(watermarks.note_sweep, source_id=leased.source.id, now_us=now_us)

    async def _for_each(self, items: Iterable[T], work: Callable[[T], Awaitable[bool]]) -> list[T]:
        """Run `work` for every stream or pass, some at a time. Return those for which it returned True."""
        slots = asyncio.Semaphore(self.leased.policy.at_once)
        done: list[T] = []

        async def run(item: T) -> None:
            async with slots:
                if await work(item):
                    done.append(item)

        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(run(item))
        return done

    def _sweep_is_due(self, last_us: int | None) -> bool:
        since_us = to_us(self.leased.source.start) if last_us is None else last_us
        every_us = span_us(sweep_every(self.leased))
        return is_due(since_us + every_us, every_us, self.leased.runtime.now_us)

    async def _spendable(self, purpose: Purpose) -> float:
        """Return the requests that may be made for `purpose` now; infinity: nothing limits them."""
        purse, allowance = await self._purse(), allowance_of(self.leased.terms)
        return math.inf if purse is None or allowance is None else int(spendable(purse, allowance, purpose))


def in_order(streams: Iterable[Stream], *, retry_parked: bool, demanded: Collection[int] = ()) -> list[Stream]:
    """Return the streams in the order in which they are read: those that failed last time first, then the busiest.

    A parked stream is left out, except the account's own, those whose id is in `demanded`, or with `retry_parked`.
    """

    def is_tried(stream: Stream) -> bool:
        is_asked_for = stream.name == OWN_STREAM or stream.id in demanded
        return retry_parked or stream.parked_reason is None or is_asked_for

    waiting = list(filter(is_tried, streams))
    return sorted(waiting, key=lambda each: (each.last_outcome == "clean", -each.last_listed))


def _by_stream(rows: Iterable[Pass]) -> defaultdict[int, list[Pass]]:
    """Return the passes by the id of their stream."""
    by_stream = defaultdict[int, list[Pass]](list)
    for row in rows:
        by_stream[row.stream_id].append(row)
    return by_stream


def _goes_on(row: Pass, now_us: int) -> bool:
    """Return True if the next attempt of a pass on demand is due."""
    return is_due(row.next_attempt_us, span_us(wait_after(max(row.attempts - 1, 0))), now_us)


def _endpoint_off_since(connection: Connection, source_id: int) -> int | None:
    """Return when our endpoint was last seen active, 0 if never; None: it is active, or nobody knows."""
    row = sources.source_row(connection, source_id)
    return None if row["subscription_healthy"] is not False else int(row["subscription_good_us"] or 0)


def _circumstances(connection: Connection, source_id: int, since_us: int, now_us: int) -> Circumstances:
    return Circumstances(
        proven_until=sources.source_row(connection, source_id)["lapsed_us"],
        downtimes=leases.downtimes(connection, since_us, now_us),
        endpoint_off_since=_endpoint_off_since(connection, source_id),
        restored=restored.intervals(connection, source_id),
    )
