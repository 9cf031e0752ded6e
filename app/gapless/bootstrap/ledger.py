"""Open the ledger for a process: its lock, its schema, the rows of the configuration, and a writer slot."""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from gapless.bootstrap.keys import make_keyring
from gapless.bootstrap.policies import mode_of
from gapless.bootstrap.sources import make_source, restore_subscription
from gapless.bootstrap.store import open_configured_store
from gapless.domain import Source, align_down, from_us, to_us
from gapless.ledger import (
    Connection,
    configurations,
    dead_letters,
    deliveries,
    destinations,
    leases,
    migrate,
    schema,
    sealed,
    sources,
    times,
)
from gapless.ledger.configurations import Standing
from gapless.ledger.destinations import Pause
from gapless.ledger.engine import SqliteStore, Store, StoreInvalid, naming_store
from gapless.ledger.engine.lock import LedgerLock, hold
from gapless.ledger.keyring import ring_of
from gapless.metrics import Metrics
from gapless.sealing import Keyring
from gapless.settings import DestinationSettings, Settings, SourceSettings, build_provider
from gapless_reconcilers.kit.contract import Provider

log = logging.getLogger(__name__)
WHOLE_SECOND = timedelta(seconds=1)
"""The precision of vendors' timestamps: events in the second of a destination's first start are owed to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLedger:
    """An open ledger that knows this release's schema. `lock` is None on PostgreSQL."""

    store: Store
    lock: LedgerLock | None
    keyring: Keyring = field(default_factory=Keyring)
    """The keys that the store seals and opens with."""


async def open_ledger(settings: Settings, held: ExitStack) -> OpenLedger:
    """Open the store; on SQLite take its lock (until `held` closes) and bring its schema up to date.

    Raises `LedgerHeld`, `StoreInvalid` and `StoreUnavailable`.
    """
    url = settings.store.url.read().reveal()
    keyring = make_keyring(settings)
    store = open_configured_store(settings, keyring)
    lock = held.enter_context(hold(store.path)) if isinstance(store, SqliteStore) else None
    try:
        with naming_store(url):
            await _ensure_schema(store)
    except BaseException:
        await store.close()
        raise
    return OpenLedger(store=store, lock=lock, keyring=keyring)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredRows:
    """The rows of the configuration. `destinations` is {name: (id, since in microseconds)}."""

    sources: tuple[Source, ...]
    destinations: Mapping[str, tuple[int, int]]
    retired: Mapping[str, int]
    standing: Standing


def digest_of(settings: Settings) -> str:
    """Return the digest of the names and kinds of sources and destinations: replicas do not differ in them."""
    sources = sorted((each.name, each.provider) for each in settings.sources)
    destinations = sorted((each.name, each.type) for each in settings.destinations)
    return hashlib.sha256(json.dumps([sources, destinations]).encode()).hexdigest()


async def register_rows(
    settings: Settings,
    environ: Mapping[str, str],
    store: Store,
    now: datetime,
    times: Mapping[str, datetime] = MappingProxyType({}),
    *,
    serves: bool = False,
) -> RegisteredRows:
    """Make or find the rows of every configured source and destination, and retire those that were removed.

    `times` has the time at the providers of sources, as far as it is known: a new source starts then, else now.
    A configuration that is not in force retires and brings back nothing. A new one comes into force with the first
    daemon that has it (`serves`), never with a command. The process does not run yet, so this is its only use of the
    store that is not through the writer.
    """
    providers = {each.name: build_provider(each, environ) for each in settings.sources}

    def work(connection: Connection) -> RegisteredRows:
        sealed.enter(connection, ring_of(connection), to_us(now))
        standing = _standing(connection, settings, now, serves=serves)
        known = tuple(
            _registered_source(connection, each, providers[each.name], times.get(each.name, now), now, standing)
            for each in settings.sources
        )
        if standing.in_force:
            sources.retire_absent(connection, [each.name for each in settings.sources], now)
            destinations.retire_absent_destinations(connection, [each.name for each in settings.destinations])
        _park_deliveries(connection)
        return RegisteredRows(
            sources=known,
            destinations={
                each.name: _registered_destination(
                    connection, each, _first_since(each, settings, times, now), now, standing
                )
                for each in settings.destinations
            },
            retired=sources.retired_since(connection),
            standing=standing,
        )

    rows = await store.write(work)
    if rows.standing.withheld:
        log.warning(
            "configuration_not_in_force",
            extra={"generation": rows.standing.generation, "withheld": list(rows.standing.withheld)},
        )
    return rows


def _standing(connection: Connection, settings: Settings, now: datetime, *, serves: bool) -> Standing:
    """Return the standing of the configuration, and if it is not in force, with what it may not change."""
    digest = digest_of(settings)
    standing = (
        configurations.enter(connection, digest, to_us(now)) if serves else configurations.find(connection, digest)
    )
    return standing if standing.in_force else replace(standing, withheld=_withheld(connection, settings))


