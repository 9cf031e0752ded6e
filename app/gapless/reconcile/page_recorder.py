"""Compare the pages of a pass with the ledger, and record what it lacks."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

import httpx

from gapless.domain import Cause, Mode, Via, from_us, span_us, to_us
from gapless.ledger import Connection, dead_letters, engine, findings, missing, quarantine
from gapless.ledger.engine import dialect
from gapless.ledger.findings import Recovered
from gapless.ledger.passes import Pass, PassKind
from gapless.ledger.recorder import EventKey, Sighting
from gapless.ledger.streams import Stream
from gapless.ledger.writer import Work
from gapless.reconcile import odd_rows, pass_times
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.diff import Circumstances, Diff, awaited_until, cause_of, compare_page, is_restored
from gapless.reconcile.pass_result import PassResult
from gapless.reconcile.slice_progress import SliceProgress, keep_cursor
from gapless.reconcile.unreadable_rows import set_aside
from gapless_reconcilers.kit.contract import Page, Remedy, RemoteEvent
from gapless_reconcilers.kit.errors import UnexpectedShape

CURSOR_EVERY_S = 5.0
"""How often a slice that finds nothing saves its cursor."""
CLOCKS_DIFFER = timedelta(minutes=5)
"""By our clock, a webhook may come this long before its event occurred by the provider's."""


