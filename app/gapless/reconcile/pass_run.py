"""One pass: read a window of one stream slice by slice, record what the ledger lacks, move the watermark.

A page's events are durable before its cursor is saved, and a slice's before the watermark moves over
it. Every state write carries the lease: if another process has taken the source over, `LeaseLost`
ends the pass and nothing of it takes effect.
"""

import asyncio
import math
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from gapless.domain import Cause, Via, align_down, from_us, span_us, to_us
from gapless.ledger import Connection, engine, missing, passes, watermarks, witnesses
from gapless.ledger.engine import dialect
from gapless.ledger.passes import Pass, PassKind, Slice
from gapless.ledger.recorder import EventKey, Sighting
from gapless.ledger.streams import Stream
from gapless.ledger.writer import Work
from gapless.provider_api.pages import freeze, walk_pages
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.diff import Circumstances, Diff, cause_of, compare_page
from gapless_reconcilers.kit.contract import Coverage, Page, Remedy, RemoteEvent, Window
from gapless_reconcilers.kit.errors import ProviderError, Retryable, UnexpectedShape

CURSOR_EVERY_S = 5.0
"""How often a slice that finds nothing writes down where it stands."""


@dataclass(slots=True, kw_only=True)
class PassResult:
    """What a pass did, for its row, its log line and the pace."""

    listed: int = 0
    found: int = 0
    missed: int = 0
    requests: int = 0
    oldest_found: datetime | None = None
    failures: list[ProviderError] = field(default_factory=list)
    suspect: bool = False
    complete: bool = False

    @property
    def ended(self) -> bool:
        """Whether the whole window was read, believed or not."""
        return self.complete or self.suspect

    @property
    def outcome(self) -> str:
        """`clean`, `found`, `suspect_listing`, `unfinished`, or the failure in snake case."""
        if self.failures:
            return _snake(type(self.failures[0]).__name__)
        if self.suspect:
            return "suspect_listing"
        if not self.complete:
            return "unfinished"
        return "found" if self.found else "clean"


