"""Delivery over real HTTP: the requests to consumers, and the results of their answers."""

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
from sqlalchemy import update
from standardwebhooks.webhooks import Webhook
from stream_server import stream_server

from gapless.deliver.breaker import BreakerRule
from gapless.deliver.retry import DeliveryRetryPolicy
from gapless.destinations.contract import HoldReason
from gapless.domain import Via
from gapless.ledger import dead_letters, deliveries
from gapless.ledger.engine import StoreUnavailable
from gapless.ledger.tables import DELIVERY
from gapless.ledger.writer import Writer
from gapless.settings import SecretRef
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.providers.stripe import Stripe, StripeOptions

pytestmark = pytest.mark.anyio


async def test_an_event_arrives_unchanged_with_a_signature_that_standard_webhooks_accepts(
    setup: Any, consumer: Any
) -> None:
    body = b'{"id": "evt_1",\n "odd":   "spacing"}'
    async with setup.delivering(setup.destination(setup.http(consumer.url))):
        await setup.record(setup.sighting("evt_1", body=body))
        await setup.until("delivered")
    (got,) = consumer.got
    assert got.body == body
    assert Webhook(setup.secret).verify(got.body, got.headers) == {"id": "evt_1", "odd": "spacing"}
    assert got.headers["webhook-id"] == got.headers["gapless-event-id"] == got.id
    assert got.headers["gapless-event-key"] == "evt_1"
    assert got.headers["gapless-via"] == "webhook"
    assert "cookie" not in got.headers
    assert setup.counted("delivered") == 1


async def test_a_provider_signature_is_accepted_by_the_vendors_own_sdk(setup: Any, consumer: Any) -> None:
    sender = setup.http(consumer.url, signature="provider", secret=SecretRef(value=Secret("whsec_app")))
    async with setup.delivering(setup.destination(sender)):
        await setup.record(setup.sighting("evt_1", body=b'{"id":"evt_1","object":"event"}'))
        await setup.until("delivered")
    (got,) = consumer.got
    event = stripe.Webhook.construct_event(got.body, got.headers["stripe-signature"], "whsec_app")
    assert event.id == "evt_1"


@pytest.mark.parametrize(("host", "state"), [("localhost", "delivered"), ("127.0.0.1", "dead")])
async def test_tls_is_checked_against_the_name_although_the_connection_goes_to_a_number(
    setup: Any, consumer: Any, certificate: Path, host: str, state: str
) -> None:
    shown, trusting = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(cafile=certificate),
    )
    shown.load_cert_chain(certificate)
    async with stream_server(consumer.serve, ssl=shown) as port:
        url = f"https://{host}:{port}/"
        async with setup.delivering(setup.destination(setup.http(url, trusting, allow=("127.0.0.1", "::1")))):
            await setup.record(setup.sighting("evt_1"))
            (row,) = await setup.until(state)
    assert row.reason == (None if state == "delivered" else "connection")


async def test_every_attempt_and_every_replay_carries_the_same_id(setup: Any, consumer: Any) -> None:
    consumer.will_answer(500, "set-cookie: session=1")
    consumer.will_answer(503)
    async with setup.delivering(setup.destination(setup.http(consumer.url))) as dispatcher:
        seqs = await setup.record(setup.sighting("evt_1"))
        (row,) = await setup.until("delivered")
        assert row.attempts == 3
        sent_again = await setup.writer.submit(
            lambda c: dead_letters.replay(c, setup.destination_id, [*seqs.values(), 999_999], row.done_us)
        )
        dispatcher.wake()
        await setup.until("delivered")
    assert sent_again == 1
    assert [got.headers["gapless-attempt"] for got in consumer.got] == ["1", "2", "3", "1"]
    assert len({got.id for got in consumer.got}) == 1
    assert all("cookie" not in got.headers for got in consumer.got)
    assert await setup.outcomes() == ["consumer_5xx", "consumer_5xx", "delivered", "delivered"]
    assert setup.counted("retry") == 2


