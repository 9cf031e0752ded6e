"""Deliveries that wait for a person: dead letters and held ones, their release and replay, and the backlog."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)

from gapless.domain import Via
from gapless.ledger import ordering
from gapless.ledger.accounts import OTHER_ACCOUNT
from gapless.ledger.deliveries import BEGAN, NOT_LISTED, OWING, PENDING, RELEASED, DeliveryState
from gapless.ledger.engine import dialect
from gapless.ledger.events import EventFilter
from gapless.ledger.ordering import DELIVERY_CHANNEL, Late
from gapless.ledger.tables import DELIVERY, DESTINATION, EVENT, PAYLOAD, SOURCE

BATCH = 1000
"""Most deliveries changed in one transaction, because webhooks wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """A delivery that waits for a person. Times are microseconds."""

    destination: str
    seq: int
    source: str
    key: str
    type: str
    occurred_us: int
    state: DeliveryState
    reason: str | None
    attempts: int
    done_us: int
    """The time at which it reached this state, or where that is not stored, as with what is held in bulk, was made."""


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
    answered: int = 0
    """Pending ones that were answered 2xx, and whose receipts have not come."""
    resent: int = 0
    """Those of them that were sent again, because no receipt came in time."""
    answered_us: int | None = None
    """Time at which the first of them was answered; None: there is none."""
    unproven: int = 0
    """Those that wait until the list is complete up to them, in any state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """An event that a destination was never owed."""

    seq: int
    key: str
    type: str
    occurred_us: int


def waiting(
    connection: Connection,
    state: DeliveryState,
    *,
    destination_id: int | None = None,
    reason: str | None = None,
    after: tuple[int, int] = (0, 0),
    limit: int = 100,
) -> list[Unsettled]:
    """Return deliveries in `state`, ordered by event and destination, after `after` (seq, destination id)."""
    chosen = _chosen(state, destination_id, reason)
    query = (
        select(
            DESTINATION.c.name.label("destination"),
            *(EVENT.c[name] for name in ("seq", "key", "type", "occurred_us")),
            SOURCE.c.name.label("source"),
            *(DELIVERY.c[name] for name in ("state", "reason", "attempts")),
            func.coalesce(DELIVERY.c.done_us, DELIVERY.c.created_us).label("done_us"),
        )
        .select_from(DELIVERY)
        .join(EVENT, EVENT.c.seq == DELIVERY.c.event_seq)
        .join(SOURCE, SOURCE.c.id == EVENT.c.source_id)
        .join(DESTINATION, DESTINATION.c.id == DELIVERY.c.destination_id)
        .where(chosen, tuple_(DELIVERY.c.event_seq, DELIVERY.c.destination_id) > after)
        .order_by(DELIVERY.c.event_seq, DELIVERY.c.destination_id)
        .limit(limit)
    )
    return [Unsettled(**{**row, "state": DeliveryState(row["state"])}) for row in connection.execute(query).mappings()]


def backlog(connection: Connection, now_us: int) -> list[Backlog]:
    """Return the deliveries that every destination still owes, by state and reason. Reads only the index of those.

    A delivery with a failed attempt counts as late from its creation; one that is delayed, waits for a receipt, or is
    just claimed for its first attempt, from its due time.
    """
    tried, due, answered = DELIVERY.c.attempts > 0, DELIVERY.c.next_us <= now_us, DELIVERY.c.answers > 0
    late_us = case((and_(tried, ~answered), DELIVERY.c.created_us), (due, DELIVERY.c.next_us))
    resent = DELIVERY.c.answers > 1
    query = (
        select(
            DESTINATION.c.name, DELIVERY.c.state, DELIVERY.c.reason,
            func.count().label("count"), func.min(DELIVERY.c.created_us).label("oldest_us"),
            func.min(late_us).label("late_us"), func.max(BEGAN).label("began_us"),
            func.sum(case((answered, 1), else_=0)).label("answered"),
            func.sum(case((resent, 1), else_=0)).label("resent"),
            func.min(case((answered, DELIVERY.c.answered_us))).label("answered_us"),
            func.count(DELIVERY.c.unproven_id).label("unproven"),
        )
        .join(DESTINATION, DESTINATION.c.id == DELIVERY.c.destination_id)
        .where(OWING)
        .group_by(DESTINATION.c.name, DELIVERY.c.state, DELIVERY.c.reason)
        .order_by(DESTINATION.c.name, DELIVERY.c.state, DELIVERY.c.reason)
    )  # fmt: skip
    return [
        Backlog(
            destination=row.name,
            state=DeliveryState(row.state),
            reason=row.reason,
            count=row[3],
            oldest_us=row.oldest_us,
            unproven=row.unproven,
            **(_of_pending(row) if row.state == DeliveryState.PENDING else {"late_us": None}),
        )
        for row in connection.execute(query)
    ]


def _of_pending(row: Row[Any]) -> dict[str, Any]:
    names = ("late_us", "began_us", "answered", "resent", "answered_us")
    return {name: getattr(row, name) for name in names}


def undelivered(
    connection: Connection, chosen: EventFilter, destination_id: int, after_seq: int, limit: int
) -> list[Undelivered]:
    """Return the next `limit` chosen events, in order of record, that a list showed first.

    Only those that this destination was never owed.
    """
    owed = select(DELIVERY.c.event_seq).where(
        DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq == EVENT.c.seq
    )
    query = select(EVENT.c.seq, EVENT.c.key, EVENT.c.type, EVENT.c.occurred_us)
    query = query.where(*chosen.where(), EVENT.c.via == Via.LIST.value, EVENT.c.seq > after_seq, ~owed.exists())
    rows = connection.execute(query.order_by(EVENT.c.seq).limit(limit)).mappings()
    return [Undelivered(**row) for row in rows]


def requeue(
    connection: Connection,
    now_us: int,
    *,
    destination_id: int | None = None,
    reason: str | None = None,
    seqs: Sequence[int] | None = None,
    limit: int = BATCH,
) -> int:
    """Owe dead letters again, with a fresh budget of attempts. Returns how many, at most `limit`; call until 0."""
    return _restart(connection, DeliveryState.DEAD, now_us, destination_id, reason, seqs, limit)


def count_waiting(
    connection: Connection,
    state: DeliveryState,
    *,
    destination_id: int | None = None,
    reason: str | None = None,
    seqs: Sequence[int] | None = None,
) -> int:
    """Return the number of dead or held deliveries that are chosen so."""
    chosen = _chosen(state, destination_id, reason, seqs)
    return connection.execute(select(func.count()).select_from(DELIVERY).where(chosen)).scalar_one()


def release(
    connection: Connection,
    now_us: int,
    *,
    destination_id: int | None = None,
    reason: str | None = None,
    seqs: Sequence[int] | None = None,
    limit: int = BATCH,
) -> int:
    """Release held deliveries; they are not held again. Returns how many, at most `limit`; call until 0.

    Those of another account are released only if `reason` names that, because a person may not have them in mind.
    """
    return _restart(connection, DeliveryState.HELD, now_us, destination_id, reason, seqs, limit)


def replay(connection: Connection, destination_id: int, seqs: Sequence[int], now_us: int) -> int:
    """Owe recorded events to the destination again, whether or not it had them before. Returns how many.

    What it had, or was never owed, is sent in any order and marked as replayed. Of what is ordered, the rest keeps its
    place; what is due or waits there is sent anyway. Events without a payload (imported, or pruned) are left out. An
    unordered delivery under way is sent once more. Pass at most `BATCH` seqs.
    """
    sendable = select(EVENT.c.seq).join(PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id).where(EVENT.c.seq.in_(seqs))
    found = sorted(connection.execute(sendable).scalars())
    mine = and_(DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq.in_(found))
    lines = ordering.lines_of(connection, mine)
    ordering.lock(connection, lines)
    had = DELIVERY.c.state == DeliveryState.DELIVERED
    again = {"order_key": None, "unproven_id": None, "late": Late.REPLAYED.value, "state": DeliveryState.PENDING.value}
    comes = and_(
        DELIVERY.c.order_key.is_not(None), DELIVERY.c.state.in_((DeliveryState.PENDING, DeliveryState.WAITING))
    )
    connection.execute(update(DELIVERY).where(mine, ~had, ~comes).values(**_fresh(now_us)))
    connection.execute(update(DELIVERY).where(mine, had).values(**_fresh(now_us) | again))
    known = select(DELIVERY.c.event_seq).where(mine)
    fresh = {name: value for name, value in (_fresh(now_us) | again).items() if value is not None}
    values = (literal(value, DELIVERY.c[name].type) for name, value in fresh.items())
    new = select(literal(destination_id), EVENT.c.seq, literal(now_us), *values)
    new = new.where(EVENT.c.seq.in_(found), EVENT.c.seq.not_in(known))
    connection.execute(insert(DELIVERY).from_select(["destination_id", "event_seq", "created_us", *fresh], new))
    ordering.let_next(connection, lines)
    dialect.notify(connection, DELIVERY_CHANNEL)
    return len(found)


def hold_pending(connection: Connection, reason: str, limit: int = BATCH) -> int:
    """Hold pending and waiting deliveries of every destination. Returns how many, at most `limit`; call until 0."""
    query = select(DELIVERY.c.destination_id, DELIVERY.c.event_seq).where(OWING)
    was = DELIVERY.c.state.in_((DeliveryState.PENDING, DeliveryState.WAITING))
    return _change(connection, query.where(was), was, DeliveryState.HELD, reason, limit)


def hold_listed(connection: Connection, source_id: int, reason: str, now_us: int, limit: int = BATCH) -> int:
    """Hold the pending deliveries of a source's listed events, except those under way and those that a person released.

    Returns how many, at most `limit`; call until 0.
    """
    was = and_(PENDING, DELIVERY.c.lease_us <= now_us, func.coalesce(DELIVERY.c.reason, "") != RELEASED)
    query = _of_source(source_id).where(was, EVENT.c.via == Via.LIST.value)
    return _change(connection, query, was, DeliveryState.HELD, reason, limit)


def holds(connection: Connection, source_id: int, reason: str) -> bool:
    """Return True if deliveries of the source are held for `reason`."""
    held = and_(OWING, DELIVERY.c.state == DeliveryState.HELD, DELIVERY.c.reason == reason)
    return connection.execute(_of_source(source_id).where(held).limit(1)).first() is not None


def count_held(connection: Connection, source_id: int, reason: str) -> int:
    """Return the number of deliveries of the source that are held for `reason`."""
    held = and_(OWING, DELIVERY.c.state == DeliveryState.HELD, DELIVERY.c.reason == reason)
    chosen = _of_source(source_id).where(held).subquery()
    return connection.execute(select(func.count()).select_from(chosen)).scalar_one()


def owe_held(connection: Connection, source_id: int, reason: str, limit: int = BATCH) -> int:
    """Owe a source's deliveries again that are held for `reason`. Returns how many, at most `limit`; call until 0."""
    was = and_(DELIVERY.c.state == DeliveryState.HELD, DELIVERY.c.reason == reason)
    return _move(connection, source_id, was=was, state=DeliveryState.PENDING, reason=None, limit=limit)


