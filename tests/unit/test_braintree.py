"""Braintree: known answers, its own library as oracle both ways, and payloads that are no XML of Braintree's."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import braintree
import pytest
from braintree.exceptions.invalid_challenge_error import InvalidChallengeError
from braintree.exceptions.invalid_signature_error import InvalidSignatureError
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless_reconcilers.kit.contract import CannotRender, RecordedEvent, Reply, Secret, WebhookRequest
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid, WebhookRefused
from gapless_reconcilers.providers.braintree import Braintree, BraintreeOptions
from gapless_reconcilers.testing.suite.scenario import load_scenario, make_request

FIXTURES = Path(__file__).parents[1] / "fixtures"
VECTORS = json.loads((FIXTURES / "vectors/braintree/braintree.json").read_text())
NOW = datetime(2026, 11, 20, 12, 20, tzinfo=UTC)
PUBLIC, PRIVATE = "made_up_public_key", "made_up_private_key_0123456789ab"
KINDS = sorted(
    value
    for name, value in vars(braintree.WebhookNotification.Kind).items()
    if not name.startswith("_") and isinstance(value, str)
)


def ours(*keys: str) -> Braintree:
    return Braintree(BraintreeOptions(key=tuple(Secret(each) for each in keys or (f"{PUBLIC}:{PRIVATE}",))))


def theirs(private: str = PRIVATE) -> braintree.BraintreeGateway:
    made_up = {"merchant_id": "made_up_merchant", "public_key": PUBLIC, "private_key": private}
    return braintree.BraintreeGateway(braintree.Configuration(braintree.Environment.Sandbox, **made_up))


def posted(form: dict[str, str]) -> WebhookRequest:
    return make_request({"content-type": "application/x-www-form-urlencoded"}, urlencode(form).encode())


@pytest.mark.parametrize("vector", VECTORS, ids=[each["id"] for each in VECTORS])
def test_known_answers_hold(vector: dict[str, Any]) -> None:
    provider = ours(f"{vector['secret']['public_key']}:{vector['secret']['private_key']}")
    method, query = vector["method"], vector["query"]
    request = make_request(vector["headers"], vector["body"].encode(), method=method, query=query)
    if vector["expect"] == "refuse":
        with pytest.raises(WebhookRefused):
            provider.read_webhook(request, NOW)
        return
    reply = provider.read_webhook(request, NOW)
    assert reply.answer.body.decode() == vector.get("answer", "")
    assert [event.key for event in reply.events] == (
        [] if method == "GET" else ["subscription_charged_successfully:sub_1:2023-11-14T22:13:20Z"]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_notification_that_braintree_makes_is_read(kind: str) -> None:
    made = theirs().webhook_testing.sample_notification(kind, "made_up_id", "made_up_merchant")
    reply = ours().read_webhook(posted(made), NOW)
    if kind == "check":
        assert reply == Reply(events=())
        return
    (event,) = reply.events
    parsed = theirs().webhook_notification.parse(made["bt_signature"], made["bt_payload"])
    assert (event.type, event.occurred_at.replace(tzinfo=None)) == (parsed.kind, parsed.timestamp)


@settings(max_examples=200, deadline=None)
@given(
    payload=st.binary(min_size=1, max_size=200),
    private=st.sampled_from([PRIVATE, "another_private_key"]),
    changed=st.booleans(),
)
def test_braintree_and_we_agree_about_what_is_signed(payload: bytes, private: str, changed: bool) -> None:
    text = base64.encodebytes(payload).decode()
    signed = ours(f"{PUBLIC}:{private}").render(
        recorded(text), "https://x.example/", Secret(f"{PUBLIC}:{private}"), NOW
    )
    assert not isinstance(signed, CannotRender)
    form = dict(parse_qsl(signed.body.decode()))
    if changed:
        form["bt_payload"] = "A" + form["bt_payload"]
    try:
        ours().read_webhook(posted(form), NOW)
        verdict = True
    except SignatureInvalid:
        verdict = False
    except MalformedWebhook:  # signed, and no XML
        verdict = True
    assert verdict is accepts(form)


def accepts(form: dict[str, str]) -> bool:
    gateway = theirs().webhook_notification
    try:
        gateway._WebhookNotificationGateway__validate_signature(  # its check alone: the payloads are no XML
            form["bt_signature"], form["bt_payload"].encode()
        )
    except InvalidSignatureError:
        return False
    return True


def recorded(payload: str) -> RecordedEvent:
    body = json.dumps({"bt_payload": payload}).encode()
    return RecordedEvent(key="k", type="t", occurred_at=NOW, stream="", payload=body, via="webhook")


def test_braintree_reads_what_we_render() -> None:
    scenario = load_scenario(FIXTURES / "braintree")
    (event,) = ours().read_webhook(scenario.webhook, NOW).events
    again = RecordedEvent(
        key=event.key, type=event.type, occurred_at=event.occurred_at, stream="", payload=bytes(event.payload), via="w"
    )
    message = ours().render(again, "https://x.example/", Secret(f"{PUBLIC}:{PRIVATE}"), NOW)
    assert not isinstance(message, CannotRender)
    form = dict(parse_qsl(message.body.decode()))
    parsed = theirs().webhook_notification.parse(form["bt_signature"], form["bt_payload"])
    assert (parsed.kind, parsed.subscription.id) == (event.type, event.object_key)


@settings(max_examples=200, deadline=None)
@given(challenge=st.text("0123456789abcdefAG<\n", max_size=40) | st.from_regex(r"[a-f0-9]{20,32}", fullmatch=True))
def test_braintree_and_we_answer_the_same_challenges(challenge: str) -> None:
    request = make_request({}, b"", method="GET", query=urlencode({"bt_challenge": challenge}))
    try:
        wanted: str | None = theirs().webhook_notification.verify(challenge)
    except InvalidChallengeError:
        wanted = None
    if wanted is None or challenge.endswith("\n"):  # theirs takes a line end behind it, which no challenge has
        with pytest.raises(SignatureInvalid):
            ours().read_webhook(request, NOW)
        return
    assert ours().read_webhook(request, NOW).answer.body.decode() == wanted


@pytest.mark.parametrize(
    "xml",
    [
        b"no XML",
        b"<notification/>",
        b"<other><kind>a</kind></other>",
        b'<!DOCTYPE n [<!ENTITY a "b">]><notification><kind>&a;</kind></notification>',
        b"<notification><kind>a</kind><timestamp>never</timestamp></notification>",
        b"<notification>" + b"<a>" * 60 + b"</a>" * 60 + b"</notification>",
        b'<notification><kind>a</kind><n type="integer">x</n></notification>',
        b"\xff\xfe",
    ],
)
def test_what_is_signed_and_no_notification_is_refused(xml: bytes) -> None:
    message = ours().render(recorded(base64.encodebytes(xml).decode()), "", Secret(f"{PUBLIC}:{PRIVATE}"), NOW)
    assert not isinstance(message, CannotRender)
    with pytest.raises(MalformedWebhook):
        ours().read_webhook(make_request({}, message.body), NOW)


def test_a_signed_challenge_is_no_webhook() -> None:
    """What we sign for whoever asks can be base64 too."""
    challenge = "20f9f8ed05f77439fe955c977e4c8a53"
    answer = ours().read_webhook(make_request({}, b"", method="GET", query=f"bt_challenge={challenge}"), NOW).answer
    with pytest.raises(MalformedWebhook):
        ours().read_webhook(posted({"bt_signature": answer.body.decode(), "bt_payload": challenge}), NOW)


def test_a_key_that_verifies_nothing_is_told() -> None:
    assert ours("only_one").option_problems()
    assert not ours().option_problems()
