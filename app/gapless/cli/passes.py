"""Requests passes and shows their progress (`gapless source pass`); runs the audit; plans and owes deliveries.

The daemon that holds the ledger makes the passes, else this process does.
"""

import asyncio
import os
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import click

from gapless.bootstrap.policies import capabilities_of, webhook_url
from gapless.bootstrap.runtime import ProcessParts, open_runtime
from gapless.bootstrap.sources import known_sources, open_provider_client
from gapless.cli import output
from gapless.cli.access import Operate, call_daemon, daemon_of, open_operations, open_reader, perform_here
from gapless.cli.common import find_source
from gapless.domain import ALL_TYPES, EventMode, TypePatterns, from_us, system_clock
from gapless.errors import Unavailable
from gapless.ledger import Connection, events, sources, streams
from gapless.ledger.engine import PostgresStore, Store
from gapless.operations import deliveries
from gapless.operations.audit import AuditReport, KeyLookup, audit_list
from gapless.operations.deliveries import PLAN_BATCH, PlannedDeliveries, WantedEvents
from gapless.reconcile.scheduler import Scheduler
from gapless.settings import DestinationSettings, Settings
from gapless.status.troubles import READ
from gapless.text import format_time

POLL_S = 0.5


class PassNotMade(Unavailable):
    """The provider could not be read now. The daemon goes on trying."""


async def make_passes(settings: Settings, args: dict[str, object], *, wait: bool) -> list[dict[str, Any]]:
    """Request the passes and return the progress of each; with `wait`, once they have ended."""
    holder = daemon_of(settings)
    if holder is not None:
        operate = partial(call_daemon, holder)
        made = await operate("source.pass", args)
        return await _follow(operate, made, wait=wait)
    async with open_runtime(settings, os.environ) as parts:
        return await _make_here(parts, settings, args, wait=wait)


async def _make_here(
    parts: ProcessParts, settings: Settings, args: dict[str, object], *, wait: bool
) -> list[dict[str, Any]]:
    """Make the passes in this process. On PostgreSQL a daemon elsewhere may be first to lease the source."""
    operate = perform_here(parts, settings)
    made = await operate("source.pass", args)
    async with asyncio.TaskGroup() as group:
        scheduler = Scheduler(parts.runtime, parts.policies, parts.client, holder=parts.holder, tick_s=POLL_S)
        if wait or not isinstance(parts.runtime.store, PostgresStore):
            group.create_task(scheduler.run())
        try:
            return await _follow(operate, made, wait=wait)
        finally:
            scheduler.stop()


async def _follow(operate: Operate, made: dict[str, Any], *, wait: bool) -> list[dict[str, Any]]:
    """Show progress until no pass is running, or all that run have been tried and could not be made.

    Raises `PassNotMade` if there is no pass because the provider wants a pause.
    """
    if not made["passes"] and made.get("waiting_until"):
        raise PassNotMade(f"source {made['source']!r}: {waiting_text(made['waiting_until'])}")
    ids, progress = [row["id"] for row in made["passes"]], output.ProgressLine()
    while True:
        progressed = await operate("pass.status", {"ids": ids})
        running = [row for row in progressed["passes"] if row["state"] == "running"]
        if not wait or all(reason_not_made(row) for row in running):
            progress.end()
            return list(progressed["passes"])
        progress.show(_progress_text(progressed["passes"]))
        await asyncio.sleep(POLL_S)


def reason_not_made(row: dict[str, Any]) -> str | None:
    """Return why a pass that is still running cannot be made now, once it was tried. None: it may still be made."""
    if row["waiting_until"]:
        return waiting_text(row["waiting_until"])
    if row["last_error"]:
        return str(row["last_error"])
    if row["tried"] and row["stream_outcome"] not in READ:
        return str(row["error"] or row["parked_reason"] or row["stream_outcome"])
    return None


def has_failed_for_good(row: dict[str, Any]) -> bool:
    """Return True if the pass itself failed, and not because the provider could not be reached."""
    return bool(row["last_error"]) and not row["last_error"].startswith(("ProviderUnavailable", "RateLimited"))


