"""What a queue of RabbitMQ has after a delivery, and what the sender makes of the broker's refusals."""

import os
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import pytest
from own_brokers import PAYLOAD, client_library, context, delivery
from storm.proxy import Proxy, to_port

from gapless.destinations.contract import Delivered, Failed, FailureReason
from gapless.destinations.headers import identity_headers
from gapless.destinations.rabbitmq import RabbitmqOptions, RabbitmqSender, _precondition
from gapless.settings import SecretRef
from gapless_reconcilers.kit.contract import Secret

aio_pika = client_library("rabbitmq", "aio_pika")

pytestmark = pytest.mark.anyio
PORT = int(os.environ.get("GAPLESS_TEST_RABBITMQ_PORT", "5672"))
GUEST = {"user": "guest", "password": SecretRef(value=Secret("guest"))}


@pytest.fixture
async def channel(absent: Callable[[str, str], NoReturn]) -> AsyncIterator[Any]:
    """A channel of the test on the machine's broker."""
    try:
        connection = await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{PORT}/", timeout=10)
    except OSError as error:
        absent("rabbitmq", f"no broker takes guest at port {PORT} (GAPLESS_TEST_RABBITMQ_PORT): {error!r}")
    async with connection:
        yield await connection.channel()


@pytest.fixture
async def queue(channel: Any) -> AsyncIterator[Any]:
    queue = await channel.declare_queue(f"gapless-test-{uuid.uuid4().hex}", exclusive=True)
    yield queue
    await queue.delete(if_unused=False, if_empty=False)


def sender(routing_key: str, port: int = PORT, **options: Any) -> RabbitmqSender:
    chosen = {"url": f"amqp://127.0.0.1:{port}/", "routing_key": routing_key, **GUEST}
    return RabbitmqSender(RabbitmqOptions(**(chosen | options)), context())


def failure(result: object) -> tuple[FailureReason, bool]:
    assert isinstance(result, Failed), result
    return result.reason, result.permanent


async def test_a_message_has_the_headers_and_the_payload_as_received(queue: Any) -> None:
    sent, one = sender(queue.name), delivery(livemode=False)
    assert await sent.send(one) == Delivered()
    await sent.close()
    message = await queue.get(no_ack=True)
    assert message.body == PAYLOAD
    assert message.headers == identity_headers(one)
    assert (message.message_id, message.delivery_mode) == (one.id, aio_pika.DeliveryMode.PERSISTENT)


async def test_an_exchange_routes_by_source_and_type(channel: Any, queue: Any) -> None:
    exchange = await channel.declare_exchange(f"gapless-test-{uuid.uuid4().hex}", "topic", auto_delete=True)
    await queue.bind(exchange, "acme.invoice.*")
    sent = sender("{source}.{type}", exchange=exchange.name)
    assert await sent.address_problems() == []
    assert await sent.send(delivery()) == Delivered()
    refused = await sent.send(delivery(type="charge.paid"))
    await sent.close()
    assert failure(refused) == (FailureReason.CONSUMER_ERROR, False)
    assert isinstance(refused, Failed)
    assert refused.detail == "no queue takes the routing key acme.charge.paid (NO_ROUTE)"
    assert (await queue.get(no_ack=True)).routing_key == "acme.invoice.paid"


async def test_a_full_queue_is_tried_again(channel: Any) -> None:
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    name = f"gapless-test-{uuid.uuid4().hex}"
    queue = await channel.declare_queue(name, exclusive=True, arguments=arguments)
    sent = sender(name)
    results = [await sent.send(delivery(f"evt_{n}")) for n in range(2)]
    await queue.purge()
    results.append(await sent.send(delivery("evt_1")))
    await sent.close()
    assert results[0] == results[2] == Delivered()
    assert failure(results[1]) == (FailureReason.CONSUMER_ERROR, False)


async def test_what_the_broker_lacks_is_named_and_heals(channel: Any) -> None:
    name = f"gapless-test-{uuid.uuid4().hex}"
    to_exchange, to_queue = sender("key", exchange=name), sender(name)
    assert await to_exchange.address_problems() == [f"the broker has no exchange {name}; declare it"]
    assert await to_queue.address_problems() == [f"the broker has no queue {name}; declare it"]
    assert failure(await to_exchange.send(delivery())) == (FailureReason.CONSUMER_ERROR, False)
    exchange = await channel.declare_exchange(name, "fanout", auto_delete=True)
    queue = await channel.declare_queue(name, exclusive=True)
    await queue.bind(exchange)
    for sent in (to_exchange, to_queue):
        assert await sent.send(delivery()) == Delivered()
        await sent.close()


async def test_the_connection_heals_after_it_was_cut(queue: Any) -> None:
    async with Proxy(to_port(PORT)).serve() as proxy:
        sent = sender(queue.name, proxy.port)
        assert await sent.send(delivery("evt_1")) == Delivered()
        assert proxy.cut() == 1
        results = [await sent.send(delivery("evt_2"))]
        while not isinstance(results[-1], Delivered):
            assert failure(results[-1]) == (FailureReason.CONNECTION, False)
            results.append(await sent.send(delivery("evt_2")))
        await sent.close()
    assert len(results) <= 3


async def test_no_broker_is_a_failed_connection(channel: Any) -> None:  # noqa: ARG001 - it says whether there is one
    async with Proxy(to_port(PORT)).serve() as proxy:
        port = proxy.port
    sent = sender("queue", port)
    assert failure(await sent.send(delivery())) == (FailureReason.CONNECTION, False)
    (problem,) = await sent.address_problems()
    assert "its deliveries will wait" in problem


async def test_a_wrong_password_is_in_no_message(queue: Any) -> None:
    sent = sender(queue.name, password=SecretRef(value=Secret("hunter2")))
    result = await sent.send(delivery())
    (problem,) = await sent.address_problems()
    await sent.close()
    assert isinstance(result, Failed)
    assert result.reason is FailureReason.CONNECTION
    assert "hunter2" not in result.detail + problem
    assert "ACCESS_REFUSED" in result.detail


async def test_a_routing_key_that_is_too_long_is_permanent() -> None:
    sent = sender("{type}")
    result = await sent.send(delivery(type="t" * 300))
    await sent.close()
    assert failure(result) == (FailureReason.REJECTED, True)


@pytest.mark.parametrize("limit", ["max size 200", "configured max size 200"])
def test_only_the_message_that_was_too_large_is_given_up(limit: str) -> None:
    text = f"PRECONDITION_FAILED - message size 300 is larger than {limit}"
    closed = aio_pika.exceptions.ChannelPreconditionFailed(text)
    assert failure(_precondition(closed, 300)) == (FailureReason.REJECTED, True)
    assert failure(_precondition(closed, 100)) == (FailureReason.CONNECTION, False)
