"""Events in the form of CloudEvents, read by the library of CloudEvents."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudevents.http import from_http, from_json
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from gapless.destinations import cloud_events
from gapless.destinations.cloud_events import EventFormat
from gapless.destinations.contract import Delivery, SenderContext, event_id
from gapless.destinations.http import DeliverySignature, HttpOptions, HttpSender
from gapless.domain import Sources, Via, system_clock
from gapless.settings import SecretRef
from gapless_reconcilers.kit.contract import Secret, WebhookMessage

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CONTEXT = SenderContext(
    name="app",
    sources=Sources(),
    clock=system_clock,
    concurrency=1,
    timeout=timedelta(seconds=5),
    releases=frozenset(),
)
CLOUD = [EventFormat.STRUCTURED, EventFormat.BINARY]


def delivery(**changes: Any) -> Delivery:
    values: dict[str, Any] = {
        "id": event_id("1", "evt_1"), "key": "evt_1", "source": "acme", "stream": "", "type": "invoice.paid",
        "occurred_at": datetime(2026, 11, 20, 12, 30, 1, 5, tzinfo=UTC),
        "recorded_at": datetime(2026, 11, 21, tzinfo=UTC), "via": Via.WEBHOOK,
        "payload": b'{"id": "evt_1",  "n": 1.0}', "attempt": 1,
    }  # fmt: skip
    return Delivery(**(values | changes))


def sent(of: Delivery, form: EventFormat, **options: Any) -> WebhookMessage:
    known: dict[str, Any] = {"signature": DeliverySignature.STANDARD, "secret": SecretRef(value=Secret(SECRET))}
    sender = HttpSender(HttpOptions(url="https://app.example/", format=form, **(known | options)), CONTEXT)
    message = sender._message(of)
    assert isinstance(message, WebhookMessage)
    return message


def read(message: WebhookMessage) -> Any:
    """Return the event as the library of CloudEvents reads it; it checks the attributes that must be there."""
    return from_http(dict(message.headers), message.body)


@pytest.mark.parametrize("form", CLOUD)
def test_the_library_reads_the_event_in_both_modes(form: EventFormat) -> None:
    event = read(sent(delivery(), form))
    assert event["specversion"] == "1.0"
    assert event["id"] == event_id("1", "evt_1")
    assert (event["source"], event["type"], event["subject"]) == ("/gapless/acme", "invoice.paid", "evt_1")
    assert event["time"] == "2026-11-20T12:30:01.000005+00:00"
    assert event.get_data() == {"id": "evt_1", "n": 1.0}


@pytest.mark.parametrize("form", [EventFormat.PAYLOAD, *CLOUD])
def test_the_signature_is_over_the_body_that_is_sent(form: EventFormat) -> None:
    message = sent(delivery(), form)
    Webhook(SECRET).verify(message.body, dict(message.headers))


def test_a_payload_is_in_the_document_byte_for_byte() -> None:
    assert b'"data":{"id": "evt_1",  "n": 1.0}}' in sent(delivery(), EventFormat.STRUCTURED).body
    assert sent(delivery(), EventFormat.BINARY).body == b'{"id": "evt_1",  "n": 1.0}'


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff\xfe", b"<xml/>", b'{"a":"\xff"}', b'{"a":"\\ud83d"}', b"{" * 100_000, b"[" * 100_000, b"{} {}"],
    ids=["empty", "bytes", "xml", "not utf-8", "surrogate", "deep object", "deep array", "two documents"],
)
def test_a_payload_that_is_no_json_is_in_base64(payload: bytes) -> None:
    message = sent(delivery(payload=payload, headers={"content-type": "text/xml"}), EventFormat.STRUCTURED)
    document = json.loads(message.body)
    assert base64.b64decode(document["data_base64"]) == payload
    assert (document["datacontenttype"], "data" in document) == ("text/xml", False)
    binary = sent(delivery(payload=payload), EventFormat.BINARY)
    assert (binary.headers["content-type"], binary.body) == ("application/octet-stream", payload)


def test_the_library_reads_bytes_from_base64() -> None:
    assert from_json(sent(delivery(payload=b"\xff\xfe"), EventFormat.STRUCTURED).body).get_data() == b"\xff\xfe"


@given(key=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), kind=st.text(min_size=1))
def test_every_attribute_is_one_that_the_specification_allows(key: str, kind: str) -> None:
    of = delivery(key=key, type=kind)
    for value in cloud_events.attributes(of, "/gapless").values():
        assert value
        assert not cloud_events.NOT_TEXT.search(value)
    for name, value in cloud_events.http_headers(of, "/gapless").items():
        assert value.isascii()
        assert name == "content-type" or not set(value) & set(' "')
    assert read(sent(of, EventFormat.BINARY, signature=DeliverySignature.NONE))["id"] == of.id


def test_trap_trinity_equal_bodies_of_two_events_are_two_events() -> None:
    ids = [sent(delivery(id=event_id("1", key), key=key), EventFormat.STRUCTURED) for key in ("evt_1", "evt_2")]
    assert len({read(message)["id"] for message in ids}) == 2


def test_installations_are_told_apart_by_the_source() -> None:
    message = sent(delivery(), EventFormat.STRUCTURED, cloudevents_source="https://gapless.acme.example")
    assert json.loads(message.body)["source"] == "https://gapless.acme.example/acme"


def test_a_binary_attribute_is_encoded_as_the_binding_says() -> None:
    headers = sent(delivery(key='Euro € "100 %"'), EventFormat.BINARY).headers
    assert headers["ce-subject"] == "Euro%20%E2%82%AC%20%22100%20%25%22"
