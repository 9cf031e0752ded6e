"""Learn what a source needs from the ledger, and make the plan by which it is read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.domain import HOUR_US, RHYTHM_FROM, Source, from_us, span_us, to_us
from gapless.ledger import Connection, learned, passes, tallies
from gapless.ledger.learned import Learned, PlanSummary, WebhookTimes
from gapless.ledger.streams import Stream
from gapless.reconcile.heartbeat import StreamLoad, learned_rates
from gapless.reconcile.lateness import LEARNED_FROM, LEAST_LAGS, AgeCounts, learned_grace, settle_time
from gapless.reconcile.pace import NEVER
from gapless.reconcile.policy import SourcePolicy
from gapless.reconcile.purse import Allowance
from gapless.reconcile.reading_plan import DAY, PAGE, ReadingFacts, ReadingPlan, Reckoning, in_words, plan_reading
from gapless.reconcile.window import sweep_depth
from gapless_reconcilers.kit.contract import Coverage

LOOKED_AT = 5000
"""The newest webhooks of a stream from which lags are learned."""
BUSIEST = 20
"""The streams whose webhooks are looked at, where a source has more."""


def reckon(
    connection: Connection,
    *,
    source: Source,
    streams: Sequence[Stream],
    policy: SourcePolicy,
    allowance: Allowance | None,
    granted: int | None,
    now: datetime,
) -> tuple[Reckoning, Learned]:
    """Learn from the ledger, and make the plan. Return both, and what is stored of them for `status`.

    `allowance`: this source's part of what may be used of the grant; None: the vendor names no grant. `granted`: the
    requests that the vendor grants in the period of the allowance.
    """
    facts = _reading_facts(connection, source, streams, policy, allowance, now)
    plan = plan_reading(facts.reading)
    known = Learned(
        settle_s=facts.reading.settle.total_seconds(),
        grace_s=facts.grace.total_seconds(),
        webhooks=facts.lags.total,
        lag_p50_s=_seconds(facts.lags.percentile(0.5)),
        lag_p999_s=_seconds(facts.lags.percentile(0.999)),
        shown=facts.shown.total,
        shown_p50_s=_seconds(facts.shown.percentile(0.5)),
        shown_p999_s=_seconds(facts.shown.percentile(0.999)),
        events_a_day=facts.events_a_day,
        groups_a_day=facts.reading.groups_a_day,
        granted=granted,
        period_s=None if allowance is None else allowance.period.total_seconds(),
        plan=_summary(plan),
    )
    reckoning = Reckoning(
        at=now,
        settle=facts.reading.settle,
        grace=facts.grace,
        plan=plan,
        webhooks=[rate * facts.groups for rate in facts.reading.rates],
    )
    return reckoning, known


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    reading: ReadingFacts
    grace: timedelta
    lags: AgeCounts
    shown: AgeCounts
    events_a_day: float
    groups: float
    """Groups of webhooks to an event."""


def _reading_facts(
    connection: Connection,
    source: Source,
    streams: Sequence[Stream],
    policy: SourcePolicy,
    allowance: Allowance | None,
    now: datetime,
) -> _Facts:
    rates = _rates(connection, source, now)
    events_a_day = sum(rates) / 7
    counts = learned.events_by_stream(connection, [each.id for each in streams], to_us(now - DAY))
    busiest = sorted((each.id for each in streams), key=lambda stream_id: -counts.get(stream_id, 0))[:BUSIEST]
    times = learned.newest_webhooks(connection, busiest, to_us(now - LEARNED_FROM), LOOKED_AT)
    lags, shown = _lags(times), AgeCounts()
    shown.merge(learned.list_delays(connection, source.id, to_us(now - LEARNED_FROM)))
    settle, grace = _ages(policy, lags, shown)
    groups = _groups_per_event(times, settle)
    return _Facts(
        groups=groups,
        reading=ReadingFacts(
            allowance=allowance,
            streams=_loads(connection, source, streams, events_a_day, counts),
            rates=rates,
            groups_a_day=events_a_day * groups,
            settle=settle,
            page=PAGE,
            rate=policy.rate,
            sweep_depth=sweep_depth(policy.capabilities.history),
            sweep_every=policy.sweep_every if policy.sweep_every < NEVER else None,
            history=policy.capabilities.history,
            shortest=policy.pace.shortest,
            longest=policy.pace.longest,
        ),
        grace=grace,
        lags=lags,
        shown=shown,
        events_a_day=events_a_day,
    )


def _rates(connection: Connection, source: Source, now: datetime) -> list[float]:
    """Return the events to expect in each hour of the week."""
    by_hour = tallies.by_hour(connection, source.id, to_us(now - RHYTHM_FROM) // HOUR_US)
    first = min(by_hour, default=None)
    known_from = source.start if first is None else max(source.start, from_us(first * HOUR_US))
    return learned_rates(by_hour, min(known_from, now), now)


def _loads(
    connection: Connection, source: Source, streams: Sequence[Stream], events_a_day: float, counts: dict[int, int]
) -> dict[str, StreamLoad]:
    """Return what is known of each stream: its share of the source's events, by those of the last day."""
    cost, total = max(passes.request_count(connection, source.id), 1.0), sum(counts.values())
    cost += bool(source.provider.capabilities.precondition)  # our endpoint is looked at with each reading
    shares = {each.id: counts.get(each.id, 0) / total if total else 1 / len(streams) for each in streams}
    return {each.name: StreamLoad(rate=events_a_day * shares[each.id], cost=cost) for each in streams}


