"""`gapless status`: how far everything is proven, at a glance."""

import asyncio
import time
from datetime import datetime
from typing import Any

import click

from gapless.cli import output
from gapless.cli.access import known_sources, open_reader, plain
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.console import standing
from gapless.console import status as values
from gapless.daemon.wiring import make_policies
from gapless.domain import Sources, system_clock
from gapless.settings import Settings

WATCH_EVERY_S = 2.0


@click.command()
@click.option("--watch", is_flag=True, help="Show it again every two seconds.")
@click.option("--json", "json_", is_flag=True, help="As JSON; null is unknown.")
@click.pass_obj
def status(call: Invocation, watch: bool, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """Complete up to when, what was missed, what is still owed. Unknown is said to be unknown.

    Exit 1 if something is missing, parked, unrecoverable or dead.

    gapless status --watch
    """
    with failing_clearly(debug=call.debug):
        settings = call.settings()
        while True:
            stands = asyncio.run(_read(settings))
            if watch:
                click.clear()
            output.as_json(stands) if json_ else _show(stands)
            if not watch:
                raise SystemExit(Exit.NEGATIVE if is_troubled(stands) else Exit.OK)
            time.sleep(WATCH_EVERY_S)


async def _read(settings: Settings) -> dict[str, Any]:
    async with open_reader(settings) as store:
        book = await store.read(lambda connection: known_sources(settings, connection))
        known = tuple(each for each in settings.sources if each.name in book)
        policies = make_policies(known, book, settings.public_url)
        budgets = {name: policy.budget for name, policy in policies.items()}
        return plain(values.of_standing(await standing.read(store, Sources(book), budgets, system_clock())))


def is_troubled(stands: dict[str, Any]) -> bool:
    """True if somebody should look."""
    return any(_source_is_troubled(each) for each in stands["sources"]) or any(
        each["dead_letters"] for each in stands["destinations"]
    )


def _source_is_troubled(source: dict[str, Any]) -> bool:
    listed = source["list"]
    parked = any(stream["parked_reason"] for stream in source["streams"])
    return parked or bool(listed and (listed["missing_open"] or listed["unrecoverable"]))


def _show(stands: dict[str, Any]) -> None:
    columns = ("source", "complete up to", "checked", "missed", "recovered", "gap 1h", "gap 24h", "gap 7d", "state")
    output.table(columns, map(_source_row, stands["sources"]), empty="no source is in the ledger yet")
    click.echo()
    owed = ("destination", "pending", "oldest pending", "held", "parked", "dead")
    output.table(owed, map(_destination_row, stands["destinations"]), empty="no destination is configured")
    for source in stands["sources"]:
        _show_trouble(source)


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


def _show_trouble(source: dict[str, Any]) -> None:
    name, listed = source["name"], source["list"] or {}
    for stream in source["streams"]:
        if stream["parked_reason"]:
            click.echo(f"{name} {stream['name']}: parked: {stream['parked_reason']}")
    for loss in listed.get("unrecoverable", ()):
        click.echo(f"{name} {loss['stream']}: unrecoverable {loss['start']} to {loss['end']}: {loss['reason']}")
    if listed.get("missing_open"):
        click.echo(f"{name}: {listed['missing_open']} events are known to be missing and not recorded yet")
    if source["types_origin"] == "assumed":
        click.echo(f"{name}: it is assumed that every type is subscribed; set types, or let the key read the endpoint")
    if source["subscription"]["healthy"] is False:
        click.echo(f"{name}: subscription: {source['subscription']['reason']}")


def _rate(gap: dict[str, Any] | None) -> str | None:
    return None if gap is None or gap["rate"] is None else f"{gap['rate']:.2%}"


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
