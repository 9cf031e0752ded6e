"""`gapless quarantine`: refused webhooks, and reading them again once a secret is mended."""

import asyncio
from functools import partial

import click

from gapless.cli import show
from gapless.cli.common import Call, Exit, failing_clearly
from gapless.cli.ledger import operate, read
from gapless.domain import from_us
from gapless.ledger import Connection, sources
from gapless.ledger import quarantine as ledger
from gapless.ledger.quarantine import Entry


@click.group()
def quarantine() -> None:
    """Refused webhooks, kept for a while with the reason."""


@quarantine.command("list")
@click.option("--source")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(call: Call, source: str | None, limit: int, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """What was refused, and why."""
    with failing_clearly(debug=call.debug):
        rows = read(call.settings(), partial(_entries, source=source, limit=limit))
        if json_:
            show.as_lines(rows)
            return
        columns = ("id", "received", "reason", "detail", "bytes", "released")
        cells = (
            (row.id, from_us(row.received_us), row.reason, row.detail, row.size, "yes" if row.released_us else "no")
            for row in rows
        )
        show.table(columns, cells, empty="the quarantine is empty")


def _entries(connection: Connection, source: str | None, limit: int) -> list[Entry]:
    row = None if source is None else sources.source_named(connection, source)
    if source is not None and row is None:
        raise click.BadParameter(f"source {source!r} is not in the ledger", param_hint="--source")
    return ledger.entries(connection, None if row is None else row["id"], limit=limit)


@quarantine.command()
@click.argument("id", type=int, required=False)
@click.option("--source", help="All of this source, instead of one id.")
@click.pass_obj
def release(call: Call, id: int | None, source: str | None) -> None:  # noqa: A002 - its name on the command line
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
