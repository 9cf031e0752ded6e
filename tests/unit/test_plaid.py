"""Plaid: known answers, the steps that it documents with PyJWT as oracle, and what is asked for a key."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless_reconcilers.kit.contract import NeedsEvidence, Reply, Secret
from gapless_reconcilers.kit.errors import SignatureInvalid, WebhookRefused
from gapless_reconcilers.providers.plaid import Plaid, PlaidOptions
from gapless_reconcilers.testing.suite.scenario import load_scenario, make_request

FIXTURES = Path(__file__).parents[1] / "fixtures"
VECTORS = json.loads((FIXTURES / "vectors/plaid/plaid.json").read_text())
SCENARIO = load_scenario(FIXTURES / "plaid")
NOW = datetime(2026, 11, 20, 12, 20, tzinfo=UTC)
KEYS = [generate_private_key(SECP256R1()) for _ in range(2)]
KEY_ID = "6c5516e1-0000-4000-8000-000000000001"


def jwk_of(number: int, kid: str = KEY_ID) -> dict[str, Any]:
    found: dict[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(KEYS[number].public_key(), as_dict=True)
    return {**found, "alg": "ES256", "use": "sig", "kid": kid, "created_at": 1, "expired_at": None}


def plaid() -> Plaid:
    return Plaid(PlaidOptions(client_id="made_up", secret=Secret("secret"), environment=("sandbox", "production")))


def judge(headers: dict[str, str], body: bytes, now: datetime, jwk: dict[str, Any]) -> Reply:
    """The reply; Plaid knows one key."""
    provider, request, found = plaid(), make_request(headers, body), dict[str, httpx.Response]()
    for _ in range(2):
        reply = provider.read_webhook(request, now, found)
        if isinstance(reply, Reply):
            return reply
        assert reply.with_credentials
        assert provider.capabilities.may_fetch(reply.request.url)
        is_known = json.loads(reply.request.content) == {"key_id": jwk["kid"]}
        answer = {"key": jwk, "request_id": "r"} if is_known else {"error_code": "INVALID_WEBHOOK_VERIFICATION_KEY_ID"}
        found[reply.cache_key] = httpx.Response(200 if is_known else 400, json=answer, request=reply.request)
    raise AssertionError("it asks again")


@pytest.mark.parametrize("vector", VECTORS, ids=[each["id"] for each in VECTORS])
def test_known_answers_hold(vector: dict[str, Any]) -> None:
    asked = vector["headers"], vector["body"].encode(), datetime.fromtimestamp(vector["now"], UTC)
    if vector["expect"] == "refuse":
        with pytest.raises(SignatureInvalid):
            judge(*asked, vector["secret"]["jwk"])
        return
    (event,) = judge(*asked, vector["secret"]["jwk"]).events
    assert (event.type, event.object_key) == ("TRANSACTIONS.SYNC_UPDATES_AVAILABLE", "wz666MBjYWTp2PDzzggYhM6oWWmBb")


def documented(token: str, body: bytes, now: datetime, jwk: dict[str, Any]) -> bool:
    """Plaid's steps (plaid.com/docs/api/webhooks/webhook-verification) with PyJWT."""
    try:
        if jwt.get_unverified_header(token).get("alg") != "ES256":
            return False
        if jwt.get_unverified_header(token).get("kid") != jwk["kid"]:
            return False
        options: Any = {"verify_iat": False, "verify_exp": False}
        claims = jwt.decode(token, jwt.PyJWK(jwk, "ES256").key, algorithms=["ES256"], options=options)
    except jwt.InvalidTokenError:
        return False
    if claims["iat"] < now.timestamp() - 300:
        return False
    return hmac.compare_digest(hashlib.sha256(body).hexdigest(), claims["request_body_sha256"])


