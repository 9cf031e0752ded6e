"""Erases what is stored of events, and reads what must be looked through to find it. Identities and counts stay.

An event is never deleted, and only a new one gets a payload. So an erased one gets none again, whatever webhook, list
or fetch shows it.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Select, delete, func, or_, select, update

from gapless.destinations.contract import FailureReason
from gapless.ledger import ordering, sealed
from gapless.ledger.deliveries import OWING, DeliveryState
from gapless.ledger.events import CHUNK
from gapless.ledger.keyring import ring_of
from gapless.ledger.quarantine import PARTIAL
from gapless.ledger.tables import ATTEMPT, DELIVERY, DESTINATION, EVENT, MISSING, PAYLOAD, QUARANTINE
from gapless.sealing import CannotOpen

BATCH: Final = 100
"""Events erased in one transaction, because webhooks wait for it."""
LOOKED_AT: Final = 500
"""Rows that are read at once, and not more than have `LOOKED_AT_BYTES` together."""
LOOKED_AT_BYTES: Final = 8 << 20
EVENTS_LOOKED_AT: Final = 20_000
ERASED: Final = "erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Something that is stored: the number of its event or row, and what it is; None: it cannot be opened."""

    id: int
    body: bytes | None
    claims: tuple[str, ...] = ()
    """Of a refused webhook: the keys of the events that it claims to carry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was read at once, and where to go on; None: there is no more."""

    found: Sequence[Content]
    after: int | None


def of_keys(connection: Connection, keys: Sequence[str], source_id: int | None) -> dict[str, list[tuple[int, bool]]]:
    """Return {key: [(number, is erased)]} of the events of those keys; several sources may have one key."""
    found: dict[str, list[tuple[int, bool]]] = {}
    for at in range(0, len(keys), CHUNK):
        query = select(EVENT.c.key, EVENT.c.seq, EVENT.c.erased_us).where(EVENT.c.key.in_(keys[at : at + CHUNK]))
        for key, seq, erased_us in connection.execute(_of_source(query, EVENT.c.source_id, source_id)):
            found.setdefault(key, []).append((seq, erased_us is not None))
    return found


def of_object(
    connection: Connection, object_key: str, source_id: int | None, after: int
) -> tuple[list[int], int | None]:
    """Return the events of an object among the next ones that are not erased, and where to go on."""
    last = connection.execute(
        select(func.max(EVENT.c.seq)).where(EVENT.c.seq > after, EVENT.c.seq <= after + EVENTS_LOOKED_AT)
    ).scalar()
    if last is None:
        next_ = connection.execute(select(func.min(EVENT.c.seq)).where(EVENT.c.seq > after)).scalar()
        return [], None if next_ is None else next_ - 1
    chosen = (EVENT.c.seq > after, EVENT.c.seq <= last, EVENT.c.object_key == object_key, EVENT.c.erased_us.is_(None))
    query = _of_source(select(EVENT.c.seq).where(*chosen), EVENT.c.source_id, source_id)
    return list(connection.execute(query.order_by(EVENT.c.seq)).scalars()), last


def payloads(connection: Connection, source_id: int | None, after: int) -> Looked:
    """Return the next payloads, by the numbers of their events."""
    query = select(EVENT.c.seq, func.length(PAYLOAD.c.body)).join(PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id)
    query = _of_source(query.where(EVENT.c.seq > after), EVENT.c.source_id, source_id)
    seqs = _within(connection.execute(query.order_by(EVENT.c.seq).limit(LOOKED_AT)))
    columns = (EVENT.c.seq, EVENT.c.source_id, EVENT.c.key, PAYLOAD.c.id, PAYLOAD.c.body, PAYLOAD.c.headers)
    whole = select(*columns, PAYLOAD.c.sealed_by).join(PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id)
    rows, ring = connection.execute(whole.where(EVENT.c.seq.in_(seqs))), ring_of(connection)

    def opened(row: Any) -> bytes:
        stored = (row.body, row.headers, row.sealed_by)
        return sealed.open_payload(ring, row.id, row.source_id, row.key, stored)[0]

    found = [Content(id=row.seq, body=_or_none(opened, row)) for row in rows]
    return Looked(found=found, after=seqs[-1] if seqs else None)


def refused(connection: Connection, source_id: int | None, after: int) -> Looked:
    """Return the next refused webhooks whose content is still there."""
    is_whole = (QUARANTINE.c.purged_us.is_(None), QUARANTINE.c.reason.not_in(PARTIAL), QUARANTINE.c.id > after)
    query = _of_source(select(QUARANTINE.c.id, func.length(QUARANTINE.c.body)), QUARANTINE.c.source_id, source_id)
    ids = _within(connection.execute(query.where(*is_whole).order_by(QUARANTINE.c.id).limit(LOOKED_AT)))
    rows, ring = connection.execute(select(QUARANTINE).where(QUARANTINE.c.id.in_(ids))), ring_of(connection)
    found = [
        Content(
            id=row.id,
            body=_or_none(lambda row: sealed.open_refused(ring, row, row.sealed_by)[0], row),
            claims=tuple(msgspec.json.decode(row.claims, type=list[str])),
        )
        for row in rows
    ]
    return Looked(found=found, after=ids[-1] if ids else None)


