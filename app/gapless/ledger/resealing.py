"""Seals rows again with the current key, in small batches that may stop anywhere: each row says which key it needs.

What is in the clear is sealed, too; while `seals` is false, what is sealed is stored in the clear. Rows are locked
while they are read, so that none comes back that is purged or erased at the same moment.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BindParameter, ColumnElement, Connection, Row, bindparam, func, select, update

from gapless.ledger import sealed
from gapless.ledger.keyring import ring_of
from gapless.ledger.sealed import CONTENT, TABLES
from gapless.ledger.tables import EVENT, MISSING, PAYLOAD, QUARANTINE
from gapless.sealing import CLEAR, CannotOpen, Keyring, owner_of

BATCH: Final = 200
"""Rows in one transaction, because webhooks wait for it."""
LOOKED_AT: Final = 1000
"""Most rows that are looked at in one transaction, where an index does not lead to those that are to be changed."""
BATCH_BYTES: Final = 2 << 20
"""Bytes in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resealed:
    """What one batch did."""

    count: int
    broken: int = 0
    """Rows that did not open, and stay as they are."""
    after: int | None
    """Where the next batch begins; None: nothing is left."""


def keys_to_leave(connection: Connection) -> list[str]:
    """Return the ids of the keys whose rows are to be sealed anew, `CLEAR` among them if those in the clear are."""
    current = ring_of(connection).current
    others = sorted(sealed.needed(connection) - {current.id if current else ""})
    return others if current is None else [*others, CLEAR]


def reseal(connection: Connection, name: str, key_id: str, after: int = 0, limit: int = BATCH) -> Resealed:
    """Seal the next rows of a table anew that need this key, in the order of their ids.

    Of payloads in the clear, `after` is the number of an event, because only events know whose they are.
    Raises `CannotSeal`.
    """
    if name == "payload" and key_id == CLEAR:
        return _seal_clear_payloads(connection, after, limit)
    table = TABLES[name]
    size = func.coalesce(func.length(table.c["row" if name == "missing" else "body"]), 0)
    if key_id == CLEAR:
        has_content = QUARANTINE.c.purged_us.is_(None) if name == "quarantine" else MISSING.c.row.is_not(None)
        chosen: tuple[ColumnElement[bool], ...] = (table.c.sealed_by.is_(None), has_content)
    else:
        chosen = (table.c.sealed_by == key_id, table.c.sealed_by.is_not(None))
    query = select(table.c.id, size).where(*chosen, table.c.id > after).order_by(table.c.id).limit(limit)
    found = [(row_id, length) for row_id, length in connection.execute(query)]
    ids = _within(found)
    if not ids:
        return Resealed(count=0, after=None)
    rows = connection.execute(select(*CONTENT[name]).where(table.c.id.in_(ids), *chosen).with_for_update()).all()
    values, broken = _anew(ring_of(connection), name, rows)
    _write(connection, name, values)
    return Resealed(count=len(values), broken=broken, after=ids[-1])


def _within(rows: Iterable[tuple[int, int]]) -> list[int]:
    """Return the first ids whose rows have at most `BATCH_BYTES` together, and at least one."""
    ids, used = list[int](), 0
    for row_id, size in rows:
        used += size
        if ids and used > BATCH_BYTES:
            break
        ids.append(row_id)
    return ids


def _anew(ring: Keyring, name: str, rows: Iterable[Row[Any]]) -> tuple[list[dict[str, object]], int]:
    """Return the new columns of the rows, and how many did not open."""
    values, broken = list[dict[str, object]](), 0
    for row in rows:
        place = sealed.place_of(name, row)
        try:
            content = ring.open(row.content, row.sealed_by, None, place)
        except CannotOpen:
            broken += 1
            continue
        if row.sealed_by is None and name != "missing":
            content = sealed.packed(row.headers, content)
        owner = _owner(name, row) if row.sealed_by is None else sealed.owner_in(row.content)
        values.append({"of_id": row.id, **_stored(ring, name, content, owner, place)})
    return values, broken