async def test_retry_after_is_waited_for(setup: Any, consumer: Any) -> None:
    consumer.will_answer(429, "retry-after: 1")
    async with setup.delivering(setup.destination(setup.http(consumer.url))):
        await setup.record(setup.sighting("evt_1"))
        await setup.until("delivered")
    first, second = consumer.got
    assert second.at - first.at >= 1
    assert await setup.outcomes() == ["throttled", "delivered"]


async def test_a_redirect_is_not_followed(setup: Any, consumer: Any) -> None:
    consumer.will_answer(302, f"location: {consumer.url}/elsewhere", times=4)
    async with setup.delivering(setup.destination(setup.http(consumer.url))):
        await setup.record(setup.sighting("evt_1"))
        (row,) = await setup.until("dead")
    assert (row.reason, row.attempts, len(consumer.got)) == ("redirect", 4, 4)


@pytest.mark.parametrize(("status", "attempts"), [(400, 4), (410, 1), (422, 4), (401, 4), (404, 4)])
async def test_a_refusal_is_final_only_if_the_event_is_gone_for_good(
    setup: Any, consumer: Any, status: int, attempts: int
) -> None:
    consumer.will_answer(status, times=4)
    async with setup.delivering(setup.destination(setup.http(consumer.url))):
        await setup.record(setup.sighting("evt_1"))
        (row,) = await setup.until("dead")
    assert (row.reason, row.attempts) == ("consumer_4xx", attempts)


async def test_a_slow_consumer_times_out_and_is_tried_again(setup: Any, consumer: Any) -> None:
    consumer.will_answer(200, after_s=5)
    destination = setup.destination(setup.http(consumer.url), timeout=timedelta(milliseconds=200))
    async with setup.delivering(destination):
        await setup.record(setup.sighting("evt_1"))
        await setup.until("delivered")
    first, *_, last = await setup.outcomes()
    assert (first, last) == ("timeout", "delivered")


