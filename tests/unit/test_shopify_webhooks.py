"""Our reading and signing of webhooks against Shopify's own SDK, both ways, and every refusal by its reason."""

import base64
import hashlib
import hmac
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless_reconcilers.kit.contract import (
    CannotRender,
    RecordedEvent,
    RemoteEvent,
    Secret,
    WebhookMessage,
    WebhookRequest,
)
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid, WebhookRefused
from gapless_reconcilers.providers.shopify import Shopify, ShopifyOptions

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECRET = "s3cret"
SHOP = "acme.myshopify.com"
WEBHOOK_ID = "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"
ORDER = {
    "id": 7, "admin_graphql_api_id": "gid://shopify/Order/7", "created_at": "2026-11-19T10:00:00-05:00",
    "updated_at": "2026-11-20T06:59:50-05:00", "name": "#1001",
}  # fmt: skip
UPDATED_US = 1_795_175_990_000_000
VALIDATE = """
import "@shopify/shopify-api/adapters/node";
import { shopifyApi, ApiVersion, LogSeverity } from "@shopify/shopify-api";
const verdicts = [];
for (const { secret, body, headers } of input) {
    const shopify = shopifyApi({
        apiKey: "key", apiSecretKey: secret, scopes: [], hostName: "merchant.example", isEmbeddedApp: false,
        apiVersion: Object.values(ApiVersion).at(-1), logger: { level: LogSeverity.Error },
    });
    const rawRequest = { method: "POST", url: "/webhooks", headers };
    verdicts.push(await shopify.webhooks.validate({ rawBody: body, rawRequest, rawResponse: {} }));
}
answer(verdicts);
"""
Case = tuple[str, str, dict[str, str]]
"""(secret, body, headers) of one webhook."""


@pytest.fixture(scope="session")
def sdk(javascript: Any) -> Callable[[Sequence[Case]], list[dict[str, Any]]]:
    """What `shopify.webhooks.validate` says of each case."""

    def validate(cases: Sequence[Case]) -> list[dict[str, Any]]:
        asked = [{"secret": secret, "body": body, "headers": headers} for secret, body, headers in cases]
        verdicts: list[dict[str, Any]] = javascript(VALIDATE, asked)
        return verdicts

    return validate


def provider(*secrets: str, **options: Any) -> Shopify:
    client_secret = tuple(Secret(secret) for secret in secrets or (SECRET,))
    return Shopify(
        ShopifyOptions(**{"shop": SHOP, "access_token": Secret("shpat_x"), "client_secret": client_secret, **options})
    )


def sign(body: bytes, secret: str = SECRET) -> str:
    return base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()


def headers_of(body: bytes, secret: str = SECRET, **changes: str | None) -> dict[str, str]:
    """Shopify's headers; underscores in `changes` stand for hyphens, None leaves one out."""
    headers: dict[str, str | None] = {
        "x-shopify-hmac-sha256": sign(body, secret),
        "x-shopify-topic": "orders/updated",
        "x-shopify-shop-domain": SHOP,
        "x-shopify-webhook-id": WEBHOOK_ID,
        "x-shopify-api-version": "2026-10",
        "x-shopify-triggered-at": "2026-11-20T11:59:52.877041743Z",
        "x-shopify-event-id": "98880550-7158-44d4-b7cd-2c97c8a091b5",
    }
    headers |= {f"x-shopify-{name.replace('_', '-')}": value for name, value in changes.items()}
    return {name: value for name, value in headers.items() if value is not None}


def request_of(headers: dict[str, str], body: bytes) -> WebhookRequest:
    pairs = tuple((name.encode(), value.encode("latin-1")) for name, value in headers.items())
    return WebhookRequest(headers=((b"host", b"merchant.example"), *pairs), body=body)


def signed(body: object, **changes: str | None) -> WebhookRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request_of(headers_of(raw, **changes), raw)


def read(body: object, topic: str = "orders/updated", judge: Shopify | None = None, **changes: Any) -> RemoteEvent:
    (event,) = (judge or provider()).read_webhook(signed(body, topic=topic, **changes), NOW).events
    return event


def we_accept(case: Case) -> bool:
    secret, body, headers = case
    try:
        provider(secret).read_webhook(request_of(headers, body.encode()), NOW)
    except SignatureInvalid:
        return False
    except WebhookRefused:
        return True  # the signature and the headers were right; what the body holds is another question
    return True


def recorded(body: bytes, kind: str = "orders/updated", key: str = WEBHOOK_ID, at: datetime = NOW) -> RecordedEvent:
    return RecordedEvent(key=key, type=kind, occurred_at=at, stream="orders", payload=body, via="webhook")


