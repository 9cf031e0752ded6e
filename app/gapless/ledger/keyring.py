"""Gives the keys of a process to its connections, so that no statement can forget them.

It does not import the tables, which are slow to import and which commands that only read a little do not need.
"""

from typing import Final

from sqlalchemy import Connection, column, select, table

from gapless.sealing import Keyring

OPTION: Final = "gapless_keyring"
"""The name of the keys among the execution options of a connection."""
NO_KEYS: Final = Keyring()


def options(ring: Keyring) -> dict[str, object]:
    """Return the options of connections that seal and open with these keys."""
    return {OPTION: ring}


def ring_of(connection: Connection) -> Keyring:
    """Return the keys of the process."""
    ring: Keyring = connection.get_execution_options().get(OPTION, NO_KEYS)
    return ring


def was_sealed(connection: Connection) -> bool:
    """Return True if a process ever had a key for this ledger."""
    return connection.execute(select(column("id")).select_from(table("encryption_key")).limit(1)).first() is not None
