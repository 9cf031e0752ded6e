"""Replays events, requeues or discards dead letters, and releases held deliveries.

Also plans the deliveries of events that a pass found before the start of its source.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Annotated, ClassVar, TypeAlias

import msgspec
from msgspec import Meta

from gapless.condition import Condition, Document
from gapless.domain import TypePatterns, from_us, to_us
from gapless.ledger import Connection, dead_letters, destinations, events, sources, unsettled
from gapless.ledger.dead_letters import BATCH, Undelivered
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.destinations import StoredDestination
from gapless.ledger.engine import Store
from gapless.ledger.events import EventFilter, Extent
from gapless.ledger.jobs import JobKind, ReplayPlan, UnsettledPlan
from gapless.ledger.unsettled import UnsettledFilter
from gapless.operations import jobs
from gapless.operations.context import AwareTime, Keys, Name, OperationContext, OperationRefused, OperationRequest
from gapless.operations.destinations import find

Rate: TypeAlias = Annotated[float, Meta(ge=0.1, le=10_000, description="events a second")]
ChangeBatch = Callable[..., int]
"""`unsettled.send_again` or `unsettled.discard`: changes deliveries by their keys and returns how many."""
Types: TypeAlias = Annotated[
    tuple[Annotated[str, Meta(pattern=r"\A[^\s*,]*\*?\Z", min_length=1, max_length=200)], ...],
    Meta(min_length=1, max_length=100, description="event types such as invoice.paid, invoice.* or *"),
]
KEYS_SHOWN = 20
PLAN_BATCH = 1000
"""Events read at once for a plan."""


class ReplayEvents(OperationRequest, frozen=True, kw_only=True):
    """Send recorded events again: by key, or all that occurred in `[since, until)`. `dry_run` only counts.

    `types`, `missed` and `object` narrow that choice. Many are sent by a job, at `rate` a second.
    """

    operation = "event.replay"
    destination: Name
    source: Name | None = None
    keys: Keys | None = None
    since: AwareTime | None = None
    until: AwareTime | None = None
    types: Types | None = None
    missed: bool = False
    """Only those that were missed."""
    object: str | None = None
    rate: Rate | None = None
    other_mode: bool = False
    """Of all that occurred in that time, also send the events of the mode that is not their source's own."""
    dry_run: bool = False


class UnsettledRequest(OperationRequest, frozen=True, kw_only=True):
    """The deliveries that a request chooses: each field narrows the choice. `dry_run` only counts.

    `since` and `until` are about the time at which a delivery became a dead letter, or was held.
    """

    state: ClassVar[DeliveryState] = DeliveryState.DEAD
    destination: Name | None = None
    source: Name | None = None
    types: Types | None = None
    since: AwareTime | None = None
    until: AwareTime | None = None
    reason: str | None = None
    object: str | None = None
    keys: Keys | None = None
    rate: Rate | None = None
    dry_run: bool = False


class RequeueDeadLetters(UnsettledRequest, frozen=True, kw_only=True):
    """Give new attempts to all dead letters, or to the chosen ones."""

    operation = "dead.requeue"


class ReleaseHeld(UnsettledRequest, frozen=True, kw_only=True):
    """Send all held deliveries, or the chosen ones."""

    operation = "held.release"
    state = DeliveryState.HELD


class DiscardDeadLetters(UnsettledRequest, frozen=True, kw_only=True):
    """Give up all dead letters, or the chosen ones: they are not owed any more. `note` says why."""

    operation = "dead.discard"
    note: Annotated[str, Meta(max_length=1000, pattern=r"\S")]


class DiscardHeld(DiscardDeadLetters, frozen=True, kw_only=True):
    """Give up all held deliveries, or the chosen ones. `note` says why."""

    operation = "held.discard"
    state = DeliveryState.HELD


async def replay(context: OperationContext, request: ReplayEvents) -> dict[str, object]:
    """Owe recorded events to the destination again; those without a payload are left out."""
    destination = await find(context, request.destination)
    if destination.state != "active":
        raise OperationRefused(f"destination {destination.name!r} is {destination.state}; configure it again first")
    if request.keys is not None and (request.since or request.until) is not None:
        raise OperationRefused("event.replay takes keys, or since and until; it got both")
    if request.keys is not None:
        return await _replay_keys(context, request, request.keys, destination)
    if request.since is not None:
        return await _replay_range(context, request, request.since, destination)
    raise OperationRefused("event.replay needs keys or since (and until); it got neither")


async def _replay_keys(
    context: OperationContext, request: ReplayEvents, keys: Sequence[str], destination: StoredDestination
) -> dict[str, object]:
    seqs = await _seqs(context, keys, request.source)
    if request.dry_run:
        return {"count": len(seqs)}
    sent = 0
    for at in range(0, len(seqs), BATCH):
        sent += await _send(context, destination, seqs[at : at + BATCH])
    return {"replayed": sent, "without_payload": len(seqs) - sent}