@dataclass(slots=True, kw_only=True)
class PageRecorder:
    """Compares and records the pages of one pass, and counts into its result. Slices are read side by side."""

    leased: LeasedSource
    stream: Stream
    row: Pass
    circumstances: Circumstances
    result: PassResult
    young_from: datetime | None = None
    """The time from which on the listed keys are kept in the result; None: none are."""
    _setting_aside: asyncio.Lock = field(default_factory=asyncio.Lock)
    """The unreadable rows of all slices count together."""

    async def take(self, page: Page, progress: SliceProgress) -> None:
        """Compare one page with the ledger, and record what it lacks.

        Raises `UnexpectedShape`, once the events are recorded, if too many rows cannot be read for them to be odd ones.
        """
        self.leased.require_same_key()
        source = self.leased.source
        refusal = await self._set_aside(page, progress) if page.unreadable else None
        known = await self.leased.runtime.read(self._look_up(page.events)) if page.events else {}
        ages = pass_times.ages(self.leased, self.row)
        diff = compare_page(page.events, known, source, ages, reach_back=self._is_demanded)
        progress.leave(diff.left, self.leased.capabilities.resolution)
        self.result.listed += len({event.key for event in page.events})
        self.result.requests += 1
        if self.young_from is not None:
            self.result.young.update(each.key for each in page.events if each.occurred_at >= self.young_from)
        progress.shown.extend(diff.witnesses)
        if known and self._may_wait_for_list:
            await self._owe_listed(page.events, known)
        save_cursor = progress.saving(page.next) if refusal is None else progress.starting_again()
        refused = await self._refused(diff.absent) if diff.absent else set()
        if diff.absent and self.leased.capabilities.remedy is not Remedy.LIST:
            await self._note_missing(diff, refused, save_cursor, progress)
        elif diff.absent or refusal is not None:
            await self._record(diff, refused, save_cursor, progress)
        elif (
            not progress.in_other_cut
            and time.monotonic() - progress.saved_at > CURSOR_EVERY_S
            and page.next is not None
        ):
            await self.save(progress, page.next)
        if refusal is not None:
            raise refusal

    @property
    def _is_demanded(self) -> bool:
        return self.row.kind is PassKind.DEMAND

    @property
    def _may_wait_for_list(self) -> bool:
        recorder = self.leased.runtime.writer.recorder
        return self.leased.capabilities.identity_unsigned or recorder.requires_listed

    async def _owe_listed(self, events: Sequence[RemoteEvent], known: dialect.Known) -> None:
        """Owe the deliveries that waited until the list shows their events."""
        runtime = self.leased.runtime
        if pass_times.lists_states(self.leased):
            shown = dict(sorted(map(state_of, events)))  # of each object the latest
            seqs = await runtime.read(dead_letters.of_states, source_id=self.leased.source.id, shown=shown)
        else:
            seqs = [known[event.key][0] for event in events if event.key in known]
        waiting = await runtime.read(dead_letters.not_listed, seqs=seqs) if seqs else []
        if waiting:
            await self.leased.write(dead_letters.owe_listed, seqs=waiting, now_us=runtime.now_us)
            runtime.writer.recorder.wake()

    async def _set_aside(self, page: Page, progress: SliceProgress) -> UnexpectedShape | None:
        """Keep the rows that cannot be read, before the cursor passes them. Return the error if they are too many."""
        times = odd_rows.Times(
            order=self.leased.capabilities.order,
            unit_us=span_us(self.leased.capabilities.resolution),
            start_us=max(progress.part.start_us, to_us(self.leased.source.start)),
            end_us=progress.part.end_us,
        )
        async with self._setting_aside:
            new = await set_aside(self.leased, self.stream, page, times, before=self.result.set_aside)
            if isinstance(new, UnexpectedShape):
                return new
            self.result.set_aside += new
        return None

    async def save(self, progress: SliceProgress, following: httpx.Request) -> None:
        """Save the cursor of a slice: it goes on with the request `following`."""
        await self.leased.write(progress.saving(following))
        progress.note_saved()

    async def _refused(self, absent: Sequence[RemoteEvent]) -> set[str]:
        """Return the keys of absent events that a webhook names which we refused."""
        return await named_in_refused(self.leased, absent, to_us(min(event.occurred_at for event in absent)))

    def _look_up(self, listed: Sequence[RemoteEvent]) -> Work[dialect.Known]:
        settled_before_us = pass_times.settled_before_us(self.leased, self.row)
        if pass_times.lists_states(self.leased):
            return partial(
                dialect.look_up_states,
                source_id=self.leased.source.id,
                listed={event.key: state_of(event) for event in listed},
                before_us=settled_before_us,
            )
        occurred = [event.occurred_at for event in listed]
        return partial(
            dialect.look_up,
            source_id=self.leased.source.id,
            stream_id=self.stream.id,
            keys=[event.key for event in listed],
            span_us=(to_us(min(occurred)), to_us(max(occurred))),
            before_us=settled_before_us,
        )

    async def _record(self, diff: Diff, refused: set[str], save_cursor: Work[None], progress: SliceProgress) -> None:
        sightings = [self._sighting(event, refused) for event in diff.absent]
        try:
            new, recovered = await self.leased.write(self._record_page, sightings=sightings, save_cursor=save_cursor)
            self.leased.count_recovered(recovered)
        except engine.BadData:
            new = await self._record_singly(sightings)
        progress.note_saved()
        self._count(sightings, new)

    async def _note_missing(
        self, diff: Diff, refused: set[str], save_cursor: Work[None], progress: SliceProgress
    ) -> None:
        """Note events of which the list shows only that they exist: `recovery` requests them one by one."""
        remedy = self.leased.capabilities.remedy
        rows = [missing_row(self._sighting(event, refused), remedy) for event in diff.absent]
        added, recovered = await self.leased.write(self._note_page, rows=rows, save_cursor=save_cursor)
        self.leased.count_recovered(recovered)
        progress.note_saved()
        for row in added:
            self.result.count_found(from_us(row.occurred_us), expected=row.expected, awaited=row.awaited)

    def _note_page(
        self, connection: Connection, rows: Sequence[missing.Missing], save_cursor: Work[None]
    ) -> tuple[list[missing.Missing], tuple[Recovered, ...]]:
        slot = self.leased.runtime.writer.recorder.slot
        added, recovered = missing.add(connection, slot, rows), tuple[Recovered, ...]()
        if any(row.awaited for row in added):
            recovered = findings.judge_behind(connection, slot, self.stream.id).recovered
        save_cursor(connection)
        return added, recovered

    def _record_page(
        self, connection: Connection, sightings: Sequence[Sighting], save_cursor: Work[None]
    ) -> tuple[dict[EventKey, int], tuple[Recovered, ...]]:
        recorder = self.leased.runtime.writer.recorder
        new, recovered = recorder.store(connection, sightings), tuple[Recovered, ...]()
        if any(sighting.awaited_until_us is not None for sighting in sightings):
            recovered = findings.judge_behind(connection, recorder.slot, self.stream.id).recovered
        save_cursor(connection)
        return new, recovered

    async def _record_singly(self, sightings: Sequence[Sighting]) -> dict[EventKey, int]:
        """Record the events one by one; each that the store refuses becomes a durable row in `missing`."""
        new: dict[EventKey, int] = {}
        for sighting in sightings:
            try:
                made, recovered = await self.leased.write(
                    self._record_page, sightings=[sighting], save_cursor=keep_cursor
                )
                new |= made
                self.leased.count_recovered(recovered)
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
            awaited_until_us=self._awaited_until_us(event),
            restored=is_restored(to_us(event.occurred_at), self.stream.id, self.circumstances),
            behind_watermark=to_us(event.occurred_at) < self.stream.watermark_us and not self._is_demanded,
        )

    def _awaited_until_us(self, event: RemoteEvent) -> int | None:
        """Return the time by our clock until which the event's webhook may come; None: that time is over."""
        capabilities = self.leased.capabilities
        until = awaited_until(event.occurred_at, capabilities.grace, capabilities.resolution)
        until_us = to_us(until + self.leased.client.behind)
        return until_us if until_us > self.leased.runtime.now_us else None

    def _count(self, sightings: Sequence[Sighting], new: dict[EventKey, int]) -> None:
        for sighting in sightings:
            if sighting.identity not in new:
                continue
            awaited = sighting.awaited_until_us is not None
            self.result.count_found(sighting.event.occurred_at, expected=sighting.expected, awaited=awaited)
            if sighting.source.mode is Mode.POLL:
                delay = max(timedelta(0), from_us(sighting.seen_us) - sighting.event.occurred_at)
                self.leased.runtime.metrics.record_delay.labels(sighting.source.name, Via.LIST.value).observe(
                    delay.total_seconds()
                )


async def named_in_refused(leased: LeasedSource, events: Sequence[quarantine.Named], first_us: int) -> set[str]:
    """Return the keys of `events` that a webhook names which we refused; the first occurred at `first_us`."""
    since_us = first_us - span_us(CLOCKS_DIFFER)
    return await leased.runtime.read(quarantine.named_in, source_id=leased.source.id, events=events, since_us=since_us)


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
        awaited=sighting.awaited_until_us is not None,
    )
