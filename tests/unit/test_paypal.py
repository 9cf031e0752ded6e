"""PayPal: a certificate chain of our own, against paypalrestsdk's signed string; postback; the list; the token."""

import base64
import json
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from certificates import Authority
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st
from paypalrestsdk.notifications import WebhookEvent

from gapless_reconcilers.kit.auth import ClientCredentialsAuth
from gapless_reconcilers.kit.certificates import public_roots
from gapless_reconcilers.kit.contract import MissingEvent, NeedsEvidence, Reply, Secret, WebhookRequest, Window
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    MalformedWebhook,
    ProviderUnavailable,
    SignatureInvalid,
    UnexpectedShape,
    WebhookRefused,
)
from gapless_reconcilers.providers.paypal import PayPal, PayPalOptions
from gapless_reconcilers.providers.paypal.webhook import signed_text

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AUTHORITY = Authority(start=NOW - timedelta(days=30), days=300)
PEM, KEY = AUTHORITY.leaf("messageverificationcerts.paypal.com")
URL = "https://api.paypal.com/v1/notifications/certs/CERT-1"
WEBHOOK_ID = "0EH40505U7160970P"
EVENT = {
    "id": "WH-1",
    "event_type": "PAYMENT.SALE.COMPLETED",
    "create_time": "2026-11-20T11:59:00Z",
    "resource": {"id": "8"},
}
BODY = json.dumps(EVENT).encode()
WINDOW = Window(start=NOW - timedelta(hours=1), end=NOW)
LIST = "https://api-m.paypal.com/v1/notifications/webhooks-events"


def paypal(*webhook_ids: str, **options: Any) -> PayPal:
    known = {
        "client_id": "c",
        "client_secret": Secret("s3cret"),
        "trust_roots": AUTHORITY.root_pem().decode(),
        **options,
    }
    return PayPal(PayPalOptions(webhook_id=webhook_ids or (WEBHOOK_ID,), **known))


def sign(
    body: bytes = BODY, webhook_id: str = WEBHOOK_ID, key: RSAPrivateKey = KEY, time: str = "2026-11-20T11:59:05Z"
) -> str:
    message = f"T-1|{time}|{webhook_id}|{zlib.crc32(body)}".encode()
    return base64.b64encode(key.sign(message, PKCS1v15(), SHA256())).decode()


def request_of(body: bytes = BODY, **changes: str | None) -> WebhookRequest:
    headers: dict[str, str | None] = {
        "transmission-id": "T-1", "transmission-time": "2026-11-20T11:59:05Z", "transmission-sig": sign(body),
        "cert-url": URL, "auth-algo": "SHA256withRSA",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }  # fmt: skip
    pairs = [
        (f"paypal-{name}".encode(), value.encode("latin-1")) for name, value in headers.items() if value is not None
    ]
    return WebhookRequest(headers=tuple(pairs), body=body)


def found(pem: bytes = PEM, status: int = 200) -> dict[str, httpx.Response]:
    return {URL: httpx.Response(status, content=pem)}


def test_the_signed_string_is_the_known_one() -> None:
    wanted = b"TID|2023-11-14T22:13:20Z|WHID|63048326"
    assert signed_text("TID", "2023-11-14T22:13:20Z", "WHID", b'{"id":"evt_test_1","n":1}') == wanted


@given(
    body=st.text(max_size=60),
    parts=st.lists(st.text(alphabet="abcXYZ019-:", min_size=1, max_size=12), min_size=3, max_size=3),
)
def test_the_signed_string_is_that_of_the_sdk(body: str, parts: list[str]) -> None:
    key, time, webhook_id = parts
    theirs = WebhookEvent._get_expected_sig(key, time, webhook_id, body)
    assert signed_text(key, time, webhook_id, body.encode()) == theirs.encode()


def test_the_certificate_is_asked_for_once_and_then_the_webhook_is_read() -> None:
    needed = paypal().read_webhook(request_of(), NOW)
    assert isinstance(needed, NeedsEvidence)
    assert (str(needed.request.url), needed.cache_key, needed.with_credentials) == (URL, URL, False)
    reply = paypal().read_webhook(request_of(), NOW, found())
    assert isinstance(reply, Reply)
    (event,) = reply.events
    assert (event.key, event.type, event.object_key) == ("WH-1", "PAYMENT.SALE.COMPLETED", "8")


