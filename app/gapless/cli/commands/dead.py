"""`gapless dead`: dead letters, and held deliveries."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

from gapless.cli import output
from gapless.cli.access import operate, read_ledger
from gapless.cli.common import Exit, Invocation, failing_clearly, job_text
from gapless.cli.param_types import TIME
from gapless.domain import from_us, to_us
from gapless.errors import UserError
from gapless.ledger import Connection, destinations, unsettled
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.unsettled import Unsettled, UnsettledFilter

F = TypeVar("F", bound=Callable[..., object])


@click.group()
def dead() -> None:
    """List, requeue or discard dead letters and held deliveries.

    A dead letter is a delivery that ran out of attempts or was refused for good. A held one waits for your decision.
    """


def filtered(command: F) -> F:
    """Add the options that choose deliveries."""
    options = (
        click.option("--destination", help="Only those to this destination."),
        click.option("--source", help="Only those of this source."),
        click.option("--type", "types", multiple=True, help="Only these types, such as invoice.paid or invoice.*"),
        click.option("--since", type=TIME, help="Only those that died, or were held, at or after this time."),
        click.option("--until", type=TIME, help="Only those before this time."),
        click.option("--reason", help="Only those of this reason, as `gapless dead list` shows it."),
        click.option("--object", "object_", help="Only those about this object, such as cus_1…"),
        click.option("--held", is_flag=True, help="Held deliveries instead."),
    )
    for each in reversed(options):
        command = each(command)
    return command


@dead.command("list")
@filtered
@click.option("--after", help="Go on after this position: the last line of --json has it as `position`.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(invocation: Invocation, /, *, held: bool, after: str | None, limit: int, json_: bool, **chosen: Any) -> None:
    """List dead letters with their reasons, in the order in which their events were recorded.

    gapless dead list --source stripe-live --type "invoice.*" --since 2h
    """
    with failing_clearly(debug=invocation.debug):
        settings, position = invocation.settings(), _position(after)
        rows = read_ledger(settings, _waiting, chosen=_filter(held=held, **chosen), after=position, limit=limit)
        if json_:
            output.as_lines(map(_fields, rows))
            return
        columns = ("since", "destination", "source", "type", "key", "attempts", "reason")
        cells = (
            (from_us(row.done_us), row.destination, row.source, row.type, row.key, row.attempts, row.reason)
            for row in rows
        )
        output.table(columns, cells, empty="no delivery matches")
        if len(rows) == limit:
            click.echo(f"there may be more: --after {rows[-1].position}", err=True)


def _filter(
    *,
    held: bool,
    destination: str | None,
    source: str | None,
    types: Sequence[str],
    since: datetime | None,
    until: datetime | None,
    reason: str | None,
    object_: str | None,
) -> UnsettledFilter:
    return UnsettledFilter(
        state=DeliveryState.HELD if held else DeliveryState.DEAD,
        destinations=None if destination is None else (destination,),
        sources=None if source is None else (source,),
        types=tuple(types) or None,
        since_us=None if since is None else to_us(since),
        until_us=None if until is None else to_us(until),
        reason=reason,
        object_key=object_,
    )


def _waiting(connection: Connection, chosen: UnsettledFilter, after: unsettled.Key, limit: int) -> list[Unsettled]:
    """Return the chosen deliveries. Raises `UserError` if the ledger does not know the destination."""
    for name in chosen.destinations or ():
        if destinations.destination(connection, name) is None:
            raise UserError(f"destination {name!r} is not known; `gapless status` shows those that are")
    return unsettled.page(connection, chosen, after=after, limit=limit)


def _position(text: str | None) -> unsettled.Key:
    position = unsettled.START if text is None else unsettled.read_position(text)
    if position is None:
        raise click.BadParameter(f"{text!r} is no position; use one that `gapless dead list` printed")
    return position


def _fields(row: Unsettled) -> dict[str, object]:
    return {
        "destination": row.destination,
        "seq": row.seq,
        "source": row.source,
        "key": row.key,
        "type": row.type,
        "object": row.object_key,
        "occurred_us": row.occurred_us,
        "state": row.state,
        "reason": row.reason,
        "attempts": row.attempts,
        "done_us": row.done_us,
        "position": row.position,
    }


@dead.command()
@click.argument("keys", nargs=-1)
@filtered
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--rate", type=click.FloatRange(0.1, 10_000), help="Deliveries a second. Default: as they are taken.")
@click.option("--note", help="Why, for the audit log.")
@click.pass_obj
def requeue(
    invocation: Invocation, /, *, keys: Sequence[str], held: bool, dry_run: bool, yes: bool, **chosen: Any
) -> None:
    """Give dead letters new attempts: those with these KEYS, or all that match.

    gapless dead requeue --destination billing --reason consumer_4xx
    """
    with failing_clearly(debug=invocation.debug):
        args = _args(keys, **chosen)
        done = _perform(invocation, "held.release" if held else "dead.requeue", args, dry_run=dry_run, yes=yes)
        sent = "released" if held else "requeued"
        click.echo(job_text(done) if "job" in done else f"{done[sent]} deliveries will be sent again")


@dead.command()
@click.argument("keys", nargs=-1)
@filtered
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--note", required=True, help="Why. The audit log and the attempts of each event keep it.")
@click.pass_obj
def discard(
    invocation: Invocation, /, *, keys: Sequence[str], held: bool, dry_run: bool, yes: bool, **chosen: Any
) -> None:
    """Give dead letters up: those with these KEYS, or all that match. They are not owed any more.

    gapless dead discard --destination old-crm --until 2026-10-01 --note "the CRM was shut down in September"
    """
    with failing_clearly(debug=invocation.debug):
        args = _args(keys, **chosen)
        done = _perform(invocation, "held.discard" if held else "dead.discard", args, dry_run=dry_run, yes=yes)
        click.echo(job_text(done) if "job" in done else f"{done['discarded']} deliveries are given up")


def _args(keys: Sequence[str], *, types: Sequence[str], object_: str | None, **rest: Any) -> dict[str, object]:
    named = {"keys": list(keys) or None, "types": list(types) or None, "object": object_, **rest}
    return {name: value for name, value in named.items() if value is not None}


def _perform(
    invocation: Invocation, operation: str, args: dict[str, object], *, dry_run: bool, yes: bool
) -> dict[str, Any]:
    """Count what is chosen, ask, and do it. Exit 1 if there is nothing, or the answer is no."""
    settings = invocation.settings()
    count = asyncio.run(operate(settings, operation, {**args, "dry_run": True}))["count"]
    click.echo(f"{count} deliveries")
    if dry_run:
        raise SystemExit(Exit.OK)
    if not count or not (yes or click.confirm("Go on?")):
        raise SystemExit(Exit.NEGATIVE)
    return asyncio.run(operate(settings, operation, args))
