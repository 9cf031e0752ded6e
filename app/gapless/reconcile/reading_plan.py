"""The plan of a source's reading, in numbers and in words: how often, at what cost, and how soon a loss is found. Pure.

The plan follows from the grant, the rhythm and what readings cost. The engine makes it after each change of those,
reads by it, and stores its words for `status`.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from gapless.domain import LEAST_HEADROOM, Purpose
from gapless.reconcile.heartbeat import LONGEST, SHORTEST, Heartbeats, StreamLoad, plan_heartbeats, requests_a_day
from gapless.reconcile.pace import CHECK_SHARE, SIBLING_SHARE, SweepPace, plan_sweeps, reads_siblings
from gapless.reconcile.purse import KEPT, Allowance
from gapless.text import format_span

DAY: Final = timedelta(days=1)
PAGE: Final = 100
"""Events of a page, as most vendors list them; the plan of sweeps is made by it."""
SECOND: Final = timedelta(seconds=1)
URGENT_SHARE = 0.1
"""Share of the refill that is planned for urgent looks, so that those do not live on the reserve alone."""
RECKONED_EVERY = timedelta(minutes=10)
"""Time after which a plan is made anew."""
BRIEF = timedelta(days=7)
"""An allowance for a shorter period cannot save for busy hours: each hour must pay for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingFacts:
    """What a plan is made from; what is not known yet has a value that makes the plan careful."""

    allowance: Allowance | None
    """This source's part of it, if several share a grant; None: the vendor names no grant."""
    streams: Mapping[str, StreamLoad]
    rates: Sequence[float]
    """Events in each hour of the week."""
    groups_a_day: float
    """Groups of webhooks, as `pace.reads_siblings` counts them."""
    settle: timedelta
    page: int
    """Events of a page."""
    rate: float
    """Requests a second."""
    sweep_depth: timedelta
    sweep_every: timedelta | None
    """The configured time; None: there are no sweeps."""
    history: timedelta | None
    shortest: timedelta = SHORTEST
    longest: timedelta = LONGEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoning:
    """What was learned about a source by `at`, and the plan that follows from it."""

    at: datetime
    settle: timedelta
    """The age from which a listed event is recorded."""
    grace: timedelta
    """The age from which a listed event without a webhook is missed."""
    plan: "ReadingPlan"
    webhooks: Sequence[float]
    """The groups of webhooks to expect in each hour of the week."""

    def is_stale(self, now: datetime) -> bool:
        """Return True if it is time to reckon anew, also after the clock was set back."""
        return not timedelta(0) <= now - self.at < RECKONED_EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingPlan:
    """How a source is read until the next plan is made."""

    heartbeats: Heartbeats
    siblings: bool
    """Streams are read again soon after a webhook."""
    sweeps: SweepPace | None
    used: float | None
    """Planned requests, as a share of the grant; None: the vendor names none."""
    median: timedelta
    """The wait of half of all single losses, from occurred to recorded."""
    p99: timedelta
    wanted_median: timedelta
    """What the median would be if the grant allowed the shortest interval at all times."""
    history: timedelta | None

    @property
    def is_short(self) -> bool:
        """Return True if the grant costs recovery time."""
        return self.median > self.wanted_median * 1.5

    @property
    def runs_out(self) -> bool:
        """Return True if the longest interval uses up the history that must remain, so that history comes first."""
        return self.history is not None and self.heartbeats.longest >= self.history * (1 - LEAST_HEADROOM)


def plan_reading(what: ReadingFacts) -> ReadingPlan:
    """Return the plan with the shortest waits that the allowance pays for."""
    per_day = math.inf if what.allowance is None else what.allowance.per_day
    cost = _average_cost(what.streams)
    events = sum(load.rate for load in what.streams.values()) * (what.sweep_depth / DAY)
    sweeps = None if what.sweep_every is None else _sweeps(what, events, per_day)
    siblings = reads_siblings(what.groups_a_day, cost, per_day)
    for_siblings = min(what.groups_a_day * cost, SIBLING_SHARE * per_day) if siblings else 0.0
    others = for_siblings + _sweeps_a_day(sweeps)
    beats = _heartbeats(what, per_day * (1 - CHECK_SHARE - URGENT_SHARE) - others)
    planned = requests_a_day(beats, what.streams) + others
    fastest = _heartbeats(what, math.inf)
    return ReadingPlan(
        heartbeats=beats,
        siblings=siblings,
        sweeps=sweeps,
        used=None if what.allowance is None else planned * (what.allowance.period / DAY) / what.allowance.granted,
        median=_wait(what, beats, 0.5, siblings=siblings),
        p99=_wait(what, beats, 0.99, siblings=siblings),
        wanted_median=_wait(what, fastest, 0.5, siblings=False),
        history=what.history,
    )


