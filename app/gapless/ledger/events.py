"""Reads events: lists and look-ups for people, and the choice of events to deliver again."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, func, literal_column, or_, select

from gapless.domain import Via
from gapless.ledger import sealed
from gapless.ledger.keyring import ring_of
from gapless.ledger.tables import EVENT, PAYLOAD, SOURCE, STREAM
from gapless.sealing import CannotOpen

UNLISTED_AFTER = 2
"""Complete listings of its window that must lack an event before it counts as unlisted."""
MISSED: ColumnElement[bool] = literal_column("event.missed_cause IS NOT NULL")
UNLISTED: ColumnElement[bool] = literal_column(f"event.absent_count >= {UNLISTED_AFTER}")
"""Literals, because a partial index serves only the text of its own condition."""
CHUNK = 500
"""Keys in one statement."""


NEWEST = 5000
"""The newest events of the ledger among which `heard_streams` and `newest_webhooks` look."""


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
    repeated: bool
    """An event of another key came with the same signed message before."""
    livemode: bool | None
    """False for an event of the vendor's test mode; None: the vendor has no modes."""
    source_livemode: bool | None
    """The mode of its source."""
    erased_us: int | None = None
    """When a person had its payload erased."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Events that occurred in `[start_us, end_us)`, of one source or of all."""

    source: str | None
    start_us: int
    end_us: int
    livemodes: frozenset[bool] | None = None
    """The modes of the events; None: each source's own. Events without a mode are always chosen."""
    types: tuple[str, ...] | None = None
    """Patterns of types, such as `invoice.*`; None: all."""
    missed: bool = False
    """Only those that were missed."""
    object_key: str | None = None

    def where(self, *, by_seq: bool = False) -> list[ColumnElement[bool]]:
        """Return the conditions on `event`; `by_seq`: written so that only the order of record serves as an index."""
        clauses: list[ColumnElement[bool]] = [EVENT.c.occurred_us >= self.start_us, EVENT.c.occurred_us < self.end_us]
        if self.types is not None:
            clauses.append(matches_types(self.types))
        if self.missed:
            clauses.append(EVENT.c.missed_cause.is_not(None))
        if self.object_key is not None:
            clauses.append(func.coalesce(EVENT.c.object_key, "") == self.object_key)
        streams = select(STREAM.c.id)
        if self.source is not None:
            streams = streams.join(SOURCE, SOURCE.c.id == STREAM.c.source_id).where(SOURCE.c.name == self.source)
        has_none = EVENT.c.livemode.is_(None)
        if self.livemodes is None:
            own = select(SOURCE.c.livemode).where(SOURCE.c.id == EVENT.c.source_id).scalar_subquery()
            clauses.append(or_(has_none, EVENT.c.livemode == func.coalesce(own, EVENT.c.livemode)))
        else:
            clauses.append(or_(has_none, EVENT.c.livemode.in_(self.livemodes)))
        stream_id: ColumnElement[int] = EVENT.c.stream_id
        return [*clauses, (stream_id + 0 if by_seq else stream_id).in_(streams)]  # the index by time is per stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The number of chosen rows, and their first and last time, in microseconds: of events, when they occurred."""

    count: int
    first_us: int | None
    last_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The first and the last seq of chosen events."""

    first: int
    last: int


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
    up_to_seq: int | None = None,
    limit: int = 100,
) -> list[Event]:
    """Return the events that match, in order of record: newest first, or oldest first with `after_seq`.

    Whoever goes on after the last of them must not go beyond `feed.settled`: that is what `up_to_seq` is for.
    """
    query = _select()
    if source is not None and (missed or unlisted):  # few events, so that no index of the source's helps
        of_source = select(SOURCE.c.id).where(SOURCE.c.name == source).scalar_subquery()
        query = query.where(EVENT.c.source_id + 0 == of_source)
    elif source is not None:
        query = query.where(SOURCE.c.name == source)
    if via is not None:
        query = query.where(EVENT.c.via == via.value)
    if event_type is not None:
        query = query.where(EVENT.c.type == event_type)
    if missed:
        query = query.where(MISSED)
    if unlisted:
        query = query.where(UNLISTED)
    if before_seq is not None:
        query = query.where(EVENT.c.seq < before_seq)
    if after_seq is not None:
        query = query.where(EVENT.c.seq > after_seq)
    if up_to_seq is not None:
        query = query.where(EVENT.c.seq <= up_to_seq)
    query = query.order_by(EVENT.c.seq if after_seq is not None else EVENT.c.seq.desc()).limit(limit)
    return [_event(row) for row in connection.execute(query).mappings()]


def by_key(connection: Connection, key: str, source: str | None = None) -> list[Event]:
    """Return the events of that key; several sources may have it."""
    query = _select().where(EVENT.c.key == key)
    if source is not None:
        query = query.where(SOURCE.c.name == source)
    return [_event(row) for row in connection.execute(query).mappings()]


def payload(connection: Connection, seq: int) -> tuple[bytes, str | None] | None:
    """Return the stored bytes and signature headers (JSON) of an event; None if pruned, or never stored.

    Raises `CannotOpen`.
    """
    query = select(*SEALED).join_from(EVENT, PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id)
    row = connection.execute(query.where(EVENT.c.seq == seq)).first()
    return None if row is None else _opened(connection, row)


def readable_payload(connection: Connection, seq: int) -> bytes | None:
    """Return the stored bytes of an event; None if pruned, never stored, or if no key here opens them."""
    with suppress(CannotOpen):
        stored = payload(connection, seq)
        return None if stored is None else stored[0]
    return None


SEALED = (
    PAYLOAD.c.id, PAYLOAD.c.body, PAYLOAD.c.headers, PAYLOAD.c.sealed_by, EVENT.c.source_id, EVENT.c.key,
)  # fmt: skip
"""What is needed to open the payload of an event."""


def _opened(connection: Connection, row: Any) -> tuple[bytes, str | None]:
    stored = (row.body, row.headers, row.sealed_by)
    return sealed.open_payload(ring_of(connection), row.id, row.source_id, row.key, stored)


def opened_payloads(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[bytes, str | None]]:
    """Return {payload id: (body, kept headers as JSON)} of the payloads that are there, and that a key here opens."""
    found = {}
    query = select(*SEALED).join_from(PAYLOAD, EVENT, EVENT.c.payload_id == PAYLOAD.c.id)
    for row in connection.execute(query.where(PAYLOAD.c.id.in_(ids))):
        with suppress(CannotOpen):
            found[row.id] = _opened(connection, row)
    return found


def seqs_of(connection: Connection, keys: Sequence[str], source: str | None = None) -> dict[str, list[int]]:
    """Return {key: seqs} of the events of those keys; several sources may have one key. Unknown keys are left out."""
    found: dict[str, list[int]] = {}
    for at in range(0, len(keys), CHUNK):
        query = select(EVENT.c.key, EVENT.c.seq).join(SOURCE, SOURCE.c.id == EVENT.c.source_id)
        query = query.where(EVENT.c.key.in_(keys[at : at + CHUNK]))
        if source is not None:
            query = query.where(SOURCE.c.name == source)
        for key, seq in connection.execute(query.order_by(EVENT.c.seq)):
            found.setdefault(key, []).append(seq)
    return found


def seqs_in(connection: Connection, chosen: EventFilter, after_seq: int, limit: int) -> list[int]:
    """Return the seqs of the next `limit` chosen events, in order of record."""
    query = select(EVENT.c.seq).where(*chosen.where(), EVENT.c.seq > after_seq).order_by(EVENT.c.seq).limit(limit)
    return list(connection.execute(query).scalars())


def extent(connection: Connection, chosen: EventFilter) -> Extent:
    """Return the number and the times of the chosen events."""
    query = select(func.count(), func.min(EVENT.c.occurred_us), func.max(EVENT.c.occurred_us)).where(*chosen.where())
    count, first_us, last_us = connection.execute(query).one()
    return Extent(count=count, first_us=first_us, last_us=last_us)


def span(connection: Connection, chosen: EventFilter) -> Span | None:
    """Return the first and the last seq of the chosen events; None: there are none."""
    query = select(func.min(EVENT.c.seq), func.max(EVENT.c.seq)).where(*chosen.where())
    first, last = connection.execute(query).one()
    return None if first is None else Span(first=first, last=last)


def next_seqs(connection: Connection, chosen: EventFilter, after_seq: int, last_seq: int, limit: int) -> list[int]:
    """Return the next chosen events in order of record, up to `last_seq`; only rows between the two are looked at."""
    between = (EVENT.c.seq > after_seq, EVENT.c.seq <= last_seq)
    query = select(EVENT.c.seq).where(*between, *chosen.where(by_seq=True)).order_by(EVENT.c.seq).limit(limit)
    return list(connection.execute(query).scalars())


def newest_webhooks(connection: Connection, source_id: int, limit: int) -> list[tuple[bytes, str, int]]:
    """Return body, headers (JSON) and time of the source's last webhooks, as far as the newest events have them."""
    columns = (EVENT.c.seq, EVENT.c.source_id, EVENT.c.key, EVENT.c.payload_id, EVENT.c.via, EVENT.c.first_seen_us)
    newest = select(*columns).order_by(EVENT.c.seq.desc()).limit(NEWEST).subquery()
    stored = (PAYLOAD.c.id, PAYLOAD.c.body, PAYLOAD.c.headers, PAYLOAD.c.sealed_by)
    query = select(*stored, newest.c.source_id, newest.c.key, newest.c.first_seen_us)
    query = query.join_from(newest, PAYLOAD, PAYLOAD.c.id == newest.c.payload_id)
    has_headers = or_(PAYLOAD.c.headers.is_not(None), PAYLOAD.c.sealed_by.is_not(None))
    query = query.where(newest.c.source_id == source_id, newest.c.via != Via.LIST.value, has_headers)
    found = []
    for row in connection.execute(query.order_by(newest.c.seq.desc()).limit(limit)):
        with suppress(CannotOpen):
            body, headers = _opened(connection, row)
            if headers is not None:
                found.append((body, headers, row.first_seen_us))
    return found