@dataclass(slots=True, kw_only=True)
class PassRun:
    """A pass under way. `slots` bounds the slices of the source that are read at once, `mine` those of the stream.

    When the client's count of requests has come to `limit`, the pass stops where it is and goes on later.
    """

    leased: LeasedSource
    stream: Stream
    row: Pass
    circumstances: Circumstances
    slots: asyncio.Semaphore
    mine: asyncio.Semaphore
    limit: float = math.inf
    figures: PassResult = field(default_factory=PassResult)

    async def run(self) -> PassResult:
        """Read every open slice. Provider errors end up in the figures; `LeaseLost` and `StoreError` are raised.

        A slice that goes on from a stored cursor which the provider refuses starts afresh the next time.
        """
        parts = await self.leased.runtime.read(passes.slices, pass_id=self.row.id)
        async with asyncio.TaskGroup() as group:
            for part in parts:
                if not part.done:
                    group.create_task(self._read_slice(part))
        if all(part.done for part in parts):  # an earlier process read the last slice, and died before it could close
            self._judge(await self.leased.write(watermarks.advance, pass_=self.row, limit_us=self._limit_us()))
        await self._close()
        return self.figures

    @property
    def _stop(self) -> bool:
        return self.leased.stopping.is_set() or bool(self.figures.failures) or self.leased.client.requests >= self.limit

    @property
    def _lists_states(self) -> bool:
        return self.leased.capabilities.coverage is Coverage.RESOURCE_STATE

    @property
    def _settled_before_us(self) -> int:
        """A webhook that came before this is settled: a listing that started at `started` must show its event."""
        return self.row.started_us - span_us(self.leased.capabilities.grace)

    async def _read_slice(self, part: Slice) -> None:
        async with self.mine, self.slots:
            if self._stop:
                return
            reading = SliceProgress(part=part, matched=part.matched)
            try:
                await self._read_pages(reading)
            except ProviderError as error:
                self.figures.failures.append(error)
                if part.cursor is not None and not isinstance(error, Retryable):
                    await self.leased.write(passes.save_cursor, slice_id=part.id, cursor=None, matched=0)

    async def _read_pages(self, reading: "SliceProgress") -> None:
        part = reading.part
        window = Window(start=from_us(part.start_us), end=from_us(part.end_us))
        async with walk_pages(self.leased.client, self.stream.name, window, part.cursor) as walked:
            async for page in walked:
                await self._take(page, reading)
                if self._stop and page.next is not None:
                    await self._save(reading, freeze(page.next))
                    return
        await self._finish_slice(reading)

    async def _take(self, page: Page, reading: "SliceProgress") -> None:
        """Compare one page with the ledger, and record what it lacks."""
        source = self.leased.source
        known = await self.leased.runtime.read(self._look_up(page.events)) if page.events else {}
        diff = compare_page(page.events, known, source, reach_back=self.row.kind is PassKind.DEMAND)
        self.figures.listed += len(page.events)
        self.figures.requests += 1
        reading.matched += diff.matched
        reading.seen.extend(diff.seen)
        if diff.absent and self.leased.capabilities.remedy is not Remedy.LIST:
            await self._note_missing(diff, None if page.next is None else freeze(page.next), reading)
        elif diff.absent:
            await self._record(diff, None if page.next is None else freeze(page.next), reading)
        elif time.monotonic() - reading.saved_at > CURSOR_EVERY_S and page.next is not None:
            await self._save(reading, freeze(page.next))

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

    async def _record(self, diff: Diff, after: str | None, reading: "SliceProgress") -> None:
        sightings = [self._sighting(event) for event in diff.absent]
        saved = partial(passes.save_cursor, slice_id=reading.part.id, cursor=after, matched=reading.matched)
        try:
            new = await self.leased.write(self._record_page, sightings=sightings, saved=saved)
        except engine.BadData:
            new = await self._record_singly(sightings)
        reading.saved_at = time.monotonic()
        reading.seen.extend(new.values())
        self._count(sightings, new)

    async def _note_missing(self, diff: Diff, after: str | None, reading: "SliceProgress") -> None:
        """The list shows only that they exist: `recovery` asks for them one by one."""
        rows = {
            event.key: self._missing(self._sighting(event), self.leased.capabilities.remedy) for event in diff.absent
        }
        saved = partial(passes.save_cursor, slice_id=reading.part.id, cursor=after, matched=reading.matched)
        made = await self.leased.write(self._note_page, rows=list(rows.values()), saved=saved)
        reading.saved_at = time.monotonic()
        for row in made:
            self._count_found(from_us(row.occurred_us), expected=row.expected)

    def _note_page(
        self, connection: Connection, rows: Sequence[missing.Missing], saved: Work[None]
    ) -> list[missing.Missing]:
        made = missing.add(connection, self.leased.runtime.writer.recorder.slot, rows)
        saved(connection)
        return made

    def _record_page(
        self, connection: Connection, sightings: Sequence[Sighting], saved: Work[None]
    ) -> dict[EventKey, int]:
        new = self.leased.runtime.writer.recorder.store(connection, sightings)
        saved(connection)
        return new

    async def _record_singly(self, sightings: Sequence[Sighting]) -> dict[EventKey, int]:
        """Record what can be; what the store refuses becomes a durable row in `missing`."""
        new: dict[EventKey, int] = {}
        for sighting in sightings:
            try:
                new |= await self.leased.write(self._record_page, sightings=[sighting], saved=_nothing)
            except engine.BadData:
                row = self._missing(sighting, "unstorable")
                slot = self.leased.runtime.writer.recorder.slot
                await self.leased.write(missing.add, slot=slot, found=[row])
        return new

    def _sighting(self, event: RemoteEvent) -> Sighting:
        return Sighting(
            source=self.leased.source,
            stream_id=self.stream.id,
            event=event,
            via=Via.LIST,
            seen_us=self.leased.runtime.now_us,
            cause=cause_of(event, self.circumstances),
            behind_watermark=to_us(event.occurred_at) < self.stream.watermark_us
            and self.row.kind is not PassKind.DEMAND,
        )

    def _missing(self, sighting: Sighting, reason: str) -> missing.Missing:
        return missing_row(sighting, cause_of(sighting.event, self.circumstances), reason)

    def _count(self, sightings: Sequence[Sighting], new: dict[EventKey, int]) -> None:
        for sighting in sightings:
            if sighting.identity not in new:
                continue
            event = sighting.event
            self._count_found(event.occurred_at, expected=sighting.source.expects(event))
            delay = max(timedelta(0), from_us(sighting.seen_us) - event.occurred_at)
            self.leased.runtime.metrics.record_delay.labels(sighting.source.name, Via.LIST.value).observe(
                delay.total_seconds()
            )

    def _count_found(self, occurred_at: datetime, *, expected: bool) -> None:
        self.figures.found += 1
        self.figures.missed += expected
        oldest = self.figures.oldest_found
        self.figures.oldest_found = occurred_at if oldest is None else min(oldest, occurred_at)

    async def _save(self, reading: "SliceProgress", cursor: str) -> None:
        reading.saved_at = time.monotonic()
        await self.leased.write(passes.save_cursor, slice_id=reading.part.id, cursor=cursor, matched=reading.matched)

    async def _finish_slice(self, reading: "SliceProgress") -> None:
        """Close the slice, hold its listing against the webhook events in it, and move the watermark if it may."""
        part, known = reading.part, self.leased.capabilities
        edge_us = 0 if known.exact_times else span_us(known.grace)  # so far both ways in may differ about when
        span = witnesses.WitnessSpan(
            stream_id=self.stream.id,
            start_us=part.start_us + edge_us,
            end_us=part.end_us - edge_us,
            before_us=self._settled_before_us,
            last_states=self._lists_states,
        )
        witnessed = await self.leased.runtime.read(witnesses.count_witnesses, span=span)
        absent: list[int] = []
        if 0 < reading.matched < witnessed and part.cursor is None and not self._lists_states:
            absent = await self.leased.runtime.read(witnesses.absent, span=span, seen=frozenset(reading.seen))
        prefix = await self.leased.write(self._advance, reading=reading, witnessed=witnessed, absent=absent)
        self._judge(prefix)

    def _judge(self, prefix: watermarks.Prefix) -> None:
        if prefix.end_us >= self.row.end_us:
            self.figures.suspect, self.figures.complete = prefix.suspect, not prefix.suspect

    def _advance(
        self, connection: Connection, reading: "SliceProgress", witnessed: int, absent: Sequence[int]
    ) -> watermarks.Prefix:
        passes.finish_slice(connection, reading.part.id, witnessed, reading.matched)
        if absent:
            witnesses.note_absent(connection, self.leased.runtime.writer.recorder.slot, absent)
        return watermarks.advance(connection, self.row, self._limit_us())

    def _limit_us(self) -> int:
        """The provider's own now less the grace, in whole units of its stamps: beyond it the listing may still grow."""
        known = self.leased.capabilities
        theirs = from_us(self.row.started_us) - self.leased.client.behind
        return to_us(align_down(theirs - known.grace, known.resolution))

    async def _close(self) -> None:
        """Write down how the pass ended. A pass that was only interrupted stays open and goes on later."""
        await self.leased.write(self._close_rows, now_us=self.leased.runtime.now_us)

    def _close_rows(self, connection: Connection, now_us: int) -> None:
        figures = self.figures
        sums = {
            "listed": figures.listed,
            "found": figures.found,
            "missed": figures.missed,
            "requests": figures.requests,
        }
        passes.count(connection, self.row.id, **sums)
        if not figures.failures and figures.ended:
            passes.finish(connection, self.row.id, figures.outcome, now_us)
        if figures.complete and self.row.kind is PassKind.SCHEDULED:
            watermarks.complete_pass(connection, self.stream.id, figures.outcome, now_us, figures.listed)


@dataclass(slots=True, kw_only=True)
class SliceProgress:
    """How far the reading of one slice has come. `seen` holds the seq of every event that the listing showed."""

    part: Slice
    matched: int
    seen: "array[int]" = field(default_factory=lambda: array("q"))
    saved_at: float = field(default_factory=time.monotonic)


def state_of(event: RemoteEvent) -> tuple[str, int]:
    """(object key, object version) of a listed state. Raises `UnexpectedShape` if it has none."""
    if event.object_key is None or event.object_version is None:
        raise UnexpectedShape(f"event {event.key!r}", "without object_key or object_version", "a state of an object")
    return event.object_key, event.object_version


def missing_row(sighting: Sighting, cause: Cause, reason: str) -> missing.Missing:
    """The row of an event that is known to exist and cannot be recorded at once."""
    event = sighting.event
    return missing.Missing(
        source_id=sighting.source.id,
        stream_id=sighting.stream_id,
        key=event.key,
        type=event.type,
        occurred_us=to_us(event.occurred_at),
        found_us=sighting.seen_us,
        expected=sighting.source.expects(event),
        cause=cause,
        reason=reason,
        ref=event.ref,
    )


def _nothing(_connection: Connection) -> None:
    """No cursor to save."""


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
