"""Reads what can be measured of a source: when its events occurred, and when they came. Every query is bounded."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, select

from gapless.domain import Cause, Via
from gapless.ledger.tables import EVENT, MISSING, STREAM

MOST_ROWS = 200_000
"""Events that are looked at, at most: the newest of each stream."""
MOST_STREAMS = 200
"""Streams that are looked at, at most: the busiest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredEvents:
    """The events that were looked at. Spans are microseconds."""

    lags: Sequence[int]
    """How long after its event each webhook came, except those that we had asked for."""
    recoveries: Sequence[tuple[Cause, int]]
    """How long after it occurred each missed event was recorded, by a list or by redelivery."""
    since_us: int
    """The time from which on all events of the source were looked at: later than asked if there are too many."""


def read_events(
    connection: Connection, source_id: int, since_us: int, most_rows: int = MOST_ROWS, most_streams: int = MOST_STREAMS
) -> MeasuredEvents:
    """Return what is measured of the source's events that occurred since a time."""
    lags, recoveries, from_us = list[int](), list[tuple[Cause, int]](), since_us
    query = select(STREAM.c.id).where(STREAM.c.source_id == source_id)
    stream_ids = list(
        connection.execute(query.order_by(STREAM.c.last_listed.desc(), STREAM.c.id).limit(most_streams)).scalars()
    )
    limit = max(most_rows // max(len(stream_ids), 1), 1)
    for stream_id in stream_ids:
        end_us = _edge(connection, stream_id, since_us, limit)
        from_us = max(from_us, end_us)
        lags += _lags(connection, stream_id, end_us)
        recoveries += _recoveries(connection, stream_id, end_us)
    return MeasuredEvents(lags=lags, recoveries=recoveries, since_us=from_us)


def not_recovered(connection: Connection, source_id: int, since_us: int) -> int:
    """Return the missed events that occurred since a time and are not recorded."""
    query = select(func.count()).where(
        MISSING.c.source_id == source_id,
        MISSING.c.state.in_(("open", "lost")),
        MISSING.c.expected,
        MISSING.c.counted,
        MISSING.c.occurred_us >= since_us,
    )
    return int(connection.execute(query).scalar_one())


def _edge(connection: Connection, stream_id: int, since_us: int, limit: int) -> int:
    """Return the time since which the stream has at most `limit` events, at least `since_us`."""
    newest = select(EVENT.c.occurred_us).where(EVENT.c.stream_id == stream_id, EVENT.c.occurred_us >= since_us)
    one_too_many = newest.order_by(EVENT.c.occurred_us.desc()).offset(limit).limit(1)
    found = connection.execute(one_too_many).scalar()
    return since_us if found is None else found + 1


def _lags(connection: Connection, stream_id: int, since_us: int) -> list[int]:
    query = select(EVENT.c.webhook_us - EVENT.c.occurred_us).where(
        EVENT.c.stream_id == stream_id,
        EVENT.c.occurred_us >= since_us,
        EVENT.c.webhook_us.is_not(None),
        EVENT.c.via != Via.REDELIVERY.value,
    )
    return [max(0, lag) for lag in connection.execute(query).scalars()]


def _recoveries(connection: Connection, stream_id: int, since_us: int) -> list[tuple[Cause, int]]:
    """Return the recoveries. When an event occurred is said by the list: a redelivered webhook may not say it."""
    occurred_us = func.coalesce(MISSING.c.occurred_us, EVENT.c.occurred_us)
    was_missing = and_(MISSING.c.source_id == EVENT.c.source_id, MISSING.c.key == EVENT.c.key)
    query = select(EVENT.c.missed_cause, EVENT.c.first_seen_us - occurred_us).outerjoin_from(
        EVENT, MISSING, was_missing
    )
    query = query.where(
        EVENT.c.stream_id == stream_id,
        EVENT.c.occurred_us >= since_us,
        EVENT.c.missed_cause.is_not(None),
        EVENT.c.via.in_((Via.LIST.value, Via.REDELIVERY.value)),
    )
    return [(Cause(cause), max(0, took)) for cause, took in connection.execute(query)]
