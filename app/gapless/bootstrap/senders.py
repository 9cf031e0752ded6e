"""Build a destination's sender from its settings. Imports no ledger: `gapless check --offline` builds senders too."""

from datetime import timedelta
from typing import get_type_hints

from gapless.destinations import registry
from gapless.destinations.contract import (
    DestinationInvalid,
    HoldReason,
    RendersEvents,
    SecretReader,
    Sender,
    SenderContext,
)
from gapless.domain import Clock, Sources
from gapless.settings import DestinationSettings, OnVersionMismatch
from gapless_reconcilers.kit.contract import SendsThinEvents


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
    sender = registry.load(settings.type)(settings.options, context)
    if settings.hydrate and (problem := _cannot_hydrate(settings, sender, sources)) is not None:
        raise DestinationInvalid(f'destination "{settings.name}": hydrate is true, {problem}; leave it out')
    return sender


def _cannot_hydrate(settings: DestinationSettings, sender: Sender, sources: Sources) -> str | None:
    """Return why the data of thin events cannot be fetched for the destination; None: it can."""
    if isinstance(sender, RendersEvents) and sender.renders:
        return "and the provider renders its deliveries as it sends them"
    own = [each for each in sources if "*" in settings.sources or each.name in settings.sources]
    if not any(isinstance(each.provider, SendsThinEvents) for each in own):
        return "and no provider of its sources sends thin events"
    return None


HANDLER_TIMEOUT = timedelta(minutes=1)
"""Time that a handler that somebody develops has for an answer: he may look at it with a debugger."""


def make_handler_sender(url: str, signature: str, secret: SecretReader, sources: Sources, clock: Clock) -> Sender:
    """Return a sender to a handler that somebody develops: at any private address, and nothing is held.

    `signature` is a value of the kind's option. Raises `DestinationInvalid`.
    """
    kind = registry.load("http")
    signatures = get_type_hints(kind.Options)["signature"]
    options = kind.Options(url=url, signature=signatures(signature), secret=secret, allow_private=True)
    context = SenderContext(
        name="--forward",
        sources=sources,
        clock=clock,
        concurrency=1,
        releases=frozenset(HoldReason),
        timeout=HANDLER_TIMEOUT,
    )
    return kind(options, context)


def released_holds(settings: DestinationSettings) -> frozenset[HoldReason]:
    """Return the reasons to hold a delivery that the destination ignores, because it is set to deliver all the same."""
    ignored = settings.on_version_mismatch is OnVersionMismatch.DELIVER
    return frozenset((HoldReason.VERSION_MISMATCH,)) if ignored else frozenset()
