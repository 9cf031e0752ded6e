"""Every figure of the ledger, declared once: for `/metrics`, for JSON, for the page and for the table of metrics.

To add one, declare it here; if the report does not hold its value yet, add that to `report` and `evaluation` first.
`help` and `absent` are the texts of the table of metrics, so that code and documentation agree.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, TypeAlias, TypeVar

from gapless.ledger.learned import PlanSummary
from gapless.status.report import DestinationReport, Gap, ListReport, Losses, Proof, SourceReport

R = TypeVar("R", bound=SourceReport | DestinationReport)
Value: TypeAlias = int | float | datetime | timedelta | None
"""Counts are ints, shares of 1 floats, states bools; None: unknown."""
Samples: TypeAlias = Mapping[tuple[str, ...], Value]
"""Values by further labels; empty: the figure does not apply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure(Generic[R]):
    """One figure of each source, or of each destination. A counter's name ends in `_total`."""

    name: str
    """Without the prefix `gapless_`."""
    help: str
    absent: str
    """When the figure has no value."""
    labels: tuple[str, ...] = ()
    """Further labels, beside the source or the destination."""
    samples: Callable[[R], Samples]

    @property
    def is_counter(self) -> bool:
        """Return True if it only grows."""
        return self.name.endswith("_total")


def _of_source(value: Callable[[SourceReport], Value]) -> Callable[[SourceReport], Samples]:
    return lambda source: {(): value(source)}


def _of_losses(value: Callable[[Losses], Value]) -> Callable[[SourceReport], Samples]:
    return lambda source: {} if source.losses is None else {(): value(source.losses)}


def _of_list(value: Callable[[ListReport], Value]) -> Callable[[SourceReport], Samples]:
    return lambda source: {} if source.listed is None else {(): value(source.listed)}


def _of_proof(value: Callable[[Proof], Value]) -> Callable[[SourceReport], Samples]:
    return _of_list(lambda listed: value(listed.proof))


def _of_plan(value: Callable[[PlanSummary], Value]) -> Callable[[SourceReport], Samples]:
    return _of_list(lambda listed: None if listed.plan is None else value(listed.plan))


def _of_gaps(value: Callable[[Gap], Value]) -> Callable[[SourceReport], Samples]:
    return lambda source: {(name,): None if gap is None else value(gap) for name, gap in source.gaps.items()}


def _info(source: SourceReport) -> Samples:
    return {(source.provider, source.coverage.value, source.mode.value): 1}


def _events(source: SourceReport) -> Samples:
    return {(via.value,): count for via, count in source.events.items()}


def _unrecoverable(source: SourceReport) -> Samples:
    return {(): source.unrecoverable_time} if source.listed or source.unrecoverable else {}


def _streams(source: SourceReport) -> Samples:
    return Counter((stream.last_outcome,) for stream in source.streams if stream.last_outcome is not None)


def _planned(source: SourceReport) -> Samples:
    plan = None if source.listed is None else source.listed.plan
    if plan is None:
        return {}
    return {("0.5",): timedelta(seconds=plan.median_s), ("0.99",): timedelta(seconds=plan.p99_s)}


def _missed(source: SourceReport) -> Samples:
    return {(cause.value,): count for cause, count in source.losses.missed.items()} if source.losses else {}


def _of_destination(value: Callable[[DestinationReport], Value]) -> Callable[[DestinationReport], Samples]:
    return lambda destination: {(): value(destination)}


def _backlog(destination: DestinationReport) -> Samples:
    return {(state.value,): count for state, count in destination.backlog.items()}


def _paused(destination: DestinationReport) -> Samples:
    return {(): destination.pause is not None}


def _dead_letters(destination: DestinationReport) -> Samples:
    return {(reason,): count for reason, count in destination.dead.items()}


