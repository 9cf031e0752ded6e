"""Requests passes on demand, cancels them, and reports the progress of passes."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from gapless.domain import Mode, Source, align_down, align_up, from_us, to_us
from gapless.ledger import Connection, passes, sources, streams
from gapless.ledger.passes import PassKind
from gapless.ledger.streams import Stream
from gapless.operations.context import AwareTime, Name, OperationContext, OperationRefused, OperationRequest
from gapless_reconcilers.kit.contract import Capabilities, Coverage, Reading, Window
from gapless_reconcilers.kit.statuses import waiting_until


class DemandPass(OperationRequest, frozen=True, kw_only=True):
    """Read the list of a source again in `[since, until)`; without `since`, from the end of the last pass."""

    operation = "source.pass"
    source: Name
    since: AwareTime | None = None
    until: AwareTime | None = None


class ReadPassStatus(OperationRequest, frozen=True, kw_only=True):
    """Report the progress of passes."""

    operation = "pass.status"
    checks_limits = True
    ids: Annotated[tuple[int, ...], Meta(max_length=1000)]


class CancelPasses(OperationRequest, frozen=True, kw_only=True):
    """End passes on demand, and forget those that failed; what they have recorded stays."""

    operation = "pass.cancel"
    checks_limits = True
    ids: Annotated[tuple[int, ...], Meta(min_length=1, max_length=1000)]


async def demand(context: OperationContext, request: DemandPass) -> dict[str, object]:
    """Create a pass for every stream of the source, and make the source due at once."""
    source = context.source(request.source)
    if source.mode is Mode.WEBHOOK or source.provider.capabilities.coverage is Coverage.NONE:
        raise OperationRefused(f"source {source.name!r} has no list to read (mode {source.mode.value}); nothing to do")
    if source.provider.capabilities.reading is Reading.CONSUME:
        raise OperationRefused(
            f"the list of source {source.name!r} is consumed by reading, and cannot be read again; nothing to do"
        )
    made = await context.write(request.operation, source.name, _begin, context=context, source=source, request=request)
    row = await context.read(sources.source_row, source_id=source.id)
    until = None if row["waiting_until_us"] is None else from_us(row["waiting_until_us"])
    return {
        "source": source.name,
        "passes": made,
        "waiting_until": waiting_until(until, context.runtime.clock()),
    }


def _begin(
    connection: Connection, context: OperationContext, source: Source, request: DemandPass
) -> list[dict[str, object]]:
    state = sources.source_row(connection, source.id)["state"]
    if state != "active":
        raise OperationRefused(f"source {source.name!r} is {state}; only an active source is read")
    now, unit = context.runtime.clock(), source.provider.capabilities.slice_unit
    made: list[dict[str, object]] = []
    for stream in streams.streams(connection, source.id):
        window = window_of(request, stream, source.provider.capabilities, now)
        if window is not None:
            row = passes.begin_window(connection, stream, PassKind.DEMAND, window, to_us(now), unit)
            made.append({"id": row.id, "stream": stream.name, "start": window.start, "end": window.end})
    if not made and request.since is not None:
        raise OperationRefused(_nothing_to_read(request, source.provider.capabilities, now))
    sources.make_due_now(connection, source.id, to_us(now))
    return made


def window_of(request: DemandPass, stream: Stream, capabilities: Capabilities, now: datetime) -> Window | None:
    """Return the part of the requested time that the list can show, aligned outwards; None: no part.

    Without `since` it begins at the watermark of the stream.
    """
    unit = capabilities.resolution
    latest = align_up(now, unit)
    start = align_down(request.since or from_us(stream.watermark_us), unit)
    end = latest if request.until is None else min(align_up(request.until, unit), latest)
    if capabilities.history is not None:
        start = max(start, align_up(now - capabilities.history, unit))
    return Window(start=start, end=end) if start < end else None


def _nothing_to_read(request: DemandPass, capabilities: Capabilities, now: datetime) -> str:
    earliest = (
        "any time" if capabilities.history is None else (now - capabilities.history).isoformat(timespec="seconds")
    )
    return (
        f"from {request.since} to {request.until or now} there is nothing to read; the list shows {earliest} "
        f"to {now.isoformat(timespec='seconds')}"
    )


async def cancel(context: OperationContext, request: CancelPasses) -> dict[str, object]:
    """End the passes, all or none. One that reads at this moment ends after its page."""
    subject = ", ".join(map(str, request.ids))
    return await context.write(request.operation, subject, _cancel, context=context, ids=request.ids)


def _cancel(connection: Connection, context: OperationContext, ids: tuple[int, ...]) -> dict[str, object]:
    rows = passes.progress(connection, ids)
    known = {row.id: row for row in rows if context.principal.may_touch(row.source)}
    for each in ids:
        row = known.get(each)
        if row is None:
            raise OperationRefused(f"there is no pass {each}; `gapless pass list` shows those that there are")
        if row.kind != PassKind.DEMAND.value:
            raise OperationRefused(
                f"pass {each} is {row.kind}: it would be made again; only a pass on demand can be cancelled"
            )
        if row.state not in passes.OPEN_STATES:
            raise OperationRefused(f"pass {each} has ended already ({row.outcome}); nothing was changed")
    for each in ids:
        passes.cancel(connection, each, context.now_us)
    return {"cancelled": sorted(set(ids))}


async def read_status(context: OperationContext, request: ReadPassStatus) -> dict[str, object]:
    """Return the progress of the passes; `remaining` is the number that still run."""
    found = await context.read(passes.progress, pass_ids=request.ids)
    rows = [row for row in found if context.principal.may_touch(row.source)]
    running = sum(row.state == "running" for row in rows)
    now = context.runtime.clock()
    return {"remaining": running, "passes": [as_values(row, now) for row in rows]}


def as_values(row: passes.PassProgress, now: datetime) -> dict[str, object]:
    """Return the progress of a pass for JSON."""
    until = None if row.waiting_until_us is None else waiting_until(from_us(row.waiting_until_us), now)
    return {
        "id": row.id,
        "source": row.source,
        "stream": row.stream,
        "kind": row.kind,
        "start": from_us(row.start_us),
        "end": from_us(row.end_us),
        "state": row.state,
        "outcome": row.outcome,
        "slices": row.slices,
        "slices_done": row.slices_done,
        "listed": row.listed,
        "found": row.found,
        "missed": row.missed,
        "attempts": row.attempts,
        "next_attempt": from_us(row.next_attempt_us) if row.attempts and row.state == "running" else None,
        "last_error": row.last_error,
        "stream_outcome": row.stream_outcome,
        "error": row.stream_error,
        "tried": bool(row.tried),
        "waiting_until": until,
        "parked_reason": row.parked_reason,
    }
