"""Imports events that were processed before Gapless was installed."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from gapless.domain import Source, Via
from gapless.ledger import Connection, streams
from gapless.ledger.recorder import Recorder, Sighting
from gapless.operations.context import AwareTime, Name, OperationContext, OperationRefused, OperationRequest
from gapless_reconcilers.kit.contract import RemoteEvent

IMPORT_BATCH = 500
"""Events recorded in one transaction: about a page."""


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
    return len(recorder.store(connection, seen))
