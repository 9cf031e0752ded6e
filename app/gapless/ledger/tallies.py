"""Counts of events per source, hour of occurrence and writer slot. Replicas never share a row; readers sum."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from gapless.domain import HOUR_US, Cause
from gapless.ledger.engine import dialect
from gapless.ledger.tables import TALLY

COUNTS = tuple(column.name for column in TALLY.columns if not column.primary_key)
COLUMNS = ("source_id", "hour", "slot", *COUNTS)
FIRST_SEEN = ("by_webhook", "by_list", "by_redelivery")
"""Counts of events that occurred while the source was watched, by how they were first seen."""
MISSED = {cause: f"missed_{cause.value}" for cause in Cause}


class Tallies:
    """Counts gathered in one transaction, written as one row per source and hour."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[int, int], Counter[str]] = defaultdict(Counter)

    def add(self, source_id: int, occurred_us: int, *names: str, times: int = 1) -> None:
        """Count `times` of each name at the hour of occurrence."""
        counts = self._counts[source_id, occurred_us // HOUR_US]
        for name in names:
            counts[name] += times

    def write(self, connection: Connection | dialect.Bundle, slot: int) -> None:
        """Add everything to the rows of `slot`, in order of (source, hour)."""
        rows = [
            (source_id, hour, slot, *(counts[name] for name in COUNTS))
            for (source_id, hour), counts in sorted(self._counts.items(), key=lambda entry: entry[0])
        ]
        if isinstance(connection, dialect.Bundle):
            connection.add_up(TALLY, COLUMNS, rows)
        else:
            dialect.add_up(connection, TALLY, COLUMNS, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums of tallies; `counts` has every name of `COUNTS`."""

    counts: Mapping[str, int]

    @property
    def missed(self) -> int:
        """Missed events, whatever the cause."""
        return sum(self.counts[name] for name in MISSED.values())

    @property
    def expected(self) -> int:
        """Events that our subscription should have pushed."""
        return self.counts["expected"]


def by_hour(connection: Connection, source_id: int, from_hour: int) -> dict[int, int]:
    """Return the events of the source by the hour of their occurrence since 1970, however they were first seen."""
    seen = sum((TALLY.c[name] for name in FIRST_SEEN[1:]), start=TALLY.c[FIRST_SEEN[0]])
    query = select(TALLY.c.hour, func.sum(seen)).where(TALLY.c.source_id == source_id, TALLY.c.hour >= from_hour)
    return {hour: int(count) for hour, count in connection.execute(query.group_by(TALLY.c.hour))}


def hours(connection: Connection, source_id: int, from_hour: int, to_hour: int) -> dict[int, Totals]:
    """Return the sums of each hour `[from_hour, to_hour)` since 1970 that has any, by time of occurrence."""
    query = select(TALLY.c.hour, *(func.sum(TALLY.c[name]).label(name) for name in COUNTS))
    within = (TALLY.c.source_id == source_id, TALLY.c.hour >= from_hour, TALLY.c.hour < to_hour)
    rows = connection.execute(query.where(*within).group_by(TALLY.c.hour)).mappings()
    return {row["hour"]: Totals(counts={name: int(row[name]) for name in COUNTS}) for row in rows}


def totals(connection: Connection, source_id: int, from_us: int | None = None, to_us: int | None = None) -> Totals:
    """Return sums over the hours that touch `[from_us, to_us)`, by time of occurrence; by default, over all time."""
    query = select(*(func.coalesce(func.sum(TALLY.c[name]), 0).label(name) for name in COUNTS))
    query = query.where(TALLY.c.source_id == source_id)
    if from_us is not None:
        query = query.where(TALLY.c.hour >= from_us // HOUR_US)
    if to_us is not None:
        query = query.where(TALLY.c.hour * HOUR_US < to_us)
    row = connection.execute(query).mappings().one()
    return Totals(counts={name: int(row[name]) for name in COUNTS})
