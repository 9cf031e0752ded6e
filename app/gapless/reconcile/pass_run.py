"""One pass: read a window of one stream slice by slice, record what the ledger lacks, move the watermark.

A page's events are durable before its cursor is saved, and a slice's before the watermark moves over
it. Every write of state checks the lease: if another process has taken the source over, `LeaseLost`
ends the pass and nothing is written.
"""

import asyncio
import logging
import math
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx

from gapless.domain import Cause, Mode, Purpose, Via, align_down, from_us, span_us, to_us
from gapless.ledger import (
    Connection,
    absences,
    dead_letters,
    engine,
    findings,
    missing,
    passes,
    quarantine,
    unreadable,
    watermarks,
    witnesses,
)
from gapless.ledger.engine import dialect
from gapless.ledger.findings import Recovered
from gapless.ledger.passes import Pass, PassKind, Slice
from gapless.ledger.recorder import EventKey, Sighting
from gapless.ledger.streams import Stream
from gapless.ledger.writer import Work
from gapless.provider_api.client import PurposeClient
from gapless.provider_api.pages import freeze, walk_pages
from gapless.reconcile import odd_rows
from gapless.reconcile.context import LeasedSource
from gapless.reconcile.contradiction import MOST_WINDOWS, OtherCuts, windows_around
from gapless.reconcile.diff import Ages, Circumstances, Diff, awaited_until, cause_of, compare_page, is_restored
from gapless.reconcile.window import claimed_up_to, recorded_up_to
from gapless_reconcilers.kit.contract import Coverage, Page, Remedy, RemoteEvent, Window
from gapless_reconcilers.kit.errors import ProviderError, Retryable, UnexpectedShape

log = logging.getLogger(__name__)
CURSOR_EVERY_S = 5.0
"""How often a slice that finds nothing saves its cursor."""
FAILURES = 5
"""Slices of a pass on demand that fail, while none is read, after which a run reads no more of them."""
CLOCKS_DIFFER = timedelta(minutes=5)
"""By our clock, a webhook may come this long before its event occurred by the provider's."""
PURPOSES: Mapping[PassKind, Purpose] = {
    PassKind.SCHEDULED: Purpose.HEARTBEAT,
    PassKind.SWEEP: Purpose.SWEEP,
    PassKind.HORIZON: Purpose.HISTORY,
    PassKind.DEMAND: Purpose.URGENT,
    PassKind.RECHECK: Purpose.SWEEP,
}
"""What the requests of each kind of pass are for."""
NOTED_AT_ONCE = 500
"""Absent events that are noted in one transaction, so that webhooks need not wait for long."""


