"""`gapless status`: shows what is wrong, and up to when each source is proven complete."""

import asyncio
import os
import time
from datetime import datetime
from typing import Any

import click
import msgspec

from gapless.bootstrap.sources import known_sources
from gapless.cli import output
from gapless.cli.access import ask_daemon, daemon_of, open_reader, plain
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.clock import ProcessClock
from gapless.ledger import leases
from gapless.ledger.engine import SqliteStore, Store, StoreError
from gapless.ledger.times import ledger_time
from gapless.settings import Settings
from gapless.status import values
from gapless.status.reader import fault_of, read_report
from gapless.status.report import StoreFault, StoreReport
from gapless.status.troubles import Severity
from gapless.text import format_time

WATCH_EVERY_S = 2.0


@click.command()
@click.option("--watch", is_flag=True, help="Repeat every two seconds.")
@click.option("--json", "json_", is_flag=True, help="As JSON; null is unknown.")
@click.pass_obj
def status(invocation: Invocation, watch: bool, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """Show what is wrong, what to do next, and what is proven.

    That is up to when each source is complete, what was missed, and what is still owed.

    Exit 0 if all is well or in hand, 1 if a person is needed or the state is unknown.

    gapless status --watch
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        while True:
            report = asyncio.run(_read(settings))
            if watch:
                click.clear()
            output.as_json(report) if json_ else _show(report)
            if not watch:
                raise SystemExit(Exit.OK if Severity(report["verdict"]).is_well else Exit.NEGATIVE)
            time.sleep(WATCH_EVERY_S)


async def _read(settings: Settings) -> dict[str, Any]:
    async with open_reader(settings) as store:
        sources = await store.read(known_sources, settings, os.environ)
        configured = [each.name for each in settings.sources]
        faults = await _store_faults(settings, store)
        now, _ = await ledger_time(store, ProcessClock())
        return plain(values.of_report(await read_report(store, sources, now, configured, faults)))


async def _store_faults(settings: Settings, store: Store) -> list[StoreReport]:
    """Return what keeps the ledger from being written: as the daemon sees it on SQLite, by a write on PostgreSQL."""
    try:
        if (holder := daemon_of(settings)) is not None:
            seen = (await ask_daemon(holder, "GET", "/api/status")).get("store", ())
            found = [msgspec.convert(each, StoreReport) for each in seen]
            return [each for each in found if each.fault is not StoreFault.LOG_GROWS]
        if not isinstance(store, SqliteStore):
            await store.write(leases.try_write, slot=0)
    except StoreError as error:
        return [fault_of(error)]
    return []


def _show(report: dict[str, Any]) -> None:
    click.echo(f"{report['summary']}.")
    click.echo()
    columns = ("source", "complete up to", "checked", "missed", "recovered", "gap 1h", "gap 24h", "gap 7d", "state")
    output.table(columns, map(_source_row, report["sources"]), empty="no source is in the ledger yet")
    click.echo()
    owed = ("destination", "pending", "oldest pending", "waiting", "held", "parked", "dead")
    output.table(owed, map(_destination_row, report["destinations"]), empty="no destination is configured")
    click.echo()
    for trouble in report["troubles"]:
        _show_trouble(trouble)
    for source in report["sources"]:
        for said in (source["list"] or {}).get("reading", ()):
            click.echo(f"reading: {source['name']}: {said}")
        _show_notes(source)


def _source_row(source: dict[str, Any]) -> tuple[object, ...]:
    listed, losses = source["list"] or {}, source["losses"] or {}
    gaps = (_rate(source["gaps"][window]) for window in ("1h", "24h", "7d"))
    return (
        source["name"],
        _time(listed.get("complete_up_to")),
        _time(listed.get("checked_at")),
        losses.get("missed"),
        losses.get("recovered"),
        *gaps,
        source["state"],
    )


def _destination_row(destination: dict[str, Any]) -> tuple[object, ...]:
    backlog, oldest = destination["backlog"], _time(destination["oldest_pending"])
    name = f"{destination['name']} (paused)" if destination["paused"] else destination["name"]
    states = ("waiting", "held", "parked", "dead")
    return (name, backlog["pending"], oldest or "-", *(backlog[state] for state in states))


def _show_trouble(trouble: dict[str, Any]) -> None:
    where = " ".join(filter(None, (trouble["source"], trouble["stream"], trouble["destination"]))) or "gapless"
    since = _time(trouble["since"])
    suffix = f" Since {format_time(since)}." if since else ""
    click.echo(f"{trouble['severity'].replace('_', ' ')}: {where}: {trouble['text']}{suffix}")
    click.echo(f"    {trouble['next']}")


def _show_notes(source: dict[str, Any]) -> None:
    for note in source["notes"]:
        click.echo(f"note: {source['name']}: {note}")
    for loss in source["unrecoverable"]:
        done = loss["acknowledged"]
        state = f"acknowledged by {done['by']}: {done['reason']}" if done else "not acknowledged"
        where = f"{source['name']} {loss['stream']}".strip()
        click.echo(f"note: {where}: interval {loss['id']}, {loss['start']} to {loss['end']}, {loss['reason']}; {state}")


def _rate(gap: dict[str, Any] | None) -> str | None:
    return None if gap is None or gap["rate"] is None else f"{gap['rate']:.2%}"


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
