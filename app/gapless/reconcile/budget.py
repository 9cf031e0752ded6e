"""A read budget slows a source down; it never blinds it. Pure."""

from datetime import datetime, timedelta

from gapless_reconcilers.kit.contract import ReadBudget

RESERVED = 0.2
"""Share of the budget that is kept for start-up and horizon passes."""
LEAST_HEADROOM = 0.25
"""Share of the history below which the budget is exceeded rather than an event lost."""


def affordable_interval(
    *, budget: ReadBudget, used: int, period_start: datetime, now: datetime, cost: float
) -> timedelta:
    """The shortest interval at which passes of `cost` requests fit into what is left, the reserve kept aside."""
    left = period_start + budget.period - now
    spendable = budget.requests * (1 - RESERVED) - used
    if left <= timedelta(0):
        return timedelta(0)
    if spendable < cost:
        return left
    return left / (spendable / max(cost, 1.0))


def latest_next_pass(history: timedelta | None, watermark: datetime) -> datetime | None:
    """The time by which a pass must be made whatever the budget says; None: there is none."""
    return None if history is None else watermark + history * (1 - LEAST_HEADROOM)


def slow_down(interval: timedelta, affordable: timedelta, now: datetime, latest: datetime | None) -> timedelta:
    """The interval that the budget allows, cut short where the history would otherwise run out."""
    slowed = max(interval, affordable)
    if latest is None:
        return slowed
    return max(interval, min(slowed, latest - now))
