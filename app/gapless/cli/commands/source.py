"""`gapless source`: list, show, read, rename, acknowledge; register and repair the endpoint at the provider."""

import asyncio
import os
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from gapless.bootstrap.policies import make_policy, webhook_url
from gapless.bootstrap.sources import known_sources, open_provider_client
from gapless.cli import output, source_view
from gapless.cli.access import note_endpoint, open_reader, operate, read_ledger
from gapless.cli.commands.audit import show_report
from gapless.cli.common import Exit, Invocation, failing_clearly, find_source
from gapless.cli.handshake import await_secret
from gapless.cli.param_types import DURATION, TIME
from gapless.cli.passes import (
    PassNotMade,
    deliver,
    describe,
    has_failed_for_good,
    make_passes,
    plan_deliveries,
    reason_not_made,
    try_pass,
)
from gapless.clock import ProcessClock
from gapless.domain import Sources, from_us, system_clock
from gapless.ledger import sources
from gapless.ledger.engine import StoreInvalid
from gapless.ledger.times import ledger_time
from gapless.operations.audit import AuditReport
from gapless.operations.endpoint import RegisteredEndpoint, register_endpoint, repair_endpoint
from gapless.operations.endpoint_notes import EndpointAction
from gapless.operations.source_facts import SourceFacts, read_source_facts
from gapless.settings import Settings, build_provider
from gapless.status.evaluation import DISBELIEVED
from gapless.status.reader import read_report
from gapless.status.report import StatusReport
from gapless.status.troubles import troubles
from gapless_reconcilers.kit.contract import Subscription

CLEAN = ("clean", "found")


@click.group()
def source() -> None:
    """List, show, read, rename or repair sources. A source is one account that events come from."""


