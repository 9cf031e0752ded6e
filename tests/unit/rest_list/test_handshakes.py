"""The requests with which vendors prove an endpoint, as each documents its own, and what strangers make of them."""

import json
from typing import Any

import pytest
from declared import WINDOW, build

from gapless_reconcilers.kit.contract import Answer, Secret, WebhookRequest
from gapless_reconcilers.kit.errors import OptionsInvalid, SignatureInvalid, WebhookRefused
from gapless_reconcilers.testing.suite.scenario import make_request

NOW = WINDOW.end
SIGNED = {"scheme": "hmac", "header": "X-Acme", "secret": [Secret("acme_do_not_show")]}
TOKEN = {"scheme": "token", "header": "Authorization", "secret": [Secret("shared_do_not_show")]}


def pushed(handshake: dict[str, Any], signature: dict[str, Any] = SIGNED, **webhook: Any) -> Any:
    """A vendor without a list."""
    return build({"webhook": {"signature": signature, "handshake": handshake, **webhook}})


def answer(provider: Any, request: WebhookRequest) -> Answer:
    """The answer, by which nothing was recorded."""
    assert request.method in provider.capabilities.methods
    reply = provider.read_webhook(request, NOW)
    assert reply.events == ()
    return reply.answer  # type: ignore[no-any-return]


META = {
    "method": "GET",
    "when": {"query:hub.mode": "subscribe"},
    "challenge": "query:hub.challenge",
    "token_at": "query:hub.verify_token",
    "token": Secret("meta_token"),
    "answer": "{challenge}",
}
VALIDATION = [
    {"id": "1", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {"validationCode": "512d38b6"}}
]
EVENT_GRID = {
    "when": {"[0].eventType": "Microsoft.EventGrid.SubscriptionValidationEvent"},
    "challenge": "[0].data.validationCode",
    "answer": {"validationResponse": "{challenge}"},
}
OPTIONS = {
    "method": "OPTIONS",
    "when": {"header:WebHook-Request-Origin": "eventgrid.azure.net"},
    "headers": {
        "WebHook-Allowed-Origin": "{header:WebHook-Request-Origin}",
        "WebHook-Allowed-Rate": "{header:WebHook-Request-Rate}",
        "Allow": "POST",
    },
}
OKTA = {
    "method": "GET",
    "challenge": "header:X-Okta-Verification-Challenge",
    "signed": True,
    "answer": {"verification": "{challenge}"},
}
X_CRC = {"method": "GET", "challenge": "query:crc_token", "answer": {"response_token": "sha256={hmac_base64}"}}
DROPBOX = {"method": "GET", "challenge": "query:challenge", "answer": "{challenge}"}
GRAPH = {"challenge": "query:validationToken", "answer": "{challenge}"}
ASANA = {"challenge": "header:X-Hook-Secret", "headers": {"X-Hook-Secret": "{challenge}"}}
MONDAY = {"challenge": "challenge", "answer": {"challenge": "{challenge}"}}
META_QUERY = "hub.mode=subscribe&hub.challenge=115&hub.verify_token=meta_token"
GRAPH_QUERY = "validationToken=Validation%3A%20Testing%20Request-Id%3A%200a1b%20%26%20more%2F%2B%3D"


@pytest.mark.parametrize(
    ("handshake", "request_", "body", "headers"),
    [
        (META, make_request({}, b"", method="GET", query=META_QUERY), b"115", {}),
        (
            DROPBOX,
            make_request({}, b"", method="GET", query="challenge=c%2B1"),
            b"c+1",
            {"X-Content-Type-Options": "nosniff"},
        ),
        (
            X_CRC,
            make_request({}, b"", method="GET", query="crc_token=crc-made-up-1"),
            b'{"response_token":"sha256=bWEK8kbjnTN012quNvssYE2CqG5TanJV3uikzHLFJF4="}',
            {},
        ),
        (
            GRAPH,
            make_request({"content-type": "text/plain"}, b"", query=GRAPH_QUERY),
            b"Validation: Testing Request-Id: 0a1b & more/+=",
            {},
        ),
        (
            ASANA,
            make_request({"x-hook-secret": "b537207f20cbfa02357cf448134da559"}, b""),
            b"",
            {"X-Hook-Secret": "b537207f20cbfa02357cf448134da559"},
        ),
        (MONDAY, make_request({}, b'{"challenge":"3eZbrw1a"}'), b'{"challenge":"3eZbrw1a"}', {}),
        (
            EVENT_GRID,
            make_request({"aeg-event-type": "SubscriptionValidation"}, json.dumps(VALIDATION).encode()),
            b'{"validationResponse":"512d38b6"}',
            {},
        ),
        ({"method": "HEAD"}, make_request({}, b"", method="HEAD"), b"", {}),
        (
            {"when": {"form:webhook_id": "*"}},
            make_request({"content-type": "application/x-www-form-urlencoded"}, b"webhook_id=12"),
            b"",
            {},
        ),
        (
            OPTIONS,
            make_request(
                {"webhook-request-origin": "eventgrid.azure.net", "webhook-request-rate": "120"}, b"", method="OPTIONS"
            ),
            b"",
            {"WebHook-Allowed-Origin": "eventgrid.azure.net", "WebHook-Allowed-Rate": "120", "Allow": "POST"},
        ),
        (
            OPTIONS,
            make_request({"webhook-request-origin": "eventgrid.azure.net"}, b"", method="OPTIONS"),
            b"",
            {"WebHook-Allowed-Origin": "eventgrid.azure.net", "Allow": "POST"},
        ),
    ],
    ids=[
        "meta",
        "dropbox",
        "x_crc",
        "graph",
        "asana",
        "monday",
        "event_grid",
        "trello",
        "woocommerce_ping",
        "cloudevents",
        "cloudevents_no_rate",
    ],
)
def test_the_documented_request_gets_the_documented_answer(
    handshake: dict[str, Any], request_: WebhookRequest, body: bytes, headers: dict[str, str]
) -> None:
    given = answer(pushed(handshake), request_)
    assert (given.status, given.body) == (200, body)
    assert dict(given.headers) == {"X-Content-Type-Options": "nosniff", **headers}
    assert given.content_type == ("application/json" if body.startswith(b"{") else "text/plain; charset=utf-8")


