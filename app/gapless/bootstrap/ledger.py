"""Opening the ledger for a process: lock, schema, rows of what is configured, and this process's writer slot."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

from gapless.domain import to_us
from gapless.ledger import Connection, deliveries, leases, migrate, schema, slots
from gapless.ledger.engine import SqliteStore, Store, StoreInvalid, open_store
from gapless.ledger.engine.lock import LedgerLock, hold
from gapless.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLedger:
    """An open ledger that knows this release's schema. `lock` is None on PostgreSQL."""

    store: Store
    lock: LedgerLock | None


async def open_ledger(settings: Settings, held: ExitStack) -> OpenLedger:
    """Open the store; on SQLite take its lock (until `held` closes) and bring its schema up to date.

    Raises `LedgerHeld`, `StoreInvalid` and `StoreUnavailable`.
    """
    store = open_store(settings.store.url.read().reveal())
    lock = held.enter_context(hold(store.path)) if isinstance(store, SqliteStore) else None
    try:
        await _fit(store)
    except BaseException:
        await store.close()
        raise
    return OpenLedger(store=store, lock=lock)


async def _fit(store: Store) -> None:
    """Make sure of a schema that this release writes; only SQLite's is upgraded here."""
    version = await store.read(schema.version)
    if version == schema.head():
        return
    if not isinstance(store, SqliteStore) or not (version is None or version in schema.VERSIONS):
        raise StoreInvalid(_other_schema(version))
    if version is not None:
        copy = migrate.back_up_sqlite(store.path, version)
        log.info("ledger_backed_up", extra={"copy": str(copy)})
    await store.write(migrate.upgrade)
    log.info("ledger_upgraded", extra={"was": version, "version": schema.head()})


def _other_schema(version: str | None) -> str:
    wanted = schema.head()
    if version is None or version in schema.VERSIONS:
        return f"the ledger's schema is {version or 'empty'}, this release wants {wanted}: run gapless db upgrade first"
    return f"the ledger's schema is {version}, which this release does not know (it wants {wanted}): run a newer one"


async def take_slot(ledger: OpenLedger, holder: str, *, receives: bool, now: datetime) -> int:
    """This process's writer slot. Who holds a ledger alone first clears what a crash left."""

    def work(connection: Connection) -> int:
        if receives:
            slots.note_downtime(connection)
        if ledger.lock is not None:
            leases.clear(connection)
            deliveries.give_back_all(connection, to_us(now))
        return slots.take_slot(connection, holder, receives=receives)

    return await ledger.store.write(work)
