"""Google Pub/Sub: known answers, Google's own library as oracle, and what is fetched for a token."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.auth import crypt, exceptions
from google.auth import jwt as google_jwt
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless_reconcilers.kit.contract import NeedsEvidence, Reply, WebhookRequest
from gapless_reconcilers.kit.errors import SignatureInvalid, WebhookRefused
from gapless_reconcilers.providers.pubsub import AGAIN, CERTIFICATES, PubSub, PubSubOptions
from gapless_reconcilers.testing.suite.scenario import load_scenario, make_request

FIXTURES = Path(__file__).parents[1] / "fixtures"
VECTORS = json.loads((FIXTURES / "vectors/pubsub/pubsub.json").read_text())
SCENARIO = load_scenario(FIXTURES / "pubsub")
AUDIENCE, EMAIL = "https://hooks.example.test/in", "push@acme.iam.gserviceaccount.example"
NOW = datetime.now(UTC)
"""Google's library reads the clock."""


def certificate(key: rsa.RSAPrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer.example")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    times = built.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2045, 1, 1, tzinfo=UTC))
    return times.serial_number(1).sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
PEMS = [key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode() for key in KEYS]
KNOWN = {"first": certificate(KEYS[0])}


def pubsub(**options: Any) -> PubSub:
    return PubSub(PubSubOptions(**{"audience": (AUDIENCE,), "email": (EMAIL,), **options}))


def judge(
    request: WebhookRequest, now: datetime, certificates: dict[str, str], provider: PubSub | None = None
) -> tuple[Reply, list[str]]:
    """The reply, and what was asked for it."""
    provider, found = provider or pubsub(), dict[str, httpx.Response]()
    while True:
        reply = provider.read_webhook(request, now, found)
        if isinstance(reply, Reply):
            return reply, list(found)
        assert provider.capabilities.may_fetch(reply.request.url)
        assert reply.cache_key not in found
        found[reply.cache_key] = httpx.Response(200, json=certificates, request=reply.request)


@pytest.mark.parametrize("vector", VECTORS, ids=[each["id"] for each in VECTORS])
def test_known_answers_hold(vector: dict[str, Any]) -> None:
    request = make_request(vector["headers"], vector["body"].encode())
    asked = request, datetime.fromtimestamp(vector["now"], UTC), vector["evidence"]
    if vector["expect"] == "refuse":
        with pytest.raises(SignatureInvalid):
            judge(*asked)
        return
    reply, _ = judge(*asked)
    assert ([event.key for event in reply.events], reply.answer.status) == (vector["events"], 204)


@settings(max_examples=100, deadline=None)
@given(
    number=st.integers(0, 1),
    kid=st.sampled_from(["first", "unknown"]),
    claims=st.fixed_dictionaries(
        {
            "aud": st.sampled_from([AUDIENCE, "https://other.example"]),
            "iss": st.sampled_from(["https://accounts.google.com", "accounts.google.com", "https://evil.example"]),
            "exp": st.sampled_from([-3600, 3000]),
        }
    ),
)
def test_google_and_we_agree(number: int, kid: str, claims: dict[str, Any]) -> None:
    seconds = int(NOW.timestamp())
    whole = {**claims, "exp": seconds + claims["exp"], "iat": seconds - 4000, "email": EMAIL, "email_verified": True}
    token = google_jwt.encode(crypt.RSASigner.from_string(PEMS[number], key_id=kid), whole).decode()
    request = make_request({"authorization": f"Bearer {token}"}, SCENARIO.webhook.body)
    try:
        verdict = bool(judge(request, NOW, KNOWN)[0].events)
    except WebhookRefused:
        verdict = False
    assert verdict is google_accepts(token)


def google_accepts(token: str) -> bool:
    """As `google.oauth2.id_token.verify_oauth2_token` does, with the certificates at hand."""
    try:
        claims = google_jwt.decode(token, certs=KNOWN, audience=AUDIENCE)
    except (ValueError, exceptions.GoogleAuthError):
        return False
    return claims["iss"] in ("accounts.google.com", "https://accounts.google.com")


@pytest.mark.parametrize(
    "changed", [{"email": "stranger@example"}, {"email_verified": "true"}, {"email_verified": None}, {"exp": "9e9"}]
)
def test_a_token_that_google_made_for_somebody_else_is_refused(changed: dict[str, Any]) -> None:
    seconds = int(NOW.timestamp())
    claims = {"aud": AUDIENCE, "iss": "accounts.google.com", "exp": seconds + 9, "email": EMAIL, "email_verified": True}
    for whole, is_fine in ((claims, True), (claims | changed, False)):
        token = google_jwt.encode(crypt.RSASigner.from_string(PEMS[0], key_id="first"), whole).decode()
        request = make_request({"authorization": f"Bearer {token}"}, SCENARIO.webhook.body)
        if is_fine:
            assert judge(request, NOW, KNOWN)[0].events
            continue
        with pytest.raises(SignatureInvalid):
            judge(request, NOW, KNOWN)


def test_a_new_key_is_asked_for_once_more() -> None:
    provider = SCENARIO.provider()
    assert isinstance(provider.read_webhook(SCENARIO.webhook, SCENARIO.now), NeedsEvidence)
    (good,) = SCENARIO.evidence.values()
    old = {name: pem for name, pem in json.loads(good).items() if name != "kid-made-up-1"}
    found = {CERTIFICATES: httpx.Response(200, json=old, request=httpx.Request("GET", CERTIFICATES))}
    asked = provider.read_webhook(SCENARIO.webhook, SCENARIO.now, found)
    assert isinstance(asked, NeedsEvidence)
    assert (asked.cache_key, asked.max_age.total_seconds()) == (AGAIN, 60)
    found[AGAIN] = httpx.Response(200, content=good, request=asked.request)
    assert isinstance(provider.read_webhook(SCENARIO.webhook, SCENARIO.now, found), Reply)


def test_another_subscription_of_the_same_account_is_refused() -> None:
    options = {"audience": SCENARIO.options["audience"], "email": SCENARIO.options["email"]}
    (good,) = SCENARIO.evidence.values()
    asked = SCENARIO.webhook, SCENARIO.now, json.loads(good)
    assert judge(*asked, pubsub(**options))[0].events
    with pytest.raises(SignatureInvalid, match=r"none of options\.subscription"):
        judge(*asked, pubsub(**options, subscription=("projects/acme/subscriptions/other",)))
