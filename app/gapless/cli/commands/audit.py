"""`gapless audit`: compare a provider's list with what a handler has processed. Needs no daemon and no database."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import TextIO

import click

from gapless.cli import output
from gapless.cli.common import Exit, Invocation, failing_clearly, find_source
from gapless.cli.input_files import READABLE, BadLines, read_rows
from gapless.cli.param_types import TIME
from gapless.cli.passes import audit_source
from gapless.operations.audit import AuditReport, KeyLookup
from gapless.text import format_span, format_time

SHOWN = 20


@click.command()
@click.argument("source")
@click.option("--since", type=TIME, default="30d", show_default=True)
@click.option("--until", type=TIME, help="Default: now minus the provider's grace.")
@click.option("--against", type=READABLE, help='Ids that were processed: one a line, CSV or NDJSON; "-": stdin.')
@click.option(
    "--type", "types", multiple=True, help="Only these types; invoice.* works. Default: as configured or subscribed."
)
@click.option("--skip-bad", is_flag=True, help="Skip lines of the file that cannot be read.")
@click.option("--missing-out", type=click.File("w", encoding="utf-8"), help="Write every missing id here, one a line.")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def audit(
    invocation: Invocation,
    *,
    source: str,
    since: datetime,
    until: datetime | None,
    against: TextIO | None,
    types: tuple[str, ...],
    skip_bad: bool,
    missing_out: TextIO | None,
    json_: bool,
) -> None:
    """Compare the provider's list with the ids you have processed.

    Needs a read key and nothing else. Exit 0 if nothing is missing, 1 if something is or may be.

    gapless audit stripe-live --since 30d --against ids.csv
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings(reads=source)
        find_source(settings, source)
        processed = None if against is None else _keys(against, skip_bad=skip_bad)
        known = None if processed is None else _lookup(processed)
        report = asyncio.run(audit_source(settings, source, since, until, known, types))
        if missing_out is not None:
            missing_out.writelines(f"{key}\n" for key in report.missing)
        output.as_json(report.as_values(processed)) if json_ else show_report(report, processed)
        raise SystemExit(Exit.NEGATIVE if report.missing or report.unreadable else Exit.OK)


def _keys(file: TextIO, *, skip_bad: bool) -> frozenset[str]:
    return frozenset(row["key"] for row in read_rows(file, "auto", BadLines(skip=skip_bad)))


def _lookup(processed: frozenset[str]) -> KeyLookup:
    async def known(keys: Sequence[str]) -> Collection[str]:
        return processed.intersection(keys)

    return known


def show_report(report: AuditReport, processed: Collection[str] | None, known_word: str = "processed") -> None:
    """Print the report for people."""
    for line in _lines(report, processed, known_word):
        click.echo(line)
    if report.compared and not report.missing:
        if not report.unreadable:
            click.echo("nothing is missing", err=True)
        return
    columns = ("listed", "missing") if report.compared else ("listed",)
    output.table(("type", *columns), _rows(report.kinds, columns), empty="")
    click.echo()
    output.table(("day", *columns), _rows(report.days, columns), empty="")
    if report.missing:
        click.echo()
        newest = sorted(report.missing.values(), key=lambda lost: lost.occurred_at, reverse=True)[:SHOWN]
        output.table(
            ("occurred", "type", "key"), ((lost.occurred_at, lost.type, lost.key) for lost in newest), empty=""
        )
    if len(report.missing) > SHOWN:
        click.echo(f"… and {len(report.missing) - SHOWN} more; --json or --missing-out FILE names them all")


def _lines(report: AuditReport, processed: Collection[str] | None, known_word: str) -> Iterator[str]:
    yield f"{format_time(report.window.start)} to {format_time(report.window.end)}"
    yield f"types {', '.join(report.types.patterns)} ({report.types_origin})"
    if report.unaudited is not None:
        forgotten = format_span(report.unaudited)
        yield f"the provider no longer lists the first {forgotten} of the requested time: that part is unknown"
    if report.unreadable:
        yield f"{len(report.unreadable)} rows of the list cannot be read: nobody knows whether their events are missing"
    if not report.compared:
        yield f"{report.listed} events are listed; nothing was compared: name a file of processed ids with --against"
        return
    yield f"{report.listed} listed, {report.found} {known_word}, {len(report.missing)} missing"
    if report.repeated:
        yield f"{report.repeated} events were listed more than once and are counted once"
    if processed is not None and (unlisted := report.not_listed(processed)):
        yield f"{unlisted} of your ids are not in this list: they are older, of other types, or of another account"


def _rows(table: dict[str, Counter[str]], columns: Sequence[str]) -> list[tuple[object, ...]]:
    """Return the rows with missing events, or all rows if nothing was compared."""
    wanted = {name: counts for name, counts in sorted(table.items()) if counts["missing"] or "missing" not in columns}
    return [(name, *(counts[column] for column in columns)) for name, counts in wanted.items()]