@dataclass(slots=True, kw_only=True)
class PassResult:
    """The counts and the outcome of a pass, for its row, its log line and the pace."""

    listed: int = 0
    found: int = 0
    found_before: int = 0
    """What earlier runs of the same pass have found."""
    expected: int = 0
    """Number of expected events among the found: missed, or found before that could be said."""
    missed: int = 0
    """Number of events that were judged missed: found just now, or by an earlier pass."""
    requests: int = 0
    set_aside: int = 0
    """Number of unreadable rows that were new."""
    oldest_found: datetime | None = None
    failures: list[ProviderError] = field(default_factory=list)
    young: set[str] = field(default_factory=set)
    """The keys of the young events that were listed."""
    suspect: bool = False
    contradicted: bool = False
    absent_anew: bool = False
    """The listing lacks events whose webhooks came, and which no listing lacked before."""
    complete: bool = False
    progressed: bool = False
    """True if a slice was read to its end, or goes on behind where it began."""

    @property
    def ended(self) -> bool:
        """Return True if the whole window was read, believed or not."""
        return self.complete or self.suspect

    @property
    def outcome(self) -> str:
        """Return `clean`, `found`, `contradicted`, `suspect_listing`, `unfinished`, or the failure in snake case."""
        if self.failures:
            return _snake(type(self.failures[0]).__name__)
        if self.suspect:
            return "suspect_listing"
        if not self.complete:
            return "unfinished"
        if self.contradicted:
            return "contradicted"
        return "found" if self.found or self.found_before else "clean"


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
    windows_left: int = MOST_WINDOWS
    """Windows in which the pass may still look for absent events."""
    result: PassResult = field(default_factory=PassResult)
    _setting_aside: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Slices are read side by side, and the unreadable rows of all of them count together."""

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

    @property
    def _lists_states(self) -> bool:
        return self.leased.capabilities.coverage is Coverage.RESOURCE_STATE

    @property
    def _settled_before_us(self) -> int:
        """A webhook that came before this time is settled: the listing of this pass must show its event."""
        return self.row.started_us - span_us(self.leased.capabilities.grace)

    @property
    def _listed_before(self) -> datetime:
        """What occurred before this time, at the provider, was due in the list when the pass began."""
        capabilities, skew = self.leased.capabilities, self.leased.client.skew or timedelta(0)
        return align_down(from_us(self.row.started_us) - skew - capabilities.grace, capabilities.resolution)

    def _ages(self) -> Ages:
        """Return the times that tell the ages of the rows of a page that was read just now."""
        client, exact = self.leased.client, self.leased.capabilities.exact_times
        return Ages(
            settled=recorded_up_to(client.provider_now, self.leased.settle),
            witnesses=self._listed_before if exact else datetime.max.replace(tzinfo=UTC),
        )

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

    async def _keep_place(self, progress: "SliceProgress") -> None:
        """Let a slice of a pass on demand go on where it failed: no request of it is sent twice in a run."""
        if self._is_demanded and progress.next is not None:
            await self._save(progress, progress.next)
            self.result.progressed = True

    async def _progress(self, part: Slice) -> "SliceProgress":
        progress = SliceProgress(part=part, left_us=part.left_us if part.cursor is not None else None)
        if part.cursor is not None:
            progress.shown.frombytes(await self.leased.runtime.read(passes.shown, slice_id=part.id))
            progress.stored = len(progress.shown)
        return progress

    async def _read_pages(self, progress: "SliceProgress") -> None:
        cursor = progress.part.cursor
        async with walk_pages(self._client, self.stream.name, progress.window, cursor) as pages:
            async for page in pages:
                await self._compare_and_record(page, progress)
                progress.next = page.next
                if page.next is not None and (self._must_stop or await self._is_cancelled()):
                    await self._save(progress, page.next)
                    return
        await self._finish_slice(progress)

    async def _compare_and_record(self, page: Page, progress: "SliceProgress") -> None:
        """Compare one page with the ledger, and record what it lacks.

        Raises `UnexpectedShape`, once the events are recorded, if too many rows cannot be read for them to be odd ones.
        """
        self.leased.require_same_key()
        source = self.leased.source
        refusal = await self._set_aside(page, progress) if page.unreadable else None
        known = await self.leased.runtime.read(self._look_up(page.events)) if page.events else {}
        diff = compare_page(page.events, known, source, self._ages(), reach_back=self._is_demanded)
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
            await self._save(progress, page.next)
        if refusal is not None:
            raise refusal

    @property
    def _may_wait_for_list(self) -> bool:
        recorder = self.leased.runtime.writer.recorder
        return self.leased.capabilities.identity_unsigned or recorder.requires_listed

    async def _owe_listed(self, events: Sequence[RemoteEvent], known: dialect.Known) -> None:
        """Owe the deliveries that waited until the list shows their events."""
        runtime = self.leased.runtime
        if self._lists_states:
            shown = dict(sorted(map(state_of, events)))  # of each object the latest
            seqs = await runtime.read(dead_letters.of_states, source_id=self.leased.source.id, shown=shown)
        else:
            seqs = [known[event.key][0] for event in events if event.key in known]
        waiting = await runtime.read(dead_letters.not_listed, seqs=seqs) if seqs else []
        if waiting:
            await self.leased.write(dead_letters.owe_listed, seqs=waiting, now_us=runtime.now_us)
            runtime.writer.recorder.wake()

    async def _set_aside(self, page: Page, progress: "SliceProgress") -> UnexpectedShape | None:
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

    async def _refused(self, absent: Sequence[RemoteEvent]) -> set[str]:
        """Return the keys of absent events that a webhook names which we refused."""
        return await self._named_in_refused(absent, to_us(min(event.occurred_at for event in absent)))

    async def _refused_findings(self) -> set[str]:
        """Return the keys of findings that are judged next, and that a webhook names which we have refused by now."""
        runtime = self.leased.runtime
        found = await runtime.read(findings.unexplained, stream_id=self.stream.id, before_us=self._limits().latest_us)
        return await self._named_in_refused(found, min(each.occurred_us for each in found)) if found else set()

    async def _named_in_refused(self, events: Sequence[quarantine.Named], first_us: int) -> set[str]:
        return await self.leased.runtime.read(
            quarantine.named_in,
            source_id=self.leased.source.id,
            events=events,
            since_us=first_us - span_us(CLOCKS_DIFFER),
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

    async def _record(self, diff: Diff, refused: set[str], save_cursor: Work[None], progress: "SliceProgress") -> None:
        sightings = [self._sighting(event, refused) for event in diff.absent]
        try:
            new, recovered = await self.leased.write(self._record_page, sightings=sightings, save_cursor=save_cursor)
            self.leased.count_recovered(recovered)
        except engine.BadData:
            new = await self._record_singly(sightings)
        progress.note_saved()
        self._count(sightings, new)

    async def _note_missing(
        self, diff: Diff, refused: set[str], save_cursor: Work[None], progress: "SliceProgress"
    ) -> None:
        """Note events of which the list shows only that they exist: `recovery` requests them one by one."""
        remedy = self.leased.capabilities.remedy
        rows = [missing_row(self._sighting(event, refused), remedy) for event in diff.absent]
        added, recovered = await self.leased.write(self._note_page, rows=rows, save_cursor=save_cursor)
        self.leased.count_recovered(recovered)
        progress.note_saved()
        for row in added:
            self._count_found(from_us(row.occurred_us), expected=row.expected, awaited=row.awaited)

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
                    self._record_page, sightings=[sighting], save_cursor=_keep_cursor
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
            self._count_found(sighting.event.occurred_at, expected=sighting.expected, awaited=awaited)
            if sighting.source.mode is Mode.POLL:
                delay = max(timedelta(0), from_us(sighting.seen_us) - sighting.event.occurred_at)
                self.leased.runtime.metrics.record_delay.labels(sighting.source.name, Via.LIST.value).observe(
                    delay.total_seconds()
                )

    def _count_found(self, occurred_at: datetime, *, expected: bool, awaited: bool) -> None:
        self.result.found += 1
        self.result.expected += expected
        self.result.missed += expected and not awaited
        oldest = self.result.oldest_found
        self.result.oldest_found = occurred_at if oldest is None else min(oldest, occurred_at)

    async def _save(self, progress: "SliceProgress", following: httpx.Request) -> None:
        await self.leased.write(progress.saving(following))
        progress.note_saved()

    async def _finish_slice(self, progress: "SliceProgress") -> None:
        """Close the slice, compare its listing with the webhook events in it, and advance the watermark if allowed."""
        span = self._witness_span(progress.part)
        hidden = await self._hidden(progress.part)
        witnessed = max(0, await self.leased.runtime.read(witnesses.count_witnesses, span=span) - hidden)
        await self._settle_absences(progress, span, witnessed, hidden)
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
        self, connection: Connection, progress: "SliceProgress", witnessed: int, refused: AbstractSet[str]
    ) -> watermarks.Advance:
        matched = len(set(progress.shown))
        passes.finish_slice(connection, progress.part.id, witnessed, matched, progress.left_us)
        return self._advance(connection, refused)

    def _advance(self, connection: Connection, refused: AbstractSet[str]) -> watermarks.Advance:
        slot = self.leased.runtime.writer.recorder.slot
        return watermarks.advance(connection, self.row, self._limits(), slot, refused)

    async def _settle_absences(
        self, progress: "SliceProgress", span: witnesses.WitnessSpan, witnessed: int, hidden: int
    ) -> None:
        """Look in other cuts of the list for witnesses that it lacks, and note which are absent and which no longer."""
        if self._lists_states:  # an object that has changed again or was deleted is no longer listed in its window
            return
        accepted = await self.leased.runtime.read(absences.accepted, stream_id=self.stream.id)
        is_short = len({*progress.shown} - accepted) < witnessed or not self.leased.capabilities.exact_times
        absent: dict[int, int] = {}
        if witnessed and is_short:
            absent = await self.leased.runtime.read(witnesses.absent, span=span, shown=frozenset(progress.shown))
        if len(absent) <= hidden:
            absent = {}
        known = {
            each.event_seq: each
            for each in await self.leased.runtime.read(absences.open_absences, stream_id=self.stream.id)
        }
        tried = await self._look_elsewhere(progress, absent, known) if absent else set[int]()
        shown = frozenset(progress.shown)
        listed = known.keys() & shown
        if listed:
            await self.leased.write(absences.close_listed, seqs=listed)
        left = {seq: us for seq, us in absent.items() if seq not in shown}
        self.result.absent_anew |= bool(left.keys() - known.keys())
        ordered = sorted(left)
        for at in range(0, len(ordered), NOTED_AT_ONCE):
            part = {seq: left[seq] for seq in ordered[at : at + NOTED_AT_ONCE]}
            await self.leased.write(self._note_absent, absent=part, tried=tried)

    async def _look_elsewhere(
        self, progress: "SliceProgress", absent: Mapping[int, int], known: Mapping[int, absences.Absence]
    ) -> set[int]:
        """Look in other cuts of the list for absent events whose turn it is. Return the seqs that were looked for."""
        now_us, capabilities = self.leased.runtime.now_us, self.leased.capabilities
        due = {seq: us for seq, us in absent.items() if seq not in known or known[seq].next_us <= now_us}
        windows = windows_around(due.values(), capabilities, max(self.windows_left, 1))
        self.windows_left -= len(windows)
        cuts = OtherCuts(
            client=self._client,
            capabilities=capabilities,
            stream=self.stream.name,
            window=progress.window,
            compare=partial(self._compare_and_record, progress=progress),
            shown=lambda: frozenset(progress.shown),
            must_stop=lambda: self._must_stop,
        )
        progress.in_other_cut = True
        return await cuts.look_for(due, windows)

    def _note_absent(self, connection: Connection, absent: Mapping[int, int], tried: AbstractSet[int]) -> None:
        runtime, policy = self.leased.runtime, self.leased.policy
        absences.note(connection, self.stream.id, self.row.id, absent, runtime.now_us)
        later_us = runtime.now_us + span_us(policy.sweep_every)
        absences.note_tries(connection, tried & absent.keys(), self._soon_us, later_us)

    @property
    def _soon_us(self) -> int:
        return self.leased.runtime.now_us + span_us(self.leased.policy.pace.shortest)

    def _witness_span(self, part: Slice) -> witnesses.WitnessSpan:
        capabilities = self.leased.capabilities
        # Unless times are exact, webhook and list may differ by up to the grace about when an event occurred.
        edge_us = 0 if capabilities.exact_times else span_us(capabilities.grace)
        return witnesses.WitnessSpan(
            stream_id=self.stream.id,
            start_us=part.start_us + edge_us,
            end_us=min(part.end_us, to_us(self._listed_before)) - edge_us,
            before_us=self._settled_before_us,
            last_states=self._lists_states,
        )

    def _limits(self) -> watermarks.Limits:
        """Return what the watermark does not pass: absent events, and the earlier now of ours and the provider's.

        That is less the grace, and in whole units of the provider's times: later, the list may still grow. Nor does it
        pass the time from which on the list proves nothing.
        """
        capabilities = self.leased.capabilities
        unit, proven_until = capabilities.resolution, self.circumstances.proven_until
        earlier_now = from_us(self.row.started_us) - self.leased.client.behind
        latest = claimed_up_to(earlier_now, capabilities.grace, unit)
        if proven_until is not None:
            latest = min(latest, align_down(from_us(proven_until), unit))
        return watermarks.Limits(
            latest_us=to_us(latest),
            lookback_us=span_us(self.lookback),
            absences_allowed=self.leased.source.absences_allowed,
            margin_us=0 if capabilities.exact_times else span_us(capabilities.grace),
            unit_us=span_us(unit),
        )

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
            absences.hasten(connection, lacked, self._soon_us)
            allowed = self.leased.source.absences_allowed
            self.result.contradicted = absences.first_held_us(connection, self.stream.id, allowed) is not None


@dataclass(slots=True, kw_only=True)
class SliceProgress:
    """The progress of one slice. `shown` holds the seq of every witness that the listing showed."""

    part: Slice
    shown: "array[int]" = field(default_factory=lambda: array("q"))
    next: httpx.Request | None = None
    """The request for the next page; None: no page was read yet, or the last one was."""
    stored: int = 0
    """Length of `shown` that is stored with the cursor."""
    saved_at: float = field(default_factory=time.monotonic)
    left_us: int | None = None
    """The first row that was too young to be recorded, in whole units of the list's times; None: there was none."""
    in_other_cut: bool = False
    """True: the pages are not those of the slice's own walk, so they do not move its cursor."""

    @property
    def window(self) -> Window:
        """The time of the slice."""
        return Window(start=from_us(self.part.start_us), end=from_us(self.part.end_us))

    def leave(self, first: datetime | None, unit: timedelta) -> None:
        """Note that rows of a page were too young to be recorded, from `first` on; None: there was none."""
        if first is not None:
            left_us = to_us(align_down(first, unit))
            self.left_us = left_us if self.left_us is None else min(self.left_us, left_us)

    def saving(self, following: httpx.Request | None) -> Work[None]:
        """Return the work that stores the cursor; None: the last page was read."""
        if self.in_other_cut:
            return _keep_cursor
        cursor = None if following is None else freeze(following)
        shown = self.shown[self.stored :].tobytes()
        return partial(passes.save_cursor, slice_id=self.part.id, cursor=cursor, shown=shown, left_us=self.left_us)

    def starting_again(self) -> Work[None]:
        """Return the work that makes the slice start from its beginning the next time."""
        return _keep_cursor if self.in_other_cut else partial(passes.save_cursor, slice_id=self.part.id, cursor=None)

    def note_saved(self) -> None:
        """Note that `saving` was done."""
        self.saved_at = time.monotonic()
        self.stored = len(self.shown)


