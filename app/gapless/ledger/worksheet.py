"""What an audit has gathered about each event, in a file that goes when the audit ends: the memory stays bounded.

The file holds keys, types, times and amounts, never payloads. Keys are sorted by their bytes.
"""

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

BATCH = 5000


class ListedRow(NamedTuple):
    """An event that the provider lists. `amount` is exact, as text; None: the event names none."""

    key: str
    type: str
    occurred_us: int
    amount: str | None
    currency: str | None
    unit: str | None


class RecordedRow(NamedTuple):
    """An event that the ledger has. `undelivered`, `unconfirmed`: names of destinations, with commas between."""

    key: str
    type: str
    occurred_us: int
    is_provable: bool
    was_missed: bool
    undelivered: str
    unconfirmed: str


class AuditedRow(NamedTuple):
    """All that is known about one event."""

    key: str
    type: str
    occurred_us: int
    is_listed: bool
    is_recorded: bool
    is_provable: bool
    was_missed: bool
    undelivered: str
    unconfirmed: str
    in_table: bool
    amount: str | None
    currency: str | None
    unit: str | None


SCHEMA = """
CREATE TABLE event (
    key TEXT PRIMARY KEY, type TEXT NOT NULL, occurred_us INTEGER NOT NULL,
    listed INTEGER NOT NULL DEFAULT 0, recorded INTEGER NOT NULL DEFAULT 0, provable INTEGER NOT NULL DEFAULT 1,
    missed INTEGER NOT NULL DEFAULT 0, undelivered TEXT NOT NULL DEFAULT '', unconfirmed TEXT NOT NULL DEFAULT '',
    amount TEXT, currency TEXT, unit TEXT
) WITHOUT ROWID;
CREATE TABLE own (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""
LIST = """
INSERT INTO event (key, type, occurred_us, amount, currency, unit, listed) VALUES (?, ?, ?, ?, ?, ?, 1)
ON CONFLICT (key) DO NOTHING
"""
RECORD = """
INSERT INTO event (key, type, occurred_us, provable, missed, undelivered, unconfirmed, recorded)
VALUES (?, ?, ?, ?, ?, ?, ?, 1)
ON CONFLICT (key) DO UPDATE SET recorded = 1, provable = excluded.provable, missed = excluded.missed,
    undelivered = excluded.undelivered, unconfirmed = excluded.unconfirmed
"""
ROWS = """
SELECT event.key, type, occurred_us, listed, recorded, provable, missed, undelivered, unconfirmed,
    own.key IS NOT NULL, amount, currency, unit
FROM event LEFT JOIN own ON own.key = event.key ORDER BY event.key
"""


class Worksheet:
    """The file of one audit."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add_listed(self, rows: Iterable[ListedRow]) -> int:
        """Add listed events, each once; return how many were new."""
        before = self._connection.total_changes
        self._connection.executemany(LIST, rows)
        return self._connection.total_changes - before

    def add_recorded(self, rows: Iterable[RecordedRow]) -> None:
        """Add recorded events to those that are listed."""
        self._connection.executemany(RECORD, rows)

    def add_own(self, keys: Iterable[str]) -> None:
        """Add the ids that the team has processed."""
        self._connection.executemany("INSERT OR IGNORE INTO own VALUES (?)", ((key,) for key in keys))

    def unrecorded(self) -> Iterator[list[str]]:
        """Yield the keys of listed events that are not recorded, in batches. Rows may be added meanwhile."""
        query = "SELECT key FROM event WHERE recorded = 0 AND key > ? ORDER BY key LIMIT ?"
        last = ""
        while keys := [key for (key,) in self._connection.execute(query, (last, BATCH))]:
            yield keys
            last = keys[-1]

    def rows(self) -> Iterator[AuditedRow]:
        """Yield every event, in the order of the keys' bytes."""
        for row in self._connection.execute(ROWS):
            key, kind, us, listed, recorded, provable, missed, undelivered, unconfirmed, own, *money = row
            flags = (bool(listed), bool(recorded), bool(provable), bool(missed))
            yield AuditedRow(key, kind, us, *flags, undelivered, unconfirmed, bool(own), *money)

    def count_strangers(self) -> int:
        """Return how many of the team's ids are neither listed nor recorded."""
        query = "SELECT count(*) FROM own WHERE NOT EXISTS (SELECT 1 FROM event WHERE event.key = own.key)"
        return int(self._connection.execute(query).fetchone()[0])


@contextmanager
def open_worksheet() -> Iterator[Worksheet]:
    """Make a worksheet that only this user can read, where the system keeps such files (`TMPDIR`)."""
    with tempfile.TemporaryDirectory(prefix="gapless-audit-") as folder:
        path = Path(folder, "worksheet.db")
        path.touch(mode=0o600)
        with closing(sqlite3.connect(os.fspath(path), isolation_level=None, check_same_thread=False)) as connection:
            connection.executescript(
                "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536; PRAGMA temp_store=FILE;"
            )
            connection.executescript(SCHEMA)
            connection.execute("BEGIN")
            yield Worksheet(connection)
