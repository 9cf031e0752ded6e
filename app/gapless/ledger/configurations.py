"""The generations of configurations: a process that was started with an older one retires and brings back nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, update

from gapless.ledger.engine import dialect
from gapless.ledger.tables import CONFIGURATION, SLOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The generation of a process's configuration, and whether it is in force."""

    generation: int | None
    """None: the ledger does not know the configuration."""
    in_force: bool
    withheld: tuple[str, ...] = ()
    """The changes that the configuration asks for, and that were not made because it is not in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderProcess:
    """A running process whose configuration was not in force when it started."""

    holder: str
    generation: int
    withheld: tuple[str, ...]


def find(connection: Connection, digest: str) -> Standing:
    """Return the standing of the configuration with that digest."""
    generation = _generation(connection, digest)
    return Standing(generation=generation, in_force=generation is not None and generation == newest(connection))


def enter(connection: Connection, digest: str, now_us: int) -> Standing:
    """Return the standing of a daemon's configuration. One that was never seen before gets the next generation."""
    if _generation(connection, digest) is None:
        dialect.insert_or_ignore(connection, CONFIGURATION, {"digest": digest, "first_us": now_us})
    return find(connection, digest)


def activate(connection: Connection, digest: str, now_us: int) -> Standing:
    """Put the configuration in force: it gets the next generation, unless it has the newest. Return its standing."""
    known = find(connection, digest)
    if not known.in_force:
        connection.execute(delete(CONFIGURATION).where(CONFIGURATION.c.digest == digest))
    return enter(connection, digest, now_us)


def newest(connection: Connection) -> int | None:
    """Return the generation that is in force; None: no daemon has entered one."""
    found: int | None = connection.execute(select(func.max(CONFIGURATION.c.generation))).scalar()
    return found


def note_process(connection: Connection, slot: int, standing: Standing | None) -> None:
    """Note the standing of the process that holds the slot; None: it is a command."""
    withheld = None if standing is None or standing.in_force else json.dumps(standing.withheld)
    generation = None if standing is None else standing.generation
    values = {"generation": generation, "withheld": withheld}
    connection.execute(update(SLOT).where(SLOT.c.slot == slot).values(**values))


def older_processes(connection: Connection) -> list[OlderProcess]:
    """Return the running processes whose configuration was not in force when they started."""
    is_alive = (SLOT.c.holder.is_not(None), SLOT.c.lease_until_us >= dialect.database_now_us(connection))
    query = select(SLOT.c.holder, SLOT.c.generation, SLOT.c.withheld).where(*is_alive, SLOT.c.withheld.is_not(None))
    return [
        OlderProcess(holder=holder, generation=generation, withheld=tuple(_texts(withheld)))
        for holder, generation, withheld in connection.execute(query.order_by(SLOT.c.slot))
    ]


def _texts(encoded: str) -> Sequence[str]:
    texts: list[str] = json.loads(encoded)
    return texts


def _generation(connection: Connection, digest: str) -> int | None:
    query = select(CONFIGURATION.c.generation).where(CONFIGURATION.c.digest == digest)
    found: int | None = connection.execute(query).scalar()
    return found
