"""What the figures prove, and what they do not. Pure. None always means unknown, and is never shown as 0.

Metrics, `/api/status`, `gapless status` and the overview page all show these values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.destinations.contract import FailureReason
from gapless.domain import Cause, Mode, Sources, Via, from_us, span_us, to_us
from gapless.ledger import silence, stats
from gapless.ledger.budgets import Used
from gapless.ledger.deliveries import State
from gapless.ledger.engine import Store
from gapless.ledger.sources import Stream
from gapless.ledger.stats import WINDOWS, DestinationFigures, Figures, Loss, SourceFigures
from gapless.ledger.tallies import MISSED
from gapless_reconcilers.kit.contract import Coverage, ReadBudget

DISBELIEVED = frozenset({"suspect_listing", "unexpected_shape"})
"""Outcomes of a pass after which its list proves nothing until one that can be believed."""
OWED: tuple[State, ...] = (State.PENDING, State.HELD, State.PARKED, State.DEAD)
"""The states of deliveries that are not done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How much was missed in one window; `rate` is None where nothing was expected."""

    missed: int
    expected: int

    @property
    def rate(self) -> float | None:
        """Missed per expected."""
        return self.missed / self.expected if self.expected else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """What is known of lost webhooks since the source's start. Only where both roads are in use."""

    expected: int
    missed: Mapping[Cause, int]
    recovered: int
    late: int
    unlisted: int

    @property
    def missed_in_all(self) -> int:
        """Missed events, whatever the cause."""
        return sum(self.missed.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How far a source, or one stream of it, agrees with the provider's list."""

    watermark: datetime | None
    complete_up_to: datetime | None
    checked_at: datetime | None
    last_complete_pass: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStanding:
    """One stream, and why it is not read, if so."""

    name: str
    complete_from: datetime
    proof: Proof
    last_outcome: str | None
    parked_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What only the list can tell; a source in mode `webhook` has none of it."""

    proof: Proof
    history_headroom: timedelta | None
    behind_watermark: int
    missing_open: int
    unrecoverable: tuple[Loss, ...]
    budget_remaining: int | None
    interval: timedelta | None
    next_pass: datetime

    @property
    def unrecoverable_time(self) -> timedelta:
        """How long the provider can prove nothing of, summed over streams."""
        return sum((from_us(loss.end_us) - from_us(loss.start_us) for loss in self.unrecoverable), timedelta(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStanding:
    """One source as it can be vouched for."""

    name: str
    provider: str
    coverage: Coverage
    mode: Mode
    state: str
    reason: str | None
    types: tuple[str, ...]
    types_origin: str
    subscription_healthy: bool | None
    subscription_reason: str | None
    silent: bool | None
    """None: nobody wants to know, or its rhythm is not known yet."""
    streams: tuple[StreamStanding, ...]
    events: Mapping[Via, int]
    duplicates: int
    losses: Losses | None
    gaps: Mapping[str, Gap | None]
    """By window; None: unknown."""
    listed: Listed | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationStanding:
    """What one destination still owes, and since when."""

    name: str
    state: str
    backlog: Mapping[State, int]
    oldest_pending: datetime | None
    dead: Mapping[str, int]
    """By reason; every reason there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All sources and destinations at one moment."""

    at: datetime
    sources: tuple[SourceStanding, ...]
    destinations: tuple[DestinationStanding, ...]


async def read(store: Store, sources: Sources, budgets: Mapping[str, ReadBudget | None], now: datetime) -> Standing:
    """How everything stands. `budgets`: what each source may read, by name. Raises `StoreError`."""
    known = tuple(sources)
    return judge(await store.read(lambda connection: stats.read(connection, known, now)), budgets, now)


def judge(figures: Figures, budgets: Mapping[str, ReadBudget | None], now: datetime) -> Standing:
    """What `figures` prove at `now`."""
    return Standing(
        at=now,
        sources=tuple(_source(each, budgets.get(each.source.name), now) for each in figures.sources),
        destinations=tuple(map(_destination, figures.destinations)),
    )


def _source(figures: SourceFigures, budget: ReadBudget | None, now: datetime) -> SourceStanding:
    source = figures.source
    return SourceStanding(
        name=source.name,
        provider=source.provider.kind,
        coverage=source.provider.capabilities.coverage,
        mode=source.mode,
        state=figures.state,
        reason=figures.reason,
        types=figures.types,
        types_origin=figures.types_origin,
        subscription_healthy=None if source.mode is Mode.POLL else figures.subscription_healthy,
        subscription_reason=None if source.mode is Mode.POLL else figures.subscription_reason,
        silent=_is_silent(figures, now),
        streams=tuple(_stream(stream, figures) for stream in figures.streams),
        events={via: figures.totals.counts[f"by_{via.value}"] for via in Via},
        duplicates=figures.totals.counts["duplicates"],
        losses=_losses(figures) if _has_both_roads(figures) else None,
        gaps={name: _gap(figures, name, now) for name in WINDOWS},
        listed=_listed(figures, budget, now) if _is_listed(figures) else None,
    )


def _is_silent(figures: SourceFigures, now: datetime) -> bool | None:
    wanted, heard = figures.source.silence, figures.heard
    if wanted is None or heard is None or figures.source.mode is Mode.POLL:
        return None
    return silence.judge(wanted, heard, now)


def _is_listed(figures: SourceFigures) -> bool:
    """True if passes are made of it at all."""
    source = figures.source
    return source.mode is not Mode.WEBHOOK and source.provider.capabilities.coverage is not Coverage.NONE


def _has_both_roads(figures: SourceFigures) -> bool:
    """True if webhooks are held against a list, so that one can be missed."""
    return _is_listed(figures) and figures.source.mode is Mode.HYBRID


def _losses(figures: SourceFigures) -> Losses:
    counts = figures.totals.counts
    unrecovered = sum(missing.unrecovered for missing in figures.missing.values())
    return Losses(
        expected=figures.totals.expected,
        missed={cause: counts[name] for cause, name in MISSED.items()},
        recovered=figures.totals.missed - unrecovered,
        late=counts["late"],
        unlisted=counts["unlisted"],
    )


def _gap(figures: SourceFigures, name: str, now: datetime) -> Gap | None:
    """What was missed in a window, or None while that is unknown.

    It is unknown without both roads, before the first complete pass, while a stream cannot be read
    or its list cannot be believed, where part of the window is unrecoverable, and once the watermark
    is older than the window is long: then nothing of the window that ends now has been read.
    """
    start_us = figures.watermark_us - span_us(WINDOWS[name])
    known = (
        _has_both_roads(figures)
        and figures.state == "active"
        and all(_is_believed(stream) for stream in figures.streams)
        and figures.watermark_us >= to_us(now - WINDOWS[name])
        and not any(loss.end_us > start_us and loss.start_us < figures.watermark_us for loss in figures.losses)
    )
    totals = figures.windows[name]
    return Gap(missed=totals.missed, expected=totals.expected) if known else None


def _is_believed(stream: Stream) -> bool:
    """True if the stream was read whole, and nothing since then says that reading it proves nothing."""
    read_whole = stream.last_complete_pass_us is not None and stream.checked_us is not None
    return read_whole and stream.parked_reason is None and stream.last_outcome not in DISBELIEVED


def _stream(stream: Stream, figures: SourceFigures) -> StreamStanding:
    return StreamStanding(
        name=stream.name,
        complete_from=from_us(stream.complete_from_us),
        proof=_proof(stream, figures),
        last_outcome=stream.last_outcome,
        parked_reason=stream.parked_reason,
    )


def _proof(stream: Stream, figures: SourceFigures) -> Proof:
    if stream.checked_us is None or not _is_listed(figures):
        return Proof(watermark=None, complete_up_to=None, checked_at=None, last_complete_pass=None)
    missing = figures.missing.get(stream.id)
    oldest_us = None if missing is None else missing.oldest_open_us
    complete_us = stream.watermark_us if oldest_us is None else min(stream.watermark_us, oldest_us)
    return Proof(
        watermark=from_us(stream.watermark_us),
        complete_up_to=from_us(complete_us),
        checked_at=from_us(stream.checked_us),
        last_complete_pass=_moment(stream.last_complete_pass_us),
    )


def _listed(figures: SourceFigures, budget: ReadBudget | None, now: datetime) -> Listed:
    proofs = [_proof(stream, figures) for stream in figures.streams]
    history = figures.source.provider.capabilities.history
    return Listed(
        proof=Proof(
            watermark=_earliest([proof.watermark for proof in proofs]),
            complete_up_to=_earliest([proof.complete_up_to for proof in proofs]),
            checked_at=_earliest([proof.checked_at for proof in proofs]),
            last_complete_pass=_earliest([proof.last_complete_pass for proof in proofs]),
        ),
        history_headroom=None if history is None else history - (now - from_us(figures.watermark_us)),
        behind_watermark=figures.totals.counts["behind_watermark"],
        missing_open=sum(missing.open for missing in figures.missing.values()),
        unrecoverable=figures.losses,
        budget_remaining=_remaining(budget, figures.budget_used, now),
        interval=None if figures.interval_us is None else timedelta(microseconds=figures.interval_us),
        next_pass=from_us(figures.next_pass_us),
    )


def _earliest(times: list[datetime | None]) -> datetime | None:
    """What holds for all streams: the earliest time, or None if one of them has none."""
    known = [time for time in times if time is not None]
    return min(known) if len(known) == len(times) else None


def _remaining(budget: ReadBudget | None, used: Used | None, now: datetime) -> int | None:
    """Requests left in this period; a period that is over leaves all of them."""
    if budget is None or used is None:
        return None
    is_over = now >= from_us(used.period_start_us) + budget.period
    return budget.requests if is_over else max(0, budget.requests - used.used)


def _moment(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def _destination(figures: DestinationFigures) -> DestinationStanding:
    backlog: dict[State, int] = dict.fromkeys(OWED, 0)
    dead = {reason.value: 0 for reason in FailureReason}
    pending = [part.oldest_us for part in figures.backlog if part.state is State.PENDING]
    for part in figures.backlog:
        backlog[part.state] += part.count
        if part.state is State.DEAD:
            reason = part.reason or FailureReason.INTERNAL.value
            dead[reason] = dead.get(reason, 0) + part.count
    return DestinationStanding(
        name=figures.name,
        state=figures.state,
        backlog=backlog,
        oldest_pending=from_us(min(pending)) if pending else None,
        dead=dead,
    )
