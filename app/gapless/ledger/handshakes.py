"""Operators who wait for the secret that the vendor of a source chooses: one at a time for each source.

The secret itself is nowhere: it is kept sealed for that operator's command, and goes when it is taken.
"""

from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from gapless.ledger.tables import HANDSHAKE


class Waiting(NamedTuple):
    """An operator who waits: for whom to seal, until when, and what has come."""

    reader: str
    until_us: int
    sealed: str | None


def wait(connection: Connection, source_id: int, reader: str, until_us: int) -> int:
    """Let `reader` wait for the secret; whoever waited before waits no more."""
    forget(connection, source_id)
    row = {"source_id": source_id, "reader": reader, "until_us": until_us}
    return connection.execute(insert(HANDSHAKE).values(row)).rowcount


def waiting(connection: Connection, source_id: int) -> Waiting | None:
    """Return who waits for the secret of a source, also if the time is over."""
    columns = (HANDSHAKE.c.reader, HANDSHAKE.c.until_us, HANDSHAKE.c.sealed)
    row = connection.execute(select(*columns).where(HANDSHAKE.c.source_id == source_id)).one_or_none()
    return None if row is None else Waiting(*row)


def give(connection: Connection, source_id: int, reader: str, sealed: str, now_us: int) -> bool:
    """Keep what was sealed for `reader`; False if that one waits no more, or has it already: the first one counts."""
    is_waiting = (
        HANDSHAKE.c.source_id == source_id,
        HANDSHAKE.c.reader == reader,
        HANDSHAKE.c.until_us > now_us,
        HANDSHAKE.c.sealed.is_(None),
    )
    return connection.execute(update(HANDSHAKE).where(*is_waiting).values(sealed=sealed)).rowcount == 1


def forget(connection: Connection, source_id: int, reader: str | None = None) -> int:
    """Let nobody wait any more, or `reader` alone."""
    where = HANDSHAKE.c.source_id == source_id
    if reader is not None:
        where &= HANDSHAKE.c.reader == reader
    return connection.execute(delete(HANDSHAKE).where(where)).rowcount