def unreadable_rows(connection: Connection, source_id: int | None, after: int) -> Looked:
    """Return the next rows of lists that could not be read."""
    query = select(MISSING.c.id, func.length(MISSING.c.row)).where(MISSING.c.row.is_not(None), MISSING.c.id > after)
    query = _of_source(query, MISSING.c.source_id, source_id)
    ids = _within(connection.execute(query.order_by(MISSING.c.id).limit(LOOKED_AT)))
    rows, ring = connection.execute(select(MISSING).where(MISSING.c.id.in_(ids))), ring_of(connection)

    def opened(row: Any) -> bytes:
        return sealed.open_row(ring, row.source_id, row.key, row.row, row.sealed_by)

    return Looked(
        found=[Content(id=row.id, body=_or_none(opened, row)) for row in rows], after=ids[-1] if ids else None
    )


def _or_none(opened: Any, row: Any) -> bytes | None:
    try:
        body: bytes = opened(row)
    except CannotOpen:
        return None
    return body


def _of_source(query: Select[Any], column: Any, source_id: int | None) -> Select[Any]:
    return query if source_id is None else query.where(column == source_id)


def _within(rows: Any) -> list[int]:
    """Return the first of the ids whose content may be read at once."""
    ids, used = list[int](), 0
    for row_id, size in rows:
        used += size
        if ids and used > LOOKED_AT_BYTES:
            break
        ids.append(row_id)
    return ids


def erase_events(connection: Connection, seqs: Collection[int], now_us: int) -> dict[str, int]:
    """Erase the payloads of events, the whole bodies that they came in, and what attempts said of them.

    What is owed of them dies, and nothing waits for it in its order. Returns how much of each; all 0 if they were
    erased before. Pass at most `BATCH`.
    """
    every = DELIVERY.c.destination_id.in_(select(DESTINATION.c.id))  # by the primary key
    chosen = (OWING, every, DELIVERY.c.event_seq.in_(sorted(seqs)))
    lines = ordering.lines_of(connection, *chosen)
    ordering.lock(connection, lines)
    is_new = (EVENT.c.seq.in_(sorted(seqs)), EVENT.c.erased_us.is_(None))
    changed = update(EVENT).where(*is_new).values(erased_us=now_us).returning(EVENT.c.seq, EVENT.c.payload_id)
    rows = connection.execute(changed).all()
    erased, ids = [row.seq for row in rows], [row.payload_id for row in rows if row.payload_id is not None]
    wholes = select(PAYLOAD.c.envelope_id).where(PAYLOAD.c.id.in_(ids), PAYLOAD.c.envelope_id.is_not(None)).distinct()
    whole_ids = list(connection.execute(wholes).scalars())
    gone = connection.execute(delete(PAYLOAD).where(PAYLOAD.c.id.in_(ids))).rowcount
    whole = connection.execute(delete(PAYLOAD).where(PAYLOAD.c.id.in_(whole_ids))).rowcount
    said = (ATTEMPT.c.event_seq.in_(erased), or_(ATTEMPT.c.detail.is_not(None), ATTEMPT.c.answer.is_not(None)))
    attempts = connection.execute(update(ATTEMPT).where(*said).values(detail=None, answer=None)).rowcount
    owed = update(DELIVERY).where(OWING, every, DELIVERY.c.event_seq.in_(erased))
    dead = {"state": DeliveryState.DEAD.value, "reason": FailureReason.ERASED.value, "lease_us": 0, "done_us": now_us}
    deliveries = connection.execute(owed.values(**dead, order_key=None, unproven_id=None)).rowcount
    ordering.let_next(connection, lines)
    return {"events": len(erased), "payloads": gone + whole, "attempts": attempts, "deliveries": deliveries}


def erase_refused(connection: Connection, ids: Collection[int], now_us: int) -> int:
    """Erase the content of refused webhooks; what they claim to carry stays. Returns how many."""
    emptied = {"purged_us": now_us, "headers": "[]", "body": b"", "sealed_by": None, "detail": ERASED}
    chosen = (QUARANTINE.c.id.in_(sorted(ids)), QUARANTINE.c.purged_us.is_(None))
    return connection.execute(update(QUARANTINE).where(*chosen).values(**emptied)).rowcount


def erase_rows(connection: Connection, ids: Collection[int]) -> int:
    """Erase the content of rows that could not be read; that there were such rows stays. Returns how many."""
    emptied = {"row": None, "sealed_by": None, "last_error": ERASED}
    chosen = (MISSING.c.id.in_(sorted(ids)), MISSING.c.row.is_not(None))
    return connection.execute(update(MISSING).where(*chosen).values(**emptied)).rowcount


def batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield parts of `ids`, each small enough for one transaction."""
    yield from (ids[at : at + BATCH] for at in range(0, len(ids), BATCH))
