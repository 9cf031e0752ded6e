"""Leases on sources and on writer slots by the database's clock, and the downtimes that the slots' heartbeats show.

A lease has an epoch. Every state write of a pass goes through `fence`, in the same transaction: it
locks the row, checks the epoch and renews the lease. If it raises `LeaseLost`, another process holds
the source, and the transaction must not take effect.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, case, delete, false, insert, or_, select, update

from gapless.clock import TOLERANCE_US
from gapless.domain import span_us
from gapless.ledger import engine
from gapless.ledger.engine import dialect
from gapless.ledger.sources import READABLE
from gapless.ledger.tables import DOWNTIME, EVENT, SLOT, SOURCE

SOURCE_LEASE = timedelta(seconds=30)
SLOT_LEASE = timedelta(seconds=30)
OUTAGE = timedelta(seconds=5)
"""A longer time without a receiver counts as downtime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockOffset:
    """How far the machine of a running receiver is ahead of the database's clock."""

    holder: str
    offset: timedelta


class LeaseLost(Exception):
    """Another process holds this lease now: stop, and write nothing."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write a source's state while the epoch is the current one."""

    source_id: int
    epoch: int
    taken_us: int = 0
    """The time of the claim by the caller's clock."""


def claim(
    connection: Connection,
    source_id: int,
    holder: str,
    now_us: int,
    ttl: timedelta = SOURCE_LEASE,
    *,
    is_idle: bool = False,
    for_siblings: bool = False,
    settle_us: int = 0,
) -> Lease | None:
    """Take the source if its next pass is due and nobody holds it; return the lease, or None.

    `is_idle`: nothing of `holder` works under a lease of this source any more, so that it may take its own again.
    `for_siblings`: webhooks that came since the last run make it due as well, and its next pass is this one: a later
    due time than this means that it was made due again during the run. `settle_us`: one that came less than
    that ago is not followed by this run, because what was lost with it is too young to be recorded.
    """
    clock = dialect.database_now_us(connection)
    own = SOURCE.c.lease_holder == holder if is_idle else false()
    statement = (
        update(SOURCE)
        .where(
            SOURCE.c.id == source_id,
            SOURCE.c.state.in_(READABLE),
            or_(SOURCE.c.next_pass_us <= now_us, SOURCE.c.unread_us.is_not(None) if for_siblings else false()),
            or_(SOURCE.c.lease_until_us < clock, SOURCE.c.lease_holder.is_(None), own),
        )
        .values(
            lease_holder=holder,
            lease_epoch=SOURCE.c.lease_epoch + 1,
            lease_until_us=clock + span_us(ttl),
            read_us=now_us,
            next_pass_us=case((SOURCE.c.next_pass_us > now_us, now_us), else_=SOURCE.c.next_pass_us),
            unread_us=case((SOURCE.c.last_webhook_us > now_us - settle_us, SOURCE.c.last_webhook_us), else_=None),
        )
        .returning(SOURCE.c.lease_epoch)
    )
    epoch = connection.execute(statement).scalar()
    return None if epoch is None else Lease(source_id, epoch, now_us)


def fence(connection: Connection, lease: Lease, ttl: timedelta = SOURCE_LEASE) -> None:
    """Renew the lease and hold its row until this transaction ends. Raises `LeaseLost`."""
    clock = dialect.database_now_us(connection)
    where = (SOURCE.c.id == lease.source_id, SOURCE.c.lease_epoch == lease.epoch, SOURCE.c.lease_holder.is_not(None))
    if connection.execute(update(SOURCE).where(*where).values(lease_until_us=clock + span_us(ttl))).rowcount != 1:
        raise LeaseLost(f"source {lease.source_id}: epoch {lease.epoch} is over")


def release(
    connection: Connection,
    lease: Lease,
    *,
    next_pass_us: int,
    wait_us: int,
    interval_us: int,
    waiting_until_us: int | None = None,
    unpaid_until_us: int | None = None,
) -> None:
    """Give the source back with its next due time, the wait until then, its interval, and the provider's pause.

    `unpaid_until_us`: when a reading that was put off can be paid for; None: none was.

    Raises `LeaseLost`.
    """
    fence(connection, lease)
    values = {
        "lease_holder": None,
        "lease_until_us": 0,
        "next_pass_us": next_pass_us,
        "wait_us": wait_us,
        "interval_us": interval_us,
        "waiting_until_us": waiting_until_us,
        "unpaid_until_us": unpaid_until_us,
    }
    connection.execute(update(SOURCE).where(SOURCE.c.id == lease.source_id).values(**values))


