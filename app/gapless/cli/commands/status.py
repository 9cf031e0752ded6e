"""`gapless status`: how far everything is proven, at a glance."""

import asyncio
import time
from datetime import datetime
from typing import Any

import click

from gapless.bootstrap.sources import known_sources, make_policies
from gapless.cli import output
from gapless.cli.access import open_reader, plain
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.domain import Sources, system_clock
from gapless.settings import Settings
from gapless.status import values
from gapless.status.reader import read_report
from gapless.status.troubles import Severity
from gapless.text import format_time

WATCH_EVERY_S = 2.0


@click.command()
@click.option("--watch", is_flag=True, help="Show it again every two seconds.")
@click.option("--json", "json_", is_flag=True, help="As JSON; null is unknown.")
@click.pass_obj
def status(call: Invocation, watch: bool, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """What is wrong and what to do next; complete up to when, what was missed, what is still owed.

    Exit 0 if all is well or in hand, 1 if a person is needed or if it is not known.

    gapless status --watch
    """
    with failing_clearly(debug=call.debug):
        settings = call.settings()
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
        book = await store.read(known_sources, settings)
        known = tuple(each for each in settings.sources if each.name in book)
        policies = make_policies(known, book, settings.public_url)
        budgets = {name: policy.budget for name, policy in policies.items()}
        configured = [each.name for each in settings.sources]
        return plain(values.of_report(await read_report(store, Sources(book), budgets, system_clock(), configured)))


def _show(report: dict[str, Any]) -> None:
    click.echo(f"{report['summary']}.")
    click.echo()
    columns = ("source", "complete up to", "checked", "missed", "recovered", "gap 1h", "gap 24h", "gap 7d", "state")
    output.table(columns, map(_source_row, report["sources"]), empty="no source is in the ledger yet")
    click.echo()
    owed = ("destination", "pending", "oldest pending", "held", "parked", "dead")
    output.table(owed, map(_destination_row, report["destinations"]), empty="no destination is configured")
    click.echo()
    for trouble in report["troubles"]:
        _show_trouble(trouble)
    for source in report["sources"]:
        _show_notes(source)


def _source_row(source: dict[str, Any]) -> tuple[object, ...]:
    listed, losses = source["list"] or {}, source["losses"] or {}
    gaps = (_rate(source["gaps"][window]) for window in ("1h", "24h", "7d"))
    return (
        source["name"],
        _moment(listed.get("complete_up_to")),
        _moment(listed.get("checked_at")),
        losses.get("missed"),
        losses.get("recovered"),
        *gaps,
        source["state"],
    )


def _destination_row(destination: dict[str, Any]) -> tuple[object, ...]:
    backlog, oldest = destination["backlog"], _moment(destination["oldest_pending"])
    return (destination["name"], backlog["pending"], oldest or "-", backlog["held"], backlog["parked"], backlog["dead"])


def _show_trouble(trouble: dict[str, Any]) -> None:
    where = " ".join(filter(None, (trouble["source"], trouble["stream"], trouble["destination"]))) or "gapless"
    since = _moment(trouble["since"])
    told = f" Since {format_time(since)}." if since else ""
    click.echo(f"{trouble['severity'].replace('_', ' ')}: {where}: {trouble['text']}{told}")
    click.echo(f"    {trouble['next']}")


def _show_notes(source: dict[str, Any]) -> None:
    for note in source["notes"]:
        click.echo(f"note: {source['name']}: {note}")
    for loss in (source["list"] or {}).get("unrecoverable", ()):
        done = loss["acknowledged"]
        told = f"acknowledged by {done['by']}: {done['reason']}" if done else "not acknowledged"
        where = f"{source['name']} {loss['stream']}".strip()
        click.echo(f"note: {where}: interval {loss['id']}, {loss['start']} to {loss['end']}, {loss['reason']}; {told}")


def _rate(gap: dict[str, Any] | None) -> str | None:
    return None if gap is None or gap["rate"] is None else f"{gap['rate']:.2%}"


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
