"""The two databases: how to connect, run a transaction, and read what went wrong.

All statements of the ledger are synchronous functions of a SQLAlchemy `Connection`. A `Store` runs
them: on SQLite in threads (one that writes, two that read), on PostgreSQL over asyncpg inside the
event loop (`run_sync`). So each statement is written once and tested on both.

Only `ledger.writer` calls `Store.write`.
"""

import asyncio
import shutil
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gapless.errors import Unavailable, UserError

T = TypeVar("T")
READERS = 2
"""Threads that read on SQLite: one for passes, one for everything else that may wait."""
READ_CACHE_KIB, WRITE_CACHE_KIB = 4 << 10, 64 << 10
"""Page caches on SQLite. A commit empties those of the connections that read, so theirs only cost memory."""
IDLE_WITH_LOCKS_S = 10
"""How long a process that was paused within a transaction may hold up the other replicas: PostgreSQL then ends it.

Shorter than a lease, so that whoever takes over finds no lock of it."""
LOCKS_WITHIN_S = 5
"""How long the writer waits on PostgreSQL for a lock that somebody else holds, before it says so and tries again."""


class StoreError(Unavailable):
    """Base of what can go wrong in the store."""


class StoreUnavailable(StoreError):
    """The database cannot be reached or cannot write (disk full, shutting down): try again later."""


class Conflict(StoreError):
    """A deadlock, a serialisation failure or a lock wait: the same transaction may succeed at once."""


class BadData(StoreError):
    """The database refuses a value. The transaction was rolled back; one of its rows cannot be stored."""


class StoreInvalid(StoreError, UserError):
    """The database is not fit for use: wrong settings, or a schema that this release does not know."""


class Store(ABC):
    """A database that runs statements in transactions."""

    dialect: str

    @abstractmethod
    async def read(self, query: Callable[[Connection], T]) -> T:
        """What `query` returns, in a transaction that only reads. Raises `StoreError`."""

    @abstractmethod
    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction and return its result once that is durable. Raises `StoreError`."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of every connection."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Free space where the data lies; None: not ours to see."""


def open_store(url: str) -> Store:
    """The store at `url`: `sqlite:///path` or `postgresql://…`. Connects on first use."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise StoreInvalid(f"store url is {url!r}; wanted a file, such as sqlite:///gapless.db")
        return SqliteStore(Path(parsed.database))
    if parsed.get_backend_name() == "postgresql":
        return PostgresStore(parsed.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False))
    raise StoreInvalid(f"store url starts with {parsed.drivername!r}; use sqlite:///… or postgresql://…")


class SqliteStore(Store):
    """One file, WAL, fsync on every commit. One thread writes."""

    dialect = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = _sqlite_engine(path)
        self._writer = ThreadPoolExecutor(1, "gapless-write")
        self._readers = ThreadPoolExecutor(READERS, "gapless-read")
        self._connection: Connection | None = None

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, query)

    async def write(self, work: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._write, work)

    def _read(self, query: Callable[[Connection], T]) -> T:
        with _store_errors(), self._engine.connect() as connection:
            return query(connection)

    def _write(self, work: Callable[[Connection], T]) -> T:
        with _store_errors():
            if self._connection is None:
                self._connection = self._open_writer()
            with self._connection.begin():
                return work(self._connection)

    def _open_writer(self) -> Connection:
        connection = self._engine.connect().execution_options(gapless_writes=True)
        driver: Any = connection.connection.driver_connection
        driver.execute(f"PRAGMA cache_size=-{WRITE_CACHE_KIB}")
        return connection

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        if self._connection is not None:
            await loop.run_in_executor(self._writer, self._connection.close)
        self._writer.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self._engine.dispose()

    def free_bytes(self) -> int | None:
        return shutil.disk_usage(self.path.parent).free


def _sqlite_engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", pool_size=READERS + 1, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        for pragma in (
            "page_size=16384",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=5000",
            f"cache_size=-{READ_CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("gapless_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


