"""Our reading and signing of webhooks against Stripe's own SDK, both ways, and every refusal by its reason."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import httpx
import pytest
import stripe
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from gapless_reconcilers.kit.contract import (
    MissingEvent,
    RecordedEvent,
    RemoteEvent,
    Secret,
    WebhookMessage,
    WebhookRequest,
)
from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid, UnexpectedShape, WebhookRefused
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def provider(*secrets: str, **options: Any) -> Stripe:
    webhook_secret = tuple(Secret(secret) for secret in secrets or (SECRET,))
    return Stripe(StripeOptions(api_key=Secret("rk_live_x"), webhook_secret=webhook_secret, **options))


def an_event(**changes: Any) -> dict[str, Any]:
    event = {
        "id": "evt_1", "object": "event", "created": NOW_S - 5, "livemode": True, "type": "invoice.paid",
        "data": {"object": {"id": "in_1", "object": "invoice"}},
    }  # fmt: skip
    return {**event, **changes}


def request_of(body: bytes, header: str | None) -> WebhookRequest:
    signed = () if header is None else ((b"stripe-signature", header.encode("latin-1")),)
    return WebhookRequest(headers=((b"host", b"merchant.example"), *signed), body=body)


def signed(body: str, secret: str = SECRET, sent_at: int = NOW_S) -> WebhookRequest:
    return request_of(body.encode(), stripe.WebhookSignature.generate_signature_header(body, secret, sent_at))


def read(event: dict[str, Any], **options: Any) -> RemoteEvent:
    (read_event,) = provider(**options).read_webhook(signed(json.dumps(event)), NOW).events
    return read_event


@contextmanager
def sdk_clock(now_s: float) -> Iterator[None]:
    """The SDK reads the clock itself; both sides must judge the same instant."""
    with patch("stripe._webhook.time", SimpleNamespace(time=lambda: now_s)):
        yield


def sdk_accepts(body: str, header: str, secret: str, tolerance: int) -> bool:
    with sdk_clock(NOW_S):
        try:
            return bool(stripe.WebhookSignature.verify_header(body, header, secret, tolerance))
        except TypeError:  # compare_digest knows no text beyond ASCII: the SDK gives no verdict
            return reject()
        except stripe.SignatureVerificationError:
            return False


def we_verify(body: str, header: str, secret: str, tolerance: int) -> bool:
    """Whether the signature is accepted; whether the body can then be read is another question."""
    judge = provider(secret, tolerance=timedelta(seconds=tolerance))
    try:
        judge.read_webhook(request_of(body.encode(), header), NOW)
    except SignatureInvalid:
        return False
    except MalformedWebhook:
        return True
    return True


latin_1 = st.text(alphabet=st.characters(max_codepoint=255), max_size=12)
bodies = st.one_of(st.text(max_size=80), st.just(json.dumps(an_event())))
secrets = st.one_of(st.just(SECRET), st.text(max_size=20), st.sampled_from(["", " ", "\t\n"]))
ages = st.one_of(st.sampled_from([0, 1, 299, 300, 301, -1, -300, -301, 10**6]), st.integers(-(10**12), 10**12))


@st.composite
def headers(draw: st.DrawFn, body: str, secret: str) -> str:
    """Headers from right to wrong in all ways we thought of: order, case, blanks, repeats, other schemes, garbage."""
    sent_at = NOW_S - draw(ages)
    right = stripe.WebhookSignature.generate_signature_header(body, secret, sent_at).partition("v1=")[2]
    times = [str(sent_at), f" {sent_at}", f"+{sent_at}", f"0{sent_at}", f"{sent_at}.0", "", "x", str(sent_at + 1)]
    signatures = [right, right, right.upper(), right[:-1], right + "=", right + " ", f" {right}", "", "é", "0" * 64]
    names = ["t", "t", "v1", "v1", "v1", "v0", " v1", "T", "V1", ""]
    count = draw(st.integers(0, 5))
    items = [f"t={draw(st.sampled_from(times))}"] if draw(st.booleans()) else []
    for _ in range(count):
        name = draw(st.sampled_from(names))
        value = draw(st.one_of(st.sampled_from(signatures), st.sampled_from(times), latin_1))
        items.append(draw(st.sampled_from([f"{name}={value}", name, value, f"{name}={value}=tail"])))
    return ",".join(items)


@settings(max_examples=2000, deadline=None)
@given(data=st.data(), body=bodies, secret=secrets, tolerance=st.sampled_from([0, 1, 300, 10**9]))
def test_our_verdict_on_a_signature_is_the_sdks(data: st.DataObject, body: str, secret: str, tolerance: int) -> None:
    header = data.draw(headers(body, secret))
    assert we_verify(body, header, secret, tolerance) is sdk_accepts(body, header, secret, tolerance)


@settings(max_examples=1000, deadline=None)
@given(body=bodies, other=bodies, secret=secrets, other_secret=secrets, age=ages, delta=st.integers(-2, 2))
def test_our_verdict_on_tampering_is_the_sdks(
    body: str, other: str, secret: str, other_secret: str, age: int, delta: int
) -> None:
    header = stripe.WebhookSignature.generate_signature_header(body, secret, NOW_S - age)
    moved = header.replace(f"t={NOW_S - age}", f"t={NOW_S - age + delta}")
    for one_body, one_header, one_secret in (
        (other, header, secret),
        (body, moved, secret),
        (body, header, other_secret),
    ):
        wanted = sdk_accepts(one_body, one_header, one_secret, 300)
        assert we_verify(one_body, one_header, one_secret, 300) is wanted


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
identifiers = st.text(alphabet="abcXYZ019_", min_size=1, max_size=30)
events = st.builds(
    an_event,
    id=identifiers.map("evt_".__add__),
    type=identifiers,
    created=st.integers(700_000_000, 4_000_000_000),
    livemode=st.booleans(),
    data=st.fixed_dictionaries({"object": st.fixed_dictionaries({"id": identifiers, "metadata": json_values})}),
    request=json_values,
)


@settings(max_examples=1000, deadline=None)
@given(event=events, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]), age=st.integers(0, 300))
def test_webhook_that_the_sdk_signed_is_read_as_the_event_it_is(
    *, event: dict[str, Any], ascii_only: bool, indent: int | None, age: int
) -> None:
    body = json.dumps(event, ensure_ascii=ascii_only, indent=indent)
    (ours,) = provider().read_webhook(signed(body, sent_at=NOW_S - age), NOW).events
    assert (ours.key, ours.type, ours.object_key) == (event["id"], event["type"], event["data"]["object"]["id"])
    assert ours.occurred_at.timestamp() == event["created"]
    assert bytes(ours.payload) == body.encode()
    assert ours.listable is event["livemode"]


@settings(max_examples=1000, deadline=None)
@given(event=events, stream=st.sampled_from(["", "acct_1"]), secret=identifiers)
def test_webhook_that_we_render_is_constructed_by_the_sdk(event: dict[str, Any], stream: str, secret: str) -> None:
    body = json.dumps(event, ensure_ascii=False)
    message = render(body, secret, stream=stream)
    with sdk_clock(NOW_S):
        constructed = stripe.Webhook.construct_event(message.body, message.headers["stripe-signature"], secret)
    assert (constructed.id, constructed.type, constructed.created) == (event["id"], event["type"], event["created"])
    assert json.loads(message.body) == ({**event, "account": stream} if stream else event)


def render(body: str, secret: str = SECRET, *, stream: str = "", via: str = "webhook") -> WebhookMessage:
    event = RecordedEvent(key="evt_1", type="x", occurred_at=NOW, stream=stream, payload=body.encode(), via=via)
    return provider().render(event, "https://merchant.example", Secret(secret), NOW)


def test_signature_is_the_known_answer() -> None:
    event = RecordedEvent(
        key="evt_test_1", type="x", occurred_at=NOW, stream="", payload=b'{"id":"evt_test_1","n":1}', via="webhook"
    )
    message = provider().render(
        event, "https://merchant.example", Secret(SECRET), datetime.fromtimestamp(1700000000, UTC)
    )
    wanted = "t=1700000000,v1=c1463b0e913f75f6092319f38f5209c7eca2f07985847de45bb4dcf8d7a036cb"
    assert message.headers["stripe-signature"] == wanted


def test_webhook_is_rendered_as_the_bytes_that_were_received() -> None:
    body = '{ "id" : "evt_1",\n "object":"event" }'
    assert render(body).body == body.encode()


def test_rendering_names_the_connected_account_once() -> None:
    listed, pushed = json.dumps(an_event()), json.dumps(an_event(account="acct_1"))
    assert json.loads(render(listed, stream="acct_1", via="list").body)["account"] == "acct_1"
    assert render(pushed, stream="acct_1").body == pushed.encode()


def test_trap_hookaido_every_v1_is_compared_during_a_secret_roll() -> None:
    body = json.dumps(an_event())
    old, new = (signed(body, secret).header("stripe-signature") or "" for secret in ("whsec_old", "whsec_new"))
    both = request_of(body.encode(), f"{old},{new.partition(',')[2]},v0=6ffbb59b")
    for known in (("whsec_new",), ("whsec_old",), ("whsec_unrelated", "whsec_new")):
        assert provider(*known).read_webhook(both, NOW).events[0].key == "evt_1"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "no_signature"),
        ("", "bad_header"),
        ("v1=abc", "bad_header"),
        ("t=abc,v1=abc", "bad_header"),
        (f"t={NOW_S}", "signature"),
        (f"t={NOW_S},v1=abc", "signature"),
    ],
)
def test_bad_signature_is_refused_with_its_reason(header: str | None, reason: str) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        provider().read_webhook(request_of(b"{}", header), NOW)
    assert (caught.value.reason, caught.value.status) == (reason, 401)


def test_stale_webhook_is_refused_and_one_from_the_future_is_not() -> None:
    body = json.dumps(an_event())
    with pytest.raises(SignatureInvalid) as caught:
        provider().read_webhook(signed(body, sent_at=NOW_S - 301), NOW)
    assert caught.value.reason == "stale"
    assert provider().read_webhook(signed(body, sent_at=NOW_S - 300), NOW).events
    assert provider().read_webhook(signed(body, sent_at=NOW_S + 100_000), NOW).events
    assert provider(tolerance=timedelta(0)).read_webhook(signed(body, sent_at=1), NOW).events


def test_no_secret_configured_means_no_webhook_is_accepted() -> None:
    unsigned = Stripe(StripeOptions(api_key=Secret("rk_live_x")))
    with pytest.raises(SignatureInvalid):
        unsigned.read_webhook(signed(json.dumps(an_event()), ""), NOW)


def thin_event(**changes: Any) -> dict[str, Any]:
    """As stripe-python 16.1.0 reads one."""
    return {
        "id": "evt_thin_1", "object": "v2.core.event", "type": "v1.invoice.paid", "livemode": True,
        "created": "2026-11-20T12:00:00.250Z", "related_object": {"id": "in_1", "type": "invoice", "url": "/v1/x"},
        **changes,
    }  # fmt: skip


def test_thin_event_with_a_snapshot_twin_is_the_same_event_as_its_twin() -> None:
    event, twin = read(thin_event(snapshot_event="evt_1")), read(an_event(type="invoice.paid"))
    assert (event.key, event.type, event.listable) == (twin.key, twin.type, True)
    assert (event.object_key, event.occurred_at.microsecond) == ("in_1", 250_000)


def test_thin_event_without_a_twin_is_recorded_and_never_expected() -> None:
    event = read(thin_event(type="v2.core.account.closed", related_object=None))
    assert (event.key, event.type, event.listable) == ("evt_thin_1", "v2.core.account.closed", False)
    assert event.object_key is None


def test_detail_of_a_thin_event_without_a_twin_is_asked_of_v2_in_its_context() -> None:
    told = thin_event(type="v2.core.account.closed", context="acct_1")
    event, ours = read(told), provider()
    missing = MissingEvent(key=event.key, type=event.type, occurred_at=event.occurred_at, stream=event.stream)
    request = ours.detail_request(missing)
    assert (request.url.path, request.headers["stripe-context"]) == ("/v2/core/events/evt_thin_1", "acct_1")
    whole = httpx.Response(200, json={**told, "data": {"reason": "asked"}}, request=request)
    detail = ours.read_detail(missing, whole)
    assert (detail.key, detail.stream, b"reason" in bytes(detail.payload)) == (event.key, "acct_1", True)
    for other in ({**told, "id": "evt_other"}, an_event()):
        with pytest.raises(UnexpectedShape, match="of another event"):
            ours.read_detail(missing, httpx.Response(200, json=other, request=request))


def test_thin_detail_that_cannot_be_recorded_is_unexpected() -> None:
    told = thin_event(type="v2.core.account.closed", context="acct_\x00")
    missing = MissingEvent(key=told["id"], type=told["type"], occurred_at=NOW, stream="")
    with pytest.raises(UnexpectedShape, match="not recordable") as caught:
        provider().read_detail(missing, httpx.Response(200, json=told))
    assert caught.value.path == "body"


def test_thin_event_of_a_connected_account_is_of_its_stream() -> None:
    told = thin_event(context="acct_1", snapshot_event="evt_1")
    assert (read(told, connect=True).stream, read(told, connect=True).listable) == ("acct_1", True)
    assert not read(told).listable


@pytest.mark.parametrize(
    "changes",
    [{"id": ""}, {"created": "yesterday"}, {"created": "2026-11-20T12:00:00"}, {"object": "event"}, {"type": None},
     {"snapshot_event": "evt_\x00"}, {"context": 7}],
)  # fmt: skip
def test_thin_event_that_cannot_be_recorded_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedWebhook):
        provider().read_webhook(signed(json.dumps(thin_event(**changes))), NOW)


def test_thin_event_that_we_render_is_parsed_by_the_sdk_and_no_snapshot_is() -> None:
    client = stripe.StripeClient("sk_test_x")
    for stream in ("", "acct_1"):
        body = json.dumps(thin_event(context=stream or None)).encode()
        event = RecordedEvent(key="evt_thin_1", type="t", occurred_at=NOW, stream=stream, payload=body, via="webhook")
        message = provider().render(event, "", Secret(SECRET), datetime.now(UTC))
        parsed = client.parse_event_notification(message.body, message.headers["stripe-signature"], SECRET)
        assert parsed.id == "evt_thin_1"
        assert message.body == body


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": None},
        {"id": "evt_\x00"},
        {"id": "e" * 513},
        {"type": 5},
        {"created": "2026"},
        {"created": -1},
        {"created": 10**30},
        {"livemode": None},
        {"data": None},
        {"data": {}},
        {"data": {"object": None}},
        {"account": 7},
        {"data": {"object": {"id": "x\x00"}}},
    ],
)
def test_signed_event_that_cannot_be_recorded_is_malformed_and_no_crash(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedWebhook):
        provider().read_webhook(signed(json.dumps(an_event(**changes))), NOW)


@pytest.mark.parametrize("odd", [b"\xff", rb"x\ud83d", rb"\udc00x"])
def test_signed_field_that_nobody_reads_may_hold_anything(odd: bytes) -> None:
    body = json.dumps(an_event(note="?")).encode().replace(b"?", odd)
    (event,) = provider().read_webhook(signed_body(body), NOW).events
    assert (event.key, bytes(event.payload)) == (an_event()["id"], body)


@pytest.mark.parametrize("odd", [b"\xff", rb"x\ud83d"])
def test_signed_id_that_no_text_can_hold_is_malformed(odd: bytes) -> None:
    with pytest.raises(MalformedWebhook, match=r"\$.id"):
        provider().read_webhook(signed_body(json.dumps(an_event(id="?")).encode().replace(b"?", odd)), NOW)


def signed_body(body: bytes) -> WebhookRequest:
    message = provider().render(
        RecordedEvent(key="k", type="t", occurred_at=NOW, stream="", payload=body, via="webhook"),
        "",
        Secret(SECRET),
        NOW,
    )
    return request_of(body, message.headers["stripe-signature"])


@pytest.mark.parametrize("object_id", [None, 5, {"id": "x"}])
def test_object_without_a_textual_id_is_an_event_without_object_key(object_id: object) -> None:
    assert read(an_event(data={"object": {"id": object_id}})).object_key is None


def test_connected_account_is_the_stream() -> None:
    event = read(an_event(account="acct_1"), connect=True)
    assert (event.stream, event.listable) == ("acct_1", True)


def test_event_that_our_list_can_never_show_is_not_listable() -> None:
    assert not read(an_event(livemode=False)).listable
    assert not read(an_event(account="acct_1")).listable
    assert read(an_event(livemode=False), livemode=False).listable


@settings(max_examples=500, deadline=None)
@given(body=st.binary(max_size=200), header=st.none() | latin_1)
def test_nothing_but_a_refusal_escapes_for_any_bytes(body: bytes, header: str | None) -> None:
    with pytest.raises(WebhookRefused):
        provider().read_webhook(request_of(body, header), NOW)
