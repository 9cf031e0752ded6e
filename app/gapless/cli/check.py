"""`gapless check`: everything that can be found wrong before it costs an event."""

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_address

import click
import httpx

from gapless.cli import show
from gapless.cli.common import Call, Exit, failing_clearly
from gapless.cli.listing import fetching
from gapless.daemon import assembly
from gapless.deliver.destinations.addresses import AddressRule
from gapless.deliver.destinations.base import DestinationInvalid
from gapless.domain import Mode, Sources, system_clock
from gapless.ledger import migrate
from gapless.ledger.engine import SqliteStore, StoreError, open_store
from gapless.reconcile import health
from gapless.reconcile.fetch import Fetcher, lister
from gapless.reconcile.pace import LONGEST
from gapless.settings import DestinationSettings, Settings, Signature, SourceSettings, build_provider
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
def check(call: Call, offline: bool, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """Look at configuration, store, keys, accounts, subscriptions, versions and clocks. Exit 1 on a problem.

    gapless --config gapless.toml check && gapless serve
    """
    with failing_clearly(debug=call.debug):
        findings = asyncio.run(_check(call.settings(), offline=offline))
        if json_:
            show.as_json(findings)
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
        findings += _destination(destination, settings)
        if not offline and destination.url:
            findings += await _address(destination, destination.url)
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
    policy = assembly.make_policy(source, provider, None)
    if policy.budget is not None and source.mode is not Mode.WEBHOOK:
        affordable = policy.budget.period / policy.budget.requests
        if affordable > source.every:
            grants = f"{policy.budget.requests} reads in {policy.budget.period.days} d"
            told = f"every = {show.span(source.every)} is more than {grants} allow"
            paced = max(source.every, min(affordable, LONGEST))
            told += f": passes will come every {show.span(paced)}{', beyond the budget' if paced < affordable else ''}"
            yield warning(subject, f"{told}; raise read_budget if the vendor grants you more")


async def _ask(source: SourceSettings, public_url: str | None, accounts: dict[str, str]) -> list[Finding]:
    subject = f"source {source.name}"
    try:
        async with fetching(source, public_url) as fetcher:
            known = await health.ask(fetcher, assembly.webhook_url(public_url, source.name))
            found = [*_account(source, fetcher, known, accounts), *_subscription(source, fetcher, known)]
            found += await _list(subject, fetcher)
            return [*found, *_clock(subject, fetcher)]
    except ProviderError as error:
        return [problem(subject, f"the provider says no: {error}")]


def _account(
    source: SourceSettings, fetcher: Fetcher, known: health.Known, accounts: dict[str, str]
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


def _subscription(source: SourceSettings, fetcher: Fetcher, known: health.Known) -> Iterator[Finding]:
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


async def _list(subject: str, fetcher: Fetcher) -> list[Finding]:
    provider, now = fetcher.source.provider, system_clock()
    if provider.capabilities.coverage is Coverage.NONE:
        return [warning(subject, "the provider lists nothing: that nothing is missing can never be proven")]
    if provider.capabilities.reading is Reading.CONSUME:
        return [ok(subject, "its events are not read here: reading would take them away")]
    unit = provider.capabilities.resolution
    window = assembly.last_window(now - provider.capabilities.grace, unit)
    request = lister(provider).first_request("", window)
    page = lister(provider).read_page(request, await fetcher.send(request), "", window)
    count = len(page.events)
    return [ok(subject, f"the list can be read ({count} events on the first page of the last hour)")]


def _clock(subject: str, fetcher: Fetcher) -> Iterator[Finding]:
    skew = fetcher.skew
    if skew is None:
        yield warning(subject, "the provider sends no Date: whether the clocks agree is unknown")
    elif abs(skew) >= SKEW_PROBLEM:
        yield problem(subject, f"our clock is {skew.total_seconds():+.0f} s against the provider's; set it right")
    elif abs(skew) >= SKEW_WARNING:
        yield warning(subject, f"our clock is {skew.total_seconds():+.0f} s against the provider's")
    else:
        yield ok(subject, "the clocks agree")


def _destination(destination: DestinationSettings, settings: Settings) -> Iterator[Finding]:
    subject = f"destination {destination.name}"
    try:
        assembly.make_carrier(destination, Sources(), system_clock)
    except DestinationInvalid as error:
        yield problem(subject, str(error))
        return
    if destination.signature is Signature.PROVIDER:
        for source in settings.sources:
            if destination.sources == ("*",) or source.name in destination.sources:
                yield from _rendering(subject, source)
    yield ok(subject, f"{destination.type.value} {destination.url or destination.target}")


async def _address(destination: DestinationSettings, url: str) -> list[Finding]:
    """Whether the host has an address, and only such as may be delivered to."""
    subject, host = f"destination {destination.name}", httpx.URL(url).host
    rule = AddressRule(destination.allow, allow_private=destination.allow_private)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return [problem(subject, f"{host} has no address ({error}); its deliveries will wait until it has one")]
    addresses = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    refused = [each for each in addresses if not rule.permits(host, ip_address(each))]
    told = f"{host} has the address {', '.join(refused)}, which is not public: deliveries to it are refused"
    return [problem(subject, f"{told}; name it in allow if you mean it")] if refused else []


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
