"""Run the public listener of a daemon under test on a socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import uvicorn
from world import Daemon

from gapless.daemon.process import receive_options
from gapless.receive.endpoint import make_receiver
from gapless.receive.server import SERVING, build_app
from gapless.settings import Settings


@asynccontextmanager
async def receiving(daemon: Daemon, *, disk_is_full: bool = False, **options: Any) -> AsyncIterator[str]:
    """Yield the address that webhooks are sent to. `options` change those of the receiver."""
    chosen = replace(receive_options(Settings()), **options)
    receiver = make_receiver(daemon.runtime, options=chosen, client=daemon.world.client)
    if disk_is_full:
        receiver.admission.note_free(0, 1)
    server = uvicorn.Server(uvicorn.Config(build_app(receiver), host="127.0.0.1", port=0, **SERVING))
    serving = asyncio.create_task(server.serve())
    keeping = [asyncio.create_task(each.run()) for each in (receiver.quarantine, receiver.turned_away)]
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/webhooks/acme"
    finally:
        server.should_exit = True
        for each in keeping:
            each.cancel()
        await asyncio.gather(serving, *keeping, return_exceptions=True)
