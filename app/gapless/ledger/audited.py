"""What the ledger has of a source for an audit: its facts, its recorded events with their deliveries, lost times."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select

from gapless.destinations.contract import FailureReason
from gapless.domain import Via
from gapless.ledger.events import CHUNK
from gapless.ledger.tables import DELIVERY, DESTINATION, EVENT, SOURCE, STREAM, UNRECOVERABLE
from gapless.ledger.worksheet import RecordedRow

PAGE = 2000
Place = tuple[int, int]
"""Time of occurrence and seq of an event: the cursor of `page`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostTime:
    """A time `[start_us, end_us)` of a stream of which nothing can be proven."""

    stream: str
    start_us: int
    end_us: int
    reason: str
    acknowledged_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedSource:
    """What an audit must know of a source. `account` None: it was never read."""

    id: int
    start_us: int
    account: str | None
    livemode: bool | None
    stream_ids: tuple[int, ...]


def facts(connection: Connection, name: str) -> AuditedSource | None:
    """Return what the ledger has of the source; None: it is not there."""
    columns = (SOURCE.c[each] for each in ("id", "start_us", "account", "livemode"))
    row = connection.execute(select(*columns).where(SOURCE.c.name == name)).mappings().one_or_none()
    if row is None:
        return None
    streams = connection.execute(select(STREAM.c.id).where(STREAM.c.source_id == row["id"]).order_by(STREAM.c.id))
    return AuditedSource(**row, stream_ids=tuple(streams.scalars()))


def lost_times(connection: Connection, source_id: int, start_us: int, end_us: int) -> list[LostTime]:
    """Return the unrecoverable times that touch `[start_us, end_us)`, acknowledged or not, in order."""
    columns = (UNRECOVERABLE.c[name] for name in ("start_us", "end_us", "reason", "acknowledged_by"))
    query = (
        select(*columns, STREAM.c.name.label("stream"))
        .join(STREAM, STREAM.c.id == UNRECOVERABLE.c.stream_id)
        .where(STREAM.c.source_id == source_id, UNRECOVERABLE.c.start_us < end_us, UNRECOVERABLE.c.end_us > start_us)
        .order_by(UNRECOVERABLE.c.start_us, UNRECOVERABLE.c.id)
    )
    return [LostTime(**row) for row in connection.execute(query).mappings()]


def page(
    connection: Connection, source: AuditedSource, stream_id: int, start_us: int, end_us: int, after: Place | None
) -> tuple[list[RecordedRow], Place | None]:
    """Return the next recorded events of a stream that occurred in the window, and the cursor after them; None: none.

    Those of the vendor's other mode are left out: no list of this source shows them.
    """
    where: list[ColumnElement[bool]] = [
        EVENT.c.stream_id == stream_id,
        EVENT.c.occurred_us >= (start_us if after is None else after[0]),
        EVENT.c.occurred_us < end_us,
    ]
    if after is not None:
        where.append(or_(EVENT.c.occurred_us > after[0], and_(EVENT.c.occurred_us == after[0], EVENT.c.seq > after[1])))
    query = _events(where).order_by(EVENT.c.occurred_us, EVENT.c.seq).limit(PAGE)
    rows = connection.execute(query).all()
    ours = [row for row in rows if source.livemode is None or row.livemode in (None, source.livemode)]
    return _with_deliveries(connection, ours), (rows[-1].occurred_us, rows[-1].seq) if rows else None


def by_keys(connection: Connection, source: AuditedSource, keys: Sequence[str]) -> list[RecordedRow]:
    """Return the recorded events of these keys, whenever they occurred."""
    found: list[RecordedRow] = []
    for at in range(0, len(keys), CHUNK):
        where = (EVENT.c.source_id == source.id, EVENT.c.key.in_(keys[at : at + CHUNK]))
        found += _with_deliveries(connection, connection.execute(_events(where)).all())
    return found


def _events(where: Collection[ColumnElement[bool]]):  # type: ignore[no-untyped-def] # noqa: ANN202
    names = ("seq", "key", "type", "occurred_us", "expected", "via", "missed_cause", "livemode")
    return select(*(EVENT.c[name] for name in names)).where(*where)


def _with_deliveries(connection: Connection, rows: Sequence[Row]) -> list[RecordedRow]:  # type: ignore[type-arg]
    """Return events with the destinations that have not got them, or have not confirmed what they got."""
    undelivered: dict[int, str] = {}
    unconfirmed: dict[int, str] = {}
    seqs = [row.seq for row in rows]
    for at in range(0, len(seqs), CHUNK):
        for seq, found in groupby(_open_deliveries(connection, seqs[at : at + CHUNK]), key=lambda row: row.event_seq):
            each = list(found)
            undelivered[seq] = ",".join(row.name for row in each if not _was_taken(row))
            unconfirmed[seq] = ",".join(row.name for row in each if _was_taken(row))
    return [
        RecordedRow(
            key=row.key,
            type=row.type,
            occurred_us=row.occurred_us,
            is_provable=row.expected or row.via == Via.LIST,
            was_missed=row.missed_cause is not None,
            undelivered=undelivered.get(row.seq, ""),
            unconfirmed=unconfirmed.get(row.seq, ""),
        )
        for row in rows
    ]


def _open_deliveries(connection: Connection, seqs: Sequence[int]) -> Sequence[Row]:  # type: ignore[type-arg]
    columns = (DELIVERY.c[name] for name in ("event_seq", "answered_us", "applied_us", "reason"))
    query = (
        select(*columns, DESTINATION.c.name)
        .join(DESTINATION, DESTINATION.c.id == DELIVERY.c.destination_id)
        .where(DELIVERY.c.event_seq.in_(seqs), DELIVERY.c.state != "delivered")
        .order_by(DELIVERY.c.event_seq, DESTINATION.c.name)
    )
    return connection.execute(query).all()


def _was_taken(row: Row) -> bool:  # type: ignore[type-arg]
    """Return True if the destination has answered 2xx, and only its receipt is not there."""
    return (row.answered_us is not None and row.applied_us is None) or row.reason == FailureReason.UNCONFIRMED