@settings(max_examples=150, deadline=None)
@given(
    number=st.integers(0, 1),
    kid=st.sampled_from([KEY_ID, "another"]),
    late_s=st.integers(0, 302) | st.sampled_from([299, 300, 301]),
    changed=st.booleans(),
    item=st.text(min_size=1, max_size=20),
)
def test_the_documented_steps_and_we_agree(number: int, kid: str, late_s: int, changed: bool, item: str) -> None:
    body = json.dumps(
        {"webhook_type": "ITEM", "webhook_code": "ERROR", "environment": "production", "item_id": item}
    ).encode()
    claims = {"iat": int(NOW.timestamp()), "request_body_sha256": hashlib.sha256(body).hexdigest()}
    token = jwt.encode(claims, KEYS[number], algorithm="ES256", headers={"kid": kid})
    body = body + b" " if changed else body
    now = NOW + timedelta(seconds=late_s)
    try:
        verdict = bool(judge({"plaid-verification": token}, body, now, jwk_of(0)).events)
    except WebhookRefused:
        verdict = False
    assert verdict is documented(token, body, now, jwk_of(0))


def test_the_key_is_asked_from_plaid_with_the_clients_credentials() -> None:
    provider = SCENARIO.provider()
    asked = provider.read_webhook(SCENARIO.webhook, SCENARIO.now)
    assert isinstance(asked, NeedsEvidence)
    assert (asked.request.method, str(asked.request.url)) == (
        "POST",
        "https://sandbox.plaid.com/webhook_verification_key/get",
    )
    auth = provider.auth()
    assert auth is not None
    sent = next(auth.auth_flow(asked.request))
    assert (sent.headers["plaid-client-id"], sent.headers["plaid-secret"]) == ("made_up_client", "plaid_do_not_show")


def test_a_key_that_plaid_has_ended_verifies_nothing() -> None:
    body = b'{"webhook_type":"ITEM","webhook_code":"ERROR","environment":"sandbox"}'
    claims = {"iat": int(NOW.timestamp()), "request_body_sha256": hashlib.sha256(body).hexdigest()}
    token = jwt.encode(claims, KEYS[0], algorithm="ES256", headers={"kid": KEY_ID})
    asked = {"plaid-verification": token}, body, NOW
    assert judge(*asked, jwk_of(0)).events
    with pytest.raises(SignatureInvalid, match="out of date"):
        judge(*asked, {**jwk_of(0), "expired_at": int(NOW.timestamp()) - 1})


@pytest.mark.parametrize("broken", [{"x": "AA"}, {"y": ""}, {"crv": "P-384"}, {"alg": "RS256"}, {"x": "!"}])
def test_a_key_that_is_none_verifies_nothing(broken: dict[str, str]) -> None:
    body = b'{"webhook_type":"ITEM","webhook_code":"ERROR","environment":"sandbox"}'
    claims = {"iat": int(NOW.timestamp()), "request_body_sha256": hashlib.sha256(body).hexdigest()}
    token = jwt.encode(claims, KEYS[0], algorithm="ES256", headers={"kid": KEY_ID})
    with pytest.raises(SignatureInvalid):
        judge({"plaid-verification": token}, body, NOW, {**jwk_of(0), **broken})


def test_the_same_update_at_another_time_is_another_event() -> None:
    body = b'{"webhook_type":"TRANSACTIONS","webhook_code":"SYNC_UPDATES_AVAILABLE","environment":"sandbox"}'
    keys = set[str]()
    for later in (0, 1):
        claims = {"iat": int(NOW.timestamp()) + later, "request_body_sha256": hashlib.sha256(body).hexdigest()}
        token = jwt.encode(claims, KEYS[0], algorithm="ES256", headers={"kid": KEY_ID})
        keys |= {event.key for event in judge({"plaid-verification": token}, body, NOW, jwk_of(0)).events}
    assert len(keys) == 2


def test_an_environment_that_plaid_does_not_have_is_told() -> None:
    options = PlaidOptions(client_id="c", secret=Secret("s"), environment=("developement",))
    assert "wanted production or sandbox" in Plaid(options).option_problems()[0]
    other = msgspec.structs.replace(options, environment=("production",))
    assert Plaid(other).option_problems() == []