def state_of(event: RemoteEvent) -> tuple[str, int]:
    """Return (object key, object version) of a listed state. Raises `UnexpectedShape` if it has none."""
    if event.object_key is None or event.object_version is None:
        raise UnexpectedShape(f"event {event.key!r}", "without object_key or object_version", "a state of an object")
    return event.object_key, event.object_version


async def set_aside(
    leased: LeasedSource, stream: Stream, page: Page, times: odd_rows.Times, *, before: int
) -> int | UnexpectedShape:
    """Keep the unreadable rows of `page`. Return how many are new, or the error if they are too many for odd ones.

    `before`: the new ones of the same pass so far.
    """
    keys = [unreadable.key_of(row.digest) for row in page.unreadable]
    states = await leased.runtime.read(unreadable.states, source_id=leased.source.id, keys=keys)
    found = odd_rows.judge(page, states, times, before=before)
    if found.refusal is not None:
        return found.refusal
    rows = [
        unreadable.OddRow(
            source_id=leased.source.id,
            stream_id=stream.id,
            key=unreadable.key_of(row.digest),
            row=row.row,
            problem=row.problem,
            occurred_us=start_us,
            until_us=until_us,
        )
        for row, (start_us, until_us) in found.rows
    ]
    await leased.write(unreadable.set_aside, rows=rows, now_us=leased.runtime.now_us)
    if found.new:
        extra = {"source": leased.source.name, "stream": stream.name, "count": found.new, "error": rows[0].problem}
        log.warning("rows_unreadable", extra=extra)
    is_open = await leased.runtime.read(unreadable.count_open, stream_id=stream.id)
    return odd_rows.refuse_open(is_open) or found.new


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


def _keep_cursor(_connection: Connection) -> None:
    """Save no cursor."""


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
