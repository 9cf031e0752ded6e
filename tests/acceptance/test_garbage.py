"""Garbage at the webhook path of every provider of a real daemon: it answers 4xx, records no event, keeps running."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outside import Gapless, running

from gapless_reconcilers.kit import registry

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
READY_MADE = Path(__file__).parents[2] / "reconcilers/gapless_reconcilers/declared"
BY_HAND = """
[[source]]
name = "github"
provider = "github"
mode = "webhook"
[source.options]
repository = "acme/shop"
hook_id = 77
token_env = "TOKEN"
webhook_secret_env = "SECRET"
[[source]]
name = "shopify"
provider = "shopify"
mode = "webhook"
[source.options]
shop = "acme.myshopify.com"
access_token_env = "TOKEN"
client_secret_env = "SECRET"
[[source]]
name = "paypal"
provider = "paypal"
mode = "webhook"
[source.options]
client_id = "c"
client_secret_env = "TOKEN"
webhook_id = ["WH"]
[[source]]
name = "standard"
provider = "standard_webhooks"
mode = "webhook"
[source.options]
secret_env = "STANDARD"
[[source]]
name = "sns"
provider = "sns"
mode = "webhook"
[source.options]
topic_arn = ["arn:aws:sns:us-east-1:123456789012:MyTopic"]
[[source]]
name = "braintree"
provider = "braintree"
mode = "webhook"
[source.options]
key_env = "PAIR"
[[source]]
name = "plaid"
provider = "plaid"
mode = "webhook"
[source.options]
client_id = "c"
secret_env = "SECRET"
[[source]]
name = "pubsub"
provider = "pubsub"
mode = "webhook"
[source.options]
audience = ["https://hooks.example.test/in"]
email = ["push@acme.iam.gserviceaccount.com"]
[[source]]
name = "telegram"
provider = "telegram"
mode = "webhook"
[source.options]
token_env = "TOKEN"
webhook_secret_env = "SECRET"
"""
DECLARED = sorted(path.stem for path in READY_MADE.glob("*.toml"))
OWN = ["github", "shopify", "paypal", "standard", "sns", "telegram", "braintree", "plaid", "pubsub"]
SOURCES = ["stripe-live", *OWN, *DECLARED]
HEADERS = [
    "stripe-signature", "x-hub-signature-256", "x-github-event", "x-github-delivery", "x-github-hook-id",
    "x-shopify-hmac-sha256", "x-shopify-topic", "x-shopify-shop-domain", "x-shopify-webhook-id",
    "paypal-transmission-id", "paypal-transmission-time", "paypal-transmission-sig", "paypal-cert-url",
    "paypal-auth-algo", "webhook-id", "webhook-timestamp", "webhook-signature", "svix-id",
    "x-telegram-bot-api-secret-token", "plaid-verification", "x-hook-secret", "paddle-signature", "workos-signature",
    "authorization",
    "x-square-hmacsha256-signature", "x-amz-sns-message-type", "content-type", "content-encoding", "idempotency-key",
]  # fmt: skip
TEXTS = st.sampled_from(
    ["", "t=1,v1=", "sha256=00", "v1,AAAA", "ts=1;h1=00", "Basic !!", "1700000000", "\xff\xe9", "=" * 900]
)
VALUES = (TEXTS | st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=50)).map(
    lambda text: text.encode("latin-1", "replace")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode(errors="surrogatepass")),
    st.sampled_from(
        [b"[" * 100_000, b'{"a":' * 50_000, b'"\\ud800"', b'{"id":"\\u0000"}', b"9" * 5000, b"\xff\xfe", b""]
    ),
)
MANY = settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@dataclass
class GaplessWithEveryProvider(Gapless):
    """A daemon with a source of every provider, and of every ready-made declaration. None sends requests."""

    @property
    def config(self) -> Path:
        self.options = BY_HAND
        path = super().config
        path.write_text(f'include = ["{READY_MADE}/*.toml"]\n' + path.read_text())
        return path

    @property
    def env(self) -> dict[str, str]:
        names = {"TOKEN": "t0ken", "SECRET": "s3cret", "PAIR": "public:private"}
        names["STANDARD"] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        for path in READY_MADE.glob("*.toml"):
            texts = path.read_text().split('"')
            names |= {text: "name:s3cret" for text in texts if text.isupper() and "_" in text}
            names[f"GAPLESS_SOURCE__{path.stem.upper().replace('-', '_')}__MODE"] = "webhook"
        return {**super().env, **names}


def post_garbage(base: str) -> None:
    """Post random bytes, JSON of every shape, bad headers, repeated headers, and none at all."""
    with httpx.Client(base_url=base, trust_env=False, timeout=30) as client:
        for source in SOURCES:
            for body in (b"", b"{}", b"[]", b'{"events":[]}'):
                assert 400 <= client.post(f"/webhooks/{source}", content=body).status_code < 500, (source, body)
            for method in ("GET", "HEAD", "OPTIONS", "PUT"):
                assert client.request(method, f"/webhooks/{source}?challenge=%3Cb%3E").status_code < 500, source

        @MANY
        @given(
            source=st.sampled_from(SOURCES),
            headers=st.lists(st.tuples(st.sampled_from(HEADERS), VALUES), max_size=8),
            body=BODIES,
        )
        def each(source: str, headers: list[tuple[str, bytes]], body: bytes) -> None:
            pairs = [(name.encode(), value.strip()) for name, value in headers]
            answer = client.post(f"/webhooks/{source}", headers=pairs, content=body)
            assert 400 <= answer.status_code < 500, (source, headers, body[:80], answer.text)

        each()


def schema() -> dict[str, Any]:
    """Return the OpenAPI schema of the public listener, for schemathesis."""
    source = {"name": "source", "in": "path", "required": True, "schema": {"type": "string", "enum": SOURCES}}
    headers = [
        {"name": name, "in": "header", "schema": {"type": "string"}} for name in HEADERS if "content" not in name
    ]
    content = {"application/json": {"schema": {}}, "application/x-www-form-urlencoded": {"schema": {"type": "object"}}}
    operation = {
        "parameters": [source, *headers],
        "requestBody": {"required": False, "content": content},
        "responses": {"200": {"description": "recorded"}, "4XX": {"description": "refused"}},
    }
    info = {"title": "the public listener", "version": "1"}
    return {"openapi": "3.0.3", "info": info, "paths": {"/webhooks/{source}": {"post": operation}}}


def post_by_schema(base: str) -> None:
    """Post what schemathesis generates from the schema: valid requests, and many invalid ones."""
    strategy = schemathesis.openapi.from_dict(schema())["/webhooks/{source}"]["POST"].as_strategy()

    @MANY
    @given(case=strategy)
    def each(case: Any) -> None:
        answer = case.call(base_url=base, timeout=30)
        assert 400 <= answer.status_code < 500, (case, answer.text)

    each()


async def test_garbage_is_refused_at_every_path_and_records_nothing(tmp_path: Path) -> None:
    named = {each.removesuffix("-live").replace("standard", "standard_webhooks") for each in ["stripe-live", *OWN]}
    assert named | {"rest_list"} == set(registry.kinds())
    gapless = GaplessWithEveryProvider(
        folder=tmp_path, store_url=f"sqlite:///{tmp_path / 'ledger.db'}", api="http://127.0.0.1:9"
    )
    async with running(gapless):
        base = f"http://127.0.0.1:{gapless.public_port}"
        await asyncio.to_thread(post_garbage, base)
        await asyncio.to_thread(post_by_schema, base)
        assert await gapless.ledger_ids() == set()
        assert await gapless.is_ready()
        refused = (await gapless.metrics())["gapless_webhooks_total"]
        assert sum(refused.values()) > 500
        assert {dict(labels)["source"] for labels, count in refused.items() if count} == set(SOURCES)
    assert "Traceback" not in gapless.log.read_text()