def _lags(times: Iterable[WebhookTimes]) -> AgeCounts:
    lags = AgeCounts()
    for each in times:
        lags.add((each.webhook_us - each.occurred_us) / 1_000_000)
    return lags


def _ages(policy: SourcePolicy, lags: AgeCounts, shown: AgeCounts) -> tuple[timedelta, timedelta]:
    """Return settle and grace. What only states show, or lists with other times than webhooks, keeps what is declared.

    Settle never comes so near to the declared grace that a listed event would count as missed when it is recorded.
    """
    known = policy.capabilities
    lag = lags.percentile(0.999) if lags.total >= LEAST_LAGS else None
    settle = settle_time(lag)
    settle = max(timedelta(0), min(settle, known.grace - known.resolution))
    if not known.exact_times or known.coverage is Coverage.RESOURCE_STATE or policy.is_grace_set:
        return settle, known.grace
    grace = learned_grace(
        declared=known.grace,
        settle=settle,
        unit=known.resolution,
        shown_p999=shown.percentile(0.999),
        webhook_lag_p999=lag,
        samples=min(lags.total, shown.total),
    )
    return settle, min(grace, max(known.grace, settle + known.resolution))


def _groups_per_event(times: Sequence[WebhookTimes], settle: timedelta) -> float:
    """Return how many groups there are to an event: a group is what comes within settle of its first webhook."""
    came = sorted(each.webhook_us for each in times)
    if not came:
        return 1.0
    groups, began_us = 0, 0
    for at_us in came:
        if not groups or at_us - began_us > span_us(settle):
            groups, began_us = groups + 1, at_us
    return groups / len(came)


def _summary(plan: ReadingPlan) -> PlanSummary:
    low, high = plan.heartbeats.bounds()
    return PlanSummary(
        words=in_words(plan),
        shortest_s=low.total_seconds(),
        longest_s=high.total_seconds(),
        median_s=plan.median.total_seconds(),
        p99_s=plan.p99.total_seconds(),
        wanted_median_s=plan.wanted_median.total_seconds(),
        used=plan.used,
        is_short=plan.is_short,
        runs_out=plan.runs_out,
        siblings=plan.siblings,
        sweep_every_s=None if plan.sweeps is None else plan.sweeps.every.total_seconds(),
    )


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()