def matches_types(patterns: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that an event has one of these types: exact ones, prefixes such as `invoice.*`, or `*`."""
    exact = [each for each in patterns if not each.endswith("*")]
    prefixes = [each[:-1] for each in patterns if each.endswith("*")]
    begins = (func.substr(EVENT.c.type, 1, len(each)) == each for each in prefixes)  # LIKE ignores case on SQLite
    return or_(EVENT.c.type.in_(exact), *begins)


def _select() -> Select[Any]:
    names = SOURCE.c.name.label("source"), STREAM.c.name.label("stream")
    livemode = SOURCE.c.livemode.label("source_livemode")
    joined = select(EVENT, *names, livemode).join_from(EVENT, SOURCE, SOURCE.c.id == EVENT.c.source_id)
    return joined.join(STREAM, STREAM.c.id == EVENT.c.stream_id)


def _event(row: RowMapping) -> Event:
    return Event(**{name: row[name] for name in Event.__dataclass_fields__})


def heard_streams(connection: Connection, source_id: int, since_us: int) -> set[int]:
    """Return the ids of the source's streams of which webhooks came since a time, as the newest events show it."""
    columns = (EVENT.c.stream_id, EVENT.c.source_id, EVENT.c.webhook_us)
    newest = select(*columns).order_by(EVENT.c.seq.desc()).limit(NEWEST).subquery()
    query = select(newest.c.stream_id).distinct()
    query = query.where(newest.c.source_id == source_id, newest.c.webhook_us >= since_us)
    return set(connection.execute(query).scalars())
