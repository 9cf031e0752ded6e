"""Prunes finished deliveries, attempts, payloads, receipts, passes and refused webhooks. Events stay for good.

Each call looks at no more than `limit` rows, in the order of a primary key, and commits, so that webhooks
never wait for a long delete. Rows enter these tables in order of time, so a walk ends at the
first row that is too young.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, delete, literal_column, or_, select, update

from gapless.ledger import quarantine
from gapless.ledger.dead_letters import ERASED
from gapless.ledger.passes import PassKind
from gapless.ledger.tables import (
    ATTEMPT,
    DELIVERY,
    DESTINATION,
    EVENT,
    PASS,
    PAYLOAD,
    QUARANTINE,
    RECEIPT,
    SHOWN,
    SLICE,
)

LIMIT = 500
"""Rows looked at in one transaction."""
FEWEST_KEPT = 20
"""Attempts of each delivery that are always kept, however few are wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """The number of deleted rows, and the key to continue after; None: the walk is over."""

    count: int
    after: int | None


def prune_deliveries(
    connection: Connection, destination_id: int, before_us: int, *, after: int = 0, limit: int = LIMIT
) -> Pruned:
    """Delete deliveries that were delivered, or erased, before `before_us`, starting after event `after`."""
    query = (
        select(*(DELIVERY.c[name] for name in ("event_seq", "state", "reason", "created_us", "done_us")))
        .where(DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq > after)
        .order_by(DELIVERY.c.event_seq)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    old = [row.event_seq for row in rows if _is_done(row) and (row.done_us or 0) < before_us]
    is_done = or_(DELIVERY.c.state == "delivered", DELIVERY.c.reason == ERASED)
    mine = (DELIVERY.c.destination_id == destination_id, is_done)
    connection.execute(delete(DELIVERY).where(*mine, DELIVERY.c.event_seq.in_(old)))
    has_more = len(rows) == limit and rows[-1].created_us < before_us
    return Pruned(count=len(old), after=rows[-1].event_seq if has_more else None)


def _is_done(row: Any) -> bool:
    return bool(row.state == "delivered" or (row.state == "dead" and row.reason == ERASED))


def prune_attempts(connection: Connection, before_us: int, *, after: int = 0, limit: int = LIMIT) -> Pruned:
    """Delete attempts made before `before_us`, whatever their delivery's state."""
    old, more = _old_ids(connection, ATTEMPT.c.id, ATTEMPT.c.at_us, before_us, after, limit)
    connection.execute(delete(ATTEMPT).where(ATTEMPT.c.id.in_(old)))
    return Pruned(count=len(old), after=more)


def trim_attempts(
    connection: Connection, destination_id: int, most: int, *, after: int = 0, limit: int = LIMIT // 10
) -> Pruned:
    """Delete all but the newest `most` attempts of each delivery, starting after event `after`.

    A delivery that is requeued or replayed again and again would otherwise have any number of them. `most` is at least
    `FEWEST_KEPT`, for which there is an index.
    """
    many: ColumnElement[bool] = literal_column(f"delivery.attempts_kept > {FEWEST_KEPT}")  # as the index says
    next_ones = (DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq > after)
    query = select(DELIVERY.c.event_seq).where(*next_ones, many, DELIVERY.c.attempts_kept > most)
    seqs = list(connection.execute(query.order_by(DELIVERY.c.event_seq).limit(limit)).scalars())
    count = sum(_trim(connection, destination_id, seq, most) for seq in seqs)
    return Pruned(count=count, after=seqs[-1] if len(seqs) == limit else None)


def _trim(connection: Connection, destination_id: int, seq: int, most: int) -> int:
    mine = (ATTEMPT.c.event_seq == seq, ATTEMPT.c.destination_id == destination_id)
    oldest_kept = select(ATTEMPT.c.id).where(*mine).order_by(ATTEMPT.c.id.desc()).offset(most - 1).limit(1)
    last = connection.execute(oldest_kept).scalar()
    count = 0
    if last is not None:
        count = connection.execute(delete(ATTEMPT).where(*mine, ATTEMPT.c.id < last)).rowcount
    this = (DELIVERY.c.destination_id == destination_id, DELIVERY.c.event_seq == seq)
    connection.execute(update(DELIVERY).where(*this).values(attempts_kept=most))
    return count


def prune_payloads(connection: Connection, before_us: int, *, after: int = 0, limit: int = LIMIT) -> Pruned:
    """Delete payloads stored before `before_us`, except those that a delivery still needs, dead letters included."""
    old, more = _old_ids(connection, PAYLOAD.c.id, PAYLOAD.c.stored_us, before_us, after, limit)
    if not old:
        return Pruned(count=0, after=None)
    kept = _owed_payloads(connection, old[0], old[-1])
    gone = connection.execute(delete(PAYLOAD).where(PAYLOAD.c.id.in_([each for each in old if each not in kept])))
    return Pruned(count=gone.rowcount, after=more)


def _owed_payloads(connection: Connection, first: int, last: int) -> set[int]:
    """Return those payloads between two ids that a delivery still needs: each is looked up by the delivery's key."""
    found = select(EVENT.c.seq, EVENT.c.payload_id).where(EVENT.c.payload_id.between(first, last))
    payload_of = {row.seq: row.payload_id for row in connection.execute(found)}
    ids = list(connection.execute(select(DESTINATION.c.id)).scalars())
    mine = (DELIVERY.c.destination_id.in_(ids), DELIVERY.c.event_seq.in_(payload_of), DELIVERY.c.state != "delivered")
    return {payload_of[seq] for seq in connection.execute(select(DELIVERY.c.event_seq).where(*mine)).scalars()}


def prune_receipts(connection: Connection, before_us: int, *, after: int = 0, limit: int = LIMIT) -> Pruned:
    """Delete receipts that came before `before_us`."""
    old, more = _old_ids(connection, RECEIPT.c.id, RECEIPT.c.at_us, before_us, after, limit)
    connection.execute(delete(RECEIPT).where(RECEIPT.c.id.in_(old)))
    return Pruned(count=len(old), after=more)


def prune_passes(
    connection: Connection, before_us: int, *, only_clean: bool = False, after: int = 0, limit: int = LIMIT
) -> Pruned:
    """Delete passes that began before `before_us` and their slices, except those that go on or wait for a person.

    `only_clean`: only the scheduled ones that found nothing.
    """
    began, more = _old_ids(connection, PASS.c.id, PASS.c.started_us, before_us, after, limit)
    ended = select(PASS.c.id).where(PASS.c.id.in_(began), PASS.c.state == "finished")
    if only_clean:
        ended = ended.where(PASS.c.kind == PassKind.SCHEDULED.value, PASS.c.outcome == "clean")
    old = connection.execute(ended).scalars().all()
    slices = select(SLICE.c.id).where(SLICE.c.pass_id.in_(old))
    connection.execute(delete(SHOWN).where(SHOWN.c.slice_id.in_(slices)))
    connection.execute(delete(SLICE).where(SLICE.c.pass_id.in_(old)))
    connection.execute(delete(PASS).where(PASS.c.id.in_(old)))
    return Pruned(count=len(old), after=more)


def prune_quarantine(
    connection: Connection, before_us: int, *, now_us: int, after: int = 0, limit: int = LIMIT
) -> Pruned:
    """Purge refused webhooks that came before `before_us`: what they claimed stays for a while."""
    old, more = _old_ids(connection, QUARANTINE.c.id, QUARANTINE.c.received_us, before_us, after, limit)
    whole = select(QUARANTINE.c.source_id, QUARANTINE.c.id)
    whole = whole.where(QUARANTINE.c.id.in_(old), QUARANTINE.c.purged_us.is_(None))
    ids: defaultdict[int, list[int]] = defaultdict(list)
    for source_id, quarantine_id in connection.execute(whole):
        ids[source_id].append(quarantine_id)
    for source_id in sorted(ids):
        quarantine.purge(connection, source_id, ids[source_id], now_us)
    return Pruned(count=sum(map(len, ids.values())), after=more)


def _old_ids(
    connection: Connection, key: Column[int], time: Column[int], before_us: int, after: int, limit: int
) -> tuple[list[int], int | None]:
    """Return the keys of the next rows from before `before_us`, and the key to continue after; None: the walk is over.

    Not more than `limit` rows are looked at.
    """
    rows = connection.execute(select(key, time).where(key > after).order_by(key).limit(limit)).all()
    has_more = len(rows) == limit and rows[-1][1] < before_us
    return [row[0] for row in rows if row[1] < before_us], rows[-1][0] if has_more else None
