"""Publishes to a stream of NATS JetStream, and waits until the stream has stored the message.

`Nats-Msg-Id`, by which JetStream drops repeats within the stream's duplicate window, is made of the event's id, the
destination and the delivery's generation. So a retry is dropped if the attempt before it did arrive, what a person
sends again is not, and another destination with subjects in the same stream gets its own. The `idempotency-key` is the
same for all of them.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, TypeAlias

from msgspec import Meta

from gapless.destinations import brokers
from gapless.destinations.brokers import BrokerOptions, KeptConnection
from gapless.destinations.contract import (
    Delivered,
    Delivery,
    Failed,
    FailureReason,
    Result,
    SecretReader,
    SenderContext,
)
from gapless.destinations.headers import identity_headers, repeat_id
from gapless.errors import UserError

with suppress(ImportError):  # without the extra, the options can still be read
    from nats.aio.client import Client
    from nats.errors import Error
    from nats.errors import TimeoutError as NoAnswer
    from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

MESSAGE_ID = "Nats-Msg-Id"
PING_S = 10
"""Interval of pings; a connection that leaves two unanswered is lost."""
CLOSE_S = 1.0
TOO_LARGE = 10054
"""The error of a stream that takes no message so large. Source: JetStream's error codes, read November 2026."""

Server: TypeAlias = Annotated[str, Meta(pattern=r"\A(nats|tls)://[^\s/@?#]+\Z")]
Subject: TypeAlias = Annotated[
    str, Meta(pattern=r"\A[^\s.*>]+(\.[^\s.*>]+)*\Z", description="a subject without * and >")
]


