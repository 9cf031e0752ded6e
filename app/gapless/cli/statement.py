"""Makes the statement of `gapless audit`, and writes its reports."""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final, TextIO

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gapless.bootstrap.policies import capabilities_of, webhook_url
from gapless.bootstrap.sources import open_provider_client
from gapless.cli import output
from gapless.cli.access import open_reader
from gapless.cli.common import find_source
from gapless.cli.input_files import BadLines, read_rows
from gapless.domain import system_clock
from gapless.errors import UserError
from gapless.ledger.team_table import read_ids
from gapless.ledger.worksheet import BATCH, open_worksheet
from gapless.money import READY_MADE
from gapless.operations import statement_report
from gapless.operations.signing import sign
from gapless.operations.statement import FoundFault, Statement
from gapless.operations.statement_run import AuditRequest, Ids, conclude, gather
from gapless.settings import Settings

KEPT: Final = 10_000
"""Most faults that JSON, text and HTML name; CSV names them all."""
SUMS, FAULTS = ".sums.csv", ".csv"
KINDS = (".txt", ".json", ".html", SUMS, FAULTS)


class ReportInvalid(UserError):
    """A report has a name that tells no format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementWish:
    """What a person wants audited, compared and written."""

    source: str
    since: datetime
    until: datetime | None
    types: tuple[str, ...]
    with_ledger: bool
    own_ids: Ids | None
    reports: tuple[Path, ...]
    key: Ed25519PrivateKey | None


def check_names(reports: Sequence[Path]) -> None:
    """Raise `ReportInvalid` if a report's name tells no format."""
    for path in reports:
        if not path.name.endswith(KINDS):
            raise ReportInvalid(f"report {path}: its name must end in {', '.join(KINDS)}")


async def ids_of_file(file: TextIO, *, skip_bad: bool) -> AsyncIterator[list[str]]:
    """Yield the ids of a file, in batches."""
    rows = read_rows(file, "auto", BadLines(skip=skip_bad))
    while keys := [row["key"] for row in islice(rows, BATCH)]:
        yield keys


def ids_of_query(query: str, dsn_env: str) -> Ids:
    """Return the ids that a query finds in the database whose address is in that variable. Raises `ReportInvalid`."""
    address = os.environ.get(dsn_env, "")
    if not address:
        raise ReportInvalid(f"--dsn-env: the variable {dsn_env} is not set; it must have the database's address")
    return read_ids(address, query)


async def make_statement(settings: Settings, wanted: StatementWish) -> tuple[Statement, list[FoundFault], int]:
    """Return the statement, its first faults and how many are left out, once every report is written."""
    source, progress = find_source(settings, wanted.source), output.ProgressLine()
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_reader(settings)) if wanted.with_ledger else None
        client = await stack.enter_async_context(
            open_provider_client(source, settings.public_url, os.environ, only_reads=True)
        )
        request = AuditRequest(
            capabilities=capabilities_of(source, client.source.provider),
            webhook_url=webhook_url(settings.public_url, wanted.source),
            since=wanted.since,
            until=wanted.until,
            now=system_clock(),
            types=wanted.types,
            pointers=READY_MADE.get(source.provider, ()),
            store=store,
            own_ids=wanted.own_ids,
            progress=progress.show,
        )
        sheet = stack.enter_context(open_worksheet())
        statement = await gather(client, request, sheet)
        progress.end()
        return _write(statement, conclude(statement, sheet), wanted)


def _write(
    statement: Statement, faults: Iterator[FoundFault], wanted: StatementWish
) -> tuple[Statement, list[FoundFault], int]:
    """Write the reports: those of all faults while they are found, the others at the end. Each appears whole."""
    first, count = list[FoundFault](), 0
    parts = {path: path.with_name(f"{path.name}.part") for path in wanted.reports}
    with ExitStack() as stack:
        files = {
            path: stack.enter_context(part.open("w", encoding="utf-8", newline="")) for path, part in parts.items()
        }
        streamed = [file for path, file in files.items() if _kind(path) == FAULTS]
        for file in streamed:
            file.write(statement_report.csv_row(statement_report.FAULT_COLUMNS))
        for found in faults:
            count += 1
            if len(first) < KEPT:
                first.append(found)
            for file in streamed:
                file.write(statement_report.csv_row(statement_report.fault_cells(found)))
        for path, file in files.items():
            file.writelines(_parts(_kind(path), statement, first, count - len(first)))
    for path, part in parts.items():
        part.replace(path)
        if wanted.key is not None:
            sign(path, wanted.key)
    return statement, first, count - len(first)


def _kind(path: Path) -> str:
    return next(kind for kind in KINDS if path.name.endswith(kind))


def _parts(kind: str, statement: Statement, faults: Sequence[FoundFault], left_out: int) -> Iterator[str]:
    match kind:
        case ".json":
            yield statement_report.as_json(statement, faults, left_out)
        case ".html":
            yield from statement_report.html_parts(statement, faults, left_out)
        case ".txt":
            yield from (f"{line}\n" for line in statement_report.text_lines(statement, faults, left_out))
        case kind if kind == SUMS:
            yield from statement_report.sums_csv(statement)


def show(statement: Statement, faults: Sequence[FoundFault], left_out: int, *, as_json: bool) -> None:
    """Print the statement."""
    if as_json:
        click.echo(statement_report.as_json(statement, faults, left_out), nl=False)
        return
    for line in statement_report.text_lines(statement, faults, left_out):
        click.echo(output.cell_text(line))
