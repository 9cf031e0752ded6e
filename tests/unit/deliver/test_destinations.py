"""Addresses, signatures, identity headers and Python targets, without a network."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from gapless.deliver import Delivery, Reject
from gapless.destinations.contract import (
    Delivered,
    DestinationInvalid,
    Failed,
    FailureReason,
    SenderContext,
    event_id,
)
from gapless.destinations.headers import NAMES, identity_headers
from gapless.destinations.http import DeliverySignature, HttpOptions, HttpSender, signing_key
from gapless.destinations.http.addresses import AddressRefused, AddressRule, is_public
from gapless.destinations.http.client import CheckedResolver
from gapless.destinations.python import PythonOptions, PythonSender
from gapless.domain import Sources, Via, system_clock
from gapless.settings import SecretRef
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.standard_signature import signed_headers

TIME = datetime(2026, 11, 20, tzinfo=UTC)
CONTEXT = SenderContext(
    name="app", sources=Sources(), clock=system_clock, concurrency=1, releases=frozenset(), timeout=timedelta(seconds=9)
)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def delivery(**changes: Any) -> Delivery:
    values: dict[str, Any] = {
        "id": event_id("1", "evt_1"), "key": "evt_1", "source": "acme", "stream": "", "type": "invoice.paid",
        "occurred_at": TIME, "recorded_at": TIME, "via": Via.WEBHOOK, "payload": b"{}", "attempt": 1,
    }  # fmt: skip
    return Delivery(**(values | changes))


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "0.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200",
        "224.0.0.1", "255.255.255.255", "192.0.2.1", "240.0.0.1", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254",
        "fec0::1", "ff02::1", "168.63.129.16", "192.0.0.192", "::ffff:168.63.129.16", "64:ff9b::a83f:8110",
        "192.88.99.1", "64:ff9b:1::a00:1", "3fff::1", "2a00:1450::5efe:a00:1", "2a00:1450::200:5efe:7f00:1",
        "::8.8.8.8", "2002:a83f:8110::", "fd20:ce::254", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf::1",
    ],
)  # fmt: skip
def test_a_private_or_metadata_address_is_not_permitted(text: str) -> None:
    assert not AddressRule().permits("app.example", ip_address(text))
    assert AddressRule(allow_private=True).permits("app.example", ip_address(text))


@pytest.mark.parametrize(
    "text",
    ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2a00:1450::5efe:101:101"],
)
def test_a_public_address_is_permitted(text: str) -> None:
    assert AddressRule().permits("app.example", ip_address(text))


@given(number=st.integers(0, 2**32 - 1))
def test_wrapping_an_address_in_ipv6_never_makes_it_more_public(number: int) -> None:
    plain = ip_address(number)
    for wrapped in (ip_address(f"::ffff:{plain}"), ip_address((0x64FF9B << 96) | number)):
        assert AddressRule().permits("app.example", wrapped) == is_public(plain)


def test_only_what_is_named_is_allowed() -> None:
    rule = AddressRule(["10.0.0.0/8", "192.168.1.5", "app.internal", "[::1]"])
    assert rule.permits("any.example", ip_address("10.9.9.9"))
    assert rule.permits("any.example", ip_address("::ffff:10.9.9.9"))
    assert rule.permits("any.example", ip_address("192.168.1.5"))
    assert rule.permits("App.Internal.", ip_address("172.16.0.1"))
    assert rule.permits("any.example", ip_address("::1"))
    assert not rule.permits("any.example", ip_address("192.168.1.6"))
    assert not rule.permits("other.internal", ip_address("172.16.0.1"))


@pytest.mark.parametrize(
    ("allow", "address", "schemes"),
    [
        ((), "93.184.216.34", {"https"}),
        ((), "2606:4700::1111", {"https"}),
        (("app.example",), "93.184.216.34", {"http", "https"}),
        (("93.184.216.0/24",), "93.184.216.34", {"http", "https"}),
        (("10.0.0.0/8",), "10.1.2.3", {"http", "https"}),
        ((), "10.1.2.3", set()),
    ],
)
def test_plain_http_leaves_for_no_public_address(allow: tuple[str, ...], address: str, schemes: set[str]) -> None:
    rule = AddressRule(allow)
    assert {each for each in ("http", "https") if not rule.refusal(each, "app.example", ip_address(address))} == schemes
    assert not AddressRule(allow_private=True).permits_plain("app.example", ip_address("93.184.216.34"))


@pytest.mark.anyio
async def test_nothing_is_sent_to_a_public_address_in_the_open() -> None:
    sender = HttpSender(HttpOptions(url="http://1.1.1.1/", signature=DeliverySignature.NONE), CONTEXT)
    result = await sender.send(delivery())
    assert isinstance(result, Failed)
    assert result.reason is FailureReason.ADDRESS_REFUSED
    assert "the public address 1.1.1.1, where http sends events in the open; use https" in result.detail


@pytest.mark.anyio
async def test_a_name_resolves_to_checked_numbers_only() -> None:
    found = await CheckedResolver(AddressRule(["localhost"]), "https").resolve("localhost", 8443)
    assert {each["host"] for each in found} <= {"127.0.0.1", "::1"}
    assert {(each["hostname"], each["port"]) for each in found} == {("localhost", 8443)}
    with pytest.raises(AddressRefused, match=r"localhost has the address .* name it in allow"):
        await CheckedResolver(AddressRule(), "https").resolve("localhost", 8443)


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "127.1", "2130706433", "0x7f000001", "localhost"])
async def test_no_connection_is_tried_to_a_refused_address(host: str) -> None:
    sender = HttpSender(HttpOptions(url=f"http://{host}:1/", signature=DeliverySignature.NONE), CONTEXT)
    result = await sender.send(delivery())
    await sender.close()
    assert isinstance(result, Failed)
    assert result.reason is FailureReason.ADDRESS_REFUSED
    assert ("which is not public" in result.detail) or ("no address as it is usually written" in result.detail)


# --- signatures and headers -----------------------------------------------------------------------------------------


@given(
    key=st.binary(min_size=1, max_size=64), message_id=st.from_regex(r"[a-z0-9_]{1,40}", fullmatch=True), body=st.text()
)
def test_standard_webhooks_own_library_makes_the_same_signature(key: bytes, message_id: str, body: str) -> None:
    headers = signed_headers(key, message_id, int(TIME.timestamp()), body.encode(errors="replace"))
    oracle = Webhook(key).sign(message_id, TIME, body.encode(errors="replace").decode())
    assert headers["webhook-signature"] == oracle


def test_a_known_answer_of_standard_webhooks_holds() -> None:
    secret = Secret(SECRET)
    assert signing_key(secret) == signing_key(Secret(SECRET.removeprefix("whsec_")))
    assert signing_key(Secret("whsec_QQ==")) == signing_key(Secret("whsec_QQ")) == b"A"
    headers = signed_headers(signing_key(secret), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(type_=st.text(min_size=1, max_size=50), key=st.text(min_size=1, max_size=50))
def test_headers_can_be_sent_whatever_a_vendor_calls_its_events(type_: str, key: str) -> None:
    try:
        headers = identity_headers(delivery(type=type_, key=key, id=event_id("1", key)))
    except UnicodeEncodeError:  # a lone surrogate, which no recorded event can hold
        return
    assert headers.keys() <= set(NAMES)
    for value in headers.values():
        assert value.isascii()
        assert value.isprintable()
        assert " " not in value


def test_ids_differ_by_source_and_by_event_and_by_nothing_else() -> None:
    assert event_id("1", "evt_1") == event_id("1", "evt_1")
    others = (("1", "evt_1"), ("2", "evt_1"), ("1", "evt_2"), ("12", "1"), ("1", "21"))
    assert len({event_id(*each) for each in others}) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://a.example/"}, "url is no http"),
        ({"url": "https://user:pw@a.example/"}, "without a user name"),
        ({"url": "https://a.example/", "signature": DeliverySignature.STANDARD}, "there is no secret; set secret_env"),
        ({"url": "https://a.example/", "secret": SecretRef(value=Secret("whsec_%%%"))}, "not base64"),
    ],
)
def test_options_that_could_not_work_are_refused_at_start(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DestinationInvalid, match=message) as refused:
        HttpSender(HttpOptions(**options), CONTEXT)
    assert "pw" not in str(refused.value)
    assert "%%%" not in str(refused.value)


# --- Python targets -------------------------------------------------------------------------------------------------

TARGETS = {
    "good": "async def handle(delivery): seen.append(delivery)\nseen = []\n",
    "rejects": "from gapless.deliver import Reject\nasync def handle(delivery): raise Reject('no such customer')\n",
    "raises": "async def handle(delivery): raise KeyError('customer')\n",
    "objects": "class Handler:\n    async def __call__(self, delivery): pass\nhandle = Handler()\n",
    "blocking": "def handle(delivery): pass\n",
    "broken": "import no_such_module_anywhere\n",
}


@pytest.fixture
def target(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], PythonSender]:
    for name, code in TARGETS.items():
        (tmp_path / f"gapless_target_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name: PythonSender(PythonOptions(target=f"gapless_target_{name}:handle"), CONTEXT)


@pytest.mark.anyio
async def test_a_python_target_gets_the_delivery(target: Callable[[str], PythonSender]) -> None:
    import sys  # noqa: PLC0415

    assert await target("good").send(delivery()) == Delivered()
    assert sys.modules["gapless_target_good"].seen == [delivery()]
    assert await target("objects").send(delivery()) == Delivered()


@pytest.mark.anyio
async def test_reject_is_final_and_any_other_exception_is_not(target: Callable[[str], PythonSender]) -> None:
    rejected = await target("rejects").send(delivery())
    assert rejected == Failed(reason=FailureReason.REJECTED, detail="no such customer", permanent=True)
    raised = await target("raises").send(delivery())
    assert raised == Failed(reason=FailureReason.CONSUMER_ERROR, detail="KeyError: 'customer'")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gapless_target_good", "wanted module:function"),
        ("gapless_target_good:other", "has no other"),
        ("gapless_target_blocking:handle", "no async callable; write it as: async def handle"),
        ("gapless_target_broken:handle", "importing gapless_target_broken raised ModuleNotFoundError"),
        ("gapless_target_absent:handle", "importing gapless_target_absent raised ModuleNotFoundError"),
    ],
)
def test_a_target_that_cannot_be_called_is_refused_at_start(
    target: Callable[[str], PythonSender], name: str, message: str
) -> None:
    target("good")
    with pytest.raises(DestinationInvalid, match=f'"app".*"{name}".*{message}'):
        PythonSender(PythonOptions(target=name), CONTEXT)


def test_reject_is_what_a_target_imports() -> None:
    assert issubclass(Reject, Exception)
