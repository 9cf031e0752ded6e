"""Sends to a queue of Amazon SQS.

SQS takes ten attributes with a message, and there are twelve headers: `LEFT_OUT` are never sent.

In a FIFO queue, SQS drops a repeat by an id that is made of the event's id, the destination and the delivery's
generation, as with NATS. AWS's own client waits for answers in threads: as many as deliveries are under way.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, ClassVar, TypeAlias
from urllib.parse import urlsplit

from msgspec import Meta

from gapless.destinations import brokers
from gapless.destinations.brokers import KeptConnection
from gapless.destinations.contract import (
    Delivered,
    Delivery,
    DestinationOptions,
    Failed,
    FailureReason,
    Result,
    SecretReader,
    SenderContext,
)
from gapless.destinations.headers import identity_headers, repeat_id
from gapless.errors import UserError

with suppress(ImportError):  # without the extra, the options can still be read
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

FIFO = ".fifo"
REGION = re.compile(
    r"\A(?:sqs(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com|api\.aws)|([a-z0-9-]+)\.queue\.amazonaws\.com)"
)
"""The region in the host of a queue. Source: Amazon SQS endpoints and quotas, read November 2026."""
REPLACED = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that SQS would replace without a word. Source: its SendMessage, read November 2026."""
THROTTLED = frozenset(
    (
        "KmsThrottled",
        "OverLimit",
        "RequestThrottled",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    )
)
CREDENTIALS = frozenset(
    ("ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException")
)
"""Errors after which the credentials are read again."""
ABSENT = "NonExistentQueue"
LEFT_OUT = frozenset(("gapless-event-id", "gapless-attempt"))
"""The first is the `idempotency-key` too; of the second, SQS has a count of its own, `ApproximateReceiveCount`."""
TOO_LONG = "must be shorter than"
UNSENDABLE = "InvalidMessageContents"

QueueUrl: TypeAlias = Annotated[
    str, Meta(pattern=r"\Ahttps?://[^\s/@?#]+/[^\s?#]+\Z", description="the URL of a queue, as AWS shows it")
]


