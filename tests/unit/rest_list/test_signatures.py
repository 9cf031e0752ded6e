"""Verification and rendering agree with the vendors' own libraries, both ways."""

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from declared import READY_MADE, build, declaration
from gocardless_pro import webhooks as gocardless
from gocardless_pro.errors import InvalidSignatureError
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle_billing.Notifications import Secret as PaddleSecret
from paddle_billing.Notifications import Verifier
from square.utils.webhooks_helper import verify_signature
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from gapless_reconcilers.kit.contract import CannotRender, RecordedEvent, Secret, WebhookRequest
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid, WebhookRefused
from gapless_reconcilers.testing.suite.scenario import Scenario, load_scenario, make_request

FIXTURES = READY_MADE[0].parents[3] / "tests/fixtures/rest_list"
NOW = datetime(2026, 11, 20, 12, 20, tzinfo=UTC)
URL = "https://merchant.example/webhooks"
ONE = b'{"id":"evt_test_1","n":1}'
secrets = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40).filter(str.strip)
bodies = (
    st.text(max_size=200)
    .map(lambda text: json.dumps({"text": text}, ensure_ascii=False))
    .filter(lambda text: text.isascii() or max(text) < "\ud800")
)


@cache
def scenario_of(vendor: str) -> Scenario:
    return load_scenario(FIXTURES / vendor)


def signature_of(vendor: str, *known: str) -> Any:
    """The vendor's scheme as it is declared, knowing the secrets `known`."""
    provider: Any = scenario_of(vendor).provider(webhook_secrets=known)
    return provider.options.webhook.signature


def is_genuine(signature: Any, headers: dict[str, str], body: bytes, now: datetime = NOW) -> bool:
    try:
        signature.verify(make_request(headers, body), now)
    except SignatureInvalid:
        return False
    return True


@pytest.mark.parametrize(
    ("vendor", "secret", "header", "value"),
    [
        (
            "gocardless",
            "s3cret",
            "webhook-signature",
            "c5bdfacb96bbbee9ce4eea06f42fc13583ac6ec16024bb595cdc6dfbebfa477e",
        ),
        ("square", "s3cret", "x-square-hmacsha256-signature", "+TqeI7kywGXFaAmC445KrDOL0aGEIPk8SSVSy+aBhII="),
        (
            "paddle",
            "pdl_ntfset_s3cret",
            "paddle-signature",
            "ts=1700000000;h1=71d9a1c90286f9eb6eb7f3ff595a93525f7efb514915a2fa729dbd5a493f8ea1",
        ),
    ],
)
def test_known_answers_hold(vendor: str, secret: str, header: str, value: str) -> None:
    signature = signature_of(vendor, secret)
    at = datetime.fromtimestamp(1_700_000_000, UTC)
    url = "https://example.test/hook"
    assert signature.sign(Secret(secret), "evt_test_1", ONE, url, at) == {header: value}


@settings(max_examples=300)
@given(secrets, secrets, bodies, st.booleans())
def test_gocardless_and_we_agree(secret: str, other: str, body: str, tampered: bool) -> None:
    raw = body.encode() + (b" " if tampered else b"")
    signature = signature_of("gocardless", other, secret)
    (header,) = signature.sign(Secret(secret), "", body.encode(), "", NOW).values()

    def theirs(known: str) -> bool:
        try:
            gocardless._verify_signature(raw, known, header)
        except InvalidSignatureError:
            return False
        return True

    assert is_genuine(signature, {"webhook-signature": header}, raw) is (theirs(secret) or theirs(other))


def test_gocardless_reads_what_we_render_and_we_what_it_would_send() -> None:
    scenario = load_scenario(FIXTURES / "gocardless")
    provider = scenario.provider()
    secret = scenario.signing_secret
    sent = scenario.webhook
    header = dict(sent.headers)[b"webhook-signature"].decode()
    events = gocardless.parse(sent.body, secret, header)
    assert [event.id for event in events] == [event.key for event in provider.read_webhook(sent, NOW).events]
    for event in events:
        payload = json.dumps(event.attributes).encode()
        recorded = RecordedEvent(
            key=event.id, type="payments.paid", occurred_at=NOW, stream="", payload=payload, via="list"
        )
        message = provider.render(recorded, URL, Secret(secret), NOW)
        assert not isinstance(message, CannotRender)
        (read,) = gocardless.parse(message.body, secret, message.headers["webhook-signature"])
        assert read.attributes == event.attributes


