"""Publishes to an exchange of RabbitMQ, and waits until the broker has confirmed the message.

Messages are persistent and mandatory: one that no queue takes comes back, and is a failed attempt. RabbitMQ drops no
repeats: consumers know them by `idempotency-key`, which is also the `message_id`.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, ClassVar, TypeAlias

from msgspec import Meta
from yarl import URL

from gapless.destinations import brokers
from gapless.destinations.brokers import BrokerOptions, KeptConnection
from gapless.destinations.contract import Delivered, Delivery, Failed, FailureReason, Result, SenderContext
from gapless.destinations.headers import identity_headers
from gapless.errors import UserError

with suppress(ImportError):  # without the extra, the options can still be read
    import aio_pika
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
    from aio_pika.exceptions import (
        AMQPError,
        ChannelInvalidStateError,
        ChannelNotFoundEntity,
        ChannelPreconditionFailed,
        DeliveryError,
        PublishError,
    )

HEARTBEAT_S = 10
"""A connection that is silent for two of these intervals is lost."""
CLOSE_S = 1.0
SHORT_TEXT = 255
"""Most bytes of a routing key. Source: AMQP 0-9-1, read November 2026."""
LARGEST = re.compile(r"larger than (?:configured )?max size (\d+)")
"""The limit in the text with which the broker closes a channel. Source: rabbit_channel.erl, read November 2026."""

Broker: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"\Aamqps?://[^\s/@?#]+(/[^\s?#]*)?\Z",
        description="an address such as amqp://host:5672/vhost or amqps://host/vhost, without a user name",
    ),
]


class RabbitmqOptions(BrokerOptions, frozen=True, kw_only=True):
    """The keys of a destination of type `rabbitmq`."""

    url: Broker = ""
    """The address of the broker, with the virtual host as its path. Required. `amqps://`: by TLS."""
    exchange: str = ""
    """The exchange. Empty: the default one, which takes the name of a queue as routing key."""
    routing_key: str = ""
    """The routing key. Required. `{source}`, `{stream}`, `{type}` and `{mode}` are filled in."""

    @property
    def address(self) -> str:
        """The broker, the exchange and the routing key."""
        return " ".join(filter(None, (self.url, self.exchange, self.routing_key)))

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each problem of the options."""
        yield from super().problems()
        if not self.url:
            yield "option url is missing; wanted an address such as amqp://127.0.0.1:5672/"
        if not self.routing_key:
            yield 'option routing_key is missing; wanted the name of a queue, or with an exchange, such as "{type}"'
        yield from brokers.template_problems("routing_key", self.routing_key)


class RabbitmqSender:
    """Publishes events to an exchange. Raises `DestinationInvalid` if the client is absent or a file cannot be used."""

    kind: ClassVar[str] = "rabbitmq"
    Options: ClassVar[type[RabbitmqOptions]] = RabbitmqOptions

    def __init__(self, options: RabbitmqOptions, context: SenderContext) -> None:
        brokers.require("aio_pika", self.kind, context.name)
        self._options = options
        self._tls = brokers.tls_context(context.name, options) if options.url.startswith("amqps:") else None
        self._link = KeptConnection(self._connect, lambda link: link.is_open, lambda link: link.close())

    async def send(self, delivery: Delivery) -> Result:
        """Publish once, and return what the broker confirmed."""
        routing_key = brokers.filled(self._options.routing_key, delivery)
        if len(routing_key.encode()) > SHORT_TEXT:
            return brokers.too_large(len(routing_key.encode()), SHORT_TEXT, "a routing key")
        try:
            link = await self._link.get()
            await link.exchange.publish(_message(delivery), routing_key, mandatory=True)
        except PublishError as error:
            detail = f"no queue takes the routing key {routing_key} ({error.args[0]})"
            return Failed(reason=FailureReason.CONSUMER_ERROR, detail=detail)
        except DeliveryError:
            detail = "the broker did not take the message: its queue is full, or failed"
            return Failed(reason=FailureReason.CONSUMER_ERROR, detail=detail)
        except ChannelPreconditionFailed as error:
            return _precondition(error, len(delivery.payload))
        except (AMQPError, OSError, UserError, RuntimeError) as error:
            return Failed(reason=_reason(error), detail=brokers.described(error))
        return Delivered()

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    async def address_problems(self) -> list[str]:
        """Return the problem if the broker takes no connection, or has no such exchange or queue."""
        options = self._options
        try:
            link = await self._link.get()
            if options.exchange:
                await link.channel.get_exchange(options.exchange, ensure=True)
            elif "{" not in options.routing_key:
                await link.channel.get_queue(options.routing_key, ensure=True)
        except ChannelNotFoundEntity:
            what = f"exchange {options.exchange}" if options.exchange else f"queue {options.routing_key}"
            return [f"the broker has no {what}; declare it"]
        except (AMQPError, OSError, UserError, RuntimeError) as error:
            return [f"{options.url}: {brokers.described(error)}; its deliveries will wait"]
        return []

    async def _connect(self) -> "_RabbitmqConnection":
        options, url = self._options, URL(self._options.url)
        if options.password is not None:
            url = url.with_user(options.user).with_password(options.password.read().reveal())
        connection = await aio_pika.connect(
            url,
            ssl_context=self._tls,
            timeout=brokers.CONNECT_TIMEOUT_S,
            heartbeat=HEARTBEAT_S,
            client_properties={"connection_name": "gapless"},
        )
        try:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            exchange = (
                await channel.get_exchange(options.exchange, ensure=False)
                if options.exchange
                else channel.default_exchange
            )
        except BaseException:  # of which cancellation is one
            await connection.close()
            raise
        return _RabbitmqConnection(connection, channel, exchange)


class _RabbitmqConnection:
    """A connection with its one channel."""

    def __init__(
        self, connection: "AbstractConnection", channel: "AbstractChannel", exchange: "AbstractExchange"
    ) -> None:
        self._connection = connection
        self.channel = channel
        self.exchange = exchange

    @property
    def is_open(self) -> bool:
        """True while messages can be published."""
        return not (self._connection.is_closed or self.channel.is_closed)

    async def close(self) -> None:
        """Close the connection, which may be broken."""
        with suppress(AMQPError, OSError, RuntimeError):
            async with asyncio.timeout(CLOSE_S):  # a silent broker would not answer
                await self._connection.close()


def _message(delivery: Delivery) -> "aio_pika.Message":
    return aio_pika.Message(
        delivery.payload,
        headers=dict(identity_headers(delivery)),
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=delivery.id,
        app_id="gapless",
    )


def _precondition(error: "ChannelPreconditionFailed", size: int) -> Failed:
    """Return the failure of a message whose channel was closed, perhaps because another one was too large."""
    text = brokers.described(error)
    limit = LARGEST.search(text)
    if limit and size > int(limit[1]):
        return brokers.too_large(size, int(limit[1]), "the broker")
    return Failed(reason=FailureReason.CONNECTION, detail=text)


def _reason(error: Exception) -> FailureReason:
    if isinstance(error, TimeoutError):
        return FailureReason.TIMEOUT
    is_refused = isinstance(error, AMQPError) and not isinstance(error, (OSError, ChannelInvalidStateError))
    return FailureReason.CONSUMER_ERROR if is_refused else FailureReason.CONNECTION


SENDER = RabbitmqSender