_ONE_WAY: Final = "modes `webhook`, `poll`"
_NO_LIST: Final = "mode `webhook`"
SOURCE_INFO: Final[Figure[SourceReport]] = Figure(
    name="source_info",
    help="1 for every active source",
    absent="never",
    labels=("provider", "coverage", "mode"),
    samples=_info,
)
"""The series that an alert on an absent figure joins with. The page and JSON show the same as words."""
SOURCE_FIGURES: Final[tuple[Figure[SourceReport], ...]] = (
    Figure(
        name="events_total",
        help="events recorded, by how they were first seen",
        absent="never",
        labels=("via",),
        samples=_events,
    ),
    Figure(
        name="expected_total",
        help="events that the subscription should have pushed",
        absent=_ONE_WAY,
        samples=_of_losses(lambda losses: losses.expected),
    ),
    Figure(
        name="missed_total",
        help="expected events that no webhook had brought when their grace was over; "
        "cause: `receiver_down`, `refused`, `subscription`, `unexplained`",
        absent=_ONE_WAY,
        labels=("cause",),
        samples=_missed,
    ),
    Figure(
        name="recovered_total",
        help="missed events that are recorded now",
        absent=_ONE_WAY,
        samples=_of_losses(lambda losses: losses.recovered),
    ),
    Figure(
        name="late_total",
        help="missed events whose webhook came after all: a part of missed",
        absent=_ONE_WAY,
        samples=_of_losses(lambda losses: losses.late),
    ),
    Figure(
        name="duplicates_total",
        help="webhooks of events that were recorded already",
        absent="never",
        samples=_of_source(lambda source: source.duplicates),
    ),
    Figure(
        name="unlisted_total",
        help="events by webhook that two complete listings of their time lacked",
        absent=_ONE_WAY,
        samples=_of_losses(lambda losses: losses.unlisted),
    ),
    Figure(
        name="found_behind_watermark_total",
        help="events that became visible in the list after the watermark had passed their time",
        absent=_NO_LIST,
        samples=_of_list(lambda listed: listed.behind_watermark),
    ),
    Figure(
        name="gap_rate",
        help="missed per expected over `[watermark - window, watermark)` by time of occurrence; window: `1h`, `24h`, "
        "`7d`, in whole hours, those that the window touches",
        absent="mode not `hybrid`; before the first complete pass; while a stream is parked or its list is not "
        "believed; part of the window is unrecoverable for another reason than a lost event; the watermark is older "
        "than the window is long; nothing was expected",
        labels=("window",),
        samples=_of_gaps(lambda gap: gap.rate),
    ),
    Figure(
        name="window_missed",
        help="events missed in that window",
        absent="as `gapless_gap_rate`, but 0 where nothing was expected",
        labels=("window",),
        samples=_of_gaps(lambda gap: gap.missed),
    ),
    Figure(
        name="window_expected",
        help="events expected in that window",
        absent="as `gapless_window_missed`",
        labels=("window",),
        samples=_of_gaps(lambda gap: gap.expected),
    ),
    Figure(
        name="watermark_timestamp_seconds",
        help="time up to which the ledger agrees with the provider's list; of several streams, the one that lags most",
        absent="until every stream was read; mode `webhook`",
        samples=_of_proof(lambda proof: proof.watermark),
    ),
    Figure(
        name="complete_up_to_timestamp_seconds",
        help="the watermark, or if that is earlier, the oldest open missing row or event that the list lacks",
        absent="as the watermark",
        samples=_of_proof(lambda proof: proof.complete_up_to),
    ),
    Figure(
        name="last_complete_pass_timestamp_seconds",
        help="when every stream had last been read whole",
        absent="as the watermark",
        samples=_of_proof(lambda proof: proof.last_complete_pass),
    ),
    Figure(
        name="history_headroom_seconds",
        help="time until the provider forgets what lies behind the watermark",
        absent="the history has no limit; mode `webhook`",
        samples=_of_list(lambda listed: listed.history_headroom),
    ),
    Figure(
        name="unrecoverable_seconds_total",
        help="length of the intervals about which the provider can prove nothing any more, acknowledged or not, summed "
        "over streams",
        absent="mode `webhook`, unless there is such an interval",
        samples=_unrecoverable,
    ),
    Figure(
        name="missing_open",
        help="events that are known to exist and are not recorded yet",
        absent=_NO_LIST,
        samples=_of_list(lambda listed: listed.missing_open),
    ),
    Figure(
        name="lost_events",
        help="events that the provider listed, no longer has, and that are not recorded; acknowledged or not",
        absent=_NO_LIST,
        samples=_of_list(lambda listed: listed.lost),
    ),
    Figure(
        name="contradicting_events",
        help="events by webhook that the list lacks and that hold the watermark; 0 within `absences_allowed`",
        absent=_NO_LIST,
        samples=_of_list(lambda listed: listed.contradicting),
    ),
    Figure(
        name="unreadable_rows",
        help="rows of the list that cannot be read: a part of missing",
        absent=_NO_LIST,
        samples=_of_list(lambda listed: listed.unreadable_rows),
    ),
    Figure(
        name="provider_grant_used_ratio",
        help="requests of the vendor's rolling period, of every kind, per request that it grants in it; above 0.5 more "
        "than the share that is ours",
        absent="the vendor publishes no grant, or nothing was asked yet; mode `webhook`",
        samples=_of_list(lambda listed: listed.grant_used),
    ),
    Figure(
        name="grant_short",
        help="1 if losses would be found sooner with more of the grant: half of them in less than two thirds of the "
        "time, as planned",
        absent="the vendor publishes no grant; before the first plan; mode `webhook`",
        samples=_of_plan(lambda plan: None if plan.used is None else plan.is_short),
    ),
    Figure(
        name="planned_recovery_seconds",
        help="time from occurred to recorded that this share of single lost webhooks is planned not to exceed; share: "
        "`0.5`, `0.99`",
        absent="before the first plan; mode `webhook`",
        labels=("share",),
        samples=_planned,
    ),
    Figure(
        name="reading_unpaid_until_timestamp_seconds",
        help="time until which a reading waits for requests that the grant has not refilled",
        absent="none waits; mode `webhook`",
        samples=_of_list(lambda listed: listed.unpaid_until),
    ),
    Figure(
        name="poll_interval_seconds",
        help="time between two readings of the list, as planned for now; of several streams, the shortest",
        absent="before the first run; mode `webhook`",
        samples=_of_list(lambda listed: listed.interval),
    ),
    Figure(
        name="grace_seconds",
        help="the age from which an event without a webhook is missed; by plan, the watermark lags by it",
        absent="before the first plan; mode `webhook`",
        samples=_of_list(lambda listed: None if listed.learned is None else timedelta(seconds=listed.learned.grace_s)),
    ),
    Figure(
        name="provider_waits_until_timestamp_seconds",
        help="time before which the provider wants no request, as its `Retry-After` said",
        absent="it wants no pause; mode `webhook`",
        samples=_of_list(lambda listed: listed.waiting_until),
    ),
    Figure(
        name="streams",
        help="streams of the source by the outcome of their last reading, until the next one has another",
        absent="no stream has that outcome; mode `webhook`",
        labels=("outcome",),
        samples=_streams,
    ),
    Figure(
        name="subscription_healthy",
        help="1 if the provider has our endpoint, enabled",
        absent="the provider does not say, or the key may not ask; mode `poll`",
        samples=_of_source(lambda source: source.subscription_healthy),
    ),
    Figure(
        name="source_other_account",
        help="1 while the key reads another account than the source's: the list is not read",
        absent="the account was never read",
        samples=_of_source(lambda source: None if source.account is None else source.other_account is not None),
    ),
    Figure(
        name="other_mode_total",
        help="events of the mode (live or test) that is not the source's own: owed only where `modes` says so",
        absent="the provider has no modes",
        samples=lambda source: {} if source.livemode is None else {(): source.other_mode},
    ),
    Figure(
        name="clock_skew_seconds",
        help="our clock less the provider's, as of the last run: above 0, ours is ahead. Ours is the ledger's: "
        "PostgreSQL's, or on SQLite the machine's",
        absent="the provider has not said what time it is",
        samples=_of_source(lambda source: source.clock_skew),
    ),
    Figure(
        name="source_silent",
        help="1 if no webhook came for longer than `silence_after`",
        absent='no `silence_after`; "learn" before three weeks are known; mode `poll`',
        samples=_of_source(lambda source: source.silent),
    ),
)
DESTINATION_FIGURES: Final[tuple[Figure[DestinationReport], ...]] = (
    Figure(
        name="delivery_backlog",
        help="deliveries not done; state: `pending`, `waiting`, `held`, `parked`, `dead`",
        absent="never",
        labels=("state",),
        samples=_backlog,
    ),
    Figure(
        name="oldest_pending_timestamp_seconds",
        help="when the oldest pending delivery was made",
        absent="nothing is pending",
        samples=_of_destination(lambda destination: destination.oldest_pending),
    ),
    Figure(
        name="dead_letters",
        help="dead letters, by reason of the last attempt",
        absent="never",
        labels=("reason",),
        samples=_dead_letters,
    ),
    Figure(
        name="destination_paused",
        help="1 while a person has paused the destination",
        absent="never",
        samples=_paused,
    ),
    Figure(
        name="blocked_objects",
        help="objects whose next delivery waits for a person, while others wait behind it; with `order`",
        absent="never",
        samples=_of_destination(lambda destination: 0 if destination.blocked is None else destination.blocked.count),
    ),
    Figure(
        name="unproven_deliveries",
        help="deliveries that wait until the list is complete up to them; with `release`",
        absent="never",
        samples=_of_destination(lambda destination: destination.unproven),
    ),
    Figure(
        name="unconfirmed_deliveries",
        help="deliveries that were answered 2xx and wait for their receipt",
        absent="never",
        samples=_of_destination(lambda destination: destination.unconfirmed),
    ),
    Figure(
        name="oldest_unconfirmed_timestamp_seconds",
        help="when the first of them was answered",
        absent="none waits",
        samples=_of_destination(lambda destination: destination.unconfirmed_since),
    ),
)
