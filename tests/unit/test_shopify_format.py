"""The fake's Shopify against the recorded fixture and the real provider."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from gapless_reconcilers.kit.contract import RemoteEvent, Secret, WebhookRequest, Window
from gapless_reconcilers.kit.errors import CredentialsRejected, RateLimited
from gapless_reconcilers.providers.shopify import Shopify, ShopifyOptions
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.shopify import ShopifyFormat
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest
from gapless_reconcilers.testing.fake.webhook_sender import Faults

FIXTURE = Path(__file__).parents[1] / "fixtures" / "shopify"
NOW = datetime(2026, 11, 20, 12, 20, tzinfo=UTC)
WINDOW = Window(start=NOW - timedelta(hours=1), end=NOW)


def new_fake(**wire: Any) -> FakeProvider:
    return FakeProvider(ShopifyFormat(**wire), clock=lambda: NOW)


def new_provider(**options: Any) -> Shopify:
    secrets = {"access_token": Secret("shpat_fake"), "client_secret": (Secret("shpss_fake"),)}
    return Shopify(ShopifyOptions(**{"shop": "fake.myshopify.com", "page_limit": 3, **secrets, **options}))


def ask(fake: FakeProvider, provider: Shopify, request: httpx.Request) -> httpx.Response:
    sent = next(provider.auth().auth_flow(request))
    headers = {name.lower(): value for name, value in sent.headers.items()}
    asked = ApiRequest(method="POST", path=sent.url.path, params=(), headers=headers, body=sent.content)
    answer: ApiAnswer = fake._answer(asked)
    response = httpx.Response(answer.status, content=answer.body, request=sent)
    provider.judge(response, NOW)
    return response


def walk(fake: FakeProvider, provider: Shopify, window: Window = WINDOW) -> list[RemoteEvent]:
    request, found = provider.first_request("orders", window), list[RemoteEvent]()
    following: httpx.Request | None = request
    while following is not None:
        page = provider.read_page(following, ask(fake, provider, following), "orders", window)
        found += page.events
        following = page.next
    return found


def shape(value: object) -> object:
    """The names of all fields; of values only their kind, null being of every kind."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return "value"


def test_page_is_the_fixtures_field_for_field() -> None:
    recorded = [json.loads((FIXTURE / "pages" / f"{number}.json").read_text()) for number in (1, 2)]
    fake, provider = new_fake(), new_provider(shop="fake.myshopify.com")
    for page in recorded:
        for row in page["data"]["orders"]["nodes"]:
            at = datetime.fromisoformat(row["updatedAt"])
            fake.emit("orders/updated", object_id=row["id"].rpartition("/")[2], stream="orders", occurred_at=at)
    request: httpx.Request | None = provider.first_request("orders", WINDOW)
    for page in recorded:
        assert request is not None
        response = ask(fake, provider, request)
        assert shape(response.json()) == shape(page)
        ids = [[row["id"], row["updatedAt"]] for row in response.json()["data"]["orders"]["nodes"]]
        assert ids == [[row["id"], row["updatedAt"]] for row in page["data"]["orders"]["nodes"]]
        request = provider.read_page(request, response, "orders", WINDOW).next


def test_webhook_has_the_headers_of_the_fixture_and_is_read_as_the_state_that_is_listed() -> None:
    fake, provider = new_fake(), new_provider()
    endpoint = fake.add_endpoint("https://merchant.example", secret="shpss_fake", connect=True)
    event = fake.emit("orders/updated", stream="orders", occurred_at=NOW - timedelta(minutes=9))
    message = fake.vendor_format.message(event, endpoint, NOW, genuine=True)
    transport = {"accept", "content-length", "host"}
    assert set(message.headers) == set(json.loads((FIXTURE / "headers.json").read_text())) - transport
    pairs = tuple((name.encode(), value.encode()) for name, value in message.headers.items())
    (pushed,) = provider.read_webhook(WebhookRequest(headers=pairs, body=message.body), NOW).events
    (listed,) = walk(fake, provider)
    assert pushed.key == event.key
    for name in ("object_key", "object_version", "occurred_at", "stream", "listable"):
        assert getattr(pushed, name) == getattr(listed, name)


def test_list_shows_the_last_state_of_each_object_and_none_that_was_deleted() -> None:
    fake, provider = new_fake(), new_provider()
    for number in range(20):
        fake.emit(
            "orders/updated",
            object_id=str(number % 8),
            stream="orders",
            occurred_at=NOW - timedelta(minutes=40 - number),
        )
    fake.emit("orders/delete", object_id="5", stream="orders", occurred_at=NOW - timedelta(minutes=1))
    found = walk(fake, provider)
    assert [state.object_key for state in found] == [f"gid://shopify/Order/{n}" for n in (4, 6, 7, 0, 1, 2, 3)]


def test_list_deeper_than_one_query_is_read_whole() -> None:
    fake, provider = new_fake(), new_provider(page_limit=250)
    fake.backfill(25_700, WINDOW.start, WINDOW.end, ["orders/updated"], stream="orders")
    shelf = {state.object_key for state in walk(fake, provider)}
    assert len(shelf) == 25_700


def test_scope_that_is_missing_and_a_throttled_query_are_refused_inside_a_200() -> None:
    provider = new_provider()
    with pytest.raises(CredentialsRejected, match="orders"):
        walk(new_fake(scopes=("read_products",)), provider)
    fake = new_fake()
    fake.faults = Faults(throttle_every=1)
    with pytest.raises(RateLimited) as caught:
        walk(fake, provider)
    assert caught.value.retry_after == timedelta(seconds=1)


def test_subscriptions_are_those_of_the_endpoint_and_gone_with_it() -> None:
    fake, provider = new_fake(), new_provider(resources=("orders",))
    url = "https://merchant.example/webhooks/acme"
    endpoint = fake.add_endpoint(url, secret="s", types=("orders/updated", "orders/create"), connect=True)
    told = provider.read_subscription(ask(fake, provider, provider.subscription_request()), url)
    assert (told.healthy, told.types) == (True, ("orders.state", "orders/create", "orders/updated"))
    endpoint.enabled = False
    assert not provider.read_subscription(ask(fake, provider, provider.subscription_request()), url).healthy


def test_webhook_ids_are_uuids() -> None:
    key = ShopifyFormat().event_key(0, random.Random(1))
    assert [len(part) for part in key.split("-")] == [8, 4, 4, 4, 12]
