"""Looks out of turn that are stored, so that another process, or this one after a restart, goes on with them."""

from collections.abc import Mapping

import msgspec
from sqlalchemy import Connection, case, or_, select, update

from gapless.ledger.tables import SOURCE

REFUSED, DOUBTED, LATE = "refused", "doubted", "late"
"""Reasons that the receiver notices; see `reconcile.urgency.Reason`."""
SOON_US = 30_000_000
"""The wait before a look for such a reason, in microseconds."""


class StoredLook(msgspec.Struct, frozen=True, kw_only=True):
    """The next look at a source: its reason, when it is due, and the wait that ends then. Times are microseconds."""

    reason: str
    due_us: int
    wait_us: int
    put_off_us: int = 0
    """The part of the wait for which it could not be paid for."""


def read(connection: Connection, source_id: int) -> StoredLook | None:
    """Return the next look at the source; None: none is wanted."""
    text = connection.execute(select(SOURCE.c.look).where(SOURCE.c.id == source_id)).scalar()
    return None if text is None else msgspec.json.decode(text, type=StoredLook)


def note(connection: Connection, source_id: int, look: StoredLook | None) -> None:
    """Store the next look. The due time of the source is not changed."""
    text = None if look is None else msgspec.json.encode(look).decode()
    connection.execute(update(SOURCE).where(SOURCE.c.id == source_id).values(look=text))


def want(connection: Connection, source_id: int, look: StoredLook, now_us: int) -> None:
    """Let the source be looked at by the time of `look`, unless it is due sooner."""
    known = read(connection, source_id)
    if known is None or known.due_us > look.due_us:
        note(connection, source_id, look)
    sooner = (SOURCE.c.id == source_id, SOURCE.c.next_pass_us > look.due_us)
    wait_us = max(look.due_us - now_us, 1)
    connection.execute(update(SOURCE).where(*sooner).values(next_pass_us=look.due_us, wait_us=wait_us))


def want_soon(connection: Connection, noticed: Mapping[int, int], reason: str) -> None:
    """Let sources be looked at soon after something was noticed: `noticed` has the time by the id of the source."""
    for source_id, at_us in sorted(noticed.items()):
        want(connection, source_id, StoredLook(reason=reason, due_us=at_us + SOON_US, wait_us=SOON_US), at_us)


def first_unread(at_us: int) -> dict[str, object]:
    """Return the values of a source's row when a webhook came at `at_us`."""
    is_first = or_(SOURCE.c.unread_us.is_(None), SOURCE.c.unread_us > at_us)
    return {"unread_us": case((is_first, at_us), else_=SOURCE.c.unread_us)}
