"""Rows of a provider's list that cannot be read: kept as open missing rows until the list shows them otherwise.

The key of such a row is made of the SHA-256 of its bytes, so a row that is shown again is the same one, and a row that
was dismissed stays dismissed. Its time is not known: it lies in `[occurred_us, until_us)`. It is never expected and
never counts as missed, because nobody knows its type, and its webhook may have been recorded long ago.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, literal_column, select, update

from gapless.ledger import sealed
from gapless.ledger.engine import dialect
from gapless.ledger.keyring import ring_of
from gapless.ledger.tables import MISSING, UNRECOVERABLE

REASON = "unreadable"
IS_ODD: ColumnElement[bool] = literal_column("missing.reason = 'unreadable'")
"""The condition of an unreadable row, spelt as its index has it, so that SQLite uses the index."""
DISMISSED_REASON = "unreadable_dismissed"
"""The reason of the unrecoverable interval of a dismissed row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OddRow:
    """An unreadable row that a list shows now. It occurred in `[occurred_us, until_us)`."""

    source_id: int
    stream_id: int
    key: str
    row: bytes
    problem: str
    occurred_us: int
    until_us: int


def key_of(digest: str) -> str:
    """Return the key of the row with this SHA-256."""
    return f"{REASON}:{digest}"


def states(connection: Connection, source_id: int, keys: Collection[str]) -> Mapping[str, str]:
    """Return the states of those of `keys` that are known: open, resolved or dismissed."""
    query = select(MISSING.c.key, MISSING.c.state).where(MISSING.c.source_id == source_id, MISSING.c.key.in_(keys))
    return {row.key: row.state for row in connection.execute(query)}


def set_aside(connection: Connection, rows: Sequence[OddRow], now_us: int) -> None:
    """Keep the rows that are new, open those again that were resolved, and note that the list shows them all."""
    ring = ring_of(connection)
    for row in sorted(rows, key=lambda each: (each.source_id, each.key)):
        values = {
            "source_id": row.source_id, "stream_id": row.stream_id, "key": row.key, "type": REASON,
            "occurred_us": row.occurred_us, "until_us": row.until_us, "found_us": now_us, "seen_us": now_us,
            "expected": False, "reason": REASON, "last_error": row.problem, "next_attempt_us": now_us,
            **sealed.seal_row(ring, row.source_id, row.key, row.row),
        }  # fmt: skip
        if dialect.insert_or_ignore(connection, MISSING, values):
            continue
        mine = (MISSING.c.source_id == row.source_id, MISSING.c.key == row.key)
        seen = {"seen_us": now_us, "attempts": MISSING.c.attempts + 1, "last_error": row.problem}
        connection.execute(update(MISSING).where(*mine).values(**seen))
        connection.execute(update(MISSING).where(*mine, MISSING.c.state == "resolved").values(state="open"))


def count_open(connection: Connection, stream_id: int) -> int:
    """Return the number of rows of the stream that are set aside and open."""
    mine = (MISSING.c.stream_id == stream_id, MISSING.c.state == "open", IS_ODD)
    return int(connection.execute(select(func.count()).select_from(MISSING).where(*mine)).scalar_one())


def count_shown(connection: Connection, stream_id: int, *, start_us: int, end_us: int, since_us: int) -> int:
    """Return the number of rows, dismissed ones too, that may lie in `[start_us, end_us)` and were shown since then."""
    mine = (MISSING.c.stream_id == stream_id, IS_ODD, MISSING.c.seen_us >= since_us)
    within = (MISSING.c.occurred_us < end_us, MISSING.c.until_us > start_us)
    return int(connection.execute(select(func.count()).select_from(MISSING).where(*mine, *within)).scalar_one())


def resolve(connection: Connection, stream_id: int, *, start_us: int, end_us: int, since_us: int) -> int:
    """Close the open rows in `[start_us, end_us)` that a complete listing, begun at `since_us`, did not show.

    The list has them in another form now: they were recorded, or there was nothing to record. Returns their number.
    """
    mine = (MISSING.c.stream_id == stream_id, MISSING.c.state == "open", IS_ODD)
    covered = (MISSING.c.occurred_us >= start_us, MISSING.c.until_us <= end_us, MISSING.c.seen_us < since_us)
    return connection.execute(update(MISSING).where(*mine, *covered).values(state="resolved")).rowcount


def dismiss(
    connection: Connection, source_id: int, keys: Collection[str], *, by: str, reason: str, now_us: int
) -> list[str]:
    """Dismiss the open rows of `keys`, and write their times down as unrecoverable, acknowledged by the same person.

    Returns the keys of those that were open.
    """
    mine = (MISSING.c.source_id == source_id, MISSING.c.key.in_(keys))
    is_open = (MISSING.c.state == "open", IS_ODD)
    changed = update(MISSING).where(*mine, *is_open).values(state="dismissed", acknowledged_us=now_us)
    times = (MISSING.c.key, MISSING.c.stream_id, MISSING.c.occurred_us, MISSING.c.until_us)
    dismissed = sorted(connection.execute(changed.returning(*times)).all())
    for _, stream_id, start_us, until_us in dismissed:
        interval = {
            "stream_id": stream_id, "start_us": start_us, "end_us": until_us, "reason": DISMISSED_REASON,
            "recorded_us": now_us, "acknowledged_us": now_us, "acknowledged_by": by, "acknowledged_reason": reason,
        }  # fmt: skip
        dialect.insert_or_ignore(connection, UNRECOVERABLE, interval)
    return [row.key for row in dismissed]
