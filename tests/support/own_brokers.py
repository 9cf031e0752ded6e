"""Brokers of a test's own, which it can stop, kill and start again, and what arrived there."""

import asyncio
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import httpx
import pytest
from outside import free_port, until
from storm.proxy import Proxy

from gapless.destinations.contract import Delivery, SenderContext, event_id
from gapless.destinations.headers import IDEMPOTENCY_KEY
from gapless.domain import Sources, Via, system_clock

TIME = datetime(2026, 11, 20, tzinfo=UTC)
PAYLOAD = b'{"id":  "evt_1", "text": "\xc3\xa4"}\n'
"""Two blanks, a character beyond ASCII and a line break: as received, byte for byte."""


def delivery(key: str = "evt_1", **changes: Any) -> Delivery:
    """Return an attempt to deliver the event of that key."""
    values: dict[str, Any] = {
        "id": event_id("1", key), "key": key, "source": "acme", "stream": "", "type": "invoice.paid",
        "occurred_at": TIME, "recorded_at": TIME, "via": Via.WEBHOOK, "payload": PAYLOAD, "attempt": 1,
    }  # fmt: skip
    return Delivery(**(values | changes))


def context(name: str = "queue", **changes: Any) -> SenderContext:
    """Return what a sender gets beside its options."""
    values: dict[str, Any] = {
        "sources": Sources(), "clock": system_clock, "concurrency": 4, "releases": frozenset(),
        "timeout": timedelta(seconds=15),
    }  # fmt: skip
    return SenderContext(name=name, **(values | changes))


def headers_of(messages: Sequence[Mapping[str, str]]) -> Counter[str]:
    """Count messages by their idempotency header."""
    return Counter(each[IDEMPOTENCY_KEY] for each in messages)


@dataclass
class OwnNats:
    """A server with JetStream on a port of its own, which keeps its streams over restarts."""

    folder: Path
    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and return when it takes connections."""
        command = ["nats-server", "-js", "-sd", str(self.folder), "-a", "127.0.0.1", "-p", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.to_thread(
                subprocess.Popen, [*command, *self.arguments], stdout=log, stderr=log
            )
        await until(self._listens, every_s=0.02, within_s=30)

    async def _listens(self) -> bool:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            await writer.wait_closed()
            return True
        return False

    def end(self, number: int = SIGKILL) -> None:
        """End it."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Any]:
        """A connection of the test."""
        import nats  # noqa: PLC0415 - an extra

        client = await nats.connect(self.address, **options)
        try:
            yield client
        finally:
            await client.close()

    async def messages(self, stream: str) -> list[Any]:
        """Return all messages of the stream, oldest first."""
        async with self.client() as client:
            jetstream = client.jetstream()
            state = (await jetstream.stream_info(stream)).state
            last = state.first_seq + state.messages
            return [await jetstream.get_msg(stream, seq) for seq in range(state.first_seq, last)]


@asynccontextmanager
async def own_nats(folder: Path, *arguments: str) -> AsyncIterator[OwnNats]:
    """A server that runs until the end of the block."""
    server = OwnNats(folder, arguments)
    try:
        await server.start()
        yield server
    finally:
        server.end(SIGTERM)


RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The program itself: what is on the PATH becomes another user first."""


@dataclass
class OwnRabbit:
    """A broker with a node, a folder and ports of its own, which keeps its durable queues over restarts."""

    folder: Path
    port: int = field(default_factory=free_port)
    _node_port: int = field(default_factory=free_port)
    _names_port: int = field(default_factory=free_port)
    _names: subprocess.Popen[bytes] | None = None
    _node: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it listens; it takes the user guest."""
        return f"amqp://127.0.0.1:{self.port}/"

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        files = ("CONF_ENV_FILE", "CONFIG_FILE", "ENABLED_PLUGINS_FILE", "SCHEMA_DIR", "GENERATED_CONFIG_DIR")
        return {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "ERL_EPMD_PORT": str(self._names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"gapless{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
            **{f"RABBITMQ_{name}": f"{folder}/none" for name in files},
        }

    async def start(self) -> None:
        """Start it, and return when it takes a user."""
        import aio_pika  # noqa: PLC0415 - an extra

        async def answers() -> bool:
            with suppress(OSError, TimeoutError):
                await (await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{self.port}/", timeout=5)).close()
                return True
            return False

        with (self.folder / "out").open("ab") as out:
            if self._names is None:
                names = ["epmd", "-port", str(self._names_port)]
                self._names = await asyncio.to_thread(subprocess.Popen, names, stdout=out, stderr=out)
            self._node = await asyncio.to_thread(
                subprocess.Popen, [RABBITMQ], env=self._environment(), cwd=self.folder, stdout=out, stderr=out
            )
        await until(answers, every_s=0.3, within_s=120)

    def kill(self) -> None:
        """kill -9 of the node."""
        if self._node is not None:
            with suppress(ProcessLookupError, FileNotFoundError, ValueError):
                os.kill(int((self.folder / "pid").read_text()), SIGKILL)
            self._node.kill()
            self._node.wait()
            self._node = None

    def stop(self) -> None:
        """End it and the server of its names."""
        self.kill()
        if self._names is not None:
            self._names.kill()
            self._names.wait()

    @asynccontextmanager
    async def queue(self, name: str) -> AsyncIterator[Any]:
        """A durable queue, over a connection of the test."""
        import aio_pika  # noqa: PLC0415 - an extra

        connection = await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{self.port}/", timeout=10)
        async with connection:
            yield await (await connection.channel()).declare_queue(name, durable=True)

    async def messages(self, name: str) -> list[Any]:
        """Take all messages out of the queue."""
        async with self.queue(name) as queue:
            found = list[Any]()
            while (message := await queue.get(no_ack=True, fail=False)) is not None:
                found.append(message)
            return found


@asynccontextmanager
async def own_rabbit(folder: Path) -> AsyncIterator[OwnRabbit]:
    """A broker that runs until the end of the block."""
    broker = OwnRabbit(folder)
    try:
        await broker.start()
        yield broker
    finally:
        broker.stop()


def client_library(component: str, package: str) -> Any:
    """Return the client library, or skip the module; raise if `GAPLESS_REQUIRE` has the component."""
    try:
        return import_module(package)
    except ImportError:
        if component in os.environ.get("GAPLESS_REQUIRE", "").split():
            raise
        pytest.skip(f"{component}: {package} is not installed", allow_module_level=True)


def missing_program(name: str) -> str | None:
    """Return why the program cannot be used, or None."""
    return None if shutil.which(name) else "it is not on the PATH"


@dataclass(slots=True)
class KafkaProxy(Proxy):
    """A proxy before a broker, which names the proxy's address to clients in place of the broker's."""

    broker_port: int = 0

    def _pieces(self, chunk: bytes, is_to_client: bool) -> list[bytes]:
        if not is_to_client:
            return [chunk]
        of_broker, of_proxy = (b"127.0.0.1" + port.to_bytes(4, "big") for port in (self.broker_port, self.port))
        return [chunk.replace(of_broker, of_proxy)]


class MockKafka:
    """A cluster of librdkafka's own in this process: it speaks the protocol on real sockets."""

    def __init__(self, topics: Sequence[str] = (), **settings: Any) -> None:
        import confluent_kafka  # noqa: PLC0415 - an extra

        self._kafka = confluent_kafka
        self._cluster = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 2, **settings})
        (broker,) = self._cluster.list_topics(timeout=10).brokers.values()
        self.address = f"{broker.host}:{broker.port}"
        self.port = broker.port
        for topic in topics:
            self._cluster.list_topics(topic, timeout=10)  # makes it

    def messages(self, topic: str) -> list[Any]:
        """Return all records of the topic, by partition and offset."""
        kafka = self._kafka
        settings = {"bootstrap.servers": self.address, "group.id": "test", "enable.auto.commit": False, "log_level": 2}
        consumer = kafka.Consumer(settings)
        try:
            found = list[Any]()
            for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
                part = kafka.TopicPartition(topic, partition, kafka.OFFSET_BEGINNING)
                _, end = consumer.get_watermark_offsets(part, timeout=10)
                consumer.assign([part])
                wanted = len(found) + end
                while len(found) < wanted:
                    if (message := consumer.poll(10)) is not None and message.error() is None:
                        found.append(message)
            return found
        finally:
            consumer.close()


class OwnSqs:
    """The server of moto in this process, with queues in memory."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer  # noqa: PLC0415 - of the tests

        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        _, self.port = self._server.get_host_and_port()
        with httpx.Client(trust_env=False) as client:  # all servers of a process share their queues
            client.post(f"http://127.0.0.1:{self.port}/moto-api/reset").raise_for_status()

    def url(self, queue: str, port: int | None = None) -> str:
        """Return the URL of the queue, through a proxy at `port`."""
        return f"http://127.0.0.1:{port or self.port}/123456789012/{queue}"

    def client(self) -> Any:
        """Return a client of the test."""
        import botocore.session  # noqa: PLC0415 - an extra

        return botocore.session.get_session().create_client(
            "sqs",
            region_name="eu-central-1",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def messages(self, queue: str) -> list[Any]:
        """Take all messages out of the queue."""
        client, found = self.client(), list[Any]()
        settings = {"QueueUrl": self.url(queue), "MessageAttributeNames": ["All"], "MaxNumberOfMessages": 10}
        while received := client.receive_message(**settings).get("Messages"):
            found += received
            for each in received:
                client.delete_message(QueueUrl=self.url(queue), ReceiptHandle=each["ReceiptHandle"])
        client.close()
        return found

    def stop(self) -> None:
        """End it."""
        self._server.stop()
