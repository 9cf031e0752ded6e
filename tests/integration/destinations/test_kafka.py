"""What a topic has after a delivery. The cluster is librdkafka's own, which speaks the protocol on real sockets."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

import pytest
from own_brokers import PAYLOAD, KafkaProxy, MockKafka, context, delivery
from storm.proxy import to_port

from gapless.destinations.contract import Delivered, Failed, FailureReason
from gapless.destinations.headers import identity_headers
from gapless.destinations.kafka import KafkaOptions, KafkaSender, failure

pytestmark = pytest.mark.anyio


@pytest.fixture
def kafka(absent: Callable[[str, str], NoReturn]) -> MockKafka:
    try:
        return MockKafka(["events", "acme.invoice.paid"])
    except ImportError:
        absent("kafka", "install confluent-kafka, whose library has a cluster of its own")


def sender(address: str, timeout_s: float = 15, **options: Any) -> KafkaSender:
    chosen = {"servers": (address,), "topic": "events"}
    return KafkaSender(KafkaOptions(**(chosen | options)), context(timeout=timedelta(seconds=timeout_s)))


async def test_a_record_has_the_headers_and_the_payload_as_received(kafka: MockKafka) -> None:
    sent, one = sender(kafka.address, topic="{source}.{type}"), delivery(stream="a b", livemode=True)
    result = await sent.send(one)
    await sent.close()
    assert isinstance(result, Delivered)
    (record,) = await asyncio.to_thread(kafka.messages, "acme.invoice.paid")
    assert (record.key(), record.value()) == (b"evt_1", PAYLOAD)
    assert {name: value.decode() for name, value in record.headers()} == identity_headers(one)
    assert result.detail == f"partition {record.partition()}, offset {record.offset()}"


async def test_a_record_that_is_too_large_is_permanent_and_breaks_nothing(kafka: MockKafka) -> None:
    sent = sender(kafka.address)
    large = await sent.send(delivery(payload=bytes(1_100_000)))
    assert isinstance(large, Failed)
    assert (large.reason, large.permanent) == (FailureReason.REJECTED, True)
    assert "the record has 1100000 bytes" in large.detail
    assert isinstance(await sent.send(delivery()), Delivered)
    await sent.close()
    wider = sender(kafka.address, producer={"message.max.bytes": "2000000"})
    assert isinstance(await wider.send(delivery(payload=bytes(1_100_000))), Delivered)
    await wider.close()


async def test_the_connection_heals_after_it_was_cut(kafka: MockKafka) -> None:
    async with KafkaProxy(to_port(kafka.port), broker_port=kafka.port).serve() as proxy:
        sent = sender(f"127.0.0.1:{proxy.port}")
        assert isinstance(await sent.send(delivery("evt_1")), Delivered)
        assert proxy.cut() > 0
        assert isinstance(await sent.send(delivery("evt_2")), Delivered)
        await sent.close()
    records = await asyncio.to_thread(kafka.messages, "events")
    assert sorted(record.key() for record in records) == [b"evt_1", b"evt_2"]


async def test_an_attempt_without_a_broker_says_so_before_its_timeout(kafka: MockKafka) -> None:
    async with KafkaProxy(to_port(kafka.port)).serve() as proxy:
        port = proxy.port
    sent = sender(f"127.0.0.1:{port}", timeout_s=2)
    result = await sent.send(delivery())
    await sent.close()
    assert isinstance(result, Failed)
    assert (result.reason, result.permanent) == (FailureReason.TIMEOUT, False)
    assert "timed out" in result.detail
    assert "refused" in result.detail or "down" in result.detail


async def test_an_attempt_that_is_given_up_hurts_no_other(kafka: MockKafka) -> None:
    sent = sender(kafka.address)
    given_up = asyncio.create_task(sent.send(delivery("evt_1")))
    await asyncio.sleep(0)
    given_up.cancel()
    assert isinstance(await sent.send(delivery("evt_2")), Delivered)
    await sent.close()


async def test_a_topic_that_is_not_there_is_named(kafka: MockKafka) -> None:
    for topic, problems in (("events", []), ("other", ["the cluster has no topic other; create it"])):
        sent = sender(kafka.address, topic=topic)
        assert await sent.address_problems() == problems
        await sent.close()


def test_each_error_has_its_reason() -> None:
    kafka: Any = pytest.importorskip("confluent_kafka")
    error = kafka.KafkaError
    reasons = {
        code: (found.reason, found.permanent)
        for code in (
            error.MSG_SIZE_TOO_LARGE, error._MSG_TIMED_OUT, error._TRANSPORT, error.TOPIC_AUTHORIZATION_FAILED,
            error.NOT_ENOUGH_REPLICAS,
        )
        for found in [failure(error(code), 5, "x")]
    }  # fmt: skip
    assert reasons == {
        error.MSG_SIZE_TOO_LARGE: (FailureReason.REJECTED, True),
        error._MSG_TIMED_OUT: (FailureReason.TIMEOUT, False),
        error._TRANSPORT: (FailureReason.CONNECTION, False),
        error.TOPIC_AUTHORIZATION_FAILED: (FailureReason.CONSUMER_ERROR, False),
        error.NOT_ENOUGH_REPLICAS: (FailureReason.CONSUMER_ERROR, False),
    }
