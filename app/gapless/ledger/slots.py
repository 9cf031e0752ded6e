"""Writer slots: integers leased to processes, so that replicas never share a row of tallies.

The times without a receiver are read from them: downtimes.
"""

from datetime import timedelta

from sqlalchemy import Connection, insert, or_, select, update

from gapless.domain import span_us
from gapless.ledger import engine
from gapless.ledger.engine import dialect
from gapless.ledger.leases import LeaseLost
from gapless.ledger.tables import DOWNTIME, SLOT

SLOT_LEASE = timedelta(seconds=30)


OUTAGE = timedelta(seconds=5)
"""Without a receiver for longer than this is downtime."""


def take_slot(connection: Connection, holder: str, *, receives: bool) -> int:
    """The lowest writer slot that nobody holds."""
    clock = dialect.database_now_us(connection)
    until_us = clock + span_us(SLOT_LEASE)
    taken = {"holder": holder, "receives": receives, "heartbeat_us": clock, "lease_until_us": until_us}
    for slot in range(1024):
        dialect.insert_or_ignore(connection, SLOT, {"slot": slot})
        free = or_(SLOT.c.lease_until_us < clock, SLOT.c.holder.is_(None))
        if connection.execute(update(SLOT).where(SLOT.c.slot == slot, free).values(**taken)).rowcount == 1:
            return slot
    raise engine.StoreInvalid("all 1024 writer slots are held; is something starting processes in a loop?")


def note_downtime(connection: Connection) -> None:
    """Write down the time since the last receiver's heartbeat, if it is long: none was up, or all were paused.

    Call it before a receiver takes its slot.
    """
    clock = dialect.database_now_us(connection)
    query = select(SLOT.c.heartbeat_us).where(SLOT.c.receives).order_by(SLOT.c.heartbeat_us.desc()).limit(1)
    last = connection.execute(query).scalar()
    if last and clock - last > span_us(OUTAGE):
        connection.execute(insert(DOWNTIME).values(start_us=last, end_us=clock))


def beat(connection: Connection, slot: int, holder: str) -> None:
    """Renew the writer slot, and note if nobody beat for long. Raises `LeaseLost` if another process took it."""
    note_downtime(connection)
    clock = dialect.database_now_us(connection)
    values = {"heartbeat_us": clock, "lease_until_us": clock + span_us(SLOT_LEASE)}
    where = (SLOT.c.slot == slot, SLOT.c.holder == holder)
    if connection.execute(update(SLOT).where(*where).values(**values)).rowcount != 1:
        raise LeaseLost(f"writer slot {slot} was taken over")


def leave_slot(connection: Connection, slot: int, holder: str) -> None:
    """Give the writer slot back; its last heartbeat stays, so that downtime is known."""
    clock = dialect.database_now_us(connection)
    values = {"holder": None, "lease_until_us": 0, "heartbeat_us": clock}
    connection.execute(update(SLOT).where(SLOT.c.slot == slot, SLOT.c.holder == holder).values(**values))


def downtimes(connection: Connection, start_us: int, end_us: int) -> list[tuple[int, int]]:
    """When no process received, as far as it touches `[start, end)`."""
    where = (DOWNTIME.c.end_us > start_us, DOWNTIME.c.start_us < end_us)
    return [(row.start_us, row.end_us) for row in connection.execute(select(DOWNTIME).where(*where))]
