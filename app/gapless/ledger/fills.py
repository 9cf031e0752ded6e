"""Owes a destination recorded events that it was never owed, such as those from before it was added.

Events are read by ranges of their seqs, so that no statement depends on the size of the ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from gapless.domain import Via
from gapless.ledger import restored
from gapless.ledger.accounts import OTHER_ACCOUNT
from gapless.ledger.deliveries import UNSETTLED
from gapless.ledger.engine import dialect
from gapless.ledger.events import CHUNK
from gapless.ledger.ordering import DELIVERY_CHANNEL, Late
from gapless.ledger.tables import DELIVERY, EVENT, PAYLOAD, SOURCE, STREAM

SPAN = 1000
"""Number of seqs that are read at once, and so the most deliveries of one transaction."""
OF_THE_EVENT = (OTHER_ACCOUNT, restored.REASON)
"""Reasons for which the deliveries of an event are held, whatever their destination."""
COLUMNS = ("destination_id", "event_seq", "state", "reason", "attempts", "next_us", "lease_us", "created_us", "late")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unowed:
    """A recorded event with its payload that a destination was never owed. Times are microseconds."""

    seq: int
    source: str
    stream: str
    key: str
    type: str
    occurred_us: int
    first_seen_us: int
    via: Via
    livemode: bool | None
    repeated: bool
    """Another event came with the same signed message before."""
    held: str | None
    """Why its deliveries to other destinations are held, if the reason is the event's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterDelivery:
    """A delivery to make of an event that was recorded before: pending, or held for a reason."""

    seq: int
    next_us: int
    held: str | None = None


def newest_seq(connection: Connection) -> int:
    """Return the seq of the newest event; 0: there is none."""
    return connection.execute(select(func.max(EVENT.c.seq))).scalar() or 0


def unowed(connection: Connection, destination_id: int, start_us: int, end_us: int, after_seq: int) -> list[Unowed]:
    """Return the events with the next `SPAN` seqs that occurred in `[start_us, end_us)` and can be delivered."""
    mine = (DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq == EVENT.c.seq)
    others = (UNSETTLED, DELIVERY.c.event_seq == EVENT.c.seq, DELIVERY.c.state == "held")
    held = select(func.min(DELIVERY.c.reason)).where(*others, DELIVERY.c.reason.in_(OF_THE_EVENT))
    stored = select(PAYLOAD.c.id).where(PAYLOAD.c.id == EVENT.c.payload_id)
    columns = ("seq", "key", "type", "occurred_us", "first_seen_us", "via", "livemode", "repeated")
    query = (
        select(
            *(EVENT.c[name] for name in columns),
            SOURCE.c.name.label("source"),
            STREAM.c.name.label("stream"),
            held.scalar_subquery().label("held"),
        )
        .join(SOURCE, SOURCE.c.id == EVENT.c.source_id)
        .join(STREAM, STREAM.c.id == EVENT.c.stream_id)
        .where(EVENT.c.seq > after_seq, EVENT.c.seq <= after_seq + SPAN)
        .where(stored.scalar_subquery().is_not(None))  # the others were imported, pruned or erased
        .where(EVENT.c.occurred_us >= start_us, EVENT.c.occurred_us < end_us)
        .where(~select(DELIVERY.c.event_seq).where(*mine).exists())
        .order_by(EVENT.c.seq)
    )
    return [Unowed(**{**row, "via": Via(row["via"])}) for row in connection.execute(query).mappings()]


def owe(connection: Connection, destination_id: int, new: Sequence[LaterDelivery], now_us: int) -> int:
    """Make the deliveries that do not exist by now. Returns how many. Pass at most `SPAN`.

    Like replays they come in any order, marked as late: what was recorded after them may have been delivered.
    """
    known: set[int] = set()
    for at in range(0, len(new), CHUNK):
        seqs = [each.seq for each in new[at : at + CHUNK]]
        mine = (DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq.in_(seqs))
        known |= set(connection.execute(select(DELIVERY.c.event_seq).where(*mine)).scalars())
    late = Late.REPLAYED.value
    rows = [
        (destination_id, each.seq, "held" if each.held else "pending", each.held, 0, each.next_us, 0, now_us, late)
        for each in sorted(new, key=lambda each: each.seq)
        if each.seq not in known
    ]
    if rows:
        dialect.insert_many(connection, DELIVERY, COLUMNS, rows)
        dialect.notify(connection, DELIVERY_CHANNEL)
    return len(rows)
