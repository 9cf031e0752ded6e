"""`gapless audit`: compare a provider's list with what a handler has processed. Needs no daemon and no database."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn, TextIO

import click

from gapless.cli import output, statement
from gapless.cli.common import Exit, Invocation, failing_clearly, find_source
from gapless.cli.input_files import READABLE, BadLines, read_rows
from gapless.cli.param_types import TIME
from gapless.cli.passes import audit_source
from gapless.operations.audit import AuditReport, KeyLookup
from gapless.operations.signing import read_private_key
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
@click.option("--ledger", is_flag=True, help="Compare the ledger, its deliveries and their receipts too.")
@click.option("--against-sql", metavar="SELECT", help="A query of your database for the ids that were processed.")
@click.option("--dsn-env", metavar="NAME", help="The variable that has the database's address, for --against-sql.")
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a report: .html, .json, .txt, .csv (every fault) or .sums.csv, by its name. Repeatable.",
)
@click.option(
    "--sign-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Ed25519 key (PEM) for reports."
)
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
    ledger: bool,
    against_sql: str | None,
    dsn_env: str | None,
    reports: tuple[Path, ...],
    sign_key: Path | None,
    json_: bool,
) -> None:
    """Compare the provider's list with the ids you have processed.

    Needs a read key and nothing else. Exit 0 if nothing is missing, 1 if something is or may be.

    gapless audit stripe-live --since 30d --against ids.csv

    With --ledger, --against-sql or --report it makes a statement: counts, exact sums, and all that is missing,
    unlisted, undelivered, unconfirmed, absent in your table or unrecoverable. Exit 0 only if it is complete.

    gapless audit stripe-live --since 2026-10-01 --until 2026-11-01 --ledger --report october.html
    """
    if (against_sql is None) != (dsn_env is None) or (against is not None and against_sql is not None):
        raise click.UsageError("--against-sql needs --dsn-env, and no --against")
    if sign_key is not None and not reports:
        raise click.UsageError("--sign-key signs reports: name one with --report")
    with failing_clearly(debug=invocation.debug):
        if ledger or against_sql is not None or reports:
            if missing_out is not None:
                raise click.UsageError("--missing-out is for the audit without a statement; use --report FILE.csv")
            statement.check_names(reports)
            own_ids = None if against is None else statement.ids_of_file(against, skip_bad=skip_bad)
            if against_sql is not None and dsn_env is not None:
                own_ids = statement.ids_of_query(against_sql, dsn_env)
            wanted = statement.StatementWish(
                source=source,
                since=since,
                until=until,
                types=types,
                with_ledger=ledger,
                own_ids=own_ids,
                reports=reports,
                key=None if sign_key is None else read_private_key(sign_key),
            )
            _make_statement(invocation, wanted, as_json=json_)
        settings = invocation.settings(reads=source)
        find_source(settings, source)
        processed = None if against is None else _keys(against, skip_bad=skip_bad)
        known = None if processed is None else _lookup(processed)
        report = asyncio.run(audit_source(settings, source, since, until, known, types))
        if missing_out is not None:
            missing_out.writelines(f"{key}\n" for key in report.missing)
        output.as_json(report.as_values(processed)) if json_ else show_report(report, processed)
        raise SystemExit(Exit.NEGATIVE if report.missing or report.unreadable else Exit.OK)


def _make_statement(invocation: Invocation, wanted: statement.StatementWish, *, as_json: bool) -> NoReturn:
    settings = invocation.settings() if wanted.with_ledger else invocation.settings(reads=wanted.source)
    made, faults, left_out = asyncio.run(statement.make_statement(settings, wanted))
    statement.show(made, faults, left_out, as_json=as_json)
    raise SystemExit(Exit.OK if made.is_complete else Exit.NEGATIVE)


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
