"""Requests to providers: no secret is shown, a bad answer does no harm, and no request is sent without a budget."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from world import HASTY

from gapless.domain import Mode, Purpose, Source, Sources, system_clock
from gapless.metrics import Metrics
from gapless.provider_api.client import ProviderClient, new_client
from gapless.provider_api.pages import freeze, thaw
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.errors import CredentialsRejected
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio


def provider_client(client: httpx.AsyncClient, url: str, key: str, **options: Any) -> ProviderClient:
    provider = Stripe(StripeOptions(api_key=Secret(key), api_base=url))
    source = Source(id=1, name="acme", provider=provider, mode=Mode.POLL, start=datetime(2026, 1, 1, tzinfo=UTC))
    settled = {"clock": system_clock, "metrics": Metrics("t"), "rate": 10_000, "retry": HASTY}
    return ProviderClient(client, Sources([source]), "acme", **settled, **options)


@pytest.mark.parametrize("key", ["sk_live_\0do_not_show", "sk_live_\ndo_not_show", "sk_live_\udcffdo_not_show"])
async def test_a_secret_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    fake = FakeProvider(StripeFormat())
    async with fake.serve() as url, new_client() as client:
        with pytest.raises(CredentialsRejected, match="check the secret for odd characters") as caught:
            await provider_client(client, url, key).send(httpx.Request("GET", f"{url}/v1/account"), Purpose.ACCOUNT)
    text = f"{caught.value!r} {caught.value.__cause__!r}"
    assert "do_not_show" not in text
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("date", ["Thu, 01 Jan 2026 00:00:00 +99999999999999999", "yesterday", "", "99"])
async def test_a_date_that_is_none_changes_nothing(date: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={}, headers={"date": date})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        requester = provider_client(client, "http://vendor.test", "sk_live_x")
        await requester.send(httpx.Request("GET", "http://vendor.test/"), Purpose.SWEEP)
    assert requester.skew is None


def test_a_request_that_is_stored_and_taken_up_again_asks_for_the_same() -> None:
    headers = {"accept": "application/vnd.acme+json", "x-version": "1"}
    request = httpx.Request("POST", "https://api.acme.example/events?x=1", headers=headers, json={"a": 1})
    again = thaw(freeze(request))
    assert (again.method, again.url, again.content) == (request.method, request.url, request.content)
    assert {name: again.headers[name] for name in headers} == headers


async def test_no_request_is_sent_before_it_is_reserved() -> None:
    reserved, sent = [0], [0]

    async def spend(_: Purpose, requests: int) -> None:
        await asyncio.sleep(0.01)
        reserved[0] += requests

    def answer(_: httpx.Request) -> httpx.Response:
        sent[0] += 1
        assert sent[0] <= reserved[0]
        return httpx.Response(200, json={})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        requester = provider_client(client, "http://vendor.test", "sk_live_x", spend=spend)
        cancelled = asyncio.create_task(requester.send(httpx.Request("GET", "http://vendor.test/"), Purpose.SWEEP))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        await asyncio.gather(
            *(requester.send(httpx.Request("GET", "http://vendor.test/"), Purpose.SWEEP) for _ in range(64))
        )
    assert (sent[0], reserved[0]) == (64, 1 + 2 + 4 + 8 + 16 + 20 + 20)
