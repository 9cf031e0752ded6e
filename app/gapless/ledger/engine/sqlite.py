"""The ledger on SQLite, in one file. One thread writes, two read."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event

from gapless.ledger.engine.base import Store, bind, store_errors

P = ParamSpec("P")
T = TypeVar("T")

READERS = 2
"""Threads that read: one for passes, one for everything else that may wait."""
READ_CACHE_KIB, WRITE_CACHE_KIB = 4 << 10, 64 << 10
"""Page caches. A commit empties those of the reading connections, so a larger one would only cost memory."""


class SqliteStore(Store):
    """One file, WAL, fsync on every commit. One thread writes."""

    dialect = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = _sqlite_engine(path)
        self._writer = ThreadPoolExecutor(1, "gapless-write")
        self._readers = ThreadPoolExecutor(READERS, "gapless-read")
        self._connection: Connection | None = None

    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound = bind(query, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, bound)

    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound = bind(work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._write, bound)

    def _read(self, query: Callable[[Connection], T]) -> T:
        with store_errors(), self._engine.connect() as connection:
            return query(connection)

    def _write(self, work: Callable[[Connection], T]) -> T:
        with store_errors():
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
        connection.isolation_level = None  # `begin` below sends BEGIN
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
