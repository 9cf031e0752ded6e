"""`gapless check`: finds what is wrong before it costs an event."""

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import httpx
import msgspec

from gapless.bootstrap.policies import make_policy
from gapless.bootstrap.senders import make_sender
from gapless.bootstrap.tls import TlsInvalid, read_context, tls_files
from gapless.cli import output
from gapless.cli.common import Exit, Invocation, failing_clearly
from gapless.cli.grants import grant_in_words
from gapless.cli.output import Finding, FindingLevel, ok, problem, warning
from gapless.clock import ProcessClock
from gapless.destinations.contract import ChecksAddress, Delivery, DestinationInvalid, RendersEvents, TriesRendering
from gapless.domain import Mode, Source, Sources, Via, system_clock
from gapless.errors import Unavailable
from gapless.reconcile.first_plan import first_plan
from gapless.reconcile.policy import SourcePolicy
from gapless.reconcile.reading_plan import in_words
from gapless.settings import (
    DestinationSettings,
    PrivateSettings,
    PublicSettings,
    Settings,
    SourceSettings,
    build_provider,
    lacks_key,
    secret_paths,
)
from gapless.sockets import bind
from gapless.text import format_span
from gapless_reconcilers.kit.contract import Coverage, Provider, Rendering, WarnsAboutOptions

if TYPE_CHECKING:
    from gapless.ledger.engine import Store

PROBE_S = 2.0
"""Time in which a daemon that listens already must answer its probe."""


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
        findings = asyncio.run(_check(invocation.settings(), invocation.remarks(), offline=offline))
        if json_:
            output.as_json(findings)
        else:
            for each in findings:
                click.echo(f"{each.verdict.value:8} {each.subject}: {each.text}")
        bad = any(each.verdict is FindingLevel.PROBLEM for each in findings)
        raise SystemExit(Exit.NEGATIVE if bad else Exit.OK)


async def _check(settings: Settings, remarks: list[str], *, offline: bool) -> list[Finding]:
    findings = [ok("config", f"{len(settings.sources)} sources, {len(settings.destinations)} destinations")]
    if not settings.sources:
        findings.append(warning("config", "no source is configured; add a [[source]]"))
    findings += [warning("config", each) for each in remarks]
    findings += await _store(settings)
    findings += secret_files(settings)
    findings += await listener_findings(settings)
    findings += await _oidc(settings, offline=offline)
    accounts: dict[str, str] = {}
    for each in settings.sources:
        provider = build_provider(each, os.environ)
        findings += _options(each, provider)
        if lacks_key(each):
            findings.append(ok(f"source {each.name}", "it has no key: the provider is asked nothing"))
        elif not offline:
            from gapless.cli.provider_checks import check_provider  # noqa: PLC0415 - its imports take long

            has_clock = settings.store.url.read().reveal().startswith("postgres")
            findings += await check_provider(each, settings.public_url, accounts, has_clock=has_clock)
    for destination in settings.destinations:
        findings += await _destination(destination, settings, offline=offline)
    return findings


async def _oidc(settings: Settings, *, offline: bool) -> list[Finding]:
    """Ask the provider that signs people in for its addresses and keys."""
    if settings.oidc.issuer is None:
        return []
    from gapless.console import oidc  # noqa: PLC0415 - its imports take long
    from gapless.console.identity_provider import IdentityProvider, ProviderUnavailable  # noqa: PLC0415

    options = oidc.options_of(settings.oidc)
    if options is None or offline:
        return []
    provider = IdentityProvider(options)
    async with provider.open():
        try:
            await provider.check()
        except ProviderUnavailable as error:
            return [problem("oidc", str(error))]
    return [ok("oidc", f"{options.issuer} answers; it must know the address {options.redirect_uri}")]


async def _store(settings: Settings) -> list[Finding]:
    url = settings.store.url.read().reveal()
    if (file := _file(url)) is not None and (unusable := file_problem(file)) is not None:
        return [problem("store", unusable)]
    if (absent := _absent_file(url)) is not None:
        return [ok("store", f"{absent} will be created by `gapless serve`")]
    from gapless.bootstrap.store import open_configured_store  # noqa: PLC0415 - its imports take long
    from gapless.ledger import schema  # noqa: PLC0415
    from gapless.ledger.engine import SqliteStore, naming_store  # noqa: PLC0415

    opened = [] if file is None else _open_files(file)
    store = open_configured_store(settings)
    try:
        with naming_store(url):
            try:
                version, foreign = await store.read(schema.version), await store.read(schema.is_foreign)
                near = isinstance(store, SqliteStore)
                keys = [] if version != schema.head() else await _keys(store)
                clocks = [] if near else [await _store_clock(store), *await _transport(store, url)]
            finally:
                await store.close()
    except Unavailable as error:
        return [problem("store", str(error))]
    if foreign:
        return [problem("store", schema.FOREIGN)]
    upgrades_itself = isinstance(store, SqliteStore) and (version is None or version in schema.VERSIONS)
    return [_schema(store.dialect, version, upgrades_itself=upgrades_itself), *opened, *keys, *clocks]


