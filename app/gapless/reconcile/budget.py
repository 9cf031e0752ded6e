"""A read budget slows a source down and postpones its sweeps; it never blinds the source. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.ledger.budgets import BLOCK
from gapless.reconcile.pace import LONGEST
from gapless_reconcilers.kit.contract import ReadBudget

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
    slowed = max(interval, min(affordable, LONGEST))
    if latest is None:
        return slowed
    return max(interval, min(slowed, latest - now))
