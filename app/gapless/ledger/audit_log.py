"""The audit log: who did what, and when. Each row is written in the transaction of its action."""

from sqlalchemy import Connection, insert

from gapless.ledger.tables import AUDIT_LOG


def add(
    connection: Connection, at_us: int, *, actor: str, action: str, subject: str, detail: str | None = None
) -> None:
    """Note that `actor` did `action` to `subject`."""
    values = {"at_us": at_us, "actor": actor, "action": action, "subject": subject, "detail": detail}
    connection.execute(insert(AUDIT_LOG).values(**values))
