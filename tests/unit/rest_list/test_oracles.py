"""Declared vendors whose own library is at hand: on generated webhooks, it and we give the same verdict, both ways.

GoCardless, Paddle, Square and Standard Webhooks are judged in `test_signatures`; Braintree, Plaid, Google, PayPal,
Stripe, GitHub and Shopify beside their providers.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import Adyen.util
import pytest
import razorpay
from coinbase_commerce.error import SignatureVerificationError
from coinbase_commerce.webhook import WebhookSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from declared import vendor_of
from discord_interactions import verify_key
from hubspot.utils.signature import Signature as HubSpot
from hypothesis import given, settings
from hypothesis import strategies as st
from mercadopago.webhook.validator import InvalidWebhookSignatureError, WebhookSignatureValidator
from modern_treasury import ModernTreasury
from mollie.utils.webhooks.signature_validator import InvalidSignatureException, SignatureValidator
from pyairtable.models.webhook import WebhookNotification
from razorpay.errors import SignatureVerificationError as RazorpayError
from sendgrid.helpers.eventwebhook import EventWebhook
from slack_sdk.signature import Clock, SignatureVerifier
from twilio.request_validator import RequestValidator

from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.errors import SignatureInvalid
from gapless_reconcilers.testing.suite.scenario import make_request

NOW = datetime.now(UTC)
"""HubSpot's library reads the clock."""
SECRETS = ("made-up-secret-1", "made-up-secret-2")
URL = "https://hooks.example.test/in?a=1"
AGREES = settings(max_examples=60, deadline=None)
BODIES = st.dictionaries(st.text(max_size=8), st.text(max_size=12) | st.integers(), max_size=4).map(
    lambda body: json.dumps(body, ensure_ascii=False).encode(errors="replace")
)
Verdict = Callable[[str, bytes, dict[str, str]], bool]
"""The library's verdict on a body with headers (lower-case names) under a secret."""


def raises_no(error: type[Exception], check: Callable[[], object]) -> bool:
    try:
        return check() is not False
    except error:
        return False


def hubspot(version: str, header: str) -> Verdict:
    def verdict(secret: str, body: bytes, headers: dict[str, str]) -> bool:
        time = headers.get("x-hubspot-request-timestamp")
        return bool(HubSpot.is_valid(headers[header], secret, body.decode(), URL, "POST", version, time))

    return verdict


class Now(Clock):
    def now(self) -> float:
        return NOW.timestamp()


