"""Produces to a topic of Kafka, and waits until all in-sync replicas have the record.

The producer is idempotent: what it sends again by itself makes no second record. A new attempt can make one; consumers
know it by `idempotency-key`. Reports of deliveries come on a thread of the producer's, because librdkafka waits there.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any, ClassVar, TypeAlias

import certifi
from msgspec import Meta

from gapless.destinations import brokers
from gapless.destinations.brokers import BrokerOptions, HostAndPort, KeptConnection
from gapless.destinations.contract import Delivered, Delivery, Failed, FailureReason, Result, SenderContext
from gapless.destinations.headers import identity_headers
from gapless.errors import UserError

with suppress(ImportError):  # without the extra, the options can still be read
    from confluent_kafka import KafkaError, KafkaException, Message, Producer

GIVES_UP = 0.9
"""The part of the attempt's timeout after which librdkafka gives a record up, so that it can say why."""
POLL_S = 0.2
LOG_CRITICAL = 2
"""Level of librdkafka's own log, as in syslog: what it says of lost connections is in the results."""
OURS = frozenset(
    (
        "acks", "bootstrap.servers", "enable.idempotence", "message.timeout.ms", "request.required.acks",
        "sasl.mechanism", "sasl.password", "sasl.username", "security.protocol",
    )
)  # fmt: skip
"""Settings of librdkafka that the other keys make, or that the promise depends on."""

Topic: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._{}-]{1,249}\Z", description="a topic")]
Setting: TypeAlias = Annotated[str, Meta(pattern=r"\A[a-z.]+\Z")]


class SaslMechanism(StrEnum):
    """How the user proves the password."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


class KafkaOptions(BrokerOptions, frozen=True, kw_only=True):
    """The keys of a destination of type `kafka`."""

    servers: Annotated[tuple[HostAndPort, ...], Meta(description="a list of brokers, each as host:port")] = ()
    """Brokers of the cluster, each as host:port; they name the others. Required."""
    topic: Topic = ""
    """The topic. Required. `{source}`, `{stream}`, `{type}` and `{mode}` are filled in."""
    tls: bool = False
    """Connect by TLS."""
    sasl: SaslMechanism = SaslMechanism.PLAIN
    """How `user` proves the password: PLAIN (only with `tls`), SCRAM-SHA-256 or SCRAM-SHA-512."""
    producer: Annotated[
        Mapping[Setting, str], Meta(description="a table of librdkafka's settings and texts", extra={"shown": False})
    ] = {}
    """Other settings of librdkafka, such as `"message.max.bytes" = "2000000"`. Not for secrets."""

    @property
    def address(self) -> str:
        """The brokers and the topic."""
        return f"{', '.join(self.servers)} {self.topic}"

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each problem of the options."""
        yield from super().problems()
        if not self.servers:
            yield 'option servers is missing; wanted a list such as ["127.0.0.1:9092"]'
        if not self.topic:
            yield "option topic is missing; wanted the topic of the records"
        yield from brokers.template_problems("topic", self.topic)
        if not self.tls and (self.ca or self.certificate):
            yield "options ca and certificate are of TLS; set tls = true"
        if self.user and not self.tls and self.sasl is SaslMechanism.PLAIN:
            yield 'option sasl "PLAIN" sends the password in the open; set tls = true, or sasl = "SCRAM-SHA-512"'
        for name in sorted(self.producer.keys() & OURS):
            yield f"option producer.{name} may not be set; the other keys set it, or at-least-once depends on it"


