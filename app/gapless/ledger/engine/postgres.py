"""The ledger on PostgreSQL, for any number of replicas."""

import asyncio
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gapless.ledger.engine.base import Store, StoreInvalid, StoreUnavailable, bind, store_errors

P = ParamSpec("P")
T = TypeVar("T")

IDLE_WITH_LOCKS_S = 10
"""PostgreSQL ends the session of a process that pauses within a transaction for this time.

Shorter than a lease, so that the process that takes over finds none of its locks."""
LOCKS_WITHIN_S = 5
"""Time that the writer waits for a lock of somebody else, before it reports a conflict and tries again."""


class PostgresStore(Store):
    """Any number of replicas. One connection of each process writes; a small pool reads."""

    dialect = "postgresql"

    def __init__(self, url: str) -> None:
        self._engine: AsyncEngine = create_async_engine(url, pool_size=5, max_overflow=5, isolation_level="AUTOCOMMIT")
        self._writing = asyncio.Lock()
        self._connection: AsyncConnection | None = None

    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound = bind(query, *args, **kwargs)
        with store_errors():
            try:
                return await self._read(bound)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                return await self._read(bound)  # the pooled connections were cut meanwhile; the pool is new now

    async def _read(self, query: Callable[[Connection], T]) -> T:
        """Run each statement by itself, without BEGIN and COMMIT: see `dialect.one_snapshot`."""
        async with self._engine.connect() as connection:
            return await connection.run_sync(query)

    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound = bind(work, *args, **kwargs)
        async with self._writing:
            with store_errors():
                connection = await self._writer()
                driver: Any = (await connection.get_raw_connection()).driver_connection
                try:
                    async with driver.transaction():  # an explicit BEGIN, as `dialect` uses the driver directly too
                        return await connection.run_sync(bound)
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
        with store_errors():
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
