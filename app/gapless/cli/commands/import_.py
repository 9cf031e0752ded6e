"""`gapless import`: record events that were processed already."""

import asyncio
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TextIO

import click

from gapless.cli import output
from gapless.cli.access import open_operations
from gapless.cli.common import Invocation, failing_clearly
from gapless.cli.input_files import READABLE, BadLines, LineInvalid, read_rows
from gapless.settings import Settings

BATCH = 1000


@click.command("import")
@click.argument("source")
@click.argument("file", type=READABLE, default="-")
@click.option("--format", "format_", type=click.Choice(["auto", "csv", "ndjson"]), default="auto", show_default=True)
@click.option("--skip-bad", is_flag=True, help="Skip and count lines that cannot be read.")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def import_(invocation: Invocation, source: str, file: TextIO, format_: str, skip_bad: bool, json_: bool) -> None:  # noqa: FBT001
    """Record processed events, so that they are not sent again.

    FILE ("-": stdin) has one id a line, CSV with a heading (id, and perhaps type and created), or NDJSON.
    Importing twice changes nothing, so repeat an interrupted import.

    gapless import stripe-live ids.csv
    """
    with failing_clearly(debug=invocation.debug):
        bad = BadLines(skip=skip_bad)
        result = asyncio.run(_import(invocation.settings(), source, read_rows(file, format_, bad)))
        if json_:
            output.as_json({**result, "skipped": bad.count})
            return
        skipped = f", {bad.count} lines skipped" if bad.count else ""
        click.echo(f"{result['new']} new, {result['known']} known already{skipped}")


async def _import(settings: Settings, source: str, rows: Iterator[Mapping[str, Any]]) -> dict[str, int]:
    """Return the counts of new and known events. A bad line is refused after the events before it were recorded."""
    total, progress, refused = {"new": 0, "known": 0}, output.ProgressLine(), list[LineInvalid]()
    good_rows = _until_refused(rows, refused)
    async with open_operations(settings) as operate:
        while batch := list(islice(good_rows, BATCH)):
            counts = await operate("import", {"source": source, "events": batch})
            total = {name: count + counts[name] for name, count in total.items()}
            progress.show(f"{sum(total.values())} read")
    progress.end()
    if refused:
        before = f"the {sum(total.values())} events before it are recorded"
        raise LineInvalid(f"{refused[0].message}; {before}, and you can import them again")
    return total


def _until_refused(rows: Iterator[Mapping[str, Any]], refused: list[LineInvalid]) -> Iterator[Mapping[str, Any]]:
    try:
        yield from rows
    except LineInvalid as error:
        refused.append(error)
