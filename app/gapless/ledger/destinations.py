"""Rows of destinations; the deliveries of a retired one are parked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, select, update

from gapless.domain import to_us
from gapless.ledger.engine import dialect
from gapless.ledger.tables import DELIVERY, DESTINATION


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDestination:
    """The part of a destination's row that operations need."""

    id: int
    name: str
    state: str


def destination(connection: Connection, name: str) -> StoredDestination | None:
    """Return the destination of that name, or None."""
    columns = (DESTINATION.c.id, DESTINATION.c.name, DESTINATION.c.state)
    row = connection.execute(select(*columns).where(DESTINATION.c.name == name)).mappings().first()
    return None if row is None else StoredDestination(**row)


def names(connection: Connection) -> set[str]:
    """Return the names of all destinations, retired ones too."""
    return set(connection.execute(select(DESTINATION.c.name)).scalars())


def register_destination(connection: Connection, name: str, since: datetime, *, in_force: bool = True) -> int:
    """Return the id of the destination `name`; a new one owes events that occur from `since` on.

    One that was retired becomes active again, unless the configuration is an older one (`in_force` False).
    """
    dialect.insert_or_ignore(connection, DESTINATION, {"name": name, "since_us": to_us(since)})
    where = DESTINATION.c.name == name
    row = connection.execute(select(DESTINATION.c.id, DESTINATION.c.state).where(where)).one()
    if row.state == "retired" and in_force:
        connection.execute(update(DESTINATION).where(where).values(state="active"))
        unpark = (DELIVERY.c.destination_id == row.id, DELIVERY.c.state == "parked")
        connection.execute(update(DELIVERY).where(*unpark).values(state="pending", reason=None))
    return int(row.id)


def retire_absent_destinations(connection: Connection, configured: Sequence[str]) -> list[str]:
    """Retire the destinations that are no longer configured, park their deliveries, and return their names."""
    gone = absent(connection, configured)
    for row in gone:
        connection.execute(update(DESTINATION).where(DESTINATION.c.id == row.id).values(state="retired"))
        pending = (DELIVERY.c.destination_id == row.id, DELIVERY.c.state == "pending")
        connection.execute(update(DELIVERY).where(*pending).values(state="parked", reason="destination_retired"))
    return [row.name for row in gone]


def absent(connection: Connection, configured: Sequence[str]) -> list[StoredDestination]:
    """Return the destinations that are not configured and not retired, by name."""
    return _in(connection, DESTINATION.c.name.not_in(configured), DESTINATION.c.state != "retired")


def retired(connection: Connection, configured: Sequence[str]) -> list[StoredDestination]:
    """Return the destinations that are configured and retired, by name."""
    return _in(connection, DESTINATION.c.name.in_(configured), DESTINATION.c.state == "retired")


def _in(connection: Connection, *where: ColumnElement[bool]) -> list[StoredDestination]:
    columns = (DESTINATION.c.id, DESTINATION.c.name, DESTINATION.c.state)
    query = select(*columns).where(*where).order_by(DESTINATION.c.name)
    return [StoredDestination(**row) for row in connection.execute(query).mappings()]


def destination_since(connection: Connection, destination_id: int) -> int:
    """Return the time from which events are owed to the destination, in microseconds."""
    where = DESTINATION.c.id == destination_id
    return int(connection.execute(select(DESTINATION.c.since_us).where(where)).scalar_one())
