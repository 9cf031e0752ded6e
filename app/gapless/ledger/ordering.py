"""Which deliveries are sent one after the other, and which of them is next.

The deliveries of one destination with the same `order_key` are a *line*, in the order of (`order_us`, `event_seq`).
Only the first of a line that is not settled is `pending`; the others are `waiting`, which no claim ever sees. So a
claim costs the same however many wait. Whatever settles the first makes the next one pending, in the same transaction,
and one function decides which one that is: `let_next`.

On PostgreSQL, a transaction that adds to a line or takes from it holds the line's lock from before it looks until it
ends: `lock`, called before the transaction locks any row. So a delivery that is added while the one before it is being
settled is either seen by that settlement or sees it, and the seqs within a line grow with the order of commits.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from sqlalchemy import ColumnElement, Connection, and_, case, func, literal_column, null, select, tuple_, update

from gapless.ledger.engine import dialect
from gapless.ledger.tables import DELIVERY, DESTINATION, EVENT, SOURCE

Line: TypeAlias = tuple[int, int]
"""(destination id, order key)."""

DELIVERY_CHANNEL = "gapless_deliver"
"""Notified when a transaction has made deliveries, or has made some due."""
LOCKS = 1024
"""Lines share so many locks, so that a large transaction does not need more than the database has."""
LEAST_KEY = -(2**63)
HEAD = (
    "SELECT event_seq, state, unproven_id FROM delivery WHERE destination_id = {0} AND order_key = {1} "
    "AND state <> 'delivered' ORDER BY order_us, event_seq LIMIT 1"
)
NEWEST = (
    "SELECT order_us FROM delivery WHERE destination_id = {0} AND order_key = {1} AND late IS NULL "
    "ORDER BY order_us DESC LIMIT 1"
)
"""Of those that did not come late: their index is another than that of the heads, which it would be taken for."""
_OWING: ColumnElement[bool] = literal_column("delivery.state <> 'delivered'")
"""A literal without a type: a partial index serves only the text of its own condition."""
FREE = and_(DELIVERY.c.order_key.is_(None), DELIVERY.c.unproven_id.is_(None))
"""The delivery is sent in any order, and at any time."""
DUE = case((FREE, "pending"), else_="waiting")
"""The state of a delivery that is owed from now on. Call `let_next` for its line afterwards."""


class Late(StrEnum):
    """Why a delivery comes after others that occurred, or were delivered, after it."""

    RECOVERED = "recovered"
    REPLAYED = "replayed"


def key_of(source_id: int, object_key: str = "") -> int:
    """Return the order key of an object of a source, or of all its events. If two share a key, both wait more."""
    digest = hashlib.blake2b(f"{source_id}:{object_key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _in_line(destination_id: int) -> ColumnElement[bool]:
    """Return the condition; of keys a range, or SQLite reads all that the destination ever was owed."""
    return and_(DELIVERY.c.destination_id == destination_id, DELIVERY.c.order_key >= LEAST_KEY, _OWING)


def _heads(connection: Connection, lines: Collection[Line]) -> list[tuple[int, int, int, str, int | None]]:
    """Return (destination id, order key, seq, state, unproven id) of the first unsettled delivery of each line."""
    return dialect.for_each(connection, HEAD, sorted(lines))


def lock(connection: Connection, lines: Iterable[Line]) -> None:
    """Hold the locks of these lines until the transaction ends. Call it before the transaction locks any row."""
    dialect.lock_numbers(connection, sorted({(destination_id + key) % LOCKS for destination_id, key in lines}))


def lines_of(connection: Connection, *where: ColumnElement[bool]) -> set[Line]:
    """Return the lines of deliveries that fulfil a condition."""
    query = select(DELIVERY.c.destination_id, DELIVERY.c.order_key).where(DELIVERY.c.order_key.is_not(None), *where)
    return {(destination_id, key) for destination_id, key in connection.execute(query.distinct())}


def busy(connection: Connection, lines: Collection[Line]) -> set[Line]:
    """Return those of the lines that have a delivery which is not settled."""
    return {(destination_id, key) for destination_id, key, *_ in _heads(connection, lines)}


def newest(connection: Connection, lines: Collection[Line]) -> dict[Line, int]:
    """Return the greatest `order_us` of each line, of settled deliveries too: of those lines that have any."""
    found = dialect.for_each(connection, NEWEST, sorted(lines))
    return {(destination_id, key): order_us or 0 for destination_id, key, order_us in found}


def let_next(connection: Connection, lines: Collection[Line]) -> int:
    """Make the first delivery of each line pending, if it waits for nothing but its turn. Return how many were made so.

    One that is dead, held or parked keeps its place, and what comes after it waits.
    """
    ready: defaultdict[int, list[int]] = defaultdict(list)
    for destination_id, _, seq, state, unproven_id in _heads(connection, lines):
        if state == "waiting" and unproven_id is None:
            ready[destination_id].append(seq)
    for destination_id, seqs in sorted(ready.items()):
        mine = (DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq.in_(sorted(seqs)))
        connection.execute(update(DELIVERY).where(*mine, DELIVERY.c.state == "waiting").values(state="pending"))
    return sum(map(len, ready.values()))


def let_pass(connection: Connection, rows: Sequence[tuple[int, int]]) -> None:
    """Take dead letters, (destination id, seq), out of their lines. If they are sent after all, they come late."""
    if rows:
        dead = (tuple_(DELIVERY.c.destination_id, DELIVERY.c.event_seq).in_(rows), DELIVERY.c.state == "dead")
        passed = {"order_key": null(), "late": Late.REPLAYED.value}
        connection.execute(update(DELIVERY).where(*dead, DELIVERY.c.order_key.is_not(None)).values(**passed))


def let_dead_pass(connection: Connection, destination_id: int, limit: int) -> int:
    """Let what comes after the destination's dead letters go on. Return how many, at most `limit`; call until 0."""
    dead = and_(_in_line(destination_id), DELIVERY.c.state == "dead")
    found = connection.execute(select(DELIVERY.c.order_key, DELIVERY.c.event_seq).where(dead).limit(limit)).all()
    lines = {(destination_id, key) for key, _ in found}
    lock(connection, lines)
    let_pass(connection, sorted((destination_id, seq) for _, seq in found))
    let_next(connection, lines)
    return len(found)