async def _keys(store: "Store") -> list[Finding]:
    """Say whether the keys of [encryption] are those that the ledger needs, and open what they sealed."""
    from gapless.ledger import keyring  # noqa: PLC0415 - its imports take long

    if not await store.read(keyring.was_sealed):
        ring = await store.read(keyring.ring_of)
        return [] if ring.current is None else [ok("encryption", f"{ring.current.id} will seal what is new")]
    from gapless.ledger import sealed  # noqa: PLC0415 - its imports take long

    ring, state = await store.read(keyring.ring_of), await store.read(sealed.look_with_own)
    found = [problem("encryption", state.blocked)] if state.blocked else []
    found += [
        problem("encryption", f"rows need the key {each!r}, which is not configured, or is another one now")
        for each in state.unusable
    ]
    broken = await store.read(sealed.first_broken, key_ids=[each for each in ring.keys if each not in state.wrong])
    if broken is not None:
        found.append(problem("encryption", broken))
    if not found and ring.keys:
        sealing = "nothing new is sealed" if ring.current is None else f"{ring.current.id} seals"
        found.append(ok("encryption", f"{sealing}; the keys open what needs them"))
    return found


def _open_files(ledger: Path) -> list[Finding]:
    """Say which files of the ledger others can read. `gapless serve` closes them to others."""
    from gapless.ledger.engine.private_files import too_open  # noqa: PLC0415 - its imports take long

    names = ", ".join(each.name for each in too_open(ledger))
    return [warning("store", f"others can read {names}; `gapless serve` sets mode 600")] if names else []


def secret_files(settings: Settings) -> list[Finding]:
    """Return a warning for each file with a secret that everybody on this machine can read."""
    found = []
    for place, path in secret_paths(settings):
        with suppress(OSError):  # whoever reads it says what is wrong
            if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
                message = f"everybody on this machine can read the file {path}; run: chmod o= {path}"
                found.append(warning(place, message))
    return found


async def _store_clock(store: "Store") -> Finding:
    """Compare this machine's clock with the database's. Raises `StoreError`."""
    from gapless.cli.provider_checks import compare_clocks  # noqa: PLC0415 - its imports take long
    from gapless.ledger.times import ledger_time  # noqa: PLC0415

    clock = ProcessClock()
    now, _ = await ledger_time(store, clock)
    return compare_clocks("store", "the database's", clock.machine() - now)


async def _transport(store: "Store", url: str) -> list[Finding]:
    """Say whether others could read what is sent to the database. Raises `StoreError`."""
    from gapless.ledger import transport  # noqa: PLC0415 - its imports take long

    encrypted = await store.read(transport.is_encrypted)
    if (unsafe := transport.problem_of(url, encrypted=encrypted)) is not None:
        return [warning("store", unsafe)]
    return [ok("store", "the connection is encrypted" if encrypted else "the connection stays on this machine")]


def _schema(dialect: str, version: str | None, *, upgrades_itself: bool) -> Finding:
    from gapless.ledger import schema  # noqa: PLC0415 - its imports take long

    if version == schema.head():
        return ok("store", f"{dialect}, schema {version}")
    message = f"schema is {version or 'empty'}, this release needs {schema.head()}"
    return (
        warning("store", f"{message}; `gapless serve` upgrades it")
        if upgrades_itself
        else problem("store", f"{message}; run gapless db upgrade")
    )


def _file(url: str) -> Path | None:
    """Return the SQLite file at `url`; None: `url` names no plain file."""
    before, is_sqlite, path = url.partition("sqlite:///")
    is_file = is_sqlite and not before and "?" not in path and path not in ("", ":memory:")
    return Path(path) if is_file else None


def _absent_file(url: str) -> Path | None:
    """Return the SQLite file at `url` if it does not exist yet. None: it exists, or `url` names no plain file."""
    file = _file(url)
    return file if file is not None and not file.exists() else None


def file_problem(file: Path) -> str | None:
    """Return why `gapless serve` could not write the ledger at `file`, or None."""
    folder = file.absolute().parent
    if not folder.is_dir():
        return f"there is no folder {folder} for the ledger; make it"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"the folder {folder} of the ledger cannot be written to; give it to the user of the daemon"
    if file.exists() and not os.access(file, os.R_OK | os.W_OK):
        return f"the ledger {file} cannot be written to; give it to the user of the daemon"
    return None


async def listener_findings(settings: Settings) -> list[Finding]:
    """Return a problem for each listener whose address or certificates `gapless serve` could not take."""
    found = []
    for name, listener, probe in (("public", settings.public, "/healthz"), ("private", settings.private, "/livez")):
        try:
            if (files := tls_files(name, listener)) is not None:
                read_context(files)
        except TlsInvalid as error:
            found.append(problem(name, str(error).removeprefix(f"{name}: ")))
        try:
            bind(listener.host, listener.port).close()
        except OSError as error:
            if not await _answers(listener, probe):
                found.append(problem(name, error.strerror or str(error)))
    return found


