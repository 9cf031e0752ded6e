"""What is wrong with the comparison of a source with its list: reading it, its proof, and what it shows and we lack."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from gapless.domain import from_us
from gapless.ledger.passes import FailingPass
from gapless.status.evaluation import DISBELIEVED
from gapless.status.report import ListReport, SourceReport, StreamReport
from gapless.status.troubles.reading import of_reading
from gapless.status.troubles.trouble import Severity, Trouble, TroubleKind, counted
from gapless.text import format_time

STALLED_AFTER: Final = timedelta(hours=1)
"""Time without a complete pass, beyond `STALLED_INTERVALS`, after which the proof is stalled."""
STALLED_INTERVALS: Final = 3
"""Intervals between passes, beyond `STALLED_AFTER`."""
MISSING_WITHIN: Final = timedelta(minutes=30)
"""Time in which a known event should be recorded: about five attempts."""
READ: Final = frozenset({None, "clean", "found", "contradicted"})
"""Outcomes of a pass that are no trouble."""


def of_list(source: SourceReport, listed: ListReport, now: datetime) -> Iterator[Trouble]:
    """Yield what is wrong with the list of the source, or with what came of it."""
    yield from _of_streams(source)
    yield from _of_demanded(source)
    yield from _of_absences(source)
    yield from _of_proof(source, listed, now)
    yield from of_reading(source, listed)
    yield from _of_missing(source, listed, now)


NEXT_OF_STREAM: Final = {
    TroubleKind.STREAM_PARKED: "Run `gapless check`, correct the key or options, then `gapless source pass {source}`.",
    TroubleKind.LIST_SUSPECT: "See whether the key reads this account and all its events: `gapless check`, then "
    "`gapless source pass {source}`.",
    TroubleKind.LIST_UNREADABLE: "The provider may have changed its API: look at the log line pass_failed, and for a "
    "newer release.",
    TroubleKind.READ_FAILED: "Nothing: it is tried again automatically.",
}


def _of_streams(source: SourceReport) -> Iterator[Trouble]:
    """Yield one trouble for all streams that cannot be read for the same reason."""
    alike: defaultdict[tuple[TroubleKind, str], list[StreamReport]] = defaultdict(list)
    for stream in source.streams:
        found = _reason_unread(stream)
        if found is not None:
            alike[found].append(stream)
    for (kind, text), streams in alike.items():
        more = f" The same holds for {counted(len(streams) - 1, 'other stream')}." if len(streams) > 1 else ""
        yield Trouble(
            kind=kind,
            severity=Severity.IN_HAND if kind is TroubleKind.READ_FAILED else Severity.TROUBLE,
            source=source.name,
            stream=streams[0].name or None,
            since=min((each for each in (s.proof.last_complete_pass for s in streams) if each), default=None),
            text=text + more,
            next=NEXT_OF_STREAM[kind].format(source=source.name),
        )


def _reason_unread(stream: StreamReport) -> tuple[TroubleKind, str] | None:
    if stream.parked_reason is not None:
        return TroubleKind.STREAM_PARKED, f"Not read: {stream.parked_reason}."
    if stream.last_outcome in DISBELIEVED:
        if stream.last_outcome == "unexpected_shape":
            return TroubleKind.LIST_UNREADABLE, "The provider's list has a shape that is not known."
        return TroubleKind.LIST_SUSPECT, "The provider's list shows none of the events that came by webhook."
    if stream.last_outcome not in READ:
        why = f": {stream.last_error}" if stream.last_error else ""
        return TroubleKind.READ_FAILED, f"The last pass ended early: {stream.last_outcome}{why}."
    return None


def _of_demanded(source: SourceReport) -> Iterator[Trouble]:
    """Yield one trouble for all passes on demand that failed for the same reason."""
    alike: defaultdict[tuple[bool, str], list[FailingPass]] = defaultdict(list)
    for each in source.failing:
        alike[each.is_given_up, each.error].append(each)
    for (is_given_up, error), failing in alike.items():
        first = failing[0]
        start, end = format_time(from_us(first.start_us)), format_time(from_us(first.end_us))
        more = f" The same holds for {counted(len(failing) - 1, 'other pass')}." if len(failing) > 1 else ""
        cancel = f"`gapless pass cancel {first.id}`"
        again = f"`gapless source pass {source.name} --since {from_us(first.start_us):%Y-%m-%dT%H:%M:%SZ}`"
        yield Trouble(
            kind=TroubleKind.DEMAND_FAILED,
            severity=Severity.TROUBLE if is_given_up else Severity.IN_HAND,
            source=source.name,
            stream=first.stream or None,
            since=from_us(min(each.started_us for each in failing)),
            text=f"Pass {first.id} on demand, from {start} to {end}, "
            f"{'was given up' if is_given_up else 'fails and is tried again'}: {error}.{more}",
            next=f"Remove the cause and ask again: {again}; or leave that time unread: {cancel}."
            if is_given_up
            else f"Nothing: no other pass waits for it. To leave that time unread: {cancel}.",
        )


LOOKED_FOR: Final = 2
"""Times that an absent event is looked for in other cuts of the list before a person is needed."""


def _of_absences(source: SourceReport) -> Iterator[Trouble]:
    """Yield a trouble for each stream whose list lacks events that came by webhook."""
    for stream in source.streams:
        absent = stream.absences
        if not absent.open or absent.first_us is None:
            continue
        others = absent.open - len(absent.keys)
        named = ", ".join(absent.keys) + (f" and {counted(others, 'other')}" if others else "")
        is_searched = absent.tries >= LOOKED_FOR
        accept = f'`gapless event accept-unlisted {source.name} {absent.keys[0]} --reason "…"`'
        yield Trouble(
            kind=TroubleKind.LIST_CONTRADICTED,
            severity=Severity.TROUBLE if is_searched else Severity.IN_HAND,
            source=source.name,
            stream=stream.name or None,
            since=None if absent.found_us is None else from_us(absent.found_us),
            text=f"The provider's list lacks {counted(absent.open, 'event')} that came by webhook: {named}. "
            f"It may lack others, so nothing is proven from {format_time(from_us(absent.first_us))} on.",
            next=f"Look for {absent.keys[0]} at the provider. If its list cannot show it, let it pass: {accept}."
            if is_searched
            else "Nothing: the list is read again in other ways.",
        )


def _of_proof(source: SourceReport, listed: ListReport, now: datetime) -> Iterator[Trouble]:
    read_now = f"`gapless source pass {source.name}`"
    bad = partial(Trouble, severity=Severity.TROUBLE, source=source.name)
    last = listed.proof.last_complete_pass
    if last is None:
        yield Trouble(
            kind=TroubleKind.NEVER_COMPARED,
            severity=Severity.UNKNOWN,
            source=source.name,
            text="Not compared with the provider's list yet.",
            next=f"Wait for the first pass, or ask for it: {read_now}.",
        )
    elif now - last > STALLED_AFTER + STALLED_INTERVALS * (listed.interval or timedelta()):
        yield bad(
            kind=TroubleKind.PROOF_STALLED,
            since=last,
            text="The list was not read completely for too long: losses since then are not seen.",
            next=f"See whether `gapless serve` runs and what `gapless check` says, then {read_now}.",
        )
    if listed.waiting_until is not None:
        yield Trouble(
            kind=TroubleKind.PROVIDER_WAITS,
            severity=Severity.IN_HAND,
            source=source.name,
            text=f"Waiting until {format_time(listed.waiting_until)}, because the provider said so: nothing is read "
            "before.",
            next="Nothing, if it is rare; else lower requests_per_second, or ask the provider for a higher limit.",
        )
    if listed.is_running_out:
        yield bad(
            kind=TroubleKind.HISTORY_RUNS_OUT,
            since=listed.proof.watermark,
            text="The provider soon forgets events that were not compared yet.",
            next=f"Find out why the list is not read (`gapless check`), then {read_now}.",
        )


def _of_missing(source: SourceReport, listed: ListReport, now: datetime) -> Iterator[Trouble]:
    if listed.unreadable_rows:
        yield Trouble(
            kind=TroubleKind.ROWS_UNREADABLE,
            severity=Severity.TROUBLE,
            source=source.name,
            since=listed.unreadable_since,
            text=f"The list shows {counted(listed.unreadable_rows, 'row')} that cannot be read: it is not known "
            "whether their events are recorded.",
            next=f"See `gapless missing list --source {source.name}` and look for a newer release, or "
            f'`gapless missing dismiss KEY --source {source.name} --reason "…"`.',
        )
    known = listed.missing_open - listed.unreadable_rows
    if known:
        is_old = listed.missing_since is None or now - listed.missing_since > MISSING_WITHIN
        wait, look = (
            "Nothing: they are requested one by one.",
            f"See `gapless missing list --source {source.name}`: it has the last error of each.",
        )
        yield Trouble(
            kind=TroubleKind.EVENTS_MISSING,
            severity=Severity.TROUBLE if is_old else Severity.IN_HAND,
            source=source.name,
            since=listed.missing_since,
            text=f"Not recorded yet: {counted(known, 'known event')}.",
            next=look if is_old else wait,
        )
