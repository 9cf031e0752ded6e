"""How soon a source is read again. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

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
    """The next interval: short when there is reason to look, longer while all is clean."""
    if signals.parked:
        return pace.longest
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
