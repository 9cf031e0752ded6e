"""What handlers have processed themselves, so that it is not delivered to them as well.

A receipt may come before or after the event is recorded. It is looked for when a delivery is about to be attempted, so
the order does not matter.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, Connection, exists

from gapless.ledger.engine import dialect
from gapless.ledger.tables import EVENT, RECEIPT

EVERY_HANDLER = 0
"""In place of a destination: the event was imported, which speaks for every handler that has a webhook of its own."""
COLUMNS = ("source_id", "key", "destination_id", "at_us")


def record(connection: Connection, source_id: int, destination_id: int, keys: Iterable[str], now_us: int) -> int:
    """Record that a handler has processed these events; return how many receipts are new."""
    rows = [(source_id, key, destination_id, now_us) for key in sorted(set(keys))]
    return len(dialect.insert_new(connection, RECEIPT, COLUMNS, rows, COLUMNS[:3]))


def has_receipt(destinations: Sequence[int]) -> ColumnElement[bool]:
    """Return the condition that an event was processed by one of these handlers."""
    mine = (RECEIPT.c.source_id == EVENT.c.source_id, RECEIPT.c.key == EVENT.c.key)
    return exists().where(*mine, RECEIPT.c.destination_id.in_(destinations))
