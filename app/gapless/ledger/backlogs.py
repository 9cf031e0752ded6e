"""What each destination still owes: how much in each state, since when, and what it waits for."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, case, delete, func, insert, literal, literal_column, select

from gapless.ledger.deliveries import BEGAN, OWING, PENDING, QUEUED, UNSETTLED, DeliveryState
from gapless.ledger.tables import DELIVERY, DELIVERY_COUNT, DESTINATION

TRIED: ColumnElement[bool] = literal_column(
    "delivery.state = 'pending' AND delivery.attempts > 0 AND delivery.answers = 0"
)
"""A literal, as `PENDING`. What was answered 2xx waits for its receipt, and is not late before that is."""
ANSWERED: ColumnElement[bool] = literal_column("delivery.state = 'pending' AND delivery.answers > 0")
"""A literal, as `PENDING`."""
_IN_STATE = {DeliveryState.PENDING.value: PENDING, DeliveryState.WAITING.value: QUEUED}
FARTHEST = 1000
"""The pending deliveries that are due last, among which the last wait is looked for: one that a clock was ahead of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The number of deliveries of one destination in one state for one reason, and the time of the oldest."""

    destination: str
    state: DeliveryState
    reason: str | None
    count: int
    oldest_us: int
    late_us: int | None
    """Time from which the oldest pending one could have been delivered; None: none is due, or none is pending."""
    began_us: int = 0
    """Time at which the last of the waits of pending ones began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unconfirmed:
    """The deliveries of one destination that were answered 2xx, and whose receipts have not come."""

    count: int = 0
    resent: int = 0
    """Those of them that were sent again, because no receipt came in time."""
    since_us: int | None = None
    """Time at which the first of them was answered; None: there is none."""


def read(connection: Connection, now_us: int) -> list[Backlog]:
    """Return the deliveries that every destination still owes, by state and reason.

    The database keeps their numbers; the times are looked up in indexes. A delivery with a failed attempt counts as
    late from its creation; one that is delayed, waits for a receipt, or is just claimed for its first attempt, from its
    due time.
    """
    total = func.sum(DELIVERY_COUNT.c.count)
    counted = DELIVERY_COUNT.c.destination_id, DELIVERY_COUNT.c.state, DELIVERY_COUNT.c.reason
    query = (
        select(DESTINATION.c.name, *counted, total)
        .join(DESTINATION, DESTINATION.c.id == DELIVERY_COUNT.c.destination_id)
        .group_by(DESTINATION.c.name, *counted)
        .having(total > 0)
        .order_by(DESTINATION.c.name, *counted[1:])
    )
    rows = connection.execute(query).all()
    times = {key: _times(connection, *key, now_us) for key in sorted({(row[1], row[2]) for row in rows})}
    return [
        Backlog(
            destination=name,
            state=DeliveryState(state),
            reason=reason or None,
            count=int(count),
            oldest_us=oldest_us,
            late_us=late_us,
            began_us=began_us,
        )
        for name, destination_id, state, reason, count in rows
        for oldest_us, late_us, began_us in [times[destination_id, state]]
    ]


def _times(connection: Connection, destination_id: int, state: str, now_us: int) -> tuple[int, int | None, int]:
    """Return when the oldest delivery in the state was made, from when on one is late, and when the last wait began."""
    mine = DELIVERY.c.destination_id == destination_id
    is_pending = state == DeliveryState.PENDING
    of_state = _IN_STATE.get(state, and_(UNSETTLED, DELIVERY.c.state == state))
    oldest = select(func.min(DELIVERY.c.created_us)).where(mine, of_state)
    oldest_us = connection.execute(oldest).scalar() or now_us
    if not is_pending:
        return oldest_us, None, 0
    tried = select(func.min(DELIVERY.c.created_us)).where(mine, TRIED)
    due = select(func.min(DELIVERY.c.next_us)).where(mine, PENDING, DELIVERY.c.next_us <= now_us)
    late = [us for query in (tried, due) if (us := connection.execute(query).scalar()) is not None]
    farthest = (
        select(BEGAN.label("began_us")).where(mine, PENDING).order_by(DELIVERY.c.next_us.desc()).limit(FARTHEST)
    ).subquery()
    began_us = connection.execute(select(func.max(farthest.c.began_us))).scalar()
    return oldest_us, min(late, default=None), began_us or 0


def unconfirmed(connection: Connection, destination_id: int) -> Unconfirmed | None:
    """Return what the destination answered 2xx and waits for a receipt, from an index of those; None: nothing does."""
    resent = func.sum(case((DELIVERY.c.answers > 1, 1), else_=0))
    query = select(func.count(), resent, func.min(DELIVERY.c.answered_us)).select_from(DELIVERY)
    count, again, since_us = connection.execute(
        query.where(DELIVERY.c.destination_id == destination_id, ANSWERED, DELIVERY.c.answered_us >= 0)
    ).one()
    return Unconfirmed(count=count, resent=int(again), since_us=since_us) if count else None


def unproven(connection: Connection, destination_id: int) -> int:
    """Return how many of the destination's deliveries wait for the list, from an index of those."""
    mine = (DELIVERY.c.destination_id == destination_id, DELIVERY.c.unproven_id > 0)  # a range, for the index
    return connection.execute(select(func.count()).select_from(DELIVERY).where(*mine)).scalar_one()


def recount(connection: Connection) -> None:
    """Count anew what is owed: a ledger was restored, perhaps without regard for the triggers that count."""
    connection.execute(delete(DELIVERY_COUNT))
    columns = (DELIVERY.c.destination_id, DELIVERY.c.state, func.coalesce(DELIVERY.c.reason, ""))
    owed = select(*columns, literal(0), func.count()).where(OWING).group_by(*columns)
    connection.execute(insert(DELIVERY_COUNT).from_select([column.name for column in DELIVERY_COUNT.columns], owed))
