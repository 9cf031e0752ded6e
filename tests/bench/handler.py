"""A consumer that costs little (`tests/bench/handler.py`): it answers 204 to each request."""

import asyncio
from typing import cast

import httptools
import machine
import uvloop

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Handler(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and begin to read requests."""
        self.transport, self.parser = cast(asyncio.Transport, transport), httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls `on_message_complete`."""
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Answer."""
        self.transport.write(ANSWER)


async def main() -> None:
    """Listen on a free port, say where, and answer until killed."""
    server = await asyncio.get_running_loop().create_server(Handler, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook", flush=True)  # noqa: T201 - the bench reads it
    await server.serve_forever()


if __name__ == "__main__":
    machine.pin(machine.LOAD_CORE)
    uvloop.run(main())