@settings(max_examples=50)
@given(body=st.dictionaries(st.text(max_size=9), st.text(max_size=9)))
def test_any_body_of_ours_verifies_and_any_changed_one_does_not(body: dict[str, str]) -> None:
    raw = json.dumps({**body, **EVENT}, ensure_ascii=False).encode()
    assert paypal().read_webhook(request_of(raw), NOW, found())
    with pytest.raises(SignatureInvalid):
        paypal().read_webhook(request_of(raw, transmission_sig=sign(raw + b" ")), NOW, found())


@pytest.mark.parametrize(
    "url",
    [
        "http://api.paypal.com/cert", "https://paypal.com.evil.example/cert", "https://evilpaypal.com/cert", "file:///etc/x",
        "https://api.paypal.com@evil.example/cert", "https://api.paypal.com:8443/cert", "https://api.paypal.com/cert#x",
        "https://api.paypal.com/", "https://api.paypal.com/v1/notifications/certs/", f"{URL}?x=1", f"{URL}/..",
        f"{URL}\n",
        "https://www.paypal.com/v1/notifications/certs/CERT-1", "https://api.paypal.com/v1/notifications/certs/x.pem",
        f"{URL}%2e", "HTTPS://API.PAYPAL.COM/v1/notifications/certs/CERT-1", f"{URL}-{'a' * 64}",
        "https://paypal.com/cert", "https://[::1]/cert", "https://", "not a url", "https://api.paypal.com\x00.evil.example/",
    ],
)  # fmt: skip
def test_a_certificate_from_anywhere_else_is_refused_and_never_fetched(url: str) -> None:
    with pytest.raises(SignatureInvalid) as refused:
        paypal().read_webhook(request_of(cert_url=url), NOW)
    assert refused.value.reason == "bad_header"


def other_chain() -> bytes:
    return Authority(start=NOW - timedelta(days=30), days=300).leaf("messageverificationcerts.paypal.com")[0]


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "cannot be read"),
        (b"<html>", "cannot be read"),
        (other_chain(), "no root that we trust"),
        (AUTHORITY.leaf("messageverificationcerts.paypal.com", alone=True)[0], "no root that we trust"),
        (AUTHORITY.leaf("messageverificationcerts.paypal.com", days=1)[0], "out of date"),
        (AUTHORITY.leaf("paypal.com.evil.example")[0], "no host below paypal.com"),
        (AUTHORITY.root_pem(), "cannot be read"),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused(pem: bytes, why: str) -> None:
    with pytest.raises(SignatureInvalid, match=why):
        paypal().read_webhook(request_of(), NOW, found(pem))


def test_a_certificate_that_is_not_there_is_a_forgery_and_no_outage() -> None:
    with pytest.raises(SignatureInvalid, match="no such certificate: 404"):
        paypal().read_webhook(request_of(), NOW, found(b"", 404))


def test_the_public_roots_are_read_whatever_an_odd_one_of_them_is_like() -> None:
    assert len(public_roots()) > 50


def test_the_public_roots_do_not_stand_behind_our_own_chain() -> None:
    with pytest.raises(SignatureInvalid, match="no root that we trust"):
        paypal(trust_roots=None).read_webhook(request_of(), NOW, found())


def test_another_key_another_webhook_and_another_algorithm_are_refused() -> None:
    _, stranger = AUTHORITY.leaf("messageverificationcerts.paypal.com")
    for changes in ({"transmission_sig": sign(key=stranger)}, {"transmission_sig": sign(webhook_id="OTHER")}):
        with pytest.raises(SignatureInvalid):
            paypal().read_webhook(request_of(**changes), NOW, found())
    for changes in ({"auth_algo": "SHA1withRSA"}, {"transmission_sig": "!!"}):
        with pytest.raises(SignatureInvalid) as refused:
            paypal().read_webhook(request_of(**changes), NOW, found())
        assert refused.value.reason == "bad_header"
    assert paypal("OTHER", WEBHOOK_ID).read_webhook(request_of(), NOW, found())


def test_an_event_of_the_simulator_is_told_as_such() -> None:
    with pytest.raises(SignatureInvalid) as refused:
        paypal().read_webhook(request_of(transmission_sig=sign(webhook_id="WEBHOOK_ID")), NOW, found())
    assert refused.value.reason == "simulator"


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"{", b"\xff", b'{"id":"","event_type":"x","create_time":"2026-11-20T11:59:00Z"}']
)
def test_a_signed_body_that_cannot_be_recorded_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedWebhook):
        paypal().read_webhook(request_of(body), NOW, found())


