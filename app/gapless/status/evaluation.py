"""Compute the report from a snapshot of the ledger. Pure. Each figure is computed by one function here."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from gapless.clock import is_ahead
from gapless.destinations.contract import FailureReason
from gapless.domain import Mode, Via, from_us, span_us, to_us
from gapless.ledger import silence
from gapless.ledger.absences import NO_ABSENCES, AbsenceCounts
from gapless.ledger.backlogs import Unconfirmed
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.snapshot import WINDOWS, DestinationSnapshot, LedgerSnapshot, MissingCounts, SourceSnapshot
from gapless.ledger.streams import Stream
from gapless.ledger.tallies import MISSED
from gapless.ledger.watermarks import EVENT_LOST
from gapless.status.report import (
    OWED,
    DestinationReport,
    Gap,
    ListReport,
    Losses,
    Proof,
    SourceReport,
    StatusReport,
    StreamReport,
)
from gapless_reconcilers.kit.contract import Coverage
from gapless_reconcilers.kit.statuses import waiting_until

DISBELIEVED = frozenset({"suspect_listing", "unexpected_shape"})
"""Outcomes of a pass after which the list proves nothing, until a later pass can be believed."""
NOTHING_MISSING = MissingCounts()


def evaluate(snapshot: LedgerSnapshot, now: datetime, configured: Iterable[str] = ()) -> StatusReport:
    """Return what `snapshot` proves at `now`.

    `configured`: names of sources that should be in the snapshot.
    """
    in_ledger = {each.source.name for each in snapshot.sources}
    return StatusReport(
        at=now,
        sources=tuple(_source(each, now) for each in snapshot.sources),
        destinations=tuple(_destination(each, now) for each in snapshot.destinations),
        older_processes=snapshot.older_processes,
        clock_offsets=snapshot.clock_offsets,
        unknown_sources=tuple(name for name in configured if name not in in_ledger),
    )


def complete_up_to(stream: Stream, missing: MissingCounts, absent: AbsenceCounts = NO_ABSENCES) -> datetime | None:
    """Return the time up to which the stream agrees with the list. None before a list was read.

    It is the watermark, or if that is earlier, the time of the oldest event that is known and not recorded yet, or that
    the list lacks.
    """
    if stream.checked_us is None:
        return None
    limits = (stream.watermark_us, missing.oldest_open_us, absent.first_us)
    return from_us(min(us for us in limits if us is not None))


def headroom(history: timedelta | None, watermark: datetime, now: datetime) -> timedelta | None:
    """Return the time until the watermark leaves the provider's history; None: the history has no limit."""
    return None if history is None else history - (now - watermark)


def _source(snapshot: SourceSnapshot, now: datetime) -> SourceReport:
    source = snapshot.source
    return SourceReport(
        name=source.name,
        provider=source.provider.kind,
        coverage=source.provider.capabilities.coverage,
        mode=source.mode,
        state=snapshot.state,
        state_since=_time(snapshot.state_us),
        reason=snapshot.reason,
        types=snapshot.types,
        types_origin=snapshot.types_origin,
        subscription_healthy=None if source.mode is Mode.POLL else snapshot.subscription_healthy,
        subscription_reason=None if source.mode is Mode.POLL else snapshot.subscription_reason,
        subscription_good_at=_time(snapshot.subscription_good_us),
        other_account=snapshot.accounts.other,
        account=snapshot.accounts.own,
        livemode=snapshot.livemode,
        other_mode=snapshot.totals.counts["other_mode"],
        clock_skew=None if snapshot.skew_us is None else timedelta(microseconds=snapshot.skew_us),
        clock_unverified=snapshot.skew_us is None and not snapshot.has_clock,
        ahead=_ahead(snapshot, now),
        silent=_is_silent(snapshot, now),
        heard_at=None if snapshot.heard is None else from_us(snapshot.heard.since_us),
        quarantine_expired=snapshot.quarantine_expired,
        quarantine_expired_at=_time(snapshot.quarantine_expired_us),
        streams=tuple(_stream(stream, snapshot) for stream in snapshot.streams),
        events={via: snapshot.totals.counts[f"by_{via.value}"] for via in Via},
        duplicates=snapshot.totals.counts["duplicates"],
        losses=_losses(snapshot) if _has_both_ways(snapshot) else None,
        gaps={name: _gap(snapshot, name, now) for name in WINDOWS},
        unrecoverable=snapshot.losses,
        failing=snapshot.failing,
        listed=_listed(snapshot, now) if _is_listed(snapshot) else None,
    )


