"""Fills a destination from the ledger: owes it the recorded events that it should have, and was never owed."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Annotated, Final

from msgspec import Meta

from gapless.deliver.routing import Destination, build_route
from gapless.domain import Route, Sources, Via, from_us, span_us, to_us
from gapless.ledger import Connection, events, fills
from gapless.ledger.deliveries import NOT_LISTED
from gapless.ledger.fills import LaterDelivery, Unowed
from gapless.operations.context import AwareTime, Name, OperationContext, OperationRefused, OperationRequest
from gapless.operations.destinations import find
from gapless_reconcilers.kit.contract import RemoteEvent

AT_ONCE: Final = timedelta(seconds=20)
"""Time after which one request ends and says where to go on, so that whoever asks need not wait longer."""


class FillDestination(OperationRequest, frozen=True, kw_only=True):
    """Owe a destination the recorded events that occurred in `[since, until)` and that it takes. `dry_run` only counts.

    Repeat it with the `after` of its result until that is null. What is owed already stays as it is.
    """

    operation = "destination.fill"
    destination: Name
    since: AwareTime | None = None
    """None: the time from which the destination is owed events."""
    until: AwareTime | None = None
    after: Annotated[int, Meta(ge=0)] = 0
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fill:
    """What is asked of the ledger for each range of seqs."""

    destination_id: int
    route: Route
    reads_payloads: bool
    start_us: int
    end_us: int
    now_us: int
    sources: Sources


@dataclass(slots=True, kw_only=True)
class _Count:
    owed: int = 0
    held: int = 0
    times_us: list[int] = field(default_factory=list)
    """When the first and the last of them occurred."""

    def add(self, new: list[tuple[Unowed, LaterDelivery]], made: int) -> None:
        self.owed += made
        self.held += sum(each.held is not None for _, each in new)
        known = [*self.times_us, *(event.occurred_us for event, _ in new)]
        self.times_us = [min(known), max(known)] if known else []


async def fill(context: OperationContext, request: FillDestination) -> dict[str, object]:
    """Owe the events, a range of the ledger in each transaction; return how many, and where to go on."""
    asked, count, after = await _plan(context, request), _Count(), request.after
    began_us, newest = context.runtime.elapsed_us, await context.read(fills.newest_seq)
    while after < newest:
        new = await context.read(_new_deliveries, asked=asked, after=after)
        made = len(new) if request.dry_run or not new else await _owe(context, request, asked, new)
        count.add(new, made)
        after += fills.SPAN
        if context.approved_by is None and context.runtime.elapsed_us - began_us > span_us(AT_ONCE):
            break
    context.wake()
    first, last = map(from_us, count.times_us) if count.times_us else (None, None)
    rest = after if after < newest else None
    return {"owed": count.owed, "held": count.held, "first": first, "last": last, "after": rest}


async def _plan(context: OperationContext, request: FillDestination) -> _Fill:
    """Return what to fill. Raises `OperationRefused` unless this process has the destination."""
    row = await find(context, request.destination)
    configured = next((each for each in context.destinations if each.id == row.id), None)
    if row.state != "active" or configured is None:
        raise OperationRefused(f"destination {row.name!r} is not configured here; configure it and restart first")
    start_us = row.since_us if request.since is None else to_us(request.since)
    asked: Destination = replace(configured, since_us=start_us)
    return _Fill(
        destination_id=row.id,
        route=build_route([asked]),
        reads_payloads=asked.when is not None,
        start_us=start_us,
        end_us=context.now_us if request.until is None else to_us(request.until),
        now_us=context.now_us,
        sources=context.sources,
    )


def _new_deliveries(connection: Connection, asked: _Fill, after: int) -> list[tuple[Unowed, LaterDelivery]]:
    found = fills.unowed(connection, asked.destination_id, asked.start_us, asked.end_us, after)
    judged = ((each, _new_delivery(connection, asked, each)) for each in found)
    return [(event, new) for event, new in judged if new is not None]


def _new_delivery(connection: Connection, asked: _Fill, event: Unowed) -> LaterDelivery | None:
    """Return the delivery that recording the event would have made; None: the destination does not take it."""
    if event.source not in asked.sources:
        return None
    source = asked.sources[event.source]
    stored = events.readable_payload(connection, event.seq) if asked.reads_payloads else None
    known = RemoteEvent(
        key=event.key,
        type=event.type,
        occurred_at=from_us(event.occurred_us),
        payload=stored or b"",
        stream=event.stream,
        livemode=event.livemode,
    )
    owed = next(iter(asked.route(source, known, event.via, event.first_seen_us)), None)
    if owed is None:
        return None
    is_unproven = event.via is Via.WEBHOOK and (owed.until_listed or event.repeated)
    held = owed.held or event.held or (NOT_LISTED if is_unproven else None)
    return LaterDelivery(seq=event.seq, next_us=max(asked.now_us, owed.not_before_us), held=held)


async def _owe(
    context: OperationContext, request: FillDestination, asked: _Fill, new: list[tuple[Unowed, LaterDelivery]]
) -> int:
    return await context.write(
        request.operation,
        request.destination,
        fills.owe,
        destination_id=asked.destination_id,
        new=[each for _, each in new],
        now_us=asked.now_us,
    )