@settings(max_examples=200)
@given(body=st.binary(max_size=60), signature=st.text(max_size=30), url=st.text(max_size=40))
def test_nothing_but_a_refusal_escapes(body: bytes, signature: str, url: str) -> None:
    texts = (text.encode("utf-8", "replace").decode("latin-1") or None for text in (signature, url))
    with pytest.raises(WebhookRefused):
        paypal().read_webhook(request_of(body, transmission_sig=next(texts), cert_url=next(texts)), NOW, found())


# --- postback


def verdict(status: str, code: int = 200) -> httpx.Response:
    return httpx.Response(code, json={"verification_status": status})


def test_a_postback_sends_the_body_back_byte_for_byte_with_our_credentials() -> None:
    raw = b'{ "resource":{"amount":1.10,"id":"8"},"id":"WH-1" ,"event_type":"X","create_time":"2026-11-20T11:59:00Z"}'
    needed = paypal(verify="postback").read_webhook(request_of(raw), NOW)
    assert isinstance(needed, NeedsEvidence)
    assert (needed.with_credentials, needed.max_age) == (True, timedelta(0))
    assert needed.request.content.endswith(b',"webhook_event":' + raw + b"}")
    sent = json.loads(needed.request.content)
    assert (sent["webhook_id"], sent["transmission_id"], sent["cert_url"]) == (WEBHOOK_ID, "T-1", URL)


def test_paypals_verdict_decides_for_each_of_our_webhooks() -> None:
    ours = paypal("A", "B", verify="postback")
    needed = ours.read_webhook(request_of(), NOW, {"A": verdict("FAILURE")})
    assert isinstance(needed, NeedsEvidence)
    assert needed.cache_key == "B"
    assert isinstance(ours.read_webhook(request_of(), NOW, {"A": verdict("FAILURE"), "B": verdict("SUCCESS")}), Reply)
    for second in (verdict("FAILURE"), verdict("SUCCEEDED"), httpx.Response(400, content=b"<html>")):
        with pytest.raises(SignatureInvalid):
            ours.read_webhook(request_of(), NOW, {"A": verdict("FAILURE"), "B": second})
    with pytest.raises(MalformedWebhook):
        ours.read_webhook(request_of(b'{"a":1}, "verification_status": "SUCCESS"'), NOW)


# --- the list


def page(rows: Any, request: httpx.Request | None = None) -> Any:
    request = request or paypal().first_request("", WINDOW)
    return paypal().read_page(request, httpx.Response(200, json=rows), "", WINDOW)


def linked(href: str) -> dict[str, Any]:
    return {"events": [EVENT], "links": [{"rel": "self", "href": LIST}, {"rel": "next", "href": href}]}


def test_the_next_link_is_followed_as_it_is_given_with_its_ampersands_unescaped() -> None:
    following = page(linked(f"{LIST}?page_size=5&amp;index_id=WH-1")).next
    assert str(following.url) == f"{LIST}?page_size=5&index_id=WH-1"


@pytest.mark.parametrize("host", ["api.paypal.com", "api-m.paypal.com"])
def test_a_next_link_to_another_host_of_paypal_is_asked_at_ours(host: str) -> None:
    """PayPal's reference shows a link to api.paypal.com with a slash at the end of its path."""
    path = httpx.URL(LIST).path
    following = page(linked(f"https://{host}{path}/?page_size=5&amp;index_id=WH-1")).next
    assert str(following.url) == f"{LIST}?page_size=5&index_id=WH-1"


@pytest.mark.parametrize(
    "href", ["https://evil.example/v1/notifications/webhooks-events?x=1", "http" + LIST[5:], f"{LIST}/WH-1", ""]
)
def test_a_next_link_that_leads_elsewhere_is_refused(href: str) -> None:
    with pytest.raises(UnexpectedShape, match=r"links\[next\]\.href"):
        page(linked(href))


