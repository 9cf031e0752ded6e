"""`gapless destination`: list, show, pause and resume destinations."""

import asyncio

import click

from gapless.cli import output
from gapless.cli.access import operate, read_ledger
from gapless.cli.common import Invocation, failing_clearly
from gapless.domain import from_us
from gapless.errors import UserError
from gapless.ledger import destinations
from gapless.ledger.destinations import StoredDestination


@click.group()
def destination() -> None:
    """List, show, pause or resume destinations. A destination is where events go."""


@destination.command("list")
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(invocation: Invocation, *, json_: bool) -> None:
    """List every destination in the ledger, also retired ones."""
    with failing_clearly(debug=invocation.debug):
        rows = [_fields(each) for each in read_ledger(invocation.settings(), destinations.every)]
        if json_:
            output.as_lines(rows)
            return
        columns = ("destination", "state", "since", "paused since", "by", "reason")
        cells = (
            tuple(row[name] for name in ("name", "state", "since", "paused_since", "paused_by", "paused_reason"))
            for row in rows
        )
        output.table(columns, cells, empty="no destination is in the ledger yet")


@destination.command()
@click.argument("name")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def show(invocation: Invocation, name: str, *, json_: bool) -> None:
    """Show the destination NAME: since when it gets events, and whether it is paused.

    gapless destination show billing
    """
    with failing_clearly(debug=invocation.debug):
        found = read_ledger(invocation.settings(), destinations.destination, name=name)
        if found is None:
            raise UserError(f"destination {name!r} is not known; `gapless destination list` shows those that are")
        if json_:
            output.as_json(_fields(found))
            return
        for what, value in _fields(found).items():
            click.echo(f"{what.replace('_', ' '):22} {output.cell_text('-' if value is None else value)}")


@destination.command()
@click.argument("name")
@click.option("--reason", required=True, help="Why. `gapless status` shows it, and the audit log keeps it.")
@click.pass_obj
def pause(invocation: Invocation, *, name: str, reason: str) -> None:
    """Send nothing to the destination NAME until it is resumed. What it is owed is kept.

    gapless destination pause billing --reason "database upgrade until 14:00"
    """
    with failing_clearly(debug=invocation.debug):
        args = {"destination": name, "reason": reason}
        asyncio.run(operate(invocation.settings(), "destination.pause", args))
        click.echo(f"{name} is paused; what it is owed waits for `gapless destination resume {name}`")


@destination.command()
@click.argument("name")
@click.pass_obj
def resume(invocation: Invocation, *, name: str) -> None:
    """Send to the destination NAME again.

    gapless destination resume billing
    """
    with failing_clearly(debug=invocation.debug):
        asyncio.run(operate(invocation.settings(), "destination.resume", {"destination": name}))
        click.echo(f"{name} is resumed")


def _fields(row: StoredDestination) -> dict[str, object]:
    pause = row.pause
    return {
        "name": row.name,
        "state": "paused" if pause is not None and row.state == "active" else row.state,
        "since": from_us(row.since_us),
        "paused_since": None if pause is None else from_us(pause.since_us),
        "paused_by": None if pause is None else pause.by,
        "paused_reason": None if pause is None else pause.reason,
    }
