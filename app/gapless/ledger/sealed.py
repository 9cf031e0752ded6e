"""Seals what is stored of payloads, refused webhooks and unreadable rows, and opens it again.

The keys of a process come with its connections (`ledger.keyring`). Headers are sealed together with their body, in its
column. A row says by `sealed_by` which key it needs; rows without one are in the
clear, and both kinds may lie side by side.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Table, func, select

from gapless.ledger.engine import StoreError, dialect
from gapless.ledger.keyring import ring_of
from gapless.ledger.tables import ENCRYPTION_KEY, MISSING, PAYLOAD, QUARANTINE
from gapless.sealing import CLEAR, OWNER, CannotOpen, Keyring, KeyState, compare, owner_of

TABLES: Final[Mapping[str, Table]] = {"payload": PAYLOAD, "quarantine": QUARANTINE, "missing": MISSING}
"""The tables with sealed rows, by name."""
NO_HEADERS: Final = (1 << 32) - 1


class Refused(Protocol):
    """What is needed of a refused webhook to seal or open it."""

    @property
    def source_id(self) -> int:
        """The id of its source."""
        ...

    @property
    def received_us(self) -> int:
        """When it came."""
        ...

    @property
    def reason(self) -> str:
        """Why it was refused."""
        ...

    @property
    def claims(self) -> str:
        """The keys that it claims to carry, as JSON."""
        ...

    @property
    def headers(self) -> str:
        """Its headers."""
        ...

    @property
    def body(self) -> bytes:
        """Its body, as stored or as it was."""
        ...


class CannotSeal(StoreError):
    """Nothing may be recorded, because it would be stored in the clear, or under a key that nobody has."""


def seal(ring: Keyring, value: bytes, owner: bytes, place: bytes) -> tuple[bytes, str | None]:
    """Return what is stored for `value`, and the id of its key; None: it is as it was. Raises `CannotSeal`."""
    if ring.state.blocked:
        raise CannotSeal(ring.state.blocked)
    key = ring.current
    return (value, None) if key is None else (key.seal(value, owner, place), key.id)


def payload_place(payload_id: int) -> bytes:
    """Return the place of a payload."""
    return b"payload\0%d" % payload_id


def refused_place(received_us: int, reason: str) -> bytes:
    """Return the place of a refused webhook."""
    return b"quarantine\0%d\0%b" % (received_us, reason.encode())


ROW_PLACE: Final = b"missing"
"""The place of an unreadable row: its owner, which has its key, tells rows apart."""


def packed(headers: str | None, body: bytes) -> bytes:
    """Return headers and body in one value."""
    if headers is None:
        return NO_HEADERS.to_bytes(4) + body
    encoded = headers.encode(errors="surrogatepass")
    return len(encoded).to_bytes(4) + encoded + body


def unpacked(value: bytes) -> tuple[bytes, str | None]:
    """Return body and headers."""
    length = int.from_bytes(value[:4])
    if length == NO_HEADERS:
        return value[4:], None
    return value[4 + length :], value[4 : 4 + length].decode(errors="surrogatepass")


ENVELOPE: Final = ""
"""Stands for the key of the event in the owner of a webhook's whole body: it belongs to several events."""


def seal_payload(
    ring: Keyring, payload_id: int, owner: tuple[int, str], body: bytes, headers: str | None
) -> tuple[bytes, str | None, str | None]:
    """Return the (body, headers, sealed by) that are stored; `owner` is (source id, event key). Raises `CannotSeal`."""
    if not ring.is_used:
        return body, headers, None
    stored, key_id = seal(ring, packed(headers, body), owner_of(*owner), payload_place(payload_id))
    return stored, None, key_id


def seal_refused(ring: Keyring, row: Refused) -> dict[str, object]:
    """Return the columns of a refused webhook that its content is stored in. Raises `CannotSeal`."""
    if not ring.is_used:
        return {"headers": row.headers, "body": row.body, "sealed_by": None}
    place, owner = refused_place(row.received_us, row.reason), owner_of(row.source_id, row.claims)
    stored, key_id = seal(ring, packed(row.headers, row.body), owner, place)
    return {"headers": "", "body": stored, "sealed_by": key_id}


def open_refused(ring: Keyring, row: Refused, sealed_by: str | None) -> tuple[bytes, str]:
    """Return body and headers of a refused webhook. Raises `CannotOpen`."""
    if sealed_by is None:
        return row.body, row.headers
    place, owner = refused_place(row.received_us, row.reason), owner_of(row.source_id, row.claims)
    body, headers = unpacked(ring.open(row.body, sealed_by, owner, place))
    return body, headers or ""


def seal_row(ring: Keyring, source_id: int, key: str, row: bytes) -> dict[str, object]:
    """Return the columns that an unreadable row is stored in. Raises `CannotSeal`."""
    stored, key_id = seal(ring, row, owner_of(source_id, key), ROW_PLACE)
    return {"row": stored, "sealed_by": key_id}


def open_row(ring: Keyring, source_id: int, key: str, stored: bytes, sealed_by: str | None) -> bytes:
    """Return an unreadable row as the list had it. Raises `CannotOpen`."""
    return ring.open(stored, sealed_by, owner_of(source_id, key), ROW_PLACE)


