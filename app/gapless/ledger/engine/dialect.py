"""The statements whose text differs between the databases. All others are in the module of their noun."""

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import BigInteger, Boolean, Connection, LargeBinary, Table
from sqlalchemy.dialects import postgresql, sqlite

Row: TypeAlias = tuple[Any, ...]
AT_ONCE = (64, 8, 1)
"""Rows in one statement on SQLite, the largest that fit first."""
FEW = 64
"""Rows in one statement that are looked up by their keys: of more, PostgreSQL would rather read the whole table."""


def insert_new(
    connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[Row], unique: Sequence[str]
) -> dict[Row, int]:
    """Insert the rows whose `unique` values do not exist yet; return {unique values: identity} of those inserted.

    `unique` are leading columns of `columns`. One statement a batch on PostgreSQL, one prepared
    statement stepped through on SQLite: this is the hot path, so it stays below SQLAlchemy's constructs.
    """
    if not rows:
        return {}
    tail = f"ON CONFLICT ({', '.join(unique)}) DO NOTHING"
    if connection.dialect.name == "postgresql":
        identity = next(iter(table.primary_key.columns)).name
        tail = f"{tail} RETURNING {identity}, {', '.join(unique)}"
        found = _postgres(connection, _insert_arrays(table, tuple(columns), tail), *_arrays(rows))
        return {tuple(row[1:]): row[0] for row in found}
    cursor, statement, width = _sqlite_cursor(connection), _insert_values(table, tuple(columns), tail), len(unique)
    inserted = {}
    for row in rows:
        cursor.execute(statement, row)
        if cursor.rowcount == 1:
            inserted[row[:width]] = cursor.lastrowid or 0
    return inserted


