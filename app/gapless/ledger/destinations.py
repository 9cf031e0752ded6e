"""Rows of destinations, and their pauses; the deliveries of a retired one are parked."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, select, update

from gapless.domain import to_us
from gapless.ledger.engine import dialect
from gapless.ledger.ordering import DELIVERY_CHANNEL
from gapless.ledger.tables import DELIVERY, DESTINATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Since when nothing is sent to a destination, in microseconds, who paused it, and why."""

    since_us: int
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDestination:
    """The row of a destination."""

    id: int
    name: str
    state: str
    since_us: int
    """Events that occurred before it are not owed, in microseconds."""
    pause: Pause | None
    """None: it is not paused."""


def destination(connection: Connection, name: str) -> StoredDestination | None:
    """Return the destination of that name, or None."""
    return next(iter(_in(connection, DESTINATION.c.name == name)), None)


def every(connection: Connection) -> list[StoredDestination]:
    """Return all destinations, retired ones too, by name."""
    return _in(connection)


def pause(connection: Connection, destination_id: int, pause: Pause) -> None:
    """Send nothing to the destination until `resume`; every process heeds it within a second or two."""
    values = {"paused_us": pause.since_us, "paused_by": pause.by, "paused_reason": pause.reason}
    connection.execute(update(DESTINATION).where(DESTINATION.c.id == destination_id).values(**values))
    dialect.notify(connection, DELIVERY_CHANNEL)


def resume(connection: Connection, destination_id: int, now_us: int) -> None:
    """Send to the destination again."""
    values = {"paused_us": None, "paused_by": None, "paused_reason": None, "resumed_us": now_us}
    connection.execute(update(DESTINATION).where(DESTINATION.c.id == destination_id).values(**values))
    dialect.notify(connection, DELIVERY_CHANNEL)


def names(connection: Connection) -> set[str]:
    """Return the names of all destinations, retired ones too."""
    return set(connection.execute(select(DESTINATION.c.name)).scalars())


def register_destination(
    connection: Connection, name: str, since: datetime, *, in_force: bool = True, paused: Pause | None = None
) -> int:
    """Return the id of the destination `name`; a new one owes events that occur from `since` on.

    `paused`: the pause in which a new one begins. One that was retired becomes active again, unless the configuration
    is an older one (`in_force` False).
    """
    begins = (
        {} if paused is None else {"paused_us": paused.since_us, "paused_by": paused.by, "paused_reason": paused.reason}
    )
    dialect.insert_or_ignore(connection, DESTINATION, {"name": name, "since_us": to_us(since), **begins})
    where = DESTINATION.c.name == name
    row = connection.execute(select(DESTINATION.c.id, DESTINATION.c.state).where(where)).one()
    if row.state == "retired" and in_force:
        connection.execute(update(DESTINATION).where(where).values(state="active"))
        mine = (DELIVERY.c.destination_id == row.id, DELIVERY.c.state == "parked")
        unpark = (*mine, DELIVERY.c.reason == "destination_retired")  # those of a retired source stay
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
    query = select(DESTINATION).where(*where).order_by(DESTINATION.c.name)
    return [
        StoredDestination(
            id=row["id"],
            name=row["name"],
            state=row["state"],
            since_us=row["since_us"],
            pause=pause_of(row["paused_us"], row["paused_by"], row["paused_reason"]),
        )
        for row in connection.execute(query).mappings()
    ]


def pause_of(since_us: int | None, by: str | None, reason: str | None) -> Pause | None:
    """Return the pause that these columns hold; None: there is none."""
    return None if since_us is None else Pause(since_us=since_us, by=by or "", reason=reason or "")


def destination_since(connection: Connection, destination_id: int) -> int:
    """Return the time from which events are owed to the destination, in microseconds."""
    where = DESTINATION.c.id == destination_id
    return int(connection.execute(select(DESTINATION.c.since_us).where(where)).scalar_one())
