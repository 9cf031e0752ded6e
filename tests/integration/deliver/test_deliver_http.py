"""Delivering over real HTTP: what consumers get, and what their answers lead to."""

import asyncio
import socket
import ssl
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import stripe
from standardwebhooks.webhooks import Webhook

from gapless.deliver.breaker import BreakerRule
from gapless.deliver.retry import DeliveryRetryPolicy
from gapless.destinations.contract import HoldReason
from gapless.domain import Via
from gapless.ledger import dead_letters
from gapless.settings import SecretRef
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio


async def test_an_event_arrives_unchanged_with_a_signature_that_standard_webhooks_accepts(
    road: Any, consumer: Any
) -> None:
    body = b'{"id": "evt_1",\n "odd":   "spacing"}'
    async with road.delivering(road.destination(road.http(consumer.url))):
        await road.record(road.sighting("evt_1", body=body))
        await road.until("delivered")
    (got,) = consumer.got
    assert got.body == body
    assert Webhook(road.secret).verify(got.body, got.headers) == {"id": "evt_1", "odd": "spacing"}
    assert got.headers["webhook-id"] == got.headers["gapless-event-id"] == got.id
    assert got.headers["gapless-event-key"] == "evt_1"
    assert got.headers["gapless-via"] == "webhook"
    assert "cookie" not in got.headers
    assert road.counted("delivered") == 1


async def test_a_provider_signature_is_accepted_by_the_vendors_own_sdk(road: Any, consumer: Any) -> None:
    sender = road.http(consumer.url, signature="provider", secret=SecretRef(value=Secret("whsec_app")))
    async with road.delivering(road.destination(sender)):
        await road.record(road.sighting("evt_1", body=b'{"id":"evt_1","object":"event"}'))
        await road.until("delivered")
    (got,) = consumer.got
    event = stripe.Webhook.construct_event(got.body, got.headers["stripe-signature"], "whsec_app")
    assert event.id == "evt_1"


@pytest.mark.parametrize(("host", "state"), [("localhost", "delivered"), ("127.0.0.1", "dead")])
async def test_tls_is_checked_against_the_name_although_the_connection_goes_to_a_number(
    road: Any, consumer: Any, certificate: Path, host: str, state: str
) -> None:
    shown, trusting = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(cafile=certificate),
    )
    shown.load_cert_chain(certificate)
    server = await asyncio.start_server(consumer.serve, "127.0.0.1", 0, ssl=shown)
    url = f"https://{host}:{server.sockets[0].getsockname()[1]}/"
    async with road.delivering(road.destination(road.http(url, trusting, allow=("127.0.0.1", "::1")))):
        await road.record(road.sighting("evt_1"))
        (row,) = await road.until(state)
    server.close()
    assert row.reason == (None if state == "delivered" else "connection")


async def test_every_attempt_and_every_replay_carries_the_same_id(road: Any, consumer: Any) -> None:
    consumer.will_answer(500, "set-cookie: session=1")
    consumer.will_answer(503)
    async with road.delivering(road.destination(road.http(consumer.url))) as dispatcher:
        seqs = await road.record(road.sighting("evt_1"))
        (row,) = await road.until("delivered")
        assert row.attempts == 3
        sent_again = await road.writer.submit(
            lambda c: dead_letters.replay(c, road.destination_id, [*seqs.values(), 999_999], row.done_us)
        )
        dispatcher.wake()
        await road.until("delivered")
    assert sent_again == 1
    assert [got.headers["gapless-attempt"] for got in consumer.got] == ["1", "2", "3", "1"]
    assert len({got.id for got in consumer.got}) == 1
    assert all("cookie" not in got.headers for got in consumer.got)
    assert await road.outcomes() == ["consumer_5xx", "consumer_5xx", "delivered", "delivered"]
    assert road.counted("retry") == 2


async def test_retry_after_is_waited_for(road: Any, consumer: Any) -> None:
    consumer.will_answer(429, "retry-after: 1")
    async with road.delivering(road.destination(road.http(consumer.url))):
        await road.record(road.sighting("evt_1"))
        await road.until("delivered")
    first, second = consumer.got
    assert second.at - first.at >= 1
    assert await road.outcomes() == ["throttled", "delivered"]


async def test_a_redirect_is_not_followed(road: Any, consumer: Any) -> None:
    consumer.will_answer(302, f"location: {consumer.url}/elsewhere", times=4)
    async with road.delivering(road.destination(road.http(consumer.url))):
        await road.record(road.sighting("evt_1"))
        (row,) = await road.until("dead")
    assert (row.reason, row.attempts, len(consumer.got)) == ("redirect", 4, 4)


@pytest.mark.parametrize(("status", "attempts"), [(400, 1), (410, 1), (422, 1), (401, 4), (404, 4)])
async def test_a_refusal_is_final_only_if_the_consumer_has_read_the_event(
    road: Any, consumer: Any, status: int, attempts: int
) -> None:
    consumer.will_answer(status, times=4)
    async with road.delivering(road.destination(road.http(consumer.url))):
        await road.record(road.sighting("evt_1"))
        (row,) = await road.until("dead")
    assert (row.reason, row.attempts) == ("consumer_4xx", attempts)


async def test_a_slow_consumer_times_out_and_is_tried_again(road: Any, consumer: Any) -> None:
    consumer.will_answer(200, after_s=5)
    destination = road.destination(road.http(consumer.url), timeout=timedelta(milliseconds=200))
    async with road.delivering(destination):
        await road.record(road.sighting("evt_1"))
        await road.until("delivered")
    assert await road.outcomes() == ["timeout", "delivered"]