async def _replay_range(
    context: OperationContext, request: ReplayEvents, since: datetime, destination: StoredDestination
) -> dict[str, object]:
    if request.source is not None:
        context.source(request.source)
    chosen = replayed_by(request, since, context.runtime.clock())
    extent = await context.read(events.extent, chosen=chosen)
    if request.dry_run:
        return _extent(extent)
    if extent.count > BATCH or request.rate is not None:
        return await _begin_replay(context, request, chosen, destination, extent.count)
    sent = count = after = 0
    while seqs := await context.read(events.seqs_in, chosen=chosen, after_seq=after, limit=BATCH):
        sent += await _send(context, destination, seqs)
        count, after = count + len(seqs), seqs[-1]
    return {"replayed": sent, "without_payload": count - sent}


def replayed_by(request: ReplayEvents, since: datetime, now: datetime) -> EventFilter:
    """Return the events that a request for a time chooses."""
    return EventFilter(
        source=request.source,
        start_us=to_us(since),
        end_us=to_us(now if request.until is None else request.until),
        livemodes=frozenset((True, False)) if request.other_mode else None,
        types=request.types,
        missed=request.missed,
        object_key=request.object,
    )


async def _begin_replay(
    context: OperationContext, request: ReplayEvents, chosen: EventFilter, destination: StoredDestination, count: int
) -> dict[str, object]:
    span = await context.read(events.span, chosen=chosen)
    if span is None:
        return {"replayed": 0, "without_payload": 0}
    return await jobs.begin(
        context,
        JobKind.REPLAY,
        ReplayPlan(destination_id=destination.id, chosen=chosen, last_seq=span.last),
        count,
        source=request.source,
        destination=destination.name,
        rate=request.rate,
        after_seq=span.first - 1,
    )


def _extent(extent: Extent) -> dict[str, object]:
    first, last = (None if us is None else from_us(us) for us in (extent.first_us, extent.last_us))
    return {"count": extent.count, "first": first, "last": last}


async def _send(context: OperationContext, destination: StoredDestination, seqs: Sequence[int]) -> int:
    sent = await context.write(
        ReplayEvents.operation,
        destination.name,
        dead_letters.replay,
        destination_id=destination.id,
        seqs=seqs,
        now_us=context.now_us,
    )
    context.wake()
    return sent


async def requeue(context: OperationContext, request: RequeueDeadLetters) -> dict[str, object]:
    """Give dead letters new attempts."""
    return await _settle(context, request, "requeued", unsettled.send_again)


async def release_held(context: OperationContext, request: ReleaseHeld) -> dict[str, object]:
    """Send held deliveries."""
    return await _settle(context, request, "released", unsettled.send_again)


async def discard(context: OperationContext, request: DiscardDeadLetters | DiscardHeld) -> dict[str, object]:
    """Give up dead letters or held deliveries. Their attempts say so, and so does the audit log."""
    return await _settle(context, request, "discarded", partial(unsettled.discard, why=why(context, request.note)))


def why(context: OperationContext, note: str) -> str:
    """Return what stands among the attempts of a delivery that is discarded."""
    return f"by {context.actor}: {note}"


async def _settle(
    context: OperationContext, request: UnsettledRequest, done: str, change: ChangeBatch
) -> dict[str, object]:
    """Change the chosen deliveries, in batches; return how many, by the name `done`."""
    await _check_names(context, request.destination, request.source)
    seqs = None if request.keys is None else await _seqs(context, request.keys, request.source)
    if seqs is None and not request.dry_run:
        (chosen,) = chosen_by(request)
        extent = await context.read(unsettled.extent, chosen=chosen)
        if extent.count > BATCH or (request.rate is not None and extent.count):
            return await _begin_job(context, request, chosen, extent.count)
    count = 0
    for chosen in chosen_by(request, seqs):
        if request.dry_run:
            count += (await context.read(unsettled.extent, chosen=chosen)).count
        else:
            count += await _change_all(context, request, chosen, change)
    context.wake()
    return {"count": count} if request.dry_run else {done: count}


async def _begin_job(
    context: OperationContext, request: UnsettledRequest, chosen: UnsettledFilter, count: int
) -> dict[str, object]:
    last = await context.read(unsettled.last_seq, chosen=chosen)
    plan = UnsettledPlan(chosen=chosen, last_seq=last, why=why(context, request.note or ""))
    return await jobs.begin(
        context,
        JobKind(request.operation),
        plan,
        count,
        source=request.source,
        destination=request.destination,
        rate=request.rate,
    )


