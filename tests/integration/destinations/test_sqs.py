"""What a queue of SQS has after a delivery, a retry and a replay. The server is moto's."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NoReturn

import pytest
from own_brokers import PAYLOAD, OwnSqs, context, delivery
from storm.proxy import Proxy, to_port

from gapless.destinations.contract import Delivered, Failed, FailureReason
from gapless.destinations.headers import NAMES, identity_headers
from gapless.destinations.sqs import LEFT_OUT, SqsOptions, SqsSender, refusal, region_of
from gapless.settings import SecretRef
from gapless_reconcilers.kit.contract import Secret

pytestmark = pytest.mark.anyio


@pytest.fixture
def sqs(absent: Callable[[str, str], NoReturn]) -> Iterator[OwnSqs]:
    try:
        server = OwnSqs()
    except ImportError as error:
        absent("moto", f"install the test extra: {error}")
    client = server.client()
    client.create_queue(QueueName="events")
    client.create_queue(QueueName="events.fifo", Attributes={"FifoQueue": "true"})
    client.close()
    yield server
    server.stop()


def sender(url: str, **options: Any) -> SqsSender:
    key = {"access_key_id": "testing", "secret_access_key": SecretRef(value=Secret("hunter2"))}
    return SqsSender(SqsOptions(queue_url=url, region="eu-central-1", **(key | options)), context())


def attributes(message: Any) -> dict[str, str]:
    return {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}


def failure(result: object) -> tuple[FailureReason, bool]:
    assert isinstance(result, Failed), result
    return result.reason, result.permanent


async def test_a_message_has_all_headers_but_two_and_the_payload_as_received(sqs: OwnSqs) -> None:
    sent = sender(sqs.url("events"))
    one = delivery(stream="a b", livemode=True, object_key="cus_1", late="replayed")
    assert await sent.address_problems() == []
    result = await sent.send(one)
    await sent.close()
    (message,) = sqs.messages("events")
    assert result == Delivered(detail=f"message {message['MessageId']}")
    assert message["Body"].encode() == PAYLOAD
    headers = identity_headers(one)
    assert headers.keys() == set(NAMES)
    assert attributes(message) == {name: value for name, value in headers.items() if name not in LEFT_OUT}
    assert len(attributes(message)) == 10  # SQS takes no more


async def test_a_fifo_queue_gets_a_replay_and_not_a_retry(sqs: OwnSqs) -> None:
    sent, one = sender(sqs.url("events.fifo")), delivery()
    for each in (one, replace(one, attempt=2), replace(one, generation=1)):
        assert isinstance(await sent.send(each), Delivered)
    await sent.close()
    client = sqs.client()
    received = client.receive_message(
        QueueUrl=sqs.url("events.fifo"), MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
    )["Messages"]
    client.close()
    assert [attributes(each)["idempotency-key"] for each in received] == [one.id, one.id]
    assert {each["Attributes"]["MessageGroupId"] for each in received} == {"acme"}


async def test_what_the_queue_can_never_take_is_permanent(sqs: OwnSqs) -> None:
    sent = sender(sqs.url("events"))
    large = await sent.send(delivery(payload=b"1" * (2**20 + 1)))
    assert failure(large) == (FailureReason.REJECTED, True)
    assert "must be shorter than 1048576 bytes" in str(large)
    for payload in (b"\xff", b"", b'{"id": "\x00"}', "\uffff".encode()):  # SQS would replace what is no text
        assert failure(await sent.send(delivery(payload=payload))) == (FailureReason.CANNOT_RENDER, True)
    assert isinstance(await sent.send(delivery()), Delivered)
    await sent.close()


async def test_a_queue_that_is_not_there_is_named(sqs: OwnSqs) -> None:
    sent = sender(sqs.url("other"))
    assert failure(await sent.send(delivery())) == (FailureReason.CONSUMER_4XX, False)
    (problem,) = await sent.address_problems()
    await sent.close()
    assert "NonExistentQueue" in problem
    assert "hunter2" not in problem


async def test_the_connection_heals_after_it_was_cut(sqs: OwnSqs) -> None:
    proxy = Proxy(to_port(sqs.port))
    async with proxy.serve():
        sent = sender(sqs.url("events", proxy.port))
        assert isinstance(await sent.send(delivery("evt_1")), Delivered)
        proxy.connect = to_port(1)
        proxy.cut()
        assert failure(await sent.send(delivery("evt_2"))) == (FailureReason.CONNECTION, False)
        (problem,) = await sent.address_problems()
        assert "its deliveries will wait" in problem
        proxy.connect = to_port(sqs.port)
        assert isinstance(await sent.send(delivery("evt_2")), Delivered)
        await sent.close()
    assert len(sqs.messages("events")) == 2


@pytest.mark.parametrize(
    ("code", "message", "status", "reason", "permanent"),
    [
        ("InvalidMessageContents", "x", 400, FailureReason.CANNOT_RENDER, True),
        ("InvalidParameterValue", "Message must be shorter than 5 bytes", 400, FailureReason.REJECTED, True),
        ("AWS.SimpleQueueService.NonExistentQueue", "x", 400, FailureReason.CONSUMER_4XX, False),
        ("RequestThrottled", "x", 403, FailureReason.THROTTLED, False),
        ("com.amazonaws.sqs.OverLimit", "x", 400, FailureReason.THROTTLED, False),
        ("ServiceUnavailable", "x", 503, FailureReason.CONSUMER_5XX, False),
        ("AccessDenied", "x", 403, FailureReason.CONSUMER_4XX, False),
    ],
)
def test_each_error_has_its_reason(
    code: str, message: str, status: int, reason: FailureReason, *, permanent: bool
) -> None:
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert failure(refusal(answer)) == (reason, permanent)


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-central-1.amazonaws.com/1/q", "eu-central-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1"),
        ("https://sqs-fips.us-east-2.amazonaws.com/1/q", "us-east-2"),
        ("https://sqs.us-east-2.api.aws/1/q", "us-east-2"),
        ("https://us-west-2.queue.amazonaws.com/1/q", "us-west-2"),
        ("http://localhost:4566/1/q", ""),
    ],
)
def test_the_region_is_in_the_url_of_aws(url: str, region: str) -> None:
    assert region_of(SqsOptions(queue_url=url)) == region