HEX_KEYS = {secret: hashlib.sha256(secret.encode()).hexdigest() for secret in SECRETS}
LIBRARIES: dict[str, tuple[dict[str, Any], Verdict]] = {
    "razorpay": (
        {"declared": "razorpay"},
        lambda secret, body, headers: raises_no(
            RazorpayError,
            lambda: razorpay.Utility(None).verify_webhook_signature(
                body.decode(), headers["x-razorpay-signature"], secret
            ),
        ),
    ),
    "coinbase-commerce": (
        {"declared": "coinbase-commerce"},
        lambda secret, body, headers: raises_no(
            SignatureVerificationError,
            lambda: WebhookSignature.verify_sig_header(body.decode(), headers["x-cc-webhook-signature"], secret),
        ),
    ),
    "modern-treasury": (
        {"declared": "modern-treasury"},
        lambda secret, body, headers: ModernTreasury(
            api_key="unused", organization_id="unused", webhook_key=secret
        ).webhooks.validate_signature(body.decode(), {"X-Signature": headers["x-signature"]}),
    ),
    "mollie": (
        {"declared": "mollie"},
        lambda secret, body, headers: raises_no(
            InvalidSignatureException,
            lambda: SignatureValidator.validate(body.decode(), secret, headers["x-mollie-signature"]),
        ),
    ),
    "slack": (
        {"declared": "slack"},
        lambda secret, body, headers: SignatureVerifier(secret, Now()).is_valid_request(body, headers),
    ),
    "hubspot-v3": ({"declared": "hubspot"}, hubspot("v3", "x-hubspot-signature-v3")),
    "hubspot-v2": (
        {
            "declared": "hubspot",
            "signature": {
                "scheme": "hash", "header": "X-HubSpot-Signature", "signed": "{method}{url}{body}", "url": "",
            },
        },
        hubspot("v2", "x-hubspot-signature"),
    ),
    "hubspot-v1": (
        {"declared": "hubspot", "signature": {"scheme": "hash", "header": "X-HubSpot-Signature"}},
        hubspot("v1", "x-hubspot-signature"),
    ),
    "adyen-platform": (
        {"declared": "adyen-platform"},
        lambda secret, body, headers: bool(
            Adyen.util.is_valid_hmac_payload(headers["hmacsignature"], HEX_KEYS[secret], body)
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIBRARIES)
@AGREES
@given(
    body=BODIES,
    signed_with=st.sampled_from(SECRETS),
    known=st.sampled_from(SECRETS),
    tampered=st.booleans(),
)
def test_the_library_and_we_agree(name: str, body: bytes, signed_with: str, known: str, tampered: bool) -> None:
    """What we sign, and what was changed, is judged by both."""
    vector, library = LIBRARIES[name]
    shown = HEX_KEYS if name == "adyen-platform" else {secret: secret for secret in SECRETS}
    signer, judge = (vendor_of({**vector, "secret": shown[each], "url": URL}) for each in (signed_with, known))
    headers = signer.options.webhook.signature.sign(Secret(shown[signed_with]), "key", body, URL, NOW)  # type: ignore[union-attr]
    assert headers is not None
    received = body + b" " if tampered else body
    assert (
        is_genuine(judge, headers, received)
        is library(known, received, headers)
        is (signed_with == known and not tampered)
    )


def is_genuine(provider: Any, headers: dict[str, str], body: bytes, query: str = "") -> bool:
    try:
        provider.options.webhook.signature.verify(make_request(headers, body, query=query), NOW)
    except SignatureInvalid:
        return False
    return True


FORMS = st.dictionaries(
    st.text("abcXYZ09 +&", min_size=1, max_size=6), st.text(st.characters(codec="utf-8"), max_size=8), max_size=5
)


@AGREES
@given(
    form=FORMS,
    algorithm=st.sampled_from(["HMAC_SHA1", "HMAC_SHA256"]),
    secret=st.sampled_from(SECRETS),
    tampered=st.booleans(),
)
def test_twilio_and_we_agree_about_forms(form: dict[str, str], algorithm: str, secret: str, tampered: bool) -> None:
    """It signs, both judge."""
    signature = RequestValidator(secret).compute_signature(URL, form, algorithm)
    received = {**form, "more": "x"} if tampered else form
    known = RequestValidator(SECRETS[0]).validate(URL, received, signature, algorithm)
    scheme = {
        "scheme": "hmac", "header": "X-Twilio-Signature", "encoding": "base64", "signed": "{url}{form}", "url": "",
        "digest": "sha1" if algorithm == "HMAC_SHA1" else "sha256",
    }  # fmt: skip
    provider = vendor_of({"declared": "twilio", "secret": SECRETS[0], "url": URL, "signature": scheme})
    assert is_genuine(provider, {"x-twilio-signature": signature}, urlencode(received).encode()) is known


@AGREES
@given(body=BODIES, secret=st.sampled_from(SECRETS), tampered=st.booleans())
def test_twilio_and_we_agree_about_json(body: bytes, secret: str, tampered: bool) -> None:
    """It signs, both judge: the address has the hash of the body."""
    base = URL.partition("?")[0]
    query = f"bodySHA256={hashlib.sha256(body).hexdigest()}"
    signature = RequestValidator(secret).compute_signature(f"{base}?{query}", {})
    received = body + b" " if tampered else body
    known = RequestValidator(SECRETS[0]).validate(f"{base}?{query}", received.decode(), signature)
    scheme = {
        "scheme": "hmac", "header": "X-Twilio-Signature", "digest": "sha1", "encoding": "base64", "url": "",
        "signed": "{url}?bodySHA256={query:bodySHA256}", "body_hash": "query:bodySHA256",
    }  # fmt: skip
    provider = vendor_of({"declared": "twilio", "secret": SECRETS[0], "url": base, "signature": scheme})
    assert is_genuine(provider, {"x-twilio-signature": signature}, received, query) is known


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)

AMOUNTS = st.fixed_dictionaries({"value": st.integers(0, 10**9), "currency": st.sampled_from(["EUR", "JPY"])})


@AGREES
@given(
    item=st.fixed_dictionaries(
        {
            "pspReference": TEXTS,
            "merchantAccountCode": TEXTS,
            "merchantReference": TEXTS,
            "eventCode": st.sampled_from(["AUTHORISATION", "REFUND"]),
            "success": st.sampled_from(["true", "false"]),
            "amount": st.fixed_dictionaries(
                {"value": st.integers(0, 10**9), "currency": st.sampled_from(["EUR", "JPY"])}
            ),
        },
        optional={"originalReference": TEXTS},
    ),
    secret=st.sampled_from(SECRETS),
    tampered=st.booleans(),
)
def test_adyen_and_we_agree_about_items(item: dict[str, Any], secret: str, tampered: bool) -> None:
    """It signs, both judge."""
    made = sign_item(item, HEX_KEYS[secret])
    received = {**item, "additionalData": {"hmacSignature": made}}
    if tampered:
        received["amount"] = {**item["amount"], "value": item["amount"]["value"] + 1}
    known = Adyen.util.is_valid_hmac_notification(received, HEX_KEYS[SECRETS[0]])
    provider = vendor_of({"declared": "adyen", "secret": HEX_KEYS[SECRETS[0]], "url": URL})
    try:
        provider.options.webhook.signature.verify_event(json.dumps(received).encode())  # type: ignore[union-attr]
        ours = True
    except SignatureInvalid:
        ours = False
    assert ours is bool(known)


def sign_item(item: dict[str, Any], key: str) -> str:
    made = Adyen.util.generate_notification_sig(item, key)
    return made.decode() if isinstance(made, bytes) else str(made)


@AGREES
@given(
    object_id=st.text("abcXYZ019", min_size=1, max_size=8),
    request_id=st.text("abc-019", min_size=1, max_size=8),
    secret=st.sampled_from(SECRETS),
    moved=st.booleans(),
)
def test_mercado_pago_and_we_agree(object_id: str, request_id: str, secret: str, moved: bool) -> None:
    stamp = str(int(NOW.timestamp()))
    text = f"id:{object_id};request-id:{request_id};ts:{stamp};"
    made = hmac.digest(secret.encode(), text.encode(), "sha256").hex()
    headers = {"x-signature": f"ts={stamp},v1={made}", "x-request-id": request_id}
    received = object_id + "x" if moved else object_id
    known = raises_no(
        InvalidWebhookSignatureError,
        lambda: WebhookSignatureValidator.validate(headers["x-signature"], request_id, received, SECRETS[0]),
    )
    provider = vendor_of({"declared": "mercadopago", "secret": SECRETS[0], "url": URL})
    assert is_genuine(provider, headers, b"{}", f"data.id={received}") is known


KEYS = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
PUBLIC = [
    base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    for key in KEYS
]


@AGREES
@given(body=BODIES, number=st.integers(0, 1), tampered=st.booleans())
def test_sendgrid_and_we_agree(body: bytes, number: int, tampered: bool) -> None:
    stamp = str(int(NOW.timestamp()))
    made = base64.b64encode(KEYS[number].sign(stamp.encode() + body, ec.ECDSA(SHA256()))).decode()
    received = body + b" " if tampered else body
    known = EventWebhook(PUBLIC[0]).verify_signature(received.decode(), made, stamp)
    headers = {
        "x-twilio-email-event-webhook-signature": made,
        "x-twilio-email-event-webhook-timestamp": stamp,
    }
    provider = vendor_of({"declared": "sendgrid", "secret": PUBLIC[0], "url": URL})
    assert is_genuine(provider, headers, received) is known is (number == 0 and not tampered)


@AGREES
@given(
    number=st.integers(0, 10**9),
    signed_with=st.sampled_from(SECRETS),
    known=st.sampled_from(SECRETS),
    tampered=st.booleans(),
)
def test_airtable_and_we_agree(number: int, signed_with: str, known: str, tampered: bool) -> None:
    packed = {secret: base64.b64encode(secret.encode()).decode() for secret in SECRETS}
    body = json.dumps(
        {"base": {"id": f"app{number}"}, "webhook": {"id": "ach1"}, "timestamp": "2026-11-20T12:00:00.000Z"}
    ).encode()
    signer, judge = (
        vendor_of({"declared": "airtable", "secret": packed[each], "url": URL}) for each in (signed_with, known)
    )
    headers = signer.options.webhook.signature.sign(Secret(packed[signed_with]), "key", body, URL, NOW)  # type: ignore[union-attr]
    assert headers is not None
    received = body + b" " if tampered else body
    theirs = raises_no(
        ValueError,
        lambda: WebhookNotification.from_request(received.decode(), headers["x-airtable-content-mac"], packed[known]),
    )
    assert is_genuine(judge, headers, received) is theirs is (signed_with == known and not tampered)


EDWARDS = [Ed25519PrivateKey.generate() for _ in range(2)]


@AGREES
@given(body=BODIES, number=st.integers(0, 1), tampered=st.booleans())
def test_discord_and_we_agree(body: bytes, number: int, tampered: bool) -> None:
    public, stamp = EDWARDS[0].public_key().public_bytes_raw().hex(), str(int(NOW.timestamp()))
    made = EDWARDS[number].sign(stamp.encode() + body).hex()
    received = body + b" " if tampered else body
    headers = {"x-signature-ed25519": made, "x-signature-timestamp": stamp}
    provider = vendor_of({"declared": "discord", "secret": public, "url": URL})
    theirs = verify_key(received, made, stamp, public)
    assert is_genuine(provider, headers, received) is theirs is (number == 0 and not tampered)
