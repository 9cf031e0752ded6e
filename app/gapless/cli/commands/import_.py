"""`gapless import`: tell the ledger what was processed already."""

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
@click.option("--skip-bad", is_flag=True, help="Go on after a line that cannot be read; say how many there were.")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def import_(call: Invocation, source: str, file: TextIO, format_: str, skip_bad: bool, json_: bool) -> None:  # noqa: FBT001
    """Record events as seen, owed to nobody, so that a later pass or webhook does not deliver them again.

    FILE ("-": stdin) has one id a line, CSV with a heading (id, and perhaps type and created), or NDJSON.
    Doing it again changes nothing, so an interrupted import is simply repeated.

    gapless import stripe-live ids.csv
    """
    with failing_clearly(debug=call.debug):
        bad = BadLines(skip=skip_bad)
        told = asyncio.run(_import(call.settings(), source, read_rows(file, format_, bad)))
        if json_:
            output.as_json({**told, "skipped": bad.count})
            return
        skipped = f", {bad.count} lines skipped" if bad.count else ""
        click.echo(f"{told['new']} new, {told['known']} known already{skipped}")


async def _import(settings: Settings, source: str, rows: Iterator[Mapping[str, Any]]) -> dict[str, int]:
    """How many were new and how many known. What stands before a bad line is recorded before it is refused."""
    total, progress, refused = {"new": 0, "known": 0}, output.ProgressLine(), list[LineInvalid]()
    reading = _until_refused(rows, refused)
    async with open_operations(settings) as does:
        while batch := list(islice(reading, BATCH)):
            told = await does("import", {"source": source, "events": batch})
            total = {name: count + told[name] for name, count in total.items()}
            progress.tell(f"{sum(total.values())} read")
    progress.end()
    if refused:
        before = f"the {sum(total.values())} events before it are recorded"
        raise LineInvalid(f"{refused[0].message}; {before}, and it does no harm to import them again")
    return total


def _until_refused(rows: Iterator[Mapping[str, Any]], refused: list[LineInvalid]) -> Iterator[Mapping[str, Any]]:
    try:
        yield from rows
    except LineInvalid as error:
        refused.append(error)