def insert_many(connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Insert rows, none of which may exist yet.

    On SQLite many rows are one statement: each statement that fires triggers saves the pages that it changes.
    """
    if connection.dialect.name == "postgresql" or not rows:
        _insert(connection, table, tuple(columns), rows, "")
        return
    cursor, at = _sqlite_cursor(connection), 0
    for size in AT_ONCE:
        count = (len(rows) - at) // size * size
        parts = [[each for row in rows[first : first + size] for each in row] for first in range(at, at + count, size)]
        if parts:
            cursor.executemany(_insert_values(table, tuple(columns), "", size), parts)
        at += count


def add_up(connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Insert each row, or add its columns to those of the row with the same primary key."""
    _insert(connection, table, tuple(columns), rows, _adding(table, tuple(columns)))


def add_up_and_return(
    connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[Row]
) -> list[tuple[Any, ...]]:
    """Insert each row, or add its columns to those of the row with the same primary key; return the rows as they are.

    No two rows may have one primary key.
    """
    if not rows:
        return []
    tail = f"{_adding(table, tuple(columns))} RETURNING {', '.join(columns)}"
    if connection.dialect.name == "postgresql":
        return [
            tuple(row) for row in _postgres(connection, _insert_arrays(table, tuple(columns), tail), *_arrays(rows))
        ]
    cursor, statement = _sqlite_cursor(connection), _insert_values(table, tuple(columns), tail)
    return [found for row in rows for found in cursor.execute(statement, row).fetchall()]


class Bundle:
    """Statements of one transaction whose results nobody needs. PostgreSQL gets them as one, at `send`.

    Each round trip costs the writer more than a row does. SQLite runs them at once.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._parts: list[tuple[Table, tuple[str, ...], str]] = []
        self._arrays: list[Sequence[Any]] = []
        self._channel = ""

    def insert_many(self, table: Table, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """As the function of that name."""
        if self._connection.dialect.name == "postgresql":
            self._add(table, tuple(columns), rows, "")
        else:
            insert_many(self._connection, table, columns, rows)

    def add_up(self, table: Table, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """As the function of that name."""
        self._add(table, tuple(columns), rows, _adding(table, tuple(columns)))

    def notify(self, channel: str) -> None:
        """As the function of that name; the last channel counts."""
        self._channel = channel

    def _add(self, table: Table, columns: tuple[str, ...], rows: Sequence[Row], tail: str) -> None:
        if self._connection.dialect.name != "postgresql":
            _insert(self._connection, table, columns, rows, tail)
        elif rows:
            self._parts.append((table, columns, tail))
            self._arrays += _arrays(rows)

    def send(self) -> None:
        """Run what was gathered."""
        if self._parts:
            _postgres(self._connection, _together(tuple(self._parts), self._channel), *self._arrays)


def _insert(connection: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[Row], tail: str) -> None:
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        _postgres(connection, _insert_arrays(table, columns, tail), *_arrays(rows))
    else:
        _sqlite_cursor(connection).executemany(_insert_values(table, columns, tail), rows)


def _sqlite_cursor(connection: Connection) -> sqlite3.Cursor:
    driver: Any = connection.connection.driver_connection
    cursor: sqlite3.Cursor = driver.cursor()
    return cursor


def _postgres(connection: Connection, statement: str, *values: object) -> list[Sequence[Any]]:
    """Run `statement` straight on asyncpg, within the writer's transaction: a fraction of SQLAlchemy's cost a call."""
    driver: Any = connection.connection.dbapi_connection
    rows: list[Sequence[Any]] = driver.run_async(lambda asyncpg: asyncpg.fetch(statement, *values))
    return rows


def _arrays(rows: Sequence[Row]) -> Iterable[Sequence[Any]]:
    return zip(*rows, strict=True)


@cache
def _insert_values(table: Table, columns: tuple[str, ...], tail: str, count: int = 1) -> str:
    values = ", ".join([f"({', '.join('?' * len(columns))})"] * count)
    return f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES {values} {tail}"


@cache
def _insert_arrays(table: Table, columns: tuple[str, ...], tail: str, first: int = 1) -> str:
    arrays = ", ".join(f"${n}::{_array_type(table, name)}" for n, name in enumerate(columns, first))
    return f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT * FROM unnest({arrays}) {tail}"


@cache
def _together(parts: tuple[tuple[Table, tuple[str, ...], str], ...], channel: str) -> str:
    inserts, first = [], 1
    for table, columns, tail in parts:
        inserts.append(f"to_{table.name} AS ({_insert_arrays(table, columns, tail, first)})")
        first += len(columns)
    last = f"SELECT pg_notify('{channel}', '')" if channel else "SELECT 1"
    return f"WITH {', '.join(inserts)} {last}"


@cache
def _adding(table: Table, columns: tuple[str, ...]) -> str:
    keys = [column.name for column in table.primary_key.columns]
    sums = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in columns if name not in keys)
    return f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {sums}"


def _array_type(table: Table, column: str) -> str:
    kind = table.c[column].type
    if isinstance(kind, BigInteger) or kind.python_type is int:
        return "bigint[]"
    if isinstance(kind, Boolean):
        return "boolean[]"
    return "bytea[]" if isinstance(kind, LargeBinary) else "text[]"


NOTE_WEBHOOKS_SQLITE = (
    "UPDATE event SET webhook_count = webhook_count + ?3, webhook_us = coalesce(webhook_us, ?4) "
    "WHERE source_id = ?1 AND key = ?2 RETURNING seq, source_id, occurred_us, missed_cause, webhook_count, ?3"
)
NOTE_WEBHOOKS_POSTGRES = (
    "UPDATE event SET webhook_count = webhook_count + n, webhook_us = coalesce(webhook_us, at) "
    "FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[]) AS seen (s, k, n, at) "
    "WHERE source_id = s AND key = k RETURNING seq, source_id, occurred_us, missed_cause, webhook_count, n"
)


def note_webhooks(
    connection: Connection, rows: Sequence[tuple[int, str, int, int]]
) -> list[tuple[int, int, int, str | None, int, int]]:
    """Count webhooks of known events: (source id, key, times, at) of each.

    Returns (seq, source id, occurred, missed cause, webhooks in all, `times`) of each.
    """
    if not rows:
        return []
    if connection.dialect.name == "postgresql":
        return [tuple(row) for row in _postgres(connection, NOTE_WEBHOOKS_POSTGRES, *_arrays(rows))]
    cursor = _sqlite_cursor(connection)
    return [found for row in rows for found in cursor.execute(NOTE_WEBHOOKS_SQLITE, row).fetchall()]


SETTLE_POSTGRES = (
    "UPDATE delivery SET state = s, attempts = a + t, attempts_kept = attempts_kept + t, next_us = n, wait_us = w, "
    "lease_us = 0, done_us = o, reason = coalesce(r, reason), first_us = coalesce(first_us, f), "
    "answered_us = coalesce(answered_us, g), answers = answers + h, applied_us = coalesce(i, applied_us) "
    "FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], "
    "$8::bigint[], $9::bigint[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[]) "
    "AS settled (d, q, l, a, s, t, n, w, o, r, f, g, h, i) "
    "WHERE destination_id = d AND event_seq = q AND lease_us = l AND attempts = a AND state = $15"
)
SETTLE_SQLITE = (
    "UPDATE delivery SET state = ?5, attempts = ?4 + ?6, attempts_kept = attempts_kept + ?6, next_us = ?7, "
    "wait_us = ?8, lease_us = 0, done_us = ?9, reason = coalesce(?10, reason), first_us = coalesce(first_us, ?11), "
    "answered_us = coalesce(answered_us, ?12), answers = answers + ?13, applied_us = coalesce(?14, applied_us) "
    "WHERE destination_id = ?1 AND event_seq = ?2 AND lease_us = ?3 AND attempts = ?4 AND state = ?15"
)


def settle(connection: Connection, rows: Sequence[Row], pending: str) -> None:
    """Settle claimed deliveries that are still `pending` under the lease and the attempts of their claim.

    (destination id, event seq, lease, attempts, new state, attempts more, due, wait, done, reason or None, time of the
    attempt or None, time of a 2xx that needs a receipt or None, such answers without one more, time of the receipt or
    None) of each.
    """
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        for at in range(0, len(rows), FEW):
            _postgres(connection, SETTLE_POSTGRES, *_arrays(rows[at : at + FEW]), pending)
    else:
        _sqlite_cursor(connection).executemany(SETTLE_SQLITE, [(*row, pending) for row in rows])


Known: TypeAlias = dict[str, tuple[int, bool]]
"""{key: (seq, is a witness)} of events that the ledger has."""
WITNESS = "(webhook_us IS NOT NULL AND webhook_us < {0} AND expected)"
NEARBY_POSTGRES = (
    f"SELECT key, seq, {WITNESS.format('$1')} FROM event "
    "WHERE stream_id = $2 AND occurred_us BETWEEN $3 AND $4 LIMIT $5"
)
NEARBY_SQLITE = re.sub(r"\$\d", "?", NEARBY_POSTGRES)
BY_KEY_POSTGRES = f"SELECT key, seq, {WITNESS.format('$1')} FROM event WHERE source_id = $2 AND key = ANY($3::text[])"
NEARBY_FACTOR = 4
"""Most neighbours that are read around a page, as a multiple of its length, before its events are read by key."""


def look_up(
    connection: Connection,
    source_id: int,
    stream_id: int,
    keys: Sequence[str],
    span_us: tuple[int, int],
    before_us: int,
) -> Known:
    """Return those of a page's `keys` that the ledger has, and perhaps their neighbours.

    A witness came by webhook before `before_us`. The events of a page occurred together, between the two times of
    `span_us`, and so are neighbours in an index: one short range nearly always contains the whole page, while its keys
    are scattered and each would be a page of the file. Keys that are not in the range are read one by one, so that a
    wrong time hides nothing.
    """
    known = _nearby(connection, (before_us, stream_id, *span_us, NEARBY_FACTOR * len(keys)))
    rest = [key for key in keys if key not in known]
    return known | _by_key(connection, (before_us, source_id), rest) if rest else known


STATES_POSTGRES = (
    f"SELECT object_key, object_version, seq, {WITNESS.format('$1')} FROM event "
    "WHERE source_id = $2 AND object_key = ANY($3::text[]) AND object_version >= $4 AND object_version IS NOT NULL"
)


def look_up_states(
    connection: Connection, source_id: int, listed: Mapping[str, tuple[str, int]], before_us: int
) -> Known:
    """Return those of `listed` {key: (object key, object version)} that the ledger has at that version or later.

    Several events may have one version; if one of them is a witness, so is the state.
    """
    objects = sorted({name for name, _ in listed.values()})
    values = (before_us, source_id), objects, min(version for _, version in listed.values())
    newest: dict[str, tuple[int, bool, int]] = {}
    for name, version, seq, witness in _states(connection, *values):
        newest[name] = max(newest.get(name, (-1, False, 0)), (version, bool(witness), seq))
    known = {}
    for key, (name, version) in listed.items():
        latest, witness, seq = newest.get(name, (-1, False, 0))
        if latest >= version:
            known[key] = (seq, witness)
    return known


def _states(
    connection: Connection, values: tuple[int, ...], objects: list[str], oldest: int
) -> Iterable[Sequence[Any]]:
    if connection.dialect.name == "postgresql":
        return connection.exec_driver_sql(STATES_POSTGRES, (*values, objects, oldest)).all()
    return _sqlite_cursor(connection).execute(_states_sqlite(len(objects)), (*values, *objects, oldest)).fetchall()


@cache
def _states_sqlite(count: int) -> str:
    return re.sub(r"\$\d", "?", STATES_POSTGRES.replace("= ANY($3::text[])", f"IN ({', '.join('?' * count)})"))


def _nearby(connection: Connection, values: tuple[int, ...]) -> Known:
    if connection.dialect.name == "postgresql":
        return _known(connection.exec_driver_sql(NEARBY_POSTGRES, values).all())
    return _known(_sqlite_cursor(connection).execute(NEARBY_SQLITE, values).fetchall())


def _by_key(connection: Connection, values: tuple[int, ...], keys: list[str]) -> Known:
    if connection.dialect.name == "postgresql":
        return _known(connection.exec_driver_sql(BY_KEY_POSTGRES, (*values, keys)).all())
    return _known(_sqlite_cursor(connection).execute(_by_key_sqlite(len(keys)), (*values, *keys)).fetchall())


def _known(rows: Iterable[Sequence[Any]]) -> Known:
    return {key: (seq, bool(witness)) for key, seq, witness in rows}


@cache
def _by_key_sqlite(count: int) -> str:
    marks = ", ".join("?" * count)
    return f"SELECT key, seq, {WITNESS.format('?')} FROM event WHERE source_id = ? AND key IN ({marks})"


def has_rows(connection: Connection, query: str) -> bool:
    """Return True if `query` returns a row."""
    if connection.dialect.name == "postgresql":
        return bool(_postgres(connection, query))
    return _sqlite_cursor(connection).execute(query).fetchone() is not None


def insert_or_ignore(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert one row unless a unique constraint forbids it; return True if it was inserted."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return connection.execute(insert(table).values(**row).on_conflict_do_nothing()).rowcount == 1


def database_now_us(connection: Connection) -> int:
    """Return the time of the database's clock, in microseconds. Leases depend on it, never on a process's clock."""
    if connection.dialect.name == "postgresql":
        now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    else:
        now = "SELECT (julianday('now') - 2440587.5) * 86400000000.0"
    return int(connection.exec_driver_sql(now).scalar_one())


def has_clock(name: str) -> bool:
    """Return True if databases of that dialect have a clock of their own, which all processes share."""
    return name == "postgresql"


def one_snapshot(connection: Connection) -> None:
    """Make every statement of a reading transaction see one state of the database. Call it before any statement.

    SQLite does this by itself.
    """
    if connection.dialect.name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def for_each(connection: Connection, statement: str, pairs: Sequence[tuple[int, int]]) -> list[Any]:
    """Return what `statement` finds for each pair of whole numbers, `{0}` and `{1}`, each row after its pair.

    One statement on PostgreSQL; on SQLite one prepared statement a pair, where a call costs little.
    """
    if not pairs:
        return []
    if connection.dialect.name == "postgresql":
        return [tuple(row) for row in _postgres(connection, _for_each_postgres(statement), *_arrays(pairs))]
    cursor, text = _sqlite_cursor(connection), statement.format("?1", "?2")
    return [(*pair, *row) for pair in pairs for row in cursor.execute(text, pair).fetchall()]


@cache
def _for_each_postgres(statement: str) -> str:
    inner = statement.format("pair.a", "pair.b")
    return f"SELECT a, b, found.* FROM unnest($1::bigint[], $2::bigint[]) AS pair (a, b), LATERAL ({inner}) AS found"


LOCK_SPACE = 0x6F726465
"""Keeps our advisory locks apart from those of other users of the database."""


def lock_numbers(connection: Connection, numbers: Sequence[int]) -> None:
    """Hold locks of these numbers, sorted, until the transaction ends. On SQLite there is one writer, and no need."""
    if numbers and connection.dialect.name == "postgresql":
        taken = f"SELECT pg_advisory_xact_lock({LOCK_SPACE}, n) FROM unnest($1::integer[]) AS n"
        _postgres(connection, taken, list(numbers))


def skip_locked(connection: Connection) -> bool:
    """Return True if the database can skip rows that another replica is claiming."""
    return connection.dialect.name == "postgresql"


def writers_of(connection: Connection, table: Table) -> frozenset[str]:
    """Return the transactions that have written to `table`, or are about to, and have not ended.

    Each holds a lock of the table from before its first row until its end is visible to all. On SQLite there is one
    writer, and nobody sees what it has not committed.
    """
    if connection.dialect.name != "postgresql":
        return frozenset()
    return frozenset(connection.exec_driver_sql(WRITERS_POSTGRES.format(table.name)).scalars())


WRITERS_POSTGRES = (
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND relation = '{0}'::regclass "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') "
    "AND granted AND pid IS DISTINCT FROM pg_backend_pid()"
)


def reserve_block(connection: Connection, table: Table, size: int, above: int) -> range:
    """Reserve `size` ids of `table`, all greater than `above`, that nobody else will use, and return them.

    `above` is the last id that the caller reserved: it may not be in the table yet. Unused ids leave a
    harmless gap.
    """
    if connection.dialect.name == "postgresql":  # the sequence counts in steps of `size`
        sequence = f"SELECT nextval(pg_get_serial_sequence('{table.name}', 'id'))"
        first = int(connection.exec_driver_sql(sequence).scalar_one())
    else:
        highest = "SELECT seq FROM sqlite_sequence WHERE name = ?"  # of all rows that ever existed
        first = max(int(connection.exec_driver_sql(highest, (table.name,)).scalar() or 0), above) + 1
    return range(first, first + size)


NOTICES = "gapless_notices"
"""Where a transaction on SQLite keeps its notices until it commits."""


def notify(connection: Connection, channel: str, text: str = "") -> None:
    """Tell those who `listen` at a store of this ledger, once this transaction has committed."""
    if connection.dialect.name == "postgresql":
        if text:
            _postgres(connection, "SELECT pg_notify($1, $2)", channel, text)
        else:
            _postgres(connection, f"NOTIFY {channel}")
    elif NOTICES in connection.info:
        connection.info[NOTICES].append((channel, text))
