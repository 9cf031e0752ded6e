"""`gapless dead`: dead letters, and held deliveries."""

import asyncio

import click

from gapless.cli import output
from gapless.cli.access import operate, read_ledger
from gapless.cli.common import Invocation, failing_clearly
from gapless.domain import from_us
from gapless.ledger import dead_letters
from gapless.ledger.deliveries import DeliveryState


@click.group()
def dead() -> None:
    """List or requeue dead letters and held deliveries.

    A dead letter is a delivery that ran out of attempts or was refused for good. A held one waits for your decision.
    """


@dead.command("list")
@click.option("--held", is_flag=True, help="List held deliveries instead.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(invocation: Invocation, held: bool, limit: int, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """List every dead letter with its reason."""
    with failing_clearly(debug=invocation.debug):
        state = DeliveryState.HELD if held else DeliveryState.DEAD
        rows = read_ledger(invocation.settings(), dead_letters.waiting, state=state, limit=limit)
        if json_:
            output.as_lines(rows)
            return
        columns = ("since", "destination", "source", "type", "key", "attempts", "reason")
        cells = (
            (from_us(row.done_us or 0), row.destination, row.source, row.type, row.key, row.attempts, row.reason)
            for row in rows
        )
        output.table(columns, cells, empty="no delivery matches")


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
