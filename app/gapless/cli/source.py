"""`gapless source`: list sources, read one now, give one another name."""

import asyncio
from datetime import datetime
from typing import Any

import click

from gapless.cli import show
from gapless.cli.audit import show_report
from gapless.cli.common import Call, Exit, failing_clearly
from gapless.cli.comparison import Report
from gapless.cli.delivering import deliver, plan_deliveries
from gapless.cli.ledger import operate, read
from gapless.cli.listing import configured
from gapless.cli.moments import MOMENT
from gapless.cli.passing import make_passes, try_pass
from gapless.domain import from_us, system_clock
from gapless.ledger import selection
from gapless.settings import Settings

CLEAN = ("clean", "found")


@click.group()
def source() -> None:
    """Sources: the accounts that events come from."""


@source.command("list")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def list_(call: Call, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """Every source that the ledger knows, the retired ones too."""
    with failing_clearly(debug=call.debug):
        rows = read(call.settings(), selection.sources)
        if json_:
            show.as_json([{**row, "start_us": from_us(row["start_us"])} for row in rows])
            return
        columns = ("source", "provider", "mode", "state", "start")
        cells = ((row["name"], row["provider"], row["mode"], row["state"], from_us(row["start_us"])) for row in rows)
        show.table(columns, cells, empty="no source is in the ledger yet")


@source.command()
@click.argument("old")
@click.argument("new")
@click.pass_obj
def rename(call: Call, old: str, new: str) -> None:
    """Give the source OLD the name NEW; everything that was recorded stays with it.

    gapless source rename stripe-live stripe-acme-live
    """
    with failing_clearly(debug=call.debug):
        told = asyncio.run(operate(call.settings(), "source.rename", {"old": old, "new": new}))
        click.echo(told["next"])


@source.command("pass")
@click.argument("name")
@click.option("--since", type=MOMENT, help="Default: where it was last read up to. 30d, 2026-01-31, …")
@click.option("--until", type=MOMENT, help="Default: now.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is done.")
@click.option("--dry-run", is_flag=True, help="Make the same requests and write nothing: say what is not recorded.")
@click.option("--deliver", "delivers", is_flag=True, help="Then owe what it recorded to the source's destinations.")
@click.option("--yes", is_flag=True, help="Do not ask before delivering.")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def pass_(
    call: Call,
    *,
    name: str,
    since: datetime | None,
    until: datetime | None,
    wait: bool,
    dry_run: bool,
    delivers: bool,
    yes: bool,
    json_: bool,
) -> None:
    """Read a source's list now.

    What lies before the source's start is recorded and owed to nobody, unless you say --deliver: that tells how
    many events it is, the first and the last, and asks. A daemon makes the pass if one runs; else this command does.
    Exit 1 if a list could not be read.

    gapless source pass stripe-live --since 7d
    """
    with failing_clearly(debug=call.debug):
        settings = call.settings()
        configured(settings, name)
        if dry_run:
            _tell_dry_run(asyncio.run(try_pass(settings, name, since, until)), json_=json_)
            return
        if delivers and (since is None or not wait):
            raise click.UsageError("--deliver needs --since, and waits for the pass; name a time, leave out --no-wait")
        args: dict[str, object] = {"source": name, "since": since, "until": until}
        rows = asyncio.run(make_passes(settings, args, wait=wait))
        show.as_json(rows) if json_ else _show(rows)
        if any(row["outcome"] not in (*CLEAN, None) or row["parked_reason"] for row in rows):
            raise SystemExit(Exit.NEGATIVE)
        if delivers and since is not None:
            _deliver(settings, name, since, until or system_clock(), yes=yes)


def _tell_dry_run(report: Report, *, json_: bool) -> None:
    show.as_json(report.as_values(None)) if json_ else show_report(report, None, "recorded")


def _deliver(settings: Settings, name: str, since: datetime, until: datetime, *, yes: bool) -> None:
    plan = asyncio.run(plan_deliveries(settings, name, since, until))
    for owing in plan:
        click.echo(str(owing), err=True)
    if not any(owing.keys for owing in plan):
        click.echo("there is nothing to deliver", err=True)
        return
    if not (yes or click.confirm("Deliver them?", err=True)):
        raise SystemExit(Exit.NEGATIVE)
    click.echo(f"{asyncio.run(deliver(settings, name, plan))} deliveries are owed", err=True)


def _show(rows: list[dict[str, Any]]) -> None:
    columns = ("pass", "stream", "from", "to", "outcome", "listed", "recorded", "missed")
    cells = (
        (
            row["id"],
            row["stream"] or "-",
            row["start"],
            row["end"],
            row["outcome"] or row["parked_reason"] or row["state"],
            row["listed"],
            row["found"],
            row["missed"],
        )
        for row in rows
    )
    show.table(columns, cells, empty="there is nothing to read yet: the list is read up to the grace before now")