def _registered_source(
    connection: Connection,
    wanted: SourceSettings,
    provider: Provider,
    first_start: datetime,
    now: datetime,
    standing: Standing,
) -> Source:
    """Return the source with the id and the start of its row; a new one starts at `first_start`."""
    start = align_down(wanted.start or first_start, provider.capabilities.resolution)
    source = make_source(wanted, provider, 0, start)
    source_id = sources.register_source(
        connection,
        wanted.name,
        wanted.provider,
        mode_of(wanted, provider).value,
        start,
        now,
        livemode=source.livemode,
        in_force=standing.in_force,
    )
    row = sources.source_row(connection, source_id)
    source = replace(source, id=source_id, start=from_us(row["start_us"]), digest_key=row["digest_key"])
    return restore_subscription(source, sources.subscriptions(connection, source_id))


def _registered_destination(
    connection: Connection, wanted: DestinationSettings, first_since: datetime, now: datetime, standing: Standing
) -> tuple[int, int]:
    """Return the id and the since of the destination's row; a new one is owed what occurs from `first_since` on."""
    since = align_down(wanted.since or first_since, WHOLE_SECOND)
    pause = Pause(since_us=to_us(now), by="configuration", reason="paused = true") if wanted.paused else None
    row_id = destinations.register_destination(connection, wanted.name, since, in_force=standing.in_force, paused=pause)
    return row_id, destinations.destination_since(connection, row_id)


def _withheld(connection: Connection, settings: Settings) -> tuple[str, ...]:
    """Return what the configuration would retire and bring back, if it were in force."""
    configured = [each.name for each in settings.sources]
    wanted = [each.name for each in settings.destinations]
    retired = sources.retired_since(connection)
    return (
        *(f"retire source {name}" for name in sources.absent(connection, configured)),
        *(f"bring back source {name}" for name in configured if name in retired),
        *(f"retire destination {each.name}" for each in destinations.absent(connection, wanted)),
        *(f"bring back destination {each.name}" for each in destinations.retired(connection, wanted)),
    )


def _first_since(
    wanted: DestinationSettings, settings: Settings, times: Mapping[str, datetime], now: datetime
) -> datetime:
    """Return the time at those of the destination's sources whose clock is most behind."""
    names = [each.name for each in settings.sources if "*" in wanted.sources or each.name in wanted.sources]
    return min((times.get(name, now) for name in names), default=now)


async def take_slot(
    ledger: OpenLedger,
    holder: str,
    metrics: Metrics,
    *,
    receives: bool,
    now: datetime,
    standing: Standing | None = None,
) -> int:
    """Take a writer slot for this process. On SQLite, where it is alone, first clear what a crash left.

    `standing`: that of a daemon's configuration; None: this process is a command.
    """
    ahead: dict[str, int] = {}

    def work(connection: Connection) -> int:
        if receives:
            leases.note_downtime(connection)
        if ledger.lock is not None:
            leases.clear(connection)
            ahead.update(times.make_due(connection, to_us(now)))  # first, so that nothing is made due unsaid
            deliveries.give_back_all(connection, to_us(now))
        return take_next_slot(connection, holder, receives=receives, standing=standing)

    slot = await ledger.store.write(work)
    if ahead:
        note_times_ahead(ahead, metrics)
    return slot


def note_times_ahead(found: Mapping[str, int], metrics: Metrics) -> None:
    """Log and count what lay further ahead than its own wait, and was made due: the number of each kind."""
    log.warning("due_times_ahead", extra=dict(found))
    for kind, count in found.items():
        metrics.due_times_ahead.labels(kind).inc(count)


def take_next_slot(connection: Connection, holder: str, *, receives: bool, standing: Standing | None) -> int:
    """Take a free writer slot, and note the configuration of the process that has it."""
    slot = leases.take_slot(connection, holder, receives=receives)
    configurations.note_process(connection, slot, standing)
    return slot


async def _ensure_schema(store: Store) -> None:
    """Check that this release can write the schema; on SQLite, upgrade it if needed. Raises `StoreInvalid`."""
    version = await store.read(schema.version)
    if version == schema.head():
        return
    if not isinstance(store, SqliteStore) or not (version is None or version in schema.VERSIONS):
        raise StoreInvalid(schema.mismatch(version))
    if await store.read(schema.is_foreign):
        raise StoreInvalid(schema.FOREIGN)
    if version is not None:
        copy = migrate.back_up_sqlite(store.path, version)
        log.info("ledger_backed_up", extra={"copy": str(copy)})
    await store.write(migrate.upgrade)
    log.info("ledger_upgraded", extra={"was": version, "version": schema.head()})


def _park_deliveries(connection: Connection) -> None:
    """Park the deliveries that retired sources still owe, and unpark those of sources that are back."""
    moves = ((("retired",), dead_letters.park_source), (sources.READABLE, dead_letters.unpark_source))
    for states, move in moves:
        for source_id in sources.ids_in_state(connection, *states):
            while move(connection, source_id):
                pass
