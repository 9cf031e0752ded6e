"""Webhooks that need evidence: fetching, caching, and the limits of what strangers can cause."""

import asyncio
import base64
import json
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from certificates import Authority
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from gapless.ledger import quarantine as ledger
from gapless.receive.evidence import (
    FETCHES_AT_ONCE,
    FETCHES_PER_SECOND,
    MAX_BYTES,
    MAX_WAITING_FOR_ONE,
    POSTBACKS_AT_ONCE,
    SENDERS_POSTBACKS,
    EvidenceUnavailable,
    make_fetcher,
)
from gapless.receive.quarantine import Released, release_webhook
from gapless_reconcilers.kit.contract import Reply, Secret, WebhookRequest
from gapless_reconcilers.providers.paypal import PayPal, PayPalOptions

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AUTHORITY = Authority(start=NOW - timedelta(days=30), days=300)
PEM, KEY = AUTHORITY.leaf("messageverificationcerts.paypal.com")
URL = "https://api.paypal.com/v1/notifications/certs/CERT-1"
ENDLESS = httpx.Response(200, content=b"x" * (MAX_BYTES + 1))


@dataclass
class Vendor:
    """A vendor that serves certificates, and records the requests."""

    answers: Callable[[httpx.Request], httpx.Response] = lambda _: httpx.Response(200, content=PEM)
    requested: list[str] = field(default_factory=list)
    delay_s: float = 0.0
    slow: tuple[str, ...] = ()

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.requested.append(str(request.url))
        if str(request.url) in self.slow:
            await asyncio.Event().wait()
        await asyncio.sleep(self.delay_s)
        return self.answers(request)


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
async def setup(serve: Any, vendor: Vendor) -> AsyncIterator[Any]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(vendor.answer)) as client:
        async with serve(provider=paypal(), vendor=client) as setup:
            yield setup


def paypal(*webhook_ids: str, **options: Any) -> PayPal:
    known = {"client_id": "c", "client_secret": Secret("s"), "trust_roots": AUTHORITY.root_pem().decode(), **options}
    return PayPal(PayPalOptions(webhook_id=webhook_ids or ("WH",), **known))


async def post(setup: Any, number: int = 1, url: str = URL, webhook_id: str = "WH") -> httpx.Response:
    headers, body = signed(number, url, webhook_id)
    answer: httpx.Response = await setup.client.post("/webhooks/acme", content=body, headers=headers)
    return answer


def signed(number: int = 1, url: str = URL, webhook_id: str = "WH") -> tuple[dict[str, str], bytes]:
    """Return headers and body of a genuine webhook."""
    body = json.dumps({"id": f"WH-{number}", "event_type": "X", "create_time": NOW.isoformat()}).encode()
    message = f"T-{number}|{NOW.isoformat()}|{webhook_id}|{zlib.crc32(body)}".encode()
    headers = {
        "paypal-transmission-id": f"T-{number}",
        "paypal-transmission-time": NOW.isoformat(),
        "paypal-transmission-sig": base64.b64encode(KEY.sign(message, PKCS1v15(), SHA256())).decode(),
        "paypal-cert-url": url,
        "paypal-auth-algo": "SHA256withRSA",
    }
    return headers, body


def made_up(url: str) -> WebhookRequest:
    """Return a forged webhook that names a certificate."""
    headers = {
        "paypal-transmission-id": "T",
        "paypal-transmission-time": NOW.isoformat(),
        "paypal-transmission-sig": "d3Jvbmc=",
        "paypal-cert-url": url,
        "paypal-auth-algo": "SHA256withRSA",
    }
    pairs = tuple((name.encode(), value.encode()) for name, value in headers.items())
    return WebhookRequest(headers=pairs, body=b'{"id":"WH-0"}')


