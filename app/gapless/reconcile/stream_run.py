"""One run of one stream: finish the open passes, make the scheduled pass, and sweep when that is due."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from gapless.clock import is_due
from gapless.domain import Purpose, from_us, span_us, to_us
from gapless.ledger import absences, learned, passes, streams, unreadable, watermarks
from gapless.ledger.passes import Pass, PassKind
from gapless.ledger.streams import Stream
from gapless.provider_api.health import ask_time
from gapless.reconcile.consume_run import ConsumeRun
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.contradiction import windows_around
from gapless.reconcile.diff import Circumstances
from gapless.reconcile.lateness import AgeCounts, ListWatch
from gapless.reconcile.pace import head_reach, is_deep
from gapless.reconcile.pass_result import PassResult
from gapless.reconcile.pass_run import PURPOSES, PassRun
from gapless.reconcile.recovery import wait_after
from gapless.reconcile.window import Plan, plan_horizon, plan_pass, plan_sweep, sweep_depth
from gapless_reconcilers.kit.contract import Coverage, Reading, Window
from gapless_reconcilers.kit.errors import NeedsOperator, ProviderError

log = logging.getLogger(__name__)
LEAST_WATCHED = timedelta(minutes=5)
"""The time for which it is at least watched whether the list shows an event."""
MOST_ATTEMPTS = 8
"""Failures of a pass on demand, without progress between them, after which it ends: two hours after the first."""


@dataclass(slots=True, kw_only=True)
class StreamRun:
    """Runs the streams of a leased source, one call a stream. `found`, `done` and `failures` sum up all of them."""

    leased: LeasedSource
    lookback: timedelta
    circumstances: Circumstances
    slots: asyncio.Semaphore
    purpose: Purpose = Purpose.HEARTBEAT
    """What the requests of scheduled passes are for."""
    limit: float = math.inf
    """The client's count of requests at which passes stop, except sweeps; they go on when more can be paid for."""
    must_give_way: Callable[[], bool] = lambda: False
    """True when the source is to be read again: what is not a scheduled pass stops where it is, and goes on later."""
    found: bool = False
    done: int = 0
    """Number of streams whose passes were all completed."""
    failures: list[ProviderError] = field(default_factory=list)

    @property
    def is_down(self) -> bool:
        """Return True if no stream could be read, so that the failure is the source's."""
        return bool(self.failures) and not self.done

    async def run(self, stream: Stream, open_passes: list[Pass]) -> bool:
        """Make the stream's passes. Return True if all were completed. A failure does not affect other streams."""
        completed = not self.leased.stopping.is_set() and await self._run_all(stream, open_passes)
        self.done += completed
        return completed

    async def _run_all(self, stream: Stream, open_passes: list[Pass]) -> bool:
        """Make one pass after the other. Return False as soon as one cannot be completed."""
        if self.leased.capabilities.reading is Reading.CONSUME:
            return await self._consume(stream)
        if not await self._finish(stream, open_passes):
            return False
        if open_passes:
            stream = await self._reload(stream)
        if await self.leased.runtime.read(unreadable.count_open, stream_id=stream.id):
            stream = replace(stream, deep_us=None)  # the whole lookback: perhaps they can be read by now
        plan = self._plan(stream)
        if plan.unrecoverable is not None and not self.leased.client.answered:
            await ask_time(self.leased.client)  # before anything is written off, because our clock may be wrong
            plan = self._plan(stream)
        if plan.unrecoverable is not None:
            stream = await self._write_off(stream, plan.unrecoverable)
        if plan.window is None:
            return True
        if not await self._make_head(stream, plan.window):
            return False
        await self._recheck(stream)
        return True

    async def _finish(self, stream: Stream, open_passes: Iterable[Pass]) -> bool:
        """Finish the passes that were begun. Return False as soon as one cannot be completed."""
        for row in open_passes:
            if self._is_out_of_reach(row):
                await self._supersede(row)
            elif not (await self._run(stream, row)).complete:
                return False
        return True

    async def _make_head(self, stream: Stream, window: Window) -> bool:
        """Make a scheduled pass. Return True if it was completed."""
        row = await self._begin(stream, PassKind.SCHEDULED, window)
        result = await self._run(stream, row)
        if not result.complete:
            return False
        await self._learn_delays(stream, row, result.young)
        if self._is_deep(stream):
            await self.leased.write(streams.note_deep, stream_id=stream.id, at_us=row.started_us)
        return True

    async def _learn_delays(self, stream: Stream, row: Pass, young: Collection[str]) -> None:
        """Learn from the listed keys of `young` events at which age the list shows what came by webhook."""
        young_from = self._young_from(row)
        if young_from is None:
            return
        leased, at_us = self.leased, row.started_us - span_us(self.leased.client.skew or timedelta(0))
        known = await leased.runtime.read(
            learned.webhook_events,
            stream_id=stream.id,
            start_us=to_us(young_from),
            end_us=at_us,
            before_us=row.started_us,
        )
        counts = AgeCounts()
        for age_s in leased.memory.watches.setdefault(stream.id, ListWatch()).observe(at_us, known, young):
            counts.add(age_s)
        if counts.counts:
            await leased.write(
                learned.note_list_delays,
                source_id=leased.source.id,
                now_us=leased.runtime.now_us,
                counts=counts.counts,
            )

    async def _recheck(self, stream: Stream) -> None:
        """Look once more for events that listings lacked, where it is their turn and the history reaches so far."""
        capabilities, now = self.leased.capabilities, self.leased.runtime.clock()
        oldest_us = 0 if capabilities.history is None else to_us(now - capabilities.history)
        known = await self.leased.runtime.read(absences.open_absences, stream_id=stream.id)
        due = [each.occurred_us for each in known if each.next_us <= to_us(now) and each.occurred_us >= oldest_us]
        windows = windows_around(due, capabilities)
        if windows and not self.leased.stopping.is_set():
            recheck = await self.leased.write(
                passes.begin_windows, stream=stream, kind=PassKind.RECHECK, windows=windows, now_us=to_us(now)
            )
            await self._run(stream, recheck)

    async def run_demanded(self, stream: Stream, row: Pass) -> bool:
        """Make a pass on demand, or a part of it: it gives way, so that scheduled passes come in time.

        A failure is the pass's own: it is written into its row, the pass is tried again after a wait, and the stream is
        neither parked nor read less often. Return True if the pass is ended.
        """
        runtime = self.leased.runtime
        stream = await self._reload(stream)
        result = await self._make(stream, row)
        if not result.failures:
            return result.ended
        error, attempts = result.failures[0], 1 if result.progressed else row.attempts + 1
        text = f"{type(error).__name__}: {error}"
        labels = {"source": self.leased.source.name, "stream": stream.name, "pass_id": row.id}
        log.warning("demanded_pass_failed", extra={**labels, "attempts": attempts, "error": text})
        if attempts >= MOST_ATTEMPTS:
            await self.leased.write(
                passes.fail,
                pass_id=row.id,
                attempts=attempts,
                error=text,
                outcome=result.outcome,
                now_us=runtime.now_us,
            )
        else:
            next_us = runtime.now_us + span_us(wait_after(attempts - 1))
            await self.leased.write(
                passes.postpone, pass_id=row.id, attempts=attempts, error=text, next_attempt_us=next_us
            )
        return False

    async def sweep(self, stream: Stream, open_passes: list[Pass], *, due: bool, limit: float) -> bool:
        """Make the horizon pass and the sweep of the stream. Return True if neither is left to do.

        The horizon pass is made whatever the budget says, because its window cannot be read later. The sweep stops when
        the client's count of requests has come to `limit`. Both give way to scheduled passes, and go on in a later run.
        """
        stream = await self._reload(stream)
        passes_by_kind = {PassKind.HORIZON: list[Pass](), PassKind.SWEEP: list[Pass]()}
        for row in open_passes:
            if self._is_out_of_reach(row):
                await self._supersede(row)
            else:
                passes_by_kind[row.kind].append(row)
        limits = {PassKind.HORIZON: math.inf, PassKind.SWEEP: limit}
        for kind, rows in passes_by_kind.items():
            window = await self._plan_behind(stream, kind) if due and not rows else None
            if (rows or window) and self.leased.client.requests >= limits[kind]:
                return False
            if window is not None:
                rows.append(await self._begin(stream, kind, window))
            for row in rows:
                if self._must_stop or not (await self._run(stream, row, limits[kind])).ended:
                    return False
        return True

    async def _plan_behind(self, stream: Stream, kind: PassKind) -> Window | None:
        """Return the window of a sweep or a horizon pass, or None if the stream has had it since the last sweep."""
        every, now = sweep_every(self.leased), self.leased.client.now
        last = await self.leased.runtime.read(passes.last_finished, stream_id=stream.id, kind=kind)
        watermark, complete_from = from_us(stream.read_to_us), from_us(stream.complete_from_us)
        if kind is PassKind.HORIZON:
            return plan_horizon(
                watermark=watermark,
                complete_from=complete_from,
                now=now,
                every=every,
                looked_to=None if last is None else from_us(last["end_us"]),
                capabilities=self.leased.capabilities,
            )
        if last is not None and not self._is_over(last["finished_us"], every):
            return None
        return plan_sweep(
            watermark=watermark,
            complete_from=complete_from,
            lookback=self.lookback,
            capabilities=self.leased.capabilities,
        )

    def _is_over(self, began_us: int, wait: timedelta) -> bool:
        """Return True if the wait that began at that stored time is over."""
        return is_due(began_us + span_us(wait), span_us(wait), self.leased.runtime.now_us)

    async def _consume(self, stream: Stream) -> bool:
        history, client = self.leased.capabilities.history, self.leased.client
        if history is not None and from_us(stream.watermark_us) < client.now - history and not client.answered:
            await ask_time(client)
        now = client.now
        if history is not None and from_us(stream.watermark_us) < now - history:
            stream = await self._write_off(stream, Window(start=from_us(stream.watermark_us), end=now - history))
        began_us = self.leased.runtime.elapsed_us
        result = await ConsumeRun(leased=self.leased, stream=stream).run()
        self.found |= result.expected > 0
        if result.failures:
            await self.note_failure(stream, result.failures[0])
        else:
            self._report(stream, "consume", result, self._seconds_since(began_us))
        return result.complete

    def _plan(self, stream: Stream) -> Plan:
        return plan_pass(
            watermark=from_us(stream.read_to_us),
            complete_from=from_us(stream.complete_from_us),
            now=self.leased.client.now,
            provider_now=self.leased.client.provider_now,
            lookback=self._reach(stream),
            capabilities=self.leased.capabilities,
        )

    def _reach(self, stream: Stream) -> timedelta:
        """Return how far before the watermark a scheduled pass begins: now and then the whole lookback."""
        reach = head_reach(
            deep=self._is_deep(stream),
            lookback=self.lookback,
            grace=self.leased.capabilities.grace,
            cost=self.leased.memory.cost,
        )
        return min(reach, self.lookback)

    def _is_deep(self, stream: Stream) -> bool:
        last = None if stream.deep_us is None else from_us(stream.deep_us)
        return is_deep(last, self.lookback, self.leased.runtime.clock())

    def _is_out_of_reach(self, row: Pass) -> bool:
        history = self.leased.capabilities.history
        return history is not None and from_us(row.start_us) < self.leased.client.now - history

    async def _supersede(self, row: Pass) -> None:
        now_us = self.leased.runtime.now_us
        await self.leased.write(passes.finish, pass_id=row.id, outcome="superseded", now_us=now_us)

    async def _write_off(self, stream: Stream, lost: Window) -> Stream:
        labels = {"source": self.leased.source.name, "stream": stream.name}
        log.error("history_exceeded", extra={**labels, "start": str(lost.start), "end": str(lost.end)})
        loss = watermarks.UnrecoverableInterval(
            start_us=to_us(lost.start), end_us=to_us(lost.end), reason="history_exceeded"
        )
        now_us, slot = self.leased.runtime.now_us, self.leased.runtime.writer.recorder.slot
        await self.leased.write(watermarks.write_off, stream_id=stream.id, loss=loss, now_us=now_us, slot=slot)
        return await self._reload(stream)

    async def _reload(self, stream: Stream) -> Stream:
        return await self.leased.runtime.read(streams.stream, stream_id=stream.id)

    async def _begin(self, stream: Stream, kind: PassKind, window: Window) -> Pass:
        now_us = self.leased.runtime.now_us
        return await self.leased.write(
            passes.begin_window,
            stream=stream,
            kind=kind,
            window=window,
            now_us=now_us,
            unit=self.leased.capabilities.slice_unit,
            pieces=self._pieces if kind is PassKind.SWEEP else None,
        )

    @property
    def _pieces(self) -> int | None:
        reckoning = self.leased.memory.reckoning
        sweeps = None if reckoning is None else reckoning.plan.sweeps
        return None if sweeps is None else sweeps.pieces

    async def _run(self, stream: Stream, row: Pass, limit: float | None = None) -> PassResult:
        """Make one pass, and record its outcome."""
        result = await self._make(stream, row, limit)
        if result.failures:
            await self.note_failure(stream, result.failures[0])
        if result.suspect:
            await self.leased.write(
                watermarks.note_outcome, stream_id=stream.id, outcome=result.outcome, parked_reason=None
            )
        if row.kind in passes.LOOKS_BEHIND and result.oldest_found is not None:
            await self._widen_lookback(self.leased.client.now - result.oldest_found)
        return result

    @property
    def _must_stop(self) -> bool:
        return self.leased.stopping.is_set() or self.must_give_way()

    async def _make(self, stream: Stream, row: Pass, limit: float | None = None) -> PassResult:
        """Make one pass, as far as it gets, and report it. What failed is in the result."""
        runtime = self.leased.runtime
        pass_run = PassRun(
            leased=self.leased,
            stream=stream,
            row=replace(row, started_us=min(row.started_us, runtime.now_us)),  # the clock was ahead when it began
            circumstances=self.circumstances,
            slots=self.slots,
            stream_slots=asyncio.Semaphore(self.leased.policy.slices),
            limit=self.limit if limit is None else limit,
            purpose=self.purpose if row.kind is PassKind.SCHEDULED else PURPOSES[row.kind],
            lookback=self.lookback,
            young_from=self._young_from(row) if row.kind is PassKind.SCHEDULED else None,
            must_pause=self.must_give_way if row.kind in passes.GIVES_WAY else lambda: False,
        )
        began_us = runtime.elapsed_us
        result = await pass_run.run()
        self.found |= result.expected > 0 or result.absent_anew
        if not result.failures:
            self._report(stream, row.kind.value, result, self._seconds_since(began_us))
        return result

    def _young_from(self, row: Pass) -> datetime | None:
        """Return the time from which the delay of the list is learned from events; None: it cannot be.

        Later than twice the declared grace, an event that the list lacks is taken to be shown then.
        """
        declared = self.leased.policy.capabilities
        if not declared.exact_times or declared.coverage is Coverage.RESOURCE_STATE or not declared.grace:
            return None
        at = from_us(row.started_us) - (self.leased.client.skew or timedelta(0))
        return at - max(2 * declared.grace, LEAST_WATCHED)

    def _seconds_since(self, began_us: int) -> float:
        return (self.leased.runtime.elapsed_us - began_us) / 1_000_000

    async def note_failure(self, stream: Stream, error: ProviderError) -> None:
        """Record why the stream could not be read. It is parked if only a person can repair it."""
        self.failures.append(error)
        outcome = PassResult(failures=[error]).outcome
        reason = str(error) if isinstance(error, NeedsOperator) else None
        name = self.leased.source.name
        self.leased.runtime.metrics.passes.labels(name, outcome).inc()
        log.warning(
            "pass_failed", extra={"source": name, "stream": stream.name, "outcome": outcome, "error": str(error)}
        )
        await self.leased.write(
            watermarks.note_outcome, stream_id=stream.id, outcome=outcome, parked_reason=reason, error=str(error)
        )

    def _report(self, stream: Stream, kind: str, result: PassResult, duration_s: float) -> None:
        name, metrics = self.leased.source.name, self.leased.runtime.metrics
        metrics.passes.labels(name, result.outcome).inc()
        metrics.pass_seconds.labels(name).observe(duration_s)
        is_usual = kind == PassKind.SCHEDULED.value and result.outcome == "clean"
        log.log(
            logging.DEBUG if is_usual else logging.INFO,
            "pass_finished",
            extra={
                "source": name, "stream": stream.name, "kind": kind,
                "outcome": result.outcome, "listed": result.listed, "found": result.found,
                "missed": result.missed, "duration_s": round(duration_s, 3),
            },
        )  # fmt: skip

    async def _widen_lookback(self, delay: timedelta) -> None:
        """Widen the source's lookback to `delay`: events became visible that late."""
        lookback_us = span_us(min(delay, sweep_depth(self.leased.capabilities.history)))
        if lookback_us > span_us(self.lookback):
            await self.leased.write(watermarks.widen_lookback, source_id=self.leased.source.id, lookback_us=lookback_us)


def sweep_every(leased: LeasedSource) -> timedelta:
    """Return the time between two sweeps of the source: the configured one, or more if the grant is short."""
    reckoning = leased.memory.reckoning
    sweeps = None if reckoning is None else reckoning.plan.sweeps
    return leased.policy.sweep_every if sweeps is None else sweeps.every
