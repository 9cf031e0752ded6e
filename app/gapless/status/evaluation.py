"""What the ledger's figures prove, and what they do not. Pure. Each figure is computed by one function here."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from gapless.destinations.contract import FailureReason
from gapless.domain import Mode, Via, from_us, span_us, to_us
from gapless.ledger import silence
from gapless.ledger.budgets import Used
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.snapshot import WINDOWS, DestinationSnapshot, LedgerSnapshot, MissingCounts, SourceSnapshot
from gapless.ledger.streams import Stream
from gapless.ledger.tallies import MISSED
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
from gapless_reconcilers.kit.contract import Coverage, ReadBudget

DISBELIEVED = frozenset({"suspect_listing", "unexpected_shape"})
"""Outcomes of a pass after which its list proves nothing until one that can be believed."""
NOTHING_MISSING = MissingCounts()


def evaluate(
    figures: LedgerSnapshot, budgets: Mapping[str, ReadBudget | None], now: datetime, configured: Iterable[str] = ()
) -> StatusReport:
    """Return what `figures` prove at `now`.

    `budgets`: what each source may read, by name. `configured`: names of sources that should have figures.
    """
    known = {each.source.name for each in figures.sources}
    return StatusReport(
        at=now,
        sources=tuple(_source(each, budgets.get(each.source.name), now) for each in figures.sources),
        destinations=tuple(map(_destination, figures.destinations)),
        unknown_sources=tuple(name for name in configured if name not in known),
    )


def complete_up_to(stream: Stream, missing: MissingCounts) -> datetime | None:
    """Return the time up to which the stream agrees with the list: the headline. None before a list was read.

    It is the watermark, or the oldest event that is known and not recorded yet, if that is earlier.
    """
    if stream.checked_us is None:
        return None
    oldest_us = missing.oldest_open_us
    return from_us(stream.watermark_us if oldest_us is None else min(stream.watermark_us, oldest_us))


def remaining(budget: ReadBudget | None, used: Used | None, now: datetime) -> int | None:
    """Return the requests left in this period, never below 0; a period that is over leaves all of them.

    None: nothing limits them, or none was made yet.
    """
    if budget is None or used is None:
        return None
    is_over = now >= from_us(used.period_start_us) + budget.period
    return budget.requests if is_over else max(0, budget.requests - used.used)


def headroom(history: timedelta | None, watermark: datetime, now: datetime) -> timedelta | None:
    """Return the time until the provider forgets what lies behind the watermark; None: it never does."""
    return None if history is None else history - (now - watermark)


def _source(figures: SourceSnapshot, budget: ReadBudget | None, now: datetime) -> SourceReport:
    source = figures.source
    return SourceReport(
        name=source.name,
        provider=source.provider.kind,
        coverage=source.provider.capabilities.coverage,
        mode=source.mode,
        state=figures.state,
        state_since=_moment(figures.state_us),
        reason=figures.reason,
        types=figures.types,
        types_origin=figures.types_origin,
        subscription_healthy=None if source.mode is Mode.POLL else figures.subscription_healthy,
        subscription_reason=None if source.mode is Mode.POLL else figures.subscription_reason,
        subscription_good_at=_moment(figures.subscription_good_us),
        silent=_is_silent(figures, now),
        heard_at=None if figures.heard is None else from_us(figures.heard.since_us),
        streams=tuple(_stream(stream, figures) for stream in figures.streams),
        events={via: figures.totals.counts[f"by_{via.value}"] for via in Via},
        duplicates=figures.totals.counts["duplicates"],
        losses=_losses(figures) if _has_both_ways(figures) else None,
        gaps={name: _gap(figures, name, now) for name in WINDOWS},
        listed=_listed(figures, budget, now) if _is_listed(figures) else None,
    )


def _is_silent(figures: SourceSnapshot, now: datetime) -> bool | None:
    wanted, heard = figures.source.silence, figures.heard
    if wanted is None or heard is None or figures.source.mode is Mode.POLL:
        return None
    return silence.is_silent(wanted, heard, now)


def _is_listed(figures: SourceSnapshot) -> bool:
    """Return True if the source is compared with a list."""
    source = figures.source
    return source.mode is not Mode.WEBHOOK and source.provider.capabilities.coverage is not Coverage.NONE


def _has_both_ways(figures: SourceSnapshot) -> bool:
    """Return True if webhooks are compared with a list, so that one can be missed."""
    return _is_listed(figures) and figures.source.mode is Mode.HYBRID


def _losses(figures: SourceSnapshot) -> Losses:
    counts = figures.totals.counts
    unrecovered = sum(missing.unrecovered for missing in figures.missing.values())
    return Losses(
        expected=figures.totals.expected,
        missed={cause: counts[name] for cause, name in MISSED.items()},
        recovered=figures.totals.missed - unrecovered,
        late=counts["late"],
        unlisted=counts["unlisted"],
    )


def _gap(figures: SourceSnapshot, name: str, now: datetime) -> Gap | None:
    """Return what was missed in a window, or None while that is unknown.

    It is unknown for a source that lacks webhooks or a list, before the first complete pass, while a
    stream cannot be read or its list cannot be believed, where part of the window is unrecoverable, and
    once the watermark is older than the window is long: then nothing of the window that ends now was read.
    """
    start_us = figures.watermark_us - span_us(WINDOWS[name])
    known = (
        _has_both_ways(figures)
        and figures.state == "active"
        and all(_is_believed(stream) for stream in figures.streams)
        and figures.watermark_us >= to_us(now - WINDOWS[name])
        and not any(loss.end_us > start_us and loss.start_us < figures.watermark_us for loss in figures.losses)
    )
    totals = figures.windows[name]
    return Gap(missed=totals.missed, expected=totals.expected) if known else None


def _is_believed(stream: Stream) -> bool:
    """Return True if the stream was read whole, and nothing since then makes its list doubtful."""
    read_whole = stream.last_complete_pass_us is not None and stream.checked_us is not None
    return read_whole and stream.parked_reason is None and stream.last_outcome not in DISBELIEVED


def _stream(stream: Stream, figures: SourceSnapshot) -> StreamReport:
    return StreamReport(
        name=stream.name,
        complete_from=from_us(stream.complete_from_us),
        proof=_proof(stream, figures),
        last_outcome=stream.last_outcome,
        parked_reason=stream.parked_reason,
    )


def _proof(stream: Stream, figures: SourceSnapshot) -> Proof:
    if stream.checked_us is None or not _is_listed(figures):
        return Proof(watermark=None, complete_up_to=None, checked_at=None, last_complete_pass=None)
    return Proof(
        watermark=from_us(stream.watermark_us),
        complete_up_to=complete_up_to(stream, figures.missing.get(stream.id, NOTHING_MISSING)),
        checked_at=from_us(stream.checked_us),
        last_complete_pass=_moment(stream.last_complete_pass_us),
    )


def _listed(figures: SourceSnapshot, budget: ReadBudget | None, now: datetime) -> ListReport:
    proofs = [_proof(stream, figures) for stream in figures.streams]
    history, missing = figures.source.provider.capabilities.history, tuple(figures.missing.values())
    return ListReport(
        proof=Proof(
            watermark=_earliest([proof.watermark for proof in proofs]),
            complete_up_to=_earliest([proof.complete_up_to for proof in proofs]),
            checked_at=_earliest([proof.checked_at for proof in proofs]),
            last_complete_pass=_earliest([proof.last_complete_pass for proof in proofs]),
        ),
        history=history,
        history_headroom=headroom(history, from_us(figures.watermark_us), now),
        behind_watermark=figures.totals.counts["behind_watermark"],
        missing_open=sum(each.open for each in missing),
        missing_since=_first(each.found_us for each in missing),
        lost=sum(each.lost for each in missing),
        lost_since=_first(each.lost_found_us for each in missing),
        unrecoverable=figures.losses,
        budget_remaining=remaining(budget, figures.budget_used, now),
        interval=None if figures.interval_us is None else timedelta(microseconds=figures.interval_us),
        next_pass=from_us(figures.next_pass_us),
    )


def _earliest(times: list[datetime | None]) -> datetime | None:
    """Return what holds for all streams: the earliest time, or None if one of them has none."""
    known = [time for time in times if time is not None]
    return min(known) if len(known) == len(times) else None


def _first(times_us: Iterable[int | None]) -> datetime | None:
    """Return the earliest of the times that are known."""
    return _moment(min((us for us in times_us if us is not None), default=None))


def _moment(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def _destination(figures: DestinationSnapshot) -> DestinationReport:
    backlog: dict[DeliveryState, int] = dict.fromkeys(OWED, 0)
    oldest: dict[DeliveryState, datetime] = {}
    dead = {reason.value: 0 for reason in FailureReason}
    for part in figures.backlog:
        made = from_us(part.oldest_us)
        backlog[part.state] += part.count
        oldest[part.state] = min(oldest.get(part.state, made), made)
        if part.state is DeliveryState.DEAD:
            reason = part.reason or FailureReason.INTERNAL.value
            dead[reason] = dead.get(reason, 0) + part.count
    return DestinationReport(
        name=figures.name,
        state=figures.state,
        backlog=backlog,
        oldest=oldest,
        late_since=_first(part.late_us for part in figures.backlog),
        dead=dead,
    )
