"""Build sources, their policies and clients of their providers, from the settings and the rows of the ledger."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import gapless
from gapless.domain import (
    ALL_TYPES,
    Clock,
    Mode,
    Source,
    Sources,
    TypePatterns,
    TypesOrigin,
    align_down,
    from_us,
    system_clock,
)
from gapless.ledger import Connection, sources
from gapless.metrics import Metrics
from gapless.provider_api.client import ProviderClient, new_client
from gapless.reconcile.context import SourcePolicy
from gapless.reconcile.heartbeat import SHORTEST
from gapless.reconcile.pace import NEVER, Pace
from gapless.settings import (
    PaceStrategy,
    Settings,
    SourceSettings,
    build_provider,
    lacks_key,
)
from gapless_reconcilers.kit.contract import Capabilities, Coverage, Provider, Reading, Subscription, Window


def make_source(settings: SourceSettings, provider: Provider, source_id: int, start: datetime) -> Source:
    """Return the source as the rest of the process needs it. `start` comes from its row."""
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
        absences_allowed=settings.absences_allowed,
        can_ask=not lacks_key(settings),
    )


def mode_of(settings: SourceSettings, provider: Provider) -> Mode:
    """Return the ways in which the source's events arrive.

    A provider that lists nothing has only webhooks. A provider whose list is consumed sends none meanwhile.
    """
    known = provider.capabilities
    if known.coverage is Coverage.NONE:
        return Mode.WEBHOOK
    if known.reading is Reading.CONSUME and settings.mode is Mode.HYBRID:
        return Mode.POLL
    return settings.mode


def capabilities_of(settings: SourceSettings, provider: Provider) -> Capabilities:
    """Return the provider's capabilities, with the grace of the configuration if it sets one."""
    known = provider.capabilities
    return known if settings.grace is None else replace(known, grace=settings.grace)


def make_policy(settings: SourceSettings, provider: Provider, public_url: str | None) -> SourcePolicy:
    """Return the policy by which the source is read."""
    known = capabilities_of(settings, provider)
    shortest = max(settings.every or SHORTEST, known.least_interval)
    adaptive = settings.pace is PaceStrategy.ADAPTIVE
    long_poll = settings.pace is PaceStrategy.LONG_POLL and known.reading is Reading.CONSUME
    return SourcePolicy(
        pace=Pace(
            shortest=shortest,
            longest=max(shortest, settings.every_max),
            adaptive=adaptive,
            long_poll=long_poll,
        ),
        lookback=settings.lookback,
        sweep_every=settings.sweep or NEVER,
        slices=settings.slices,
        rate=settings.requests_per_second or known.requests_per_second,
        budget=settings.effective_budget(known),
        grant=settings.effective_grant(known),
        capabilities=known,
        request_within=settings.request_within,
        webhook_url=webhook_url(public_url, settings.name),
        share_account=settings.share_account,
        repair=settings.repair,
        is_grace_set=settings.grace is not None,
    )


def webhook_url(public_url: str | None, source: str) -> str:
    """Return the address to which the provider sends the source's webhooks; without a public address, only its path."""
    return f"{(public_url or '').rstrip('/')}/webhooks/{source}"


def last_window(end: datetime, unit: timedelta) -> Window:
    """Return a short window that ends at `end`, to try out whether a list can be read."""
    return Window(start=align_down(end - timedelta(hours=1), unit), end=align_down(end, unit))


def known_sources(connection: Connection, settings: Settings, environ: Mapping[str, str]) -> Sources:
    """Return the configured sources that the ledger knows."""
    found: list[Source] = []
    for each in settings.sources:
        row = sources.source_named(connection, each.name)
        if row is not None:
            source = make_source(each, build_provider(each, environ), row["id"], from_us(row["start_us"]))
            found.append(restore_subscription(source, sources.subscriptions(connection, row["id"])))
    return Sources(found)


def make_policies(
    settings: Sequence[SourceSettings], known: Sources, public_url: str | None
) -> dict[str, SourcePolicy]:
    """Return the policy of each source, by name."""
    return {each.name: make_policy(each, known[each.name].provider, public_url) for each in settings}


def restore_subscription(source: Source, history: Sequence[Mapping[str, Any]]) -> Source:
    """Return the source with its subscription as earlier processes read it (`ledger.sources.subscriptions`)."""
    for row in history:
        subscription = Subscription(
            healthy=row["healthy"],
            reason=row["reason"],
            types=None if row["types"] is None else tuple(json.loads(row["types"])),
            own_covered=row["own_covered"],
            streams_covered=row["streams_covered"],
        )
        source = source.subscribed(subscription, from_us(row["since_us"]))
    return source


@asynccontextmanager
async def open_provider_client(
    settings: SourceSettings,
    public_url: str | None,
    environ: Mapping[str, str],
    clock: Clock = system_clock,
    *,
    only_reads: bool = False,
) -> AsyncIterator[ProviderClient]:
    """Open a client of the source's provider, which is closed at the end. Needs no ledger.

    `only_reads`: the secrets of webhooks may be missing.
    """
    provider = build_provider(settings, environ, only_reads=only_reads)
    source = make_source(settings, provider, 0, clock())
    policy = make_policy(settings, provider, public_url)
    metrics = Metrics(gapless.__version__)
    async with new_client() as client:
        yield ProviderClient(
            client,
            Sources([source]),
            source.name,
            clock=clock,
            metrics=metrics,
            rate=policy.rate,
            within=policy.request_within,
        )
