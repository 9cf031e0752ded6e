"""Fetches the data of thin events before they are delivered. A thin event names what happened, and does not carry it.

The ledger keeps what was received; what is fetched belongs to one attempt.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Final, TypeAlias

from gapless.deliver import answers
from gapless.deliver.routing import Destination
from gapless.destinations.contract import Delivery, Failed, FailureReason, Result, Sender
from gapless.domain import Purpose, Sources, span_us
from gapless.ledger.engine import StoreError
from gapless.provider_api.client import ProviderClient
from gapless_reconcilers.kit.contract import MissingEvent, SendsThinEvents
from gapless_reconcilers.kit.errors import ProviderError, Retryable

FETCH_WITHIN: Final = timedelta(seconds=5)
"""Time in which a provider must answer; of an attempt with a short timeout, half of that."""
ClientOf: TypeAlias = Callable[[str], ProviderClient]
"""Returns the client of the source of that name."""


def hydrating(destinations: Iterable[Destination], sources: Sources, client_of: ClientOf) -> list[Destination]:
    """Return the destinations; those that want it fetch the data of thin events first."""
    return [
        replace(each, sender=HydratingSender(each.sender, sources, client_of, min(FETCH_WITHIN, each.timeout / 2)))
        if each.hydrate
        else each
        for each in destinations
    ]


class HydratingSender:
    """Sends thin events with the payload that the provider returns for them, and all others as they are."""

    def __init__(self, sender: Sender, sources: Sources, client_of: ClientOf, within: timedelta) -> None:
        self._sender = sender
        self._sources = sources
        self._client_of = client_of
        self._within = within

    async def send(self, delivery: Delivery) -> Result:
        """Attempt the delivery once, after the fetch if there is one."""
        provider = self._thin_provider(delivery)
        if provider is None:
            return await self._sender.send(delivery)
        fetched = await self._fetch(provider, delivery)
        if isinstance(fetched, Failed):
            return fetched
        result = await self._sender.send(replace(delivery, payload=fetched))
        return answers.storable(result, fetched, self._sources[delivery.source].mask)  # nobody else has what was sent

    async def close(self) -> None:
        """Close the connections to the destination."""
        await self._sender.close()

    def _thin_provider(self, delivery: Delivery) -> SendsThinEvents | None:
        """Return the provider that has the data of a thin event; None: it is not thin, or nobody has."""
        if delivery.source not in self._sources:
            return None
        provider: object = self._sources[delivery.source].provider
        return provider if isinstance(provider, SendsThinEvents) and provider.is_thin(delivery.payload) else None

    async def _fetch(self, provider: SendsThinEvents, delivery: Delivery) -> bytes | Failed:
        """Return the whole payload of the event, or why it could not be fetched; that is tried again."""
        wanted = MissingEvent(
            key=delivery.key, type=delivery.type, occurred_at=delivery.occurred_at, stream=delivery.stream
        )
        wait_us = 0
        try:
            async with asyncio.timeout(self._within.total_seconds()):
                client = self._client_of(delivery.source)
                response = await client.send_once(provider.detail_request(wanted), Purpose.DETAIL)
            event = provider.read_detail(wanted, response)
        except TimeoutError:
            why = f"the provider did not answer within {self._within.total_seconds():g} s"
        except (ProviderError, StoreError) as error:
            why = str(error) or type(error).__name__
            if isinstance(error, Retryable) and error.retry_after is not None:
                wait_us = span_us(error.retry_after)
        else:
            if event.key == delivery.key:
                return bytes(event.payload)
            why = "the provider returned another event"
        return Failed(reason=FailureReason.NOT_FETCHED, detail=f"not fetched: {why}", retry_after_us=wait_us)
