"""Counts read requests against the provider's budget, in blocks reserved before use, so a crash never under-counts."""

from dataclasses import dataclass

from sqlalchemy import Connection, or_, select, update

from gapless.clock import TOLERANCE_US
from gapless.domain import span_us
from gapless.ledger.engine import dialect
from gapless.ledger.tables import BUDGET
from gapless_reconcilers.kit.contract import ReadBudget

BLOCK = 20
"""Requests reserved at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Requests used since the period began; its start is in microseconds since 1970."""

    period_start_us: int
    used: int


def reserve(connection: Connection, scope: str, budget: ReadBudget, requests: int, now_us: int) -> Used:
    """Count `requests` against the scope, and start a new period if the last one is over, or lies in the future."""
    dialect.insert_or_ignore(connection, BUDGET, {"scope": scope, "period_start_us": now_us})
    over = now_us - span_us(budget.period)
    is_over = or_(BUDGET.c.period_start_us <= over, BUDGET.c.period_start_us > now_us + TOLERANCE_US)
    fresh = update(BUDGET).where(BUDGET.c.scope == scope, is_over)
    connection.execute(fresh.values(period_start_us=now_us, used=0))
    taken = update(BUDGET).where(BUDGET.c.scope == scope).values(used=BUDGET.c.used + requests)
    row = connection.execute(taken.returning(BUDGET.c.period_start_us, BUDGET.c.used)).one()
    return Used(period_start_us=row.period_start_us, used=row.used)


def used(connection: Connection, scope: str) -> Used | None:
    """Return the requests used in this period, or None before the first."""
    row = connection.execute(select(BUDGET).where(BUDGET.c.scope == scope)).first()
    return None if row is None else Used(period_start_us=row.period_start_us, used=row.used)
