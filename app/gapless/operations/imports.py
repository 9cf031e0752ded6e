"""Imports events that handlers have processed, and takes their receipts."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from gapless.domain import Source, Via
from gapless.ledger import Connection, deliveries, destinations, receipts, streams
from gapless.ledger.recorder import Recorder, Sighting
from gapless.operations.context import AwareTime, Keys, Name, OperationContext, OperationRefused, OperationRequest
from gapless.operations.principals import AccessRole
from gapless_reconcilers.kit.contract import RemoteEvent, check_text

IMPORT_BATCH = 500
"""Events recorded in one transaction: about a page."""
RECEIPT_BATCH = 1000
"""Receipts recorded in one transaction, because webhooks wait for it."""


class ImportedEvent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event that was processed already."""

    key: str
    type: str = "unknown"
    occurred_at: AwareTime | None = None


class ImportEvents(OperationRequest, frozen=True, kw_only=True):
    """Record events as processed. They are owed only to destinations whose `via` includes imports."""

    operation = "import"
    source: Name
    events: Annotated[tuple[ImportedEvent, ...], Meta(max_length=50_000)]


async def import_events(context: OperationContext, request: ImportEvents) -> dict[str, object]:
    """Record events as processed. Importing them again changes nothing."""
    source = context.source(request.source)
    stream_id = await context.runtime.write(streams.ensure_stream, source_id=source.id, name="")
    seen = [_sighting(context, source, stream_id, event, index) for index, event in enumerate(request.events)]
    new = 0
    for at in range(0, len(seen), IMPORT_BATCH):
        new += await context.write(
            request.operation,
            source.name,
            _import,
            recorder=context.runtime.writer.recorder,
            seen=seen[at : at + IMPORT_BATCH],
        )
    return {"new": new, "known": len(seen) - new}


class RecordReceipts(OperationRequest, frozen=True, kw_only=True):
    """Note that the handler behind a destination has processed these events of a source."""

    operation = "receipts"
    needs = AccessRole.CONSUMER
    destination: Name
    source: Name
    keys: Keys


async def record_receipts(context: OperationContext, request: RecordReceipts) -> dict[str, object]:
    """Record receipts, and settle what is owed of their events, in any state.

    An event with a receipt is not delivered to that destination; it may be recorded later.
    """
    destination = await context.read(destinations.destination, name=request.destination)
    if destination is None:
        known = "`gapless status` shows those that are"
        raise OperationRefused(f"destination {request.destination!r} is not known; {known}")
    for key in request.keys:
        _check_key(key)
    source_id, new, settled = context.source(request.source).id, 0, 0
    for at in range(0, len(request.keys), RECEIPT_BATCH):
        made = await context.runtime.write(
            _record_receipts,
            source_id=source_id,
            destination_id=destination.id,
            keys=request.keys[at : at + RECEIPT_BATCH],
            now_us=context.now_us,
        )
        new, settled = new + made[0], settled + made[1]
    if settled:
        context.wake()
    return {"new": new, "known": len(request.keys) - new, "settled": settled}


def _record_receipts(
    connection: Connection, source_id: int, destination_id: int, keys: Sequence[str], now_us: int
) -> tuple[int, int]:
    """Return how many of the receipts are new, and how many deliveries they settle."""
    new = receipts.record(connection, source_id, destination_id, keys, now_us)
    return new, deliveries.settle_applied(connection, source_id, destination_id, keys, now_us)


def _check_key(key: str) -> None:
    try:
        check_text("key", key)
    except ValueError as error:
        raise OperationRefused(f"{error}; no receipt was recorded") from error


def _sighting(context: OperationContext, source: Source, stream_id: int, event: ImportedEvent, index: int) -> Sighting:
    """Return the sighting of an imported event. Without a time it occurred now, and is never expected."""
    try:
        remote = RemoteEvent(
            key=event.key,
            type=event.type,
            occurred_at=event.occurred_at or context.runtime.clock(),
            payload=b"",
            listable=event.occurred_at is not None,
        )
    except ValueError as error:
        raise OperationRefused(f"events[{index}]: {error}; nothing was recorded") from error
    return Sighting(source=source, stream_id=stream_id, event=remote, via=Via.IMPORT, seen_us=context.now_us)


def _import(connection: Connection, recorder: Recorder, seen: Sequence[Sighting]) -> int:
    """Record events that handlers have processed; what is owed to them for these is not sent any more."""
    new = recorder.store(connection, seen)
    keys, source_id = [each.event.key for each in seen], seen[0].source.id
    receipts.record(connection, source_id, receipts.EVERY_HANDLER, keys, seen[0].seen_us)
    return len(new)