class PostgresStore(Store):
    """Any number of replicas. One connection of each process writes; a small pool reads."""

    dialect = "postgresql"

    def __init__(self, url: str) -> None:
        self._engine: AsyncEngine = create_async_engine(url, pool_size=5, max_overflow=5, isolation_level="AUTOCOMMIT")
        self._writing = asyncio.Lock()
        self._connection: AsyncConnection | None = None

    async def read(self, query: Callable[[Connection], T]) -> T:
        with _store_errors():
            try:
                return await self._read(query)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                return await self._read(query)  # what waited in the pool was cut meanwhile; the pool is new now

    async def _read(self, query: Callable[[Connection], T]) -> T:
        """Each statement by itself, without BEGIN and COMMIT around it: see `dialect.one_snapshot`."""
        async with self._engine.connect() as connection:
            return await connection.run_sync(query)

    async def write(self, work: Callable[[Connection], T]) -> T:
        async with self._writing:
            with _store_errors():
                connection = await self._writer()
                driver: Any = (await connection.get_raw_connection()).driver_connection
                try:
                    async with driver.transaction():  # we say BEGIN ourselves: `dialect` talks to the driver too
                        return await connection.run_sync(work)
                finally:
                    if driver.is_closed():
                        await self._drop_writer()

    async def _writer(self) -> AsyncConnection:
        if self._connection is None:
            connection = await self._engine.connect()
            await connection.run_sync(_refuse_unsafe_postgres)
            await connection.exec_driver_sql(f"SET idle_in_transaction_session_timeout = '{IDLE_WITH_LOCKS_S}s'")
            await connection.exec_driver_sql(f"SET lock_timeout = '{LOCKS_WITHIN_S}s'")
            self._connection = connection
        return self._connection

    async def _drop_writer(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.invalidate()
            await connection.close()

    async def listen(self, channel: str, wake: Callable[[], None]) -> None:
        """Call `wake` on each NOTIFY of `channel`, until cancelled or the connection is lost (`StoreUnavailable`).

        Notices can be lost with the connection, so the caller polls slowly as well.
        """
        lost = asyncio.Event()
        with _store_errors():
            async with self._engine.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                driver.add_termination_listener(lambda _: lost.set())
                await driver.add_listener(channel, lambda *_: wake())
                try:
                    await lost.wait()
                finally:
                    await connection.invalidate()
        raise StoreUnavailable("the connection that listens was lost")

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
        await self._engine.dispose()

    def free_bytes(self) -> int | None:
        return None


def _refuse_unsafe_postgres(connection: Connection) -> None:
    for setting in ("fsync", "synchronous_commit"):
        value = connection.exec_driver_sql(f"SHOW {setting}").scalar_one()
        if value == "off":
            raise StoreInvalid(f"PostgreSQL has {setting} = off: an acknowledged webhook could be lost; set it to on")


@contextmanager
def _store_errors() -> Iterator[None]:
    """Turn the errors of drivers and SQLAlchemy into `StoreError`s, with the cause chained."""
    try:
        yield
    except StoreError:
        raise
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise classify(cause)(f"{type(cause).__name__}: {cause}") from error
    except (OverflowError, UnicodeError) as error:
        raise BadData(str(error)) from error
    except (OSError, SQLAlchemyError) as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "asyncpg":  # which is not there unless PostgreSQL is used
            raise
        raise classify(error)(f"{type(error).__name__}: {error}") from error


def classify(error: BaseException | None) -> type[StoreError]:
    """Which `StoreError` a driver's error is."""
    sqlstate = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(sqlstate, str):
        if sqlstate in ("40001", "40P01", "55P03"):
            return Conflict
        return BadData if sqlstate[:2] in ("22", "23") else StoreUnavailable
    message = str(error)
    if isinstance(error, sqlite3.OperationalError):
        return Conflict if "locked" in message or "busy" in message else StoreUnavailable
    data_errors = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
    if isinstance(error, data_errors) or "DataError" in type(error).__name__ or "Overflow" in message:
        return BadData
    return StoreUnavailable
