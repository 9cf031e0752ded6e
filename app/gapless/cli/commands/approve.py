"""`gapless approve`: a second person lets an operation on many events be performed."""

import asyncio
import os

import click

from gapless.cli import output
from gapless.cli.access import operate, read_ledger
from gapless.cli.common import Invocation, failing_clearly
from gapless.domain import from_us, span_us, system_clock, to_us
from gapless.ledger import approvals
from gapless.operations.approvals import VALID_FOR


@click.command()
@click.argument("number", type=int, required=False)
@click.option("--token-env", help="The variable that has your operator token. Default: you are asked for it.")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def approve(invocation: Invocation, *, number: int | None, token_env: str | None, json_: bool) -> None:
    """Approve an operation on many events, or list those that wait.

    It must be the token of another person than the one who asked. `second_person_above` says how many events are many.

    gapless approve 7
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        if number is None:
            since_us = to_us(system_clock()) - span_us(VALID_FOR)
            found = read_ledger(settings, approvals.waiting, since_us=since_us)
            rows = [(each.id, from_us(each.asked_us), each.asked_by, each.operation, each.events) for each in found]
            columns = ("number", "asked at", "by", "operation", "events")
            if json_:
                output.as_lines(dict(zip(columns, row, strict=True)) for row in rows)
            else:
                output.table(columns, rows, empty="nothing waits for approval")
            return
        done = asyncio.run(operate(settings, "operation.approve", {"id": number, "token": _read_token(token_env)}))
        output.as_json(done) if json_ else click.echo(f"approved {number}: {done['operation']} is done")


def _read_token(variable: str | None) -> str:
    if variable is None:
        return str(click.prompt("your operator token", hide_input=True, err=True))
    if not os.environ.get(variable):
        raise click.BadParameter(f"the variable {variable} is not set", param_hint="--token-env")
    return os.environ[variable]
