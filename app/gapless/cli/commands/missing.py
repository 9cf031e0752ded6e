"""`gapless missing`: events that are known to exist and are not recorded, and rows of a list that cannot be read."""

import asyncio
from dataclasses import asdict

import click

from gapless import masking
from gapless.cli import output
from gapless.cli.access import operate, read_ledger
from gapless.cli.common import Exit, Invocation, failing_clearly, mask_of
from gapless.domain import from_us
from gapless.ledger import missing as ledger
from gapless.ledger.missing import MissingDetails


@click.group()
def missing() -> None:
    """List, show or dismiss what is known and not recorded.

    Events are asked for again automatically. A row of the list that cannot be read (reason "unreadable") is looked at
    again by each pass; if it stays as it is, you can dismiss it.
    """


@missing.command("list")
@click.option("--source")
@click.option("--all", "closed", is_flag=True, help="Also those that are recovered, lost, resolved or dismissed.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(invocation: Invocation, *, source: str | None, closed: bool, limit: int, json_: bool) -> None:
    """List what is missing, oldest first, with the reason and the last error."""
    with failing_clearly(debug=invocation.debug):
        rows = read_ledger(invocation.settings(), ledger.entries, source=source, closed=closed, limit=limit)
        if json_:
            output.as_lines(_fields(row) for row in rows)
            return
        columns = ("since", "source", "stream", "reason", "state", "key", "attempts", "last error")
        cells = (
            (
                from_us(row.occurred_us),
                row.source,
                row.stream or "-",
                row.reason,
                row.state,
                row.key,
                row.attempts,
                row.last_error or "-",
            )
            for row in rows
        )
        output.table(columns, cells, empty="nothing is missing")


@missing.command()
@click.argument("key")
@click.option("--source", help="Needed if several sources have the key.")
@click.pass_obj
def show(invocation: Invocation, key: str, source: str | None) -> None:
    """Show one missing event, or an unreadable row as the list shows it. Exit 1 if there is none of that key."""
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        rows = read_ledger(settings, ledger.entries, source=source, key=key, closed=True)
        if not rows:
            click.echo(f"nothing with the key {key!r} is missing", err=True)
            raise SystemExit(Exit.NEGATIVE)
        for row in rows:
            shown = None if row.row is None else masking.shown(row.row, mask_of(settings, row.source))
            text = None if shown is None else shown.decode(errors="backslashreplace")
            output.as_json(_fields(row) | {"row": text})


@missing.command()
@click.argument("keys", nargs=-1, required=True)
@click.option("--source", required=True)
@click.option("--reason", required=True, help="What you looked into, in your words; it is written into the audit log.")
@click.pass_obj
def dismiss(invocation: Invocation, keys: tuple[str, ...], source: str, reason: str) -> None:
    """Dismiss rows that cannot be read: their time becomes unrecoverable, and they are not reported again.

    gapless missing dismiss unreadable:3f… --source stripe-live --reason "a test event without a date"
    """
    with failing_clearly(debug=invocation.debug):
        args = {"source": source, "keys": list(keys), "reason": reason}
        result = asyncio.run(operate(invocation.settings(), "missing.dismiss", args))
        click.echo(f"dismissed: {len(result['dismissed'])}; the time of each is unrecoverable")


def _fields(row: MissingDetails) -> dict[str, object]:
    times = {name: getattr(row, f"{name}_us") for name in ("occurred", "until", "found")}
    plain = {name: value for name, value in asdict(row).items() if not name.endswith("_us") and name != "row"}
    return plain | {name: None if us is None else from_us(us) for name, us in times.items()}