def render(body: bytes, secret: str = SECRET) -> WebhookMessage:
    message = provider().render(recorded(body), "https://merchant.example", Secret(secret), NOW)
    assert isinstance(message, WebhookMessage)
    return message


def random_cases(chance: random.Random, count: int) -> list[Case]:
    """Webhooks from right to wrong: bodies of any text, signatures cut, changed, of other secrets, headers left out."""
    alphabet = 'abc {}":,\n\u00e9\u2603\U0001f600\x7f'
    cases = []
    for _ in range(count):
        body = "".join(chance.choices(alphabet, k=chance.randrange(1, 40)))
        secret = "".join(chance.choices("abcXYZ019 _\u00e9", k=chance.randrange(1, 30))) + "x"
        right = sign(body.encode(), secret)
        in_hex = hmac.new(secret.encode(), body.encode(), "sha256").hexdigest()
        signature = chance.choice(
            [right, right, right, right[:-1], right.lower(), right + "=", right.replace("=", ""), sign(b"?", secret),
             sign(body.encode(), secret + "y"), in_hex, "", "\u00e9"]
        )  # fmt: skip
        left_out = chance.choice([None] * 6 + ["topic", "shop_domain", "webhook_id", "hmac_sha256"])
        changes: dict[str, str | None] = {"hmac_sha256": signature}
        if left_out:
            changes[left_out] = None
        sent = body if chance.random() < 0.8 else body + " "
        cases.append((secret, sent, headers_of(body.encode(), secret, **changes)))
    return cases


def test_our_verdict_on_a_signature_and_its_headers_is_the_sdks(
    sdk: Callable[[Sequence[Case]], list[dict[str, Any]]],
) -> None:
    cases = random_cases(random.Random(7), 2000)
    wanted = [verdict["valid"] for verdict in sdk(cases)]
    assert sum(wanted) > 100
    assert wanted.count(False) > 100
    assert [we_accept(case) for case in cases] == wanted


def test_webhook_that_we_render_is_accepted_by_the_sdk_and_a_forged_one_by_neither(
    sdk: Callable[[Sequence[Case]], list[dict[str, Any]]],
) -> None:
    chance = random.Random(8)
    right, forged = list[Case](), list[Case]()
    for _ in range(300):
        text = json.dumps({**ORDER, "note": "".join(chance.choices("ab\u00e9\u2603", k=9))}, ensure_ascii=False)
        message = render(text.encode(), "shpss_target")
        right.append(("shpss_target", text, dict(message.headers)))
        forged.append(("shpss_other", text, dict(message.headers)))
        forged.append(("shpss_target", text.replace("7", "8"), dict(message.headers)))
    accepted = sdk(right)
    assert {verdict["valid"] for verdict in accepted} == {True}
    assert {(verdict["topic"], verdict["webhookId"]) for verdict in accepted} == {("ORDERS_UPDATED", WEBHOOK_ID)}
    assert {verdict["valid"] for verdict in sdk(forged)} == {False}
    assert not any(map(we_accept, forged))


def test_signature_is_the_known_answer() -> None:
    message = render(b'{"id":"evt_test_1","n":1}')
    assert message.headers["x-shopify-hmac-sha256"] == "xb36y5a7vunOTuoG9C/BNYOsbsFgJLtZXNxt++v6R34="


@settings(max_examples=300, deadline=None)
@given(number=st.integers(1, 2**53), age_s=st.integers(0, 10**8), zone_h=st.integers(-12, 14))
def test_webhook_is_the_state_that_its_body_is(number: int, age_s: int, zone_h: int) -> None:
    at = NOW - timedelta(seconds=age_s)
    body = json.dumps({"id": number, "updated_at": (at + timedelta(hours=zone_h)).strftime(f"%FT%T{zone_h:+03}:00")})
    event = read(body.encode(), "products/update")
    assert (event.key, event.type, event.stream) == (WEBHOOK_ID, "products/update", "products")
    assert (event.object_key, event.object_version) == (
        f"gid://shopify/Product/{number}",
        int(at.timestamp()) * 1_000_000,
    )
    assert (event.occurred_at, event.listable) == (at, True)
    assert bytes(event.payload) == body.encode()


def test_webhook_names_its_object_by_its_gid() -> None:
    event = read(ORDER, "orders/paid")
    assert (event.object_key, event.object_version) == ("gid://shopify/Order/7", UPDATED_US)
    assert event.occurred_at == datetime(2026, 11, 20, 11, 59, 50, tzinfo=UTC)


