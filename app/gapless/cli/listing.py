"""Reading a source's list for a command: the requests of a pass, without a ledger."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import click

import gapless
from gapless.cli import output
from gapless.cli.comparison import Report, plan_report
from gapless.daemon import assembly
from gapless.domain import Source, Sources, TypePatterns, TypesOrigin, system_clock
from gapless.metrics import Metrics
from gapless.reconcile import health
from gapless.reconcile.fetch import Fetcher, new_client, pages
from gapless.settings import Settings, SourceSettings, build_provider
from gapless_reconcilers.kit.contract import OWN_STREAM

Known = Callable[[Sequence[str]], Awaitable[Collection[str]]]
"""Which of these keys are known."""


def configured(settings: Settings, name: str) -> SourceSettings:
    """The configured source of that name. Raises `click.BadParameter`."""
    for each in settings.sources:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in settings.sources) or "none"
    raise click.BadParameter(f"source {name!r} is not configured; configured: {known}", param_hint="SOURCE")


@asynccontextmanager
async def fetching(settings: SourceSettings, public_url: str | None) -> AsyncIterator[Fetcher]:
    """The I/O of one source, without a ledger."""
    provider = build_provider(settings, os.environ)
    source = assembly.make_source(settings, provider, 0, system_clock())
    policy = assembly.make_policy(settings, provider, public_url)
    metrics = Metrics(gapless.__version__)
    async with new_client() as client:
        yield Fetcher(client, Sources([source]), source.name, clock=system_clock, metrics=metrics, rate=policy.rate)


async def compare(
    settings: Settings,
    name: str,
    since: datetime,
    until: datetime | None,
    known: Known | None,
    types: tuple[str, ...] = (),
) -> Report:
    """Hold what the provider lists against what is `known`; None: only count. Raises `ProviderError`s."""
    wanted = configured(settings, name)
    async with fetching(wanted, settings.public_url) as fetcher:
        told = await health.ask(fetcher, assembly.webhook_url(settings.public_url, name))
        source = _subscribed(fetcher.source, told, types)
        report = plan_report(
            source, assembly.capabilities_of(wanted, source.provider), since, until, system_clock() - fetcher.behind
        )
        report.compared = known is not None
        progress = output.ProgressLine()
        if report.window.start < report.window.end:
            for stream in (OWN_STREAM, *await health.stream_names(fetcher)):
                await _read_stream(fetcher, stream, report, known, progress)
        progress.end()
        return report


async def _read_stream(
    fetcher: Fetcher, stream: str, report: Report, known: Known | None, progress: output.ProgressLine
) -> None:
    async with pages(fetcher, stream, report.window) as walked:
        async for page in walked:
            events = report.audited(page.events)
            report.add(events, await known([event.key for event in events]) if known else ())
            progress.tell(f"{report.listed} listed" + (f", {len(report.missing)} missing" if known else ""))


def _subscribed(source: Source, told: health.Known, types: tuple[str, ...]) -> Source:
    """The source with the types to audit: those that are named, else as configured, else as subscribed, else all."""
    book = Sources([source])
    if types:
        return book.change(source.name, types=TypePatterns(types), types_origin=TypesOrigin.CONFIG)
    if told.subscription is not None:
        health.learn(book, source, told.subscription, system_clock())
    return book[source.name]
