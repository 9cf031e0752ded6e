"""`gapless check`: everything that can be found wrong before it costs an event."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import click

from gapless.bootstrap import destinations, sources
from gapless.bootstrap.provider_client import open_provider_client
from gapless.cli import output
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.destinations.contract import ChecksAddress, DestinationInvalid, RendersEvents
from gapless.domain import Mode, Sources, system_clock
from gapless.ledger import migrate
from gapless.ledger.engine import SqliteStore, StoreError, open_store
from gapless.provider_api.client import ProviderClient
from gapless.provider_api.health import ProviderHealth, read_health
from gapless.provider_api.pages import as_lister
from gapless.settings import DestinationSettings, Settings, SourceSettings, build_provider
from gapless_reconcilers.kit.contract import (
    Coverage,
    NamesVersions,
    Provider,
    Reading,
    ReadsAccount,
    ReadsSubscription,
    Rendering,
    WarnsAboutOptions,
)
from gapless_reconcilers.kit.errors import ProviderError

SKEW_WARNING = timedelta(seconds=5)
SKEW_PROBLEM = timedelta(seconds=60)


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    text: str


def ok(subject: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(subject=subject, verdict=Verdict.OK, text=text)


def warning(subject: str, text: str) -> Finding:
    """It will run; somebody should know."""
    return Finding(subject=subject, verdict=Verdict.WARNING, text=text)


def problem(subject: str, text: str) -> Finding:
    """It will lose events, or not run."""
    return Finding(subject=subject, verdict=Verdict.PROBLEM, text=text)


@click.command()
@click.option("--offline", is_flag=True, help="Ask no provider, resolve no name.")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def check(call: Invocation, offline: bool, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """Look at configuration, store, keys, accounts, subscriptions, versions and clocks. Exit 1 on a problem.

    gapless --config gapless.toml check && gapless serve
    """
    with failing_clearly(debug=call.debug):
        findings = asyncio.run(_check(call.settings(), offline=offline))
        if json_:
            output.as_json(findings)
        else:
            for each in findings:
                click.echo(f"{each.verdict.value:8} {each.subject}: {each.text}")
        bad = any(each.verdict is Verdict.PROBLEM for each in findings)
        raise SystemExit(Exit.NEGATIVE if bad else Exit.OK)


async def _check(settings: Settings, *, offline: bool) -> list[Finding]:
    findings = [ok("config", f"{len(settings.sources)} sources, {len(settings.destinations)} destinations")]
    if not settings.sources:
        findings.append(warning("config", "no source is configured; add a [[source]]"))
    findings.append(await _store(settings))
    accounts: dict[str, str] = {}
    for each in settings.sources:
        provider = build_provider(each, os.environ)
        findings += _options(each, provider)
        if not offline:
            findings += await _ask(each, settings.public_url, accounts)
    for destination in settings.destinations:
        findings += await _destination(destination, settings, offline=offline)
    return findings


async def _store(settings: Settings) -> Finding:
    store = open_store(settings.store.url.read().reveal())
    try:
        if isinstance(store, SqliteStore) and not store.path.exists():
            return ok("store", f"{store.path} will be made by `gapless serve`")
        version = await store.read(migrate.version)
    except StoreError as error:
        return problem("store", str(error))
    finally:
        await store.close()
    if version == migrate.head():
        return ok("store", f"{store.dialect}, schema {version}")
    by_itself = isinstance(store, SqliteStore) and (version is None or version in migrate.known())
    told = f"schema is {version or 'empty'}, this release wants {migrate.head()}"
    return (
        warning("store", f"{told}; `gapless serve` upgrades it")
        if by_itself
        else problem("store", f"{told}; run gapless db upgrade")
    )


def _options(source: SourceSettings, provider: Provider) -> Iterator[Finding]:
    subject = f"source {source.name}"
    problems = provider.option_problems() if isinstance(provider, WarnsAboutOptions) else []
    yield from (problem(subject, each) for each in problems)
    policy = sources.make_policy(source, provider, None)
    if policy.budget is not None and source.mode is not Mode.WEBHOOK:
        affordable = policy.budget.period / policy.budget.requests
        if affordable > source.every:
            grants = f"{policy.budget.requests} reads in {policy.budget.period.days} d"
            told = f"every = {output.format_span(source.every)} is more than {grants} allow"
            told += f": passes will come every {output.format_span(affordable)}"
            yield warning(subject, f"{told}; raise read_budget if the vendor grants you more")


async def _ask(source: SourceSettings, public_url: str | None, accounts: dict[str, str]) -> list[Finding]:
    subject = f"source {source.name}"
    try:
        async with open_provider_client(source, public_url) as fetcher:
            known = await read_health(fetcher, sources.webhook_url(public_url, source.name))
            found = [*_account(source, fetcher, known, accounts), *_subscription(source, fetcher, known)]
            found += await _list(subject, fetcher)
            return [*found, *_clock(subject, fetcher)]
    except ProviderError as error:
        return [problem(subject, f"the provider says no: {error}")]


def _account(
    source: SourceSettings, fetcher: ProviderClient, known: ProviderHealth, accounts: dict[str, str]
) -> Iterator[Finding]:
    subject = f"source {source.name}"
    if not isinstance(fetcher.source.provider, ReadsAccount):
        return
    if known.account is None:
        yield warning(subject, "whose account it is could not be read: unknown (the key may lack that permission)")
        return
    twin = accounts.setdefault(known.account.fingerprint, source.name)
    if twin != source.name and not source.share_account:
        told = f"reads the same account as source {twin}: each event would be recorded twice"
        yield problem(subject, f"{told}; remove one, or set share_account = true")
    else:
        yield ok(subject, f"account {known.account.fingerprint}")


def _subscription(source: SourceSettings, fetcher: ProviderClient, known: ProviderHealth) -> Iterator[Finding]:
    subject, told, provider = f"source {source.name}", known.subscription, fetcher.source.provider
    if source.mode is not Mode.HYBRID:
        return
    if told is None:
        is_asked = isinstance(provider, ReadsSubscription)
        why = "its subscription could not be read" if is_asked else "the provider does not tell how our endpoint stands"
        if is_asked or source.types is None:
            yield warning(subject, f"{why}: unless types is set, all types count as expected")
        return
    if not told.healthy:
        yield problem(subject, told.reason)
        return
    yield ok(subject, f"endpoint enabled for {', '.join(told.types or ('unknown types',))}")
    if provider.capabilities.unproven:
        yield ok(subject, f"what the list cannot prove: {provider.capabilities.unproven}")
    if isinstance(provider, NamesVersions):
        named = provider.endpoint_version()
        if named is not None and told.api_version is not None and named != told.api_version:
            yield problem(subject, f"options.api_version is {named}, the endpoint has {told.api_version}; set that one")


async def _list(subject: str, fetcher: ProviderClient) -> list[Finding]:
    provider, now = fetcher.source.provider, system_clock()
    if provider.capabilities.coverage is Coverage.NONE:
        return [warning(subject, "the provider lists nothing: that nothing is missing can never be proven")]
    if provider.capabilities.reading is Reading.CONSUME:
        return [ok(subject, "its events are not read here: reading would take them away")]
    unit = provider.capabilities.resolution
    window = sources.last_window(now - provider.capabilities.grace, unit)
    request = as_lister(provider).first_request("", window)
    page = as_lister(provider).read_page(request, await fetcher.send(request), "", window)
    count = len(page.events)
    return [ok(subject, f"the list can be read ({count} events on the first page of the last hour)")]


def _clock(subject: str, fetcher: ProviderClient) -> Iterator[Finding]:
    skew = fetcher.skew
    if skew is None:
        yield warning(subject, "the provider sends no Date: whether the clocks agree is unknown")
    elif abs(skew) >= SKEW_PROBLEM:
        yield problem(subject, f"our clock is {skew.total_seconds():+.0f} s against the provider's; set it right")
    elif abs(skew) >= SKEW_WARNING:
        yield warning(subject, f"our clock is {skew.total_seconds():+.0f} s against the provider's")
    else:
        yield ok(subject, "the clocks agree")


async def _destination(destination: DestinationSettings, settings: Settings, *, offline: bool) -> list[Finding]:
    subject = f"destination {destination.name}"
    try:
        sender = destinations.make_sender(destination, Sources(), system_clock)
    except DestinationInvalid as error:
        return [problem(subject, str(error))]
    found = list[Finding]()
    if isinstance(sender, RendersEvents) and sender.renders:
        for source in settings.sources:
            if destination.sources == ("*",) or source.name in destination.sources:
                found += _rendering(subject, source)
    found.append(ok(subject, f"{destination.type} {destination.options.address}".strip()))
    if isinstance(sender, ChecksAddress) and not offline:
        found += [problem(subject, each) for each in await sender.address_problems()]
    await sender.close()
    return found


def _rendering(subject: str, source: SourceSettings) -> Iterator[Finding]:
    rendering = build_provider(source, os.environ).capabilities.rendering
    if rendering is Rendering.IMPOSSIBLE:
        told = f"nobody but {source.provider} can sign as {source.provider}"
        yield problem(subject, f'{told}; use signature = "standard", or leave source {source.name} out')
    elif rendering is Rendering.PUSHED:
        told = (
            f"what was missed of source {source.name} has no {source.provider} webhook's shape and would never arrive"
        )
        yield problem(subject, f'{told}; use signature = "standard", or leave the source out')
    elif rendering is Rendering.EQUIVALENT:
        told = f"what was listed of source {source.name} can differ in shape from its webhook (API version)"
        yield warning(subject, f"{told}; on_version_mismatch decides")
