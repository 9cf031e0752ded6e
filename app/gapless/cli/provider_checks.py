"""The checks of `gapless check` that send requests to a provider: account, subscription, list, clock."""

import os
from collections.abc import Iterator, Sequence
from datetime import timedelta

from gapless.bootstrap.policies import webhook_url
from gapless.bootstrap.sources import last_window, open_provider_client
from gapless.cli.output import Finding, ok, problem, warning
from gapless.domain import Mode, Purpose, system_clock
from gapless.provider_api.client import ProviderClient
from gapless.provider_api.health import ProviderHealth, read_health
from gapless.provider_api.pages import as_lister
from gapless.settings import SourceSettings
from gapless_reconcilers.kit.contract import (
    Coverage,
    NamesVersions,
    Provider,
    Reading,
    ReadsAccount,
    ReadsSubscription,
)
from gapless_reconcilers.kit.errors import ProviderError, Retryable

SKEW_WARNING = timedelta(seconds=5)
SKEW_PROBLEM = timedelta(seconds=60)


async def check_provider(
    source: SourceSettings, public_url: str | None, accounts: dict[str, str], *, has_clock: bool
) -> list[Finding]:
    """Return the findings about `source`. `accounts` maps the accounts met so far to their sources; it is added to.

    `has_clock`: the ledger's database has a clock of its own, with which this machine's is compared.
    """
    subject = f"source {source.name}"
    try:
        async with open_provider_client(source, public_url, os.environ) as client:
            health = await read_health(client, webhook_url(public_url, source.name))
            found = [*_account(source, client, health, accounts), *_subscription(source, client, health)]
            found += await _list(subject, client, health)
            return [*found, *_clock(subject, client, has_clock=has_clock)]
    except Retryable as error:
        return [problem(subject, f"the provider cannot be reached: {error}")]
    except ProviderError as error:
        return [problem(subject, f"the provider refuses: {error}")]


def _account(
    source: SourceSettings, client: ProviderClient, health: ProviderHealth, accounts: dict[str, str]
) -> Iterator[Finding]:
    subject = f"source {source.name}"
    if not isinstance(client.source.provider, ReadsAccount):
        return
    if health.account is None:
        yield warning(subject, "the account could not be read, so it is unknown (the key may lack that permission)")
        return
    other = accounts.setdefault(health.account.fingerprint, source.name)
    if other != source.name and not source.share_account:
        message = f"reads the same account as source {other}: each event would be recorded twice"
        yield problem(subject, f"{message}; remove one, or set share_account = true")
    else:
        yield ok(subject, f"account {health.account.fingerprint}")


def _subscription(source: SourceSettings, client: ProviderClient, health: ProviderHealth) -> Iterator[Finding]:
    subject, subscription, provider = f"source {source.name}", health.subscription, client.source.provider
    if source.mode is not Mode.HYBRID:
        return
    if subscription is None:
        can_read = isinstance(provider, ReadsSubscription)
        why = (
            "its subscription could not be read" if can_read else "the provider does not show the state of our endpoint"
        )
        if can_read or source.types is None:
            yield warning(subject, f"{why}: unless types is set, all types count as expected")
        return
    if not subscription.healthy:
        yield problem(subject, subscription.reason)
        return
    yield ok(subject, f"endpoint enabled for {', '.join(subscription.types or ('unknown types',))}")
    if provider.capabilities.unproven:
        yield ok(subject, f"what the list cannot prove: {provider.capabilities.unproven}")
    if isinstance(provider, NamesVersions):
        named = provider.endpoint_version()
        if named is not None and subscription.api_version is not None and named != subscription.api_version:
            yield problem(
                subject, f"options.api_version is {named}, the endpoint has {subscription.api_version}; set that one"
            )


async def _list(subject: str, client: ProviderClient, health: ProviderHealth) -> list[Finding]:
    provider, now = client.source.provider, system_clock()
    if provider.capabilities.coverage is Coverage.NONE:
        return [warning(subject, "the provider has no list: losses can never be seen")]
    if provider.capabilities.reading is Reading.CONSUME:
        return [ok(subject, "its list is not read by this check: reading would consume the events")]
    unit = provider.capabilities.resolution
    window = last_window(now - provider.capabilities.grace, unit)
    request = as_lister(provider).first_request("", window)
    response = await client.send(request, Purpose.URGENT)
    page = as_lister(provider).read_page(request, response, "", window)
    count = len(page.events)
    found = [ok(subject, f"the list can be read ({count} events on the first page of the last hour)")]
    return [*found, *_versions(subject, provider, health, [bytes(event.payload) for event in page.events])]


def _versions(subject: str, provider: Provider, health: ProviderHealth, listed: Sequence[bytes]) -> Iterator[Finding]:
    """Compare the API version of our endpoint with those of the list: where they differ, listed events are held."""
    if not isinstance(provider, NamesVersions):
        return
    of_endpoint = provider.endpoint_version() or (health.subscription.api_version if health.subscription else None)
    if of_endpoint is None:
        yield ok(subject, "the API version of our endpoint is not known: listed events are delivered in any version")
        return
    versions = {provider.payload_version(payload) for payload in listed}
    others = sorted(version for version in versions if version not in (None, of_endpoint))
    if others:
        yield warning(
            subject,
            f"the list shows events of API version {', '.join(map(str, others))}, and our endpoint has {of_endpoint}: "
            'with signature = "provider" they are held; set on_version_mismatch, or give the endpoint that version',
        )
    else:
        seen = "the list has it too" if listed else "the last hour shows none to compare with"
        yield ok(subject, f"our endpoint has the API version {of_endpoint}; {seen}")


def _clock(subject: str, client: ProviderClient, *, has_clock: bool) -> Iterator[Finding]:
    if client.skew is not None:
        yield compare_clocks(subject, "the provider's", client.skew)
    elif has_clock:
        yield warning(subject, "the provider sends no Date header: it is unknown if its clock and ours agree")
    else:
        message = "our clock is unverified: the provider sends no Date header, and a SQLite ledger has no clock"
        yield warning(subject, f"{message}; make sure that this machine's is synchronised")


def compare_clocks(subject: str, whose: str, skew: timedelta) -> Finding:
    """Return the finding about our clock, which is ahead of another by `skew`."""
    differs = f"our clock differs from {whose} by {skew.total_seconds():+.0f} s"
    if abs(skew) >= SKEW_PROBLEM:
        return problem(subject, f"{differs}; set it right")
    if abs(skew) >= SKEW_WARNING:
        return warning(subject, differs)
    return ok(subject, f"the clocks agree: ours and {whose}")
