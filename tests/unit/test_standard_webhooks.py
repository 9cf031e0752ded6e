"""Standard Webhooks against the official libraries, both ways."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import standardwebhooks
import svix
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.bootstrap.policies import mode_of
from gapless.domain import Mode
from gapless.settings import SourceSettings
from gapless_reconcilers.kit.contract import (
    CannotRender,
    ListsEvents,
    RecordedEvent,
    Secret,
    WebhookMessage,
    WebhookRequest,
)
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid, WebhookRefused
from gapless_reconcilers.kit.standard_signature import symmetric_key
from gapless_reconcilers.providers.standard_webhooks import StandardWebhooks, StandardWebhooksOptions

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KNOWN_BODY = b'{"id":"evt_test_1","n":1}'
KNOWN_SIGNATURE = "v1,vUT7ZX4EVd8omvf7K9KUeMVHnYzlKAcxdfDHd92CRMI="
KNOWN_TIME = datetime.fromtimestamp(1700000000, UTC)

secrets = st.binary(min_size=24, max_size=64).map(lambda raw: "whsec_" + base64.b64encode(raw).decode())
ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
bodies = st.dictionaries(st.text(max_size=10), st.text(max_size=20) | st.integers(), max_size=5).map(
    lambda value: json.dumps(value, ensure_ascii=False)
)


def sender(*known: str, **options: Any) -> StandardWebhooks:
    return StandardWebhooks(StandardWebhooksOptions(secret=tuple(map(Secret, known or (SECRET,))), **options))


def request_of(body: bytes, key: str, time: datetime | str, signature: str, family: str = "webhook") -> WebhookRequest:
    at = time if isinstance(time, str) else str(int(time.timestamp()))
    pairs = {f"{family}-id": key, f"{family}-timestamp": at, f"{family}-signature": signature}
    return WebhookRequest(
        headers=tuple((name.encode(), value.encode("latin-1")) for name, value in pairs.items()), body=body
    )


def known(**changes: Any) -> WebhookRequest:
    given_: dict[str, Any] = {"body": KNOWN_BODY, "key": "msg_1", "time": KNOWN_TIME, "signature": KNOWN_SIGNATURE}
    return request_of(**{**given_, **changes})


def test_the_known_answer_is_accepted() -> None:
    (event,) = sender().read_webhook(known(), KNOWN_TIME).events
    assert (event.key, event.type, event.occurred_at, event.listable) == ("msg_1", "webhook", KNOWN_TIME, False)


@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.Webhook])
@settings(max_examples=300, deadline=None)
@given(secret=secrets, key=ids, body=bodies)
def test_what_the_libraries_sign_is_accepted_and_what_we_render_they_accept(
    library: Any, secret: str, key: str, body: str
) -> None:
    now = datetime.now(UTC)
    theirs = library(secret)
    signature = theirs.sign(msg_id=key, timestamp=now, data=body)
    family = "svix" if library is svix.Webhook else "webhook"
    (event,) = sender(secret).read_webhook(request_of(body.encode(), key, now, signature, family), now).events
    assert (event.key, event.payload) == (key, body.encode())
    recorded = RecordedEvent(key=key, type="t", occurred_at=now, stream="", payload=body.encode(), via="webhook")
    message = sender(secret).render(recorded, "", Secret(secret), now)
    assert isinstance(message, WebhookMessage)
    theirs.verify(message.body, dict(message.headers))


@settings(max_examples=300, deadline=None)
@given(secret=secrets, other=secrets, key=ids, body=bodies, late_s=st.integers(-900, 900))
def test_we_refuse_what_the_library_refuses(secret: str, other: str, key: str, body: str, late_s: int) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    sent = now - timedelta(seconds=late_s)
    signature = standardwebhooks.Webhook(other).sign(msg_id=key, timestamp=sent, data=body)
    request = request_of(body.encode(), key, sent, signature)
    headers = {name.decode(): value.decode() for name, value in request.headers}
    if abs(abs(late_s) - 300) <= 2:
        return  # the library reads its own clock
    try:
        standardwebhooks.Webhook(secret).verify(body, headers)
    except standardwebhooks.WebhookVerificationError:
        with pytest.raises(SignatureInvalid):
            sender(secret).read_webhook(request, now)
    else:
        assert sender(secret).read_webhook(request, now).events


@given(seed=st.binary(min_size=32, max_size=32), body=bodies)
def test_an_ed25519_signature_is_accepted_with_the_senders_public_key_alone(seed: bytes, body: str) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    message = f"msg_1.{int(KNOWN_TIME.timestamp())}.{body}".encode()
    signature = "v1a," + base64.b64encode(private.sign(message)).decode()
    verifier = sender("whpk_" + base64.b64encode(public).decode())
    assert verifier.read_webhook(known(body=body.encode(), signature=signature), KNOWN_TIME).events
    with pytest.raises(SignatureInvalid):
        verifier.read_webhook(known(body=body.encode() + b" ", signature=signature), KNOWN_TIME)
    with pytest.raises(SignatureInvalid):
        verifier.read_webhook(known(body=body.encode(), signature=signature.replace("v1a", "v1")), KNOWN_TIME)


def test_any_of_several_signatures_will_do_and_unknown_versions_are_passed_over() -> None:
    signature = f"v9,AAAA v1,AAAA v1a,AAAA {KNOWN_SIGNATURE}"
    assert sender().read_webhook(known(signature=signature), KNOWN_TIME).events


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signature": "v1"}, "signature"),
        ({"signature": ""}, "signature"),
        ({"signature": "v1,!!!!"}, "signature"),
        ({"signature": "v1a,!!!!"}, "signature"),
        ({"time": "soon"}, "bad_header"),
        ({"time": "-5"}, "bad_header"),
        ({"time": "\u00b2"}, "bad_header"),
        ({"time": "9" * 12}, "stale"),
        ({"key": ""}, "bad_header"),
        ({"key": "\xe9"}, "bad_header"),
    ],
)
def test_headers_that_make_no_sense_are_refused_by_name(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SignatureInvalid) as refused:
        sender().read_webhook(known(**changes), KNOWN_TIME)
    assert refused.value.reason == reason


@pytest.mark.parametrize("late_s", [-301, 301])
def test_a_time_too_far_from_ours_is_stale_either_way(late_s: int) -> None:
    with pytest.raises(SignatureInvalid) as refused:
        sender().read_webhook(known(), KNOWN_TIME + timedelta(seconds=late_s))
    assert refused.value.reason == "stale"
    assert sender(tolerance=timedelta(hours=1)).read_webhook(known(), KNOWN_TIME + timedelta(seconds=late_s)).events


def signed(body: bytes) -> WebhookRequest:
    text = body.decode("latin-1")
    signature = sender().render(
        RecordedEvent(key="msg_1", type="t", occurred_at=KNOWN_TIME, stream="", payload=body, via="webhook"),
        "", Secret(SECRET), KNOWN_TIME,
    )  # fmt: skip
    assert isinstance(signature, WebhookMessage), text
    return known(body=body, signature=signature.headers["webhook-signature"])


def test_the_suggested_fields_are_read_where_they_are_there_and_never_required() -> None:
    told = b'{"type":"contact.created","timestamp":"2023-11-14T22:13:00+01:00","data":{}}'
    (event,) = sender().read_webhook(signed(told), KNOWN_TIME).events
    assert (event.type, event.occurred_at) == ("contact.created", datetime(2023, 11, 14, 21, 13, tzinfo=UTC))
    for body in (b"[]", b"null", b'"text"', b'{"type":5,"timestamp":"2023-11-14"}'):
        (event,) = sender(type="other").read_webhook(signed(body), KNOWN_TIME).events
        assert (event.type, event.occurred_at) == ("other", KNOWN_TIME)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"type":"a\\u0000"}', b'{"timestamp":"1000-01-01T00:00:00Z"}'])
def test_a_signed_body_that_cannot_be_recorded_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedWebhook):
        sender().read_webhook(signed(body), KNOWN_TIME)


@settings(max_examples=500, deadline=None)
@given(
    body=st.binary(max_size=100), key=st.text(max_size=20), time=st.text(max_size=20), signature=st.text(max_size=40)
)
def test_nothing_but_a_refusal_escapes(body: bytes, key: str, time: str, signature: str) -> None:
    pairs = {"webhook-id": key, "webhook-timestamp": time, "webhook-signature": signature}
    headers = tuple((name.encode(), value.encode("utf-8", "replace")) for name, value in pairs.items())
    with pytest.raises(WebhookRefused):
        sender().read_webhook(WebhookRequest(headers=headers, body=body), KNOWN_TIME)


def test_a_public_key_verifies_and_never_signs() -> None:
    event = RecordedEvent(key="k", type="t", occurred_at=KNOWN_TIME, stream="", payload=b"{}", via="webhook")
    assert isinstance(sender().render(event, "", Secret("whpk_" + "A" * 43 + "="), KNOWN_TIME), CannotRender)


def test_a_secret_that_can_verify_nothing_is_told_before_anything_runs() -> None:
    assert sender().option_problems() == []
    (problem,) = sender(SECRET, "whsec_not base64", "whpk_AAAA").option_problems()
    assert problem.startswith("2 of 3 secrets")
    assert "not base64" not in problem


def test_a_source_that_lists_nothing_only_receives_whatever_its_mode_says() -> None:
    assert not isinstance(sender(), ListsEvents)
    configured = SourceSettings(name="acme", provider="standard_webhooks", mode=Mode.HYBRID)
    assert mode_of(configured, sender()) is Mode.WEBHOOK


@pytest.mark.parametrize("padding", ["", "="])
def test_a_secret_is_read_with_and_without_its_padding(padding: str) -> None:
    key = b"k" * 32
    text = "whsec_" + base64.b64encode(key).decode().rstrip("=") + padding
    assert symmetric_key(Secret(text)) == key