def _ahead(snapshot: SourceSnapshot, now: datetime) -> tuple[str, ...]:
    """Return the names of the stored times that lie in the future: what has begun, was done or is proven."""
    read = [stream for stream in snapshot.streams if stream.checked_us is not None]
    began_us = {
        "next pass": snapshot.next_pass_us - snapshot.wait_us,
        "last complete pass": max((stream.last_complete_pass_us or 0 for stream in read), default=0),
        "watermark": max((stream.watermark_us for stream in read), default=0),
    }
    return tuple(name for name, us in began_us.items() if is_ahead(us, to_us(now)))


def _is_silent(snapshot: SourceSnapshot, now: datetime) -> bool | None:
    wanted, heard = snapshot.source.silence, snapshot.heard
    if wanted is None or heard is None or snapshot.source.mode is Mode.POLL:
        return None
    return silence.is_silent(wanted, heard, now)


def _is_listed(snapshot: SourceSnapshot) -> bool:
    """Return True if the source is compared with a list."""
    source = snapshot.source
    return source.mode is not Mode.WEBHOOK and source.provider.capabilities.coverage is not Coverage.NONE


def _has_both_ways(snapshot: SourceSnapshot) -> bool:
    """Return True if webhooks are compared with a list, so that a missed one is seen."""
    return _is_listed(snapshot) and snapshot.source.mode is Mode.HYBRID


def _losses(snapshot: SourceSnapshot) -> Losses:
    counts = snapshot.totals.counts
    unrecovered = sum(missing.unrecovered for missing in snapshot.missing.values())
    return Losses(
        expected=snapshot.totals.expected,
        missed={cause: counts[name] for cause, name in MISSED.items()},
        recovered=snapshot.totals.missed - unrecovered,
        late=counts["late"],
        unlisted=counts["unlisted"],
    )


def _gap(snapshot: SourceSnapshot, name: str, now: datetime) -> Gap | None:
    """Return how much was missed in a window, or None while that is unknown.

    It is unknown for a source without webhooks or without a list, before the first complete pass, while a stream cannot
    be read or its list cannot be believed, if part of the window is unrecoverable, and if the watermark is further
    back than the window is long: then nothing of the window that ends now was read. The time of a lost event was read,
    and the event is counted, so it makes nothing unknown.
    """
    unknown = [loss for loss in snapshot.losses if loss.reason != EVENT_LOST]
    start_us = snapshot.watermark_us - span_us(WINDOWS[name])
    is_known = (
        _has_both_ways(snapshot)
        and snapshot.state == "active"
        and all(_is_believed(stream) for stream in snapshot.streams)
        and snapshot.watermark_us >= to_us(now - WINDOWS[name])
        and not any(loss.end_us > start_us and loss.start_us < snapshot.watermark_us for loss in unknown)
    )
    totals = snapshot.windows[name]
    return Gap(missed=totals.missed, expected=totals.expected) if is_known else None


def _is_believed(stream: Stream) -> bool:
    """Return True if the stream was read whole, and nothing since then makes its list doubtful."""
    read_whole = stream.last_complete_pass_us is not None and stream.checked_us is not None
    return read_whole and stream.parked_reason is None and stream.last_outcome not in DISBELIEVED


def _stream(stream: Stream, snapshot: SourceSnapshot) -> StreamReport:
    return StreamReport(
        name=stream.name,
        complete_from=from_us(stream.complete_from_us),
        proof=_proof(stream, snapshot),
        last_outcome=stream.last_outcome,
        last_error=stream.last_error,
        parked_reason=stream.parked_reason,
        absences=_absences(stream, snapshot),
    )


def _absences(stream: Stream, snapshot: SourceSnapshot) -> AbsenceCounts:
    """Return the events that the list of the stream lacks; none if it may lack so many."""
    found = snapshot.absences.get(stream.id, NO_ABSENCES)
    return found if found.open > snapshot.source.absences_allowed else NO_ABSENCES


