"""Counts every request to a provider, per scope, and keeps the purse that pays for them.

Requests are counted before they are sent, so a crash never under-counts. A scope has one row, the purse: tokens that
refill with time. Beside it are the requests of each thirtieth of the period, by what they were for, so that the use of
the rolling period is known. Two times are kept apart: the fixed period that `used` counts, and the rolling one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, Row, delete, func, or_, select, update

from gapless.clock import TOLERANCE_US
from gapless.domain import Purpose, span_us
from gapless.ledger.engine import dialect
from gapless.ledger.tables import BUDGET, BUDGET_USE

BLOCK = 20
"""The most requests that are reserved at once."""
PARTS: Final = 30
"""Parts of the period in which requests are counted: the use of the rolling period is exact but for one part."""
HALVED_FOR: Final = timedelta(hours=1)
"""The time for which the purse refills at half the rate, after the vendor asked us to slow down."""
MILLION: Final = 1_000_000
DAY_US: Final = 86_400 * MILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class PurseTerms:
    """What the vendor grants at present, and how much of it the purse holds and refills."""

    granted: int | None
    """Requests that the vendor grants in any `period`; None: it publishes nothing, so requests are only counted."""
    period: timedelta
    full: float = 0.0
    """The most tokens that the purse holds."""
    per_day: float = 0.0
    """Tokens that it refills in a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurseState:
    """The purse of a scope at `at_us`. Times are microseconds."""

    tokens: float
    """Requests that can be paid for; below 0, more was asked than the purse held."""
    at_us: int
    halved_until_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantUse:
    """The requests of the rolling period."""

    granted: int | None
    """Requests that the vendor grants in the period; None: it publishes nothing."""
    period: timedelta
    by_purpose: Mapping[str, int]

    @property
    def used(self) -> int:
        """Return the requests for all purposes."""
        return sum(self.by_purpose.values())

    @property
    def ratio(self) -> float | None:
        """Return the requests per request that the vendor grants; None: it publishes nothing."""
        return None if self.granted is None else self.used / self.granted


def reserve(
    connection: Connection,
    scope: str,
    terms: PurseTerms,
    purpose: Purpose,
    requests: int,
    now_us: int,
    needed: float | None = None,
) -> PurseState | None:
    """Count `requests` against the scope, and return its purse after that.

    `needed`: the tokens that the purse must hold before; if it holds fewer, nothing is counted, and None is returned.
    None: the purse may be overdrawn. The first statement locks the row, so of two replicas one waits for the other.
    """
    row = _locked(connection, scope, terms, now_us)
    purse = _filled(row, terms, now_us)
    if needed is not None and terms.granted is not None and purse.tokens < needed:
        return None
    after = PurseState(tokens=purse.tokens - requests, at_us=purse.at_us, halved_until_us=purse.halved_until_us)
    values = {
        "used": BUDGET.c.used + requests,
        "owed_millionths": round((terms.full - after.tokens) * MILLION),
        "at_us": after.at_us,
    }
    connection.execute(update(BUDGET).where(BUDGET.c.scope == scope).values(**values))
    _count(connection, scope, terms.period, purpose, requests, now_us)
    return after


def note_limit(connection: Connection, scope: str, now_us: int) -> int:
    """Note that the vendor asked us to slow down. Return the time until which all is halved, in microseconds."""
    until_us = now_us + span_us(HALVED_FOR)
    dialect.insert_or_ignore(connection, BUDGET, {"scope": scope, "period_start_us": now_us})
    connection.execute(update(BUDGET).where(BUDGET.c.scope == scope).values(halved_until_us=until_us))
    return until_us


def purse(connection: Connection, scope: str, terms: PurseTerms, now_us: int) -> PurseState:
    """Return the purse as it is now; it is full before the first request."""
    row = connection.execute(select(BUDGET).where(BUDGET.c.scope == scope)).first()
    if row is None:
        return PurseState(tokens=terms.full, at_us=now_us, halved_until_us=None)
    return _filled(row, terms, now_us)


