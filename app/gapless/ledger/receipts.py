"""What handlers have applied, by a delivery or by themselves, so that it is not delivered to them again.

A receipt may come before or after the event is recorded. What is owed when it comes is settled with it
(`deliveries.settle_applied`). One that was there before is looked for when the delivery is made, and once more when it
is about to be attempted, so the order does not matter.
"""

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import ColumnElement, Connection, exists, select, tuple_

from gapless.ledger.engine import dialect
from gapless.ledger.tables import EVENT, RECEIPT

EVERY_HANDLER = 0
"""In place of a destination: the event was imported, which speaks for every handler that has a webhook of its own."""
COLUMNS = ("source_id", "key", "destination_id", "at_us")


def record(connection: Connection, source_id: int, destination_id: int, keys: Iterable[str], now_us: int) -> int:
    """Record that a handler has processed these events; return how many receipts are new."""
    rows = [(source_id, key, destination_id, now_us) for key in sorted(set(keys))]
    return len(dialect.insert_new(connection, RECEIPT, COLUMNS, rows, COLUMNS[:3]))


def times(connection: Connection, wanted: Collection[tuple[int, str, int]]) -> dict[tuple[int, str, int], int]:
    """Return when each receipt of `wanted`, (source id, key, destination id), came: of those that are there."""
    columns = (RECEIPT.c.source_id, RECEIPT.c.key, RECEIPT.c.destination_id)
    found = select(*columns, RECEIPT.c.at_us).where(tuple_(*columns).in_(sorted(wanted)))
    return {
        (source_id, key, destination_id): at_us for source_id, key, destination_id, at_us in connection.execute(found)
    }


def has_receipt(destinations: Sequence[int]) -> ColumnElement[bool]:
    """Return the condition that an event was processed by one of these handlers."""
    mine = (RECEIPT.c.source_id == EVENT.c.source_id, RECEIPT.c.key == EVENT.c.key)
    return exists().where(*mine, RECEIPT.c.destination_id.in_(destinations))
