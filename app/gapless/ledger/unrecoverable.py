"""Unrecoverable intervals for people, the newest first."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, select

from gapless.ledger import newest
from gapless.ledger.newest import NewestPage
from gapless.ledger.tables import SOURCE, STREAM, UNRECOVERABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A time `[start_us, end_us)` of which nothing can be proven. `acknowledged_us` None: nobody has looked into it."""

    id: int
    source: str
    stream: str
    start_us: int
    end_us: int
    reason: str
    recorded_us: int
    acknowledged_us: int | None
    acknowledged_by: str | None
    acknowledged_reason: str | None


def page(
    connection: Connection,
    *,
    sources: Collection[str] | None = None,
    acknowledged: bool | None = None,
    after: tuple[int, ...] | None = None,
    limit: int,
) -> NewestPage[Interval]:
    """Return intervals in the order in which they were recorded, the newest first."""
    where: list[ColumnElement[bool]] = []
    if sources is not None:
        mine = select(STREAM.c.id).join(SOURCE, SOURCE.c.id == STREAM.c.source_id).where(SOURCE.c.name.in_(sources))
        where.append(UNRECOVERABLE.c.stream_id.in_(mine))
    if acknowledged is not None:
        when = UNRECOVERABLE.c.acknowledged_us
        where.append(when.is_not(None) if acknowledged else when.is_(None))
    found = newest.ids(connection, UNRECOVERABLE.c.id, where, after=after, limit=limit)
    own = (name for name in Interval.__dataclass_fields__ if name not in ("source", "stream"))
    query = (
        select(*(UNRECOVERABLE.c[name] for name in own), SOURCE.c.name.label("source"), STREAM.c.name.label("stream"))
        .join_from(UNRECOVERABLE, STREAM, STREAM.c.id == UNRECOVERABLE.c.stream_id)
        .join(SOURCE, SOURCE.c.id == STREAM.c.source_id)
    )
    rows = [Interval(**row) for row in newest.rows_of(connection, query, UNRECOVERABLE.c.id, found.rows)]
    return NewestPage(rows=rows, after=found.after, is_full=found.is_full)
