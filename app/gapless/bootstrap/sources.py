"""Build sources and clients of their providers, from the settings and the rows of the ledger."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import gapless
from gapless.bootstrap.policies import make_policy, mode_of
from gapless.domain import (
    ALL_TYPES,
    Clock,
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
from gapless.settings import (
    Settings,
    SourceSettings,
    build_provider,
    lacks_key,
)
from gapless_reconcilers.kit.contract import Provider, Subscription, Window


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
        mask=settings.effective_mask(provider.capabilities),
    )


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
            source = replace(source, digest_key=row["digest_key"] or "")
            found.append(restore_subscription(source, sources.subscriptions(connection, row["id"])))
    return Sources(found)


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
