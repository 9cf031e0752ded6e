"""Captured genuine webhooks, sent again as other events: what is recorded, and what is kept aside."""

import asyncio
import base64
import json
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import Authority
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from sqlalchemy import func, select

from gapless.ledger import quarantine as ledger
from gapless.ledger.signed_messages import MOST
from gapless.ledger.tables import EVENT, SIGNED_MESSAGE
from gapless.receive.quarantine import Released, release_webhook
from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.signatures import hmac_sha256_hex
from gapless_reconcilers.providers.github import GitHub, GitHubOptions
from gapless_reconcilers.providers.paypal import PayPal, PayPalOptions
from gapless_reconcilers.providers.shopify import Shopify
from gapless_reconcilers.testing.suite.scenario import load_scenarios

pytestmark = pytest.mark.anyio
SECRET = "s3cret"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BODY = b'{"action":"opened","issue":{"id":1}}'
FIXTURES = Path(__file__).parents[2] / "fixtures"


def github() -> GitHub:
    options = {"token": Secret("x"), "webhook_secret": (Secret(SECRET),), "repository": "acme/shop", "hook_id": 7}
    return GitHub(GitHubOptions(**options))


def delivery(guid: str, name: str = "issues", body: bytes = BODY) -> dict[str, str]:
    return {
        "X-Hub-Signature-256": "sha256=" + hmac_sha256_hex(SECRET.encode(), body).decode(),
        "X-GitHub-Event": name,
        "X-GitHub-Delivery": guid,
        "X-GitHub-Hook-ID": "7",
    }


async def post(setup: Any, headers: Mapping[str, str], body: bytes = BODY) -> int:
    answer: httpx.Response = await setup.client.post("/webhooks/acme", content=body, headers=headers)
    return answer.status_code


async def recorded(setup: Any) -> dict[str, bool]:
    """Return whether each recorded event repeats a message, by key."""
    rows = await setup.store.read(lambda c: c.execute(select(EVENT.c.key, EVENT.c.repeated)).all())
    return {row.key: row.repeated for row in rows}


async def test_one_body_makes_eight_events_whatever_delivery_ids_and_names_are_made_up(serve: Any) -> None:
    async with serve(provider=github()) as setup:
        answers = [await post(setup, delivery(f"g-{n}", name=("issues", "push")[n % 2])) for n in range(20)]
        assert answers == [200] * 20
        assert await recorded(setup) == {f"7:g-{n}": n > 0 for n in range(MOST)}
        assert await setup.quarantined() == ["repeated"] * 12
        assert (await post(setup, delivery("g-0")), await post(setup, delivery("g-3"))) == (200, 200)
        assert await setup.quarantined() == ["repeated"] * 12
        other = b'{"action":"closed"}'
        assert await post(setup, delivery("g-other", body=other), other) == 200
        assert (await recorded(setup))["7:g-other"] is False
        assert setup.counted("webhooks_total", source="acme", outcome="refused") == 0


async def test_a_person_can_release_what_was_one_too_many(serve: Any) -> None:
    async with serve(provider=github()) as setup:
        for n in range(MOST + 1):
            await post(setup, delivery(f"g-{n}"))
        await setup.settled()
        (entry,) = await setup.store.read(ledger.entries)
        assert entry.claims == (f"7:g-{MOST}",)
        receiver = setup.receiver
        outcome = await release_webhook(
            entry.id, runtime=receiver.runtime, stream_ids=receiver.stream_ids, evidence=receiver.evidence
        )
        assert outcome == Released(new=1)


async def test_identities_of_one_body_in_one_commit_are_counted_together(serve: Any) -> None:
    async with serve(provider=github()) as setup:
        answers = await asyncio.gather(*(post(setup, delivery(f"g-{n}")) for n in range(30)))
        assert set(answers) == {200}
        rows = await recorded(setup)
        assert (len(rows), sum(rows.values())) == (MOST, MOST - 1)


async def test_one_body_for_several_topics_of_shopify_is_recorded_for_each(serve: Any) -> None:
    (scenario,) = load_scenarios(FIXTURES / "shopify")
    genuine = {name.decode(): value.decode("latin-1") for name, value in scenario.webhook.headers}
    provider = scenario.provider()
    assert isinstance(provider, Shopify)
    async with serve(provider=provider) as setup:
        for n in range(20):
            topic = ("orders/updated", "orders/paid")[n % 2]
            headers = genuine | {"x-shopify-webhook-id": f"b54557e4-bdd9-4b37-8a5f-{n:012}", "x-shopify-topic": topic}
            assert await post(setup, headers, scenario.webhook.body) == 200
        assert len(await recorded(setup)) == MOST
        assert sum((await recorded(setup)).values()) == MOST - 1


