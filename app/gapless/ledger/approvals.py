"""Operations that wait for a second person."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from gapless.ledger.tables import APPROVAL


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredApproval:
    """An operation that somebody asked for, as JSON, and who has approved it; None: nobody yet."""

    id: int
    asked_us: int
    asked_by: str
    principal: str
    operation: str
    args: str
    events: int
    approved_us: int | None
    approved_by: str | None


def add(
    connection: Connection, *, now_us: int, asked_by: str, principal: str, operation: str, args: str, events: int
) -> int:
    """Add an operation that waits; return its id."""
    values = {
        "asked_us": now_us,
        "asked_by": asked_by,
        "principal": principal,
        "operation": operation,
        "args": args,
        "events": events,
    }
    done = connection.execute(insert(APPROVAL).values(**values))
    return int((done.inserted_primary_key or (0,))[0])


def find(connection: Connection, approval_id: int) -> StoredApproval | None:
    """Return the operation with that id, also one that was approved."""
    row = connection.execute(select(APPROVAL).where(APPROVAL.c.id == approval_id)).mappings().first()
    return None if row is None else _stored(row)


def waiting(connection: Connection, since_us: int) -> list[StoredApproval]:
    """Return the operations that were asked for since then and that nobody has approved, the oldest first."""
    where = (APPROVAL.c.approved_us.is_(None), APPROVAL.c.asked_us >= since_us)
    found = connection.execute(select(APPROVAL).where(*where).order_by(APPROVAL.c.id)).mappings()
    return [_stored(row) for row in found]


def approve(connection: Connection, approval_id: int, *, now_us: int, by: str) -> bool:
    """Note who has approved the operation; return False if somebody has before."""
    where = (APPROVAL.c.id == approval_id, APPROVAL.c.approved_us.is_(None))
    done = connection.execute(update(APPROVAL).where(*where).values(approved_us=now_us, approved_by=by))
    return bool(done.rowcount)


def _stored(row: Any) -> StoredApproval:
    return StoredApproval(**{name: row[name] for name in StoredApproval.__slots__})
