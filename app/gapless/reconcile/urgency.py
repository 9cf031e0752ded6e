"""Decide when a stream is looked at out of turn, because something suggests that events were lost. Pure.

A look has a reason, a time and a wait. While looks of a reason find nothing, the wait grows; when it is as long as the
heartbeat, the reason is dropped. Urgent looks may use what the purse holds in reserve.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

GROWTH = 1.5
"""By what the wait grows with each clean look."""
ENDPOINT_GROWTH = 1.005
"""The same while our endpoint is unhealthy: six hours of it cost some 300 looks, and a day not twice as many."""
FIRST_WAIT = timedelta(seconds=30)
REJECTED_WAIT, LONGEST_REJECTED_WAIT = timedelta(minutes=1), timedelta(minutes=30)
FURTHEST_SILENCE = timedelta(weeks=1)
SILENT_FROM = 4.6
"""Expected webhooks from which on a silence is looked into: by chance it comes after one webhook in a hundred."""


class Reason(StrEnum):
    """Why a look is urgent."""

    START = "start"
    """We were not running, or have just begun."""
    FIND = "find"
    """A reading found an event that no webhook had brought."""
    ENDPOINT = "endpoint"
    """The provider says that our endpoint is not healthy."""
    REFUSED = "refused"
    """We answered a verified webhook with 5xx."""
    DOUBTED = "doubted"
    """We refused a webhook that may be genuine; a stranger may have sent it."""
    LATE = "late"
    """A webhook came later than settle: the provider's queue is behind."""
    SILENCE = "silence"
    """No webhook came for longer than the rhythm suggests."""
    KEY_REPLACED = "key_replaced"
    KEY_REJECTED = "key_rejected"


AT_ONCE = frozenset({Reason.START, Reason.SILENCE, Reason.KEY_REPLACED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The next look for a reason."""

    reason: Reason
    due: datetime
    wait: timedelta
    """The time between the look before and this one, without `put_off`: the next wait grows from it."""
    put_off: timedelta = timedelta(0)
    """The time for which it could not be paid for."""


def first_look(reason: Reason, now: datetime, beat: timedelta, first_wait: timedelta = FIRST_WAIT) -> Look | None:
    """Return the first look for a reason that arose `now`: at once where time was lost already, else after a wait.

    `first_wait` is the source's shortest interval. None: the heartbeat comes about as soon, and it need not use the
    reserve. A rejected key is tried again after a minute.
    """
    if reason in AT_ONCE:
        return Look(reason=reason, due=now, wait=first_wait)
    if reason is Reason.KEY_REJECTED:
        return Look(reason=reason, due=now + REJECTED_WAIT, wait=REJECTED_WAIT)
    return Look(reason=reason, due=now + first_wait, wait=first_wait) if first_wait * GROWTH < beat else None


def next_look(
    look: Look, now: datetime, beat: timedelta, first_wait: timedelta = timedelta(0), *, goes_on: bool
) -> Look | None:
    """Return the look after one that was made `now`; None: the heartbeat is enough from here on.

    `goes_on`: the reason still holds. After a find the wait does not grow then; it is at least `first_wait`, the
    source's shortest interval. An unhealthy endpoint is no find: its wait grows slowly to that of the heartbeat, so
    that days of it do not empty the purse. A rejected key waits twice as long each time, up to half an hour, and is
    never given up.
    """
    if look.reason is Reason.KEY_REJECTED:
        wait = min(look.wait * 2, LONGEST_REJECTED_WAIT)
        return Look(reason=look.reason, due=now + wait, wait=wait) if goes_on else None
    if look.reason is Reason.ENDPOINT and goes_on:
        wait = min(max(look.wait * ENDPOINT_GROWTH, first_wait), beat)
        return Look(reason=look.reason, due=now + wait, wait=wait)
    if look.reason in AT_ONCE and not goes_on:
        return None
    wait = max(min(look.wait, FIRST_WAIT), first_wait) if goes_on else look.wait * GROWTH
    if wait >= beat:
        return None
    reason = Reason.FIND if look.reason in AT_ONCE else look.reason
    return Look(reason=reason, due=now + wait, wait=wait)


def sooner(one: Look | None, other: Look | None) -> Look | None:
    """Return the look that is due first."""
    if one is None or other is None:
        return one or other
    return min(one, other, key=lambda look: look.due)


def silence_due(expected: Callable[[datetime], float], looked_at: float, now: datetime) -> datetime | None:
    """Return when a silence that goes on is worth a look, within a week; None: not so soon.

    `expected` returns how many groups of webhooks the rhythm predicts from the last one to a time.
    """
    wanted = max(SILENT_FROM, 2 * looked_at)
    if expected(now + FURTHEST_SILENCE) < wanted:
        return None
    low, high = now, now + FURTHEST_SILENCE
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (low, middle) if expected(middle) >= wanted else (middle, high)
    return high


def silent_look(expected: float, looked_at: float) -> float | None:
    """Return `expected` if a silence is worth a look now, else None.

    `expected` is how many groups of webhooks (the events of one transaction count once) the rhythm predicts since the
    last one came; `looked_at` is the value at which this silence was looked into last, 0 if never. Each further look
    wants twice as many, so that a quiet source costs little.
    """
    return expected if expected >= max(SILENT_FROM, 2 * looked_at) else None