class KafkaSender:
    """Produces events to a topic. Raises `DestinationInvalid` if the client is absent or a file cannot be used."""

    kind: ClassVar[str] = "kafka"
    Options: ClassVar[type[KafkaOptions]] = KafkaOptions

    def __init__(self, options: KafkaOptions, context: SenderContext) -> None:
        brokers.require("confluent_kafka", self.kind, context.name)
        if options.tls:
            brokers.tls_context(context.name, options)  # librdkafka reads the files later, and tells less
        self._options = options
        self._timeout_ms = max(int(context.timeout.total_seconds() * 1000 * GIVES_UP), 1)
        self._producer = KeptConnection(self._open, lambda producer: not producer.is_broken, lambda each: each.close())

    async def send(self, delivery: Delivery) -> Result:
        """Produce once, and return what the brokers reported."""
        try:
            producer = await self._producer.get()
            message = await producer.publish(brokers.filled(self._options.topic, delivery), delivery)
        except KafkaException as error:
            return failure(error.args[0], len(delivery.payload), self._described(error))
        except BufferError:
            return Failed(reason=FailureReason.THROTTLED, detail="too many records wait for the brokers")
        except (UserError, OSError) as error:
            return Failed(reason=FailureReason.CONNECTION, detail=brokers.described(error))
        return Delivered(detail=f"partition {message.partition()}, offset {message.offset()}")

    async def close(self) -> None:
        """Give up what is under way and close the connections."""
        await self._producer.close()

    async def address_problems(self) -> list[str]:
        """Return the problem if no broker answers, or if there is no such topic."""
        try:
            producer = await self._producer.get()
            known = await producer.topics()
        except KafkaException as error:
            return [f"{', '.join(self._options.servers)}: {self._described(error)}; its deliveries will wait"]
        except (UserError, OSError) as error:
            return [f"{brokers.described(error)}; its deliveries will wait"]
        if "{" not in self._options.topic and self._options.topic not in known:
            return [f"the cluster has no topic {self._options.topic}; create it"]
        return []

    def _described(self, error: "KafkaException") -> str:
        kept, what = self._producer.kept, error.args[0].str()
        return f"{what}; {kept.last_error}" if kept is not None and kept.last_error else what

    async def _open(self) -> "_Producer":
        options = self._options
        settings: dict[str, Any] = {
            "client.id": "gapless",
            "log_level": LOG_CRITICAL,
            "socket.keepalive.enable": True,
            **options.producer,
            "bootstrap.servers": ",".join(options.servers),
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": self._timeout_ms,
            "security.protocol": ("SASL_" if options.user else "") + ("SSL" if options.tls else "PLAINTEXT"),
        }
        if options.tls:
            settings["ssl.ca.location"] = options.ca or certifi.where()
        if options.certificate:
            settings["ssl.certificate.location"] = options.certificate
            settings["ssl.key.location"] = options.certificate_key or options.certificate
        if options.password is not None:
            settings["sasl.mechanism"] = options.sasl.value
            settings["sasl.username"] = options.user
            settings["sasl.password"] = options.password.read().reveal()
        return _Producer(settings)


class _Producer:
    """A producer of librdkafka, and the thread on which it reports."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = Producer({**settings, "error_cb": self._failed})
        self._stopping = threading.Event()
        self.is_broken = False
        """It can send nothing more, or its password is wrong: a new one is wanted."""
        self.last_error = ""
        """What librdkafka said last of its connections."""
        self._thread = threading.Thread(target=self._poll, name="kafka-reports", daemon=True)
        self._thread.start()

    async def publish(self, topic: str, delivery: Delivery) -> "Message":
        """Return the record as the brokers have it. Raises `KafkaException`, and `BufferError` if too many wait."""
        reported: asyncio.Future[Message] = self._loop.create_future()

        def report(error: "KafkaError | None", message: "Message") -> None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(_settle, reported, error, message)

        headers: dict[str, str | bytes | None] = dict(identity_headers(delivery))
        self._producer.produce(topic, delivery.payload, delivery.key, headers=headers, on_delivery=report)
        message = await reported
        self.last_error = ""
        return message

    async def topics(self) -> Mapping[str, object]:
        """Return the topics of the cluster by name. Raises `KafkaException`."""
        found = await asyncio.to_thread(self._producer.list_topics, timeout=brokers.CONNECT_TIMEOUT_S)
        return dict(found.topics)

    async def close(self) -> None:
        """Give up what is under way and end the thread."""
        self._producer.purge()
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(POLL_S)
        self._producer.flush(POLL_S)

    def _failed(self, error: "KafkaError") -> None:
        self.last_error = error.str()
        if error.fatal() or error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001 - it is a code
            self.is_broken = True


def _settle(reported: "asyncio.Future[Message]", error: "KafkaError | None", message: "Message") -> None:
    if reported.done():  # the attempt was given up
        return
    if error is None:
        reported.set_result(message)
    else:
        reported.set_exception(KafkaException(error))


def failure(error: "KafkaError", size: int, detail: str) -> Failed:
    """Return the failure that an error of librdkafka or of a broker means. `size`: of the payload, in bytes."""
    code = error.code()
    if code in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE):
        said = f"the record has {size} bytes: {detail}; see message.max.bytes of the topic and of producer"
        return Failed(reason=FailureReason.REJECTED, detail=said, permanent=True)
    if code in (KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT):  # noqa: SLF001 - they are codes
        return Failed(reason=FailureReason.TIMEOUT, detail=detail)
    reason = FailureReason.CONNECTION if code < 0 else FailureReason.CONSUMER_ERROR  # negative: of the client
    return Failed(reason=reason, detail=detail)


SENDER = KafkaSender