def open_payload(
    ring: Keyring, payload_id: int, source_id: int, key: str, stored: tuple[bytes, str | None, str | None]
) -> tuple[bytes, str | None]:
    """Return body and headers of an event's payload; `stored` is (body, headers, sealed by). Raises `CannotOpen`."""
    body, headers, sealed_by = stored
    if sealed_by is None:
        return body, headers
    return unpacked(ring.open(body, sealed_by, owner_of(source_id, key), payload_place(payload_id)))


def enter(connection: Connection, ring: Keyring, now_us: int) -> KeyState:
    """Make the keys known to the ledger, and note in `ring` how they fit it."""
    ring.state = state = look(connection, ring)
    for key_id, fingerprint in sorted(ring.fingerprints.items()):
        if key_id not in state.wrong:
            values = {"id": key_id, "fingerprint": fingerprint, "first_us": now_us}
            dialect.insert_or_ignore(connection, ENCRYPTION_KEY, values)
    return state


def look(connection: Connection, ring: Keyring) -> KeyState:
    """Return how the keys fit the ledger. Reads an index, one entry for each key that rows need."""
    return compare(ring, fingerprints(connection), needed(connection))


def look_with_own(connection: Connection) -> KeyState:
    """Return how the keys of this process fit the ledger."""
    return look(connection, ring_of(connection))


def fingerprints(connection: Connection) -> dict[str, str]:
    """Return {id: fingerprint} of the keys that the ledger knows."""
    return {row.id: row.fingerprint for row in connection.execute(select(ENCRYPTION_KEY))}


def needed(connection: Connection) -> set[str]:
    """Return the ids of the keys that rows need."""
    found: set[str] = set()
    for table in TABLES.values():
        last = ""
        while (key_id := _next_key(connection, table, last)) is not None:
            found.add(key_id)
            last = key_id
    return found


def _next_key(connection: Connection, table: Table, after: str) -> str | None:
    is_sealed = (table.c.sealed_by.is_not(None), table.c.sealed_by > after)
    query = select(table.c.sealed_by).where(*is_sealed).order_by(table.c.sealed_by).limit(1)
    return connection.execute(query).scalar()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """How many rows of each table need one key; `id` is `CLEAR` for those that need none."""

    id: str
    first_us: int | None
    """When a process first had it; None: none has it."""
    rows: Mapping[str, int]


def uses(connection: Connection) -> list[KeyUse]:
    """Return the keys that the ledger knows or needs, by id, each with its rows; those in the clear come last."""
    counts: dict[str, dict[str, int]] = {}
    for name, table in TABLES.items():
        query = select(table.c.sealed_by, func.count()).where(table.c.sealed_by.is_not(None))
        for key_id, count in connection.execute(query.group_by(table.c.sealed_by)):
            counts.setdefault(key_id, {})[name] = count
    first = {row.id: row.first_us for row in connection.execute(select(ENCRYPTION_KEY))}
    clear = {name: clear_rows(connection, name) for name in TABLES}
    known = sorted(counts.keys() | first.keys())
    found = [KeyUse(id=key_id, first_us=first.get(key_id), rows=_filled(counts.get(key_id, {}))) for key_id in known]
    return [*found, KeyUse(id=CLEAR, first_us=None, rows=clear)]


def _filled(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: counts.get(name, 0) for name in TABLES}


def clear_rows(connection: Connection, name: str) -> int:
    """Return the number of rows of a table that hold content which is not sealed."""
    table = TABLES[name]
    content = {
        "payload": (),
        "quarantine": (QUARANTINE.c.purged_us.is_(None),),
        "missing": (MISSING.c.row.is_not(None),),
    }
    query = select(func.count()).select_from(table).where(table.c.sealed_by.is_(None), *content[name])
    return connection.execute(query).scalar_one()


def first_broken(connection: Connection, key_ids: Iterable[str]) -> str | None:
    """Open the oldest row of each table and key; return what is wrong with the first that does not open, or None."""
    ring = ring_of(connection)
    for key_id in key_ids:
        for name, table in TABLES.items():
            columns = CONTENT[name]
            query = select(*columns).where(table.c.sealed_by == key_id, table.c.sealed_by.is_not(None))
            row = connection.execute(query.order_by(table.c.id).limit(1)).first()
            if row is None:
                continue
            try:
                ring.open(row.content, key_id, None, place_of(name, row))
            except CannotOpen as error:
                return f"row {row.id} of {name}: {error}"
    return None


def owner_in(value: bytes) -> bytes:
    """Return the owner that a sealed value names."""
    return value[OWNER]


CONTENT: Final = {
    "payload": (PAYLOAD.c.id, PAYLOAD.c.sealed_by, PAYLOAD.c.headers, PAYLOAD.c.body.label("content")),
    "quarantine": (
        QUARANTINE.c.id, QUARANTINE.c.sealed_by, QUARANTINE.c.headers, QUARANTINE.c.body.label("content"),
        QUARANTINE.c.received_us, QUARANTINE.c.reason, QUARANTINE.c.source_id, QUARANTINE.c.claims,
    ),
    "missing": (
        MISSING.c.id, MISSING.c.sealed_by, MISSING.c.row.label("content"), MISSING.c.source_id, MISSING.c.key,
    ),
}  # fmt: skip
"""What must be read of a row to seal it with another key."""


def place_of(name: str, row: Any) -> bytes:
    """Return the place of a row with the columns `CONTENT`."""
    if name == "payload":
        return payload_place(row.id)
    return ROW_PLACE if name == "missing" else refused_place(row.received_us, row.reason)
