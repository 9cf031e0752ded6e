"""Run the public listener of a daemon under test on a socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from world import Daemon

from gapless.connections.register import Connections
from gapless.daemon.listeners import Listener
from gapless.daemon.process import receive_options
from gapless.receive.endpoint import make_receiver
from gapless.receive.server import build_app
from gapless.settings import Settings


@asynccontextmanager
async def receiving(daemon: Daemon, *, disk_is_full: bool = False, **options: Any) -> AsyncIterator[str]:
    """Yield the address that webhooks are sent to. `options` change those of the receiver."""
    chosen = replace(receive_options(Settings()), **options)
    receiver = make_receiver(daemon.runtime, options=chosen, client=daemon.world.client)
    if disk_is_full:
        receiver.admission.note_free(0, 1)
    listener = Listener(build_app(receiver), "127.0.0.1", 0, Connections("public", daemon.runtime.metrics))
    serving = asyncio.create_task(listener.run())
    keeping = [asyncio.create_task(each.run()) for each in (receiver.quarantine, receiver.turned_away)]
    await listener.started()
    try:
        yield f"{listener.address}/webhooks/acme"
    finally:
        listener.stop()
        for each in keeping:
            each.cancel()
        await asyncio.gather(serving, *keeping, return_exceptions=True)
