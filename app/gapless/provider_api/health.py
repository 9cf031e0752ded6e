"""Ask a provider about our key, our endpoint and the account's streams, and what time it is there."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import httpx

from gapless.domain import Purpose
from gapless.provider_api.client import ProviderClient
from gapless.provider_api.pages import read_or_ask_again
from gapless_reconcilers.kit.contract import (
    Account,
    ConsumesEvents,
    Coverage,
    ListsEvents,
    ListsStreams,
    Provider,
    ReadsAccount,
    ReadsSubscription,
    RegistersEndpoint,
    Subscription,
    Window,
)
from gapless_reconcilers.kit.errors import CredentialsRejected, OptionsInvalid, ProviderError, UnexpectedShape

log = logging.getLogger(__name__)
TIME_WITHIN_S: Final = 5.0
"""Time that a provider has to tell its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderHealth:
    """The provider's account and our subscription there; None where the provider, or the key, cannot tell."""

    account: Account | None = None
    subscription: Subscription | None = None


async def ask_time(client: ProviderClient) -> datetime | None:
    """Return the time at the provider; None: it does not say what time it is there.

    Any answer will do, a refusal too. It takes at most `TIME_WITHIN_S`.
    """
    request = _cheapest_request(client.source.provider, client.now)
    if request is not None:
        with suppress(ProviderError, TimeoutError):
            async with asyncio.timeout(TIME_WITHIN_S):
                await client.send_once(request, Purpose.ACCOUNT)
    return None if client.skew is None else client.provider_now


def _cheapest_request(provider: Provider, now: datetime) -> httpx.Request | None:
    if isinstance(provider, ReadsAccount):
        return provider.account_request()
    if isinstance(provider, ReadsSubscription):
        return provider.subscription_request()
    has_list = provider.capabilities.coverage is not Coverage.NONE
    if has_list and isinstance(provider, ListsEvents) and not isinstance(provider, ConsumesEvents):
        return provider.first_request("", Window(start=now - timedelta(minutes=1), end=now))
    return None


async def read_health(client: ProviderClient, webhook_url: str) -> ProviderHealth:
    """Return whose account it is and the state of our endpoint.

    If the key lacks a permission, that part is None. Raises `Retryable` and `UnexpectedShape`.
    """
    account = await read_account(client)
    return ProviderHealth(account=account, subscription=await read_subscription(client, webhook_url))


async def read_account(client: ProviderClient) -> Account | None:
    """Return the account that our key reads; None: unknown. Raises `Retryable` and `UnexpectedShape`."""
    provider = client.source.provider
    try:
        if isinstance(provider, ReadsAccount):
            return provider.read_account(await client.send(provider.account_request(), Purpose.ACCOUNT))
    except (CredentialsRejected, OptionsInvalid) as error:
        log.info("account_unknown", extra={"source": client.source.name, "error": str(error)})
    return None


async def read_subscription(client: ProviderClient, webhook_url: str) -> Subscription | None:
    """Return the state of our endpoint; None: unknown. Raises `Retryable`."""
    provider = client.source.provider
    try:
        if isinstance(provider, ReadsSubscription):
            response = await client.send(provider.subscription_request(), Purpose.ENDPOINT)
            return provider.read_subscription(response, webhook_url)
    except (CredentialsRejected, OptionsInvalid, UnexpectedShape) as error:
        log.info("subscription_unknown", extra={"source": client.source.name, "error": str(error)})
    return None


async def repair_endpoint(client: ProviderClient, webhook_url: str) -> bool:
    """Enable our endpoint if it exists and is disabled. Return True if that was requested. Raises `ProviderError`s."""
    provider, subscription = client.source.provider, await read_subscription(client, webhook_url)
    if subscription is None or subscription.healthy or not isinstance(provider, RegistersEndpoint):
        return False
    request = provider.repair_request(subscription, webhook_url)
    if request is None:
        return False
    await client.send(request, Purpose.ENDPOINT)
    log.warning("subscription_repaired", extra={"source": client.source.name, "reason": subscription.reason})
    return True


async def stream_names(client: ProviderClient) -> list[str]:
    """Return the other streams of the account, in the provider's order. Raises `ProviderError`s."""
    provider = client.source.provider
    if not isinstance(provider, ListsStreams):
        return []
    request, names, sender = provider.streams_request(), list[str](), client.spending(Purpose.ACCOUNT)
    while request is not None:
        read = partial(provider.read_streams, request)
        page = await read_or_ask_again(sender, request, await sender.send(request), read)
        names += page.streams
        request = page.next
    return names
