"""What became of one event: its payload, its deliveries with every attempt, its receipts, and how the list shows it."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from gapless.ledger import attempts, events
from gapless.ledger.attempts import AttemptDetails
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.events import Event
from gapless.ledger.receipts import EVERY_HANDLER
from gapless.ledger.tables import ABSENCE, DELIVERY, DESTINATION, EVENT, FINDING, PAYLOAD, RECEIPT
from gapless.sealing import CannotOpen

ATTEMPTS_SHOWN = 200
"""Most attempts of one event that are read, the oldest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryEntry:
    """One delivery. `next_us` is when it is tried next; it means nothing unless it is pending."""

    destination: str
    state: DeliveryState
    reason: str | None
    attempts: int
    next_us: int
    created_us: int
    done_us: int | None
    answered_us: int | None
    """Of one that needs a receipt: when it was first answered 2xx."""
    applied_us: int | None
    """When that receipt came."""
    receipt_us: int | None
    """When the handler said that it has processed the event; None: it has not said so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The payload of an event. `headers` is a JSON object of the kept headers; None: a list brought it."""

    body: bytes
    headers: str | None
    stored_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHistory:
    """Everything that the ledger knows of one event."""

    stored: Stored | None
    """None: it was imported, its payload was pruned or erased, or no key here opens it."""
    closed: str | None
    """Why the payload cannot be opened; None: it can, or there is none."""
    deliveries: tuple[DeliveryEntry, ...]
    attempts: tuple[AttemptDetails, ...]
    """The oldest first."""
    imported_us: int | None
    """When it was imported as processed before; None: it was not."""
    absences: int
    """Complete listings of its time that did not show it."""
    absence: str | None
    """`open`: the list lacks it, which holds the watermark; `listed` or `accepted`: it did; None: it never did."""
    awaited: bool
    """A list showed it first, and its webhook may still come in time: it is not judged yet."""


def read(connection: Connection, event: Event) -> EventHistory:
    """Return what became of the event."""
    source_id, absences = connection.execute(
        select(EVENT.c.source_id, EVENT.c.absent_count).where(EVENT.c.seq == event.seq)
    ).one()
    known = {row.id: row.name for row in connection.execute(select(DESTINATION.c.id, DESTINATION.c.name))}
    receipts = {
        row.destination_id: row.at_us
        for row in connection.execute(
            select(RECEIPT.c.destination_id, RECEIPT.c.at_us).where(
                RECEIPT.c.source_id == source_id, RECEIPT.c.key == event.key
            )
        )
    }
    finding = select(FINDING.c.key).where(FINDING.c.source_id == source_id, FINDING.c.key == event.key)
    absence = select(ABSENCE.c.state).where(ABSENCE.c.event_seq == event.seq)
    stored, closed = _stored(connection, event.seq)
    return EventHistory(
        stored=stored,
        closed=closed,
        deliveries=tuple(_deliveries(connection, event.seq, known, receipts)),
        attempts=tuple(attempts.of_event(connection, event.seq, limit=ATTEMPTS_SHOWN)),
        imported_us=receipts.get(EVERY_HANDLER),
        absences=absences,
        absence=connection.execute(absence).scalar(),
        awaited=connection.execute(finding).first() is not None,
    )


def _stored(connection: Connection, seq: int) -> tuple[Stored | None, str | None]:
    """Return the payload, or why it cannot be opened."""
    try:
        found = events.payload(connection, seq)
    except CannotOpen as error:
        return None, str(error)
    query = select(PAYLOAD.c.stored_us).join_from(EVENT, PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id)
    at_us = connection.execute(query.where(EVENT.c.seq == seq)).scalar()
    if found is None or at_us is None:
        return None, None
    return Stored(body=found[0], headers=found[1], stored_us=at_us), None


def _deliveries(
    connection: Connection, seq: int, known: dict[int, str], receipts: dict[int, int]
) -> list[DeliveryEntry]:
    names = ("state", "reason", "attempts", "next_us", "created_us", "done_us", "answered_us", "applied_us")
    query = select(DELIVERY.c.destination_id, *(DELIVERY.c[name] for name in names))
    query = query.where(DELIVERY.c.destination_id.in_(known), DELIVERY.c.event_seq == seq)
    found = [
        DeliveryEntry(
            **{**{name: row[name] for name in names}, "state": DeliveryState(row["state"])},
            destination=known[row["destination_id"]],
            receipt_us=receipts.get(row["destination_id"]),
        )
        for row in connection.execute(query).mappings()
    ]
    return sorted(found, key=lambda each: each.destination)
