"""Decides to which destinations a new event is owed. Pure: runs inside the transaction that records it.

Safe first start: an event that occurred before the source's start or before the destination's `since` is not
owed, and a listed event is owed only if the subscription should have pushed it. A source in mode `poll` has no
subscription: every listed event of the source's types is owed.

A condition that cannot be evaluated drops nothing: the delivery is held for a person.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from gapless.condition import Condition, Document
from gapless.deliver.breaker import BreakerRule
from gapless.deliver.retry import DeliveryRetryPolicy, ReceiptRule
from gapless.destinations.contract import DestinationInvalid, HoldReason, Sender
from gapless.domain import EventMode, Mode, Order, Owed, Release, Route, Source, TypePatterns, Via, to_us
from gapless.ledger import ordering
from gapless_reconcilers.kit.contract import RemoteEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One configured destination. Times named `_us` are microseconds."""

    id: int
    """The id of its row."""
    name: str
    sender: Sender
    sources: frozenset[str] | None
    """Names of the sources whose events it takes; None: all."""
    types: TypePatterns
    via: frozenset[Via]
    modes: frozenset[EventMode] | None
    """Modes of the events that it takes; None: each source's own. An event without a mode is always taken."""
    when: Condition | None
    """The condition on the payload of the events that it takes; None: there is none."""
    since_us: int
    delay_us: int
    """Delay of an event that a list showed first, so that its webhook may still arrive; with `receipts`, of each."""
    receipts: bool
    """The handler has a webhook of its own, and reports what it has processed."""
    confirm: ReceiptRule | None
    """When a delivery that was answered 2xx is done; None: then."""
    require_listed: bool
    """An event that came by webhook waits until the provider's list has shown it."""
    hydrate: bool
    """The data of thin events is fetched before they are sent."""
    order: Order
    release: Release
    order_skips_dead: bool
    """A dead letter does not keep what comes after it in its order."""
    concurrency: int
    rate: float | None
    """Attempts per second; None: no limit but `concurrency`."""
    timeout: timedelta
    retry: DeliveryRetryPolicy
    breaker: BreakerRule = field(default_factory=BreakerRule)
    releases: frozenset[HoldReason]
    """Reasons whose held deliveries are released when the dispatcher starts, because the team chose to deliver them."""

    @property
    def fills_gaps(self) -> bool:
        """True if its handler has a webhook of its own, and is to get only what that lost."""
        return self.receipts or Via.WEBHOOK not in self.via

    @property
    def hears_webhooks(self) -> bool:
        """True if a webhook that reaches us reaches its handler too, so that there is no gap to fill.

        A handler that reports what it has processed says so itself.
        """
        return self.fills_gaps and not self.receipts

    def not_before(self, via: Via, recorded_us: int, awaited_until_us: int) -> int:
        """Return the time before which an event is not sent that was recorded in this way, in microseconds.

        To fill a gap before its webhook is overdue would send the event twice.
        """
        due_us = recorded_us + (self.delay_us if self.receipts or via is Via.LIST else 0)
        return max(due_us, awaited_until_us) if self.fills_gaps else due_us

    def order_key(self, source: Source, event: RemoteEvent) -> int | None:
        """Return the key of those events that are sent one after the other; None: it is sent in any order.

        What is proven is sent in order of occurrence: of each object, or else of the whole source.
        """
        if self.order is Order.OBJECT:
            return None if event.object_key is None else ordering.key_of(source.id, event.object_key)
        return ordering.key_of(source.id) if self.release is Release.PROVEN else None

    @property
    def is_ordered(self) -> bool:
        """Return True if some events are sent one after the other."""
        return self.order is not Order.NONE or self.release is Release.PROVEN

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise DestinationInvalid(f'destination "{self.name}": concurrency is {self.concurrency}; wanted at least 1')
        if self.rate is not None and not self.rate > 0:
            raise DestinationInvalid(
                f'destination "{self.name}": rate is {self.rate}; wanted more than 0, or leave it out'
            )


def build_route(destinations: Iterable[Destination]) -> Route:
    """Return the function that finds those of `destinations` to which an event is owed."""
    ordered = tuple(sorted(destinations, key=lambda destination: destination.id))
    asks = any(each.when is not None for each in ordered)

    def route(
        source: Source, event: RemoteEvent, via: Via, recorded_us: int, awaited_until_us: int = 0, /
    ) -> list[Owed]:
        if not is_owed_at_all(source, event, via):
            return []
        occurred_us = to_us(event.occurred_at)
        document = Document(event.payload) if asks else None
        judged = (
            (each, judge(each.when, document))
            for each in ordered
            if wants(each, source.name, event.type, via, occurred_us)
            and takes_mode(each.modes, event.livemode, source.livemode)
        )
        return [
            Owed(
                destination_id=each.id,
                not_before_us=each.not_before(via, recorded_us, awaited_until_us),
                until_listed=each.require_listed,
                held=HoldReason.CONDITION if verdict is None else None,
                confirms=each.confirm is not None,
                order_key=each.order_key(source, event),
                proof_key=ordering.key_of(source.id) if each.release is Release.PROVEN else None,
            )
            for each, verdict in judged
            if verdict is not False
        ]

    return route


def that_hear_webhooks(destinations: Iterable[Destination]) -> frozenset[int]:
    """Return the ids of the destinations to which nothing is owed any more that came to us by webhook."""
    return frozenset(each.id for each in destinations if each.hears_webhooks)


def is_owed_at_all(source: Source, event: RemoteEvent, via: Via) -> bool:
    """Return True if the event may be owed to any destination at all."""
    if event.occurred_at < source.start:
        return False
    if via in (Via.WEBHOOK, Via.IMPORT):
        return True
    if source.mode is Mode.POLL:
        return event.type in source.types
    return source.expects(event)


def judge(when: Condition | None, document: Document | None) -> bool | None:
    """Return True if the condition is true or there is none; None: it cannot be evaluated, so a person decides."""
    return True if when is None or document is None else when.judge(document)


def takes_mode(modes: frozenset[EventMode] | None, of_event: bool | None, of_source: bool | None) -> bool:  # noqa: FBT001
    """Return True if events of that mode are taken. `modes` None: of the source's own; None of the others: no mode."""
    if of_event is None or of_source is None:
        return True
    return of_event is of_source if modes is None else EventMode.of(livemode=of_event) in modes


def wants(destination: Destination, source: str, event_type: str, via: Via, occurred_us: int) -> bool:
    """Return True if the destination takes such an event."""
    return (
        via in destination.via
        and occurred_us >= destination.since_us
        and (destination.sources is None or source in destination.sources)
        and event_type in destination.types
    )
