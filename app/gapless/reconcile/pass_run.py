"""One pass: read a window of one stream slice by slice, record what the ledger lacks, move the watermark.

A page's events are durable before its cursor is saved, and a slice's before the watermark moves over
it. Every write of state checks the lease: if another process has taken the source over, `LeaseLost`
ends the pass and nothing is written.
"""

import asyncio
import math
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from gapless.domain import Cause, Via, align_down, from_us, span_us, to_us
from gapless.ledger import Connection, engine, missing, passes, quarantine, watermarks, witnesses
from gapless.ledger.engine import dialect
from gapless.ledger.passes import Pass, PassKind, Slice
from gapless.ledger.recorder import EventKey, Sighting
from gapless.ledger.streams import Stream
from gapless.ledger.writer import Work
from gapless.provider_api.pages import freeze, walk_pages
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.diff import Circumstances, Diff, cause_of, compare_page, is_restored
from gapless_reconcilers.kit.contract import Coverage, Page, Remedy, RemoteEvent, Window
from gapless_reconcilers.kit.errors import ProviderError, Retryable, UnexpectedShape

CURSOR_EVERY_S = 5.0
"""How often a slice that finds nothing saves its cursor."""
FAILURES = 5
"""Slices of a pass on demand that fail, while none is read, after which a run reads no more of them."""
CLOCKS_DIFFER = timedelta(minutes=5)
"""By our clock, a webhook may come this long before its event occurred by the provider's."""


