"""`gapless dead`: dead letters, and held deliveries."""

import asyncio

import click

from gapless.cli import output
from gapless.cli.access import operate, read_ledger
from gapless.cli.common import Invocation, failing_clearly
from gapless.domain import from_us
from gapless.errors import UserError
from gapless.ledger import Connection, dead_letters, destinations
from gapless.ledger.dead_letters import Unsettled
from gapless.ledger.deliveries import DeliveryState


@click.group()
def dead() -> None:
    """List, requeue or dismiss dead letters and held deliveries.

    A dead letter is a delivery that ran out of attempts or was refused for good. A held one waits for your decision.
    """


@dead.command("list")
@click.option("--destination", help="Only those to this destination.")
@click.option("--held", is_flag=True, help="List held deliveries instead.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(invocation: Invocation, *, destination: str | None, held: bool, limit: int, json_: bool) -> None:
    """List every dead letter with its reason."""
    with failing_clearly(debug=invocation.debug):
        state = DeliveryState.HELD if held else DeliveryState.DEAD
        rows = read_ledger(invocation.settings(), _waiting, state=state, destination=destination, limit=limit)
        if json_:
            output.as_lines(rows)
            return
        columns = ("since", "destination", "source", "type", "key", "attempts", "reason")
        cells = (
            (from_us(row.done_us), row.destination, row.source, row.type, row.key, row.attempts, row.reason)
            for row in rows
        )
        output.table(columns, cells, empty="no delivery matches")


def _waiting(connection: Connection, state: DeliveryState, destination: str | None, limit: int) -> list[Unsettled]:
    """Return deliveries in `state`. Raises `UserError` if the ledger does not know the destination."""
    if destination is None:
        return dead_letters.waiting(connection, state, limit=limit)
    known = destinations.destination(connection, destination)
    if known is None:
        raise UserError(f"destination {destination!r} is not known; `gapless status` shows those that are")
    return dead_letters.waiting(connection, state, destination_id=known.id, limit=limit)


@dead.command()
@click.argument("keys", nargs=-1)
@click.option("--destination")
@click.option("--reason")
@click.pass_obj
def dismiss(invocation: Invocation, keys: tuple[str, ...], destination: str | None, reason: str | None) -> None:
    """Give up dead letters: those with these KEYS, or all that match. They are not sent, and block nothing any more.

    gapless dead dismiss evt_1… --destination billing
    """
    with failing_clearly(debug=invocation.debug):
        if not (keys or destination or reason):
            raise click.UsageError("name the dead letters: KEYS, --destination or --reason")
        args = {"destination": destination, "reason": reason, "keys": list(keys) or None}
        result = asyncio.run(operate(invocation.settings(), "dead.dismiss", args))
        click.echo(f"{result['dismissed']} deliveries were given up")


@dead.command()
@click.argument("keys", nargs=-1)
@click.option("--destination")
@click.option("--reason")
@click.option("--held", is_flag=True, help="Release held deliveries instead.")
@click.pass_obj
def requeue(
    invocation: Invocation,
    keys: tuple[str, ...],
    destination: str | None,
    reason: str | None,
    held: bool,  # noqa: FBT001 - click calls it
) -> None:
    """Give dead letters new attempts: those with these KEYS, or all that match.

    gapless dead requeue --destination billing --reason consumer_4xx
    """
    with failing_clearly(debug=invocation.debug):
        args = {"destination": destination, "reason": reason, "keys": list(keys) or None}
        result = asyncio.run(operate(invocation.settings(), "held.release" if held else "dead.requeue", args))
        click.echo(f"{result['released' if held else 'requeued']} deliveries will be sent again")
