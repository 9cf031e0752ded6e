"""How soon a source is read again. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

STEP = 1.5
"""How much longer the interval gets after each clean pass."""
LONGEST = timedelta(hours=1)
"""The longest that a source waits for its next pass, unless the operator set `every` or `every_max` to more."""


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
        return max(pace.shortest, min(pace.longest, LONGEST))
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