@pytest.mark.parametrize("kind", ["stripe", "telegram", "standard_webhooks"])
def test_who_signs_the_identity_or_nothing_is_never_judged_by_the_body(kind: str) -> None:
    scenarios = load_scenarios(FIXTURES / kind)
    assert {each.provider().capabilities.identity_unsigned for each in scenarios} == {False}


def test_whose_identity_stands_in_a_header_that_is_not_signed_is_counted_by_the_body() -> None:
    scenarios = [each for kind in registry.kinds() for each in load_scenarios(FIXTURES / kind)]
    unsigned = {each.name for each in scenarios if each.provider().capabilities.identity_unsigned}
    declared = {
        "bitbucket",
        "jira",
        "linear",
        "modern-treasury",
        "razorpay",
        "sentry",
        "wise",
        "woocommerce",
        "zendesk",
    }
    assert unsigned == {"github", "paypal", "shopify"} | declared


async def test_a_source_whose_vendor_signs_the_identity_counts_nothing(serve: Any) -> None:
    async with serve() as setup:
        assert (await setup.post(setup.event("evt_1"))).status_code == 200
        counted = select(func.count()).select_from(SIGNED_MESSAGE)
        assert await setup.store.read(lambda c: c.execute(counted).scalar_one()) == 0


# --- PayPal


class Captured:
    """One genuine webhook of PayPal, as a stranger has seen it, who cannot sign."""

    def __init__(self, now: Any) -> None:
        authority = Authority(start=now - timedelta(days=30), days=300)
        self.pem, self._key = authority.leaf("messageverificationcerts.paypal.com")
        options = {"client_id": "c", "client_secret": Secret("s"), "trust_roots": authority.root_pem().decode()}
        self.provider = PayPal(PayPalOptions(webhook_id=("WH",), **options))
        self.time = now.isoformat()
        self.body = self.encoded("WH-1")
        message = f"T|{self.time}|WH|{zlib.crc32(self.body)}".encode()
        self.headers = {
            "paypal-transmission-id": "T",
            "paypal-transmission-time": self.time,
            "paypal-transmission-sig": base64.b64encode(self._key.sign(message, PKCS1v15(), SHA256())).decode(),
            "paypal-cert-url": "https://api.paypal.com/v1/notifications/certs/CERT-1",
            "paypal-auth-algo": "SHA256withRSA",
        }

    def encoded(self, key: str) -> bytes:
        event = {"id": key, "event_type": "PAYMENT.SALE.COMPLETED", "create_time": self.time, "pad": "a" * 40}
        return json.dumps(event).encode()

    def forged(self, key: str) -> bytes:
        """Return another event with the checksum of the captured one: letters of its padding are made capitals."""
        body = bytearray(self.encoded(key))
        start, wanted = body.index(b"a" * 40), zlib.crc32(self.body)
        rows: list[tuple[int, int]] = []  # (change of the checksum, which letters make it)
        for bit in range(40):
            body[start + bit] ^= 0x20
            change, letters = zlib.crc32(body) ^ zlib.crc32(self.encoded(key)), 1 << bit
            body[start + bit] ^= 0x20
            for other, others in rows:
                if change ^ other < change:
                    change, letters = change ^ other, letters ^ others
            if change:
                rows.append((change, letters))
                rows.sort(reverse=True)
        rest, chosen = zlib.crc32(body) ^ wanted, 0
        for change, letters in rows:
            if rest ^ change < rest:
                rest, chosen = rest ^ change, chosen ^ letters
        for bit in range(40):
            body[start + bit] ^= 0x20 * (chosen >> bit & 1)
        assert zlib.crc32(body) == wanted
        return bytes(body)


async def test_a_captured_transmission_of_paypal_makes_few_events_and_none_after_four_days(serve: Any) -> None:
    """A CRC32 stands for the body, so a stranger can write another one under the same signature."""
    captured, fetched = Captured(NOW), list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        fetched.append(str(request.url))
        return httpx.Response(200, content=captured.pem)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        async with serve(provider=captured.provider, vendor=client) as setup:
            assert await post(setup, captured.headers, captured.body) == 200
            for n in range(2, 20):
                assert await post(setup, captured.headers, captured.forged(f"WH-{n}")) == 200
            assert await recorded(setup) == {f"WH-{n}": n > 1 for n in range(1, MOST + 1)}
            setup.now[0] += timedelta(days=3, hours=1)
            assert await post(setup, captured.headers, captured.body) == 200  # the last of PayPal's own tries
            setup.now[0] += timedelta(days=1)
            assert [await post(setup, captured.headers, captured.forged(f"WH-{n}")) for n in range(100, 110)] == [
                401
            ] * 10
            assert len(await recorded(setup)) == MOST
            assert fetched == [captured.headers["paypal-cert-url"]] * 2
            for time in ("2026", "yesterday", NOW.replace(tzinfo=None).isoformat()):
                assert await post(setup, captured.headers | {"paypal-transmission-time": time}, captured.body) == 401
            assert setup.counted("refused_total", source="acme", reason="stale") == 10
