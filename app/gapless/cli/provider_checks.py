"""What `gapless check` asks a source's provider: account, subscription, list, clock."""

from collections.abc import Iterator
from datetime import timedelta

from gapless.bootstrap import sources
from gapless.bootstrap.sources import open_provider_client
from gapless.cli.output import Finding, ok, problem, warning
from gapless.domain import Mode, system_clock
from gapless.provider_api.client import ProviderClient
from gapless.provider_api.health import ProviderHealth, read_health
from gapless.provider_api.pages import as_lister
from gapless.settings import SourceSettings
from gapless_reconcilers.kit.contract import (
    Coverage,
    NamesVersions,
    Reading,
    ReadsAccount,
    ReadsSubscription,
)
from gapless_reconcilers.kit.errors import ProviderError

SKEW_WARNING = timedelta(seconds=5)
SKEW_PROBLEM = timedelta(seconds=60)


async def check_provider(source: SourceSettings, public_url: str | None, accounts: dict[str, str]) -> list[Finding]:
    """The findings about `source`. `accounts` has the source of each account that was met before; it is added to."""
    subject = f"source {source.name}"
    try:
        async with open_provider_client(source, public_url) as client:
            known = await read_health(client, sources.webhook_url(public_url, source.name))
            found = [*_account(source, client, known, accounts), *_subscription(source, client, known)]
            found += await _list(subject, client)
            return [*found, *_clock(subject, client)]
    except ProviderError as error:
        return [problem(subject, f"the provider says no: {error}")]


def _account(
    source: SourceSettings, client: ProviderClient, known: ProviderHealth, accounts: dict[str, str]
) -> Iterator[Finding]:
    subject = f"source {source.name}"
    if not isinstance(client.source.provider, ReadsAccount):
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


def _subscription(source: SourceSettings, client: ProviderClient, known: ProviderHealth) -> Iterator[Finding]:
    subject, told, provider = f"source {source.name}", known.subscription, client.source.provider
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


async def _list(subject: str, client: ProviderClient) -> list[Finding]:
    provider, now = client.source.provider, system_clock()
    if provider.capabilities.coverage is Coverage.NONE:
        return [warning(subject, "the provider lists nothing: that nothing is missing can never be proven")]
    if provider.capabilities.reading is Reading.CONSUME:
        return [ok(subject, "its events are not read here: reading would take them away")]
    unit = provider.capabilities.resolution
    window = sources.last_window(now - provider.capabilities.grace, unit)
    request = as_lister(provider).first_request("", window)
    page = as_lister(provider).read_page(request, await client.send(request), "", window)
    count = len(page.events)
    return [ok(subject, f"the list can be read ({count} events on the first page of the last hour)")]


def _clock(subject: str, client: ProviderClient) -> Iterator[Finding]:
    skew = client.skew
    if skew is None:
        yield warning(subject, "the provider sends no Date: whether the clocks agree is unknown")
    elif abs(skew) >= SKEW_PROBLEM:
        yield problem(subject, f"our clock is {skew.total_seconds():+.0f} s against the provider's; set it right")
    elif abs(skew) >= SKEW_WARNING:
        yield warning(subject, f"our clock is {skew.total_seconds():+.0f} s against the provider's")
    else:
        yield ok(subject, "the clocks agree")
