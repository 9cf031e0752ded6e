"""A TCP proxy that fails as networks do: it falls silent without a RST, cuts, slows down, drips, and repeats.

A silent connection is half-open: what is sent on it is acknowledged by the kernel and goes nowhere, and its other end
is never heard of again. It stays so until its client gives it up.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CHUNK_BYTES = 64 * 1024
DRIP_BYTES = 16
MOST_REPEATED_BYTES = 1024 * 1024
REPEAT_ENDS_S = 1.0
EVENT_KEY = re.compile(rb'"(evt_[0-9a-f]+)"')


@dataclass(slots=True, eq=False)
class Connection:
    """One connection of a client. `sent`: what the client sent, if it is to be repeated."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    silent: bool = False
    sent: bytearray | None = None

    def close(self, *, abort: bool = False) -> None:
        """Close both ends; `abort`: with a RST."""
        for writer in (self.client, self.server):
            if writer is None:
                continue
            if abort:
                writer.transport.abort()
            else:
                writer.close()


@dataclass(slots=True)
class Proxy:
    """Forwards to what `connect` opens. The fields may be set at any time; they hold for what comes after."""

    connect: Callable[[], Awaitable[Streams]]
    delay_s: float = 0.0
    """Seconds before each chunk, both ways."""
    drip_s: float = 0.0
    """Seconds between pieces of `DRIP_BYTES` to the client; 0: all at once."""
    swallows: bool = False
    """New connections are silent from the first byte."""
    captures: bool = False
    """New connections are kept to be repeated."""
    port: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    """How often each event was in what was sent again."""
    _open: set[Connection] = field(default_factory=set)
    _captured: list[bytearray] = field(default_factory=list)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["Proxy"]:
        """Listen on a free port of this machine."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for connection in tuple(self._open):
                connection.close(abort=True)
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def fall_silent(self) -> int:
        """Make every open connection half-open; return how many."""
        for connection in self._open:
            connection.silent = True
        return len(self._open)

    def cut(self) -> int:
        """Reset every open connection that is not silent; return how many."""
        cut = [connection for connection in self._open if not connection.silent]
        for connection in cut:
            connection.close(abort=True)
        return len(cut)

    def begin_capture(self) -> None:
        """Close all connections and keep what is sent on new ones, from their first byte."""
        self.captures = True
        for connection in tuple(self._open):
            if not connection.silent:
                connection.close()

    async def repeat(self) -> int:
        """Send everything that was kept once more, on new connections, and keep nothing more. Return how many."""
        self.captures = False
        captured, self._captured = self._captured, []
        whole = [bytes(sent) for sent in captured if 0 < len(sent) <= MOST_REPEATED_BYTES]
        await asyncio.gather(*map(self._send_again, whole))
        return len(whole)

    async def _send_again(self, sent: bytes) -> None:
        self.repeated.update(Counter(key.decode() for key in EVENT_KEY.findall(sent)))
        with suppress(OSError, TimeoutError):
            reader, writer = await self.connect()
            writer.write(sent)
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(REPEAT_ENDS_S):
                    while await reader.read(CHUNK_BYTES):
                        pass
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(writer, silent=self.swallows)
        if self.captures:
            connection.sent = bytearray()
            self._captured.append(connection.sent)
        self._open.add(connection)
        try:
            await self._run(connection, reader)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            connection.close(abort=True)
            self._open.discard(connection)
            self._tasks.discard(task)

    async def _run(self, connection: Connection, reader: asyncio.StreamReader) -> None:
        """Forward until the client is gone, or the server is and the connection is not silent."""
        begins_silent = connection.silent
        if begins_silent:
            await _drain(reader)
            return
        back, connection.server = await self.connect()
        to_server = asyncio.create_task(self._pump(connection, reader, connection.server))
        to_client = asyncio.create_task(self._pump(connection, back, connection.client))
        try:
            await asyncio.wait((to_server, to_client), return_when=asyncio.FIRST_COMPLETED)
            if connection.silent:
                await asyncio.wait((to_server,))  # the client learns nothing of its server's end
            elif to_client.done():
                with suppress(OSError):
                    await connection.client.drain()
                    connection.client.close()
        finally:
            for task in (to_server, to_client):
                task.cancel()
            await asyncio.gather(to_server, to_client, return_exceptions=True)

    async def _pump(self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one way until its sender ends."""
        is_to_client = writer is connection.client
        while chunk := await reader.read(CHUNK_BYTES):
            if not is_to_client and connection.sent is not None:
                connection.sent += chunk
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            for piece in self._pieces(chunk, is_to_client):
                if connection.silent:
                    break
                writer.write(piece)
                await writer.drain()
                if self.drip_s and is_to_client:
                    await asyncio.sleep(self.drip_s)

    def _pieces(self, chunk: bytes, is_to_client: bool) -> list[bytes]:
        if not self.drip_s or not is_to_client:
            return [chunk]
        return [chunk[at : at + DRIP_BYTES] for at in range(0, len(chunk), DRIP_BYTES)]


async def _drain(reader: asyncio.StreamReader) -> None:
    while await reader.read(CHUNK_BYTES):
        pass


def to_port(port: int) -> Callable[[], Awaitable[Streams]]:
    """Return what connects to a port of this machine."""
    return lambda: asyncio.open_connection("127.0.0.1", port)


def to_socket(path: str) -> Callable[[], Awaitable[Streams]]:
    """Return what connects to a Unix socket."""
    return lambda: asyncio.open_unix_connection(path)
