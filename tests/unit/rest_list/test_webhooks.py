"""What a declaration can say of webhooks: where their parts stand, how they are proven, what is no event."""

import hmac
import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from declared import WINDOW, build, changed, declaration

from gapless_reconcilers.kit.contract import (
    CannotRender,
    Coverage,
    RecordedEvent,
    Remedy,
    RemoteEvent,
    Rendering,
    Secret,
    WebhookRequest,
)
from gapless_reconcilers.kit.errors import MalformedWebhook, OptionsInvalid, SignatureInvalid, UnexpectedShape
from gapless_reconcilers.providers.rest_list.places import Parts, found_text, text_of
from gapless_reconcilers.testing.suite.scenario import make_request

NOW = WINDOW.end
TOKEN = {"scheme": "token", "header": "X-Token", "secret": [Secret("t0ken_do_not_show")]}
SECRET = [Secret("acme_do_not_show")]
HEADERS = {"x-token": "t0ken_do_not_show"}


def pushed(event: dict[str, Any] | None = None, signature: dict[str, Any] = TOKEN, **webhook: Any) -> Any:
    """A vendor without a list."""
    return build({"event": event or {}, "webhook": {"signature": signature, **webhook}})


def read(provider: Any, body: object, headers: dict[str, str] | None = None, query: str = "") -> list[RemoteEvent]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return list(provider.read_webhook(make_request({**HEADERS, **(headers or {})}, content, query=query), NOW).events)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("a.b", "1"),
        ("{a.b}:{c}", "1:two"),
        ("absent | c", "two"),
        ("absent | {a.b}-{c}", "1-two"),
        ("absent | 'fixed'", "fixed"),
        ("header:X-Id", "h"),
        ("{header:x-id}/{query:q.r}", "h/v w"),
        ("null | c", "two"),
        ("list[1].d", "3"),
        ("{at|day}", "2026-11-20"),
        ("{iso|day}", "2026-11-21"),
    ],
)
def test_a_part_is_read_where_the_declaration_says(expression: str, text: str) -> None:
    body = {"a": {"b": 1}, "c": "two", "null": None, "list": [0, {"d": 3}], "at": 1795177200.5}
    body["iso"] = "2026-11-20T23:30:00-05:00"
    request = make_request({"x-id": "h"}, b"", query="q.r=v%20w")
    assert text_of(Parts(json.dumps(body).encode(), request), expression) == text


def test_what_is_nowhere_is_an_error_with_its_last_place() -> None:
    with pytest.raises(UnexpectedShape, match=r"^b is missing; wanted a value"):
        text_of(Parts(b'{"c":1}'), "a | b")
    with pytest.raises(UnexpectedShape, match="header:x-id is missing"):
        text_of(Parts(b"{}"), "header:X-Id")
    assert found_text(Parts(b"["), "a") is None


def test_the_hash_of_an_event_is_that_of_its_bytes() -> None:
    provider = pushed({"key": "hash:event", "type": "'ping'", "time": "received"}, root="entry", many=True)
    first, second = read(provider, b'{"entry":[{"a":1}, {"a": 1}]}')
    (again,) = read(provider, b'{"entry":[{"a":1}]}')
    assert first.key == again.key != second.key


def test_a_time_of_receipt_is_said_to_be_approximate() -> None:
    provider = pushed({"time": "at | received", "time_format": "unix_s"})
    (named,), (receipt,) = (read(provider, {"id": "1", "type": "t", **more}) for more in ({"at": 1795177100}, {}))
    assert (named.occurred_at, receipt.occurred_at) == (NOW - timedelta(seconds=100), NOW)
    assert not provider.capabilities.exact_times
    assert pushed().capabilities.exact_times


@pytest.mark.parametrize("value", [1795177100, "1795177100", 1795177100.0, "1795177100.000"])
def test_seconds_may_be_numbers_with_a_fraction_and_texts(value: object) -> None:
    provider = pushed({"time": "at", "time_format": "unix_s"})
    (event,) = read(provider, {"id": "1", "type": "t", "at": value})
    assert event.occurred_at == datetime(2026, 11, 20, 12, 18, 20, tzinfo=UTC)


@pytest.mark.parametrize("value", [True, None, "soon", "-1", "1e9", [], "9" * 40])
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(MalformedWebhook):
        read(pushed({"time": "at", "time_format": "unix_s"}), {"id": "1", "type": "t", "at": value})


def test_a_webhook_may_name_its_parts_elsewhere_than_the_list() -> None:
    table = changed(
        "webhook.event", {"key": "header:X-Id", "type": "header:X-Type", "time": "received", "exact": False}
    )
    provider = build({**table, "event": {"type": "kind"}})
    known = provider.capabilities
    assert (known.carried_headers, known.exact_times, known.identity_unsigned) == (("x-id", "x-type"), False, True)
    recorded = RecordedEvent(
        key="e1", type="order.paid", occurred_at=NOW, stream="", payload=b'{"id":"e1"}', via="list"
    )
    message: Any = provider.render(recorded, "https://x.example/", Secret("whsec_do_not_show"), NOW)
    assert (message.headers["x-id"], message.headers["x-type"]) == ("e1", "order.paid")


