"""How soon a source is read again. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.domain import LONGEST_INTERVAL
from gapless.ledger.budgets import BLOCK
from gapless_reconcilers.kit.contract import ReadBudget

STEP = 1.5
"""How much longer the interval gets after each clean pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What the last cycle of a source showed."""

    found: bool = False
    """A pass found something that was missed."""
    unwell: bool = False
    """Signatures fail, the subscription is unhealthy, or the provider could not be reached."""
    parked: bool = False
    """Only a person can mend it: asking often would not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Between which intervals a source moves; `adaptive` False keeps the shorter one."""

    shortest: timedelta
    longest: timedelta
    adaptive: bool
    long_poll: bool = False
    """Ask again at once: the provider keeps its answer back until there is something to say."""


def next_interval(pace: Pace, last: timedelta | None, signals: Signals) -> timedelta:
    """The next interval: short when there is reason to look, longer while all is clean.

    A clean source may wait for `longest`, whatever the operator set it to. A parked one may not wait for more than an
    hour: the key may have been replaced, and meanwhile nothing is read.
    """
    if signals.parked:
        return max(pace.shortest, min(pace.longest, LONGEST_INTERVAL))
    if pace.long_poll and not signals.unwell:
        return timedelta(0)
    if not pace.adaptive or last is None or signals.found or signals.unwell:
        return pace.shortest
    return min(max(last * STEP, pace.shortest), pace.longest)


def due_at_start(last_complete: datetime | None, pace: Pace, now: datetime) -> datetime:
    """When a process that has just started should first read: now, unless it was read within the shortest interval."""
    if last_complete is None:
        return now
    return max(now, last_complete + pace.shortest)


RESERVED = 0.2
"""Share of the budget that is kept for start-up and horizon passes."""


LEAST_HEADROOM = 0.25
"""Share of the history below which the budget is exceeded rather than an event lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """A read budget, and how much of it a source has used."""

    budget: ReadBudget
    used: int
    """Requests of every kind since the period began: of passes and sweeps, of the hourly questions, of retries."""
    period_start: datetime
    cost: float
    """Requests that the scheduled passes of all the source's streams take, once each."""


def affordable_interval(spending: Spending, now: datetime) -> timedelta:
    """The shortest interval at which the scheduled passes fit into what is left, the reserve kept aside."""
    left = spending.period_start + spending.budget.period - now
    spendable = spending.budget.requests * (1 - RESERVED) - spending.used
    if left <= timedelta(0):
        return timedelta(0)
    if spendable < spending.cost:
        return left
    return left / (spendable / max(spending.cost, 1.0))


def sweep_allowance(spending: Spending, now: datetime, ahead: timedelta) -> int:
    """Requests that sweeps may use now: what the scheduled passes have left over so far.

    Spread evenly over the period, the budget without its reserve grants so many requests until the next pass, which
    comes within `ahead`. What is used already and what that pass will take are not for sweeps, so no sweep makes a
    later pass rarer. Less than a block is nothing: it would be spent on beginning and breaking off.
    """
    budget, used, start = spending.budget, spending.used, spending.period_start
    if now >= start + budget.period:
        used, start = 0, now
    share = min(1.0, (now + ahead - start) / budget.period)
    spare = int(budget.requests * (1 - RESERVED) * share - used - spending.cost)
    return spare if spare >= BLOCK else 0


def latest_next_pass(history: timedelta | None, watermark: datetime) -> datetime | None:
    """The time by which a pass must be made whatever the budget says; None: there is none."""
    return None if history is None else watermark + history * (1 - LEAST_HEADROOM)


def slow_down(interval: timedelta, affordable: timedelta, now: datetime, latest: datetime | None) -> timedelta:
    """The interval that the budget allows, an hour at most, and less where the history would otherwise run out.

    The hour holds for every source that is listed, whether its provider forgets (`latest`) or not: what is found days
    later is late even where it is not gone. An `interval` that is longer is the operator's choice and stays as it is.
    """
    slowed = max(interval, min(affordable, LONGEST_INTERVAL))
    if latest is None:
        return slowed
    return max(interval, min(slowed, latest - now))
