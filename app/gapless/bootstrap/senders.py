"""Build a destination's sender from its settings. Imports no ledger: `gapless check --offline` builds senders too."""

from gapless.destinations import registry
from gapless.destinations.contract import HoldReason, Sender, SenderContext
from gapless.domain import Clock, Sources
from gapless.settings import DestinationSettings, OnVersionMismatch


def make_sender(settings: DestinationSettings, sources: Sources, clock: Clock) -> Sender:
    """Return the sender of the destination. Raises `DestinationInvalid`."""
    context = SenderContext(
        name=settings.name,
        sources=sources,
        clock=clock,
        concurrency=settings.concurrency,
        releases=released_holds(settings),
        timeout=settings.timeout,
    )
    return registry.load(settings.type)(settings.options, context)


def released_holds(settings: DestinationSettings) -> frozenset[HoldReason]:
    """Return the reasons to hold a delivery that the destination ignores, because it is set to deliver all the same."""
    ignored = settings.on_version_mismatch is OnVersionMismatch.DELIVER
    return frozenset((HoldReason.VERSION_MISMATCH,)) if ignored else frozenset()