def test_a_short_page_with_a_next_link_goes_on_and_a_full_one_without_ends() -> None:
    assert page(linked(f"{LIST}?index_id=1") | {"events": []}).next is not None
    assert page({"events": [EVENT] * 100, "links": []}).next is None
    (odd,) = page({"events": [EVENT, {**EVENT, "create_time": "2026-11-20T11:59:00"}]}).unreadable
    assert odd.problem.startswith("events[1].create_time is ")


def test_our_webhook_is_found_by_its_id_and_said_to_be_unhealthy_if_another_would_be_signed_for() -> None:
    def told(**changes: Any) -> httpx.Response:
        row = {"id": WEBHOOK_ID, "url": "https://h.example/webhooks/acme", "event_types": [{"name": "*"}], **changes}
        return httpx.Response(200, json={"webhooks": [row]})

    url = "https://h.example/webhooks/acme"
    assert paypal().read_subscription(told(), url).types == ("*",)
    assert "name it in webhook_id" in paypal().read_subscription(told(id="OTHER"), url).reason
    assert "another path" in paypal().read_subscription(told(url="https://h.example/x"), url).reason
    assert "no webhook" in paypal().read_subscription(httpx.Response(200, json={"webhooks": []}), url).reason
    made = paypal().register_request(url, [], Secret(""))
    assert json.loads(made.content) == {"url": url, "event_types": [{"name": "*"}]}


def test_an_event_can_be_asked_for_and_sent_again() -> None:
    missing = MissingEvent(key="WH-1/x", type="t", occurred_at=NOW, stream="")
    assert paypal().detail_request(missing).url.raw_path.endswith(b"/webhooks-events/WH-1%2Fx")
    again = paypal("A", "B").redelivery_request(missing)
    assert (again.method, json.loads(again.content)) == ("POST", {"webhook_ids": ["A", "B"]})


# --- the token


class Vendor:
    """Grants tokens, and answers who has the newest."""

    def __init__(self, **grant: Any) -> None:
        self.granted = 0
        self.revoked = False
        self.grant = grant
        self.status = 200

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            assert request.headers["authorization"] == "Basic " + base64.b64encode(b"c:s3cret").decode()
            self.granted += 1
            self.revoked = False
            return httpx.Response(
                self.status, json={"access_token": f"t{self.granted}", "expires_in": 600, **self.grant}
            )
        good = request.headers["authorization"] == f"Bearer t{self.granted}" and not self.revoked
        return httpx.Response(200 if good else 401, content=b"x")


def test_a_token_is_asked_for_once_kept_until_just_before_its_end_and_renewed_when_it_is_refused() -> None:
    vendor, now = Vendor(), [NOW]
    auth = ClientCredentialsAuth("https://v.example/token", "c", Secret("s3cret"), clock=lambda: now[0])
    with httpx.Client(transport=httpx.MockTransport(vendor.answer), auth=auth) as client:
        for after_s, wanted in ((0, 1), (500, 1), (45, 2), (1, 2)):
            now[0] += timedelta(seconds=after_s)
            assert (client.get("https://v.example/x").status_code, vendor.granted) == (200, wanted)
        vendor.revoked = True
        assert (client.get("https://v.example/x").status_code, vendor.granted) == (200, 3)
    assert "s3cret" not in repr(auth)


@pytest.mark.parametrize(
    ("status", "grant", "wanted"),
    [
        (401, {}, CredentialsRejected),
        (200, {"access_token": None}, CredentialsRejected),
        (503, {}, ProviderUnavailable),
        (429, {}, ProviderUnavailable),
    ],
)
def test_no_token_is_told_as_what_it_is(status: int, grant: dict[str, Any], wanted: type[Exception]) -> None:
    vendor = Vendor(**grant)
    vendor.status = status
    auth = ClientCredentialsAuth("https://v.example/token", "c", Secret("s3cret"))
    with httpx.Client(transport=httpx.MockTransport(vendor.answer), auth=auth) as client, pytest.raises(wanted):
        client.get("https://v.example/x")


def test_a_garbled_token_is_none() -> None:
    """msgspec raises `UnicodeDecodeError` for bad UTF-8, which is no error of msgspec's."""
    garbled = httpx.Response(200, content=b'{"access_token":"\xff"}')
    auth = ClientCredentialsAuth("https://v.example/token", "c", Secret("s3cret"))
    transport = httpx.MockTransport(lambda _: garbled)
    with httpx.Client(transport=transport, auth=auth) as client, pytest.raises(CredentialsRejected):
        client.get("https://v.example/x")
