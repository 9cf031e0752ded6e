"""Counts the events that earn requests (`Grant.types`): what the ledger holds, and what a first listing showed.

The count is a lower bound, so a grant that follows from it is never too large.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, case, delete, func, insert, or_, select

from gapless.ledger.tables import EARNING, EVENT, SOURCE, STREAM

MOST_COUNTED: Final = 4_000
"""Events that are counted at most: more would earn more than anybody could ask."""
MOST_ROWS: Final = 20_000
"""Rows of the ledger that are looked at, at most."""
MOST_STREAMS: Final = 200
"""Streams that are looked at, at most: the busiest."""


def earned(connection: Connection, source_id: int, types: Sequence[str], since_us: int) -> int:
    """Return the events of `types` that are known to have occurred since `since_us`, at most `MOST_COUNTED`.

    Before the end of the first listing they are those that it showed, after it those of the ledger.
    """
    listed = select(
        func.max(EARNING.c.end_us).label("end_us"),
        func.sum(case((EARNING.c.start_us >= since_us, EARNING.c.events), else_=0)).label("events"),
    ).where(EARNING.c.source_id == source_id)
    row = connection.execute(listed).one()
    after_us = since_us if row.end_us is None else max(since_us, row.end_us)
    return min(MOST_COUNTED, int(row.events or 0) + count_events(connection, source_id, types, after_us))


def count_events(connection: Connection, source_id: int, types: Sequence[str], since_us: int) -> int:
    """Return the events of `types` and of the source's own mode that occurred since `since_us`, the newest first.

    A lower bound: at most `MOST_COUNTED`, found in at most `MOST_ROWS` rows of at most `MOST_STREAMS` streams.
    """
    found, left = 0, MOST_ROWS
    own = connection.execute(select(SOURCE.c.livemode).where(SOURCE.c.id == source_id)).scalar()
    of_time = [EVENT.c.occurred_us >= since_us]
    if own is not None:
        of_time.append(or_(EVENT.c.livemode.is_(None), EVENT.c.livemode == own))
    busiest = select(STREAM.c.id).where(STREAM.c.source_id == source_id)
    busiest = busiest.order_by(STREAM.c.last_listed.desc(), STREAM.c.id).limit(MOST_STREAMS)
    for stream_id in list(connection.execute(busiest).scalars()):
        earns = case((EVENT.c.type.in_(types), 1), else_=0).label("earns")
        newest = (
            select(earns)
            .where(EVENT.c.stream_id == stream_id, *of_time)
            .order_by(EVENT.c.occurred_us.desc())
            .limit(left)
            .subquery()
        )
        looked_at, earning = connection.execute(
            select(func.count(), func.sum(newest.c.earns)).select_from(newest)
        ).one()
        found, left = found + int(earning or 0), left - int(looked_at)
        if left <= 0 or found >= MOST_COUNTED:
            break
    return min(found, MOST_COUNTED)


def is_listed(connection: Connection, source_id: int) -> bool:
    """Return True if a listing of the events that earn requests was noted."""
    return connection.execute(select(EARNING.c.source_id).where(EARNING.c.source_id == source_id)).first() is not None


def note_listed(connection: Connection, source_id: int, times_us: Iterable[int], end_us: int, part_us: int) -> None:
    """Note the events that a listing of the time before `end_us` showed, by when they occurred, in parts of `part_us`.

    They replace those of an earlier listing.
    """
    parts = Counter((end_us - 1 - each) // part_us for each in times_us if each < end_us)
    parts[0] += 0  # a listing without events is one too
    rows = [
        {
            "source_id": source_id,
            "start_us": end_us - (number + 1) * part_us,
            "end_us": end_us - number * part_us,
            "events": events,
        }
        for number, events in parts.items()
    ]
    connection.execute(delete(EARNING).where(EARNING.c.source_id == source_id))
    connection.execute(insert(EARNING), rows)
