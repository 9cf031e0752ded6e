"""One pass: read a window of one stream slice by slice, record what the ledger lacks, move the watermark.

A page's events are durable before its cursor is saved, and a slice's before the watermark moves over
it. Every write of state checks the lease: if another process has taken the source over, `LeaseLost`
ends the pass and nothing is written.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gapless.domain import Purpose
from gapless.ledger import Connection, absences, findings, passes, unreadable, watermarks, witnesses
from gapless.ledger.passes import Pass, PassKind, Slice
from gapless.ledger.streams import Stream
from gapless.provider_api.client import PurposeClient
from gapless.provider_api.pages import walk_pages
from gapless.reconcile import pass_times
from gapless.reconcile.absence_check import AbsenceCheck, soon_us
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.diff import Circumstances
from gapless.reconcile.page_recorder import PageRecorder, named_in_refused
from gapless.reconcile.pass_result import PassResult
from gapless.reconcile.slice_progress import SliceProgress
from gapless_reconcilers.kit.errors import ProviderError, Retryable

FAILURES = 5
"""Slices of a pass on demand that fail, while none is read, after which a run reads no more of them."""
PURPOSES: Mapping[PassKind, Purpose] = {
    PassKind.SCHEDULED: Purpose.HEARTBEAT,
    PassKind.SWEEP: Purpose.SWEEP,
    PassKind.HORIZON: Purpose.HISTORY,
    PassKind.DEMAND: Purpose.URGENT,
    PassKind.RECHECK: Purpose.SWEEP,
}
"""What the requests of each kind of pass are for."""


@dataclass(slots=True, kw_only=True)
class PassRun:
    """A pass under way. `slots` bounds the slices of the source that are read at once; `stream_slots`, the stream's.

    When the client's count of requests has come to `limit`, or `must_pause` returns True, the pass stops where
    it is and goes on later. The first failure ends the run of a pass, except of one on demand: of that, the newest
    slices are read first, one that fails leaves the others alone, and each request is sent once, because the pass is
    tried again at times of its own.
    """

    leased: LeasedSource
    stream: Stream
    row: Pass
    circumstances: Circumstances
    slots: asyncio.Semaphore
    stream_slots: asyncio.Semaphore
    purpose: Purpose = Purpose.HEARTBEAT
    """What its requests are for."""
    lookback: timedelta
    """How long events may take to be listed."""
    young_from: datetime | None = None
    """The time from which on the listed keys are kept in the result; None: none are."""
    limit: float = math.inf
    must_pause: Callable[[], bool] = lambda: False
    result: PassResult = field(default_factory=PassResult)
    _pages: PageRecorder = field(init=False)
    _absences: AbsenceCheck = field(init=False)

    def __post_init__(self) -> None:
        self._pages = PageRecorder(
            leased=self.leased,
            stream=self.stream,
            row=self.row,
            circumstances=self.circumstances,
            result=self.result,
            young_from=self.young_from,
        )
        self._absences = AbsenceCheck(
            leased=self.leased,
            stream=self.stream,
            row=self.row,
            result=self.result,
            client=self._client,
            compare=self._pages.take,
            must_stop=lambda: self._must_stop,
        )

    async def run(self) -> PassResult:
        """Read every open slice. Provider errors are in the result; `LeaseLost` and `StoreError` are raised.

        If the provider refuses the stored cursor of a slice, the slice starts from its beginning the next time.
        """
        self.result.found_before = self.row.found
        parts = await self.leased.runtime.read(passes.slices, pass_id=self.row.id)
        async with asyncio.TaskGroup() as group:
            for part in reversed(parts) if self._is_demanded else parts:
                if not part.done:
                    group.create_task(self._read_slice(part))
        if all(part.done for part in parts):  # a process died between the last slice and closing the pass
            refused = await self._refused_findings()
            self._conclude(await self.leased.write(self._advance, refused=refused))
        await self._close()
        return self.result

    @property
    def _must_stop(self) -> bool:
        is_over = self.leased.client.requests >= self.limit or (self.result.requests > 0 and self.must_pause())
        return self.leased.stopping.is_set() or self._has_failed or is_over

    @property
    def _is_demanded(self) -> bool:
        return self.row.kind is PassKind.DEMAND

    @property
    def _has_failed(self) -> bool:
        if not self._is_demanded:
            return bool(self.result.failures)
        return not self.result.requests and len(self.result.failures) >= FAILURES

    @property
    def _client(self) -> PurposeClient:
        return self.leased.client.spending(self.purpose, once=self._is_demanded)

    async def _is_cancelled(self) -> bool:
        return self._is_demanded and not await self.leased.runtime.read(passes.is_running, pass_id=self.row.id)

    async def _read_slice(self, part: Slice) -> None:
        async with self.stream_slots, self.slots:
            if self._must_stop or await self._is_cancelled():
                return
            progress = await self._progress(part)
            try:
                await self._read_pages(progress)
            except ProviderError as error:
                self.result.failures.append(error)
                if isinstance(error, Retryable):
                    await self._keep_place(progress)
                elif part.cursor is not None:
                    await self.leased.write(passes.save_cursor, slice_id=part.id, cursor=None)

    async def _keep_place(self, progress: SliceProgress) -> None:
        """Let a slice of a pass on demand go on where it failed: no request of it is sent twice in a run."""
        if self._is_demanded and progress.next is not None:
            await self._pages.save(progress, progress.next)
            self.result.progressed = True

    async def _progress(self, part: Slice) -> SliceProgress:
        progress = SliceProgress(part=part, left_us=part.left_us if part.cursor is not None else None)
        if part.cursor is not None:
            progress.shown.frombytes(await self.leased.runtime.read(passes.shown, slice_id=part.id))
            progress.stored = len(progress.shown)
        return progress

    async def _read_pages(self, progress: SliceProgress) -> None:
        cursor = progress.part.cursor
        async with walk_pages(self._client, self.stream.name, progress.window, cursor) as pages:
            async for page in pages:
                await self._pages.take(page, progress)
                progress.next = page.next
                if page.next is not None and (self._must_stop or await self._is_cancelled()):
                    await self._pages.save(progress, page.next)
                    return
        await self._finish_slice(progress)

    async def _refused_findings(self) -> set[str]:
        """Return the keys of findings that are judged next, and that a webhook names which we have refused by now."""
        runtime, limits = self.leased.runtime, self._limits()
        found = await runtime.read(findings.unexplained, stream_id=self.stream.id, before_us=limits.latest_us)
        return await named_in_refused(self.leased, found, min(each.occurred_us for each in found)) if found else set()

    async def _finish_slice(self, progress: SliceProgress) -> None:
        """Close the slice, compare its listing with the webhook events in it, and advance the watermark if allowed."""
        span = pass_times.witness_span(self.leased, self.stream.id, self.row, progress.part)
        hidden = await self._hidden(progress.part)
        witnessed = max(0, await self.leased.runtime.read(witnesses.count_witnesses, span=span) - hidden)
        await self._absences.settle(progress, span, witnessed, hidden)
        refused = await self._refused_findings()
        self._conclude(await self.leased.write(self._finish, progress=progress, witnessed=witnessed, refused=refused))
        self.result.progressed = True

    async def _hidden(self, part: Slice) -> int:
        """Return the number of unreadable rows in the slice. Each may be a witness, which the list then does show."""
        return await self.leased.runtime.read(
            unreadable.count_shown,
            stream_id=self.stream.id,
            start_us=part.start_us,
            end_us=part.end_us,
            since_us=self.row.started_us,
        )

    def _conclude(self, advance: watermarks.Advance) -> None:
        prefix = advance.prefix
        self.result.missed += advance.judged.missed
        self.leased.count_recovered(advance.judged.recovered)
        if prefix.whole:
            self.result.suspect = prefix.suspect and self.row.kind is not PassKind.RECHECK
            self.result.complete = not self.result.suspect

    def _finish(
        self, connection: Connection, progress: SliceProgress, witnessed: int, refused: AbstractSet[str]
    ) -> watermarks.Advance:
        matched = len(set(progress.shown))
        passes.finish_slice(connection, progress.part.id, witnessed, matched, progress.left_us)
        return self._advance(connection, refused)

    def _advance(self, connection: Connection, refused: AbstractSet[str]) -> watermarks.Advance:
        slot = self.leased.runtime.writer.recorder.slot
        return watermarks.advance(connection, self.row, self._limits(), slot, refused)

    def _limits(self) -> watermarks.Limits:
        return pass_times.limits(self.leased, self.row, self.circumstances, self.lookback)

    async def _close(self) -> None:
        """Record how the pass ended. A pass that was only interrupted stays open and goes on later."""
        await self.leased.write(self._close_rows, now_us=self.leased.runtime.now_us)

    def _close_rows(self, connection: Connection, now_us: int) -> None:
        result = self.result
        sums = {
            "listed": result.listed,
            "found": result.found,
            "missed": result.missed,
            "requests": result.requests,
        }
        passes.count(connection, self.row.id, **sums)
        if not result.failures and result.complete:
            covered = {"start_us": self.row.start_us, "end_us": self.row.end_us, "since_us": self.row.started_us}
            unreadable.resolve(connection, self.stream.id, **covered)
            self._count_absences(connection)
        if not result.failures and result.ended:
            failed = self._is_demanded and result.suspect
            passes.finish(connection, self.row.id, result.outcome, now_us, failed=failed)
        if result.complete and self._is_demanded:
            passes.settle_failed(connection, self.row)
        if result.complete and self.row.kind is PassKind.SCHEDULED:
            watermarks.complete_pass(connection, self.stream.id, result.outcome, now_us, result.listed)

    def _count_absences(self, connection: Connection) -> None:
        """Count that a listing which is believed lacked events, and say so unless the source may lack them."""
        lacked = absences.lacked_by(connection, self.stream.id, self.row.id)
        if lacked:
            witnesses.note_absent(connection, self.leased.runtime.writer.recorder.slot, lacked)
            absences.hasten(connection, lacked, soon_us(self.leased))
            allowed = self.leased.source.absences_allowed
            self.result.contradicted = absences.first_held_us(connection, self.stream.id, allowed) is not None
