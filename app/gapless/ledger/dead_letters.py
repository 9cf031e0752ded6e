"""Dead letters and held deliveries in bulk: release, replay, and what a source is owed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    null,
    select,
    tuple_,
    update,
)

from gapless.domain import Via
from gapless.ledger import feed, ordering, unsettled
from gapless.ledger.accounts import OTHER_ACCOUNT
from gapless.ledger.deliveries import (
    NEXT_GENERATION,
    NOT_LISTED,
    PENDING,
    QUEUED,
    RELEASED,
    UNSETTLED,
    DeliveryState,
    fresh,
)
from gapless.ledger.engine import dialect
from gapless.ledger.events import EventFilter
from gapless.ledger.ordering import DELIVERY_CHANNEL, Late
from gapless.ledger.tables import DELIVERY, EVENT, PAYLOAD

ERASED = "erased"
"""Reason of dead deliveries that nothing can send again: the payload was erased."""
BATCH = 1000
"""Most deliveries changed in one transaction, because webhooks wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """An event that a destination was never owed."""

    seq: int
    key: str
    type: str
    occurred_us: int


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
    start = fresh(now_us)
    again = {"order_key": None, "unproven_id": None, "late": Late.REPLAYED.value, "state": DeliveryState.PENDING.value}
    comes = and_(
        DELIVERY.c.order_key.is_not(None), DELIVERY.c.state.in_((DeliveryState.PENDING, DeliveryState.WAITING))
    )
    connection.execute(update(DELIVERY).where(mine, ~had, ~comes).values(**start, generation=NEXT_GENERATION))
    connection.execute(update(DELIVERY).where(mine, had).values(**start | again, generation=NEXT_GENERATION))
    known = select(DELIVERY.c.event_seq).where(mine)
    made = {name: value for name, value in (start | again).items() if value is not None} | {"generation": 1}
    values = (literal(value, DELIVERY.c[name].type) for name, value in made.items())
    new = select(literal(destination_id), EVENT.c.seq, literal(now_us), *values)
    new = new.where(EVENT.c.seq.in_(found), EVENT.c.seq.not_in(known))
    connection.execute(insert(DELIVERY).from_select(["destination_id", "event_seq", "created_us", *made], new))
    ordering.let_next(connection, lines)
    dialect.notify(connection, DELIVERY_CHANNEL)
    feed.announce_again(connection, found)
    return len(found)


def hold_pending(connection: Connection, reason: str, limit: int = BATCH) -> int:
    """Hold pending and waiting deliveries of every destination. Returns how many, at most `limit`; call until 0."""
    query, count = select(DELIVERY.c.destination_id, DELIVERY.c.event_seq), 0
    query = query.order_by(DELIVERY.c.destination_id, DELIVERY.c.created_us)  # as the index of each state
    for was in (PENDING, QUEUED):
        count += _change(connection, query.where(was), was, DeliveryState.HELD, reason, limit - count)
    return count


def hold_listed(connection: Connection, source_id: int, reason: str, now_us: int, limit: int = BATCH) -> int:
    """Hold what is pending or waits of a source's listed events, but not what is under way or a person released.

    What waits in its order, or for proof, is held too. Returns how many, at most `limit`; call until 0.
    """
    query, count = _of_source(source_id).where(EVENT.c.via == Via.LIST.value), 0
    for state in (PENDING, QUEUED):
        was = and_(state, DELIVERY.c.lease_us <= now_us, func.coalesce(DELIVERY.c.reason, "") != RELEASED)
        count += _change(connection, query.where(was), was, DeliveryState.HELD, reason, limit - count)
    return count


def holds(connection: Connection, source_id: int, reason: str) -> bool:
    """Return True if deliveries of the source are held for `reason`."""
    held = and_(UNSETTLED, DELIVERY.c.state == DeliveryState.HELD, DELIVERY.c.reason == reason)
    return connection.execute(_of_source(source_id).where(held).limit(1)).first() is not None


def count_held(connection: Connection, source_id: int, reason: str) -> int:
    """Return the number of deliveries of the source that are held for `reason`."""
    held = and_(UNSETTLED, DELIVERY.c.state == DeliveryState.HELD, DELIVERY.c.reason == reason)
    chosen = _of_source(source_id).where(held).subquery()
    return connection.execute(select(func.count()).select_from(chosen)).scalar_one()


def owe_held(connection: Connection, source_id: int, reason: str, limit: int = BATCH) -> int:
    """Owe a source's deliveries again that are held for `reason`. Returns how many, at most `limit`; call until 0."""
    was = and_(UNSETTLED, DELIVERY.c.state == DeliveryState.HELD, DELIVERY.c.reason == reason)
    return _move(connection, source_id, was=was, state=DeliveryState.PENDING, reason=None, limit=limit)


