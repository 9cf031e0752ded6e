"""Build the configured destinations with their senders."""

from gapless.bootstrap.ledger import RegisteredRows
from gapless.bootstrap.senders import make_sender, released_holds
from gapless.deliver.retry import DeliveryRetryPolicy, ReceiptRule
from gapless.deliver.routing import Destination
from gapless.destinations.contract import DestinationInvalid, Sender
from gapless.domain import Clock, Mode, Release, Sources, TypePatterns, span_us
from gapless.settings import Confirmation, DestinationSettings, Settings


def make_destination(settings: DestinationSettings, destination_id: int, since_us: int, sender: Sender) -> Destination:
    """Return the destination as `deliver` needs it. `since_us` comes from its row."""
    return Destination(
        id=destination_id,
        name=settings.name,
        sender=sender,
        sources=None if "*" in settings.sources else frozenset(settings.sources),
        types=TypePatterns(settings.types),
        via=frozenset(settings.via),
        modes=None if settings.modes is None else frozenset(settings.modes),
        when=settings.when,
        since_us=since_us,
        delay_us=span_us(settings.delay),
        receipts=settings.receipts,
        confirm=_receipt_rule(settings),
        order=settings.order,
        release=settings.release,
        order_skips_dead=settings.order_skips_dead,
        require_listed=settings.require_listed,
        hydrate=settings.hydrate,
        concurrency=settings.concurrency,
        rate=settings.rate,
        timeout=settings.timeout,
        retry=DeliveryRetryPolicy(
            first=settings.backoff_first,
            longest=settings.backoff_max,
            max_attempts=settings.max_attempts,
            waits=settings.waits,
            max_age=settings.max_age,
        ),
        releases=released_holds(settings),
    )


def _check_provable(settings: DestinationSettings, sources: Sources) -> None:
    """Raise `DestinationInvalid` if a source of the destination has no list that could prove anything."""
    if settings.release is not Release.PROVEN:
        return
    names = [each.name for each in sources if "*" in settings.sources or each.name in settings.sources]
    bad = [name for name in names if sources[name].mode is Mode.WEBHOOK]
    if bad:
        raise DestinationInvalid(
            f'destination "{settings.name}": release is "proven", but no list of source "{bad[0]}" is read, so that '
            "nothing of it can be proven; name other sources, or set release to recorded"
        )


def _receipt_rule(settings: DestinationSettings) -> ReceiptRule | None:
    if settings.confirm is not Confirmation.RECEIPT:
        return None
    return ReceiptRule(within=settings.receipt_within, max_answers=settings.receipt_attempts)


def make_destinations(settings: Settings, rows: RegisteredRows, sources: Sources, clock: Clock) -> list[Destination]:
    """Return the destinations with their senders. Raises `DestinationInvalid`."""
    made = []
    for each in settings.destinations:
        row_id, since_us = rows.destinations[each.name]
        _check_provable(each, sources)
        sender = make_sender(each, sources, clock)
        made.append(make_destination(each, row_id, since_us, sender))
    return made
