"""From the settings of a destination to its sender. Imports no ledger: `gapless check --offline` makes senders too."""

from gapless.destinations import registry
from gapless.destinations.contract import HoldReason, Sender, SenderContext
from gapless.domain import Clock, Sources
from gapless.settings import DestinationSettings, OnVersionMismatch


def make_sender(settings: DestinationSettings, sources: Sources, clock: Clock) -> Sender:
    """The sender of the destination. Raises `DestinationInvalid`."""
    context = SenderContext(
        name=settings.name,
        sources=sources,
        clock=clock,
        concurrency=settings.concurrency,
        releases=released_holds(settings),
    )
    return registry.load(settings.type)(settings.options, context)


def released_holds(settings: DestinationSettings) -> frozenset[HoldReason]:
    """The reasons to hold a delivery that do not count for the destination, because the team has chosen to deliver."""
    delivers = settings.on_version_mismatch is OnVersionMismatch.DELIVER
    return frozenset((HoldReason.VERSION_MISMATCH,)) if delivers else frozenset()
