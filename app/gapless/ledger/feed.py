"""Events in order of record, for readers that go on from where they were, and that may skip nothing.

On PostgreSQL a seq is taken before its transaction commits, so a lower one can become visible after a higher one. A
reader that goes on after the highest that it saw would skip it. `settled` says how far a reader may go.
"""

import base64
import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Select, func, select

from gapless.ledger import events
from gapless.ledger.engine import dialect
from gapless.ledger.events import CHUNK
from gapless.ledger.sources import IDENTITY_SEED
from gapless.ledger.tables import EVENT, PAYLOAD, SOURCE, STREAM

CURSOR: Final = struct.Struct(">BQ8s")
CURSOR_VERSION: Final = 1
CURSOR_CHARACTERS: Final = -(-CURSOR.size * 4 // 3)
SLACK_US: Final = 60_000_000
"""How far the times of record of neighbours may be out of order: replicas, and clocks that were set, differ by less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How far a reader may go, and what that waits for."""

    seq: int | None = None
    """Each event up to it is visible now, and none of a lower seq will come to be; None: not known yet."""
    newest: int | None = None
    """The highest visible seq when `writers` were read: settled once these have ended."""
    writers: frozenset[str] = frozenset()
    """Transactions that may still commit an event of a lower seq than `newest`."""


AGAIN_CHANNEL: Final = "gapless_again"
"""Notified of events that come once more: their seqs, with commas."""
AGAIN_AT_ONCE: Final = 200
"""Most of them that are told of one transaction: who replays more than that looks at its destination."""

NOTHING_KNOWN: Final = Settled()


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedEvent:
    """One event for those who follow the ledger. Times are microseconds."""

    seq: int
    source_id: int
    source: str
    identity_seed: str
    """The seed of its id for consumers."""
    stream: str
    key: str
    type: str
    object_key: str | None
    occurred_us: int
    first_seen_us: int
    via: str
    expected: bool
    missed_cause: str | None
    webhook_us: int | None
    livemode: bool | None
    payload_id: int | None

    @property
    def position(self) -> "Position":
        """The place after this event."""
        return Position(seq=self.seq, mark=mark_of(self.source_id, self.key, self.first_seen_us))


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in the order of record: after the event `seq`, of which `mark` is the digest.

    The mark tells it from the same place in another ledger, or in this one before a backup was restored.
    """

    seq: int
    mark: bytes

    @property
    def cursor(self) -> str:
        """The text of it that readers keep. They need not understand it."""
        return base64.urlsafe_b64encode(CURSOR.pack(CURSOR_VERSION, self.seq, self.mark)).decode().rstrip("=")


START: Final = Position(seq=0, mark=bytes(8))
"""Before the first event."""


def read_cursor(text: str) -> Position | None:
    """Return the position that a cursor says; None: it is no cursor."""
    if len(text) != CURSOR_CHARACTERS or not text.isascii():
        return None
    try:
        version, seq, mark = CURSOR.unpack(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (ValueError, struct.error):
        return None
    return Position(seq=seq, mark=mark) if version == CURSOR_VERSION and seq < 1 << 63 else None


def mark_of(source_id: int, key: str, first_seen_us: int) -> bytes:
    """Return the digest of an event by which a cursor knows it again."""
    return hashlib.sha256(f"{source_id}:{first_seen_us}:{key}".encode(errors="surrogatepass")).digest()[:8]


def settled(connection: Connection, before: Settled = NOTHING_KNOWN) -> Settled:
    """Return how far a reader may go, given what it knew `before`. Ask again soon while there are `writers`.

    Whoever has taken a seq holds a lock of the table until it ends. So of those who hold it after a seq was visible,
    only they may still commit a lower one. Call it outside of a snapshot: each of its statements must see anew.
    """
    if before.writers:
        left = before.writers & dialect.writers_of(connection, EVENT)
        if left:
            return replace(before, writers=left)
    newest: int = connection.execute(select(func.coalesce(func.max(EVENT.c.seq), 0))).scalar_one()
    if before.newest is not None and newest <= before.newest:
        return Settled(seq=newest, newest=newest)
    writers = dialect.writers_of(connection, EVENT)
    return Settled(seq=before.newest if writers else newest, newest=newest, writers=writers)


def page(connection: Connection, after: int, up_to: int, limit: int) -> list[FeedEvent]:
    """Return the next events of `(after, up_to]`, in order of record."""
    query = _select().where(EVENT.c.seq > after, EVENT.c.seq <= up_to).order_by(EVENT.c.seq).limit(limit)
    return [FeedEvent(**row) for row in connection.execute(query).mappings()]


def announce_again(connection: Connection, seqs: Sequence[int]) -> None:
    """Tell those who listen now that these events came once more: sent again by the vendor, or replayed."""
    if seqs:
        dialect.notify(connection, AGAIN_CHANNEL, ",".join(map(str, seqs[:AGAIN_AT_ONCE])))


def of_seqs(connection: Connection, seqs: Sequence[int]) -> list[FeedEvent]:
    """Return these events, in order of record."""
    found = connection.execute(_select().where(EVENT.c.seq.in_(seqs)).order_by(EVENT.c.seq))
    return [FeedEvent(**row) for row in found.mappings()]


def of_keys(connection: Connection, keys: Sequence[str]) -> list[FeedEvent]:
    """Return the events of those keys, in order of record; several sources may have one key."""
    found = connection.execute(_select().where(EVENT.c.key.in_(keys)).order_by(EVENT.c.seq))
    return [FeedEvent(**row) for row in found.mappings()]


def _select() -> Select[Any]:
    own = [EVENT.c[name] for name in FeedEvent.__dataclass_fields__ if name in EVENT.c]
    names = SOURCE.c.name.label("source"), STREAM.c.name.label("stream"), IDENTITY_SEED.label("identity_seed")
    joined = select(*own, *names).join_from(EVENT, SOURCE, SOURCE.c.id == EVENT.c.source_id)
    return joined.join(STREAM, STREAM.c.id == EVENT.c.stream_id)


def position_at(connection: Connection, seq: int) -> Position:
    """Return the position after the last event up to `seq`."""
    query = select(EVENT.c.seq, EVENT.c.source_id, EVENT.c.key, EVENT.c.first_seen_us)
    row = connection.execute(query.where(EVENT.c.seq <= seq).order_by(EVENT.c.seq.desc()).limit(1)).first()
    return START if row is None else Position(seq=row.seq, mark=mark_of(row.source_id, row.key, row.first_seen_us))


def is_known(connection: Connection, position: Position) -> bool:
    """Return True if this ledger has the position: its event is here, and is the same."""
    return position == START or position_at(connection, position.seq) == position


def position_since(connection: Connection, since_us: int) -> Position:
    """Return a position before all events that were recorded from `since_us` on. Some earlier ones may come after it.

    Found by bisection: the times of record grow with the seq, but for `SLACK_US`.
    """
    low, high = 0, connection.execute(select(func.coalesce(func.max(EVENT.c.seq), 0))).scalar_one()
    while low < high:
        middle = (low + high) // 2
        first = select(EVENT.c.first_seen_us).where(EVENT.c.seq > middle).order_by(EVENT.c.seq).limit(1)
        first_us = connection.execute(first).scalar()
        if first_us is not None and first_us < since_us - SLACK_US:
            low = middle + 1
        else:
            high = middle
    return position_at(connection, low)


def payloads(
    connection: Connection, ids: Sequence[int], most_bytes: int
) -> tuple[int, Mapping[int, tuple[bytes, str | None]]]:
    """Return how many of the payloads `ids`, from the first on, were read, and {id: (body, kept headers as JSON)}.

    They have at most so many bytes together, unless the first one has more. Those that were pruned, or that no key here
    opens, are left out.
    """
    sizes: dict[int, int] = {}
    for at in range(0, len(ids), CHUNK):
        size = func.coalesce(PAYLOAD.c.size, func.length(PAYLOAD.c.body))
        query = select(PAYLOAD.c.id, size).where(PAYLOAD.c.id.in_(ids[at : at + CHUNK]))
        sizes |= {row[0]: row[1] for row in connection.execute(query)}
    count, used = 0, 0
    for each in ids:
        used += sizes.get(each, 0)
        if count and used > most_bytes:
            break
        count += 1
    found: dict[int, tuple[bytes, str | None]] = {}
    for at in range(0, count, CHUNK):
        found |= events.opened_payloads(connection, ids[:count][at : at + CHUNK])
    return count, found