def not_listed(connection: Connection, seqs: Sequence[int]) -> list[int]:
    """Return those of the events that have deliveries which wait for the list. Pass at most a page."""
    waits = and_(OWING, DELIVERY.c.state == DeliveryState.HELD, DELIVERY.c.reason == NOT_LISTED)
    query = select(DELIVERY.c.event_seq).distinct().where(DELIVERY.c.event_seq.in_(seqs), waits)
    return sorted(connection.execute(query).scalars())


def of_states(connection: Connection, source_id: int, shown: Mapping[str, int]) -> list[int]:
    """Return the events that brought a listed state, or an earlier one: `shown` is {object key: version}."""
    query = select(EVENT.c.seq, EVENT.c.object_key, EVENT.c.object_version).where(
        EVENT.c.source_id == source_id, EVENT.c.object_key.in_(shown), EVENT.c.object_version.is_not(None)
    )
    return [seq for seq, key, version in connection.execute(query) if version <= shown[key]]


def owe_listed(connection: Connection, seqs: Sequence[int], now_us: int) -> int:
    """Owe the deliveries that waited for the list: it has shown these events. Returns how many."""
    held = (DELIVERY.c.event_seq.in_(seqs), OWING, DELIVERY.c.state == DeliveryState.HELD)
    waits = and_(*held, DELIVERY.c.reason == NOT_LISTED)
    lines = ordering.lines_of(connection, waits)
    ordering.lock(connection, lines)
    count = connection.execute(update(DELIVERY).where(waits).values(**_fresh(now_us) | {"reason": None})).rowcount
    ordering.let_next(connection, lines)
    if count:
        dialect.notify(connection, DELIVERY_CHANNEL)
    return count


