"""`gapless pass`: the passes over the lists, and the end of one that was demanded."""

import asyncio

import click

from gapless.cli import output
from gapless.cli.access import operate, plain, read_ledger
from gapless.cli.common import Invocation, failing_clearly
from gapless.domain import system_clock
from gapless.ledger import Connection, passes
from gapless.operations.passes import as_values


@click.group("pass")
def pass_() -> None:
    """List passes, or cancel those on demand. `gapless source pass` demands one."""


@pass_.command("list")
@click.option("--source", help="Only those of this source.")
@click.option("--all", "all_", is_flag=True, help="Also those that have ended, the newest first.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1000))
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(invocation: Invocation, *, source: str | None, all_: bool, limit: int, json_: bool) -> None:
    """List the passes that are under way or failed on demand: how far they are, and why they failed the last time."""
    with failing_clearly(debug=invocation.debug):
        found = read_ledger(invocation.settings(), _progress, source=source, only_open=not all_, limit=limit)
        rows = [plain(as_values(row, system_clock())) for row in found]
        if json_:
            output.as_lines(rows)
            return
        columns = ("pass", "source", "stream", "kind", "from", "to", "state", "slices", "listed", "last error")
        cells = (
            (
                row["id"],
                row["source"],
                row["stream"] or "-",
                row["kind"],
                row["start"],
                row["end"],
                row["outcome"] or row["state"],
                f"{row['slices_done']} of {row['slices']}",
                row["listed"],
                row["last_error"] or "-",
            )
            for row in rows
        )
        output.table(columns, cells, empty="no pass is under way")


def _progress(connection: Connection, source: str | None, *, only_open: bool, limit: int) -> list[passes.PassProgress]:
    ids = passes.recent(connection, source, only_open=only_open, limit=limit)
    return passes.progress(connection, ids)[::-1]


@pass_.command()
@click.argument("ids", nargs=-1, required=True, type=int)
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def cancel(invocation: Invocation, *, ids: tuple[int, ...], json_: bool) -> None:
    """End the passes on demand with these IDS. What they have recorded stays. One that failed is no trouble then.

    gapless pass cancel 17
    """
    with failing_clearly(debug=invocation.debug):
        done = asyncio.run(operate(invocation.settings(), "pass.cancel", {"ids": list(ids)}))
        output.as_json(done) if json_ else click.echo(f"cancelled: {len(done['cancelled'])} passes")