def test_a_header_that_holds_more_than_a_part_is_known_of_webhooks_alone() -> None:
    provider = pushed({"key": "{header:X-Topic}:{id}", "type": "header:X-Topic", "time": "received"})
    recorded = RecordedEvent(key="a:1", type="a", occurred_at=NOW, stream="", payload=b'{"id":1}', via="import")
    assert not isinstance(provider.render(recorded, "https://x.example/", SECRET[0], NOW), CannotRender)
    two = pushed({"key": "{header:X-Store}:{id}", "type": "type", "time": "received"})
    assert two.capabilities.rendering is Rendering.PUSHED
    assert isinstance(two.render(recorded, "https://x.example/", SECRET[0], NOW), CannotRender)


def test_without_a_list_nothing_is_asked_and_nothing_is_proven() -> None:
    provider = pushed()
    known = provider.capabilities
    assert (known.coverage, known.remedy, provider.auth()) == (Coverage.NONE, Remedy.NONE, None)
    assert provider.option_problems() == []
    with pytest.raises(OptionsInvalid, match="no list is declared"):
        provider.first_request("", WINDOW)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"event": {}}, "webhook is missing and list is too: nothing would ever come"),
        ({"webhook": {"signature": TOKEN}, "base_url": "https://x.example"}, "there is no list to ask for"),
        ({**declaration(), "base_url": ""}, "missing required field `base_url`"),
        (changed("event", {"key": "header:X"}), r"event\.key is 'header:X', which no row of a list has"),
        (changed("event", {"time": "received"}), r"event\.time is 'received', which no row of a list has"),
        (changed("webhook.refusals", [503]), r"webhook\.refusals has 503; wanted statuses from 400 to 499"),
        (changed("webhook.ignore", {"{open": "x"}), r"webhook\.ignore has '\{open'"),
        (changed("webhook.signature.signed", "{time}{body}"), r"signature\.time does not say where it stands"),
        (changed("webhook.signature.tolerance", "5m"), r"signature\.tolerance is that of no time"),
        (changed("webhook.signature", {"scheme": "token", "secret": SECRET}), "no header and no query"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsInvalid, match=message):
        build(table)


def test_tests_of_the_vendor_and_empty_arrays_record_nothing_if_they_are_declared() -> None:
    provider = pushed(ignore={"type": "ping", "header:X-Test": "*"}, root="events", many=True, empty=True)
    assert read(provider, {"events": []}) == []
    event = {"id": "1", "type": "t", "created_at": "2026-11-20T12:00:00Z"}
    assert len(read(provider, {"events": [event]})) == 1
    assert read(provider, {"events": [event], "type": "ping"}) == []
    assert read(provider, {"events": [event]}, {"x-test": "true"}) == []
    with pytest.raises(MalformedWebhook, match="empty array"):
        read(pushed(root="events", many=True), {"events": []})


def test_events_may_stand_inside_the_elements_of_an_array() -> None:
    provider = pushed({"time": "received"}, root="a[].b", many=True, item="c.d")
    body = {"a": [{"b": [{"c": {"d": {"id": 1, "type": "t"}}}]}, {"b": [{"c": {"d": {"id": 2, "type": "t"}}}]}]}
    assert [event.key for event in read(provider, body)] == ["1", "2"]
    with pytest.raises(MalformedWebhook, match=r"a\[0\]\.b\[0\]\.c"):
        read(provider, {"a": [{"b": [{}]}]})


def test_a_form_becomes_the_events_json() -> None:
    provider = pushed({"key": "Sid", "type": "Status", "time": "received"}, form=True)
    (event,) = read(provider, b"Sid=S1&Status=sent&Body=na%C3%AFve+%E2%82%AC&Empty=")
    assert json.loads(bytes(event.payload)) == {"Sid": "S1", "Status": "sent", "Body": "naïve €", "Empty": ""}
    for body in (b"Sid=%ff", b"&".join([b"a=1"] * 2000), b"Sid=S1"):
        with pytest.raises(MalformedWebhook):
            read(provider, body)


def test_a_listed_text_is_the_body_of_its_webhook() -> None:
    table = changed("list.payload", "body")
    provider = build(table)
    request = provider.first_request("", WINDOW)
    row = {"id": "e1", "kind": "t", "created_at": "2026-11-20T12:00:00Z"}
    rows = [{**row, "body": '{"n":1}'}, {**row, "id": "e2", "body": {"n": 2}}, {**row, "id": "e3", "body": None}]
    rows += [{**row, "id": "e4", "body": "no json"}]
    answer = httpx.Response(200, json={"data": rows, "more": False}, request=request)
    page = provider.read_page(request, answer, "", WINDOW)
    assert [bytes(event.payload) for event in page.events] == [b'{"n":1}', b'{"n":2}', b"null"]
    assert "data[3].body is no JSON" in page.unreadable[0].problem


