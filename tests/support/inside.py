"""A daemon in this process, and commands beside it: as from a terminal, without the cost of processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from click.testing import CliRunner, Result
from outside import Gapless
from world import HASTY

from gapless import daemon
from gapless.cli.main import main
from gapless.daemon import Timing
from gapless.settings import load


async def call(gapless: Gapless, *arguments: str) -> Result:
    """Run a command in a thread of this process: it has an event loop of its own. One at a time."""
    arguments = ("--config", str(gapless.config), *arguments)
    return await asyncio.to_thread(CliRunner().invoke, main, arguments, env=gapless.env)


@asynccontextmanager
async def serving(gapless: Gapless) -> AsyncIterator[None]:
    """Run a daemon in this process that gives up soon."""
    stop, ready = asyncio.Event(), asyncio.Event()
    settings, timing = load(gapless.config, gapless.env), Timing(patience=HASTY, tick_s=0.05)
    made = daemon.run(settings, gapless.env, stop, timing=timing, started=lambda _: ready.set())
    running = asyncio.create_task(made)
    running.add_done_callback(lambda _: ready.set())
    await ready.wait()
    try:
        yield
    finally:
        stop.set()
        await running
