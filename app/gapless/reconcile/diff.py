"""Compare a listed page with the ledger, and explain what the ledger lacks. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gapless.domain import Cause, Mode, Source, align_down, span_us, to_us
from gapless_reconcilers.kit.contract import RemoteEvent

SEND_DELAY = timedelta(seconds=10)
"""A webhook is sent a little after its event, so events from just before a downtime met it as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Facts about the time of a pass that may explain a lost webhook. Times are microseconds."""

    downtimes: Sequence[tuple[int, int]] = ()
    endpoint_off_since: int | None = None
    """When our endpoint was last seen active, if it was not active when it was last looked at; None: it was."""
    proven_until: int | None = None
    """The time from which on the list proves nothing, because our endpoint is not active; None: it is."""
    restored: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    """Per stream id: times that a restored backup lacks."""


@dataclass(slots=True)
class Diff:
    """The result of comparing a listed page with the ledger."""

    absent: list[RemoteEvent] = field(default_factory=list)
    """Events that are listed, not in the ledger, and to be recorded."""
    witnesses: list[int] = field(default_factory=list)
    """The seqs of listed events whose webhook is settled: each is a witness that the list can be believed."""
    left: datetime | None = None
    """The time of the first event that would be absent, and is too young to be; None: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """The times that separate young events from old ones, on the time axis of the list."""

    settled: datetime
    """An event that occurred after this is too young to be recorded: its webhook may be on its way."""
    witnesses: datetime
    """An event that occurred at or after this is no witness: the list may still lack it."""


def compare_page(
    events: Sequence[RemoteEvent],
    known: Mapping[str, tuple[int, bool]],
    source: Source,
    ages: Ages,
    *,
    reach_back: bool,
) -> Diff:
    """Sort a page into known and absent events. `known` is {key: (seq, is a witness)}.

    An event that the page shows several times counts once.
    """
    diff = Diff()
    first = {event.key: event for event in reversed(events)}
    for event in reversed(first.values()):
        row = known.get(event.key)
        if row is not None:
            if row[1] and event.occurred_at < ages.witnesses:
                diff.witnesses.append(row[0])
        elif not is_ours(event, source, reach_back=reach_back):
            continue
        elif event.occurred_at > ages.settled:
            diff.left = event.occurred_at if diff.left is None else min(diff.left, event.occurred_at)
        else:
            diff.absent.append(event)
    return diff


def awaited_until(occurred_at: datetime, grace: timedelta, unit: timedelta) -> datetime:
    """Return when the grace of an event is over, at the provider: a list may round its times down to `unit`.

    That is the first time at which a watermark, which ends in a whole unit, may pass it.
    """
    return align_down(occurred_at, unit) + unit + grace


def is_ours(event: RemoteEvent, source: Source, *, reach_back: bool) -> bool:
    """Return True if a listed event that the ledger lacks is to be recorded.

    An event from before the source's start is recorded only by a pass that reaches back on purpose. An event that the
    subscription would not have pushed is ignored, unless the source only polls or keeps the unsubscribed.
    """
    if event.occurred_at < source.start:
        return reach_back and event.type in source.types
    if source.keep_unsubscribed:
        return True
    return source.expects(event) if source.mode is Mode.HYBRID else event.type in source.types


def is_restored(occurred_us: int, stream_id: int, circumstances: Circumstances) -> bool:
    """Return True if the event occurred in a time that a restored backup lacks: it may have been recorded before."""
    return any(start <= occurred_us < end for start, end in circumstances.restored.get(stream_id, ()))


def cause_of(event: RemoteEvent, circumstances: Circumstances, refused: Collection[str] = ()) -> Cause:
    """Return the reason why the event's webhook was not recorded, as far as there is evidence of it.

    `refused`: the keys of events that a webhook which we refused names (`ledger.quarantine.named_in`). That there was
    some refused webhook proves nothing, because anybody can send one.
    """
    at, delay = to_us(event.occurred_at), span_us(SEND_DELAY)
    if event.key in refused:
        return Cause.REFUSED
    if any(start - delay <= at < end for start, end in circumstances.downtimes):
        return Cause.RECEIVER_DOWN
    if circumstances.endpoint_off_since is not None and at >= circumstances.endpoint_off_since:
        return Cause.SUBSCRIPTION
    return Cause.UNEXPLAINED