def _proof(stream: Stream, snapshot: SourceSnapshot) -> Proof:
    if stream.checked_us is None or not _is_listed(snapshot):
        return Proof(watermark=None, complete_up_to=None, checked_at=None, last_complete_pass=None)
    return Proof(
        watermark=from_us(stream.watermark_us),
        complete_up_to=complete_up_to(
            stream, snapshot.missing.get(stream.id, NOTHING_MISSING), _absences(stream, snapshot)
        ),
        checked_at=from_us(stream.checked_us),
        last_complete_pass=_time(stream.last_complete_pass_us),
    )


def _listed(snapshot: SourceSnapshot, now: datetime) -> ListReport:
    proofs = [_proof(stream, snapshot) for stream in snapshot.streams]
    history, missing = snapshot.source.provider.capabilities.history, tuple(snapshot.missing.values())
    waits = waiting_until(_time(snapshot.waiting_until_us), now)
    return ListReport(
        proof=Proof(
            watermark=_earliest([proof.watermark for proof in proofs]),
            complete_up_to=_earliest([proof.complete_up_to for proof in proofs]),
            checked_at=_earliest([proof.checked_at for proof in proofs]),
            last_complete_pass=_earliest([proof.last_complete_pass for proof in proofs]),
        ),
        history=history,
        history_headroom=headroom(history, from_us(snapshot.watermark_us), now),
        behind_watermark=snapshot.totals.counts["behind_watermark"],
        missing_open=sum(each.open for each in missing),
        missing_since=_first(each.found_us for each in missing),
        unreadable_rows=sum(each.unreadable for each in missing),
        unreadable_since=_first(each.unreadable_found_us for each in missing),
        lost=sum(each.lost for each in missing),
        contradicting=sum(_absences(stream, snapshot).open for stream in snapshot.streams),
        grant=snapshot.grant_use,
        learned=snapshot.learned,
        learned_at=_time(snapshot.learned_us),
        unpaid_until=waiting_until(_time(snapshot.unpaid_until_us), now),
        interval=None if snapshot.interval_us is None else timedelta(microseconds=snapshot.interval_us),
        next_pass=max(from_us(snapshot.next_pass_us), waits or from_us(snapshot.next_pass_us)),
        waiting_until=waits,
    )


def _earliest(times: list[datetime | None]) -> datetime | None:
    """Return the earliest time, which holds for all streams; None if one of them has none."""
    known = [time for time in times if time is not None]
    return min(known) if len(known) == len(times) else None


def _first(times_us: Iterable[int | None]) -> datetime | None:
    """Return the earliest of the times that are known."""
    return _time(min((us for us in times_us if us is not None), default=None))


def _time(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def _destination(snapshot: DestinationSnapshot, now: datetime) -> DestinationReport:
    backlog: dict[DeliveryState, int] = dict.fromkeys(OWED, 0)
    oldest: dict[DeliveryState, datetime] = {}
    dead = {reason.value: 0 for reason in FailureReason}
    held = Counter[str]()
    for part in snapshot.backlog:
        made = from_us(part.oldest_us)
        backlog[part.state] += part.count
        oldest[part.state] = min(oldest.get(part.state, made), made)
        if part.state is DeliveryState.HELD:
            held[part.reason or ""] += part.count
        if part.state is DeliveryState.DEAD:
            reason = part.reason or FailureReason.INTERNAL.value
            dead[reason] = dead.get(reason, 0) + part.count
    unconfirmed = snapshot.unconfirmed or Unconfirmed()
    return DestinationReport(
        name=snapshot.name,
        state=snapshot.state,
        backlog=backlog,
        oldest=oldest,
        late_since=_first(part.late_us for part in snapshot.backlog),
        ahead=any(is_ahead(part.began_us, to_us(now)) for part in snapshot.backlog),
        dead=dead,
        held=held,
        pause=snapshot.pause,
        blocked=snapshot.blocked,
        unproven=snapshot.unproven,
        unconfirmed=unconfirmed.count,
        unconfirmed_again=unconfirmed.resent,
        unconfirmed_since=_first([unconfirmed.since_us]),
    )