def verdict(signature: dict[str, Any], headers: dict[str, str], body: bytes = b"{}", query: str = "") -> bool:
    request = make_request(headers, body, query=query)
    try:
        pushed(signature=signature).options.webhook.signature.verify(request, NOW)
    except SignatureInvalid:
        return False
    return True


HMAC = {"scheme": "hmac", "header": "X-Sig", "secret": SECRET}


def mac(signature: dict[str, Any], body: bytes = b"{}") -> str:
    """What the scheme itself signs, as one header."""
    signed = pushed(signature=signature).options.webhook.signature.sign(SECRET[0], "k", body, "", NOW)
    return str(signed["x-sig"])


def test_either_case_and_padding_are_taken_only_if_it_is_said() -> None:
    upper, bare = mac(HMAC).upper(), mac({**HMAC, "encoding": "base64"}).rstrip("=")
    assert (verdict(HMAC, {"x-sig": upper}), verdict({**HMAC, "lenient": True}, {"x-sig": upper})) == (False, True)
    packed = {**HMAC, "encoding": "base64"}
    assert (verdict(packed, {"x-sig": bare}), verdict({**packed, "lenient": True}, {"x-sig": bare})) == (False, True)


def test_a_time_that_is_named_and_absent_is_refused() -> None:
    signature = {**HMAC, "time": "at", "unit": "ms", "tolerance": "1m"}
    body = b'{"at":%d}' % (NOW.timestamp() * 1000)
    assert verdict(signature, {"x-sig": mac(signature, body)}, body)
    assert not verdict(signature, {"x-sig": mac(HMAC)})
    old = b'{"at":%d}' % (NOW.timestamp() * 1000 - 61_000)
    assert not verdict(signature, {"x-sig": mac(signature, old)}, old)


def test_a_signature_may_stand_in_one_of_several_headers_beside_others() -> None:
    good = mac(HMAC)
    several = {**HMAC, "also": ["X-Sig-2"], "separator": ",", "prefix": "v1="}
    assert verdict(several, {"x-sig": "v1=00", "x-sig-2": f"v0=11, v1={good}"})
    assert not verdict(several, {"x-sig": "v1=00", "x-sig-2": f"v0={good}"})
    assert not verdict(several, {"x-sig": ",".join(["v1=00"] * 70)})


def test_a_key_may_be_hex_or_base64_and_one_that_is_not_is_told() -> None:
    hexed = {**HMAC, "key": "hex", "secret": [Secret(SECRET[0].reveal().encode().hex())]}
    assert verdict(hexed, {"x-sig": mac(HMAC)})
    broken = pushed(signature={**HMAC, "key": "hex"})
    assert "can verify nothing" in broken.option_problems()[0]
    assert not verdict({**HMAC, "key": "base64", "secret": [Secret("====")]}, {"x-sig": mac(HMAC)})


def test_a_token_may_stand_in_the_query() -> None:
    signature = {"scheme": "token", "query": "code", "secret": SECRET}
    assert verdict(signature, {}, query="code=acme_do_not_show")
    assert not verdict(signature, {}, query="code=other")
    assert not verdict(signature, {"code": "acme_do_not_show"})
    with pytest.raises(MalformedWebhook, match="2 times in the query"):
        verdict(signature, {}, query="code=acme_do_not_show&code=acme_do_not_show")


def test_a_token_of_another_algorithm_is_none() -> None:
    signature = {"scheme": "jwt", "header": "X-Sig", "expires": True, "secret": SECRET}
    for token in ("eyJhbGciOiJub25lIn0.e30.", "eyJhbGciOiJSUzI1NiJ9.e30.AA", "a.b", "a.b.c.d", "", "é.é.é"):
        assert not verdict(signature, {"x-sig": token})


@pytest.mark.parametrize(("until", "holds"), [(10**400, True), (-(10**400), False), ("1", False)])
def test_a_token_may_expire_at_any_number(until: object, holds: bool) -> None:
    parts = ({"alg": "HS256"}, {"exp": until})
    head, claims = (urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts)
    digest = hmac.digest(SECRET[0].reveal().encode(), f"{head}.{claims}".encode(), "sha256")
    token = f"{head}.{claims}.{urlsafe_b64encode(digest).rstrip(b'=').decode()}"
    signature = {"scheme": "jwt", "header": "X-Sig", "expires": True, "secret": SECRET}
    assert verdict(signature, {"x-sig": token}) == holds


def test_who_does_not_sign_the_body_is_said_to() -> None:
    with pytest.raises(OptionsInvalid, match=r"no \{body\}; what is not signed proves nothing"):
        pushed(signature={**HMAC, "signed": "{header:X-Id}"})
    known = pushed(signature={**HMAC, "signed": "{header:X-Id}", "body_unsigned": True}).capabilities
    assert (known.signs_body, known.signature_headers) == (False, ("x-sig", "x-id"))


def test_a_request_by_get_is_never_an_event() -> None:
    request = WebhookRequest(headers=((b"x-token", b"t0ken_do_not_show"),), body=b'{"id":"1"}', method="GET")
    with pytest.raises(SignatureInvalid, match="GET without the challenge of a handshake"):
        pushed().read_webhook(request, NOW)
