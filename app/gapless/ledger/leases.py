"""Leases on sources and on writer slots, judged by the database's clock.

A lease has an epoch. Every state write of a pass goes through `fence`, in the same transaction: it
takes the row's lock, checks the epoch and renews. If it raises `LeaseLost`, another process holds
the source, and nothing of the transaction may take effect.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, or_, update

from gapless.domain import span_us
from gapless.ledger.engine import dialect
from gapless.ledger.tables import SLOT, SOURCE

SOURCE_LEASE = timedelta(seconds=30)


class LeaseLost(Exception):
    """Another process holds what this one thought it held: stop, and write nothing."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write a source's state, as long as the epoch stands."""

    source_id: int
    epoch: int
    taken_us: int = 0
    """When it was claimed, by the caller's clock."""


def claim(
    connection: Connection, source_id: int, holder: str, now_us: int, ttl: timedelta = SOURCE_LEASE
) -> Lease | None:
    """Take the source if its next pass is due and nobody holds it."""
    clock = dialect.database_now_us(connection)
    statement = (
        update(SOURCE)
        .where(
            SOURCE.c.id == source_id,
            SOURCE.c.state == "active",
            SOURCE.c.next_pass_us <= now_us,
            or_(SOURCE.c.lease_until_us < clock, SOURCE.c.lease_holder.is_(None)),
        )
        .values(lease_holder=holder, lease_epoch=SOURCE.c.lease_epoch + 1, lease_until_us=clock + span_us(ttl))
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


def release(connection: Connection, lease: Lease, *, next_pass_us: int, interval_us: int | None) -> None:
    """Give the source back and say when it is due. Raises `LeaseLost`."""
    fence(connection, lease)
    values = {"lease_holder": None, "lease_until_us": 0, "next_pass_us": next_pass_us, "interval_us": interval_us}
    connection.execute(update(SOURCE).where(SOURCE.c.id == lease.source_id).values(**values))


def clear(connection: Connection) -> None:
    """Forget every lease. Only for a process that holds the ledger alone: whoever had them is dead."""
    connection.execute(update(SOURCE).values(lease_holder=None, lease_until_us=0))
    connection.execute(update(SLOT).values(holder=None, lease_until_us=0))