def in_words(plan: ReadingPlan) -> str:
    """Return the plan for people, in one or two sentences."""
    fastest, slowest = plan.heartbeats.bounds()
    often = format_span(fastest)
    if slowest >= 1.2 * fastest:
        often += f" to {format_span(slowest)}"
    use = "" if plan.used is None else f", for {_percent(plan.used)} of the grant"
    after = ", and soon after each webhook" if plan.siblings else ""
    said = f"reads every {often}{after}{use}; a lost webhook is found within about {format_span(plan.median)}"
    if plan.is_short:
        said += (
            f" (99 in 100 within {format_span(plan.p99)}). The grant is short: with more of it, "
            f"{format_span(plan.wanted_median)}"
        )
    if plan.runs_out:
        said += ". The provider's history runs out between two readings"
    return said


def _average_cost(streams: Mapping[str, StreamLoad]) -> float:
    return sum(load.cost for load in streams.values()) / len(streams) if streams else 1.0


def _sweeps(what: ReadingFacts, events: float, per_day: float) -> SweepPace:
    assert what.sweep_every is not None  # noqa: S101 - the caller asked
    at_once = math.inf if what.allowance is None else (1 - KEPT[Purpose.SWEEP]) * what.allowance.full
    per_day = min(per_day, what.rate * (DAY / SECOND))
    return plan_sweeps(events, what.page, per_day, what.rate, what.sweep_every, at_once)


def _sweeps_a_day(sweeps: SweepPace | None) -> float:
    return 0.0 if sweeps is None else sweeps.pieces * sweeps.requests * (DAY / sweeps.every)


def _heartbeats(what: ReadingFacts, per_day: float) -> Heartbeats:
    per_day = max(per_day, 0.0)
    shortest = what.shortest
    if what.allowance is not None and what.allowance.period < BRIEF and math.isfinite(per_day) and per_day > 0:
        costs = sum(load.cost for load in what.streams.values())
        shortest = max(shortest, DAY * (costs / per_day))
    at_most = sum(load.cost for load in what.streams.values()) * (DAY / shortest)
    return plan_heartbeats(what.streams, what.rates, min(per_day, at_most), shortest, max(what.longest, shortest))


def _percent(share: float) -> str:
    percent = round(100 * share)
    return f"{percent} %" if percent else "less than 1 %"


def _wait(what: ReadingFacts, beats: Heartbeats, share: float, *, siblings: bool) -> timedelta:
    """Return the wait that this share of single losses does not exceed: settle, and a part of their interval."""
    settle_s, low, high = what.settle.total_seconds(), 0.0, beats.longest.total_seconds()
    intervals = _losses_by_interval(what, beats)
    with_siblings = _sibling_share(what) if siblings else 0.0
    for _ in range(30):
        middle = (low + high) / 2
        lost = sum(part * max(1 - middle / interval, 0.0) for interval, part in intervals.items())
        lost *= 1 - with_siblings * (min(middle / settle_s, 1.0) if settle_s else 1.0)
        low, high = (middle, high) if lost > 1 - share else (low, middle)
    return what.settle + timedelta(seconds=high)


def _losses_by_interval(what: ReadingFacts, beats: Heartbeats) -> dict[float, float]:
    """Return the share of events that occur while their stream is read at an interval, in seconds; they sum up to 1.

    While no event is known, they may occur at any time and in any stream alike.
    """
    is_known = any(load.rate for load in what.streams.values()) and any(what.rates)
    weights: defaultdict[float, float] = defaultdict(float)
    for name, load in what.streams.items():
        for hour, rate in enumerate(what.rates):
            weights[float(f"{beats.limited(name, hour):.3g}")] += load.rate * rate if is_known else 1.0
    total = sum(weights.values())
    if not total:
        return {beats.longest.total_seconds(): 1.0}
    return {interval: weight / total for interval, weight in weights.items()}


def _sibling_share(what: ReadingFacts) -> float:
    """Return the share of events that have a sibling, by the size of an average group: all, if it is two or more."""
    events = sum(load.rate for load in what.streams.values())
    return min(1.0, 2 * max(0.0, 1 - what.groups_a_day / events)) if events else 0.0