async def test_an_endless_answer_does_not_hold_up_a_delivery(setup: Any, consumer: Any) -> None:
    consumer.will_answer(200, body=b"x" * 1_000_000)
    async with setup.delivering(setup.destination(setup.http(consumer.url))):
        await setup.record(setup.sighting("evt_1"), setup.sighting("evt_2"))
        await setup.until("delivered")
    assert len(consumer.got) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_trap_outpost_a_consumer_without_an_address_is_tried_again(setup: Any, host: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    async with setup.delivering(setup.destination(setup.http(f"http://{host}:{port}/"))):
        await setup.record(setup.sighting("evt_1"))
        (row,) = await setup.until("dead")
    assert (row.reason, row.attempts) == ("connection", 4)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0", "2130706433"])
async def test_a_private_address_is_refused_however_it_is_spelled(setup: Any, consumer: Any, host: str) -> None:
    sender = setup.http(f"http://{host}:{consumer.port}/", allow=())
    async with setup.delivering(setup.destination(sender)):
        await setup.record(setup.sighting("evt_1"))
        (row,) = await setup.until("dead")
    assert row.reason == "address_refused"
    assert consumer.got == []


@pytest.mark.parametrize("allow", [("localhost",), ("127.0.0.0/8", "::1"), ("LOCALHOST.",)])
async def test_a_private_host_that_is_named_is_delivered_to(setup: Any, consumer: Any, allow: tuple[str, ...]) -> None:
    sender = setup.http(f"http://localhost:{consumer.port}/", allow=allow)
    async with setup.delivering(setup.destination(sender)):
        await setup.record(setup.sighting("evt_1"))
        await setup.until("delivered")
    assert consumer.got[0].headers["host"] == f"localhost:{consumer.port}"


async def test_a_listed_event_of_another_version_is_held_until_a_person_chooses(setup: Any, consumer: Any) -> None:
    options = StripeOptions(
        api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False, api_version="2026-01-01"
    )
    setup.source = setup.sources.change("acme", provider=Stripe(options))
    body = b'{"id":"evt_1","object":"event","api_version":"2020-08-27"}'
    sender = setup.http(consumer.url, signature="provider")
    destination = setup.destination(sender)
    async with setup.delivering(destination):
        await setup.record(setup.sighting("evt_1", Via.LIST, body), setup.sighting("evt_2", Via.LIST, body))
        rows = await setup.until("held")
    assert {(row.reason, row.attempts) for row in rows} == {("version_mismatch", 0)}
    assert consumer.got == []
    released = await setup.writer.submit(lambda c: dead_letters.release(c, 0, seqs=[rows[0].event_seq]))
    async with setup.delivering(destination):
        await setup.wait_for(lambda _: bool(consumer.got))
    assert (released, await setup.states()) == (1, {"delivered", "held"})
    releases = frozenset({HoldReason.VERSION_MISMATCH})
    sender = setup.http(consumer.url, signature="provider", releases=releases)
    async with setup.delivering(setup.destination(sender, releases=releases)):
        await setup.until("delivered")
    assert len(consumer.got) == 2


class FailingOnce:
    """A writer whose first transaction finds no store."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self._failed = writer, False

    async def submit(self, work: Any, /, **arguments: Any) -> Any:
        if not self._failed:
            self._failed = True
            raise StoreUnavailable("the database system is starting up")
        return await self._writer.submit(work, **arguments)


async def test_what_is_held_is_released_once_the_store_is_back(setup: Any, consumer: Any) -> None:
    options = StripeOptions(
        api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False, api_version="2026-01-01"
    )
    setup.source = setup.sources.change("acme", provider=Stripe(options))
    async with setup.delivering(setup.destination(setup.http(consumer.url, signature="provider"))):
        await setup.record(setup.sighting("evt_1", Via.LIST, b'{"id":"evt_1","api_version":"2020-08-27"}'))
        await setup.until("held")
    releases = frozenset({HoldReason.VERSION_MISMATCH})
    sender = setup.http(consumer.url, signature="provider", releases=releases)
    writer, setup.writer = setup.writer, FailingOnce(setup.writer)
    async with setup.delivering(setup.destination(sender, releases=releases)):
        setup.writer = writer
        await setup.until("delivered")


@pytest.mark.parametrize("version", [rb'"\ud83d"', b"7", b'{"a":1}'])
async def test_a_delivery_whose_version_cannot_be_read_is_held(setup: Any, consumer: Any, version: bytes) -> None:
    options = StripeOptions(
        api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False, api_version="2026-01-01"
    )
    setup.source = setup.sources.change("acme", provider=Stripe(options))
    body = b'{"id":"evt_1","object":"event","note":"\\ud83d","api_version":%b}' % version
    destination = setup.destination(setup.http(consumer.url, signature="provider"))
    async with setup.delivering(destination):
        await setup.record(setup.sighting("evt_1", Via.LIST, body))
        rows = await setup.until("held")
    assert ({row.reason for row in rows}, consumer.got) == ({"unreadable"}, [])
    await setup.writer.submit(lambda c: dead_letters.release(c, 0, seqs=[rows[0].event_seq]))
    async with setup.delivering(destination):
        await setup.until("delivered")
    assert [got.body for got in consumer.got] == [body]


async def test_a_version_beside_odd_fields_is_read(setup: Any, consumer: Any) -> None:
    options = StripeOptions(
        api_key=Secret("rk_test_1"), webhook_secret=(Secret("whsec_1"),), livemode=False, api_version="2026-01-01"
    )
    setup.source = setup.sources.change("acme", provider=Stripe(options))
    body = b'{"id":"evt_1","object":"event","note":"\\ud83d","api_version":"2026-01-01"}'
    async with setup.delivering(setup.destination(setup.http(consumer.url, signature="provider"))):
        await setup.record(setup.sighting("evt_1", Via.LIST, body))
        await setup.until("delivered")
    assert [got.body for got in consumer.got] == [body]


async def test_a_resting_destination_costs_no_attempts_and_recovers(setup: Any, consumer: Any) -> None:
    consumer.will_answer(500, times=4)
    rule = BreakerRule(threshold=3, rest=timedelta(milliseconds=300), longest=timedelta(milliseconds=300))
    patient = DeliveryRetryPolicy(
        first=timedelta(milliseconds=10), longest=timedelta(milliseconds=10), max_attempts=5, waits=(), max_age=None
    )
    destination = setup.destination(setup.http(consumer.url), breaker=rule, retry=patient, concurrency=1)
    async with setup.delivering(destination):
        await setup.record(*(setup.sighting(f"evt_{n}") for n in range(20)))
        await setup.wait_for(lambda _: len(consumer.got) >= 3)
        await asyncio.sleep(0.1)
        assert len(consumer.got) == 3
        assert setup.metrics.registry.get_sample_value("gapless_circuit_open", {"destination": "app"}) == 1
        rows = await setup.until("delivered")
    assert sum(row.attempts for row in rows) == 24
    assert consumer.got[3].at - consumer.got[2].at >= 0.28
    assert consumer.got[4].at - consumer.got[3].at >= 0.28
    assert setup.metrics.registry.get_sample_value("gapless_circuit_open", {"destination": "app"}) == 0


async def test_the_rate_limit_is_kept(setup: Any, consumer: Any) -> None:
    began = asyncio.get_running_loop().time()
    async with setup.delivering(setup.destination(setup.http(consumer.url), rate=10.0)):
        await setup.record(*(setup.sighting(f"evt_{n}") for n in range(20)))
        await setup.until("delivered")
    assert consumer.got[-1].at - began >= 0.9


async def test_a_gap_that_closed_by_itself_is_no_longer_owed(setup: Any, consumer: Any) -> None:
    fills_gaps = setup.destination(setup.http(consumer.url), via=frozenset({Via.LIST}), delay_us=300_000)
    async with setup.delivering(fills_gaps):
        listed = setup.sighting("evt_1", Via.LIST), setup.sighting("evt_2", Via.LIST)
        await setup.record(*listed)
        await setup.record(msgspec.structs.replace(listed[0], via=Via.WEBHOOK, cause=None))
        assert len(await setup.deliveries()) == 1  # withdrawn by the webhook itself
        await setup.until("delivered")
    assert [got.headers["gapless-event-key"] for got in consumer.got] == ["evt_2"]


async def test_a_webhook_withdraws_nothing_that_a_person_released(setup: Any, consumer: Any) -> None:
    fills_gaps = setup.destination(setup.http(consumer.url), via=frozenset({Via.LIST}), delay_us=300_000)
    released = update(DELIVERY).values(reason=deliveries.RELEASED)
    async with setup.delivering(fills_gaps):
        listed = setup.sighting("evt_1", Via.LIST)
        await setup.record(listed)
        await setup.writer.submit(lambda c: c.execute(released).rowcount)
        await setup.record(msgspec.structs.replace(listed, via=Via.WEBHOOK, cause=None))
        await setup.until("delivered")
    assert [got.headers["gapless-event-key"] for got in consumer.got] == ["evt_1"]


async def test_a_delivery_under_way_is_left_to_its_worker(setup: Any, consumer: Any) -> None:
    fills_gaps = setup.destination(setup.http(consumer.url), via=frozenset({Via.LIST}))
    consumer.will_answer(200, after_s=0.5)
    async with setup.delivering(fills_gaps):
        listed = setup.sighting("evt_1", Via.LIST)
        await setup.record(listed)
        await setup.wait_for(lambda _: bool(consumer.got))
        await setup.record(msgspec.structs.replace(listed, via=Via.WEBHOOK, cause=None))
        await setup.until("delivered")
    assert len(await setup.deliveries()) == 1


async def test_a_destination_that_hangs_is_left_after_the_grace_and_its_events_stay_owed(
    setup: Any, consumer: Any
) -> None:
    consumer.will_answer(200, after_s=30)
    destination = replace(setup.destination(setup.http(consumer.url)), timeout=timedelta(seconds=20))
    async with setup.delivering(destination, grace=timedelta(milliseconds=100)):
        await setup.record(setup.sighting("evt_1"))
        await setup.wait_for(lambda _: bool(consumer.got))
    (row,) = await setup.deliveries()
    assert (row.state, row.attempts) == ("pending", 0)
