"""What became of one event: its payload, its deliveries with every attempt, its receipts, and how the list shows it."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.events import Event
from gapless.ledger.receipts import EVERY_HANDLER
from gapless.ledger.tables import ABSENCE, ATTEMPT, DELIVERY, DESTINATION, EVENT, FINDING, PAYLOAD, RECEIPT

ATTEMPTS_SHOWN = 200
"""Most attempts of one event that are read, the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEntry:
    """One attempt. Times are microseconds."""

    destination: str
    at_us: int
    duration_us: int
    outcome: str
    detail: str | None


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
    """None: it was imported, or its payload was pruned."""
    deliveries: tuple[DeliveryEntry, ...]
    attempts: tuple[AttemptEntry, ...]
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
    return EventHistory(
        stored=_stored(connection, event.seq),
        deliveries=tuple(_deliveries(connection, event.seq, known, receipts)),
        attempts=tuple(_attempts(connection, event.seq, known)),
        imported_us=receipts.get(EVERY_HANDLER),
        absences=absences,
        absence=connection.execute(absence).scalar(),
        awaited=connection.execute(finding).first() is not None,
    )


def _stored(connection: Connection, seq: int) -> Stored | None:
    query = select(PAYLOAD.c.body, PAYLOAD.c.headers, PAYLOAD.c.stored_us)
    row = connection.execute(
        query.join_from(EVENT, PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id).where(EVENT.c.seq == seq)
    )
    found = row.mappings().first()
    return None if found is None else Stored(**found)


def _deliveries(
    connection: Connection, seq: int, known: dict[int, str], receipts: dict[int, int]
) -> list[DeliveryEntry]:
    names = ("state", "reason", "attempts", "next_us", "created_us", "done_us")
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


def _attempts(connection: Connection, seq: int, known: dict[int, str]) -> list[AttemptEntry]:
    names = ("at_us", "duration_us", "outcome", "detail")
    query = select(ATTEMPT.c.destination_id, *(ATTEMPT.c[name] for name in names)).where(ATTEMPT.c.event_seq == seq)
    newest = connection.execute(query.order_by(ATTEMPT.c.id.desc()).limit(ATTEMPTS_SHOWN)).mappings().all()
    return [
        AttemptEntry(destination=known.get(row["destination_id"], "?"), **{name: row[name] for name in names})
        for row in reversed(newest)
    ]
