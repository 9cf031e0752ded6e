"""Decide how soon a source is read again, and what its read budget allows. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.clock import is_due
from gapless.domain import LEAST_HEADROOM, LONGEST_INTERVAL, span_us, to_us
from gapless.ledger.budgets import BLOCK
from gapless_reconcilers.kit.contract import ReadBudget

STEP = 1.5
"""Factor by which the interval grows after each clean pass."""
RESERVED = 0.2
"""Share of the budget that is kept for start-up and horizon passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Findings of the last run of a source."""

    found: bool = False
    """A pass found missed events."""
    unhealthy: bool = False
    """Signatures fail, the subscription is unhealthy, or the provider could not be reached."""
    parked: bool = False
    """Only a person can repair it: frequent requests would not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The bounds of a source's interval; with `adaptive` False it is always the shorter one."""

    shortest: timedelta
    longest: timedelta
    adaptive: bool
    long_poll: bool = False
    """Ask again at once: the provider holds the request open until it has events."""


def next_interval(pace: Pace, last: timedelta | None, signals: Signals) -> timedelta:
    """Return the next interval: short when there is reason to look, longer while all is clean.

    A clean source may wait for `longest`, whatever the operator set it to. A parked one may not wait for more than an
    hour: the key may have been replaced, and meanwhile nothing is read.
    """
    if signals.parked:
        return max(pace.shortest, min(pace.longest, LONGEST_INTERVAL))
    if pace.long_poll and not signals.unhealthy:
        return timedelta(0)
    if not pace.adaptive or last is None or signals.found or signals.unhealthy:
        return pace.shortest
    return min(max(last * STEP, pace.shortest), pace.longest)


def due_at_start(last_complete: datetime | None, pace: Pace, now: datetime) -> datetime:
    """Return the time of a source's first pass after a start: now, unless it was read within the shortest interval."""
    if last_complete is None:
        return now
    due = last_complete + pace.shortest
    return now if is_due(to_us(due), span_us(pace.shortest), to_us(now)) else due


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """A read budget, and how much of it a source has used."""

    budget: ReadBudget
    used: int
    """Requests of every kind since the period began: passes, sweeps, hourly health checks and retries."""
    period_start: datetime
    cost: float
    """Requests that one scheduled pass of each of the source's streams takes."""


def affordable_interval(spending: Spending, now: datetime) -> timedelta:
    """Return the shortest interval at which the scheduled passes fit into what is left above the reserve."""
    left = spending.period_start + spending.budget.period - now
    spendable = spending.budget.requests * (1 - RESERVED) - spending.used
    if left <= timedelta(0):
        return timedelta(0)
    if spendable < spending.cost:
        return left
    return left / (spendable / max(spending.cost, 1.0))


def sweep_allowance(spending: Spending, now: datetime, ahead: timedelta) -> int:
    """Return the requests that sweeps may use now: what the scheduled passes have left over so far.

    The budget without its reserve is spread evenly over the period. Of the share that is due until the next pass, which
    comes within `ahead`, sweeps get what is neither used already nor needed by that pass, so no sweep makes a later
    pass rarer. Less than a block counts as 0: it would be spent on starting and stopping.
    """
    budget, used, start = spending.budget, spending.used, spending.period_start
    if now >= start + budget.period:
        used, start = 0, now
    share = min(1.0, (now + ahead - start) / budget.period)
    spare = int(budget.requests * (1 - RESERVED) * share - used - spending.cost)
    return spare if spare >= BLOCK else 0


def latest_next_pass(history: timedelta | None, watermark: datetime) -> datetime | None:
    """Return the time by which a pass must be made whatever the budget says; None: the history has no limit."""
    return None if history is None else watermark + history * (1 - LEAST_HEADROOM)


def slow_down(interval: timedelta, affordable: timedelta, now: datetime, latest: datetime | None) -> timedelta:
    """Return the interval that the budget allows: an hour at most, and less where the history would run out.

    The hour holds for every listed source, whether its provider forgets (`latest`) or not: an event that is found days
    later is late even where it can still be found. A longer `interval` is the operator's choice and is kept.
    """
    slowed = max(interval, min(affordable, LONGEST_INTERVAL))
    if latest is None:
        return slowed
    return max(interval, min(slowed, latest - now))