async def _change_all(
    context: OperationContext, request: UnsettledRequest, chosen: UnsettledFilter, change: ChangeBatch
) -> int:
    count, after, has_more = 0, unsettled.START, True
    while has_more:
        found = await context.read(unsettled.batch, chosen=chosen, after=after, limit=BATCH)
        if found.keys:
            work = partial(change, keys=found.keys, state=chosen.state, now_us=context.now_us)
            count += await context.write(request.operation, request.destination or "*", work)
        after, has_more = found.cursor, found.has_more
    return count


def chosen_by(request: UnsettledRequest, seqs: Sequence[int] | None = None) -> Iterator[UnsettledFilter]:
    """Yield the deliveries that the request chooses. `seqs`: the events of its keys, if it names some."""
    chosen = UnsettledFilter(
        state=request.state,
        destinations=None if request.destination is None else (request.destination,),
        sources=None if request.source is None else (request.source,),
        types=request.types,
        reason=request.reason,
        since_us=None if request.since is None else to_us(request.since),
        until_us=None if request.until is None else to_us(request.until),
        object_key=request.object,
        but_other_account=True,
    )
    if seqs is None:
        yield chosen
    for at in range(0, len(seqs or ()), BATCH):
        yield msgspec.structs.replace(chosen, seqs=tuple((seqs or ())[at : at + BATCH]))


async def _check_names(context: OperationContext, destination: str | None, source: str | None) -> None:
    """Raise `OperationRefused` if the ledger does not know one of them."""
    if destination is not None:
        await find(context, destination)
    if source is not None and await context.read(sources.source_named, name=source) is None:
        raise OperationRefused(f"source {source!r} is not in the ledger; `gapless source list` shows all sources")


async def _seqs(context: OperationContext, keys: Sequence[str], source: str | None) -> list[int]:
    """Return the events of `keys`. Raises `OperationRefused` if one of them is not in the ledger."""
    found = await context.read(events.seqs_of, keys=keys, source=source)
    unknown = [key for key in keys if key not in found]
    if unknown:
        shown = ", ".join(map(repr, unknown[:KEYS_SHOWN]))
        raise OperationRefused(f"{len(unknown)} keys are not in the ledger: {shown}; nothing was sent")
    return sorted({seq for seqs in found.values() for seq in seqs})


@dataclass(slots=True, kw_only=True)
class PlannedDeliveries:
    """The events that one destination would be owed."""

    destination: str
    keys: list[str] = field(default_factory=list)
    unjudged: int = 0
    """Events whose condition cannot be evaluated: they are not planned."""
    first_us: int = 0
    last_us: int = 0

    def add(self, event: Undelivered) -> None:
        """Add the event."""
        self.first_us = min(self.first_us or event.occurred_us, event.occurred_us)
        self.last_us = max(self.last_us, event.occurred_us)
        self.keys.append(event.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedEvents:
    """What a destination takes; `livemodes` None: each source's own mode."""

    types: TypePatterns
    livemodes: frozenset[bool] | None
    when: Condition | None = None


async def plan_deliveries(
    store: Store,
    source: str,
    source_types: TypePatterns,
    since: datetime,
    until: datetime,
    wanted: Mapping[str, WantedEvents],
) -> list[PlannedDeliveries]:
    """Return, for each destination, the listed events in `[since, until)` that it was never owed.

    `wanted` is {destination: what it takes}. Raises `OperationRefused` if one is not in the ledger.
    """
    chosen = EventFilter(source=source, start_us=to_us(since), end_us=to_us(until))
    return [
        await store.read(
            _plan,
            destination=name,
            wanted=(each.types, source_types),
            when=each.when,
            chosen=replace(chosen, livemodes=each.livemodes),
        )
        for name, each in wanted.items()
    ]


def _plan(
    connection: Connection,
    destination: str,
    wanted: Sequence[TypePatterns],
    when: Condition | None,
    chosen: EventFilter,
) -> PlannedDeliveries:
    planned = PlannedDeliveries(destination=destination)
    for event in _undelivered(connection, destination, chosen):
        if not all(event.type in types for types in wanted):
            continue
        verdict = True if when is None else _judge(connection, when, event.seq)
        if verdict:
            planned.add(event)
        planned.unjudged += verdict is None
    return planned


def _judge(connection: Connection, when: Condition, seq: int) -> bool | None:
    stored = events.readable_payload(connection, seq)
    return None if stored is None else when.judge(Document(stored))


def _undelivered(connection: Connection, destination: str, chosen: EventFilter) -> Iterator[Undelivered]:
    row = destinations.destination(connection, destination)
    if row is None:
        raise OperationRefused(f"destination {destination!r} is not in the ledger yet; `gapless serve` makes it")
    after = 0
    while found := dead_letters.undelivered(connection, chosen, row.id, after, PLAN_BATCH):
        yield from found
        after = found[-1].seq
