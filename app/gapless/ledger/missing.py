"""Events that a pass found but could not record at once. They are durable and retried on their own schedule."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, tuple_, update

from gapless.domain import Cause
from gapless.ledger.engine import dialect
from gapless.ledger.tables import MISSING
from gapless.ledger.tallies import Tallies

ANY_OPEN = "SELECT 1 FROM missing WHERE state = 'open' LIMIT 1"
CHUNK = 400
"""Keys in one statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """An event that exists at the provider and is not in the ledger."""

    source_id: int
    stream_id: int
    key: str
    type: str
    occurred_us: int
    found_us: int
    expected: bool
    cause: Cause
    reason: str
    ref: str | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A missing row that a recorded event has just closed. `redelivered`: we had requested its redelivery."""

    expected: bool
    redelivered: bool = False


def add(connection: Connection, slot: int, found: Sequence[Missing]) -> list[Missing]:
    """Insert the rows that do not exist yet, and count each as expected and missed, once. Returns the new ones."""
    tallies = Tallies()
    made = []
    for row in sorted(found, key=lambda each: (each.source_id, each.key)):
        values = {
            "source_id": row.source_id, "stream_id": row.stream_id, "key": row.key, "type": row.type,
            "occurred_us": row.occurred_us, "found_us": row.found_us, "expected": row.expected,
            "cause": row.cause.value, "reason": row.reason, "ref": row.ref,
            "next_attempt_us": row.found_us,
        }  # fmt: skip
        if dialect.insert_or_ignore(connection, MISSING, values):
            made.append(row)
            if row.expected:
                tallies.add(row.source_id, row.occurred_us, "expected", f"missed_{row.cause.value}")
    tallies.write(connection, slot)
    return made


def close(connection: Connection, identities: Iterable[tuple[int, str]]) -> dict[tuple[int, str], Closed]:
    """Close the open rows of events that were just recorded; return those by (source id, key)."""
    if not dialect.has_rows(connection, ANY_OPEN):
        return {}
    keys = sorted(identities)
    closed: dict[tuple[int, str], Closed] = {}
    for at in range(0, len(keys), CHUNK):
        statement = (
            update(MISSING)
            .where(MISSING.c.state == "open", tuple_(MISSING.c.source_id, MISSING.c.key).in_(keys[at : at + CHUNK]))
            .values(state="recovered")
            .returning(MISSING.c.source_id, MISSING.c.key, MISSING.c.expected, MISSING.c.asked_us)
        )
        for source_id, key, expected, asked_us in connection.execute(statement):
            closed[source_id, key] = Closed(expected=expected, redelivered=asked_us is not None)
    return closed


def due(connection: Connection, source_id: int, now_us: int, limit: int) -> list[Missing]:
    """Return the open rows whose next attempt is due, oldest first."""
    query = (
        select(MISSING)
        .where(MISSING.c.source_id == source_id, MISSING.c.state == "open", MISSING.c.next_attempt_us <= now_us)
        .order_by(MISSING.c.next_attempt_us)
        .limit(limit)
    )
    return [
        Missing(
            source_id=row.source_id,
            stream_id=row.stream_id,
            key=row.key,
            type=row.type,
            occurred_us=row.occurred_us,
            found_us=row.found_us,
            expected=row.expected,
            cause=Cause(row.cause),
            reason=row.reason,
            ref=row.ref,
            attempts=row.attempts,
        )
        for row in connection.execute(query)
    ]


def postpone(connection: Connection, row: Missing, now_us: int, wait_us: int, error: str) -> None:
    """Note a failed attempt, and wait before the next."""
    _change(connection, row, **_next_attempt(now_us, wait_us), last_error=error)


def note_redelivery_request(connection: Connection, row: Missing, now_us: int, wait_us: int) -> None:
    """Note that redelivery was requested, and wait before it is checked whether it arrived."""
    _change(connection, row, **_next_attempt(now_us, wait_us), asked_us=now_us)


def _next_attempt(now_us: int, wait_us: int) -> dict[str, object]:
    return {"attempts": MISSING.c.attempts + 1, "next_attempt_us": now_us + wait_us, "wait_us": wait_us}


def give_up(connection: Connection, row: Missing, error: str) -> None:
    """Mark the event as lost, because the provider no longer has it; it stays visible."""
    _change(connection, row, state="lost", last_error=error)


def acknowledge_lost(connection: Connection, source_id: int, now_us: int, until_us: int | None = None) -> int:
    """Note that a person looked into the lost events that occurred by `until_us`. Returns how many were new."""
    where = [MISSING.c.source_id == source_id, MISSING.c.state == "lost", MISSING.c.acknowledged_us.is_(None)]
    if until_us is not None:
        where.append(MISSING.c.occurred_us <= until_us)
    return connection.execute(update(MISSING).where(*where).values(acknowledged_us=now_us)).rowcount


def _change(connection: Connection, row: Missing, **values: object) -> None:
    where = (MISSING.c.source_id == row.source_id, MISSING.c.key == row.key, MISSING.c.state == "open")
    connection.execute(update(MISSING).where(*where).values(**values))
