"""The fake provider over real HTTP: Stripe's wire format, its webhooks, and each fault when it is switched on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import stripe
from stripe.params import EventListParams

from gapless_reconcilers.kit.contract import OWN_STREAM, MissingEvent, RemoteEvent, Secret, Window
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    HistoryExpired,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
)
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest, serve_http
from gapless_reconcilers.testing.fake.webhook_sender import Faults
from gapless_reconcilers.testing.suite.scenario import make_request

SECRET = "whsec_of_the_endpoint"


@dataclass
class Clock:
    """A clock that moves when it is told to."""

    now: datetime = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Receiver:
    """A merchant: keeps every webhook, answers what it is told to."""

    status: int = 200
    got: list[ApiRequest] = field(default_factory=list)

    async def answer(self, request: ApiRequest) -> ApiAnswer:
        self.got.append(request)
        return ApiAnswer(status=self.status, body=b"")


@dataclass
class Rig:
    """A fake that is being served, a client that reads it as the engine would, and a receiver of its webhooks."""

    fake: FakeProvider
    clock: Clock
    reader: Stripe
    client: httpx.AsyncClient
    receiver: Receiver

    @property
    def window(self) -> Window:
        return Window(start=self.clock.now - timedelta(days=29), end=self.clock.now + timedelta(seconds=1))

    async def fetch(self, request: httpx.Request) -> httpx.Response:
        response = await self.client.send(request)
        self.reader.judge(response, self.clock.now)
        return response

    async def walk(self, stream: str = OWN_STREAM) -> list[RemoteEvent]:
        events: list[RemoteEvent] = []
        request: httpx.Request | None = self.reader.first_request(stream, self.window)
        while request is not None:
            page = self.reader.read_page(request, await self.fetch(request), stream, self.window)
            events += page.events
            request = page.next
        return events

    async def keys(self) -> list[str]:
        return [event.key for event in await self.walk()]

    async def pushed(self) -> list[str]:
        """The keys of all webhooks that came with a signature that both we and the SDK accept."""
        await self.fake.settle()
        keys = []
        for request in self.receiver.got:
            stripe.Webhook.construct_event(request.body, request.headers["stripe-signature"], SECRET, tolerance=0)
            reply = self.reader.read_webhook(make_request(request.headers, request.body), self.clock.now)
            keys += [event.key for event in reply.events]
        return keys


@asynccontextmanager
async def rig(**faults: Any) -> AsyncIterator[Rig]:
    clock, receiver = Clock(), Receiver()
    fake = FakeProvider(StripeFormat(), clock=clock, seed=7, retries_s=(0.01, 0.01), faults=Faults(**faults))
    async with (
        fake.serve() as url,
        serve_http(receiver.answer, host="127.0.0.1", port=0, clock=clock) as hook,
    ):
        reader = Stripe(
            StripeOptions(
                api_key=Secret("sk_live_fake"),
                webhook_secret=(Secret(SECRET),),
                connect=True,
                api_base=url,
                page_limit=3,
            )
        )
        fake.add_endpoint(f"{hook}/webhooks", secret=SECRET)
        async with httpx.AsyncClient(auth=reader.auth(), trust_env=False, timeout=60) as client:
            yield Rig(fake=fake, clock=clock, reader=reader, client=client, receiver=receiver)


def run(scene: Callable[[Rig], Awaitable[None]], **faults: Any) -> None:
    async def play() -> None:
        async with asyncio.timeout(120), rig(**faults) as built:
            await scene(built)

    asyncio.run(play())


def test_provider_walks_the_fake_newest_first_through_ties_and_pages() -> None:
    async def scene(rig: Rig) -> None:
        emitted = [rig.fake.emit("invoice.paid", push=False) for _ in range(8)]
        assert await rig.keys() == [event.key for event in reversed(emitted)]
        assert [len(logged.listing.events) for logged in rig.fake.requests if logged.listing] == [3, 3, 2]
        assert {logged.listing.query.start for logged in rig.fake.requests if logged.listing} == {rig.window.start}

    run(scene)


def test_webhook_and_list_agree_on_every_event() -> None:
    async def scene(rig: Rig) -> None:
        for number in range(5):
            rig.fake.emit(f"kind_{number}.done")
        assert sorted(await rig.pushed()) == sorted(await rig.keys()) == sorted(event.key for event in rig.fake.events)

    run(scene)


def test_event_is_fetched_by_its_key_until_it_leaves_the_history() -> None:
    async def scene(rig: Rig) -> None:
        event = rig.fake.emit("invoice.paid", push=False)
        missing = MissingEvent(key=event.key, type=event.type, occurred_at=event.occurred_at, stream=OWN_STREAM)
        request = rig.reader.detail_request(missing)
        assert rig.reader.read_detail(missing, await rig.fetch(request)).key == event.key
        rig.clock.now += timedelta(days=31)
        with pytest.raises(HistoryExpired):
            await rig.fetch(rig.reader.detail_request(missing))

    run(scene)


def test_account_endpoints_and_streams_are_read() -> None:
    async def scene(rig: Rig) -> None:
        rig.fake.emit("invoice.paid", stream="acct_1", push=False)
        account = rig.reader.read_account(await rig.fetch(rig.reader.account_request()))
        assert account.fingerprint == "acct_fake"
        answer = await rig.fetch(rig.reader.subscription_request())
        assert rig.reader.read_subscription(answer, rig.fake.endpoints[0].url).types == ("*",)
        request = rig.reader.streams_request()
        assert request is not None
        assert rig.reader.read_streams(request, await rig.fetch(request)).streams == ["acct_1"]
        assert await rig.walk() == []
        assert [event.stream for event in await rig.walk("acct_1")] == ["acct_1"]

    run(scene)


def test_connect_endpoint_gets_the_streams_and_our_own_gets_the_rest() -> None:
    async def scene(rig: Rig) -> None:
        rig.fake.add_endpoint(rig.fake.endpoints[0].url + "/connect", secret=SECRET, connect=True)
        rig.fake.emit("invoice.paid")
        rig.fake.emit("invoice.paid", stream="acct_1")
        await rig.fake.settle()
        got = {request.path: request.body for request in rig.receiver.got}
        assert b"account" not in got["/webhooks"]
        assert b'"account":"acct_1"' in got["/webhooks/connect"]

    run(scene)


@pytest.mark.parametrize(
    ("faults", "wanted"),
    [
        ({"outage": True}, ProviderUnavailable),
        ({"key_revoked": True}, CredentialsRejected),
        ({"throttle_every": 1, "retry_after": "3"}, RateLimited),
        ({"error_rate": 1.0}, ProviderUnavailable),
    ],
)
def test_api_fault_is_answered_as_the_vendor_would(faults: dict[str, Any], wanted: type[ProviderError]) -> None:
    async def scene(rig: Rig) -> None:
        with pytest.raises(wanted):
            await rig.walk()
        rig.fake.faults = Faults()
        assert await rig.walk() == []

    run(scene, **faults)


def test_wrong_key_is_refused() -> None:
    async def scene(rig: Rig) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as stranger:
            response = await stranger.send(rig.reader.account_request())
        assert response.status_code == 401
        assert rig.fake.requests[-1].status == 401

    run(scene)


def test_every_nth_request_is_throttled() -> None:
    async def scene(rig: Rig) -> None:
        statuses = [(await rig.client.send(rig.reader.account_request())).status_code for _ in range(6)]
        assert statuses == [200, 200, 429, 200, 200, 429]

    run(scene, throttle_every=3)


def test_late_event_is_pushed_at_once_and_listed_later() -> None:
    async def scene(rig: Rig) -> None:
        event = rig.fake.emit("invoice.paid")
        assert await rig.pushed() == [event.key]
        assert await rig.keys() == []
        rig.clock.now += timedelta(seconds=60)
        assert await rig.keys() == [event.key]

    run(scene, late_visible=1.0, late_visible_s=60)


def test_lies_of_the_list_can_be_switched_on() -> None:
    async def scene(rig: Rig) -> None:
        rig.fake.emit("invoice.paid", push=False)
        shown = rig.fake.emit("charge.failed", push=False)
        rig.fake.faults = Faults(hidden_types=frozenset({"invoice.paid"}))
        assert await rig.keys() == [shown.key]
        rig.fake.faults = Faults(hidden_keys=frozenset({shown.key}))
        assert shown.key not in await rig.keys()
        rig.fake.faults = Faults(empty_lists=True)
        assert await rig.keys() == []

    run(scene)


def test_dropped_webhook_is_never_sent_but_listed() -> None:
    async def scene(rig: Rig) -> None:
        events = [rig.fake.emit("invoice.paid") for _ in range(40)]
        pushed = await rig.pushed()
        lost = {push.event.key for push in rig.fake.pushes if push.attempt == 0}
        assert 5 < len(lost) < 35
        assert {event.key for event in events} - set(pushed) == lost
        assert len(await rig.keys()) == 40

    run(scene, drop=0.5)


def test_duplicated_webhook_arrives_twice() -> None:
    async def scene(rig: Rig) -> None:
        event = rig.fake.emit("invoice.paid")
        assert await rig.pushed() == [event.key, event.key]

    run(scene, duplicate=1.0)


def test_held_back_webhook_is_overtaken() -> None:
    async def scene(rig: Rig) -> None:
        first = rig.fake.emit("invoice.paid")
        rig.fake.faults = Faults()
        await asyncio.sleep(0.05)
        second = rig.fake.emit("invoice.paid")
        assert await rig.pushed() == [second.key, first.key]

    run(scene, reorder=1.0, reorder_s=0.4)


def test_bad_signature_is_refused_by_the_sdk_and_by_us() -> None:
    async def scene(rig: Rig) -> None:
        rig.fake.emit("invoice.paid")
        with pytest.raises(stripe.SignatureVerificationError):
            await rig.pushed()
        assert not rig.fake.pushes[0].genuine

    run(scene, bad_signature=1.0)


def test_refused_webhook_is_retried_on_schedule_then_given_up() -> None:
    async def scene(rig: Rig) -> None:
        rig.receiver.status = 503
        rig.fake.emit("invoice.paid")
        await rig.fake.settle()
        assert [(push.attempt, push.status) for push in rig.fake.pushes] == [(1, 503), (2, 503), (3, 503)]

    run(scene)


def test_retries_end_when_the_endpoint_is_disabled() -> None:
    async def scene(rig: Rig) -> None:
        rig.receiver.status = 503
        rig.fake.emit("invoice.paid")
        rig.fake.endpoints[0].enabled = False
        await rig.fake.settle()
        assert rig.receiver.got == []

    run(scene)


def test_same_seed_loses_the_same_webhooks() -> None:
    def lost(seed: int) -> list[int]:
        outcome: list[int] = []

        async def play() -> None:
            fake = FakeProvider(StripeFormat(), seed=seed, retries_s=(), faults=Faults(drop=0.5))
            async with fake.serve():
                fake.add_endpoint("http://127.0.0.1:9/closed", secret=SECRET)
                for _ in range(30):
                    fake.emit("invoice.paid")
                outcome.extend(push.event.number for push in fake.pushes if push.attempt == 0)

        asyncio.run(play())
        return outcome

    assert lost(1) == lost(1) != lost(2)


@pytest.mark.parametrize(
    ("params", "status", "count"),
    [
        ({}, 200, 10),
        ({"limit": "100"}, 200, 30),
        ({"limit": "101"}, 400, None),
        ({"limit": "0"}, 400, None),
        ({"limit": "100", "type": "invoice.*"}, 200, 15),
        ({"limit": "100", "types[]": ["charge.failed", "x"]}, 200, 15),
        ({"type": "a", "types[]": "b"}, 400, None),
        ({"starting_after": "evt_unknown"}, 400, None),
        ({"created[gte]": "soon"}, 400, None),
        ({"limit": "100", "created[gt]": "1795176000"}, 200, 0),
        ({"limit": "100", "created[gte]": "1795176000"}, 200, 30),
        ({"limit": "100", "created[lte]": "1795176000"}, 200, 30),
        ({"limit": "100", "created[lt]": "1795176000"}, 200, 0),
    ],
)
def test_list_takes_stripes_parameters(params: dict[str, Any], status: int, count: int | None) -> None:
    async def scene(rig: Rig) -> None:
        for number in range(30):
            rig.fake.emit(("invoice.paid", "charge.failed")[number % 2], push=False)
        url = f"{rig.reader.options.api_base}/v1/events"
        response = await rig.client.get(url, params=params)
        assert response.status_code == status
        if count is not None:
            assert len(response.json()["data"]) == count

    run(scene)


def test_stripes_own_client_walks_the_fake_both_ways() -> None:
    async def scene(rig: Rig) -> None:
        emitted = [rig.fake.emit("invoice.paid", push=False).key for _ in range(7)]
        client = stripe.StripeClient("sk_live_fake", base_addresses={"api": rig.reader.options.api_base})

        def walk(params: EventListParams) -> list[str]:
            return [event.id for event in client.v1.events.list(params).auto_paging_iter()]

        assert await asyncio.to_thread(walk, {"limit": 3}) == emitted[::-1]
        assert await asyncio.to_thread(walk, {"limit": 3, "ending_before": emitted[1]}) == emitted[2:]

    run(scene)
