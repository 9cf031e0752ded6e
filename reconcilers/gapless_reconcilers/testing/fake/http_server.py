"""A small HTTP/1.1 server on asyncio streams: keep-alive, no chunked bodies, enough for a fake API.

It is written here so that a fake needs no further package and does not replace the signal handlers of its process.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

LARGEST_HEAD = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request as the fake received it; header names in lower case."""

    method: str
    path: str
    params: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes = b""

    def param(self, name: str) -> str | None:
        """Return the first value of the query parameter `name`, or None."""
        return next((value for key, value in self.params if key == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAnswer:
    """A response of the fake."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[ApiRequest], Awaitable[ApiAnswer]]


@asynccontextmanager
async def serve_http(answer: Answer, *, host: str, port: int, clock: Callable[[], datetime]) -> AsyncIterator[str]:
    """Serve `answer` and yield the base URL; port 0 takes a free one. Open connections are closed at the end."""
    writers, tasks = set[asyncio.StreamWriter](), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _serve_connection(reader, writer, answer, clock)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            writers.discard(writer)

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)  # at once: a task that is cancelled before it begins closes nothing
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, host, port, limit=LARGEST_HEAD)
    try:
        bound = server.sockets[0].getsockname()[1]
        yield f"http://{host}:{bound}"
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        for _ in range(3):  # the loop closes their sockets
            await asyncio.sleep(0)


async def _serve_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer, clock: Callable[[], datetime]
) -> None:
    """Answer one request after the other until the client disconnects."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        request = _parse_head(head)
        length = int(request.headers.get("content-length", "0"))
        request = replace(request, body=await reader.readexactly(length))
        writer.write(_format(await answer(request), clock()))
        with suppress(ConnectionResetError):
            await writer.drain()
        if request.headers.get("connection", "").lower() == "close":
            return


def _parse_head(head: bytes) -> ApiRequest:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    url = urlsplit(target)
    return ApiRequest(
        method=method,
        path=url.path,
        params=tuple(parse_qsl(url.query, keep_blank_values=True)),
        headers={name.strip().lower(): value.strip() for name, _, value in pairs},
    )


def _format(answer: ApiAnswer, now: datetime) -> bytes:
    headers = {
        "Date": format_datetime(now, usegmt=True),
        "Content-Type": "application/json",
        **answer.headers,
        "Content-Length": str(len(answer.body)),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    status = HTTPStatus(answer.status)
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}\r\n".encode("latin-1") + answer.body
