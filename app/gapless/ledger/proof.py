"""What a destination is given only when nothing earlier can be missing any more: proven release.

An unproven delivery is `waiting` and names its source. `release` lets the deliveries go, in order of occurrence, that
occurred before the time up to which the source is complete, and notes that time. What is recorded later and occurred
before it comes late, out of any order. Both hold the lock of the source's line: an event that is recorded meanwhile is
either released in its place or comes late.
"""

from collections.abc import Collection

from sqlalchemy import ColumnElement, Connection, and_, case, func, select, tuple_, update

from gapless.ledger import ordering
from gapless.ledger.engine import dialect
from gapless.ledger.ordering import Line
from gapless.ledger.tables import ABSENCE, DELIVERY, MISSING, RELEASED, SOURCE, STREAM

BATCH = 1000
"""Most deliveries released in one transaction, because webhooks wait for it."""


def complete_up_to_us(connection: Connection, source_id: int) -> int | None:
    """Return the time up to which all streams of the source agree with the list; None: one of them was never read.

    It is as `status.evaluation.complete_up_to` says it.
    """
    streams = select(STREAM.c.watermark_us, STREAM.c.checked_us).where(STREAM.c.source_id == source_id)
    rows = connection.execute(streams).all()
    if not rows or any(row.checked_us is None for row in rows):
        return None
    mine = select(STREAM.c.id).where(STREAM.c.source_id == source_id)
    missing = select(func.min(MISSING.c.occurred_us)).where(MISSING.c.source_id == source_id, MISSING.c.state == "open")
    absent = select(func.min(ABSENCE.c.occurred_us)).where(ABSENCE.c.stream_id.in_(mine), ABSENCE.c.state == "open")
    limits: list[int | None] = [row.watermark_us for row in rows] + [
        connection.execute(each).scalar() for each in (missing, absent)
    ]
    return min(us for us in limits if us is not None)


def released_up_to(connection: Connection, wanted: Collection[Line]) -> dict[Line, int]:
    """Return the times up to which events were released, by (destination id, source id): of those that have one."""
    keys = tuple_(RELEASED.c.destination_id, RELEASED.c.source_id)
    if not wanted:
        return {}
    found = connection.execute(select(RELEASED).where(keys.in_(sorted(wanted))))
    return {(row.destination_id, row.source_id): row.up_to_us for row in found}


def due(connection: Connection, destination_id: int) -> list[int]:
    """Return the sources of which something can be released to the destination."""
    found = []
    for source_id in connection.execute(select(SOURCE.c.id).order_by(SOURCE.c.id)).scalars():
        first = select(DELIVERY.c.order_us).where(*_unproven(destination_id, source_id))
        first_us = connection.execute(first.order_by(DELIVERY.c.order_us).limit(1)).scalar()
        up_to_us = None if first_us is None else complete_up_to_us(connection, source_id)
        if first_us is not None and up_to_us is not None and first_us < up_to_us:
            found.append(source_id)
    return found


def release(connection: Connection, destination_id: int, source_id: int, limit: int = BATCH) -> int:
    """Release proven deliveries, in order of occurrence. Return how many, at most `limit`; call until 0."""
    up_to_us = complete_up_to_us(connection, source_id)
    if up_to_us is None:
        return 0
    proven = (
        select(DELIVERY.c.event_seq, DELIVERY.c.order_key, DELIVERY.c.order_us)
        .where(*_unproven(destination_id, source_id), DELIVERY.c.order_us < up_to_us)
        .order_by(DELIVERY.c.order_us, DELIVERY.c.event_seq)
        .limit(limit + 1)
    )
    lines = {(destination_id, row.order_key) for row in connection.execute(proven) if row.order_key is not None}
    ordering.lock(connection, lines | {(destination_id, ordering.key_of(source_id))})
    seqs: list[int] = []
    for row in connection.execute(proven):  # once more: now nobody else adds to the lines, nor to the source
        if len(seqs) == limit or (row.order_key is not None and (destination_id, row.order_key) not in lines):
            up_to_us = row.order_us
            break
        seqs.append(row.event_seq)
    _free(connection, destination_id, seqs)
    ordering.let_next(connection, lines)
    _note(connection, destination_id, source_id, up_to_us)
    if seqs:
        dialect.notify(connection, ordering.DELIVERY_CHANNEL)
    return len(seqs)


def forget(connection: Connection, destination_id: int, limit: int = BATCH) -> int:
    """Release everything, proven or not: the destination does not want proof any more.

    Return how many, at most `limit`; call until 0.
    """
    unproven = (DELIVERY.c.destination_id == destination_id, DELIVERY.c.unproven_id > 0)  # by their index
    query = select(DELIVERY.c.event_seq, DELIVERY.c.order_key).where(*unproven)
    by_index = (DELIVERY.c[name] for name in ("unproven_id", "order_us", "event_seq"))
    rows = connection.execute(query.order_by(*by_index).limit(limit)).all()
    lines = {(destination_id, row.order_key) for row in rows if row.order_key is not None}
    ordering.lock(connection, lines)
    _free(connection, destination_id, [row.event_seq for row in rows])
    ordering.let_next(connection, lines)
    return len(rows)


def _unproven(destination_id: int, source_id: int) -> tuple[ColumnElement[bool], ...]:
    return (DELIVERY.c.destination_id == destination_id, DELIVERY.c.unproven_id == source_id)


def _free(connection: Connection, destination_id: int, seqs: list[int]) -> None:
    """Let deliveries wait for their turn only; those that are not ordered are due."""
    these = (DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq.in_(sorted(seqs)))
    is_free = and_(DELIVERY.c.state == "waiting", DELIVERY.c.order_key.is_(None))
    state = case((is_free, "pending"), else_=DELIVERY.c.state)
    connection.execute(update(DELIVERY).where(*these).values(unproven_id=None, state=state))


def _note(connection: Connection, destination_id: int, source_id: int, up_to_us: int) -> None:
    """Note up to when events were released; it never goes back."""
    row = {"destination_id": destination_id, "source_id": source_id, "up_to_us": up_to_us}
    if not dialect.insert_or_ignore(connection, RELEASED, row):
        mine = (RELEASED.c.destination_id == destination_id, RELEASED.c.source_id == source_id)
        connection.execute(update(RELEASED).where(*mine, RELEASED.c.up_to_us < up_to_us).values(up_to_us=up_to_us))
