"""Open the ledger for a process: its lock, its schema, the rows of the configuration, and a writer slot."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.bootstrap.sources import make_source, mode_of, restore_subscription
from gapless.bootstrap.store import open_configured_store
from gapless.domain import Source, align_down, from_us, to_us
from gapless.ledger import Connection, dead_letters, deliveries, destinations, leases, migrate, schema, sources
from gapless.ledger.engine import SqliteStore, Store, StoreInvalid, naming_store
from gapless.ledger.engine.lock import LedgerLock, hold
from gapless.settings import Settings, build_provider

log = logging.getLogger(__name__)
WHOLE_SECOND = timedelta(seconds=1)
"""The precision of vendors' timestamps: events in the second of a destination's first start are owed to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLedger:
    """An open ledger that knows this release's schema. `lock` is None on PostgreSQL."""

    store: Store
    lock: LedgerLock | None


async def open_ledger(settings: Settings, held: ExitStack) -> OpenLedger:
    """Open the store; on SQLite take its lock (until `held` closes) and bring its schema up to date.

    Raises `LedgerHeld`, `StoreInvalid` and `StoreUnavailable`.
    """
    url = settings.store.url.read().reveal()
    store = open_configured_store(settings)
    lock = held.enter_context(hold(store.path)) if isinstance(store, SqliteStore) else None
    try:
        with naming_store(url):
            await _ensure_schema(store)
    except BaseException:
        await store.close()
        raise
    return OpenLedger(store=store, lock=lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredRows:
    """The rows of the configuration. `destinations` is {name: (id, since in microseconds)}."""

    sources: tuple[Source, ...]
    destinations: Mapping[str, tuple[int, int]]
    retired: Mapping[str, int]


async def register_rows(settings: Settings, environ: Mapping[str, str], store: Store, now: datetime) -> RegisteredRows:
    """Make or find the rows of every configured source and destination, and retire those that were removed.

    The process does not run yet, so this is its only use of the store that is not through the writer.
    """
    providers = {each.name: build_provider(each, environ) for each in settings.sources}

    def work(connection: Connection) -> RegisteredRows:
        known = []
        for each in settings.sources:
            start = align_down(each.start or now, providers[each.name].capabilities.resolution)
            mode = mode_of(each, providers[each.name])
            source_id = sources.register_source(connection, each.name, each.provider, mode.value, start, now)
            row = sources.source_row(connection, source_id)
            source = make_source(each, providers[each.name], source_id, from_us(row["start_us"]))
            known.append(restore_subscription(source, sources.subscriptions(connection, source_id)))
        sources.retire_absent(connection, [each.name for each in settings.sources], now)
        _park_deliveries(connection)
        destination_rows = {}
        for wanted in settings.destinations:
            since = align_down(wanted.since or now, WHOLE_SECOND)
            row_id = destinations.register_destination(connection, wanted.name, since)
            destination_rows[wanted.name] = (row_id, destinations.destination_since(connection, row_id))
        destinations.retire_absent_destinations(connection, [each.name for each in settings.destinations])
        retired = sources.retired_since(connection)
        return RegisteredRows(sources=tuple(known), destinations=destination_rows, retired=retired)

    return await store.write(work)


async def take_slot(ledger: OpenLedger, holder: str, *, receives: bool, now: datetime) -> int:
    """Take a writer slot for this process. On SQLite, where it is alone, first clear what a crash left."""

    def work(connection: Connection) -> int:
        if receives:
            leases.note_downtime(connection)
        if ledger.lock is not None:
            leases.clear(connection)
            deliveries.give_back_all(connection, to_us(now))
        return leases.take_slot(connection, holder, receives=receives)

    return await ledger.store.write(work)


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
    for state, move in (("retired", dead_letters.park_source), ("active", dead_letters.unpark_source)):
        for source_id in sources.ids_in_state(connection, state):
            while move(connection, source_id):
                pass
