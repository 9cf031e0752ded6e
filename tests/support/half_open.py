"""A TCP proxy in front of a server, whose connections can fall silent: nothing arrives any more, and nothing ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from sqlalchemy.engine import make_url


class HalfOpenProxy:
    """Forwards connections. `fall_silent` stops those that are open; `silent` also those that come."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._port = 0
        self.silent = False
        """New connections are accepted and nothing is forwarded."""
        self.accepted = 0
        self._open: list[asyncio.Event] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.on_sent: Callable[[bytes], bool] = lambda _: False
        """Looks at what a client sends: if True, that connection falls silent after these bytes, once."""
        self.on_sending: Callable[[bytes], bool] = lambda _: False
        """The same, but these bytes do not arrive any more."""

    @property
    def url(self) -> str:
        """The address of the database through the proxy."""
        through = self._url.set(host="127.0.0.1", port=self._port, query={})
        return through.render_as_string(hide_password=False)

    def fall_silent(self) -> None:
        """Let all open connections fall silent."""
        for each in self._open:
            each.set()

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator["HalfOpenProxy"]:
        """Run the proxy while the context lasts. Port 0: a free one."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self._port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        quiet = asyncio.Event()
        if self.silent:
            quiet.set()
        self._open.append(quiet)
        self._writers.append(writer)
        server_reader, server_writer = await self._connect()
        self._writers.append(server_writer)
        for source, target, is_client in ((reader, server_writer, True), (server_reader, writer, False)):
            task = asyncio.create_task(self._forward(source, target, quiet, is_client=is_client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host = self._url.host or self._url.query.get("host", "127.0.0.1")
        port = self._url.port or 5432
        assert isinstance(host, str)
        if host.startswith("/"):
            return await asyncio.open_unix_connection(Path(host) / f".s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _forward(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, quiet: asyncio.Event, *, is_client: bool
    ) -> None:
        with suppress(OSError):
            while part := await source.read(1 << 16):
                if not quiet.is_set():
                    if is_client and self.on_sending(part):
                        self.on_sending = lambda _: False
                        quiet.set()
                        continue
                    if is_client and self.on_sent(part):
                        self.on_sent = lambda _: False
                        quiet.set()
                    target.write(part)
                    await target.drain()
            if not quiet.is_set():
                target.close()
