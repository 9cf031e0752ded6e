"""Who is owed a new event. Pure: runs inside the transaction that records it.

Safe first start: nothing that occurred before the source's start or before the destination's `since`
is owed, and what a list shows is owed only if the subscription should have pushed it. A source in
mode `poll` has no subscription: there the list is the road, and all that it shows of the source's
types is owed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from gapless.deliver.breaker import BreakerRule
from gapless.deliver.retry import DeliveryRetryPolicy
from gapless.destinations.contract import DestinationInvalid, HoldReason, Sender
from gapless.domain import Mode, Owed, Route, Source, TypePatterns, Via, to_us
from gapless_reconcilers.kit.contract import RemoteEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One configured destination. Times named `_us` are microseconds."""

    id: int
    """Of its row."""
    name: str
    sender: Sender
    sources: frozenset[str] | None
    """Names of the sources it wants; None: all."""
    types: TypePatterns
    via: frozenset[Via]
    since_us: int
    delay_us: int
    """How long what a list showed waits, so that its webhook may still come first."""
    concurrency: int
    rate: float | None
    """Attempts per second; None: no limit but `concurrency`."""
    timeout: timedelta
    retry: DeliveryRetryPolicy
    breaker: BreakerRule = field(default_factory=BreakerRule)
    lets_go: frozenset[HoldReason]
    """Held deliveries that are released when the dispatcher starts, because the team has chosen to deliver them."""

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise DestinationInvalid(f'destination "{self.name}": concurrency is {self.concurrency}; wanted at least 1')
        if self.rate is not None and not self.rate > 0:
            raise DestinationInvalid(
                f'destination "{self.name}": rate is {self.rate}; wanted more than 0, or leave it out'
            )


def build_route(destinations: Iterable[Destination]) -> Route:
    """The route to `destinations`, of which each event is owed to those that want it."""
    wanting = tuple(sorted(destinations, key=lambda destination: destination.id))

    def route(source: Source, event: RemoteEvent, via: Via, recorded_us: int) -> list[Owed]:
        if not is_owed_at_all(source, event, via):
            return []
        occurred_us = to_us(event.occurred_at)
        return [
            Owed(destination_id=each.id, not_before_us=recorded_us + (each.delay_us if via is Via.LIST else 0))
            for each in wanting
            if wants(each, source.name, event.type, via, occurred_us)
        ]

    return route


def is_owed_at_all(source: Source, event: RemoteEvent, via: Via) -> bool:
    """Whether the event may be owed to anybody, whatever destinations want."""
    if event.occurred_at < source.start:
        return False
    if via in (Via.WEBHOOK, Via.IMPORT):
        return True
    if source.mode is Mode.POLL:
        return event.type in source.types
    return source.expects(event)


def wants(destination: Destination, source: str, event_type: str, via: Via, occurred_us: int) -> bool:
    """Whether the destination asked for such an event."""
    return (
        via in destination.via
        and occurred_us >= destination.since_us
        and (destination.sources is None or source in destination.sources)
        and event_type in destination.types
    )