def clear(connection: Connection) -> None:
    """Clear every lease. Only for a process that holds the ledger alone, so that no holder is alive."""
    connection.execute(update(SOURCE).values(lease_holder=None, lease_until_us=0))
    connection.execute(update(SLOT).values(holder=None, lease_until_us=0))


def take_slot(connection: Connection, holder: str, *, receives: bool) -> int:
    """Take the lowest writer slot that nobody holds, and return it."""
    clock = dialect.database_now_us(connection)
    until_us = clock + span_us(SLOT_LEASE)
    taken = {
        "holder": holder,
        "receives": receives,
        "heartbeat_us": clock,
        "lease_until_us": until_us,
        "clock_offset_us": None,
    }
    for slot in range(1024):
        dialect.insert_or_ignore(connection, SLOT, {"slot": slot})
        free = or_(SLOT.c.lease_until_us < clock, SLOT.c.holder.is_(None))
        if connection.execute(update(SLOT).where(SLOT.c.slot == slot, free).values(**taken)).rowcount == 1:
            return slot
    raise engine.StoreInvalid("all 1024 writer slots are held; is something starting processes in a loop?")


def note_downtime(connection: Connection) -> None:
    """Record the time since the last receiver's heartbeat as downtime if it exceeds `OUTAGE`.

    Call it before a receiver takes its slot. A heartbeat in the future proves nothing: it counts as one of now.
    """
    clock = dialect.database_now_us(connection)
    ahead = SLOT.c.heartbeat_us > clock + TOLERANCE_US
    connection.execute(update(SLOT).where(ahead).values(heartbeat_us=clock))
    query = select(SLOT.c.heartbeat_us).where(SLOT.c.receives).order_by(SLOT.c.heartbeat_us.desc()).limit(1)
    last = connection.execute(query).scalar()
    if last and clock - last > span_us(OUTAGE):
        connection.execute(insert(DOWNTIME).values(start_us=last, end_us=clock))


def beat(connection: Connection, slot: int, holder: str, silent: timedelta, offset: timedelta = timedelta(0)) -> None:
    """Renew the writer slot, and record downtime if there was any. Raises `LeaseLost` if another process took it.

    `silent` is the time that has elapsed since this process renewed it before. While that is short, the process was
    there, whatever a clock that jumped says. `offset` is how far its machine is ahead of the database's clock.
    """
    if silent > OUTAGE:
        note_downtime(connection)
    clock = dialect.database_now_us(connection)
    values = {
        "heartbeat_us": clock,
        "lease_until_us": clock + span_us(SLOT_LEASE),
        "clock_offset_us": span_us(offset),
    }
    where = (SLOT.c.slot == slot, SLOT.c.holder == holder)
    if connection.execute(update(SLOT).where(*where).values(**values)).rowcount != 1:
        raise LeaseLost(f"writer slot {slot} was taken over")


def clock_offsets(connection: Connection) -> list[ClockOffset]:
    """Return how far the machines of the running receivers are ahead of the database's clock, as far as they said."""
    is_alive = (SLOT.c.holder.is_not(None), SLOT.c.lease_until_us >= dialect.database_now_us(connection))
    query = select(SLOT.c.holder, SLOT.c.clock_offset_us).where(
        *is_alive, SLOT.c.receives, SLOT.c.clock_offset_us.is_not(None)
    )
    rows = connection.execute(query.order_by(SLOT.c.slot))
    return [ClockOffset(holder=holder, offset=timedelta(microseconds=us)) for holder, us in rows]


def try_write(connection: Connection, slot: int) -> None:
    """Write without changing anything, to find out whether the ledger can be written. Raises `StoreError`.

    It takes the locks that a webhook needs, so it also meets a locked table.
    """
    connection.execute(delete(EVENT).where(false()))
    connection.execute(update(SLOT).where(SLOT.c.slot == slot).values(slot=SLOT.c.slot))


def leave_slot(connection: Connection, slot: int, holder: str) -> None:
    """Give the writer slot back; its last heartbeat stays, so that downtime can be computed."""
    clock = dialect.database_now_us(connection)
    values = {"holder": None, "lease_until_us": 0, "heartbeat_us": clock}
    connection.execute(update(SLOT).where(SLOT.c.slot == slot, SLOT.c.holder == holder).values(**values))


def downtimes(connection: Connection, start_us: int, end_us: int) -> list[tuple[int, int]]:
    """Return the times in which no process received, as (start, end), that touch `[start_us, end_us)`."""
    where = (DOWNTIME.c.end_us > start_us, DOWNTIME.c.start_us < end_us)
    return [(row.start_us, row.end_us) for row in connection.execute(select(DOWNTIME).where(*where))]
