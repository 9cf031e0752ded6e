"""The two databases: connections, transactions, and the meaning of their errors.

All statements of the ledger are synchronous functions of a SQLAlchemy `Connection`. A `Store` runs
them: on SQLite in threads (one that writes, two that read), on PostgreSQL over asyncpg inside the
event loop (`run_sync`). So each statement is written once and tested on both.

Only `ledger.writer` calls `Store.write`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from gapless.ledger.engine.base import (
    PATIENT,
    BadData,
    Conflict,
    ConnectionLost,
    LedgerReplaced,
    ReadOnly,
    Store,
    StoreError,
    StoreInvalid,
    StoreLimits,
    StoreUnavailable,
    UncertainCommit,
    bind,
    classify,
)
from gapless.ledger.engine.postgres import PostgresStore
from gapless.ledger.engine.sqlite import SqliteStore

NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


def open_store(url: str, limits: StoreLimits = PATIENT, options: Mapping[str, object] = NO_OPTIONS) -> Store:
    """Return the store at `url`: `sqlite:///path` or `postgresql://…`. It connects on first use.

    `options`: what every connection has among its `get_execution_options`.

    Raises `StoreInvalid`. No message repeats the address, which may contain a password.
    """
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        parsed = make_url(url)
        if not parsed.database or parsed.database == ":memory:":
            raise StoreInvalid(f"store url is {url!r}; wanted a file, such as sqlite:///gapless.db")
        return SqliteStore(Path(parsed.database), options)
    if scheme in ("postgresql", "postgres"):
        try:
            return PostgresStore(url, limits, options)
        except ModuleNotFoundError as error:
            raise StoreInvalid(
                f"a PostgreSQL store needs the package {error.name}; install it: pip install 'gapless[postgres]'"
            ) from error
    raise StoreInvalid(f"store url starts with {scheme!r}; use sqlite:///… or postgresql://…")


@contextmanager
def naming_store(url: str) -> Iterator[None]:
    """Add the address of the store, without its password, to the message of `StoreUnavailable`."""
    try:
        yield
    except StoreUnavailable as error:
        try:
            address = make_url(url).set(query={}).render_as_string(hide_password=True)
        except (ValueError, ArgumentError):  # several hosts
            address = "with several hosts"
        raise StoreUnavailable(f"the store {address} cannot be used: {error}") from error


__all__ = [
    "PATIENT",
    "BadData",
    "Conflict",
    "ConnectionLost",
    "LedgerReplaced",
    "PostgresStore",
    "ReadOnly",
    "SqliteStore",
    "Store",
    "StoreError",
    "StoreInvalid",
    "StoreLimits",
    "StoreUnavailable",
    "UncertainCommit",
    "bind",
    "classify",
    "naming_store",
    "open_store",
]