class NatsOptions(BrokerOptions, frozen=True, kw_only=True):
    """The keys of a destination of type `nats`."""

    servers: Annotated[
        tuple[Server, ...],
        Meta(description="a list of addresses such as nats://host:4222 or tls://host:4222, without a user name"),
    ] = ()
    """The addresses of the servers of one cluster. Required. `tls://`: by TLS alone."""
    subject: Subject = ""
    """The subject. Required; a stream must take it. `{source}`, `{stream}`, `{type}` and `{mode}` are filled in."""
    token: SecretReader | None = None
    """The token, for servers that ask for one in place of a user."""

    @property
    def address(self) -> str:
        """The servers and the subject."""
        return f"{', '.join(self.servers)} {self.subject}"

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each problem of the options."""
        yield from super().problems()
        if not self.servers:
            yield 'option servers is missing; wanted a list such as ["nats://127.0.0.1:4222"]'
        if not self.subject:
            yield 'option subject is missing; wanted the subject of a stream, such as "billing.{type}"'
        yield from brokers.template_problems("subject", self.subject)
        if self.token and self.user:
            yield "options token and user exclude each other; leave one out"


class NatsSender:
    """Publishes events to a stream. Raises `DestinationInvalid` if the client is absent or a file cannot be used."""

    kind: ClassVar[str] = "nats"
    Options: ClassVar[type[NatsOptions]] = NatsOptions

    def __init__(self, options: NatsOptions, context: SenderContext) -> None:
        brokers.require("nats", self.kind, context.name)
        self._options = options
        self._name = context.name
        self._timeout_s = context.timeout.total_seconds()
        self._tls = brokers.tls_context(context.name, options) if _wants_tls(options) else None
        self._connection = KeptConnection(self._connect, lambda link: link.client.is_connected, _close)

    async def send(self, delivery: Delivery) -> Result:
        """Publish once, and return what the stream answered."""
        try:
            link = await self._connection.get()
            return await self._publish(link, delivery)
        except (NoAnswer, TimeoutError):
            return Failed(reason=FailureReason.TIMEOUT, detail="the stream did not answer in time")
        except NoStreamResponseError:
            detail = f"no stream takes the subject {self._subject(delivery)}, or JetStream does not answer yet"
            return Failed(reason=FailureReason.CONSUMER_ERROR, detail=detail)
        except APIError as error:
            permanent = error.err_code == TOO_LARGE
            reason = FailureReason.REJECTED if permanent else FailureReason.CONSUMER_ERROR
            return Failed(reason=reason, detail=f"the stream refused it: {error.description}", permanent=permanent)
        except (Error, OSError, UserError) as error:
            return Failed(reason=FailureReason.CONNECTION, detail=brokers.described(error))
        except (ValueError, TypeError):  # of the client, which takes every answer for a stream's
            detail = f"what answers on the subject {self._subject(delivery)} is no stream"
            return Failed(reason=FailureReason.CONSUMER_ERROR, detail=detail)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def address_problems(self) -> list[str]:
        """Return the problem if no server takes the connection, or if no stream takes the subject."""
        try:
            link = await self._connection.get()
            if "{" not in self._options.subject:
                await link.client.jetstream().find_stream_name_by_subject(self._options.subject)
        except NotFoundError:
            return [f"no stream takes the subject {self._options.subject}; add one, such as `nats stream add`"]
        except (Error, OSError, UserError) as error:
            return [f"{', '.join(self._options.servers)}: {brokers.described(error)}; its deliveries will wait"]
        return []

    def _subject(self, delivery: Delivery) -> str:
        return brokers.filled(self._options.subject, delivery)

    async def _publish(self, link: "_NatsConnection", delivery: Delivery) -> Result:
        headers = identity_headers(delivery) | {MESSAGE_ID: repeat_id(self._name, delivery)}
        size = len(delivery.payload) + header_bytes(headers)
        if size > link.client.max_payload:  # the server would close the connection, under the other deliveries
            return brokers.too_large(size, link.client.max_payload, "the server")
        published = asyncio.ensure_future(
            link.client.jetstream().publish(
                self._subject(delivery), delivery.payload, timeout=self._timeout_s, headers=dict(headers)
            )
        )
        try:
            await asyncio.wait((published, link.lost), return_when=asyncio.FIRST_COMPLETED)
            if not published.done():
                return Failed(
                    reason=FailureReason.CONNECTION, detail="the connection was lost before the stream answered"
                )
            ack = published.result()
        finally:
            published.cancel()
        repeat = ", which had it already" if ack.duplicate else ""
        return Delivered(detail=f"stream {ack.stream}, message {ack.seq}{repeat}")

    async def _connect(self) -> "_NatsConnection":
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def closed() -> None:
            if not lost.done():
                lost.set_result(None)

        link = _NatsConnection(Client(), lost)
        try:
            await link.client.connect(
                list(self._options.servers),
                name="gapless",
                allow_reconnect=False,  # the next attempt connects: nothing is buffered here meanwhile
                connect_timeout=brokers.CONNECT_TIMEOUT_S,
                ping_interval=PING_S,
                closed_cb=closed,
                error_cb=_ignore,
                **self._credentials(),
            )
        except BaseException:  # of which cancellation is one: the client leaves its socket open
            await _close(link)
            raise
        return link

    def _credentials(self) -> dict[str, Any]:
        options, chosen = self._options, dict[str, Any]()
        if options.password:
            chosen |= {"user": options.user, "password": options.password.read().reveal()}
        if options.token:
            chosen["token"] = options.token.read().reveal()
        if self._tls is not None:
            chosen["tls"] = self._tls
        return chosen


class _NatsConnection:
    """A connection, and what is done once it is lost: the client does not end the requests under way."""

    def __init__(self, client: "Client", lost: asyncio.Future[None]) -> None:
        self.client = client
        self.lost = lost


def header_bytes(headers: Mapping[str, str]) -> int:
    """Return how many bytes of `max_payload` the headers take. Source: ADR-4 of NATS."""
    return len("NATS/1.0\r\n\r\n") + sum(len(name) + len(value) + len(": \r\n") for name, value in headers.items())


def _wants_tls(options: NatsOptions) -> bool:
    return bool(options.ca or options.certificate) or any(each.startswith("tls://") for each in options.servers)


async def _close(link: _NatsConnection) -> None:
    with suppress(Error, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_S):  # after a failed handshake of TLS, the client waits for ever
            await link.client.close()


async def _ignore(_: Exception) -> None:
    """Say nothing: the result of the attempt says it."""


SENDER = NatsSender