def dismiss_held(connection: Connection, source_id: int, reason: str, limit: int = BATCH) -> int:
    """Delete a source's deliveries that are held for `reason`. Returns how many, at most `limit`; call until 0."""
    held = and_(OWING, DELIVERY.c.state == DeliveryState.HELD, DELIVERY.c.reason == reason)
    batch = _of_source(source_id).where(held).order_by(DELIVERY.c.event_seq).limit(limit)
    rows = sorted(map(tuple, connection.execute(batch)))
    if not rows:
        return 0
    return _delete(connection, rows, DELIVERY.c.state == DeliveryState.HELD)


def dismiss(
    connection: Connection,
    *,
    destination_id: int | None = None,
    reason: str | None = None,
    seqs: Sequence[int] | None = None,
    limit: int = BATCH,
) -> int:
    """Delete dead letters: they are not owed any more, and what waits for them in its order is next.

    Returns how many, at most `limit`; call until 0.
    """
    chosen = _chosen(DeliveryState.DEAD, destination_id, reason, seqs)
    batch = select(DELIVERY.c.destination_id, DELIVERY.c.event_seq).where(chosen)
    rows = sorted(map(tuple, connection.execute(batch.order_by(DELIVERY.c.event_seq).limit(limit))))
    return _delete(connection, rows, DELIVERY.c.state == DeliveryState.DEAD) if rows else 0


