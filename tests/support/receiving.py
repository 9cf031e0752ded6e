"""Run the public listener of a daemon under test on a socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from world import Daemon

from gapless.daemon.process import receive_options
from gapless.receive.endpoint import make_receiver
from gapless.receive.server import SERVING, build_app
from gapless.settings import Settings


@asynccontextmanager
async def receiving(daemon: Daemon) -> AsyncIterator[str]:
    """Yield the address that webhooks are sent to."""
    receiver = make_receiver(daemon.runtime, options=receive_options(Settings()), client=daemon.world.client)
    server = uvicorn.Server(uvicorn.Config(build_app(receiver), host="127.0.0.1", port=0, **SERVING))
    serving, keeping = asyncio.create_task(server.serve()), asyncio.create_task(receiver.quarantine.run())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/webhooks/acme"
    finally:
        server.should_exit = True
        keeping.cancel()
        await asyncio.gather(serving, keeping, return_exceptions=True)
