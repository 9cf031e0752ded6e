"""PayPal end to end: webhooks that its certificate signs, some of them lost; a list that shows events late, by page."""

import base64
import json
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import escape
from typing import Any

import httpx
import pytest
from certificates import Authority
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from world import T0, Daemon, FakeClock, World, new_fake

from gapless.domain import Via, from_us
from gapless.ledger.engine import Store
from gapless.receive.evidence import EvidenceFetcher
from gapless_reconcilers.kit.contract import Provider, Reply, Secret
from gapless_reconcilers.providers.paypal import PayPal, PayPalOptions
from gapless_reconcilers.providers.paypal.provider import EVENTS
from gapless_reconcilers.testing.suite.scenario import make_request

pytestmark = pytest.mark.anyio
AUTHORITY = Authority(start=T0 - timedelta(days=30), days=300)
PEM, KEY = AUTHORITY.leaf("messageverificationcerts.paypal.com")
CERTIFICATE = "https://api.paypal.com/v1/notifications/certs/CERT-1"
BASE = "http://vendor.test"


@dataclass
class App:
    """A REST app: it has events, lists them newest first from a while after they occurred, and wants a token."""

    clock: FakeClock
    events: list[dict[str, Any]] = field(default_factory=list)
    late: timedelta = timedelta(minutes=2)
    tokens: int = 0
    revoked: bool = False

    def happen(self) -> dict[str, Any]:
        number = len(self.events)
        made = {
            "id": f"WH-{number}",
            "event_type": "PAYMENT.SALE.COMPLETED",
            "create_time": self.clock().isoformat().replace("+00:00", "Z"),
            "resource": {"id": f"sale-{number}"},
        }
        self.events.append(made)
        return made

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/v1/notifications/certs/"):
            return httpx.Response(200, content=PEM)
        if request.url.path == "/v1/oauth2/token":
            self.tokens += 1
            self.revoked = False
            return httpx.Response(200, json={"access_token": f"t{self.tokens}", "expires_in": 3600})
        if self.revoked or request.headers.get("authorization") != f"Bearer t{self.tokens}":
            return httpx.Response(401, json={"error": "invalid_token"})
        if request.url.path == EVENTS:
            return self.page(request.url.params)
        return httpx.Response(200, json={"webhooks": []})

    def page(self, params: httpx.QueryParams) -> httpx.Response:
        start, end = (datetime.fromisoformat(params[name]) for name in ("start_time", "end_time"))
        times = {each["id"]: datetime.fromisoformat(each["create_time"]) for each in self.events}
        shown = [
            each for each in reversed(self.events)
            if start <= times[each["id"]] <= end and times[each["id"]] + self.late <= self.clock()
        ]  # fmt: skip
        first = int(params.get("index_id", 0))
        links = [{"rel": "self", "href": f"{BASE}{EVENTS}"}]
        if first + 2 < len(shown):
            following = httpx.URL(f"{BASE}{EVENTS}", params={**params, "index_id": str(first + 2)})
            links.append({"rel": "next", "href": escape(str(following))})
        return httpx.Response(200, json={"events": shown[first : first + 2], "links": links})


@pytest.fixture
def app(clock: FakeClock) -> App:
    return App(clock=clock)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def world(store: Store, clock: FakeClock, app: App) -> AsyncIterator[World]:
    def make(url: str, page_limit: int = 100) -> Provider:
        return PayPal(
            PayPalOptions(
                client_id="c",
                client_secret=Secret("s"),
                webhook_id=("WH",),
                page_size=page_limit,
                trust_roots=AUTHORITY.root_pem().decode(),
                api_base=url,
            )
        )

    async with httpx.AsyncClient(transport=httpx.MockTransport(app.answer)) as client:
        world = World(store=store, clock=clock, fake=new_fake(clock), client=client, make=make, url=BASE)
        await world.open()
        yield world


async def receive(daemon: Daemon, event: dict[str, Any]) -> None:
    """The event's webhook, judged with the certificate, and recorded."""
    body = json.dumps(event).encode()
    sent_at = daemon.world.clock().isoformat()
    message = f"T|{sent_at}|WH|{zlib.crc32(body)}".encode()
    headers = {
        "PAYPAL-TRANSMISSION-ID": "T",
        "PAYPAL-TRANSMISSION-TIME": sent_at,
        "PAYPAL-TRANSMISSION-SIG": base64.b64encode(KEY.sign(message, PKCS1v15(), SHA256())).decode(),
        "PAYPAL-CERT-URL": CERTIFICATE,
        "PAYPAL-AUTH-ALGO": "SHA256withRSA",
    }
    evidence = EvidenceFetcher(daemon.world.client, daemon.world.clock, daemon.runtime.metrics)
    reply = await evidence.read(daemon.source, make_request(headers, body), daemon.world.clock())
    assert isinstance(reply, Reply), reply
    await daemon.runtime.writer.record(
        tuple(daemon.sighting(each, Via.WEBHOOK, body) for each in reply.events), len(body)
    )


async def test_all_that_the_list_shows_is_in_the_ledger_and_what_was_lost_is_counted_once(
    world: World, app: App, clock: FakeClock
) -> None:
    async with world.daemon() as daemon:
        for number in range(9):
            event = app.happen()
            if number % 3:
                await receive(daemon, event)
            clock.advance(minutes=1)
        for _ in range(3):
            clock.advance(minutes=6)
            await daemon.run_source()
        assert await world.keys() == {event["id"] for event in app.events}
        assert sorted((await world.via()).values()) == ["list"] * 3 + ["webhook"] * 6
        assert await world.missed() == 3
        assert from_us((await world.stream()).watermark_us) == clock() - timedelta(minutes=5)
        assert app.tokens == 1


async def test_a_webhook_ahead_of_its_listing_is_neither_missed_nor_unlisted(
    world: World, app: App, clock: FakeClock
) -> None:
    app.late = timedelta(minutes=4)
    async with world.daemon() as daemon:
        for _ in range(5):
            await receive(daemon, app.happen())
            clock.advance(minutes=1)
            await daemon.run_source()
        clock.advance(minutes=20)
        await daemon.run_source()
        counts = (await world.totals()).counts
        assert (await world.missed(), counts["unlisted"], counts["by_webhook"]) == (0, 0, 5)
        assert (await world.stream()).last_outcome == "clean"


async def test_a_token_that_was_revoked_is_replaced_within_the_pass(world: World, app: App, clock: FakeClock) -> None:
    async with world.daemon() as daemon:
        app.happen()
        clock.advance(minutes=10)
        await daemon.run_source()
        app.revoked = True
        app.happen()
        clock.advance(minutes=10)
        await daemon.run_source()
        assert (len(await world.keys()), app.tokens) == (2, 2)
