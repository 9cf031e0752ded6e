"""`gapless token`: named tokens of the private listener."""

import asyncio
from datetime import UTC, datetime, timedelta

import click

from gapless.cli import output
from gapless.cli.access import operate, read_ledger
from gapless.cli.common import Invocation, failing_clearly
from gapless.domain import from_us, system_clock, to_us
from gapless.ledger import tokens
from gapless.ledger.tokens import StoredToken
from gapless.operations.principals import GRANTED, names_in
from gapless.settings.parsers import ParseFailed, duration

NEVER = "never"


def read_expiry(text: str) -> datetime | None:
    """Return the time of `90d` from now on, or `2027-01-31`; None of `never`. Raises `click.BadParameter`."""
    if text == NEVER:
        return None
    try:
        return system_clock() + duration(timedelta(minutes=1)).read(text)
    except ParseFailed:
        pass
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time; use 90d, 2027-01-31 or {NEVER}", param_hint="--expires"
        ) from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


@click.group()
def token() -> None:
    """Make, list or revoke tokens of the private listener."""


@token.command()
@click.argument("name")
@click.option("--role", required=True, type=click.Choice([str(role) for role in GRANTED]), help="What it opens.")
@click.option("--source", "sources", multiple=True, help="Limit it to this source; repeat it. Default: all.")
@click.option("--destination", "destinations", multiple=True, help="Bind a consumer to this destination; repeat it.")
@click.option("--expires", required=True, help=f"90d, 2027-01-31 or {NEVER}.")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def create(
    invocation: Invocation,
    *,
    name: str,
    role: str,
    sources: tuple[str, ...],
    destinations: tuple[str, ...],
    expires: str,
    json_: bool,
) -> None:
    """Make the token NAME and print it. It is shown this once: the ledger has only its digest.

    A viewer sees status and metrics, an operator may also act, metrics opens /metrics alone, and a consumer reports
    what its destinations have processed.

    gapless token create grafana --role viewer --expires 365d
    """
    until = read_expiry(expires)
    with failing_clearly(debug=invocation.debug):
        args = {
            "name": name,
            "role": role,
            "sources": sources or None,
            "destinations": destinations or None,
            "expires": until,
        }
        done = asyncio.run(operate(invocation.settings(), "token.create", args))
        if json_:
            output.as_json(done)
            return
        lasts = "does not expire" if until is None else f"expires at {done['expires']}"
        click.echo(f"token {name} is a {role} and {lasts}; it is shown only now:", err=True)
        click.echo(done["token"])


@token.command("list")
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(invocation: Invocation, *, json_: bool) -> None:
    """List all tokens, also those that expired or were revoked. None is shown itself."""
    with failing_clearly(debug=invocation.debug):
        found = read_ledger(invocation.settings(), tokens.tokens)
        if json_:
            output.as_lines(_as_values(each) for each in found)
            return
        columns = ("token", "role", "sources", "destinations", "made", "by", "expires", "state")
        cells = (
            (
                each.name,
                each.role,
                names_in(each.sources),
                "-" if each.destinations is None else names_in(each.destinations),
                from_us(each.created_us),
                each.created_by,
                NEVER if each.expires_us is None else from_us(each.expires_us),
                _state(each),
            )
            for each in found
        )
        output.table(columns, cells, empty="there is no token; `gapless token create` makes one")


@token.command()
@click.argument("name")
@click.pass_obj
def revoke(invocation: Invocation, name: str) -> None:
    """Revoke the token NAME: the next request with it is refused. Its name is not given again.

    gapless token revoke grafana
    """
    with failing_clearly(debug=invocation.debug):
        asyncio.run(operate(invocation.settings(), "token.revoke", {"name": name}))
        click.echo(f"token {name} is revoked")


def _state(token: StoredToken) -> str:
    if token.revoked_us is not None:
        return f"revoked by {token.revoked_by}"
    return "valid" if token.is_valid(to_us(system_clock())) else "expired"


def _as_values(token: StoredToken) -> dict[str, object]:
    times = {"created_us": "created", "expires_us": "expires", "revoked_us": "revoked"}
    values: dict[str, object] = {
        name: getattr(token, name) for name in ("name", "role", "sources", "destinations", "created_by", "revoked_by")
    }
    for key, name in times.items():
        us = getattr(token, key)
        values[name] = None if us is None else from_us(us)
    return values | {"state": _state(token).partition(" ")[0]}
