"""Replays events, requeues dead letters and releases held deliveries.

Also plans the deliveries of events that a pass found before the start of its source.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from gapless.domain import TypePatterns, from_us, to_us
from gapless.ledger import Connection, dead_letters, destinations, events
from gapless.ledger.dead_letters import BATCH, Undelivered
from gapless.ledger.destinations import StoredDestination
from gapless.ledger.engine import Store
from gapless.ledger.events import EventFilter, Extent
from gapless.operations.context import AwareTime, Keys, Name, OperationContext, OperationRefused, OperationRequest

SendAgain = Callable[..., int]
"""`dead_letters.requeue`, `dead_letters.release` or `_dismiss`."""
KEYS_SHOWN = 20
PLAN_BATCH = 1000
"""Events read at once for a plan."""


class ReplayEvents(OperationRequest, frozen=True, kw_only=True):
    """Send recorded events again: by key, or all that occurred in `[since, until)`. `dry_run` only counts."""

    operation = "event.replay"
    destination: Name
    source: Name | None = None
    keys: Keys | None = None
    since: AwareTime | None = None
    until: AwareTime | None = None
    other_mode: bool = False
    """Of all that occurred in that time, also send the events of the mode that is not their source's own."""
    dry_run: bool = False


class _WaitingDeliveries(OperationRequest, frozen=True, kw_only=True):
    destination: Name | None = None
    reason: str | None = None
    keys: Keys | None = None


class RequeueDeadLetters(_WaitingDeliveries, frozen=True, kw_only=True):
    """Give new attempts to all dead letters, or to the named ones."""

    operation = "dead.requeue"


class DismissDeadLetters(_WaitingDeliveries, frozen=True, kw_only=True):
    """Give up dead letters: the named ones, or those of a destination or a reason."""

    operation = "dead.dismiss"


class ReleaseHeld(_WaitingDeliveries, frozen=True, kw_only=True):
    """Send all held deliveries, or the named ones."""

    operation = "held.release"


async def replay(context: OperationContext, request: ReplayEvents) -> dict[str, object]:
    """Owe recorded events to the destination again; those without a payload are left out."""
    destination = await _destination(context, request.destination)
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
    until = context.runtime.clock() if request.until is None else request.until
    if request.source is not None:
        context.source(request.source)
    chosen = EventFilter(
        source=request.source,
        start_us=to_us(since),
        end_us=to_us(until),
        livemodes=frozenset((True, False)) if request.other_mode else None,
    )
    if request.dry_run:
        return _extent(await context.read(events.extent, chosen=chosen))
    sent = count = after = 0
    while seqs := await context.read(events.seqs_in, chosen=chosen, after_seq=after, limit=BATCH):
        sent += await _send(context, destination, seqs)
        count, after = count + len(seqs), seqs[-1]
    return {"replayed": sent, "without_payload": count - sent}


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
    return {"requeued": await _send_waiting(context, request, dead_letters.requeue)}


async def dismiss(context: OperationContext, request: DismissDeadLetters) -> dict[str, object]:
    """Delete dead letters; what waits for them in its order goes on."""
    if request.keys is None and request.destination is None and request.reason is None:
        raise OperationRefused("dead.dismiss needs keys, a destination or a reason; it got none of them")
    return {"dismissed": await _send_waiting(context, request, _dismiss)}


def _dismiss(connection: Connection, now_us: int, **chosen: Any) -> int:  # noqa: ARG001 - as `SendAgain`
    return dead_letters.dismiss(connection, **chosen)


async def release_held(context: OperationContext, request: ReleaseHeld) -> dict[str, object]:
    """Send held deliveries."""
    return {"released": await _send_waiting(context, request, dead_letters.release)}


async def _send_waiting(context: OperationContext, request: _WaitingDeliveries, send_again: SendAgain) -> int:
    """Change the chosen deliveries in batches until none is left; return how many were changed."""
    destination = None if request.destination is None else await _destination(context, request.destination)
    seqs = None if request.keys is None else await _seqs(context, request.keys, None)
    count = 0
    while sent := await context.write(
        request.operation, request.destination or "*", _batch(context, request, send_again, destination, seqs)
    ):
        count += sent
    context.wake()
    return count


def _batch(
    context: OperationContext,
    request: _WaitingDeliveries,
    send_again: SendAgain,
    destination: StoredDestination | None,
    seqs: Sequence[int] | None,
) -> Callable[[Connection], int]:
    destination_id = None if destination is None else destination.id
    return partial(send_again, now_us=context.now_us, destination_id=destination_id, reason=request.reason, seqs=seqs)


async def _destination(context: OperationContext, name: str) -> StoredDestination:
    found = await context.read(destinations.destination, name=name)
    if found is None:
        raise OperationRefused(f"destination {name!r} is not known; `gapless status` shows those that are")
    return found


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
    first_us: int = 0
    last_us: int = 0

    def add(self, event: Undelivered) -> None:
        """Add the event."""
        self.first_us = min(self.first_us or event.occurred_us, event.occurred_us)
        self.last_us = max(self.last_us, event.occurred_us)
        self.keys.append(event.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedEvents:
    """The event types and the modes that a destination takes; `livemodes` None: each source's own mode."""

    types: TypePatterns
    livemodes: frozenset[bool] | None


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
            chosen=replace(chosen, livemodes=each.livemodes),
        )
        for name, each in wanted.items()
    ]


def _plan(
    connection: Connection, destination: str, wanted: Sequence[TypePatterns], chosen: EventFilter
) -> PlannedDeliveries:
    planned = PlannedDeliveries(destination=destination)
    for event in _undelivered(connection, destination, chosen):
        if all(event.type in types for types in wanted):
            planned.add(event)
    return planned


def _undelivered(connection: Connection, destination: str, chosen: EventFilter) -> Iterator[Undelivered]:
    row = destinations.destination(connection, destination)
    if row is None:
        raise OperationRefused(f"destination {destination!r} is not in the ledger yet; `gapless serve` makes it")
    after = 0
    while found := dead_letters.undelivered(connection, chosen, row.id, after, PLAN_BATCH):
        yield from found
        after = found[-1].seq
