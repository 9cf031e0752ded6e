"""`gapless quarantine`: list refused webhooks, and release them when the cause is corrected."""

import asyncio
import os

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
from gapless.sealing import CannotOpen
from gapless.settings import Settings


@click.group()
def quarantine() -> None:
    """List or release refused webhooks. They are kept for a while with the reason."""


@quarantine.command("list")
@click.option("--source")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(invocation: Invocation, source: str | None, limit: int, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """List refused webhooks with the reason and, if one is found, the likely cause."""
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        rows = read_ledger(settings, _explained, settings=settings, source=source, limit=limit)
        if json_:
            output.as_lines({**msgspec.to_builtins(entry), "explanation": why} for entry, why in rows)
            return
        columns = ("id", "received", "from", "reason", "why", "claims", "bytes", "released")
        cells = (
            (
                row.id,
                from_us(row.received_us),
                row.sender or "-",
                row.reason,
                why or row.detail,
                " ".join(row.claims) or "-",
                row.size,
                "yes" if row.released_us else "purged" if row.purged_us else "no",
            )
            for row, why in rows
        )
        output.table(columns, cells, empty="the quarantine is empty")


def _explained(
    connection: Connection, settings: Settings, source: str | None, limit: int
) -> list[tuple[QuarantineEntry, str]]:
    """Return the entries, each with its diagnosis; it is empty for released ones and for sources that are gone."""
    configured = known_sources(connection, settings, os.environ)
    by_id, providers = {each.id: each for each in configured}, {each.name: each.provider for each in configured}
    explained = []
    for entry in _entries(connection, source, limit):
        why, found = "", None
        try:
            found = ledger.content(connection, entry.id)
        except CannotOpen as error:
            why = str(error)
        is_whole = entry.released_us is None and entry.purged_us is None and entry.reason not in ledger.PARTIAL
        if found is not None and is_whole and entry.source_id in by_id:
            row, its = found[0], by_id[entry.source_id]
            request = request_of(row, providers.values(), its.digest_key)
            why = diagnose(providers, its.name, request, from_us(row.received_us))
        explained.append((entry, why))
    return explained


def _entries(connection: Connection, source: str | None, limit: int) -> list[QuarantineEntry]:
    row = None if source is None else sources.source_named(connection, source)
    if source is not None and row is None:
        raise click.BadParameter(f"source {source!r} is not in the ledger", param_hint="--source")
    return ledger.entries(connection, None if row is None else row["id"], limit=limit)


@quarantine.command()
@click.argument("id", type=int, required=False)
@click.option("--source", help="All webhooks of this source, instead of one id.")
@click.pass_obj
def release(invocation: Invocation, id: int | None, source: str | None) -> None:  # noqa: A002 - its name on the command line
    """Verify webhooks again with the current secrets, as of the time of receipt, and record those that verify.

    Exit 1 if something still does not verify.

    gapless quarantine release --source stripe-live
    """
    with failing_clearly(debug=invocation.debug):
        result = asyncio.run(operate(invocation.settings(), "quarantine.release", {"id": id, "source": source}))
        click.echo(f"{result['released']} released, {result['new']} new events, {result['refused']} still refused")
        for refused in result["first_refused"]:
            click.echo(f"  {refused['id']}: {refused['reason']}: {refused['detail']}")
        raise SystemExit(Exit.NEGATIVE if result["refused"] else Exit.OK)