def owe_all_held(connection: Connection, reason: str, limit: int = BATCH) -> int:
    """Owe the deliveries of every destination again that are held for `reason`, as if they had never been held.

    What a person had released or replayed is so again. Returns how many, at most `limit`; call until 0.
    """
    was = and_(UNSETTLED, DELIVERY.c.state == DeliveryState.HELD, DELIVERY.c.reason == reason)
    query = select(DELIVERY.c.destination_id, DELIVERY.c.event_seq).where(was)
    before = case((DELIVERY.c.generation > 0, RELEASED), else_=null())
    count = _change(connection, query, was, DeliveryState.PENDING, before, limit)
    if count:
        dialect.notify(connection, DELIVERY_CHANNEL)
    return count


def not_listed(connection: Connection, seqs: Sequence[int]) -> list[int]:
    """Return those of the events that have deliveries which wait for the list. Pass at most a page."""
    waits = and_(UNSETTLED, DELIVERY.c.state == DeliveryState.HELD, DELIVERY.c.reason == NOT_LISTED)
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
    waits = and_(DELIVERY.c.event_seq.in_(seqs), UNSETTLED, DELIVERY.c.state == "held", DELIVERY.c.reason == NOT_LISTED)
    lines = ordering.lines_of(connection, waits)
    ordering.lock(connection, lines)
    count = connection.execute(update(DELIVERY).where(waits).values(**fresh(now_us) | {"reason": None})).rowcount
    ordering.let_next(connection, lines)
    if count:
        dialect.notify(connection, DELIVERY_CHANNEL)
    return count


def dismiss_held(connection: Connection, source_id: int, reason: str, limit: int = BATCH) -> int:
    """Delete a source's deliveries that are held for `reason`. Returns how many, at most `limit`; call until 0."""
    held = and_(UNSETTLED, DELIVERY.c.state == DeliveryState.HELD, DELIVERY.c.reason == reason)
    batch = _of_source(source_id).where(held).order_by(DELIVERY.c.event_seq).limit(limit)
    rows = sorted(map(tuple, connection.execute(batch)))
    if not rows:
        return 0
    return _delete(connection, rows, DELIVERY.c.state == DeliveryState.HELD)


def _delete(connection: Connection, rows: Sequence[Any], was: ColumnElement[bool]) -> int:
    """Delete deliveries, (destination id, seq), unless they changed meanwhile; return how many."""
    these = and_(tuple_(DELIVERY.c.destination_id, DELIVERY.c.event_seq).in_(rows), was)
    lines = ordering.lines_of(connection, these)
    ordering.lock(connection, lines)
    count = connection.execute(delete(DELIVERY).where(these)).rowcount
    ordering.let_next(connection, lines)
    return count


def park_source(connection: Connection, source_id: int, limit: int = BATCH) -> int:
    """Park what is pending or waits of a retired source. Returns how many, at most `limit`; call until 0."""
    parked, count = DeliveryState.PARKED, 0
    for was in (PENDING, QUEUED):
        left = limit - count
        count += _move(connection, source_id, was=was, state=parked, reason="source_retired", limit=left)
    return count


def unpark_source(connection: Connection, source_id: int, limit: int = BATCH) -> int:
    """Undo `park_source` for a source that is active again. Returns how many, at most `limit`; call until 0."""
    was = and_(UNSETTLED, DELIVERY.c.state == DeliveryState.PARKED, DELIVERY.c.reason == "source_retired")
    return _move(connection, source_id, was=was, state=DeliveryState.PENDING, reason=None, limit=limit)


def _chosen(
    state: DeliveryState, destination_id: int | None, reason: str | None, seqs: Sequence[int] | None = None
) -> ColumnElement[bool]:
    clauses: list[ColumnElement[bool]] = [UNSETTLED, DELIVERY.c.state == state]
    if destination_id is not None:
        clauses.append(DELIVERY.c.destination_id + 0 == destination_id)  # so that the primary key does not serve
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
    chosen = and_(_chosen(state, destination_id, reason, seqs), func.coalesce(DELIVERY.c.reason, "") != ERASED)
    if reason is None:
        chosen = and_(chosen, func.coalesce(DELIVERY.c.reason, "") != OTHER_ACCOUNT)
    batch = (
        select(DELIVERY.c.destination_id, DELIVERY.c.event_seq)
        .where(chosen)
        .order_by(DELIVERY.c.event_seq)
        .limit(limit)
    )
    keys = [(seq, owed_to) for owed_to, seq in connection.execute(batch)]
    return unsettled.send_again(connection, keys, state, now_us)


def _move(
    connection: Connection,
    source_id: int,
    *,
    was: ColumnElement[bool],
    state: DeliveryState,
    reason: str | None,
    limit: int,
) -> int:
    return _change(connection, _of_source(source_id).where(was), was, state, reason, limit)


def _of_source(source_id: int) -> Select[tuple[int, int]]:
    query = select(DELIVERY.c.destination_id, DELIVERY.c.event_seq).join(EVENT, EVENT.c.seq == DELIVERY.c.event_seq)
    return query.where(EVENT.c.source_id == source_id)


def _change(
    connection: Connection,
    query: Select[tuple[int, int]],
    was: ColumnElement[bool],
    state: DeliveryState,
    reason: str | ColumnElement[str | None] | None,
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
