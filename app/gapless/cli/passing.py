"""Making a pass for `gapless source pass`: by the daemon that holds the ledger, else in this process."""

import asyncio
import os
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import click

from gapless.cli import output
from gapless.cli.access import Operate, call_daemon, daemon_of, open_reader, plain, workbench
from gapless.cli.comparison import Report
from gapless.cli.listing import compare
from gapless.console.operations import perform
from gapless.daemon.wiring import Workbench
from gapless.domain import from_us
from gapless.ledger import Connection, selection, sources
from gapless.ledger.engine import PostgresStore, Store
from gapless.reconcile.fetch import new_client
from gapless.reconcile.road import Road
from gapless.reconcile.schedule import Scheduler
from gapless.settings import Settings

POLL_S = 0.5
PATIENCE_S = 20.0
"""How long parked streams may show no progress before the command stops waiting: only a person can mend that."""


async def make_passes(settings: Settings, args: dict[str, object], *, wait: bool) -> list[dict[str, Any]]:
    """Ask for the passes and return how far each has come: to the end, if `wait`."""
    holder = daemon_of(settings)
    if holder is not None:
        does = partial(call_daemon, holder)
        made = await does("source.pass", args)
        return await _follow(does, made, wait=wait)
    async with workbench(settings, os.environ) as bench:
        return await _make_here(bench, args, wait=wait)


async def _make_here(bench: Workbench, args: dict[str, object], *, wait: bool) -> list[dict[str, Any]]:
    """Without a daemon this process makes them. On PostgreSQL one may run elsewhere; who is first does it."""

    async def does(name: str, args: Any) -> dict[str, Any]:
        return plain(await perform(bench.desk, name, args))

    made = await does("source.pass", args)
    road = Road(store=bench.store, writer=bench.writer, clock=bench.clock, metrics=bench.metrics)
    async with new_client() as client, asyncio.TaskGroup() as group:
        scheduler = Scheduler(road, bench.book, bench.policies, client, holder=bench.holder, tick_s=POLL_S)
        if wait or not isinstance(bench.store, PostgresStore):
            group.create_task(scheduler.run())
        try:
            return await _follow(does, made, wait=wait)
        finally:
            scheduler.stop()


async def _follow(does: Operate, made: dict[str, Any], *, wait: bool) -> list[dict[str, Any]]:
    """Until no pass is running, or all that are left are parked and stay as they are."""
    ids, before, still_s = [row["id"] for row in made["passes"]], None, 0.0
    progress = output.ProgressLine()
    while True:
        told = await does("pass.status", {"ids": ids})
        running = [row for row in told["passes"] if row["state"] == "running"]
        still_s = still_s + POLL_S if running == before and all(row["parked_reason"] for row in running) else 0.0
        if not wait or not running or still_s > PATIENCE_S:
            progress.end()
            return list(told["passes"])
        before = running
        progress.tell(_stand(told["passes"]))
        await asyncio.sleep(POLL_S)


def _stand(rows: list[dict[str, Any]]) -> str:
    listed, done, slices = (sum(row[name] for row in rows) for name in ("listed", "slices_done", "slices"))
    return f"{listed} listed, {done} of {slices} slices read"


async def try_pass(settings: Settings, name: str, since: datetime | None, until: datetime | None) -> Report:
    """What a pass would find: the same requests, and nothing is written."""
    async with open_reader(settings) as store:
        begin = await store.read(partial(_read_up_to, name=name)) if since is None else since
        return await compare(settings, name, begin, until, partial(_recorded, store, name))


def _read_up_to(connection: Connection, name: str) -> datetime:
    row = sources.source_named(connection, name)
    if row is None:
        raise click.UsageError(f"source {name!r} is not in the ledger yet: name a time with --since")
    return from_us(min(stream.watermark_us for stream in sources.streams(connection, row["id"])))


async def _recorded(store: Store, name: str, keys: Sequence[str]) -> Collection[str]:
    return await store.read(partial(selection.seqs_of, keys=keys, source=name))
