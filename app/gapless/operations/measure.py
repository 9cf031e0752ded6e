"""What was measured on a user's own account: lags of webhooks, delay of the list, recovery of missed events, requests.

Only such figures are facts. Those of a simulation depend on what it assumes of the vendor.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.domain import Cause, Source, from_us, to_us
from gapless.ledger import Connection, budgets, learned, measures
from gapless.ledger.budgets import GrantUse
from gapless.reconcile.lateness import AgeCounts

LEAST = 20
"""Samples below which nothing is said but their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredTimes:
    """How observed times are spread. None: there are too few samples to say."""

    samples: int
    median: timedelta | None = None
    p95: timedelta | None = None
    p99: timedelta | None = None
    p999: timedelta | None = None
    longest: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What was measured of one source."""

    source: str
    since: datetime
    """The time from which on all events were looked at: later than asked if there are too many."""
    webhook_lag: MeasuredTimes
    """How long after its event a webhook came; unknown if the vendor's webhooks do not say when it occurred."""
    list_delay: MeasuredTimes
    """The age at which a listing first showed what had come by webhook, rounded up by a tenth at most; whole days."""
    recovery: MeasuredTimes
    """How long after it occurred a missed event was recorded."""
    recovery_by_cause: Mapping[Cause, MeasuredTimes]
    """Only the causes that occur."""
    not_recovered: int
    """Missed events that are not recorded."""
    requests: GrantUse | None
    """The requests of the vendor's rolling period, whatever `since` is; None: nothing was asked yet."""


def read_measures(connection: Connection, source: Source, since: datetime, now: datetime) -> Measures:
    """Return what the ledger shows of the source's events that occurred since a time."""
    found = measures.read_events(connection, source.id, to_us(since))
    shown = AgeCounts()
    shown.merge(learned.list_delays(connection, source.id, to_us(since)))
    by_cause = {cause: [took for each, took in found.recoveries if each is cause] for cause in Cause}
    return Measures(
        source=source.name,
        since=from_us(found.since_us),
        webhook_lag=times_of(found.lags if source.provider.capabilities.exact_times else ()),
        list_delay=times_of_counts(shown),
        recovery=times_of([took for _, took in found.recoveries]),
        recovery_by_cause={cause: times_of(times) for cause, times in by_cause.items() if times},
        not_recovered=measures.not_recovered(connection, source.id, to_us(since)),
        requests=budgets.grant_use(connection, source.provider.budget_scope(), to_us(now)),
    )


def times_of(times_us: Sequence[int]) -> MeasuredTimes:
    """Return how times in microseconds are spread."""
    ordered = sorted(times_us)
    if len(ordered) < LEAST:
        return MeasuredTimes(samples=len(ordered))

    def at(share: float) -> timedelta | None:
        if not _is_enough(len(ordered), share):
            return None
        return timedelta(microseconds=ordered[math.ceil(len(ordered) * share) - 1])

    return MeasuredTimes(
        samples=len(ordered),
        median=at(0.5),
        p95=at(0.95),
        p99=at(0.99),
        p999=at(0.999),
        longest=timedelta(microseconds=ordered[-1]),
    )


def times_of_counts(counts: AgeCounts) -> MeasuredTimes:
    """Return how counted ages are spread."""
    if counts.total < LEAST:
        return MeasuredTimes(samples=counts.total)

    def at(share: float) -> timedelta | None:
        return counts.percentile(share) if _is_enough(counts.total, share) else None

    return MeasuredTimes(
        samples=counts.total,
        median=at(0.5),
        p95=at(0.95),
        p99=at(0.99),
        p999=at(0.999),
        longest=counts.percentile(1.0),
    )


def _is_enough(samples: int, share: float) -> bool:
    """Return True if a sample lies beyond that share of them, so that it is more than the longest."""
    return samples >= max(LEAST, round(1 / (1 - share)))