def dissolve(connection: Connection, destination_id: int, limit: int) -> int:
    """Let what the destination is owed go in any order. Return how many, at most `limit`; call until 0."""
    first = select(DELIVERY.c.event_seq).where(_in_line(destination_id)).limit(limit)
    these = (DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq.in_(sorted(connection.scalars(first))))
    state = case((DELIVERY.c.state == "waiting", "pending"), else_=DELIVERY.c.state)
    return connection.execute(update(DELIVERY).where(*these).values(order_key=null(), state=state)).rowcount


def let_stranded_go(connection: Connection, destination_id: int, limit: int) -> int:
    """Let the first of each line go that has nothing before it. Return how many, at most `limit`; call until 0.

    Nothing should be found: it heals what a fault, or a change of the configuration, has left.
    """
    other = DELIVERY.alias("other")
    owing: ColumnElement[bool] = literal_column("other.state <> 'delivered'")
    before = select(other.c.event_seq).where(
        other.c.destination_id == destination_id,
        other.c.order_key == DELIVERY.c.order_key,
        owing,
        tuple_(other.c.order_us, other.c.event_seq) < tuple_(DELIVERY.c.order_us, DELIVERY.c.event_seq),
    )
    waits = (DELIVERY.c.state == "waiting", DELIVERY.c.unproven_id.is_(None), ~before.exists())
    query = select(DELIVERY.c.order_key).where(_in_line(destination_id), *waits).limit(limit)
    lines = {(destination_id, key) for key in connection.execute(query).scalars()}
    lock(connection, lines)
    return let_next(connection, lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """The lines of a destination whose first delivery waits for a person, and that has others behind it."""

    destination: str
    count: int
    source: str
    object_key: str | None
    """The object of the first of them; None: the line has all events of the source."""
    key: str
    """The key of the event that is in the way."""
    since_us: int


def blocked(connection: Connection) -> list[Blocked]:
    """Return the blocked lines of each destination that has any. What only waits for the list blocks nothing."""
    first, other = DELIVERY.alias("head"), DELIVERY.alias("other")
    same = (other.c.destination_id == first.c.destination_id, other.c.order_key == first.c.order_key)
    owing: ColumnElement[bool] = literal_column("other.state <> 'delivered'")
    here = tuple_(first.c.order_us, first.c.event_seq)
    place = tuple_(other.c.order_us, other.c.event_seq)
    before = select(other.c.event_seq).where(*same, owing, place < here)
    behind = select(other.c.event_seq).where(*same, owing, place > here, other.c.unproven_id.is_(None))
    query = (
        select(
            DESTINATION.c.name, first.c.order_key, SOURCE.c.name, EVENT.c.object_key, EVENT.c.key,
            func.coalesce(first.c.done_us, first.c.created_us),
        )
        .select_from(first)
        .join(DESTINATION, DESTINATION.c.id == first.c.destination_id)
        .join(EVENT, EVENT.c.seq == first.c.event_seq)
        .join(SOURCE, SOURCE.c.id == EVENT.c.source_id)
        .where(literal_column("head.state <> 'delivered'"), first.c.order_key.is_not(None))
        .where(first.c.state.in_(("dead", "held")), func.coalesce(first.c.reason, "") != "not_listed")
        .where(behind.exists(), ~before.exists())
        .order_by(DESTINATION.c.name, first.c.event_seq)
    )  # fmt: skip
    found: dict[str, list[tuple[int, str, str | None, str, int]]] = defaultdict(list)
    for name, *row in connection.execute(query):
        found[name].append(tuple(row))
    return [
        Blocked(
            destination=name,
            count=len({row[0] for row in rows}),
            source=rows[0][1],
            object_key=rows[0][2],
            key=rows[0][3],
            since_us=min(row[4] for row in rows),
        )
        for name, rows in found.items()
    ]
