"""What the ledger knows of events: look-ups for passes, and lists for people."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, exists, func, select, true, update

from gapless.domain import Via
from gapless.ledger.tables import EVENT, PAYLOAD, SOURCE, STREAM
from gapless.ledger.tallies import Tallies

UNLISTED_AFTER = 2
"""Complete listings of its window that must not show an event before it counts as unlisted."""
CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event as people see it. Times are microseconds."""

    seq: int
    source: str
    stream: str
    key: str
    type: str
    object_key: str | None
    occurred_us: int
    first_seen_us: int
    via: str
    expected: bool
    missed_cause: str | None
    webhook_us: int | None
    webhook_count: int


NEWER = EVENT.alias("newer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The settled webhook events of a stream in `[start, end)`: expected, their webhook came before `before_us`.

    Each is a witness: a complete listing of that time must show it. A list of states shows only the last
    one of an object (`last_states`).
    """

    stream_id: int
    start_us: int
    end_us: int
    before_us: int
    last_states: bool = False

    def where(self) -> ColumnElement[bool]:
        """The condition on `event`."""
        superseded = exists().where(
            NEWER.c.source_id == EVENT.c.source_id,
            NEWER.c.object_key == EVENT.c.object_key,
            NEWER.c.object_version > EVENT.c.object_version,
        )
        return and_(
            ~superseded if self.last_states else true(),
            EVENT.c.stream_id == self.stream_id,
            EVENT.c.occurred_us >= self.start_us,
            EVENT.c.occurred_us < self.end_us,
            EVENT.c.expected,
            EVENT.c.webhook_us.is_not(None),
            EVENT.c.webhook_us < self.before_us,
        )


def count_witnesses(connection: Connection, span: Span) -> int:
    """How many events a complete listing must show."""
    return int(connection.execute(select(func.count()).select_from(EVENT).where(span.where())).scalar_one())


def absent(connection: Connection, span: Span, seen: Collection[int]) -> list[int]:
    """The seq of the events that a complete listing did not show (`seen`)."""
    return [seq for seq in connection.execute(select(EVENT.c.seq).where(span.where())).scalars() if seq not in seen]


def note_absent(connection: Connection, slot: int, seqs: Sequence[int]) -> int:
    """Note that a complete listing lacked these; returns how many thereby became unlisted, and counts them."""
    tallies = Tallies()
    became = 0
    ordered = sorted(seqs)
    for at in range(0, len(ordered), CHUNK):
        statement = (
            update(EVENT)
            .where(EVENT.c.seq.in_(ordered[at : at + CHUNK]), EVENT.c.absent_count < UNLISTED_AFTER)
            .values(absent_count=EVENT.c.absent_count + 1)
            .returning(EVENT.c.source_id, EVENT.c.occurred_us, EVENT.c.absent_count)
        )
        for source_id, occurred_us, count in connection.execute(statement):
            if count == UNLISTED_AFTER:
                became += 1
                tallies.add(source_id, occurred_us, "unlisted")
    tallies.write(connection, slot)
    return became


State = tuple[int, str | None, int | None]
"""(source id, object key, object version)."""


def listed_states(connection: Connection, states: Collection[State]) -> dict[State, bool]:
    """Those of `states` that a list showed first, and whether each counts as missed."""
    found: dict[State, bool] = {}
    for source_id in {state[0] for state in states}:
        query = select(EVENT.c.object_key, EVENT.c.object_version, EVENT.c.missed_cause).where(
            EVENT.c.source_id == source_id,
            EVENT.c.object_key.in_({name for other, name, _ in states if other == source_id}),
            EVENT.c.object_version.is_not(None),
            EVENT.c.via == Via.LIST.value,
        )
        for name, version, cause in connection.execute(query):
            if (state := (source_id, name, version)) in states:
                found[state] = cause is not None
    return found


def mark_redelivered(connection: Connection, seqs: Sequence[int]) -> None:
    """Note that these came because the provider was asked to send them again."""
    connection.execute(update(EVENT).where(EVENT.c.seq.in_(seqs)).values(via=Via.REDELIVERY.value))


def recent(
    connection: Connection,
    *,
    source: str | None = None,
    via: Via | None = None,
    event_type: str | None = None,
    missed: bool = False,
    unlisted: bool = False,
    before_seq: int | None = None,
    after_seq: int | None = None,
    limit: int = 100,
) -> list[Event]:
    """Events by order of record, newest first (oldest first when `after_seq` is given), filtered."""
    query = _select()
    if source is not None:
        query = query.where(SOURCE.c.name == source)
    if via is not None:
        query = query.where(EVENT.c.via == via.value)
    if event_type is not None:
        query = query.where(EVENT.c.type == event_type)
    if missed:
        query = query.where(EVENT.c.missed_cause.is_not(None))
    if unlisted:
        query = query.where(EVENT.c.absent_count >= UNLISTED_AFTER)
    if before_seq is not None:
        query = query.where(EVENT.c.seq < before_seq)
    if after_seq is not None:
        query = query.where(EVENT.c.seq > after_seq)
    query = query.order_by(EVENT.c.seq if after_seq is not None else EVENT.c.seq.desc()).limit(limit)
    return [_event(row) for row in connection.execute(query).mappings()]


def by_key(connection: Connection, key: str, source: str | None = None) -> list[Event]:
    """The events of that key; several sources may have it."""
    query = _select().where(EVENT.c.key == key)
    if source is not None:
        query = query.where(SOURCE.c.name == source)
    return [_event(row) for row in connection.execute(query).mappings()]


def payload(connection: Connection, seq: int) -> tuple[bytes, str | None] | None:
    """The stored bytes and signature headers (JSON) of an event; None if pruned, or never stored."""
    query = select(PAYLOAD.c.body, PAYLOAD.c.headers).join_from(EVENT, PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id)
    row = connection.execute(query.where(EVENT.c.seq == seq)).first()
    return None if row is None else (row.body, row.headers)


def _select() -> Select[Any]:
    names = SOURCE.c.name.label("source"), STREAM.c.name.label("stream")
    joined = select(EVENT, *names).join_from(EVENT, SOURCE, SOURCE.c.id == EVENT.c.source_id)
    return joined.join(STREAM, STREAM.c.id == EVENT.c.stream_id)


def _event(row: RowMapping) -> Event:
    return Event(**{name: row[name] for name in Event.__dataclass_fields__})