def test_a_signed_handshake_is_answered_only_if_it_is_signed() -> None:
    provider = pushed(OKTA, TOKEN)
    headers = {"x-okta-verification-challenge": "Cn4llenge", "authorization": "shared_do_not_show"}
    assert answer(provider, make_request(headers, b"", method="GET")).body == b'{"verification":"Cn4llenge"}'
    for wrong in ({"authorization": "other"}, {"authorization": ""}):
        with pytest.raises(SignatureInvalid):
            provider.read_webhook(make_request({**headers, **wrong}, b"", method="GET"), NOW)


def test_a_handshake_with_another_token_is_refused() -> None:
    for token in ("other", "", "meta_token2"):
        query = f"hub.mode=subscribe&hub.challenge=115&hub.verify_token={token}"
        with pytest.raises(SignatureInvalid):
            pushed(META).read_webhook(make_request({}, b"", method="GET", query=query), NOW)


def test_what_is_signed_for_a_stranger_can_be_no_webhook() -> None:
    """Where challenges and webhooks have one key, a signed challenge must not pass for the signature of a body."""
    for challenge in ("%7B%22id%22%3A1%7D", "a%20b", "%5B1%5D", "x" * 300, ""):
        with pytest.raises(WebhookRefused):
            pushed(X_CRC).read_webhook(make_request({}, b"", method="GET", query=f"crc_token={challenge}"), NOW)


@pytest.mark.parametrize("challenge", ["1", "123", "-1.5e3", "true", "null"])
def test_a_signed_challenge_that_is_json_is_no_event(challenge: str) -> None:
    event = {"key": "hash:event", "type": "'activity'", "time": "received"}
    signature = {**SIGNED, "encoding": "base64", "prefix": "sha256="}
    provider = build({"webhook": {"signature": signature, "handshake": X_CRC}, "event": event})
    given = answer(provider, make_request({}, b"", method="GET", query=f"crc_token={challenge}"))
    signed = json.loads(given.body)["response_token"]
    with pytest.raises(WebhookRefused):
        provider.read_webhook(make_request({"x-acme": signed}, challenge.encode()), NOW)


def test_a_text_within_a_webhook_is_no_field_of_a_handshake() -> None:
    """Whoever can write a text of an event must not make it pass for a test, which records nothing."""
    provider = pushed({"when": {"form:webhook_id": "*"}})
    body = b'{"id":"evt_1","note":"a&webhook_id=1&b"}'
    with pytest.raises(SignatureInvalid):
        provider.read_webhook(make_request({"x-acme": "00"}, body), NOW)


@pytest.mark.parametrize(
    "webhook", [{"form": True}, {"signature": {**SIGNED, "body_unsigned": True, "signed": "{a.id}"}}]
)
def test_a_handshake_signs_nothing_where_that_could_be_a_webhook(webhook: dict[str, Any]) -> None:
    with pytest.raises(OptionsInvalid, match="HMAC of a challenge"):
        build({"webhook": {"signature": SIGNED, "handshake": X_CRC, **webhook}})


@pytest.mark.parametrize("challenge", ["%3Cscript%3E", "a%0d%0aSet-Cookie: b", "%c3%a9", "{header:authorization}"])
def test_a_challenge_that_is_no_plain_text_is_not_repeated(challenge: str) -> None:
    for handshake in (DROPBOX, {**DROPBOX, "answer": "", "headers": {"X-Echo": "{challenge}"}}):
        with pytest.raises(WebhookRefused):
            pushed(handshake).read_webhook(make_request({}, b"", method="GET", query=f"challenge={challenge}"), NOW)


def test_a_request_that_is_no_handshake_is_a_webhook_like_any_other() -> None:
    provider = pushed(EVENT_GRID, root="", many=True)
    other = json.dumps([{**VALIDATION[0], "eventType": "Microsoft.Storage.BlobCreated"}]).encode()
    with pytest.raises(SignatureInvalid):
        provider.read_webhook(make_request({"x-acme": "00"}, other), NOW)
    with pytest.raises(SignatureInvalid):
        pushed(OPTIONS).read_webhook(make_request({"webhook-request-origin": "stranger"}, b"", method="OPTIONS"), NOW)


@pytest.mark.parametrize(
    ("handshake", "message"),
    [
        ({}, "when is empty: every webhook would be a handshake"),
        ({"challenge": "{open"}, "wanted paths, header:<name> or query:<name>"),
        ({**DROPBOX, "token_at": "query:t"}, "token_at and token belong together"),
        ({**DROPBOX, "status": 302}, "status is 302; wanted one from 200 to 299"),
    ],
)
def test_a_handshake_that_cannot_work_is_refused(handshake: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsInvalid, match=message):
        pushed(handshake)
