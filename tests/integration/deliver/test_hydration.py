"""Thin events: their data is fetched from a real fake of Stripe before they are sent."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import msgspec
import pytest

from gapless.bootstrap.senders import make_sender
from gapless.deliver.hydration import hydrating
from gapless.destinations.contract import DestinationInvalid
from gapless.destinations.http import DeliverySignature, HttpOptions
from gapless.domain import Mode, Source, Sources, Via, system_clock
from gapless.ledger import attempts
from gapless.metrics import Metrics
from gapless.provider_api.client import ProviderClient, new_client
from gapless.settings import DestinationSettings, SecretRef
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions
from gapless_reconcilers.providers.telegram import Telegram, TelegramOptions
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.event_store import FakeEvent
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = pytest.mark.anyio
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def stripe(url: str) -> Stripe:
    return Stripe(StripeOptions(api_key=Secret("sk_live_fake"), webhook_secret=(Secret(SECRET),), api_base=url))


@asynccontextmanager
async def fetching(setup: Any, consumer: Any, url: str, **changes: Any) -> AsyncIterator[Any]:
    """Deliver to a destination that hydrates, with Stripe at `url`."""
    setup.sources.change("acme", provider=stripe(url))
    setup.source = setup.sources["acme"]
    async with new_client() as http:
        client = ProviderClient(http, setup.sources, "acme", clock=system_clock, metrics=setup.metrics, rate=1000)
        wanted = setup.destination(setup.http(consumer.url), hydrate=True, **changes)
        (destination,) = hydrating([wanted], setup.sources, lambda _: client)
        async with setup.delivering(destination) as dispatcher:
            yield dispatcher


def body(fake: FakeProvider, event: FakeEvent) -> bytes:
    endpoint = fake.endpoints[0]
    return bytes(fake.vendor_format.message(event, endpoint, datetime.now(UTC), genuine=True).body)


def seen(setup: Any, fake: FakeProvider, event: FakeEvent) -> Any:
    return setup.sighting(event.key, Via.WEBHOOK, body(fake, event), type=event.type)


async def test_a_thin_event_is_sent_with_its_data_and_kept_as_received(setup: Any, consumer: Any) -> None:
    fake = FakeProvider(StripeFormat())
    fake.add_endpoint("http://127.0.0.1:1/", secret=SECRET)
    thin, whole = fake.emit("v2.core.account.closed", push=False), fake.emit("invoice.paid", push=False)
    async with fake.serve() as url, fetching(setup, consumer, url):
        await setup.record(seen(setup, fake, thin), seen(setup, fake, whole))
        await setup.until("delivered")
    got = {each.headers["gapless-event-key"]: msgspec.json.decode(each.body) for each in consumer.got}
    assert "data" not in msgspec.json.decode(body(fake, thin))
    assert got[thin.key]["data"] == {"of": thin.object_id}
    assert got[whole.key] == msgspec.json.decode(body(fake, whole))
    stored = await setup.store.read(lambda c: c.exec_driver_sql("SELECT body FROM payload").scalars().all())
    assert body(fake, thin) in [bytes(each) for each in stored]


async def test_an_answer_that_repeats_what_was_fetched_is_masked(setup: Any, consumer: Any) -> None:
    """The stored event has no value at the pointer."""
    fake = FakeProvider(StripeFormat())
    fake.add_endpoint("http://127.0.0.1:1/", secret=SECRET)
    thin = fake.emit("v2.core.account.closed", push=False)
    consumer.will_answer(410, body=b"unknown: " + thin.object_id.encode())
    async with fake.serve() as url, fetching(setup, consumer, url):
        setup.sources.change("acme", mask=("/data/of",))
        seqs = await setup.record(seen(setup, fake, thin))
        await setup.until("dead")
    (attempt,) = await setup.store.read(attempts.of_event, next(iter(seqs.values())))
    assert attempt.answer is not None
    assert attempt.answer.body == "unknown: ***"


async def test_what_cannot_be_fetched_is_tried_again_and_does_not_count_against_the_handler(
    setup: Any, consumer: Any
) -> None:
    fake = FakeProvider(StripeFormat())
    fake.add_endpoint("http://127.0.0.1:1/", secret=SECRET)
    thin = fake.emit("v2.core.account.closed", push=False)
    async with fetching(setup, consumer, "http://127.0.0.1:9"):  # nobody is there
        await setup.record(seen(setup, fake, thin))
        (row,) = await setup.until("dead")
    assert (row.reason, row.attempts, consumer.got) == ("not_fetched", 4, [])
    circuit = setup.metrics.registry.get_sample_value("gapless_circuit_open", {"destination": "app"})
    assert circuit == 0


async def test_another_event_than_the_one_that_was_named_is_not_sent(setup: Any, consumer: Any) -> None:
    fake = FakeProvider(StripeFormat())
    fake.add_endpoint("http://127.0.0.1:1/", secret=SECRET)
    thin, other = (fake.emit("v2.core.account.closed", push=False) for _ in range(2))
    answer = partial(httpx.Response, 200, content=body(fake, other))
    setup.sources.change("acme", provider=stripe("http://vendor.test"))
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answer())) as http:
        client = ProviderClient(http, setup.sources, "acme", clock=system_clock, metrics=Metrics("t"), rate=1000)
        wanted = setup.destination(setup.http(consumer.url), hydrate=True)
        (destination,) = hydrating([wanted], setup.sources, lambda _: client)
        async with setup.delivering(destination):
            await setup.record(seen(setup, fake, thin))
            (row,) = await setup.until("dead")
    assert (row.reason, consumer.got) == ("not_fetched", [])


@pytest.mark.parametrize(
    ("signature", "provider", "problem"),
    [
        ("provider", "stripe", "the provider renders its deliveries"),
        ("standard", "telegram", "no provider of its sources sends thin events"),
    ],
)
def test_a_destination_that_can_fetch_nothing_is_refused(signature: str, provider: str, problem: str) -> None:
    telegram = Telegram(TelegramOptions(token=Secret("1:a"), webhook_secret=(Secret("s"),)))
    known = stripe("https://api.stripe.com") if provider == "stripe" else telegram
    source = Source(id=1, name="acme", provider=known, mode=Mode.HYBRID, start=datetime(2026, 1, 1, tzinfo=UTC))
    secret = SecretRef(value=Secret(SECRET))
    options = HttpOptions(url="https://app.example/", signature=DeliverySignature(signature), secret=secret)
    with pytest.raises(DestinationInvalid, match=problem):
        make_sender(DestinationSettings(name="app", hydrate=True, options=options), Sources([source]), system_clock)
