"""Build a destination's sender from its settings. Imports no ledger: `gapless check --offline` builds senders too."""

from typing import get_type_hints

from gapless.destinations import registry
from gapless.destinations.contract import HoldReason, SecretReader, Sender, SenderContext
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
    )
    return registry.load(settings.type)(settings.options, context)


def make_handler_sender(url: str, signature: str, secret: SecretReader, sources: Sources, clock: Clock) -> Sender:
    """Return a sender to a handler that somebody develops: at any private address, and nothing is held.

    `signature` is a value of the kind's option. Raises `DestinationInvalid`.
    """
    kind = registry.load("http")
    signatures = get_type_hints(kind.Options)["signature"]
    options = kind.Options(url=url, signature=signatures(signature), secret=secret, allow_private=True)
    context = SenderContext(
        name="--forward", sources=sources, clock=clock, concurrency=1, releases=frozenset(HoldReason)
    )
    return kind(options, context)


def released_holds(settings: DestinationSettings) -> frozenset[HoldReason]:
    """Return the reasons to hold a delivery that the destination ignores, because it is set to deliver all the same."""
    ignored = settings.on_version_mismatch is OnVersionMismatch.DELIVER
    return frozenset((HoldReason.VERSION_MISMATCH,)) if ignored else frozenset()