def test_two_subscriptions_to_one_change_are_two_webhooks_of_one_state() -> None:
    one, other = read(ORDER), read(ORDER, webhook_id="11111111-bdd9-4b37-8a5f-bf7d70bcd043")
    assert one.key != other.key
    assert (one.object_key, one.object_version) == (other.object_key, other.object_version)


def test_deletion_is_the_last_version_of_its_object_and_never_listed() -> None:
    event = read({"id": 7}, "orders/delete")
    assert (event.stream, event.object_key, event.listable) == ("orders", "gid://shopify/Order/7", False)
    assert event.occurred_at == datetime(2026, 11, 20, 11, 59, 52, 877042, tzinfo=UTC)
    assert event.object_version is not None
    assert event.object_version > UPDATED_US


def test_time_that_a_header_claims_is_never_ahead_of_ours() -> None:
    event = read({"id": 7}, "orders/delete", triggered_at="2199-01-01T00:00:00Z")
    assert event.occurred_at == NOW
    assert read({"id": 7}, "orders/delete", triggered_at="no time").occurred_at == NOW
    assert read({"id": 7}, "orders/delete", triggered_at=None).occurred_at == NOW


@pytest.mark.parametrize(
    ("topic", "body", "stream"),
    [
        ("app/uninstalled", {"id": 1, "updated_at": "2026-11-20T11:00:00Z"}, ""),
        ("shop/update", {"id": 1, "updated_at": "2026-11-20T11:00:00Z"}, ""),
        ("customer.tags_added", {"customerId": "gid://shopify/Customer/1"}, ""),
        ("refunds/create", {"id": 2, "admin_graphql_api_id": "gid://shopify/Refund/2", "order_id": 7}, ""),
        ("orders/edited", {"order_edit": {"id": 3, "order_id": 7}}, "orders"),
        ("customers/data_request", {"shop_id": 1, "customer": {"id": 2}}, "customers"),
        ("orders/updated", {"id": 7}, "orders"),
        ("orders/updated", {**ORDER, "updated_at": "2026-11-20T11:00:00"}, "orders"),
        ("orders/updated", {**ORDER, "updated_at": "0001-01-01T00:00:00+10:00"}, "orders"),
        ("orders/updated", {**ORDER, "admin_graphql_api_id": "gid://shopify/Product/7"}, "orders"),
    ],
)
def test_what_no_list_can_show_is_recorded_and_never_expected(topic: str, body: dict[str, Any], stream: str) -> None:
    event = read(body, topic)
    assert (event.type, event.stream, event.listable, event.object_version) == (topic, stream, False, None)
    assert event.occurred_at == datetime(2026, 11, 20, 11, 59, 52, 877042, tzinfo=UTC)


def test_resource_that_the_options_leave_out_is_of_the_own_stream() -> None:
    event = read(ORDER, judge=provider(resources=("products",)))
    assert (event.stream, event.listable, event.object_version) == ("", False, UPDATED_US)


def test_order_that_is_too_old_to_be_listed_is_never_expected() -> None:
    old = {**ORDER, "created_at": (NOW - timedelta(days=57)).isoformat()}
    assert not read(old).listable
    assert read(old, judge=provider(read_all_orders=True)).listable
    assert read({**ORDER, "created_at": (NOW - timedelta(days=55)).isoformat()}).listable
    assert read({**old, "admin_graphql_api_id": "gid://shopify/Customer/7"}, "customers/update").listable


def test_webhook_of_another_shop_of_the_same_app_is_refused() -> None:
    with pytest.raises(MalformedWebhook) as caught:
        read(ORDER, shop_domain="other.myshopify.com")
    assert caught.value.reason == "other_account"


def test_both_secrets_are_tried_for_the_hour_after_a_rotation() -> None:
    body = json.dumps(ORDER).encode()
    for known in ((SECRET, "new"), ("new", SECRET)):
        assert provider(*known).read_webhook(request_of(headers_of(body), body), NOW).events
    with pytest.raises(SignatureInvalid):
        provider("new", "newer").read_webhook(request_of(headers_of(body), body), NOW)


