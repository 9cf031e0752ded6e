"""Events that a pass found but could not record at once. They are durable and retried on their own schedule."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, literal_column, select, tuple_, update

from gapless.domain import HOUR_US, Cause
from gapless.ledger import findings, newest, sealed, watermarks
from gapless.ledger.engine import dialect
from gapless.ledger.findings import OpenFinding
from gapless.ledger.keyring import ring_of
from gapless.ledger.newest import NewestPage
from gapless.ledger.tables import EVENT, MISSING, SOURCE, STREAM
from gapless.ledger.tallies import MISSED, Tallies
from gapless.ledger.watermarks import UnrecoverableInterval
from gapless.sealing import CannotOpen, Keyring

ANY_TO_CLOSE = (
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM missing WHERE state = 'open') "
    "OR EXISTS (SELECT 1 FROM unrecoverable WHERE reason = 'event_lost')"
)
"""Every lost event has such an interval, and there are few; nothing finds the lost rows themselves so quickly."""
IS_OPEN: ColumnElement[bool] = literal_column("missing.state = 'open'")
"""A literal without a type: a partial index serves only the text of its own condition, not a bound value."""
CHUNK = 400
"""Keys in one statement."""
CLAIM_COLUMNS = ("source_id", "key", "stream_id", "type", "occurred_us", "first_seen_us", "via")
CLOSED_COLUMNS = ("source_id", "key", "occurred_us", "expected", "counted", "cause", "asked_us")
Place = tuple[int, int, int]
"""The place of a due row in the order of `due`: (attempts, next attempt, id)."""


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
    place: Place = (0, 0, 0)
    awaited: bool = False
    """Its grace is not over: if it is expected, it is a finding, and counts as missed only when that is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A missing row that a recorded event has just closed. `redelivered`: we had requested its redelivery."""

    expected: bool
    occurred_us: int = 0
    """When the list says that it occurred."""
    redelivered: bool = False
    missed: Cause | None = None
    """The cause under which it was counted as missed; None: it was not."""


def add(connection: Connection, slot: int, found: Sequence[Missing]) -> list[Missing]:
    """Insert the rows that do not exist yet, and count each as expected and missed, once. Returns the new ones.

    One whose webhook is awaited is a finding, and is not counted as missed yet. An event that is recorded already gets
    no row, also if its webhook is being recorded at this moment.
    """
    tallies = Tallies()
    made: list[Missing] = []
    for row in _not_recorded(connection, found):
        values = {
            "source_id": row.source_id, "stream_id": row.stream_id, "key": row.key, "type": row.type,
            "occurred_us": row.occurred_us, "found_us": row.found_us, "expected": row.expected,
            "cause": row.cause.value, "reason": row.reason, "ref": row.ref,
            "next_attempt_us": row.found_us, "counted": not row.awaited,
        }  # fmt: skip
        if dialect.insert_or_ignore(connection, MISSING, values):
            made.append(row)
            if row.expected:
                tallies.add(row.source_id, row.occurred_us, "expected", *(() if row.awaited else (MISSED[row.cause],)))
    findings.add(connection, (_finding(row) for row in made if row.expected and row.awaited))
    tallies.write(connection, slot)
    return made


def _finding(row: Missing) -> OpenFinding:
    return OpenFinding(
        source_id=row.source_id, key=row.key, stream_id=row.stream_id, occurred_us=row.occurred_us, cause=row.cause
    )


def _not_recorded(connection: Connection, found: Sequence[Missing]) -> list[Missing]:
    """Return those of `found` whose event is not in the ledger, sorted, and hold their identities until the commit.

    A webhook and a pass that meet do not see each other's rows before the commit. So this makes the same unique insert
    as the recorder and takes it back at once: it waits for a webhook that is being recorded and finds its event, and a
    webhook that comes later waits for this transaction and then closes the row. The webhook pays nothing for it.
    """
    rows = {(row.source_id, row.key): row for row in found}
    for identity in _with_a_row(connection, list(rows)):
        del rows[identity]
    claims = [
        (*identity, row.stream_id, row.type, row.occurred_us, row.found_us, "list")
        for identity, row in sorted(rows.items())
    ]
    claimed = dialect.insert_new(connection, EVENT, CLAIM_COLUMNS, claims, ("source_id", "key"))
    seqs = list(claimed.values())
    for at in range(0, len(seqs), CHUNK):
        connection.execute(delete(EVENT).where(EVENT.c.seq.in_(seqs[at : at + CHUNK])))
    return [rows[source_id, key] for source_id, key in sorted(claimed)]


def _with_a_row(connection: Connection, identities: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
    """Return those of `identities` that have a row, open or not."""
    found: set[tuple[int, str]] = set()
    for at in range(0, len(identities), CHUNK):
        query = select(MISSING.c.source_id, MISSING.c.key)
        chosen = tuple_(MISSING.c.source_id, MISSING.c.key).in_(identities[at : at + CHUNK])
        found |= {(row.source_id, row.key) for row in connection.execute(query.where(chosen))}
    return found


def close(connection: Connection, identities: Iterable[tuple[int, str]]) -> dict[tuple[int, str], Closed]:
    """Close the rows, open or lost, of events that were just recorded; return those by (source id, key).

    The time of an event that was lost stays unrecoverable.
    """
    if not dialect.has_rows(connection, ANY_TO_CLOSE):
        return {}
    keys = sorted(identities)
    closed: dict[tuple[int, str], Closed] = {}
    for at in range(0, len(keys), CHUNK):
        statement = (
            update(MISSING)
            .where(
                MISSING.c.state.in_(("open", "lost")),
                tuple_(MISSING.c.source_id, MISSING.c.key).in_(keys[at : at + CHUNK]),
            )
            .values(state="recovered")
            .returning(*(MISSING.c[name] for name in CLOSED_COLUMNS))
        )
        for source_id, key, occurred_us, expected, counted, cause, asked_us in connection.execute(statement):
            closed[source_id, key] = Closed(
                expected=expected,
                occurred_us=occurred_us,
                redelivered=asked_us is not None,
                missed=Cause(cause) if expected and counted else None,
            )
    return closed


def due(connection: Connection, source_id: int, now_us: int, limit: int, after: Place = (-1, 0, 0)) -> list[Missing]:
    """Return the open rows after `after` whose next attempt is due: the least tried first, then the longest due.

    So a row that fails again and again never stands before one that was not tried yet.
    """
    place = (MISSING.c.attempts, MISSING.c.next_attempt_us, MISSING.c.id)
    is_due = (MISSING.c.source_id == source_id, MISSING.c.state == "open", MISSING.c.next_attempt_us <= now_us)
    is_event = MISSING.c.reason != "unreadable"  # each pass looks at such a row again; there is no event to ask for
    query = select(MISSING).where(*is_due, is_event, tuple_(*place) > tuple_(*after)).order_by(*place).limit(limit)
    return [_missing(row) for row in connection.execute(query).mappings()]


def still_missing(connection: Connection, slot: int, rows: Sequence[Missing]) -> list[Missing]:
    """Return those of `rows` whose event is not in the ledger. Close the others, which count as no miss.

    An event that closes its row when it is recorded is not counted again. So an event beside an open row was counted
    by itself, and what was counted for the row is taken back.
    """
    recorded: set[tuple[int, str]] = set()
    keys = [(row.source_id, row.key) for row in rows]
    for at in range(0, len(keys), CHUNK):
        query = select(EVENT.c.source_id, EVENT.c.key)
        found = connection.execute(query.where(tuple_(EVENT.c.source_id, EVENT.c.key).in_(keys[at : at + CHUNK])))
        recorded |= {(row.source_id, row.key) for row in found}
    closed, tallies = close(connection, recorded) if recorded else {}, Tallies()
    for row in rows:
        was = closed.get((row.source_id, row.key))
        if was is not None and was.expected:
            names = ("expected",) if was.missed is None else ("expected", MISSED[was.missed])
            tallies.add(row.source_id, row.occurred_us, *names, times=-1)
    tallies.write(connection, slot)
    return [row for row in rows if (row.source_id, row.key) not in recorded]


def _missing(row: RowMapping) -> Missing:
    return Missing(
        source_id=row["source_id"],
        stream_id=row["stream_id"],
        key=row["key"],
        type=row["type"],
        occurred_us=row["occurred_us"],
        found_us=row["found_us"],
        expected=row["expected"],
        cause=Cause(row["cause"]),
        reason=row["reason"],
        ref=row["ref"],
        attempts=row["attempts"],
        place=(row["attempts"], row["next_attempt_us"], row["id"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingDetails:
    """A missing row for people, with the names of its source and stream. Times are microseconds."""

    source: str
    stream: str
    key: str
    type: str
    reason: str
    state: str
    occurred_us: int
    until_us: int | None
    found_us: int
    attempts: int
    last_error: str | None
    expected: bool = False
    counted: bool = True
    """It counts as missed, if it is expected."""
    cause: str | None = None
    next_attempt_us: int = 0
    row: bytes | None = None
    """The row of the list, of an unreadable one."""


def entries(
    connection: Connection, *, source: str | None = None, key: str | None = None, closed: bool = False, limit: int = 100
) -> list[MissingDetails]:
    """Return the open rows, or with `closed` all, oldest first: of one source, or with one key."""
    names = [name for name in MissingDetails.__dataclass_fields__ if name not in ("source", "stream")]
    query = (
        select(
            SOURCE.c.name.label("source"),
            STREAM.c.name.label("stream"),
            *(MISSING.c[name] for name in (*names, "source_id", "sealed_by")),
        )
        .join_from(MISSING, STREAM, STREAM.c.id == MISSING.c.stream_id)
        .join(SOURCE, SOURCE.c.id == MISSING.c.source_id)
        .order_by(MISSING.c.occurred_us, MISSING.c.id)
        .limit(limit)
    )
    if source is not None:
        query = query.where(SOURCE.c.name == source)
    if key is not None:
        query = query.where(MISSING.c.key == key)
    if not closed:
        query = query.where(MISSING.c.state == "open")
    ring = ring_of(connection)
    return [MissingDetails(**_opened(ring, dict(row))) for row in connection.execute(query).mappings()]


def _opened(ring: Keyring, row: dict[str, Any]) -> dict[str, Any]:
    source_id, sealed_by = row.pop("source_id"), row.pop("sealed_by")
    if sealed_by is not None:
        try:
            row["row"] = sealed.open_row(ring, source_id, row["key"], row["row"], sealed_by)
        except CannotOpen as error:
            row["row"] = f"not shown: {error}".encode()
    return row


def page(
    connection: Connection,
    *,
    sources: Collection[str] | None = None,
    states: Collection[str] | None = None,
    after: tuple[int, ...] | None = None,
    limit: int,
) -> NewestPage[MissingDetails]:
    """Return rows in the order in which they were found, the newest first: of these sources, in one of `states`."""
    where: list[ColumnElement[bool]] = []
    if sources is not None:
        where.append(MISSING.c.source_id.in_(select(SOURCE.c.id).where(SOURCE.c.name.in_(sources))))
    if states is not None:
        where.append(MISSING.c.state.in_(states))
    found = newest.ids(connection, MISSING.c.id, where, after=after, limit=limit)
    names = [name for name in MissingDetails.__dataclass_fields__ if name not in ("source", "stream", "row")]
    query = (
        select(
            MISSING.c.id, SOURCE.c.name.label("source"), STREAM.c.name.label("stream"),
            *(MISSING.c[name] for name in names),
        )
        .join_from(MISSING, STREAM, STREAM.c.id == MISSING.c.stream_id)
        .join(SOURCE, SOURCE.c.id == MISSING.c.source_id)
    )  # fmt: skip
    rows = newest.rows_of(connection, query, MISSING.c.id, found.rows)
    entries_ = [MissingDetails(**{name: value for name, value in row.items() if name != "id"}) for row in rows]
    return NewestPage(rows=entries_, after=found.after, is_full=found.is_full)


def open_by_hour(connection: Connection, source_id: int, from_hour: int, to_hour: int) -> dict[int, int]:
    """Return the number of open rows by the hour since 1970 in which they occurred, of `[from_hour, to_hour)`."""
    hour = MISSING.c.occurred_us // HOUR_US
    is_open = (MISSING.c.source_id == source_id, IS_OPEN)
    query = select(hour, func.count()).where(*is_open, hour >= from_hour, hour < to_hour).group_by(hour)
    return {row[0]: row[1] for row in connection.execute(query)}


def postpone(connection: Connection, row: Missing, now_us: int, wait_us: int, error: str) -> None:
    """Note a failed attempt, and wait before the next."""
    _change(connection, row, **_next_attempt(now_us, wait_us), last_error=error)


def note_redelivery_request(connection: Connection, row: Missing, now_us: int, wait_us: int) -> None:
    """Note that redelivery was requested, and wait before it is checked whether it arrived."""
    _change(connection, row, **_next_attempt(now_us, wait_us), asked_us=now_us)


def _next_attempt(now_us: int, wait_us: int) -> dict[str, object]:
    return {"attempts": MISSING.c.attempts + 1, "next_attempt_us": now_us + wait_us, "wait_us": wait_us}


def give_up(connection: Connection, row: Missing, error: str, now_us: int, unit_us: int) -> bool:
    """Mark the event as lost, because the provider no longer has it, and its time as unrecoverable.

    `unit_us`: the unit of the provider's times, in microseconds; the interval is the one that the event occurred in.
    Returns False, and changes nothing, if the event was recorded meanwhile.
    """
    if not _change(connection, row, state="lost", last_error=error):
        return False
    start_us = row.occurred_us // unit_us * unit_us
    loss = UnrecoverableInterval(start_us=start_us, end_us=start_us + unit_us, reason=watermarks.EVENT_LOST)
    watermarks.note_lost_event(connection, row.stream_id, loss, now_us)
    return True


def _change(connection: Connection, row: Missing, **values: object) -> bool:
    """Change the row if it is open; return False if it is not."""
    where = (MISSING.c.source_id == row.source_id, MISSING.c.key == row.key, MISSING.c.state == "open")
    return connection.execute(update(MISSING).where(*where).values(**values)).rowcount == 1