async def test_an_endless_answer_does_not_hold_up_a_delivery(road: Any, consumer: Any) -> None:
    consumer.will_answer(200, body=b"x" * 1_000_000)
    async with road.delivering(road.destination(road.http(consumer.url))):
        await road.record(road.sighting("evt_1"), road.sighting("evt_2"))
        await road.until("delivered", seconds=5)
    assert len(consumer.got) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_a_consumer_that_cannot_be_reached_is_tried_again(road: Any, host: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    async with road.delivering(road.destination(road.http(f"http://{host}:{port}/"))):
        await road.record(road.sighting("evt_1"))
        (row,) = await road.until("dead")
    assert (row.reason, row.attempts) == ("connection", 4)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0", "2130706433"])
async def test_a_private_address_is_refused_however_it_is_spelled(road: Any, consumer: Any, host: str) -> None:
    sender = road.http(f"http://{host}:{consumer.port}/", allow=())
    async with road.delivering(road.destination(sender)):
        await road.record(road.sighting("evt_1"))
        (row,) = await road.until("dead")
    assert row.reason == "address_refused"
    assert consumer.got == []


@pytest.mark.parametrize("allow", [("localhost",), ("127.0.0.0/8", "::1"), ("LOCALHOST.",)])
async def test_a_private_host_that_is_named_is_delivered_to(road: Any, consumer: Any, allow: tuple[str, ...]) -> None:
    sender = road.http(f"http://localhost:{consumer.port}/", allow=allow)
    async with road.delivering(road.destination(sender)):
        await road.record(road.sighting("evt_1"))
        await road.until("delivered")
    assert consumer.got[0].headers["host"] == f"localhost:{consumer.port}"


async def test_a_listed_event_of_another_version_is_held_until_a_person_chooses(road: Any, consumer: Any) -> None:
    options = StripeOptions(
        api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False, api_version="2026-01-01"
    )
    road.source = road.sources.change("acme", provider=Stripe(options))
    body = b'{"id":"evt_1","object":"event","api_version":"2020-08-27"}'
    sender = road.http(consumer.url, signature="provider")
    destination = road.destination(sender)
    async with road.delivering(destination):
        await road.record(road.sighting("evt_1", Via.LIST, body), road.sighting("evt_2", Via.LIST, body))
        rows = await road.until("held")
    assert {(row.reason, row.attempts) for row in rows} == {("version_mismatch", 0)}
    assert consumer.got == []
    released = await road.writer.submit(lambda c: dead_letters.release(c, 0, seqs=[rows[0].event_seq]))
    async with road.delivering(destination):
        await road.wait_for(lambda _: bool(consumer.got))
    assert (released, await road.states()) == (1, {"delivered", "held"})
    lets_go = frozenset({HoldReason.VERSION_MISMATCH})
    sender = road.http(consumer.url, signature="provider", lets_go=lets_go)
    async with road.delivering(road.destination(sender, lets_go=lets_go)):
        await road.until("delivered")
    assert len(consumer.got) == 2


async def test_a_resting_destination_costs_no_attempts_and_recovers(road: Any, consumer: Any) -> None:
    consumer.will_answer(500, times=4)
    rule = BreakerRule(threshold=3, rest=timedelta(milliseconds=300), longest=timedelta(milliseconds=300))
    patient = DeliveryRetryPolicy(first=timedelta(milliseconds=10), longest=timedelta(milliseconds=10), max_attempts=5)
    destination = road.destination(road.http(consumer.url), breaker=rule, retry=patient, concurrency=1)
    async with road.delivering(destination):
        await road.record(*(road.sighting(f"evt_{n}") for n in range(20)))
        await road.wait_for(lambda _: len(consumer.got) >= 3)
        await asyncio.sleep(0.1)
        assert len(consumer.got) == 3
        assert road.metrics.registry.get_sample_value("gapless_circuit_open", {"destination": "app"}) == 1
        rows = await road.until("delivered")
    assert sum(row.attempts for row in rows) == 24
    assert consumer.got[3].at - consumer.got[2].at >= 0.28
    assert consumer.got[4].at - consumer.got[3].at >= 0.28
    assert road.metrics.registry.get_sample_value("gapless_circuit_open", {"destination": "app"}) == 0


async def test_the_rate_limit_is_kept(road: Any, consumer: Any) -> None:
    began = asyncio.get_running_loop().time()
    async with road.delivering(road.destination(road.http(consumer.url), rate=10.0)):
        await road.record(*(road.sighting(f"evt_{n}") for n in range(20)))
        await road.until("delivered")
    assert consumer.got[-1].at - began >= 0.9


async def test_a_gap_that_closed_by_itself_is_no_longer_owed(road: Any, consumer: Any) -> None:
    fills_gaps = road.destination(road.http(consumer.url), via=frozenset({Via.LIST}), delay_us=300_000)
    async with road.delivering(fills_gaps):
        listed = road.sighting("evt_1", Via.LIST), road.sighting("evt_2", Via.LIST)
        await road.record(*listed)
        await road.record(msgspec.structs.replace(listed[0], via=Via.WEBHOOK, cause=None))
        await road.until("delivered")
    assert [got.headers["gapless-event-key"] for got in consumer.got] == ["evt_2"]
    assert road.counted("withdrawn") == 1


async def test_a_destination_that_hangs_is_left_after_the_grace_and_its_events_stay_owed(
    road: Any, consumer: Any
) -> None:
    consumer.will_answer(200, after_s=30)
    destination = replace(road.destination(road.http(consumer.url)), timeout=timedelta(seconds=20))
    async with road.delivering(destination, grace=timedelta(milliseconds=100)):
        await road.record(road.sighting("evt_1"))
        await road.wait_for(lambda _: bool(consumer.got))
    (row,) = await road.deliveries()
    assert (row.state, row.attempts) == ("pending", 0)