def _delete(connection: Connection, rows: Sequence[Any], was: ColumnElement[bool]) -> int:
    """Delete deliveries, (destination id, seq), unless they changed meanwhile; return how many."""
    these = and_(tuple_(DELIVERY.c.destination_id, DELIVERY.c.event_seq).in_(rows), was)
    lines = ordering.lines_of(connection, these)
    ordering.lock(connection, lines)
    count = connection.execute(delete(DELIVERY).where(these)).rowcount
    ordering.let_next(connection, lines)
    return count


def park_source(connection: Connection, source_id: int, limit: int = BATCH) -> int:
    """Park the pending deliveries of a retired source. Returns how many, at most `limit`; call until 0."""
    return _move(connection, source_id, was=PENDING, state=DeliveryState.PARKED, reason="source_retired", limit=limit)


def unpark_source(connection: Connection, source_id: int, limit: int = BATCH) -> int:
    """Undo `park_source` for a source that is active again. Returns how many, at most `limit`; call until 0."""
    was = and_(DELIVERY.c.state == DeliveryState.PARKED, DELIVERY.c.reason == "source_retired")
    return _move(connection, source_id, was=was, state=DeliveryState.PENDING, reason=None, limit=limit)


def _fresh(now_us: int) -> dict[str, object]:
    """Return the columns of a delivery that starts over. If it is ordered, let the next of its line go afterwards."""
    return {
        "state": ordering.DUE,
        "attempts": 0,
        "next_us": now_us,
        "wait_us": 0,
        "lease_us": 0,
        "done_us": None,
        "reason": RELEASED,
        "answered_us": None,
        "answers": 0,
        "applied_us": None,
    }


def _chosen(
    state: DeliveryState, destination_id: int | None, reason: str | None, seqs: Sequence[int] | None = None
) -> ColumnElement[bool]:
    clauses: list[ColumnElement[bool]] = [OWING, DELIVERY.c.state == state]
    if destination_id is not None:
        clauses.append(DELIVERY.c.destination_id == destination_id)
    if reason is not None:
        clauses.append(DELIVERY.c.reason == reason)
    if seqs is not None:
        clauses.append(DELIVERY.c.event_seq.in_(seqs))
    return and_(*clauses)


def _restart(
    connection: Connection,
    state: DeliveryState,
    now_us: int,
    destination_id: int | None,
    reason: str | None,
    seqs: Sequence[int] | None,
    limit: int,
) -> int:
    chosen = _chosen(state, destination_id, reason, seqs)
    if reason is None:
        chosen = and_(chosen, func.coalesce(DELIVERY.c.reason, "") != OTHER_ACCOUNT)
    batch = (
        select(DELIVERY.c.destination_id, DELIVERY.c.event_seq)
        .where(chosen)
        .order_by(DELIVERY.c.event_seq)
        .limit(limit)
    )
    rows = sorted(map(tuple, connection.execute(batch)))
    if not rows:
        return 0
    where = (tuple_(DELIVERY.c.destination_id, DELIVERY.c.event_seq).in_(rows), DELIVERY.c.state == state)
    lines = ordering.lines_of(connection, *where)
    ordering.lock(connection, lines)
    changed = connection.execute(update(DELIVERY).where(*where).values(**_fresh(now_us))).rowcount
    ordering.let_next(connection, lines)
    dialect.notify(connection, DELIVERY_CHANNEL)
    return changed


def _move(
    connection: Connection,
    source_id: int,
    *,
    was: ColumnElement[bool],
    state: DeliveryState,
    reason: str | None,
    limit: int,
) -> int:
    return _change(connection, _of_source(source_id).where(OWING, was), was, state, reason, limit)


def _of_source(source_id: int) -> Select[tuple[int, int]]:
    query = select(DELIVERY.c.destination_id, DELIVERY.c.event_seq).join(EVENT, EVENT.c.seq == DELIVERY.c.event_seq)
    return query.where(EVENT.c.source_id == source_id)


def _change(
    connection: Connection,
    query: Select[tuple[int, int]],
    was: ColumnElement[bool],
    state: DeliveryState,
    reason: str | None,
    limit: int,
) -> int:
    """Give the first deliveries that `query` finds another state, unless they changed meanwhile; return how many."""
    batch = query.order_by(DELIVERY.c.event_seq).limit(limit)
    rows = sorted(map(tuple, connection.execute(batch)))
    if not rows:
        return 0
    where = (tuple_(DELIVERY.c.destination_id, DELIVERY.c.event_seq).in_(rows), was)
    if state is not DeliveryState.PENDING:
        return connection.execute(update(DELIVERY).where(*where).values(state=state, reason=reason)).rowcount
    lines = ordering.lines_of(connection, *where)
    ordering.lock(connection, lines)
    count = connection.execute(update(DELIVERY).where(*where).values(state=ordering.DUE, reason=reason)).rowcount
    ordering.let_next(connection, lines)
    return count