class SqsOptions(DestinationOptions, frozen=True, kw_only=True):
    """The keys of a destination of type `sqs`."""

    queue_url: QueueUrl = ""
    """The URL of the queue. Required. Its host is the one that is asked."""
    region: str = ""
    """The region. Empty: the one in the URL of the queue."""
    access_key_id: str = ""
    """The id of an access key. Empty: the credentials are found as AWS's own tools find them."""
    secret_access_key: SecretReader | None = None
    """The secret of `access_key_id`."""
    group: str = ""
    """The message group in a FIFO queue. Empty: the name of the source."""
    ca: str = ""
    """A file with the certificates of the authorities that sign the server's. Empty: the public authorities."""

    @property
    def address(self) -> str:
        """The URL of the queue."""
        return self.queue_url

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each problem of the options."""
        if not self.queue_url:
            yield "option queue_url is missing; wanted the URL of a queue, as AWS shows it"
        elif not region_of(self):
            yield "option region is missing; the host of queue_url does not name one"
        if bool(self.access_key_id) != (self.secret_access_key is not None):
            yield "options access_key_id and secret_access_key belong together; set both or neither"
        if self.group and not self.queue_url.endswith(FIFO):
            yield "option group is for a FIFO queue, whose URL ends in .fifo; leave it out"


class SqsSender:
    """Sends events to a queue. Raises `DestinationInvalid` if the client is absent."""

    kind: ClassVar[str] = "sqs"
    Options: ClassVar[type[SqsOptions]] = SqsOptions

    def __init__(self, options: SqsOptions, context: SenderContext) -> None:
        brokers.require("botocore", self.kind, context.name)
        self._options = options
        self._name = context.name
        self._timeout_s = context.timeout.total_seconds()
        self._most = context.concurrency
        self._threads = ThreadPoolExecutor(context.concurrency, thread_name_prefix=f"sqs-{context.name}")
        self._client = KeptConnection(self._open, lambda client: not client.is_broken, _Client.close)

    async def send(self, delivery: Delivery) -> Result:
        """Send once, and return what SQS answered."""
        if (message := self._message(delivery)) is None:
            detail = "the payload has bytes that are no text, or is empty; SQS takes only text"
            return Failed(reason=FailureReason.CANNOT_RENDER, detail=detail, permanent=True)
        try:
            client = await self._client.get()
            answer = await self._in_thread(partial(client.sqs.send_message, **message))
        except ClientError as error:
            client.is_broken = _code(error) in CREDENTIALS
            return refusal(error.response)
        except (ConnectTimeoutError, ReadTimeoutError) as error:
            return Failed(reason=FailureReason.TIMEOUT, detail=brokers.described(error))
        except (BotoCoreError, OSError, UserError) as error:
            return Failed(reason=FailureReason.CONNECTION, detail=brokers.described(error))
        return Delivered(detail=f"message {answer['MessageId']}")

    async def close(self) -> None:
        """Close the connections; what is under way ends by itself."""
        await self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def address_problems(self) -> list[str]:
        """Return the problem if there is no such queue, or if AWS does not take the credentials."""
        url = self._options.queue_url
        try:
            client = await self._client.get()
            await self._in_thread(partial(client.sqs.get_queue_attributes, QueueUrl=url, AttributeNames=["QueueArn"]))
        except ClientError as error:
            if ABSENT in _code(error) or _code(error) in CREDENTIALS:
                return [f"{url}: {refusal(error.response).detail}"]
        except (BotoCoreError, OSError, UserError) as error:
            return [f"{url}: {brokers.described(error)}; its deliveries will wait"]
        return []  # if only asking is not allowed, sending may be

    def _message(self, delivery: Delivery) -> dict[str, object] | None:
        """Return what is sent, or None if SQS would not keep the payload as it is."""
        try:
            body = delivery.payload.decode()
        except UnicodeDecodeError:
            return None
        if not body or REPLACED.search(body):
            return None
        attributes = {
            name: {"DataType": "String", "StringValue": value}
            for name, value in identity_headers(delivery).items()
            if value and name not in LEFT_OUT  # SQS takes no empty ones
        }
        message: dict[str, object] = {
            "QueueUrl": self._options.queue_url,
            "MessageBody": body,
            "MessageAttributes": attributes,
        }
        if self._options.queue_url.endswith(FIFO):
            message["MessageGroupId"] = self._options.group or delivery.source
            message["MessageDeduplicationId"] = repeat_id(self._name, delivery)
        return message

    async def _open(self) -> "_Client":
        options, credentials = self._options, dict[str, str]()
        if options.secret_access_key is not None:
            credentials["aws_access_key_id"] = options.access_key_id
            credentials["aws_secret_access_key"] = options.secret_access_key.read().reveal()
        config = Config(
            connect_timeout=min(brokers.CONNECT_TIMEOUT_S, self._timeout_s),
            read_timeout=self._timeout_s,
            retries={"total_max_attempts": 1},  # retries are the worker's
            max_pool_connections=self._most,
        )
        parts = urlsplit(options.queue_url)
        made = partial(
            botocore.session.get_session().create_client,
            "sqs",
            region_name=region_of(options),
            endpoint_url=f"{parts.scheme}://{parts.netloc}",
            verify=options.ca or None,
            config=config,
            **credentials,
        )
        return _Client(await self._in_thread(made))

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


class _Client:
    """A client of AWS, which is made anew once its credentials were refused."""

    def __init__(self, sqs: Any) -> None:
        self.sqs = sqs
        self.is_broken = False

    async def close(self) -> None:
        """Close the idle connections."""
        self.sqs.close()


def region_of(options: SqsOptions) -> str:
    """Return the region, or an empty text if nothing names it."""
    if options.region:
        return options.region
    found = REGION.match(urlsplit(options.queue_url).hostname or "")
    return (found[1] or found[2]) if found else ""


def refusal(response: Mapping[str, Any]) -> Failed:
    """Return the failure that an error of SQS means."""
    error, status = response.get("Error", {}), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code, text = str(error.get("Code", "")), str(error.get("Message", ""))
    detail = f"SQS refused it: {code}: {text}"
    if UNSENDABLE in code:
        return Failed(reason=FailureReason.CANNOT_RENDER, detail=detail, permanent=True)
    if TOO_LONG in text:
        return Failed(reason=FailureReason.REJECTED, detail=detail, permanent=True)
    if code.rpartition(".")[2] in THROTTLED:
        return Failed(reason=FailureReason.THROTTLED, detail=detail)
    reason = FailureReason.CONSUMER_5XX if status >= 500 else FailureReason.CONSUMER_4XX  # noqa: PLR2004 - of HTTP
    return Failed(reason=reason, detail=detail)


def _code(error: "ClientError") -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


SENDER = SqsSender