@source.command("list")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def list_(invocation: Invocation, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """List every source in the ledger, also retired ones."""
    with failing_clearly(debug=invocation.debug):
        rows = read_ledger(invocation.settings(), sources.sources)
        if json_:
            output.as_json([{**row, "start_us": from_us(row["start_us"])} for row in rows])
            return
        columns = ("source", "provider", "mode", "state", "start", "identity")
        cells = (
            (row["name"], row["provider"], row["mode"], row["state"], from_us(row["start_us"]), row["identity_seed"])
            for row in rows
        )
        output.table(columns, cells, empty="no source is in the ledger yet")


@source.command()
@click.argument("name")
@click.option("--json", "json_", is_flag=True, help="As JSON; null is unknown.")
@click.pass_obj
def show(invocation: Invocation, name: str, *, json_: bool) -> None:
    """Show everything that is known of source NAME: what is proven, what was learned, and how it is read.

    It asks the provider nothing: the daemon learns, and makes the plan.

    gapless source show stripe-live
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        report, facts = asyncio.run(_read_source(settings, name))
        configured = find_source(settings, name)
        policy = make_policy(configured, build_provider(configured, os.environ), settings.public_url)
        if json_:
            output.as_json(source_view.as_values(report.sources[0], policy, facts, troubles(report)))
            return
        for what, value in source_view.lines(report.sources[0], policy, facts):
            click.echo(f"{what:22} {value}")


@source.command()
@click.argument("old")
@click.argument("new")
@click.pass_obj
def rename(invocation: Invocation, old: str, new: str) -> None:
    """Give the source OLD the name NEW; it keeps everything that was recorded.

    gapless source rename stripe-live stripe-acme-live
    """
    with failing_clearly(debug=invocation.debug):
        result = asyncio.run(operate(invocation.settings(), "source.rename", {"old": old, "new": new}))
        click.echo(result["next"])


@source.command()
@click.argument("name")
@click.argument("seed")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def identity(invocation: Invocation, name: str, seed: str, *, yes: bool) -> None:
    """Give source NAME the identity SEED that it has in another ledger; `gapless source list` shows it.

    Consumers recognise an event by an id that is made from the seed and the event's key. A source that is registered
    gets its name as seed, and keeps it when it is renamed. Two ledgers with the same seed give an event the same id: a
    ledger that was built anew, or a second region.

    gapless source identity stripe-live stripe-acme
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        question = "The ids of all events of this source change, so consumers take a replay for a new event. Go on?"
        if not (yes or click.confirm(question, err=True)):
            raise SystemExit(Exit.NEGATIVE)
        done = asyncio.run(operate(settings, "source.identity", {"source": name, "seed": seed}))
        click.echo(f"identity of {name}: {done['identity_seed']}")


@source.command()
@click.argument("name")
@click.option("--reason", required=True, help="What you checked, and where. It is shown with the interval.")
@click.option("--until", type=TIME, help="Only what ended before this time. Default: everything.")
@click.option(
    "--interval", "intervals", type=int, multiple=True, help="Only this one, as `status` numbers it; repeat it."
)
@click.pass_obj
def acknowledge(
    invocation: Invocation, *, name: str, reason: str, until: datetime | None, intervals: tuple[int, ...]
) -> None:
    """Acknowledge what source NAME has lost for good, so that it is no longer shown as trouble.

    It stays unrecoverable in every report. The audit log keeps the reason.

    gapless source acknowledge stripe-live --reason "compared with the payouts of May, no difference"
    """
    with failing_clearly(debug=invocation.debug):
        args = {"source": name, "reason": reason, "until": until, "intervals": intervals or None}
        done = asyncio.run(operate(invocation.settings(), "source.acknowledge", args))
        click.echo(f"acknowledged: {len(done['intervals'])} unrecoverable intervals")
        if done["expired"]:
            click.echo(f"acknowledged: {done['expired']} refused webhooks that were purged unjudged")


@source.command("accept-account")
@click.argument("name")
@click.option("--account", help="Accept only this account, as `status` shows it.")
@click.option("--dismiss", is_flag=True, help="Do not send the held deliveries. Default: send them.")
@click.pass_obj
def accept_account(invocation: Invocation, *, name: str, account: str | None, dismiss: bool) -> None:
    """Accept that the key of source NAME reads another account than before, and read that one from now on.

    Until then its list is not read, and the deliveries of events that the list showed are held. If the key reads the
    source's own account again, this only settles the held deliveries.

    gapless source accept-account stripe-live --account acct_1… --dismiss
    """
    with failing_clearly(debug=invocation.debug):
        args = {"source": name, "account": account, "dismiss": dismiss}
        done = asyncio.run(operate(invocation.settings(), "source.accept_account", args))
        settled = f"{done['dismissed']} dismissed" if dismiss else f"{done['released']} sent"
        click.echo(f"{name} is the source of account {done['account']}; of the held deliveries, {settled}")


@source.command("pass")
@click.argument("name")
@click.option("--since", type=TIME, help="Default: the end of the last pass. 30d, 2026-01-31, …")
@click.option("--until", type=TIME, help="Default: now.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the pass has ended.")
@click.option("--dry-run", is_flag=True, help="Make the same requests, write nothing, and show what is not recorded.")
@click.option(
    "--deliver", "delivers", is_flag=True, help="Then deliver the recorded events to the source's destinations."
)
@click.option("--yes", is_flag=True, help="Do not ask before delivering.")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def pass_(
    invocation: Invocation,
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

    Events before the source's start are recorded and not delivered. With --deliver, the command shows how many they
    are, the first and the last, and asks before it delivers them. A running daemon makes the pass, else this command.
    Exit 1 if a list could not be read, 3 if the provider cannot be reached or wants a pause.

    gapless source pass stripe-live --since 7d
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        find_source(settings, name)
        if dry_run:
            _show_dry_run(asyncio.run(try_pass(settings, name, since, until)), json_=json_)
            return
        if delivers and (since is None or not wait):
            raise click.UsageError(
                "--deliver needs --since, and waits for the pass; give a time, and leave out --no-wait"
            )
        args: dict[str, object] = {"source": name, "since": since, "until": until}
        rows = asyncio.run(make_passes(settings, args, wait=wait))
        output.as_json(rows) if json_ else _show_passes(rows)
        _check_made(name, rows)
        if delivers and since is not None:
            _deliver(settings, name, since, until or system_clock(), yes=yes)


@source.command()
@click.argument("name")
@click.option("--for", "within_s", type=DURATION, default="15m", show_default=True, help="At most 1h.")
@click.pass_obj
def handshake(invocation: Invocation, name: str, within_s: float) -> None:
    """Wait for the secret that the vendor of source NAME chooses, and show it once. Exit 1 if none comes in time.

    Notion and Asana tell their secret in an unsigned request, which any stranger can send. So the daemon takes none
    unless this command waits for it, and then only the first. It is stored nowhere: copy it. If the vendor's webhooks
    are refused afterwards, it was a stranger's: do it again.

    gapless source handshake notion --for 15m
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        find_source(settings, name)
        click.echo(f"gapless: waiting for the handshake at /webhooks/{name}: make the webhook now", err=True)
        secret = asyncio.run(await_secret(settings, name, within_s))
        if secret is None:
            click.echo("gapless: no handshake came; none is taken any more", err=True)
            raise SystemExit(Exit.NEGATIVE)
        click.echo(secret)
        click.echo("gapless: put it where webhook.signature.secret is read from; it is shown no more", err=True)


@source.command()
@click.argument("name")
@click.option("--url", help="Default: public_url and the source's path.")
@click.option("--type", "types", multiple=True, help="An event type; repeat it. Default: as configured, else all.")
@click.option("--secret-file", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.pass_obj
def register(invocation: Invocation, *, name: str, url: str | None, types: tuple[str, ...], secret_file: Path) -> None:
    """Create the webhook endpoint of source NAME at its provider, and write its secret to a file.

    Only you can read the file. During this command, the read key of the source must be allowed to write webhook
    endpoints.

    gapless source register stripe-live --secret-file /etc/gapless/stripe-live
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        done = asyncio.run(_register_endpoint(settings, name, _url(settings, name, url), types, secret_file))
        if not done.made:
            click.echo(f"the endpoint exists already: {done.id}; nothing was changed")
            return
        click.echo(f"created {done.id}; its secret is in {secret_file}: name that file in [source.options]")


@source.command()
@click.argument("name")
@click.option("--url", help="Default: public_url and the source's path.")
@click.pass_obj
def repair(invocation: Invocation, *, name: str, url: str | None) -> None:
    """Enable the webhook endpoint of source NAME if its provider has disabled it. Exit 1 if it stays disabled.

    gapless source repair stripe-live
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        endpoint = asyncio.run(_repair_endpoint(settings, name, _url(settings, name, url)))
        if endpoint is None:
            raise click.ClickException(
                "the provider does not show the state of the endpoint; check that the key may read it"
            )
        click.echo(
            "the endpoint is enabled"
            if endpoint.healthy
            else f"{endpoint.reason}; create it with gapless source register"
        )
        if not endpoint.healthy:
            raise SystemExit(Exit.NEGATIVE)


async def _read_source(settings: Settings, name: str) -> tuple[StatusReport, SourceFacts]:
    """Return the report of this source alone, and what else is known of it. Raises `StoreInvalid` if nothing is."""
    find_source(settings, name)
    async with open_reader(settings) as store:
        known = await store.read(known_sources, settings, os.environ)
        if name not in known:
            raise StoreInvalid(f"the ledger does not know source {name!r} yet: start `gapless serve`")
        now, _ = await ledger_time(store, ProcessClock())
        facts = await store.read(read_source_facts, source=known[name], now=now)
        return await read_report(store, Sources([known[name]]), now), facts


async def _register_endpoint(
    settings: Settings, name: str, url: str, types: tuple[str, ...], secret_file: Path
) -> RegisteredEndpoint:
    configured = find_source(settings, name)
    note = partial(note_endpoint, settings, name, EndpointAction.REGISTER)
    async with open_provider_client(configured, settings.public_url, os.environ) as client:
        await note(f"about to register {url}")
        done = await register_endpoint(client, url, types or configured.types or (), secret_file)
    await note(f"registered {done.id}" if done.made else f"nothing changed: {done.id} was there")
    return done


async def _repair_endpoint(settings: Settings, name: str, url: str) -> Subscription | None:
    note = partial(note_endpoint, settings, name, EndpointAction.REPAIR)
    async with open_provider_client(find_source(settings, name), settings.public_url, os.environ) as client:
        await note(f"about to enable {url}")
        endpoint = await repair_endpoint(client, url)
    await note(_state_of(endpoint))
    return endpoint


def _state_of(endpoint: Subscription | None) -> str:
    if endpoint is None:
        return "asked to enable it; its state is unknown"
    return "it is enabled" if endpoint.healthy else f"it stays disabled: {endpoint.reason}"


def _url(settings: Settings, name: str, url: str | None) -> str:
    if url is None and settings.public_url is None:
        raise click.UsageError("this command needs --url, the address that receives the webhooks; or set public_url")
    return url or webhook_url(settings.public_url, name)


def _show_dry_run(report: AuditReport, *, json_: bool) -> None:
    output.as_json(report.as_values(None)) if json_ else show_report(report, None, "recorded")


def _deliver(settings: Settings, name: str, since: datetime, until: datetime, *, yes: bool) -> None:
    plan = asyncio.run(plan_deliveries(settings, name, since, until))
    for planned in plan:
        click.echo(describe(planned), err=True)
    if not any(planned.keys for planned in plan):
        click.echo("there is nothing to deliver", err=True)
        return
    if not (yes or click.confirm("Deliver them?", err=True)):
        raise SystemExit(Exit.NEGATIVE)
    click.echo(f"{asyncio.run(deliver(settings, name, plan))} deliveries are owed", err=True)


def _check_made(name: str, rows: list[dict[str, Any]]) -> None:
    """Exit with 1 if a list could not be read. Raises `PassNotMade` if the provider could not be asked now."""
    for row in rows:
        reason = reason_not_made(row) if row["state"] == "running" else None
        is_unread = bool(row["parked_reason"]) or row["stream_outcome"] in DISBELIEVED or has_failed_for_good(row)
        if reason is not None and not is_unread:
            raise PassNotMade(f"source {name!r} could not be read: {reason}; a running daemon goes on with the pass")
    if any(row["outcome"] not in (*CLEAN, None) or row["parked_reason"] or reason_not_made(row) for row in rows):
        raise SystemExit(Exit.NEGATIVE)


def _show_passes(rows: list[dict[str, Any]]) -> None:
    columns = ("pass", "stream", "from", "to", "outcome", "listed", "recorded", "missed")
    cells = (
        (
            row["id"],
            row["stream"] or "-",
            row["start"],
            row["end"],
            row["outcome"] or reason_not_made(row) or row["parked_reason"] or row["state"],
            row["listed"],
            row["found"],
            row["missed"],
        )
        for row in rows
    )
    output.table(columns, cells, empty="there is nothing to read yet: the list is read only up to now minus the grace")
