"""Finds events for people: by id, by object, by prefix, or by time with filters. Each search reads an index.

The newest come first, by the time at which they occurred. A search by time with filters looks at a bounded number of
events at once (`newest.LOOKED_AT`), so that a rare type costs no more than a common one; the page says how far it came.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Subquery,
    and_,
    exists,
    false,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)

from gapless.domain import Via
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.engine import dialect
from gapless.ledger.events import Event
from gapless.ledger.newest import LOOKED_AT, NewestPage, rows_of
from gapless.ledger.tables import DELIVERY, DESTINATION, EVENT, SOURCE, STREAM

BOTH: Final = "both"
"""A way: a list showed it first, and its webhook came later."""
OWED_TO_NOBODY: Final = "none"
"""A state: there is no delivery of it."""
MERGED: Final = 200
"""Most streams whose indexes are merged by time; of more, the order is that in which events were recorded."""
MISSED: Final[ColumnElement[bool]] = EVENT.c.missed_cause.is_not(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSearch:
    """What is looked for. None: anything. Times are microseconds."""

    sources: frozenset[str] | None = None
    id: str | None = None
    """The key of the event, or that of its object."""
    prefix: str | None = None
    """The beginning of the key."""
    types: tuple[str, ...] | None = None
    """Exact types, or beginnings such as `invoice.*`."""
    object_key: str | None = None
    via: str | None = None
    """A `Via`, or `both`."""
    state: str | None = None
    """A `DeliveryState` that one of its deliveries has, or `none`."""
    livemode: bool | None = None
    cause: str | None = None
    missed: bool = False
    start_us: int | None = None
    end_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryMark:
    """The state of one delivery, for lists."""

    destination: str
    state: DeliveryState
    reason: str | None


def search(
    connection: Connection, wanted: EventSearch, *, after: tuple[int, ...] | None, limit: int
) -> NewestPage[Event]:
    """Return the events that fit, the newest first; `after` is that of the page before."""
    chosen = _sources(connection, wanted.sources)
    where = [*_filters(connection, wanted), *_times(wanted)]
    by_key = _keys(connection, wanted, list(chosen))
    if by_key is not None:
        return _indexed(connection, by_key.where(*where, *_beyond(after)), limit)
    if wanted.missed:
        mine = [] if wanted.sources is None else [EVENT.c.source_id.in_(chosen)]
        query = select(EVENT.c.seq, EVENT.c.occurred_us).where(MISSED, *mine, *where, *_beyond(after))
        return _indexed(connection, query, limit)
    return _by_time(connection, wanted, chosen, where, after, limit)


def deliveries_of(connection: Connection, seqs: Sequence[int]) -> dict[int, list[DeliveryMark]]:
    """Return the deliveries of these events, by event and destination. Events without one are left out."""
    known = {row.id: row.name for row in connection.execute(select(DESTINATION.c.id, DESTINATION.c.name))}
    query = select(DELIVERY.c.event_seq, DELIVERY.c.destination_id, DELIVERY.c.state, DELIVERY.c.reason)
    query = query.where(DELIVERY.c.destination_id.in_(known), DELIVERY.c.event_seq.in_(seqs))
    found: dict[int, list[DeliveryMark]] = {}
    for seq, destination_id, state, reason in connection.execute(query):
        mark = DeliveryMark(destination=known[destination_id], state=DeliveryState(state), reason=reason)
        found.setdefault(seq, []).append(mark)
    return {seq: sorted(marks, key=lambda mark: mark.destination) for seq, marks in found.items()}


def event_named(connection: Connection, source: str, key: str) -> Event | None:
    """Return the event of that source and key; None: there is none."""
    row = connection.execute(_select().where(SOURCE.c.name == source, EVENT.c.key == key)).mappings().first()
    return None if row is None else _event(row)


def same_object(connection: Connection, source: str, object_key: str, limit: int) -> list[Event]:
    """Return the newest events of that object, the newest first."""
    wanted = EventSearch(sources=frozenset({source}), object_key=object_key)
    return list(search(connection, wanted, after=None, limit=limit).rows)


def _sources(connection: Connection, names: Collection[str] | None) -> list[int]:
    query = select(SOURCE.c.id) if names is None else select(SOURCE.c.id).where(SOURCE.c.name.in_(names))
    return list(connection.execute(query.order_by(SOURCE.c.id)).scalars())


def _keys(connection: Connection, wanted: EventSearch, chosen: Sequence[int]) -> Select[Any] | None:
    """Return the query by an index of keys or objects; None: the search names neither."""
    columns = (EVENT.c.seq, EVENT.c.occurred_us)
    mine = EVENT.c.source_id.in_(chosen)
    if wanted.id is not None:
        by_key = select(*columns).where(mine, EVENT.c.key == wanted.id)
        found = union_all(by_key, *_of_object(columns, mine, wanted.id)).subquery()
        return select(EVENT.c.seq, EVENT.c.occurred_us).join(found, found.c.seq == EVENT.c.seq).distinct()
    if wanted.object_key is not None:
        both = union_all(*_of_object(columns, mine, wanted.object_key)).subquery()
        return select(EVENT.c.seq, EVENT.c.occurred_us).join(both, both.c.seq == EVENT.c.seq)
    if wanted.prefix is not None and dialect.sorts_bytes(connection):
        return select(*columns).where(mine, *_starts_with(wanted.prefix))
    return None


def _of_object(columns: Any, mine: ColumnElement[bool], name: str) -> list[Select[Any]]:
    """Return a query for each of the two partial indexes of objects."""
    named = (mine, EVENT.c.object_key == name)
    versioned = EVENT.c.object_version.is_not(None)
    return [select(*columns).where(*named, versioned), select(*columns).where(*named, EVENT.c.object_version.is_(None))]


def _starts_with(prefix: str) -> list[ColumnElement[bool]]:
    """Return the range of keys with that beginning, where text is sorted by its bytes."""
    return [EVENT.c.key >= prefix, EVENT.c.key < prefix + "\U0010ffff"]


def _times(wanted: EventSearch) -> list[ColumnElement[bool]]:
    start = [] if wanted.start_us is None else [EVENT.c.occurred_us >= wanted.start_us]
    return start + ([] if wanted.end_us is None else [EVENT.c.occurred_us < wanted.end_us])


def _filters(connection: Connection, wanted: EventSearch) -> list[ColumnElement[bool]]:
    """Return the conditions beside the times that no index serves."""
    where: list[ColumnElement[bool]] = []
    if wanted.types is not None:
        where.append(or_(false(), *map(_type, wanted.types)))
    if wanted.via is not None:
        was_late = (EVENT.c.via == Via.LIST.value, EVENT.c.webhook_us.is_not(None))
        where.append(and_(*was_late) if wanted.via == BOTH else EVENT.c.via == wanted.via)
    if wanted.state is not None:
        where.append(_in_state(connection, wanted.state))
    if wanted.livemode is not None:
        where.append(EVENT.c.livemode == wanted.livemode)
    if wanted.cause is not None:
        where.append(EVENT.c.missed_cause == wanted.cause)
    if wanted.prefix is not None and not dialect.sorts_bytes(connection):
        where.append(EVENT.c.key.startswith(wanted.prefix, autoescape=True))
    return where


def _type(pattern: str) -> ColumnElement[bool]:
    if pattern.endswith("*"):
        return EVENT.c.type.startswith(pattern[:-1], autoescape=True)
    return EVENT.c.type == pattern


def _in_state(connection: Connection, state: str) -> ColumnElement[bool]:
    known = list(connection.execute(select(DESTINATION.c.id)).scalars())
    mine = (DELIVERY.c.destination_id.in_(known), DELIVERY.c.event_seq == EVENT.c.seq)
    if state == OWED_TO_NOBODY:
        return ~exists().where(*mine)
    return exists().where(*mine, DELIVERY.c.state == state)


def _beyond(after: tuple[int, ...] | None) -> list[ColumnElement[bool]]:
    return [] if after is None else [tuple_(EVENT.c.occurred_us, EVENT.c.seq) < after]


def _indexed(connection: Connection, query: Select[Any], limit: int) -> NewestPage[Event]:
    """Return a page of a query whose rows an index finds: there are few."""
    found = connection.execute(query.order_by(EVENT.c.occurred_us.desc(), EVENT.c.seq.desc()).limit(limit + 1)).all()
    rows = _events(connection, [row.seq for row in found[:limit]])
    last = found[limit - 1] if len(found) > limit else None
    return NewestPage(rows=rows, after=None if last is None else (last.occurred_us, last.seq))


def _by_time(
    connection: Connection,
    wanted: EventSearch,
    chosen: Sequence[int],
    where: Sequence[ColumnElement[bool]],
    after: tuple[int, ...] | None,
    limit: int,
) -> NewestPage[Event]:
    streams = list(connection.execute(select(STREAM.c.id).where(STREAM.c.source_id.in_(chosen))).scalars())
    if not streams:
        return NewestPage(rows=[], after=None)
    most = LOOKED_AT if len(where) > len(_times(wanted)) or len(streams) > MERGED else limit + 1
    if len(streams) <= MERGED:
        some = _merged(streams, [*_times(wanted), *_beyond(after)], most)
    else:
        some = _recorded(chosen, after, most)
    order = (some.c.place.desc(), some.c.seq.desc())
    query = select(some.c.place, some.c.seq).join(EVENT, EVENT.c.seq == some.c.seq).where(*where)
    found = connection.execute(query.order_by(*order).limit(limit + 1)).all()
    rows = _events(connection, [row.seq for row in found[:limit]])
    if len(found) > limit:
        return NewestPage(rows=rows, after=tuple(found[limit - 1]))
    last = connection.execute(select(some.c.place, some.c.seq).order_by(*order).offset(most - 1).limit(1)).first()
    return NewestPage(rows=rows, after=None if last is None else tuple(last), is_full=last is None)


def _merged(streams: Sequence[int], where: Sequence[ColumnElement[bool]], most: int) -> Subquery:
    """Return (place, seq) of the newest events of these streams by time, read from the index of each."""
    each = [
        select(EVENT.c.occurred_us.label("place"), EVENT.c.seq.label("seq")).where(EVENT.c.stream_id == one, *where)
        for one in streams
    ]
    merged = each[0] if len(each) == 1 else union_all(*each)
    return merged.order_by(literal_column("place").desc(), literal_column("seq").desc()).limit(most).subquery()


def _recorded(chosen: Sequence[int], after: tuple[int, ...] | None, most: int) -> Subquery:
    """Return (0, seq) of the events that were recorded last."""
    below = [] if after is None else [EVENT.c.seq < after[1]]
    query = select(literal(0).label("place"), EVENT.c.seq.label("seq")).where(EVENT.c.source_id.in_(chosen), *below)
    return query.order_by(EVENT.c.seq.desc()).limit(most).subquery()


def _select() -> Select[Any]:
    names = SOURCE.c.name.label("source"), STREAM.c.name.label("stream"), SOURCE.c.livemode.label("source_livemode")
    joined = select(EVENT, *names).join_from(EVENT, SOURCE, SOURCE.c.id == EVENT.c.source_id)
    return joined.join(STREAM, STREAM.c.id == EVENT.c.stream_id)


def _events(connection: Connection, seqs: Sequence[int]) -> list[Event]:
    return [_event(row) for row in rows_of(connection, _select(), EVENT.c.seq, seqs)]


def _event(row: Any) -> Event:
    return Event(**{name: row[name] for name in Event.__dataclass_fields__})
