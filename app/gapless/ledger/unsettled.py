"""Deliveries that wait for a person, by filter: they are listed, counted, sent again or discarded.

Every statement walks the index of those alone, whatever number of deliveries is still pending. Lists and jobs go on
after a cursor, so that a long one costs no more at its end than at its beginning.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, delete, func, select, tuple_, update

from gapless.destinations.contract import FailureReason
from gapless.ledger import ordering
from gapless.ledger.accounts import OTHER_ACCOUNT
from gapless.ledger.deliveries import ATTEMPT_COLUMNS, NEXT_GENERATION, UNSETTLED, DeliveryState, fresh
from gapless.ledger.engine import dialect
from gapless.ledger.events import Extent, matches_types
from gapless.ledger.ordering import DELIVERY_CHANNEL
from gapless.ledger.tables import ATTEMPT, DELIVERY, DESTINATION, EVENT, SOURCE

Key: TypeAlias = tuple[int, int]
"""The event's seq and the destination's id: the order of lists, and their cursor."""
START: Key = (0, 0)
POSITION = re.compile(r"(\d{1,18})\.(\d{1,18})", re.ASCII)
LOOKED = 20_000
"""Most rows that one statement looks at for a batch, so that a filter which chooses few holds nobody up."""
DISCARDED = "discarded"
"""The outcome that stands among the attempts of a discarded delivery."""
SINCE_US = func.coalesce(DELIVERY.c.done_us, DELIVERY.c.created_us)


class UnsettledFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Deliveries in `state`; of each other field, None chooses all. Times are microseconds."""

    state: DeliveryState
    destinations: tuple[str, ...] | None = None
    sources: tuple[str, ...] | None = None
    types: tuple[str, ...] | None = None
    """Patterns of event types, such as `invoice.*`."""
    reason: str | None = None
    since_us: int | None = None
    """Those that reached this state at or after this time."""
    until_us: int | None = None
    """Those that reached it before this time."""
    object_key: str | None = None
    seqs: tuple[int, ...] | None = None
    """Only deliveries of these events: at most a batch."""
    but_other_account: bool = False
    """Not those of another account: a person who names no reason may not have them in mind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """A delivery that waits for a person. Times are microseconds."""

    destination_id: int
    destination: str
    seq: int
    source: str
    key: str
    type: str
    object_key: str | None
    occurred_us: int
    state: DeliveryState
    reason: str | None
    attempts: int
    done_us: int
    """The time at which it reached this state, or where that is not stored, as with what is held in bulk, was made."""

    @property
    def position(self) -> str:
        """The cursor after it, as text."""
        return f"{self.seq}.{self.destination_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The next deliveries that are chosen, the cursor after them, and whether there may be more."""

    keys: list[Key]
    cursor: Key
    has_more: bool


def read_position(text: str) -> Key | None:
    """Return the cursor that `Unsettled.position` has written; None: it is none."""
    found = POSITION.fullmatch(text)
    return None if found is None else (int(found[1]), int(found[2]))


def page(connection: Connection, chosen: UnsettledFilter, *, after: Key = START, limit: int = 100) -> list[Unsettled]:
    """Return the next chosen deliveries, in order of event and destination."""
    columns = (EVENT.c[name] for name in ("seq", "key", "type", "object_key", "occurred_us"))
    names = (DESTINATION.c.name.label("destination"), SOURCE.c.name.label("source"))
    own = (DELIVERY.c[name] for name in ("destination_id", "state", "reason", "attempts"))
    query = (
        select(*columns, *names, *own, SINCE_US.label("done_us"))
        .select_from(DELIVERY)
        .join(EVENT, EVENT.c.seq == DELIVERY.c.event_seq)
        .join(SOURCE, SOURCE.c.id == EVENT.c.source_id)
        .join(DESTINATION, DESTINATION.c.id == DELIVERY.c.destination_id)
        .where(*_of_deliveries(connection, chosen), *_of_events(connection, chosen), _after(after))
        .order_by(DELIVERY.c.event_seq, DELIVERY.c.destination_id)
        .limit(limit)
    )
    return [Unsettled(**{**row, "state": DeliveryState(row["state"])}) for row in connection.execute(query).mappings()]


def extent(connection: Connection, chosen: UnsettledFilter) -> Extent:
    """Return the number of chosen deliveries, and when the first and the last of them reached their state."""
    query = select(func.count(), func.min(SINCE_US), func.max(SINCE_US)).select_from(DELIVERY)
    query = _joined(query, of_events := _of_events(connection, chosen))
    count, first_us, last_us = connection.execute(query.where(*_of_deliveries(connection, chosen), *of_events)).one()
    return Extent(count=count, first_us=first_us, last_us=last_us)


def last_seq(connection: Connection, chosen: UnsettledFilter) -> int:
    """Return the last event of which a delivery is chosen; 0: none is."""
    query = _joined(select(func.max(DELIVERY.c.event_seq)).select_from(DELIVERY), of := _of_events(connection, chosen))
    return connection.execute(query.where(*_of_deliveries(connection, chosen), *of)).scalar() or 0