def test_no_secret_configured_means_no_webhook_is_accepted() -> None:
    for secrets in ((), (Secret(""),), (Secret(" "),)):
        judge = provider(client_secret=secrets)
        with pytest.raises(SignatureInvalid):
            judge.read_webhook(request_of(headers_of(b"{}", ""), b"{}"), NOW)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hmac_sha256": None}, "no_signature"),
        ({"hmac_sha256": ""}, "signature"),
        ({"hmac_sha256": "\xe9\xff"}, "signature"),
        ({"topic": None}, "bad_header"),
        ({"topic": "orders"}, "bad_header"),
        ({"topic": "orders/" + "x" * 600}, "malformed"),
        ({"webhook_id": None}, "bad_header"),
        ({"webhook_id": "a b"}, "bad_header"),
        ({"webhook_id": "a" * 513}, "malformed"),
        ({"shop_domain": None}, "bad_header"),
    ],
)
def test_bad_headers_are_refused_with_their_reason(changes: dict[str, str | None], reason: str) -> None:
    with pytest.raises(WebhookRefused) as caught:
        provider().read_webhook(signed(ORDER, **changes), NOW)
    assert caught.value.reason == reason


def test_hex_instead_of_base64_is_no_signature() -> None:
    body = json.dumps(ORDER).encode()
    with pytest.raises(SignatureInvalid):
        read(body, hmac_sha256=hmac.new(SECRET.encode(), body, "sha256").hexdigest())


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"text"', b"{", b'{"id":"\xff"}', b"[" * 50_000])
def test_signed_body_that_is_no_object_is_malformed_and_no_crash(body: bytes) -> None:
    with pytest.raises(MalformedWebhook):
        read(body)


@pytest.mark.parametrize(
    "changes",
    [
        {"admin_graphql_api_id": "gid://shopify/Order/" + "7" * 600},
        {"admin_graphql_api_id": "gid://shopify/Order/\x00"},
        {"updated_at": "1200-01-01T00:00:00Z"},
        {"updated_at": "2600-01-01T00:00:00Z"},
    ],
)
def test_signed_event_that_cannot_be_recorded_is_malformed_and_no_crash(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedWebhook):
        read({**ORDER, **changes})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
latin_1 = st.text(alphabet=st.characters(max_codepoint=255), max_size=12)


@settings(max_examples=1000, deadline=None)
@given(
    body=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("id", "admin_graphql_api_id", "updated_at", "created_at"), json_values)
    ),
    topic=st.sampled_from(["orders/updated", "orders/delete", "products/create", "app/uninstalled"]) | latin_1,
    triggered_at=latin_1,
)
def test_nothing_but_a_refusal_escapes_for_any_signed_fields(
    body: dict[str, Any], topic: str, triggered_at: str
) -> None:
    try:
        event = read(body, topic, triggered_at=triggered_at)
    except WebhookRefused:
        return
    assert event.type == topic


@settings(max_examples=500, deadline=None)
@given(body=st.binary(max_size=200), signature=st.none() | latin_1)
def test_nothing_but_a_refusal_escapes_for_any_bytes(body: bytes, signature: str | None) -> None:
    with pytest.raises(WebhookRefused):
        provider().read_webhook(signed(body, hmac_sha256=signature), NOW)


def test_webhook_is_rendered_as_the_bytes_that_were_received_and_read_as_the_same_event() -> None:
    for topic, body in (("orders/updated", ORDER), ("orders/delete", {"id": 7}), ("app/uninstalled", {"id": 1})):
        raw = json.dumps(body, indent=1).encode()
        event = read(raw, topic)
        message = provider().render(recorded(raw, topic, at=event.occurred_at), "", Secret("shpss_target"), NOW)
        assert isinstance(message, WebhookMessage)
        assert message.body == raw
        assert provider("shpss_target").read_webhook(request_of(dict(message.headers), raw), NOW).events == (event,)


def test_listed_state_has_no_webhook_to_be_rendered_as() -> None:
    state = recorded(b"{}", "orders.state", key="gid://shopify/Order/7@2026-11-20T11:59:50Z")
    made = provider().render(state, "https://merchant.example", Secret(SECRET), NOW)
    assert isinstance(made, CannotRender)
    assert "no such webhook" in made.reason


def test_a_redelivery_keeps_the_version_and_all_headers_of_the_webhook() -> None:
    """A webhook of an older version of the API stays one; shopify-api-js also reads event id, name and sub-topic."""
    body = b'{"id": 1}'
    original = headers_of(body, SECRET, api_version="2025-07", name="ours", sub_topic="sub")
    kept = {name: value for name, value in original.items() if name in provider().capabilities.kept_headers}
    event = replace(recorded(body), headers=kept)
    message = provider().render(event, "https://merchant.example", Secret("another"), NOW)
    assert isinstance(message, WebhookMessage)
    assert message.headers == {
        **original,
        "x-shopify-hmac-sha256": sign(body, "another"),
        "content-type": "application/json",
    }
