"""Which rows an operation means, found from what a person can name: destinations, keys, times, passes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from gapless.domain import Via
from gapless.ledger.tables import DELIVERY, DESTINATION, EVENT, PASS, SLICE, SOURCE, STREAM

CHUNK = 500
"""Keys in one statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A destination's row, as far as an operation needs it."""

    id: int
    name: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Events that occurred in `[start_us, end_us)`, of one source or of all."""

    source: str | None
    start_us: int
    end_us: int

    def where(self) -> list[ColumnElement[bool]]:
        """The conditions on `event`."""
        clauses: list[ColumnElement[bool]] = [EVENT.c.occurred_us >= self.start_us, EVENT.c.occurred_us < self.end_us]
        streams = select(STREAM.c.id)
        if self.source is not None:
            streams = streams.join(SOURCE, SOURCE.c.id == STREAM.c.source_id).where(SOURCE.c.name == self.source)
        return [*clauses, EVENT.c.stream_id.in_(streams)]  # the index of events by time is per stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How many events are meant, and when the first and the last of them occurred, in microseconds."""

    count: int
    first_us: int | None
    last_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """An event that a destination was never owed."""

    seq: int
    key: str
    type: str
    occurred_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a pass has come, and what keeps its stream from being read, if anything does."""

    id: int
    source: str
    stream: str
    kind: str
    start_us: int
    end_us: int
    state: str
    outcome: str | None
    listed: int
    found: int
    missed: int
    slices: int
    slices_done: int
    stream_outcome: str | None
    parked_reason: str | None


def destination(connection: Connection, name: str) -> Destination | None:
    """The destination of that name, or None."""
    columns = (DESTINATION.c.id, DESTINATION.c.name, DESTINATION.c.state)
    row = connection.execute(select(*columns).where(DESTINATION.c.name == name)).mappings().first()
    return None if row is None else Destination(**row)


def seqs_of(connection: Connection, keys: Sequence[str], source: str | None = None) -> dict[str, list[int]]:
    """{key: seqs} of the events of those keys; several sources may have one key. Unknown keys are left out."""
    found: dict[str, list[int]] = {}
    for at in range(0, len(keys), CHUNK):
        query = select(EVENT.c.key, EVENT.c.seq).join(SOURCE, SOURCE.c.id == EVENT.c.source_id)
        query = query.where(EVENT.c.key.in_(keys[at : at + CHUNK]))
        if source is not None:
            query = query.where(SOURCE.c.name == source)
        for key, seq in connection.execute(query.order_by(EVENT.c.seq)):
            found.setdefault(key, []).append(seq)
    return found


def seqs_in(connection: Connection, chosen: Chosen, after_seq: int, limit: int) -> list[int]:
    """The next `limit` events that are meant, in order of record."""
    query = select(EVENT.c.seq).where(*chosen.where(), EVENT.c.seq > after_seq).order_by(EVENT.c.seq).limit(limit)
    return list(connection.execute(query).scalars())


def extent(connection: Connection, chosen: Chosen) -> Extent:
    """How much `chosen` means."""
    query = select(func.count(), func.min(EVENT.c.occurred_us), func.max(EVENT.c.occurred_us)).where(*chosen.where())
    count, first_us, last_us = connection.execute(query).one()
    return Extent(count=count, first_us=first_us, last_us=last_us)


def undelivered(
    connection: Connection, chosen: Chosen, destination_id: int, after_seq: int, limit: int
) -> list[Undelivered]:
    """The next `limit` meant events, in order of record, that a list showed first.

    Only those that this destination was never owed.
    """
    owed = select(DELIVERY.c.event_seq).where(
        DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq == EVENT.c.seq
    )
    query = select(EVENT.c.seq, EVENT.c.key, EVENT.c.type, EVENT.c.occurred_us)
    query = query.where(*chosen.where(), EVENT.c.via == Via.LIST.value, EVENT.c.seq > after_seq, ~owed.exists())
    rows = connection.execute(query.order_by(EVENT.c.seq).limit(limit)).mappings()
    return [Undelivered(**row) for row in rows]


def progress(connection: Connection, pass_ids: Sequence[int]) -> list[Progress]:
    """How far these passes have come, in order of id. Unknown ids are left out."""
    done = func.count().filter(SLICE.c.state == "done")
    slices = select(SLICE.c.pass_id, func.count().label("all"), done.label("done"))
    parts = slices.where(SLICE.c.pass_id.in_(pass_ids)).group_by(SLICE.c.pass_id).subquery()
    query = (
        select(
            PASS.c.id, SOURCE.c.name.label("source"), STREAM.c.name.label("stream"), PASS.c.kind, PASS.c.start_us,
            PASS.c.end_us, PASS.c.state, PASS.c.outcome, PASS.c.listed, PASS.c.found, PASS.c.missed,
            func.coalesce(parts.c.all, 0).label("slices"), func.coalesce(parts.c.done, 0).label("slices_done"),
            STREAM.c.last_outcome.label("stream_outcome"), STREAM.c.parked_reason,
        )
        .join_from(PASS, STREAM, STREAM.c.id == PASS.c.stream_id)
        .join(SOURCE, SOURCE.c.id == PASS.c.source_id)
        .outerjoin(parts, parts.c.pass_id == PASS.c.id)
        .where(PASS.c.id.in_(pass_ids))
        .order_by(PASS.c.id)
    )  # fmt: skip
    return [Progress(**row) for row in connection.execute(query).mappings()]


def sources(connection: Connection) -> list[dict[str, Any]]:
    """Every source with its provider, mode, state and start, by name."""
    columns = (SOURCE.c[name] for name in ("name", "provider", "mode", "state", "start_us"))
    return [dict(row) for row in connection.execute(select(*columns).order_by(SOURCE.c.name)).mappings()]