@dataclass(slots=True, kw_only=True)
class PassResult:
    """The counts and the outcome of a pass, for its row, its log line and the pace."""

    listed: int = 0
    found: int = 0
    missed: int = 0
    requests: int = 0
    oldest_found: datetime | None = None
    failures: list[ProviderError] = field(default_factory=list)
    suspect: bool = False
    complete: bool = False
    progressed: bool = False
    """True if a slice was read to its end, or goes on behind where it began."""

    @property
    def ended(self) -> bool:
        """Return True if the whole window was read, believed or not."""
        return self.complete or self.suspect

    @property
    def outcome(self) -> str:
        """Return `clean`, `found`, `suspect_listing`, `unfinished`, or the failure in snake case."""
        if self.failures:
            return _snake(type(self.failures[0]).__name__)
        if self.suspect:
            return "suspect_listing"
        if not self.complete:
            return "unfinished"
        return "found" if self.found else "clean"


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
    limit: float = math.inf
    must_pause: Callable[[], bool] = lambda: False
    result: PassResult = field(default_factory=PassResult)

    async def run(self) -> PassResult:
        """Read every open slice. Provider errors are in the result; `LeaseLost` and `StoreError` are raised.

        If the provider refuses the stored cursor of a slice, the slice starts from its beginning the next time.
        """
        parts = await self.leased.runtime.read(passes.slices, pass_id=self.row.id)
        async with asyncio.TaskGroup() as group:
            for part in reversed(parts) if self._is_demanded else parts:
                if not part.done:
                    group.create_task(self._read_slice(part))
        if all(part.done for part in parts):  # a process died between the last slice and closing the pass
            self._conclude(await self.leased.write(watermarks.advance, pass_=self.row, limit_us=self._limit_us()))
        await self._close()
        return self.result

    @property
    def _must_stop(self) -> bool:
        is_over = self.leased.client.requests >= self.limit or self.must_pause()
        return self.leased.stopping.is_set() or self._has_failed or is_over

    @property
    def _is_demanded(self) -> bool:
        return self.row.kind is PassKind.DEMAND

    @property
    def _has_failed(self) -> bool:
        if not self._is_demanded:
            return bool(self.result.failures)
        return not self.result.requests and len(self.result.failures) >= FAILURES

    async def _is_cancelled(self) -> bool:
        return self._is_demanded and not await self.leased.runtime.read(passes.is_running, pass_id=self.row.id)

    @property
    def _lists_states(self) -> bool:
        return self.leased.capabilities.coverage is Coverage.RESOURCE_STATE

    @property
    def _settled_before_us(self) -> int:
        """A webhook that came before this time is settled: the listing of this pass must show its event."""
        return self.row.started_us - span_us(self.leased.capabilities.grace)

    async def _read_slice(self, part: Slice) -> None:
        async with self.stream_slots, self.slots:
            if self._must_stop or await self._is_cancelled():
                return
            progress = SliceProgress(part=part, matched=part.matched)
            try:
                await self._read_pages(progress)
            except ProviderError as error:
                self.result.failures.append(error)
                if isinstance(error, Retryable):
                    await self._keep_place(progress)
                elif part.cursor is not None:
                    await self.leased.write(passes.save_cursor, slice_id=part.id, cursor=None, matched=0)

    async def _keep_place(self, progress: "SliceProgress") -> None:
        """Let a slice of a pass on demand go on where it failed: no request of it is sent twice in a run."""
        if self._is_demanded and progress.next is not None:
            await self._save(progress, progress.next)
            self.result.progressed = True

    async def _read_pages(self, progress: "SliceProgress") -> None:
        part = progress.part
        window = Window(start=from_us(part.start_us), end=from_us(part.end_us))
        async with walk_pages(
            self.leased.client, self.stream.name, window, part.cursor, retry=not self._is_demanded
        ) as pages:
            async for page in pages:
                await self._compare_and_record(page, progress)
                progress.next = None if page.next is None else freeze(page.next)
                if progress.next is not None and (self._must_stop or await self._is_cancelled()):
                    await self._save(progress, progress.next)
                    return
        await self._finish_slice(progress)

    async def _compare_and_record(self, page: Page, progress: "SliceProgress") -> None:
        """Compare one page with the ledger, and record what it lacks."""
        source = self.leased.source
        known = await self.leased.runtime.read(self._look_up(page.events)) if page.events else {}
        diff = compare_page(page.events, known, source, reach_back=self._is_demanded)
        self.result.listed += len({event.key for event in page.events})
        self.result.requests += 1
        progress.matched += diff.matched
        progress.seen.extend(diff.seen)
        refused = await self._refused(diff.absent) if diff.absent else set()
        if diff.absent and self.leased.capabilities.remedy is not Remedy.LIST:
            await self._note_missing(diff, refused, None if page.next is None else freeze(page.next), progress)
        elif diff.absent:
            await self._record(diff, refused, None if page.next is None else freeze(page.next), progress)
        elif time.monotonic() - progress.saved_at > CURSOR_EVERY_S and page.next is not None:
            await self._save(progress, freeze(page.next))

    async def _refused(self, absent: Sequence[RemoteEvent]) -> set[str]:
        """Return the keys of absent events that a webhook names which we refused."""
        return await self.leased.runtime.read(
            quarantine.named_in,
            source_id=self.leased.source.id,
            events=absent,
            since_us=to_us(min(event.occurred_at for event in absent)) - span_us(CLOCKS_DIFFER),
        )

    def _look_up(self, listed: Sequence[RemoteEvent]) -> Work[dialect.Known]:
        if self._lists_states:
            return partial(
                dialect.look_up_states,
                source_id=self.leased.source.id,
                listed={event.key: state_of(event) for event in listed},
                before_us=self._settled_before_us,
            )
        occurred = [event.occurred_at for event in listed]
        return partial(
            dialect.look_up,
            source_id=self.leased.source.id,
            stream_id=self.stream.id,
            keys=[event.key for event in listed],
            span_us=(to_us(min(occurred)), to_us(max(occurred))),
            before_us=self._settled_before_us,
        )

    async def _record(self, diff: Diff, refused: set[str], cursor: str | None, progress: "SliceProgress") -> None:
        sightings = [self._sighting(event, refused) for event in diff.absent]
        save_cursor = partial(passes.save_cursor, slice_id=progress.part.id, cursor=cursor, matched=progress.matched)
        try:
            new = await self.leased.write(self._record_page, sightings=sightings, save_cursor=save_cursor)
        except engine.BadData:
            new = await self._record_singly(sightings)
        progress.saved_at = time.monotonic()
        progress.seen.extend(new.values())
        self._count(sightings, new)

    async def _note_missing(self, diff: Diff, refused: set[str], cursor: str | None, progress: "SliceProgress") -> None:
        """Note events of which the list shows only that they exist: `recovery` requests them one by one."""
        remedy = self.leased.capabilities.remedy
        rows = [missing_row(self._sighting(event, refused), remedy) for event in diff.absent]
        save_cursor = partial(passes.save_cursor, slice_id=progress.part.id, cursor=cursor, matched=progress.matched)
        added = await self.leased.write(self._note_page, rows=rows, save_cursor=save_cursor)
        progress.saved_at = time.monotonic()
        for row in added:
            self._count_found(from_us(row.occurred_us), expected=row.expected)

    def _note_page(
        self, connection: Connection, rows: Sequence[missing.Missing], save_cursor: Work[None]
    ) -> list[missing.Missing]:
        added = missing.add(connection, self.leased.runtime.writer.recorder.slot, rows)
        save_cursor(connection)
        return added

    def _record_page(
        self, connection: Connection, sightings: Sequence[Sighting], save_cursor: Work[None]
    ) -> dict[EventKey, int]:
        new = self.leased.runtime.writer.recorder.store(connection, sightings)
        save_cursor(connection)
        return new

    async def _record_singly(self, sightings: Sequence[Sighting]) -> dict[EventKey, int]:
        """Record the events one by one; each that the store refuses becomes a durable row in `missing`."""
        new: dict[EventKey, int] = {}
        for sighting in sightings:
            try:
                new |= await self.leased.write(self._record_page, sightings=[sighting], save_cursor=_keep_cursor)
            except engine.BadData:
                row = missing_row(sighting, "unstorable")
                slot = self.leased.runtime.writer.recorder.slot
                await self.leased.write(missing.add, slot=slot, found=[row])
        return new

    def _sighting(self, event: RemoteEvent, refused: set[str]) -> Sighting:
        return Sighting(
            source=self.leased.source,
            stream_id=self.stream.id,
            event=event,
            via=Via.LIST,
            seen_us=self.leased.runtime.now_us,
            cause=cause_of(event, self.circumstances, refused),
            restored=is_restored(to_us(event.occurred_at), self.stream.id, self.circumstances),
            behind_watermark=to_us(event.occurred_at) < self.stream.watermark_us and not self._is_demanded,
        )

    def _count(self, sightings: Sequence[Sighting], new: dict[EventKey, int]) -> None:
        for sighting in sightings:
            if sighting.identity not in new:
                continue
            event = sighting.event
            self._count_found(event.occurred_at, expected=sighting.expected)
            delay = max(timedelta(0), from_us(sighting.seen_us) - event.occurred_at)
            self.leased.runtime.metrics.record_delay.labels(sighting.source.name, Via.LIST.value).observe(
                delay.total_seconds()
            )

    def _count_found(self, occurred_at: datetime, *, expected: bool) -> None:
        self.result.found += 1
        self.result.missed += expected
        oldest = self.result.oldest_found
        self.result.oldest_found = occurred_at if oldest is None else min(oldest, occurred_at)

    async def _save(self, progress: "SliceProgress", cursor: str) -> None:
        progress.saved_at = time.monotonic()
        await self.leased.write(passes.save_cursor, slice_id=progress.part.id, cursor=cursor, matched=progress.matched)

    async def _finish_slice(self, progress: "SliceProgress") -> None:
        """Close the slice, compare its listing with the webhook events in it, and advance the watermark if allowed."""
        part, capabilities = progress.part, self.leased.capabilities
        # Unless times are exact, webhook and list may differ by up to the grace about when an event occurred.
        edge_us = 0 if capabilities.exact_times else span_us(capabilities.grace)
        span = witnesses.WitnessSpan(
            stream_id=self.stream.id,
            start_us=part.start_us + edge_us,
            end_us=part.end_us - edge_us,
            before_us=self._settled_before_us,
            last_states=self._lists_states,
        )
        witnessed = await self.leased.runtime.read(witnesses.count_witnesses, span=span)
        absent: list[int] = []
        if 0 < progress.matched < witnessed and part.cursor is None and not self._lists_states:
            absent = await self.leased.runtime.read(witnesses.absent, span=span, seen=frozenset(progress.seen))
        prefix = await self.leased.write(self._advance, progress=progress, witnessed=witnessed, absent=absent)
        self.result.progressed = True
        self._conclude(prefix)

    def _conclude(self, prefix: watermarks.Prefix) -> None:
        if prefix.end_us >= self.row.end_us:
            self.result.suspect, self.result.complete = prefix.suspect, not prefix.suspect

    def _advance(
        self, connection: Connection, progress: "SliceProgress", witnessed: int, absent: Sequence[int]
    ) -> watermarks.Prefix:
        passes.finish_slice(connection, progress.part.id, witnessed, progress.matched)
        if absent:
            witnesses.note_absent(connection, self.leased.runtime.writer.recorder.slot, absent)
        return watermarks.advance(connection, self.row, self._limit_us())

    def _limit_us(self) -> int:
        """Return the provider's own now less the grace, in whole units of its times: later, the list may still grow."""
        capabilities = self.leased.capabilities
        provider_now = from_us(self.row.started_us) - self.leased.client.behind
        return to_us(align_down(provider_now - capabilities.grace, capabilities.resolution))

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
        if not result.failures and result.ended:
            failed = self._is_demanded and result.suspect
            passes.finish(connection, self.row.id, result.outcome, now_us, failed=failed)
        if result.complete and self._is_demanded:
            passes.settle_failed(connection, self.row)
        if result.complete and self.row.kind is PassKind.SCHEDULED:
            watermarks.complete_pass(connection, self.stream.id, result.outcome, now_us, result.listed)


