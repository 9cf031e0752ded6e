"""Who did what, when. A row is written in the transaction of what it tells of."""

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from gapless.ledger.tables import AUDIT_LOG


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that somebody did. `detail` is JSON."""

    id: int
    at_us: int
    actor: str
    action: str
    subject: str
    detail: str | None


def add(
    connection: Connection, at_us: int, *, actor: str, action: str, subject: str, detail: str | None = None
) -> None:
    """Note that `actor` did `action` to `subject`."""
    values = {"at_us": at_us, "actor": actor, "action": action, "subject": subject, "detail": detail}
    connection.execute(insert(AUDIT_LOG).values(**values))


def latest(connection: Connection, limit: int = 100) -> list[Entry]:
    """The newest entries, newest first."""
    rows = connection.execute(select(AUDIT_LOG).order_by(AUDIT_LOG.c.id.desc()).limit(limit))
    return [Entry(**row) for row in rows.mappings()]