def waiting_text(until: str) -> str:
    """Return the sentence that says until when the provider wants no request."""
    return f"waiting until {format_time(datetime.fromisoformat(until))}, because the provider said so"


def _progress_text(rows: list[dict[str, Any]]) -> str:
    listed, done, slices = (sum(row[name] for row in rows) for name in ("listed", "slices_done", "slices"))
    return f"{listed} listed, {done} of {slices} slices read"


async def audit_source(
    settings: Settings,
    name: str,
    since: datetime,
    until: datetime | None,
    known: KeyLookup | None,
    types: Sequence[str] = (),
) -> AuditReport:
    """Compare the source's list with the keys in `known` (None: only count), and show the progress."""
    wanted, progress = find_source(settings, name), output.ProgressLine()

    def show(report: AuditReport) -> None:
        progress.show(f"{report.listed} listed" + (f", {len(report.missing)} missing" if known else ""))

    async with open_provider_client(wanted, settings.public_url, os.environ, only_reads=True) as client:
        report = await audit_list(
            client,
            capabilities_of(wanted, client.source.provider),
            webhook_url(settings.public_url, name),
            since,
            until,
            now=system_clock(),
            known=known,
            types=types,
            progress=show,
        )
    progress.end()
    return report


async def try_pass(settings: Settings, name: str, since: datetime | None, until: datetime | None) -> AuditReport:
    """Return the report of a pass that makes the same requests and writes nothing."""
    async with open_reader(settings) as store:
        begin = await store.read(_read_up_to, name=name) if since is None else since
        return await audit_source(settings, name, begin, until, partial(_recorded, store, name))


def _read_up_to(connection: Connection, name: str) -> datetime:
    row = sources.source_named(connection, name)
    if row is None:
        raise click.UsageError(f"source {name!r} is not in the ledger yet: name a time with --since")
    return from_us(min(stream.watermark_us for stream in streams.streams(connection, row["id"])))


async def _recorded(store: Store, name: str, keys: Sequence[str]) -> Collection[str]:
    return await store.read(events.seqs_of, keys=keys, source=name)


async def plan_deliveries(settings: Settings, source: str, since: datetime, until: datetime) -> list[PlannedDeliveries]:
    """Return the events that each destination of the source would be owed from a pass before the source's start."""
    receiving = [each for each in settings.destinations if each.sources == ("*",) or source in each.sources]
    wanted = {each.name: _wanted(each) for each in receiving}
    async with open_reader(settings) as store:
        known = await store.read(known_sources, settings, os.environ)
        types = known[source].types if source in known else ALL_TYPES
        return await deliveries.plan_deliveries(store, source, types, since, until, wanted)


def _wanted(destination: DestinationSettings) -> WantedEvents:
    modes = None if destination.modes is None else frozenset(mode is EventMode.LIVE for mode in destination.modes)
    return WantedEvents(types=TypePatterns(destination.types), livemodes=modes, when=destination.when)


def describe(planned: PlannedDeliveries) -> str:
    """Return one line: the destination, and the number of events that it would be owed."""
    left_out = f"; left out: {planned.unjudged} whose condition cannot be evaluated" if planned.unjudged else ""
    if not planned.keys:
        return f"{planned.destination}: nothing new to deliver{left_out}"
    first, last = (format_time(from_us(us)) for us in (planned.first_us, planned.last_us))
    return f"{planned.destination}: {len(planned.keys)} events, first {first}, last {last}{left_out}"


async def deliver(settings: Settings, source: str, planned: list[PlannedDeliveries]) -> int:
    """Owe the planned events to their destinations; return the number of deliveries."""
    sent = 0
    async with open_operations(settings) as operate:
        for each in planned:
            for at in range(0, len(each.keys), PLAN_BATCH):
                keys = each.keys[at : at + PLAN_BATCH]
                args = {"destination": each.destination, "source": source, "keys": keys}
                sent += (await operate("event.replay", args))["replayed"]
    return sent
