"""Brokers of a test's own, which it can stop, kill and start again, and what arrived there."""

import asyncio
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

from outside import free_port, until

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
    values: dict[str, Any] = {"sources": Sources(), "clock": system_clock, "concurrency": 4, "releases": frozenset()}
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


def missing_program(name: str) -> str | None:
    """Return why the program cannot be used, or None."""
    return None if shutil.which(name) else "it is not on the PATH"
