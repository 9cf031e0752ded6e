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

from gapless.bootstrap.tls import Certificates
from gapless.connections.protocol import BoundedProtocol
from gapless.connections.quiet import quieten
from gapless.connections.register import Connections
from gapless.connections.websocket import WEBSOCKETS, BoundedWebSocket
from gapless.receive.server import SERVING
from gapless.sockets import bind

BACKLOG = 2048
DRAIN_S = 10.0
"""Time that running requests have to end, unless the listener is given another."""

HANDSHAKE_S = 10.0
"""Time that a client has for the handshake of TLS."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers (the daemon has its own), and with an event for its start."""

    def __init__(self, config: uvicorn.Config, certificates: Certificates | None, handshake_s: float) -> None:
        super().__init__(config)
        self.answering = asyncio.Event()
        self._certificates = certificates
        self._handshake_s = handshake_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, and set the event."""
        if self._certificates is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            self.servers = [await self._serve_tls(each, self._certificates) for each in sockets or ()]
        self.answering.set()

    async def _serve_tls(self, bound: socket.socket, certificates: Certificates) -> asyncio.Server:
        """Serve with TLS, as uvicorn would, but with a limit of the handshake: until its end nothing else has one."""
        protocol: Any = self.config.http_protocol_class
        return await asyncio.get_running_loop().create_server(
            lambda: protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state),
            sock=bound,
            ssl=certificates.context,
            ssl_handshake_timeout=self._handshake_s,
            backlog=self.config.backlog,
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


class Listener:
    """An application on a bound socket. `run` serves until `stop`."""

    def __init__(
        self,
        app: Any,
        host: str,
        port: int,
        connections: Connections,
        *,
        certificates: Certificates | None = None,
        drain_s: float = DRAIN_S,
        handshake_s: float = HANDSHAKE_S,
        websockets: bool = False,
        **options: Any,
    ) -> None:
        self.connections = connections
        self.certificates = certificates
        self._socket = bind(host, port)
        quieten()
        uvicorn_options = {**SERVING, "lifespan": "on", "timeout_graceful_shutdown": drain_s, **options}
        if websockets:
            uvicorn_options |= {**WEBSOCKETS, "ws": partial(BoundedWebSocket, connections)}
        protocol: Any = partial(BoundedProtocol, connections)
        config = uvicorn.Config(app, backlog=BACKLOG, http=protocol, **uvicorn_options)
        self._server = _Server(config, certificates, handshake_s)

    @property
    def address(self) -> str:
        """`http://host:port`, or with TLS `https://…`, reachable from this machine."""
        host, port = self._socket.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"{'http' if self.certificates is None else 'https'}://{shown}:{port}"

    async def run(self) -> None:
        """Serve until `stop`."""
        watching = asyncio.create_task(self.connections.watch())
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def started(self) -> None:
        """Wait until requests are answered."""
        await self._server.answering.wait()

    def stop(self) -> None:
        """Accept no more connections, finish the running requests, and let `run` return."""
        self._server.should_exit = True
