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
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from datetime import timedelta
from functools import partial

from gapless.bootstrap.runtime import ProcessParts, open_runtime
from gapless.bootstrap.store import start_patience
from gapless.daemon.heap import collect_now_and_then, settle_heap
from gapless.daemon.process import ALL_ROLES, ListenAddresses, Process, Role, Timing, make_process
from gapless.ledger.engine import Conflict, StoreUnavailable
from gapless.settings import Settings

log = logging.getLogger(__name__)
OPEN_AGAIN_AFTER_S = 1.0
"""Seconds between two tries to open the store at the start."""
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

    It waits `start_within` for PostgreSQL. Raises `StoreError` (locked by another process, unknown schema,
    unreachable), `OSError` (a port is in use), `DestinationInvalid`, `SecretUnavailable` and `OptionsInvalid` before
    anything has started.
    """
    timing, receives = timing or Timing(), Role.RECEIVE in roles
    opened = partial(open_runtime, settings, environ, serves=True, receives=receives, clock=timing.clock)
    async with AsyncExitStack() as held:
        parts = await _open_in_time(opened, held, start_patience(settings), stop)
        if parts is not None:
            await make_process(settings, environ, parts, roles, timing).run(stop, started)


async def _open_in_time(
    opened: Callable[[], AbstractAsyncContextManager[ProcessParts]],
    held: AsyncExitStack,
    patience: timedelta,
    stop: asyncio.Event,
) -> ProcessParts | None:
    """Open the runtime until `held` closes; return None if `stop` was set first.

    A store that cannot be used yet is tried again for `patience`; then its `StoreError` is raised.
    """
    until = time.monotonic() + patience.total_seconds()
    while not stop.is_set():
        try:
            return await held.enter_async_context(opened())
        except (StoreUnavailable, Conflict) as error:
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise
            log.warning("store_awaited", extra={"error": str(error), "seconds_left": round(left_s)})
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), min(OPEN_AGAIN_AFTER_S, left_s))
    return None


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

    def on_start(addresses: ListenAddresses) -> None:
        settle_heap()
        started(addresses)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    collecting = asyncio.create_task(collect_now_and_then())
    try:
        await run(settings, environ, stop, roles=roles, started=on_start)
    finally:
        collecting.cancel()


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
