"""From settings to parts: the pure half of the composition root."""

from dataclasses import replace
from datetime import datetime, timedelta

from gapless.bootstrap.senders import released_holds
from gapless.deliver.destination import Destination
from gapless.deliver.retry import RetryRule
from gapless.destinations.contract import Sender
from gapless.domain import ALL_TYPES, Mode, Source, TypePatterns, TypesOrigin, align_down, span_us
from gapless.receive.endpoint import ReceiveOptions
from gapless.receive.quarantine import QuarantineOptions
from gapless.reconcile.pace import Pace
from gapless.reconcile.road import Policy
from gapless.settings import DestinationSettings, Settings, SourceSettings
from gapless.settings import Pace as PaceSetting
from gapless_reconcilers.kit.contract import Capabilities, Coverage, Provider, Reading, Window

NEVER = timedelta(days=36500)
"""Between sweeps that are switched off."""


def make_source(settings: SourceSettings, provider: Provider, source_id: int, start: datetime) -> Source:
    """The source as the roads need it. `start` is what its row says."""
    types = ALL_TYPES if settings.types is None else TypePatterns(settings.types)
    return Source(
        id=source_id,
        name=settings.name,
        provider=provider,
        mode=mode_of(settings, provider),
        start=start,
        types=types,
        types_origin=TypesOrigin.ASSUMED if settings.types is None else TypesOrigin.CONFIG,
        keep_unsubscribed=settings.keep_unsubscribed,
        silence=settings.silence_after,
    )


def mode_of(settings: SourceSettings, provider: Provider) -> Mode:
    """What the source is fed by.

    Of a provider that lists nothing, webhooks are all there is. One whose list is read away sends none meanwhile.
    """
    known = provider.capabilities
    if known.coverage is Coverage.NONE:
        return Mode.WEBHOOK
    if known.reading is Reading.CONSUME and settings.mode is Mode.HYBRID:
        return Mode.POLL
    return settings.mode


def capabilities_of(settings: SourceSettings, provider: Provider) -> Capabilities:
    """The provider's, with the grace that the configuration names."""
    known = provider.capabilities
    return known if settings.grace is None else replace(known, grace=settings.grace)


def make_policy(settings: SourceSettings, provider: Provider, public_url: str | None) -> Policy:
    """How the source is read."""
    known = capabilities_of(settings, provider)
    adaptive = settings.pace is PaceSetting.ADAPTIVE
    long_poll = settings.pace is PaceSetting.LONG_POLL and known.reading is Reading.CONSUME
    return Policy(
        pace=Pace(
            shortest=settings.every,
            longest=max(settings.every, settings.every_max),
            adaptive=adaptive,
            long_poll=long_poll,
        ),
        lookback=settings.lookback,
        sweep_every=settings.sweep or NEVER,
        slices=settings.slices,
        rate=settings.requests_per_second or known.requests_per_second,
        budget=settings.effective_budget(known),
        capabilities=known,
        webhook_url=webhook_url(public_url, settings.name),
        share_account=settings.share_account,
        repair=settings.repair,
    )


def webhook_url(public_url: str | None, source: str) -> str:
    """Where the provider sends the source's webhooks; without a public address, the path alone."""
    return f"{(public_url or '').rstrip('/')}/webhooks/{source}"


def receive_options(settings: Settings) -> ReceiveOptions:
    """The receive road's options."""
    kept = settings.quarantine
    return ReceiveOptions(
        body_limit=settings.public.body_limit,
        min_free=settings.store.min_free,
        quarantine=QuarantineOptions(max_rows=kept.max_rows, max_bytes=kept.max_bytes, per_minute=kept.per_minute),
    )


def make_destination(settings: DestinationSettings, destination_id: int, since_us: int, sender: Sender) -> Destination:
    """The destination as `deliver` needs it. `since_us` is what its row says."""
    return Destination(
        id=destination_id,
        name=settings.name,
        sender=sender,
        sources=None if "*" in settings.sources else frozenset(settings.sources),
        types=TypePatterns(settings.types),
        via=frozenset(settings.via),
        since_us=since_us,
        delay_us=span_us(settings.delay),
        concurrency=settings.concurrency,
        rate=settings.rate,
        timeout=settings.timeout,
        retry=RetryRule(first=settings.backoff_first, longest=settings.backoff_max, max_attempts=settings.max_attempts),
        lets_go=released_holds(settings),
    )


def last_window(end: datetime, unit: timedelta) -> Window:
    """A short window that ends at `end`: to see whether a list can be read."""
    return Window(start=align_down(end - timedelta(hours=1), unit), end=align_down(end, unit))
