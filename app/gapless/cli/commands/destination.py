"""`gapless destination`: list, show, pause, resume and fill destinations."""

import asyncio
from datetime import datetime
from typing import Any

import click

from gapless.cli import output
from gapless.cli.access import open_operations, operate, read_ledger
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.cli.param_types import TIME
from gapless.domain import from_us, system_clock
from gapless.errors import UserError
from gapless.ledger import destinations
from gapless.ledger.destinations import StoredDestination
from gapless.settings import Settings


@click.group()
def destination() -> None:
    """List, show, pause, resume or fill destinations. A destination is where events go."""


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


@destination.command()
@click.argument("name")
@click.option("--since", type=TIME, help="Default: the time from which it is owed events. 30d, 2026-01-31, …")
@click.option("--until", type=TIME, help="Default: now.")
@click.option("--yes", is_flag=True, help="Do not ask before it is owed them.")
@click.pass_obj
def fill(invocation: Invocation, *, name: str, since: datetime | None, until: datetime | None, yes: bool) -> None:
    """Owe the destination NAME the recorded events that it takes and was never owed.

    So a destination that is added later gets what the ledger has. The command says how many they are before it asks.
    Once it was interrupted, call it again: what is owed already stays as it is.

    gapless destination fill billing --since 30d
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        args: dict[str, object] = {"destination": name, "since": since, "until": until or system_clock()}
        plan = asyncio.run(_filled(settings, {**args, "dry_run": True}))
        extent = f", first {plan['first']}, last {plan['last']}" if plan["owed"] else ""
        click.echo(f"{plan['owed']} events that {name} was never owed{extent}{_held(plan)}")
        if not plan["owed"] or not (yes or click.confirm(f"Send them to {name}?")):
            raise SystemExit(Exit.OK if not plan["owed"] else Exit.NEGATIVE)
        done = asyncio.run(_filled(settings, args))
        click.echo(f"{done['owed']} deliveries are owed to {name}{_held(done)}")


async def _filled(settings: Settings, args: dict[str, object]) -> dict[str, Any]:
    """Repeat the operation until all of the ledger was read; return the sums."""
    async with open_operations(settings) as perform:
        done = await perform("destination.fill", args)
        while done["after"] is not None:
            more = await perform("destination.fill", {**args, "after": done["after"]})
            firsts, lasts = ([each for each in (done[of], more[of]) if each] for of in ("first", "last"))
            more["first"], more["last"] = min(firsts, default=None), max(lasts, default=None)
            done = {**more, "owed": done["owed"] + more["owed"], "held": done["held"] + more["held"]}
        return done


def _held(counted: dict[str, Any]) -> str:
    return f"; {counted['held']} of them are held for a decision" if counted["held"] else ""


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