def used_in_period(connection: Connection, scope: str, period: timedelta, now_us: int) -> dict[str, int]:
    """Return the requests of the rolling period that ends now, by purpose. A part that is half in it counts whole.

    Requests of a time that lies ahead count too: the clock was ahead when they were made.
    """
    total = func.sum(BUDGET_USE.c.requests).label("requests")
    query = select(BUDGET_USE.c.purpose, total).where(
        BUDGET_USE.c.scope == scope, BUDGET_USE.c.start_us > _oldest(period, now_us)
    )
    return {row.purpose: int(row.requests) for row in connection.execute(query.group_by(BUDGET_USE.c.purpose))}


def grant_use(connection: Connection, scope: str, now_us: int) -> GrantUse | None:
    """Return the requests of the rolling period that ends now; None: nothing was asked yet."""
    row = connection.execute(select(BUDGET).where(BUDGET.c.scope == scope)).first()
    if row is None or row.period_us is None:
        return None
    period = timedelta(microseconds=row.period_us)
    by_purpose = used_in_period(connection, scope, period, now_us)
    return GrantUse(granted=row.granted, period=period, by_purpose=by_purpose)


def _locked(connection: Connection, scope: str, terms: PurseTerms, now_us: int) -> Row[tuple[object, ...]]:
    """Return the row of the scope, which no other transaction changes before this one ends.

    A new fixed period begins if the last one is over, or lies in the future.
    """
    dialect.insert_or_ignore(connection, BUDGET, {"scope": scope, "period_start_us": now_us})
    is_over = or_(
        BUDGET.c.period_start_us <= now_us - span_us(terms.period), BUDGET.c.period_start_us > now_us + TOLERANCE_US
    )
    fresh = update(BUDGET).where(BUDGET.c.scope == scope, is_over)
    connection.execute(fresh.values(period_start_us=now_us, used=0))
    locked = update(BUDGET).where(BUDGET.c.scope == scope).returning(*BUDGET.c)
    return connection.execute(locked.values(granted=terms.granted, period_us=span_us(terms.period))).one()


def _filled(row: Row[tuple[object, ...]], terms: PurseTerms, now_us: int) -> PurseState:
    """Return the purse of `row` as it is at `now_us`.

    What is kept is what was spent and is not refilled yet, so that a grant that grows fills the purse. A clock that was
    set back adds nothing: within the tolerance the row keeps its time, beyond it it begins anew.
    """
    last_us = now_us if row.at_us is None else row.at_us
    at_us = now_us if last_us > now_us + TOLERANCE_US else max(now_us, last_us)
    until_us, passed_us = row.halved_until_us, max(0, at_us - last_us)
    is_halved = until_us is not None and now_us < until_us <= now_us + span_us(HALVED_FOR) + TOLERANCE_US
    if until_us is not None:
        slow_us = min(at_us, until_us) - max(last_us, until_us - span_us(HALVED_FOR))
        passed_us -= max(0, slow_us) // 2
    owed = max(0.0, row.owed_millionths / MILLION - terms.per_day * passed_us / DAY_US)
    full = terms.full / 2 if is_halved else terms.full
    return PurseState(tokens=min(terms.full - owed, full), at_us=at_us, halved_until_us=until_us if is_halved else None)


def _count(connection: Connection, scope: str, period: timedelta, purpose: Purpose, requests: int, now_us: int) -> None:
    """Count the requests in their part of the period, forget what is older, and bring back what lies ahead."""
    start_us = now_us - now_us % _part_us(period)
    is_ahead = BUDGET_USE.c.start_us > now_us + TOLERANCE_US
    ahead = connection.execute(
        delete(BUDGET_USE)
        .where(BUDGET_USE.c.scope == scope, is_ahead)
        .returning(BUDGET_USE.c.purpose, BUDGET_USE.c.requests)
    ).all()
    connection.execute(
        delete(BUDGET_USE).where(BUDGET_USE.c.scope == scope, BUDGET_USE.c.start_us <= _oldest(period, now_us))
    )
    for counted, number in [*((row.purpose, row.requests) for row in ahead), (purpose.value, requests)]:
        columns = ("scope", "start_us", "purpose", "requests")
        dialect.add_up(connection, BUDGET_USE, columns, [(scope, start_us, counted, number)])


def _part_us(period: timedelta) -> int:
    return max(1, span_us(period) // PARTS)


def _oldest(period: timedelta, now_us: int) -> int:
    """Return the start of the newest part that lies before the period as a whole."""
    return now_us - span_us(period) - _part_us(period)