@dataclass(slots=True, kw_only=True)
class SliceProgress:
    """The progress of one slice. `seen` holds the seq of every event that the listing showed."""

    part: Slice
    matched: int
    seen: "array[int]" = field(default_factory=lambda: array("q"))
    saved_at: float = field(default_factory=time.monotonic)
    next: str | None = None
    """The request for the next page, frozen; None: no page was read yet, or the last one was."""


def state_of(event: RemoteEvent) -> tuple[str, int]:
    """Return (object key, object version) of a listed state. Raises `UnexpectedShape` if it has none."""
    if event.object_key is None or event.object_version is None:
        raise UnexpectedShape(f"event {event.key!r}", "without object_key or object_version", "a state of an object")
    return event.object_key, event.object_version


def missing_row(sighting: Sighting, reason: str) -> missing.Missing:
    """Return the row of an event that is known to exist and cannot be recorded at once."""
    event = sighting.event
    return missing.Missing(
        source_id=sighting.source.id,
        stream_id=sighting.stream_id,
        key=event.key,
        type=event.type,
        occurred_us=to_us(event.occurred_at),
        found_us=sighting.seen_us,
        expected=sighting.expected,
        cause=sighting.cause or Cause.UNEXPLAINED,
        reason=reason,
        ref=event.ref,
    )


def _keep_cursor(_connection: Connection) -> None:
    """Save no cursor."""


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