@settings(max_examples=300)
@given(secrets, secrets, bodies, st.booleans(), st.integers(-12, 12), st.integers(0, 2))
def test_paddle_and_we_agree(secret: str, other: str, body: str, tampered: bool, late_s: int, more: int) -> None:
    raw = body.encode() + (b" " if tampered else b"")
    known = [PaddleSecret(other), PaddleSecret(secret)]
    signature = signature_of("paddle", other, secret)
    (header,) = signature.sign(Secret(secret), "", body.encode(), "", NOW).values()
    header = header.replace(";h1=", ";h1=" + "00;h1=" * more)
    now = NOW + timedelta(seconds=late_s)
    request = SimpleNamespace(headers={"Paddle-Signature": header}, body=raw)
    with patch("paddle_billing.Notifications.Verifier.time", now.timestamp):
        try:
            theirs = Verifier().verify(request, known)
        except ConnectionRefusedError:
            theirs = False
    assert is_genuine(signature, {"paddle-signature": header}, raw, now) is theirs


@settings(max_examples=300)
@given(secrets, secrets, bodies, st.booleans(), st.booleans())
def test_square_and_we_agree(secret: str, other: str, body: str, tampered: bool, moved: bool) -> None:
    raw = body.encode() + (b" " if tampered else b"")
    signature = signature_of("square", other, secret)
    url = URL + ("/elsewhere" if moved else "")
    (header,) = signature.sign(Secret(secret), "", body.encode(), url, NOW).values()
    theirs = any(
        verify_signature(request_body=raw.decode(), signature_header=header, signature_key=each, notification_url=URL)
        for each in (secret, other)
    )
    assert is_genuine(signature, {"x-square-hmacsha256-signature": header}, raw) is theirs


@settings(max_examples=200)
@given(secrets, bodies, st.booleans(), st.integers(-400, 400))
def test_increase_signs_with_the_text_of_the_secret(secret: str, body: str, tampered: bool, late_s: int) -> None:
    raw = body.encode() + (b" " if tampered else b"")
    signature = signature_of("increase", secret)
    sent = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=late_s)
    headers = {
        "webhook-id": "wh_1",
        "webhook-timestamp": str(int(sent.timestamp())),
        "webhook-signature": Webhook(secret.encode()).sign("wh_1", sent, body),
    }
    try:
        Webhook(secret.encode()).verify(raw, headers)
        theirs = True
    except WebhookVerificationError:
        theirs = False
    if abs(abs(late_s) - 300) > 2:  # their clock is the machine's
        assert is_genuine(signature, headers, raw, datetime.fromtimestamp(time.time(), UTC)) is theirs
    ours = signature.sign(Secret(secret), "wh_1", body.encode(), URL, datetime.now(UTC))
    Webhook(secret.encode()).verify(body.encode(), ours)


@pytest.mark.parametrize("late_s", [0, 180, 181, -180, -181])
def test_workos_counts_in_milliseconds(late_s: int) -> None:
    signature = signature_of("workos", "workos_secret")
    (header,) = signature.sign(Secret("workos_secret"), "", ONE, "", NOW).values()
    time, _, mac = header.partition(", ")
    assert time == f"t={int(NOW.timestamp())}000"
    assert mac.startswith("v1=")
    late = NOW + timedelta(seconds=late_s)
    assert is_genuine(signature, {"workos-signature": header}, ONE, late) is (abs(late_s) <= 180)


@pytest.mark.parametrize(
    ("given_", "is_ours"),
    [
        ("Basic " + base64.b64encode(b"gapless:pass word").decode(), True),
        ("basic " + base64.b64encode(b"gapless:pass word").decode(), True),
        ("Basic " + base64.b64encode(b"gapless:pass").decode(), False),
        ("Basic " + base64.b64encode(b"").decode(), False),
        ("Basic !!!", False),
        ("Bearer gapless:pass word", False),
        ("gapless:pass word", False),
    ],
)
def test_a_name_and_a_password_are_compared_whole(given_: str, is_ours: bool) -> None:
    signature = signature_of("chargebee", "gapless:pass word", " ")
    assert is_genuine(signature, {"authorization": given_}, ONE) is is_ours