def _owner(name: str, row: Row[Any]) -> bytes:
    return owner_of(row.source_id, row.claims if name == "quarantine" else row.key)


def _stored(ring: Keyring, name: str, content: bytes, owner: bytes, place: bytes) -> dict[str, object]:
    """Return the new columns of a row whose content, with its headers packed, is `content`."""
    stored, key_id = sealed.seal(ring, content, owner, place)
    if name == "missing":
        return {"new_content": stored, "new_key": key_id}
    body, headers = sealed.unpacked(content)
    if key_id is None:
        stored, kept = body, headers
    else:
        kept = None if name == "payload" else ""
    size = {"new_size": len(body) if key_id else None} if name == "payload" else {}
    return {"new_content": stored, "new_headers": kept, "new_key": key_id, **size}


def _write(connection: Connection, name: str, values: list[dict[str, object]]) -> None:
    if not values:
        return
    table = TABLES[name]
    columns: dict[str, BindParameter[object]] = {
        "sealed_by": bindparam("new_key"),
        ("row" if name == "missing" else "body"): bindparam("new_content"),
    }
    if name != "missing":
        columns["headers"] = bindparam("new_headers")
    if name == "payload":
        columns["size"] = bindparam("new_size")
    connection.execute(update(table).where(table.c.id == bindparam("of_id")).values(**columns), values)


def _seal_clear_payloads(connection: Connection, after: int, limit: int) -> Resealed:
    """Seal the payloads of the next events, and the bodies of the webhooks that they are parts of."""
    envelope = PAYLOAD.alias("envelope")
    size = func.coalesce(func.length(PAYLOAD.c.body), 0) + func.coalesce(func.length(envelope.c.body), 0)
    columns = (
        EVENT.c.seq,
        EVENT.c.source_id,
        EVENT.c.key,
        PAYLOAD.c.id,
        PAYLOAD.c.sealed_by,
        PAYLOAD.c.envelope_id,
        size,
    )
    looked_at = select(EVENT.c.seq).where(EVENT.c.seq > after).order_by(EVENT.c.seq).limit(LOOKED_AT)
    seqs = list(connection.execute(looked_at).scalars())
    if not seqs:
        return Resealed(count=0, after=None)
    query = (
        select(*columns)
        .join_from(EVENT, PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id)
        .outerjoin(envelope, envelope.c.id == PAYLOAD.c.envelope_id)
        .where(EVENT.c.seq > after, EVENT.c.seq <= seqs[-1], PAYLOAD.c.sealed_by.is_(None))
        .order_by(EVENT.c.seq)
        .limit(limit)
    )
    found = connection.execute(query).all()
    chosen = set(_within((row[0], row[-1]) for row in found))
    owners: dict[int, bytes] = {}
    for seq, source_id, key, payload_id, _, envelope_id, _ in found:
        if seq in chosen:
            owners[payload_id] = owner_of(source_id, key)
            if envelope_id is not None:
                owners.setdefault(envelope_id, owner_of(source_id, sealed.ENVELOPE))
    ring, is_clear = ring_of(connection), PAYLOAD.c.sealed_by.is_(None)
    rows = connection.execute(
        select(*CONTENT["payload"]).where(PAYLOAD.c.id.in_(owners), is_clear).order_by(PAYLOAD.c.id).with_for_update()
    )
    values = [
        {
            "of_id": row.id,
            **_stored(
                ring,
                "payload",
                sealed.packed(row.headers, row.content),
                owners[row.id],
                sealed.place_of("payload", row),
            ),
        }
        for row in rows
    ]
    _write(connection, "payload", values)
    is_whole = len(chosen) == len(found) < limit
    return Resealed(count=len(values), after=seqs[-1] if is_whole else max(chosen))
