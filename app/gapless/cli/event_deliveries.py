"""The deliveries of one event, as `gapless event show` prints them."""

from collections.abc import Sequence

from gapless.condition import Document
from gapless.deliver.routing import takes_mode
from gapless.domain import TypePatterns, from_us
from gapless.ledger.deliveries import DeliveryState, EventDelivery
from gapless.ledger.events import Event
from gapless.settings import DestinationSettings


def event_deliveries(
    row: Event,
    made: Sequence[EventDelivery],
    configured: Sequence[DestinationSettings],
    received: bytes | None,
) -> list[dict[str, object]]:
    """Return the event's deliveries, and the destinations that are not owed it because of its mode or a condition."""
    owed = [_owed(each) for each in made]
    others = [each for each in configured if each.name not in {one.destination for one in made}]
    refused = ((each.name, _not_owed(each, row, received)) for each in others)
    return owed + [
        {"destination": name, "state": "not_owed", "reason": reason} for name, reason in refused if reason is not None
    ]


def _not_owed(destination: DestinationSettings, row: Event, received: bytes | None) -> str | None:
    """Return why the destination is not owed an event of its sources and types; None: no such reason is known."""
    modes = None if destination.modes is None else frozenset(destination.modes)
    if not takes_mode(modes, row.livemode, row.source_livemode):
        return "other_mode"
    takes = row.type in TypePatterns(destination.types) and {"*", row.source} & set(destination.sources)
    if not takes or destination.when is None or received is None:
        return None
    return "condition" if destination.when.judge(Document(received)) is False else None


def _owed(made: EventDelivery) -> dict[str, object]:
    return {
        "destination": made.destination,
        "state": made.state.value,
        "reason": made.reason,
        "attempts": made.attempts,
        "answered_at": None if made.answered_us is None else from_us(made.answered_us),
        "applied_at": None if made.applied_us is None else from_us(made.applied_us),
        "done_at": None if made.done_us is None else from_us(made.done_us),
        "in_order": made.is_ordered,
        "waits_for": _waits_for(made),
        "late": made.late,
    }


def _waits_for(made: EventDelivery) -> str | None:
    if made.state is not DeliveryState.WAITING:
        return None
    return "the provider's list to be complete" if made.is_unproven else "the event before it in its order"
