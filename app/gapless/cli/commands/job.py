"""`gapless job`: what was asked to be done to many events, and how far it is."""

import asyncio
import os
from typing import Any

import click

from gapless.bootstrap.runtime import open_runtime
from gapless.cli import output
from gapless.cli.access import daemon_of, operate, plain, read_ledger, show_progress
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.errors import UserError
from gapless.ledger import jobs as ledger
from gapless.ledger.jobs import StoredJob
from gapless.operations.jobs import as_values, work_to_end
from gapless.settings import Settings


@click.group()
def job() -> None:
    """List, show, cancel or run jobs on many events.

    Replays, requeues and discards of more than 1,000 events are jobs. A job is worked by the daemon, in batches, and
    goes on after a restart.
    """


@job.command("list")
@click.option("--all", "all_", is_flag=True, help="Also those that have ended, the newest first.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1000))
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(invocation: Invocation, *, all_: bool, limit: int, json_: bool) -> None:
    """List the jobs that run: what each does, for whom, and how far it is."""
    with failing_clearly(debug=invocation.debug):
        found = read_ledger(invocation.settings(), ledger.newest, only_running=not all_, limit=limit)
        rows = [plain(as_values(row)) for row in found]
        if json_:
            output.as_lines(rows)
            return
        columns = ("job", "kind", "source", "destination", "by", "created", "state", "done", "last error")
        output.table(columns, map(_cells, rows), empty="no job runs")


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    done = f"{row['done'] + row['left_out']} of {row['count']}"
    names = (row["source"] or "*", row["destination"] or "*")
    return (row["id"], row["kind"], *names, row["by"], row["created"], row["state"], done, row["last_error"] or "-")


@job.command()
@click.argument("job_id", type=click.IntRange(1, 2**62), metavar="ID")
@click.pass_obj
def show(invocation: Invocation, job_id: int) -> None:
    """Show one job: what it chooses, how far it is, who asked for it and why. Exit 1 if there is none."""
    with failing_clearly(debug=invocation.debug):
        found = read_ledger(invocation.settings(), ledger.find, job_id=job_id)
        if found is None:
            click.echo(f"there is no job {job_id}", err=True)
            raise SystemExit(Exit.NEGATIVE)
        output.as_json(plain(as_values(found)))


@job.command()
@click.argument("ids", nargs=-1, required=True, type=click.IntRange(1, 2**62))
@click.option("--note", help="Why, for the audit log.")
@click.pass_obj
def cancel(invocation: Invocation, *, ids: tuple[int, ...], note: str | None) -> None:
    """End the jobs with these IDS. What they have done stays.

    gapless job cancel 7
    """
    with failing_clearly(debug=invocation.debug):
        done = asyncio.run(operate(invocation.settings(), "job.cancel", {"ids": list(ids), "note": note}))
        click.echo(f"cancelled: {len(done['cancelled'])} jobs")


@job.command()
@click.argument("job_id", type=click.IntRange(1, 2**62), metavar="ID")
@click.pass_obj
def run(invocation: Invocation, job_id: int) -> None:
    """Work a job to its end here, where no daemon runs that would. Ctrl-C leaves the rest for later.

    It does not wait for deliveries that are due, because nothing delivers meanwhile.
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        if daemon_of(settings) is not None:
            raise UserError(f"the daemon works job {job_id}; `gapless job show {job_id}` tells how far it is")
        ended = asyncio.run(_run(settings, job_id))
        click.echo(f"job {ended.id} {ended.state.value}: {ended.done} done, {ended.left_out} left out")


async def _run(settings: Settings, job_id: int) -> StoredJob:
    async with open_runtime(settings, os.environ) as parts:
        return await work_to_end(parts.runtime, job_id, show_progress)
