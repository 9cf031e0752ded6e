"""The HTTP listeners. Sockets are bound before anything starts; uvicorn serves them in the event loop of the daemon.

What a connection may cost is bounded by `gapless.connections`, before a request reaches the application.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn

from gapless.connections.protocol import BoundedProtocol
from gapless.connections.quiet import quieten
from gapless.connections.register import Connections
from gapless.receive.server import SERVING
from gapless.sockets import bind

BACKLOG = 2048
DRAIN_S = 10.0
"""Time that running requests have to end, unless the listener is given another."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers (the daemon has its own), and with an event for its start."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, and set the event."""
        await super().startup(sockets)
        self.answering.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class Listener:
    """An application on a bound socket. `run` serves until `stop`."""

    def __init__(
        self, app: Any, host: str, port: int, connections: Connections, *, drain_s: float = DRAIN_S, **options: Any
    ) -> None:
        self.connections = connections
        self._socket = bind(host, port)
        quieten()
        uvicorn_options = {**SERVING, "lifespan": "on", "timeout_graceful_shutdown": drain_s, **options}
        protocol: Any = partial(BoundedProtocol, connections)
        config = uvicorn.Config(app, backlog=BACKLOG, http=protocol, **uvicorn_options)
        self._server = _Server(config)

    @property
    def address(self) -> str:
        """`http://host:port`, reachable from this machine."""
        host, port = self._socket.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"http://{shown}:{port}"

    async def run(self) -> None:
        """Serve until `stop`."""
        watching = asyncio.create_task(self.connections.watch())
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            watching.cancel()

    async def started(self) -> None:
        """Wait until requests are answered."""
        await self._server.answering.wait()

    def stop(self) -> None:
        """Accept no more connections, finish the running requests, and let `run` return."""
        self._server.should_exit = True
