"""`gapless quarantine`: refused webhooks, and reading them again once a secret is mended."""

import asyncio

import click
import msgspec

from gapless.bootstrap.sources import known_sources
from gapless.cli import output
from gapless.cli.access import operate, read_ledger
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.domain import from_us
from gapless.ledger import Connection, sources
from gapless.ledger import quarantine as ledger
from gapless.ledger.quarantine import QuarantineEntry
from gapless.receive.diagnosis import diagnose
from gapless.receive.quarantine import request_of
from gapless.settings import Settings

RELEASED = {True: "yes", False: "no"}


@click.group()
def quarantine() -> None:
    """Refused webhooks, kept for a while with the reason."""


@quarantine.command("list")
@click.option("--source")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(call: Invocation, source: str | None, limit: int, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """What was refused, and why, as far as trying can tell."""
    with failing_clearly(debug=call.debug):
        settings = call.settings()
        rows = read_ledger(settings, _explained, settings=settings, source=source, limit=limit)
        if json_:
            output.as_lines({**msgspec.to_builtins(entry), "explanation": why} for entry, why in rows)
            return
        columns = ("id", "received", "reason", "why", "bytes", "released")
        cells = (
            (
                row.id,
                from_us(row.received_us),
                row.reason,
                why or row.detail,
                row.size,
                "yes" if row.released_us else "no",
            )
            for row, why in rows
        )
        output.table(columns, cells, empty="the quarantine is empty")


def _explained(
    connection: Connection, settings: Settings, source: str | None, limit: int
) -> list[tuple[QuarantineEntry, str]]:
    """The entries, each with what more can be told of it; nothing of what was released, or whose source is gone."""
    book = known_sources(connection, settings)
    names, providers = {each.id: each.name for each in book}, {each.name: each.provider for each in book}
    told = []
    for entry in _entries(connection, source, limit):
        found = ledger.content(connection, entry.id)
        why = ""
        if found is not None and entry.released_us is None and entry.source_id in names:
            row = found[0]
            why = diagnose(providers, names[row.source_id], request_of(row), from_us(row.received_us))
        told.append((entry, why))
    return told


def _entries(connection: Connection, source: str | None, limit: int) -> list[QuarantineEntry]:
    row = None if source is None else sources.source_named(connection, source)
    if source is not None and row is None:
        raise click.BadParameter(f"source {source!r} is not in the ledger", param_hint="--source")
    return ledger.entries(connection, None if row is None else row["id"], limit=limit)


@quarantine.command()
@click.argument("id", type=int, required=False)
@click.option("--source", help="All of this source, instead of one id.")
@click.pass_obj
def release(call: Invocation, id: int | None, source: str | None) -> None:  # noqa: A002 - its name on the command line
    """Verify again with today's secrets, as of when it was received, and record what verifies.

    Exit 1 if something still does not verify.

    gapless quarantine release --source stripe-live
    """
    with failing_clearly(debug=call.debug):
        told = asyncio.run(operate(call.settings(), "quarantine.release", {"id": id, "source": source}))
        click.echo(f"{told['released']} released, {told['new']} new events, {told['refused']} still refused")
        for refused in told["first_refused"]:
            click.echo(f"  {refused['id']}: {refused['reason']}: {refused['detail']}")
        raise SystemExit(Exit.NEGATIVE if told["refused"] else Exit.OK)
