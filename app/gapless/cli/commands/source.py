"""`gapless source`: list sources, read one now, rename one, acknowledge what one has lost."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from gapless.bootstrap.sources import find_source, open_provider_client, webhook_url
from gapless.cli import output
from gapless.cli.access import operate, read_ledger
from gapless.cli.commands.audit import show_report
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.cli.param_types import MOMENT
from gapless.cli.passes import deliver, describe, make_passes, plan_deliveries, try_pass
from gapless.domain import from_us, system_clock
from gapless.ledger import sources
from gapless.operations.audit import AuditReport
from gapless.operations.endpoint import RegisteredEndpoint, register_endpoint, repair_endpoint
from gapless.settings import Settings
from gapless_reconcilers.kit.contract import Subscription

CLEAN = ("clean", "found")


@click.group()
def source() -> None:
    """Sources: the accounts that events come from."""


@source.command("list")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def list_(call: Invocation, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """Every source that the ledger knows, the retired ones too."""
    with failing_clearly(debug=call.debug):
        rows = read_ledger(call.settings(), sources.sources)
        if json_:
            output.as_json([{**row, "start_us": from_us(row["start_us"])} for row in rows])
            return
        columns = ("source", "provider", "mode", "state", "start")
        cells = ((row["name"], row["provider"], row["mode"], row["state"], from_us(row["start_us"])) for row in rows)
        output.table(columns, cells, empty="no source is in the ledger yet")


@source.command()
@click.argument("old")
@click.argument("new")
@click.pass_obj
def rename(call: Invocation, old: str, new: str) -> None:
    """Give the source OLD the name NEW; everything that was recorded stays with it.

    gapless source rename stripe-live stripe-acme-live
    """
    with failing_clearly(debug=call.debug):
        told = asyncio.run(operate(call.settings(), "source.rename", {"old": old, "new": new}))
        click.echo(told["next"])


@source.command()
@click.argument("name")
@click.option("--reason", required=True, help="What you looked into, and where. It stays beside the interval.")
@click.option("--until", type=MOMENT, help="Only what ended by then. Default: everything.")
@click.option(
    "--interval", "intervals", type=int, multiple=True, help="Only this one, as `status` numbers it; repeat it."
)
@click.pass_obj
def acknowledge(
    call: Invocation, *, name: str, reason: str, until: datetime | None, intervals: tuple[int, ...]
) -> None:
    """Say that you looked into what source NAME has lost for good, so that it is no trouble any more.

    It stays unrecoverable and stays in every report. The audit log keeps the reason.

    gapless source acknowledge stripe-live --reason "compared with the payouts of May, no difference"
    """
    with failing_clearly(debug=call.debug):
        args = {"source": name, "reason": reason, "until": until, "intervals": intervals or None}
        done = asyncio.run(operate(call.settings(), "source.acknowledge", args))
        click.echo(f"acknowledged: {len(done['intervals'])} unrecoverable intervals, {done['lost']} lost events")


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
    call: Invocation,
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
        find_source(settings, name)
        if dry_run:
            _tell_dry_run(asyncio.run(try_pass(settings, name, since, until)), json_=json_)
            return
        if delivers and (since is None or not wait):
            raise click.UsageError("--deliver needs --since, and waits for the pass; name a time, leave out --no-wait")
        args: dict[str, object] = {"source": name, "since": since, "until": until}
        rows = asyncio.run(make_passes(settings, args, wait=wait))
        output.as_json(rows) if json_ else _show(rows)
        if any(row["outcome"] not in (*CLEAN, None) or row["parked_reason"] for row in rows):
            raise SystemExit(Exit.NEGATIVE)
        if delivers and since is not None:
            _deliver(settings, name, since, until or system_clock(), yes=yes)


@source.command()
@click.argument("name")
@click.option("--url", help="Default: public_url and the source's path.")
@click.option("--type", "types", multiple=True, help="An event type; repeat it. Default: as configured, else all.")
@click.option("--secret-file", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.pass_obj
def register(call: Invocation, *, name: str, url: str | None, types: tuple[str, ...], secret_file: Path) -> None:
    """Make the webhook endpoint of source NAME at its provider, and keep its secret in a file that only you can read.

    The read key of the source must be allowed to write webhook endpoints, for as long as this takes.

    gapless source register stripe-live --secret-file /etc/gapless/stripe-live
    """
    with failing_clearly(debug=call.debug):
        settings = call.settings()
        done = asyncio.run(_register(settings, name, _url(settings, name, url), types, secret_file))
        if not done.made:
            click.echo(f"there is one already: {done.id}; nothing was changed")
            return
        click.echo(f"made {done.id}; its secret is in {secret_file}: name that file in [source.options]")


@source.command()
@click.argument("name")
@click.option("--url", help="Default: public_url and the source's path.")
@click.pass_obj
def repair(call: Invocation, *, name: str, url: str | None) -> None:
    """Switch the webhook endpoint of source NAME on again, if its provider has switched it off. Exit 1 if it stays off.

    gapless source repair stripe-live
    """
    with failing_clearly(debug=call.debug):
        settings = call.settings()
        told = asyncio.run(_repair(settings, name, _url(settings, name, url)))
        if told is None:
            raise click.ClickException("the provider does not say how the endpoint stands; may the key read it?")
        click.echo(
            "the endpoint is enabled" if told.healthy else f"{told.reason}; make it with gapless source register"
        )
        if not told.healthy:
            raise SystemExit(Exit.NEGATIVE)


async def _register(
    settings: Settings, name: str, url: str, types: tuple[str, ...], secret_file: Path
) -> RegisteredEndpoint:
    configured = find_source(settings, name)
    async with open_provider_client(configured, settings.public_url) as client:
        return await register_endpoint(client, url, types or configured.types or (), secret_file)


async def _repair(settings: Settings, name: str, url: str) -> Subscription | None:
    async with open_provider_client(find_source(settings, name), settings.public_url) as client:
        return await repair_endpoint(client, url)


def _url(settings: Settings, name: str, url: str | None) -> str:
    if url is None and settings.public_url is None:
        raise click.UsageError("where shall it send to? Give --url, or set public_url")
    return url or webhook_url(settings.public_url, name)


def _tell_dry_run(report: AuditReport, *, json_: bool) -> None:
    output.as_json(report.as_values(None)) if json_ else show_report(report, None, "recorded")


def _deliver(settings: Settings, name: str, since: datetime, until: datetime, *, yes: bool) -> None:
    plan = asyncio.run(plan_deliveries(settings, name, since, until))
    for owing in plan:
        click.echo(describe(owing), err=True)
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
    output.table(columns, cells, empty="there is nothing to read yet: the list is read up to the grace before now")