async def test_a_hundred_webhooks_at_once_need_one_request(setup: Any, vendor: Vendor) -> None:
    vendor.delay_s = 0.1
    answers = await asyncio.gather(*(post(setup, number) for number in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert vendor.requested == [URL]
    assert len(await setup.events()) == 100


async def test_an_answer_is_kept_for_its_time_and_then_requested_again(setup: Any, vendor: Vendor) -> None:
    for hours, wanted in ((0, 1), (23, 1), (2, 2)):
        setup.now[0] += timedelta(hours=hours)
        assert (await post(setup, hours)).status_code == 200
        assert len(vendor.requested) == wanted


async def test_an_address_that_is_not_the_vendors_is_a_4xx_and_never_fetched(setup: Any, vendor: Vendor) -> None:
    assert (await post(setup, url="https://169.254.169.254/latest")).status_code == 401
    assert (await post(setup, url="https://paypal.com.evil.example/x")).status_code == 401
    assert vendor.requested == []
    assert setup.counted("refused_total", source="acme", reason="bad_header") == 2


def cut(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


@pytest.mark.parametrize(
    "answers", [cut, lambda _: httpx.Response(503), lambda _: httpx.Response(429), lambda _: ENDLESS], ids=range(4)
)
async def test_evidence_that_cannot_be_had_now_is_a_503_and_the_retry_is_taken(
    setup: Any, vendor: Vendor, answers: Callable[[httpx.Request], httpx.Response]
) -> None:
    genuine, vendor.answers = vendor.answers, answers
    refused = await post(setup)
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    assert await setup.events() == {}
    assert await setup.quarantined() == ["evidence"]  # it names its event, if the retry is lost
    vendor.answers = genuine
    assert (await post(setup)).status_code == 200
    assert await setup.events() == {"WH-1": 1}


async def test_a_certificate_that_the_vendor_does_not_have_is_a_forgery(setup: Any, vendor: Vendor) -> None:
    genuine, vendor.answers = vendor.answers, lambda _: httpx.Response(404)
    assert [(await post(setup)).status_code for _ in range(3)] == [401, 401, 401]
    assert len(vendor.requested) == 1
    vendor.answers = genuine
    setup.now[0] += timedelta(minutes=2)
    assert (await post(setup)).status_code == 200


async def test_strangers_who_name_ever_new_certificates_are_bounded_and_genuine_webhooks_pass(
    setup: Any, vendor: Vendor
) -> None:
    assert (await post(setup)).status_code == 200
    vendor.answers = lambda _: httpx.Response(404)
    answers = await asyncio.gather(*(post(setup, url=f"{URL}{number}") for number in range(200)))
    assert {answer.status_code for answer in answers} == {401, 503}
    assert len(vendor.requested) <= FETCHES_AT_ONCE + 1
    assert (await post(setup, 2)).status_code == 200


async def test_a_webhook_whose_certificate_is_there_never_waits_for_those_of_strangers(
    setup: Any, vendor: Vendor
) -> None:
    assert (await post(setup)).status_code == 200
    vendor.slow = (f"{URL}-SLOW",)
    read = partial(setup.receiver.evidence.read, setup.source)
    waiting = [asyncio.create_task(read(made_up(f"{URL}-SLOW"), NOW, "198.51.100.1")) for _ in range(300)]
    while len(vendor.requested) < 2:
        await asyncio.sleep(0)
    assert (await post(setup, 2)).status_code == 200
    assert (await post(setup, 3, url=f"{URL}-NEW")).status_code == 200
    assert vendor.requested == [URL, f"{URL}-SLOW", f"{URL}-NEW"]
    for task in waiting:
        task.cancel()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(each, EvidenceUnavailable) for each in ended) == 300 - MAX_WAITING_FOR_ONE


async def test_ever_new_addresses_displace_no_proven_certificate_and_cause_few_fetches(
    setup: Any, vendor: Vendor
) -> None:
    """Two hours of strangers, one every two seconds, and a genuine webhook every three minutes."""
    assert (await post(setup)).status_code == 200
    answers = vendor.answers
    vendor.answers = lambda request: answers(request) if str(request.url) == URL else httpx.Response(404)
    read, accepted, at = partial(setup.receiver.evidence.read, setup.source), 0, 0
    for minutes in range(0, 120, 3):
        for number in range(0, 180, 2):
            setup.now[0] = NOW + timedelta(minutes=minutes, seconds=number)
            at += 1
            with suppress(EvidenceUnavailable):
                await read(made_up(f"{URL}-{at}"), NOW, f"198.51.100.{at % 100}")
        accepted += (await post(setup, minutes)).status_code == 200
    assert accepted == 40
    assert len(vendor.requested) <= FETCHES_AT_ONCE + 7200 * FETCHES_PER_SECOND + 1


async def test_what_was_proven_before_a_restart_is_proven_after_it(setup: Any) -> None:
    assert (await post(setup)).status_code == 200
    evidence = make_fetcher(setup.receiver.runtime, setup.receiver.evidence._client)
    headers, body = signed(1)
    genuine = WebhookRequest(headers=tuple((k.encode(), v.encode()) for k, v in headers.items()), body=body)
    for number in range(200):
        with suppress(EvidenceUnavailable):
            await evidence.read(setup.source, made_up(f"{URL}-{number}"), NOW, f"198.51.100.{number}")
    assert isinstance(await evidence.read(setup.source, genuine, NOW, "198.51.100.1"), Reply)


async def test_one_sender_leaves_fetches_for_others(setup: Any, vendor: Vendor) -> None:
    read = partial(setup.receiver.evidence.read, setup.source)
    vendor.answers = lambda _: httpx.Response(404)
    for number in range(200):
        with suppress(EvidenceUnavailable):
            await read(made_up(f"{URL}-{number}"), NOW, "198.51.100.1")
    vendor.answers = Vendor().answers
    assert (await post(setup)).status_code == 200


async def test_a_proven_certificate_is_fetched_again_whatever_strangers_have_used_up(
    setup: Any, vendor: Vendor
) -> None:
    assert (await post(setup)).status_code == 200
    setup.now[0] += timedelta(hours=25)
    read = partial(setup.receiver.evidence.read, setup.source)
    for number in range(200):
        with suppress(EvidenceUnavailable):
            await read(made_up(f"{URL}-{number}"), NOW, f"198.51.100.{number}")
    assert (await post(setup, 2)).status_code == 200
    assert vendor.requested.count(URL) == 2


async def test_questions_about_single_webhooks_are_bounded_too(serve: Any, vendor: Vendor) -> None:
    vendor.answers = lambda _: httpx.Response(
        200, json={"access_token": "t", "expires_in": 900, "verification_status": "FAILURE"}
    )
    async with httpx.AsyncClient(transport=httpx.MockTransport(vendor.answer)) as client:
        async with serve(provider=paypal(verify="postback"), vendor=client) as setup:
            read = partial(setup.receiver.evidence.read, setup.source)
            for _ in range(400):
                with suppress(EvidenceUnavailable):
                    await read(made_up(URL), NOW, "198.51.100.1")
            assert len(vendor.requested) <= POSTBACKS_AT_ONCE * SENDERS_POSTBACKS + 1
            vendor.answers = lambda _: httpx.Response(200, json={"verification_status": "SUCCESS"})
            assert (await post(setup)).status_code == 200


async def test_a_postback_whose_credentials_are_refused_tells_nothing_of_the_webhook(
    serve: Any, vendor: Vendor
) -> None:
    vendor.answers = lambda _: httpx.Response(401, json={"error": "invalid_client"})
    async with httpx.AsyncClient(transport=httpx.MockTransport(vendor.answer)) as client:
        async with serve(provider=paypal(verify="postback"), vendor=client) as setup:
            assert (await post(setup)).status_code == 503
            vendor.answers = lambda request: httpx.Response(
                200,
                json={"access_token": "t", "expires_in": 900}
                if request.url.path.endswith("token")
                else {"verification_status": "SUCCESS"},
            )
            assert (await post(setup)).status_code == 200
            vendor.answers = lambda _: httpx.Response(200, json={"verification_status": "FAILURE"})
            assert (await post(setup, 2)).status_code == 401


async def test_a_webhook_is_released_from_the_quarantine_with_evidence(setup: Any, vendor: Vendor) -> None:
    assert (await post(setup, webhook_id="LATER")).status_code == 401
    await setup.settled()
    (entry,) = await setup.store.read(ledger.entries)
    receiver = setup.receiver
    receiver.runtime.sources.change("acme", provider=paypal("LATER"))
    again = partial(
        release_webhook,
        entry.id,
        runtime=receiver.runtime,
        stream_ids=receiver.stream_ids,
        evidence=receiver.evidence,
    )
    assert await again() == Released(new=1)
    assert list(await setup.events()) == ["WH-1"]
    assert vendor.requested == [URL]