def batch(connection: Connection, chosen: UnsettledFilter, after: Key, limit: int) -> Batch:
    """Return at most `limit` of the chosen deliveries after the cursor; not more than `LOOKED` rows are looked at.

    There may be none although there are more.
    """
    looked = (DELIVERY.c.event_seq, DELIVERY.c.destination_id)
    in_state = (UNSETTLED, DELIVERY.c.state == chosen.state)
    ahead = select(*looked).where(*in_state, _after(after)).order_by(*looked)
    is_long = chosen.seqs is None
    end = connection.execute(ahead.offset(LOOKED - 1).limit(1)).first() if is_long else None
    query = _joined(select(*looked).select_from(DELIVERY), of_events := _of_events(connection, chosen))
    query = query.where(*_of_deliveries(connection, chosen), *of_events, _after(after))
    if end is not None:
        query = query.where(tuple_(*looked) <= (end[0], end[1]))
    keys = [(row[0], row[1]) for row in connection.execute(query.order_by(*looked).limit(limit))]
    if len(keys) == limit:
        return Batch(keys=keys, cursor=keys[-1], has_more=True)
    last = after if end is None else (end[0], end[1])
    return Batch(keys=keys, cursor=max([last, *keys[-1:]]), has_more=end is not None)


def send_again(connection: Connection, keys: Sequence[Key], state: DeliveryState, now_us: int) -> int:
    """Owe these deliveries again that are still in `state`, with a fresh budget of attempts. Returns how many.

    Those that are ordered are sent in their turn. Erased ones are left out: nothing can send them.
    """
    if not keys:
        return 0
    again = {**fresh(now_us), "generation": NEXT_GENERATION}
    these = (*_named(keys, state), func.coalesce(DELIVERY.c.reason, "") != FailureReason.ERASED)
    lines = ordering.lines_of(connection, *these)
    ordering.lock(connection, lines)
    count = connection.execute(update(DELIVERY).where(*these).values(**again)).rowcount
    ordering.let_next(connection, lines)
    dialect.notify(connection, DELIVERY_CHANNEL)
    return count


def discard(connection: Connection, keys: Sequence[Key], state: DeliveryState, now_us: int, why: str) -> int:
    """Delete these deliveries that are still in `state`: they are not owed any more. Returns how many.

    What waited for them in its order goes on. `why` stands among the attempts of each, so that an event tells what
    became of it.
    """
    if not keys:
        return 0
    named = _named(keys, state)
    lines = ordering.lines_of(connection, *named)
    ordering.lock(connection, lines)
    gone = delete(DELIVERY).where(*named).returning(DELIVERY.c.destination_id, DELIVERY.c.event_seq)
    deleted = sorted((row[0], row[1]) for row in connection.execute(gone))
    if ordering.let_next(connection, lines):
        dialect.notify(connection, DELIVERY_CHANNEL)
    rows = [(*each, now_us, 0, DISCARDED, why, None, None) for each in deleted]
    dialect.insert_many(connection, ATTEMPT, ATTEMPT_COLUMNS, rows)
    return len(deleted)


def _named(keys: Sequence[Key], state: DeliveryState) -> tuple[ColumnElement[bool], ...]:
    rows = sorted((destination_id, seq) for seq, destination_id in keys)
    return tuple_(DELIVERY.c.destination_id, DELIVERY.c.event_seq).in_(rows), DELIVERY.c.state == state


def _after(cursor: Key) -> ColumnElement[bool]:
    return tuple_(DELIVERY.c.event_seq, DELIVERY.c.destination_id) > cursor


def _of_deliveries(connection: Connection, chosen: UnsettledFilter) -> list[ColumnElement[bool]]:
    """Return the conditions on `delivery`; the destinations so that its primary key, which has all, does not serve."""
    clauses = [UNSETTLED, DELIVERY.c.state == chosen.state]
    if chosen.destinations is not None:
        named = select(DESTINATION.c.id).where(DESTINATION.c.name.in_(chosen.destinations))
        clauses.append((DELIVERY.c.destination_id + 0).in_(list(connection.execute(named).scalars())))
    if chosen.reason is not None:
        clauses.append(DELIVERY.c.reason == chosen.reason)
    elif chosen.but_other_account:
        clauses.append(func.coalesce(DELIVERY.c.reason, "") != OTHER_ACCOUNT)
    if chosen.seqs is not None:
        clauses.append(DELIVERY.c.event_seq.in_(chosen.seqs))
    if chosen.since_us is not None:
        clauses.append(chosen.since_us <= SINCE_US)
    if chosen.until_us is not None:
        clauses.append(chosen.until_us > SINCE_US)
    return clauses


def _of_events(connection: Connection, chosen: UnsettledFilter) -> list[ColumnElement[bool]]:
    """Return the conditions on `event`; none: it need not be looked at.

    The sources are written so that no index of events serves: the deliveries are the few.
    """
    clauses: list[ColumnElement[bool]] = []
    if chosen.sources is not None:
        named = select(SOURCE.c.id).where(SOURCE.c.name.in_(chosen.sources))
        clauses.append((EVENT.c.source_id + 0).in_(list(connection.execute(named).scalars())))
    if chosen.types is not None:
        clauses.append(matches_types(chosen.types))
    if chosen.object_key is not None:
        clauses.append(func.coalesce(EVENT.c.object_key, "") == chosen.object_key)
    return clauses


def _joined(query: Select[Any], of_events: Sequence[object]) -> Select[Any]:
    return query.join(EVENT, EVENT.c.seq == DELIVERY.c.event_seq) if of_events else query
