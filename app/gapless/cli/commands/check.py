"""`gapless check`: finds what is wrong before it costs an event."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import click

from gapless.bootstrap.senders import make_sender
from gapless.cli import output
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.cli.output import Finding, FindingLevel, ok, problem, warning
from gapless.destinations.contract import ChecksAddress, DestinationInvalid, RendersEvents
from gapless.domain import LONGEST_INTERVAL, Mode, Sources, system_clock
from gapless.errors import Unavailable
from gapless.settings import DestinationSettings, Settings, SourceSettings, build_provider
from gapless.text import format_span
from gapless_reconcilers.kit.contract import Provider, Rendering, WarnsAboutOptions


@click.command()
@click.option("--offline", is_flag=True, help="Send no request to providers, resolve no name.")
@click.option("--json", "json_", is_flag=True)
@click.pass_obj
def check(invocation: Invocation, offline: bool, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """Check settings, store, providers, destinations and clocks. Exit 1 on a problem.

    That includes keys, accounts, subscriptions and versions.

    gapless --config gapless.toml check && gapless serve
    """
    with failing_clearly(debug=invocation.debug):
        findings = asyncio.run(_check(invocation.settings(), offline=offline))
        if json_:
            output.as_json(findings)
        else:
            for each in findings:
                click.echo(f"{each.verdict.value:8} {each.subject}: {each.text}")
        bad = any(each.verdict is FindingLevel.PROBLEM for each in findings)
        raise SystemExit(Exit.NEGATIVE if bad else Exit.OK)


async def _check(settings: Settings, *, offline: bool) -> list[Finding]:
    findings = [ok("config", f"{len(settings.sources)} sources, {len(settings.destinations)} destinations")]
    if not settings.sources:
        findings.append(warning("config", "no source is configured; add a [[source]]"))
    findings.append(await _store(settings))
    accounts: dict[str, str] = {}
    for each in settings.sources:
        provider = build_provider(each, os.environ)
        findings += _options(each, provider)
        if not offline:
            from gapless.cli.provider_checks import check_provider  # noqa: PLC0415 - its imports take long

            findings += await check_provider(each, settings.public_url, accounts)
    for destination in settings.destinations:
        findings += await _destination(destination, settings, offline=offline)
    return findings


async def _store(settings: Settings) -> Finding:
    url = settings.store.url.read().reveal()
    if (absent := _absent_file(url)) is not None:
        return ok("store", f"{absent} will be created by `gapless serve`")
    from gapless.bootstrap.ledger import open_configured_store  # noqa: PLC0415 - its imports take long
    from gapless.ledger import schema  # noqa: PLC0415
    from gapless.ledger.engine import SqliteStore, StoreInvalid  # noqa: PLC0415

    try:
        store = open_configured_store(settings)
    except StoreInvalid as error:
        return problem("store", str(error))
    try:
        version = await store.read(schema.version)
    except Unavailable as error:
        return problem("store", str(error))
    finally:
        await store.close()
    if version == schema.head():
        return ok("store", f"{store.dialect}, schema {version}")
    upgrades_itself = isinstance(store, SqliteStore) and (version is None or version in schema.VERSIONS)
    message = f"schema is {version or 'empty'}, this release needs {schema.head()}"
    return (
        warning("store", f"{message}; `gapless serve` upgrades it")
        if upgrades_itself
        else problem("store", f"{message}; run gapless db upgrade")
    )


def _absent_file(url: str) -> Path | None:
    """Return the SQLite file at `url` if it does not exist yet. None: it exists, or `url` names no plain file."""
    before, is_sqlite, path = url.partition("sqlite:///")
    is_file = is_sqlite and not before and "?" not in path and path not in ("", ":memory:")
    return Path(path) if is_file and not Path(path).exists() else None


def _options(source: SourceSettings, provider: Provider) -> Iterator[Finding]:
    subject = f"source {source.name}"
    problems = provider.option_problems() if isinstance(provider, WarnsAboutOptions) else []
    yield from (problem(subject, each) for each in problems)
    budget = source.effective_budget(provider.capabilities)
    if budget is not None and source.mode is not Mode.WEBHOOK:
        affordable = budget.period / budget.requests
        if affordable > source.every:
            allowance = f"{budget.requests} reads in {budget.period.days} d"
            message = f"every = {format_span(source.every)} is more often than {allowance} allow"
            paced = max(source.every, min(affordable, LONGEST_INTERVAL))
            beyond = ", beyond the budget" if paced < affordable else ""
            message += f": passes will come every {format_span(paced)}{beyond}"
            yield warning(subject, f"{message}; raise read_budget if the vendor allows you more")


async def _destination(destination: DestinationSettings, settings: Settings, *, offline: bool) -> list[Finding]:
    subject = f"destination {destination.name}"
    try:
        sender = make_sender(destination, Sources(), system_clock)
    except DestinationInvalid as error:
        return [problem(subject, str(error))]
    found = list[Finding]()
    if isinstance(sender, RendersEvents) and sender.renders:
        for source in settings.sources:
            if destination.sources == ("*",) or source.name in destination.sources:
                found += _rendering(subject, source)
    found.append(ok(subject, f"{destination.type} {destination.options.address}".strip()))
    if isinstance(sender, ChecksAddress) and not offline:
        found += [problem(subject, each) for each in await sender.address_problems()]
    await sender.close()
    return found


def _rendering(subject: str, source: SourceSettings) -> Iterator[Finding]:
    rendering = build_provider(source, os.environ).capabilities.rendering
    if rendering is Rendering.IMPOSSIBLE:
        message = f"only {source.provider} can sign as {source.provider}"
        yield problem(subject, f'{message}; use signature = "standard", or leave source {source.name} out')
    elif rendering is Rendering.PUSHED:
        message = (
            f"missed events of source {source.name} do not have the shape of a {source.provider} webhook and would not "
            "be delivered"
        )
        yield problem(subject, f'{message}; use signature = "standard", or leave the source out')
    elif rendering is Rendering.EQUIVALENT:
        message = f"listed events of source {source.name} can differ in shape from their webhooks (API version)"
        yield warning(subject, f"{message}; on_version_mismatch decides")
