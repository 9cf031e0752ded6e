"""A server of byte streams that leaves nothing open: no connection, answered or not yet begun, and no task."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def stream_server(answer: Answer, port: int = 0, **options: Any) -> AsyncIterator[int]:
    """Let `answer` have each connection while the context lasts; the port is given. Port 0: a free one."""
    writers, tasks = list[asyncio.StreamWriter](), set[asyncio.Future[None]]()

    def begun(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)  # at once: a task that is cancelled before it begins closes nothing
        task = asyncio.ensure_future(answer(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begun, "127.0.0.1", port, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        for _ in range(3):  # the loop closes their sockets
            await asyncio.sleep(0)
