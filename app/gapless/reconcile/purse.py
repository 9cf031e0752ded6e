"""Decide what may be spent on reading: the grant, our share of it, and the purse that pays for every request. Pure.

A purse belongs to what the vendor counts together (`budget_scope`): sources that share a grant share its purse. It is
a token bucket that refills evenly with most of our share and holds the rest, so that no period, wherever it begins, has
more requests than the share. Each purpose leaves the purse at a level that purposes of higher priority may still use.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from gapless.domain import Purpose

USED_SHARE = 0.5
"""Share of a grant that we use: the rest is left to whatever else reads the account."""
REFILLED = 0.8
"""Share of the allowance that refills evenly over the period. The purse holds the rest, for what cannot wait."""
BACK_OFF = timedelta(hours=1)
"""Time after a 429 for which the allowance is halved: somebody else uses the grant as well."""


KEPT: Mapping[Purpose, float] = MappingProxyType(
    {
        Purpose.HISTORY: -math.inf,
        Purpose.START: 0.0,
        Purpose.URGENT: 0.0,
        Purpose.DETAIL: 0.1,
        Purpose.HEARTBEAT: 0.2,
        Purpose.SIBLING: 0.4,
        Purpose.SWEEP: 0.6,
        Purpose.ENDPOINT: 0.7,
        Purpose.ACCOUNT: 0.75,
        Purpose.DOUBT: 0.8,
    }
)
"""The level, as a share of the full purse, below which a purpose spends nothing."""


PRIORITY: Mapping[Purpose, int] = MappingProxyType({purpose: rank for rank, purpose in enumerate(Purpose)})


def granted(*, floor: int, per_transaction: int = 0, transactions: int = 0) -> int:
    """Return the requests that the vendor grants in its period: so many a transaction, and at least `floor`.

    `transactions` are those known of the last period. Too few make the grant too small, never too large.
    """
    return max(floor, per_transaction * transactions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """The requests that may be used in any `period`, of those that the vendor has granted."""

    requests: float
    period: timedelta
    granted: float

    @property
    def full(self) -> float:
        """Return the most tokens that the purse holds."""
        return self.requests * (1 - REFILLED)

    @property
    def per_day(self) -> float:
        """Return the requests that the purse refills in a day: what can be planned."""
        return self.requests * REFILLED * (timedelta(days=1) / self.period)

    def part(self, sources: int) -> "Allowance":
        """Return what one of so many sources that share the grant may plan with; all of them spend from one purse."""
        return Allowance(requests=self.requests / sources, period=self.period, granted=self.granted / sources)


def allow(
    requests: float, period: timedelta, *, refused: timedelta | None = None, share: float = USED_SHARE
) -> Allowance:
    """Return our allowance of a grant of `requests` in `period`: a `share` of it, halved for an hour after a 429.

    `refused` is the time since the last 429; None: there was none.
    """
    is_backing_off = refused is not None and refused < BACK_OFF
    used = requests * share * (0.5 if is_backing_off else 1.0)
    return Allowance(requests=used, period=period, granted=requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Purse:
    """What was spent and is not refilled yet. What is left follows from the allowance, which may change."""

    owed: float
    """Requests; more than a full purse after history was read that could not be paid for."""
    at: datetime


def new_purse(now: datetime) -> Purse:
    """Return a full purse, for a scope that was never read."""
    return Purse(owed=0.0, at=now)


def filled(purse: Purse, allowance: Allowance, now: datetime) -> Purse:
    """Return the purse as it is at `now`. A clock that was set back refills nothing."""
    passed = max(now - purse.at, timedelta(0))
    return Purse(owed=max(0.0, purse.owed - allowance.requests * REFILLED * (passed / allowance.period)), at=now)


def spend(purse: Purse, requests: float) -> Purse:
    """Return the purse after `requests` were made, or reserved, at its time."""
    return Purse(owed=purse.owed + requests, at=purse.at)


def believe(purse: Purse, allowance: Allowance, remaining: float) -> Purse:
    """Return the purse after the vendor said how many requests remain of the grant: at most half of them are ours.

    What others have used meanwhile cannot be spent here; that they used little makes the purse no fuller.
    """
    return Purse(owed=max(purse.owed, allowance.full - remaining * USED_SHARE), at=purse.at)


def spendable(purse: Purse, allowance: Allowance, purpose: Purpose) -> float:
    """Return the requests that may be made for `purpose` at the purse's time, at least 0; infinity for history."""
    return max(0.0, (1 - KEPT[purpose]) * allowance.full - purse.owed)


def may_spend(purse: Purse, allowance: Allowance, purpose: Purpose, requests: float) -> bool:
    """Return True if `requests` may be made for `purpose` at the purse's time.

    What takes more than the purse can ever hold for the purpose may begin when the purse is full.
    """
    return _lacking(purse, allowance, purpose, requests) <= 0


def affordable_at(purse: Purse, allowance: Allowance, purpose: Purpose, requests: float) -> datetime:
    """Return the time from which `requests` may be made for `purpose`, if nothing else is spent meanwhile."""
    lacking = _lacking(purse, allowance, purpose, requests)
    return purse.at if lacking <= 0 else purse.at + _refilled_in(allowance, lacking)


def paid_at(purse: Purse, allowance: Allowance, requests: float) -> datetime:
    """Return when the last of `requests` may be made that a reading which has begun takes.

    A reading may turn out longer than its purpose could pay for. It uses the reserve, and beyond that it waits for each
    request until it is refilled, so that even a long one keeps within the allowance.
    """
    lacking = purse.owed + requests - allowance.full
    return purse.at if lacking <= 0 else purse.at + _refilled_in(allowance, lacking)


def first_affordable(
    purse: Purse, allowance: Allowance, wishes: Mapping[Purpose, datetime], requests: float
) -> tuple[datetime, Purpose]:
    """Return when and for which purpose `requests` are made next: the wish that is due, and can be paid for, first."""
    times = {purpose: max(due, affordable_at(purse, allowance, purpose, requests)) for purpose, due in wishes.items()}
    purpose = min(times, key=lambda each: (times[each], PRIORITY[each]))
    return times[purpose], purpose


def _refilled_in(allowance: Allowance, requests: float) -> timedelta:
    """Return the time in which so many are refilled, rounded up: who waits for it must not find a trifle lacking."""
    return allowance.period * (requests / (allowance.requests * REFILLED)) + timedelta(microseconds=1)


def _lacking(purse: Purse, allowance: Allowance, purpose: Purpose, requests: float) -> float:
    """Return what must be refilled before `requests` may be made; 0 or less: nothing."""
    return purse.owed - max((1 - KEPT[purpose]) * allowance.full - requests, 0.0)
