"""A client of one source's provider for a command, without a ledger."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click

import gapless
from gapless.bootstrap import sources
from gapless.domain import Sources, system_clock
from gapless.metrics import Metrics
from gapless.provider_api.client import ProviderClient, new_client
from gapless.settings import Settings, SourceSettings, build_provider


def find_source(settings: Settings, name: str) -> SourceSettings:
    """The configured source of that name. Raises `click.BadParameter`."""
    for each in settings.sources:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in settings.sources) or "none"
    raise click.BadParameter(f"source {name!r} is not configured; configured: {known}", param_hint="SOURCE")


@asynccontextmanager
async def open_provider_client(settings: SourceSettings, public_url: str | None) -> AsyncIterator[ProviderClient]:
    """A client of the source's provider, closed at the end."""
    provider = build_provider(settings, os.environ)
    source = sources.make_source(settings, provider, 0, system_clock())
    policy = sources.make_policy(settings, provider, public_url)
    metrics = Metrics(gapless.__version__)
    async with new_client() as client:
        yield ProviderClient(
            client, Sources([source]), source.name, clock=system_clock, metrics=metrics, rate=policy.rate
        )