async def _answers(listener: PublicSettings | PrivateSettings, probe: str) -> bool:
    """Return True if a daemon of Gapless seems to listen there: it may be the one of this configuration."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.host, listener.host)  # noqa: S104 - not bound here
    address = f"[{near}]" if ":" in near else near
    scheme = "http" if listener.certificate is None else "https"
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=PROBE_S, verify=False) as client:  # noqa: S501 - ours
            return (await client.get(f"{scheme}://{address}:{listener.port}{probe}")).text.strip() in ("ok", "alive")
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _options(source: SourceSettings, provider: Provider) -> Iterator[Finding]:
    subject = f"source {source.name}"
    problems = provider.option_problems() if isinstance(provider, WarnsAboutOptions) else []
    yield from (problem(subject, each) for each in problems)
    yield from _grant(subject, source, provider)


def _grant(subject: str, source: SourceSettings, provider: Provider) -> Iterator[Finding]:
    """Say what may be read, and where that was read."""
    known = provider.capabilities
    if source.mode is Mode.WEBHOOK or known.coverage is Coverage.NONE:
        return
    grant = source.effective_grant(known)
    if grant is None:
        yield ok(subject, "its provider publishes no limit of reads")
    else:
        yield ok(subject, f"granted: {grant_in_words(grant)}")
    policy = make_policy(source, provider, None)
    if source.every is not None and source.every < known.least_interval:
        message = f"every = {format_span(source.every)} is more often than its provider wants"
        yield warning(subject, f"{message}: it is read every {format_span(known.least_interval)}")
    if policy.pace.adaptive:
        yield _plan(subject, policy)


def _plan(subject: str, policy: SourcePolicy) -> Finding:
    """Say how the source will be read at the least that is granted, before its rhythm is known."""
    plan = first_plan(policy)
    said = f"before its rhythm is known, it is read so: {in_words(plan)}"
    if not (plan.is_short or plan.runs_out):
        return ok(subject, said)
    return warning(subject, f"{said}; set read_budget if the vendor grants you more")


async def _destination(destination: DestinationSettings, settings: Settings, *, offline: bool) -> list[Finding]:
    subject = f"destination {destination.name}"
    sending = [each for each in settings.sources if destination.sources == ("*",) or each.name in destination.sources]
    now = system_clock()
    known = Sources(
        Source(id=0, name=each.name, provider=build_provider(each, os.environ), mode=each.mode, start=now)
        for each in sending
    )
    try:
        sender = make_sender(destination, known, system_clock)
    except DestinationInvalid as error:
        return [problem(subject, str(error))]
    found = list[Finding]()
    if isinstance(sender, RendersEvents) and sender.renders:
        for source in sending:
            found += _rendering(subject, source)
    if isinstance(sender, TriesRendering):
        tried = (sender.rendering_problem(_sample(source, now)) for source in sending)
        found += [problem(subject, f"it could not sign a delivery: {each}") for each in dict.fromkeys(tried) if each]
    found += _filling(subject, destination, settings)
    found.append(ok(subject, f"{destination.type} {destination.options.address}".strip()))
    if isinstance(sender, ChecksAddress) and not offline:
        found += [problem(subject, each) for each in await sender.address_problems()]
    await sender.close()
    return found


def _sample(source: SourceSettings, now: datetime) -> Delivery:
    """Return a delivery as of a webhook, to try a signature with."""
    at, payload = int(now.timestamp()), {"id": "check", "object": "event", "type": "check", "data": {"object": {}}}
    return Delivery(
        id="check",
        key="check",
        source=source.name,
        stream="",
        type="check",
        occurred_at=now,
        recorded_at=now,
        via=Via.WEBHOOK,
        payload=msgspec.json.encode({**payload, "created": at}),
        attempt=1,
    )


def _filling(subject: str, destination: DestinationSettings, settings: Settings) -> Iterator[Finding]:
    """Yield why a destination that is to fill the gaps of a handler may not do it."""
    chosen = [each for each in settings.sources if destination.sources == ("*",) or each.name in destination.sources]
    pushed = [each.name for each in chosen if each.mode is not Mode.POLL]
    if Via.WEBHOOK not in destination.via and not destination.receipts and pushed:
        message = f"what the webhooks of source {', '.join(pushed)} bring to us is never sent, although its handler may"
        yield warning(subject, f'{message} have lost it; set receipts = true, or mode = "poll" for the source')
    if destination.receipts and settings.private.consumer_token is None:
        message = "its handler can report only with the token of the whole console"
        yield warning(subject, f"{message}; set consumer_token_env or consumer_token_file under [private]")


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
