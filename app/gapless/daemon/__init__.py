"""Runs the daemon from its settings until a signal stops it.

All parts are created here and in `process`, and passed down; the packages below do not read the environment or handle
signals. One task group runs everything. Shutdown follows the path of an event: accept no more webhooks, finish the
running pages and attempts, commit, return the leases, close.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta

from gapless.bootstrap.runtime import open_runtime
from gapless.daemon.process import ALL_ROLES, ListenAddresses, Process, Role, Timing, make_process
from gapless.settings import Settings

log = logging.getLogger(__name__)
STOPPED_LATE = 3
"""The exit code of a stop that was cut: the store or something else could not be reached."""


async def run(
    settings: Settings,
    environ: Mapping[str, str],
    stop: asyncio.Event,
    *,
    roles: frozenset[Role] = ALL_ROLES,
    timing: Timing | None = None,
    started: Callable[[ListenAddresses], None] = lambda _: None,
) -> None:
    """Run a daemon until `stop` is set; `started` is called when the listeners answer requests.

    Raises `StoreError` (locked by another process, unknown schema, unreachable), `OSError` (a port is in use),
    `DestinationInvalid`, `SecretUnavailable` and `OptionsInvalid` before anything has started.
    """
    timing, receives = timing or Timing(), Role.RECEIVE in roles
    async with open_runtime(settings, environ, serves=True, receives=receives, clock=timing.clock) as parts:
        await make_process(settings, environ, parts, roles, timing).run(stop, started)


async def serve(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    roles: frozenset[Role] = ALL_ROLES,
    started: Callable[[ListenAddresses], None] = lambda _: None,
) -> None:
    """Run a daemon until SIGTERM or SIGINT; a second signal ends the process at once.

    It ends within `settings.stop_within` of the first, whatever it waits for: everything acknowledged is durable.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            loop.remove_signal_handler(number)
            signal.raise_signal(number)
        end_within(settings.stop_within)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await run(settings, environ, stop, roles=roles, started=started)


def end_within(span: timedelta) -> None:
    """End this process after `span` if it still runs then. A thread, as the event loop itself may be held up."""
    timer = threading.Timer(span.total_seconds(), _end_now, [span])
    timer.daemon = True
    timer.start()


def _end_now(span: timedelta) -> None:
    log.error("stop_took_too_long", extra={"seconds": span.total_seconds()})
    logging.shutdown()
    os._exit(STOPPED_LATE)


__all__ = ["ALL_ROLES", "ListenAddresses", "Process", "Role", "Timing", "run", "serve"]