def test_a_token_in_a_header_is_compared_whole() -> None:
    table = declaration()
    table["webhook"]["signature"] = {"scheme": "token", "header": "X-Token", "secret": [Secret("one"), Secret("two")]}
    signature = build(table).options.webhook.signature  # type: ignore[union-attr]
    for text, is_ours in (("one", True), ("two", True), ("on", False), ("oneone", False), ("", False), ("\xe9", False)):
        assert is_genuine(signature, {"x-token": text}, ONE) is is_ours
    assert signature.sign(Secret("one"), "", ONE, "", NOW) == {"x-token": "one"}


def test_a_simulated_event_is_recorded_and_never_expected() -> None:
    scenario = load_scenario(FIXTURES / "paddle")
    provider: Any = scenario.provider()
    body = json.loads(scenario.webhook.body)
    body["event_id"] = "ntfsimevt_01hv8"
    raw = json.dumps(body).encode()
    headers = provider.options.webhook.signature.sign(Secret(scenario.signing_secret), "", raw, "", NOW)
    (event,) = provider.read_webhook(make_request(headers, raw), NOW).events
    assert (event.key, event.listable) == ("ntfsimevt_01hv8", False)


@pytest.mark.parametrize(
    "body", [b'{"events":[]}', b'{"events":{}}', b'{"events":[1]}', b'{"event":[]}', b"[]", b"\xff"]
)
def test_a_signed_webhook_that_is_not_as_declared_is_refused(body: bytes) -> None:
    provider: Any = load_scenario(FIXTURES / "gocardless").provider()
    secret = Secret(load_scenario(FIXTURES / "gocardless").signing_secret)
    headers = provider.options.webhook.signature.sign(secret, "", body, "", NOW)
    with pytest.raises(MalformedWebhook):
        provider.read_webhook(make_request(headers, body), NOW)


def test_without_a_declared_webhook_none_is_accepted() -> None:
    table = declaration()
    del table["webhook"]
    provider = build(table)
    with pytest.raises(WebhookRefused, match="no webhook is declared"):
        provider.read_webhook(WebhookRequest(headers=(), body=ONE), NOW)
    recorded = RecordedEvent(key="k", type="t", occurred_at=NOW, stream="", payload=ONE, via="list")
    assert isinstance(provider.render(recorded, URL, Secret("x"), NOW), CannotRender)


def made_of_many(root: str) -> Any:
    table = declaration()
    table["webhook"] |= {"root": root, "many": True}
    table["event"] = {"key": "id", "type": "kind", "time": "at"}
    return build(table)


def received(provider: Any, body: object) -> list[str]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    signed = provider.options.webhook.signature.sign(Secret("whsec_do_not_show"), "", text, URL, NOW)
    return [event.key for event in provider.read_webhook(make_request(signed, text), NOW).events]


def entity(key: str) -> dict[str, str]:
    return {"id": key, "kind": "made", "at": NOW.isoformat()}


def test_events_of_every_element_of_an_array_are_received() -> None:
    """An index took the first notification and dropped the others behind a 200."""
    provider = made_of_many("notifications[].change.entities")
    body = {
        "notifications": [
            {"change": {"entities": [entity("a"), entity("b")]}},
            {"change": {"entities": []}},
            {"change": {"entities": [entity("c")]}},
        ]
    }
    assert received(provider, body) == ["a", "b", "c"]
    with pytest.raises(MalformedWebhook, match=r"notifications\[1\]\.change\.entities is missing"):
        received(provider, {"notifications": [{"change": {"entities": [entity("a")]}}, {"change": {}}]})
    with pytest.raises(MalformedWebhook, match="wanted events"):
        received(provider, {"notifications": []})


@pytest.mark.parametrize("root", ["", "a", "a.b", "a[].b", "a[]", "[].b", "a[].b[].c[]"])
def test_an_event_is_rendered_where_it_is_received(root: str) -> None:
    provider = made_of_many(root)
    event = RecordedEvent(
        key="a", type="made", occurred_at=NOW, stream="", payload=json.dumps(entity("a")).encode(), via="list"
    )
    message = provider.render(event, URL, Secret("whsec_do_not_show"), NOW)
    assert received(provider, message.body) == ["a"]


def test_an_event_that_is_signed_by_its_values_has_each_name_once() -> None:
    adyen = load_scenario(FIXTURES / "adyen")
    planted = adyen.webhook.body.replace(b'"success":"false"', b'"success":"true","success":"false"')
    with pytest.raises(SignatureInvalid, match="stands twice"):
        adyen.provider().read_webhook(msgspec.structs.replace(adyen.webhook, body=planted), adyen.now)
