"""The ledger on PostgreSQL, for any number of replicas.

Every connection has limits: on connecting, on each statement, and on silence. A connection that does not answer is
dropped, and with it all others, because what silenced one has most likely silenced them all.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from urllib.parse import parse_qs, urlsplit
from weakref import WeakSet

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from gapless.ledger.engine.base import (
    ADVICE,
    READ_ONLY,
    ConnectionLost,
    ReadOnly,
    Store,
    StoreInvalid,
    StoreLimits,
    StoreUnavailable,
    UncertainCommit,
    bind,
    sqlstate_of,
    store_errors,
)

P = ParamSpec("P")
T = TypeVar("T")

IDLE_WITH_LOCKS_S = 10
"""PostgreSQL ends the session of a process that pauses within a transaction for this time.

Shorter than a lease, so that the process that takes over finds none of its locks."""
LOCKS_WITHIN_S = 5
"""Time that a statement waits for a lock of somebody else, before it reports a conflict and is tried again."""
ANSWER_MARGIN_S = 1
"""Time beyond `command_within` in which PostgreSQL must have ended the statement; else the connection is silent."""
LISTEN_CHECK_S = 10
"""Time between two checks of the connection that only listens."""
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_COUNT = 10, 5, 3
UNACKNOWLEDGED_MS = 20_000
"""Time that sent bytes may stay without acknowledgement of the other machine."""
BACKEND_ENDS_WITHIN_S = 5
NOT_ALLOWED = "42501"
"""The lost connection had another user. Then `IDLE_WITH_LOCKS_S` ends it."""
MARKS_KEPT_S = 86400
OWN_READERS = 2
"""Connections that do not read: the one that writes and the one that listens."""

PARAMETERS: Final = frozenset(
    (
        "application_name", "dbname", "host", "options", "passfile", "password", "port", "service", "sslcert", "sslcrl",
        "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "ssl_max_protocol_version",
        "ssl_min_protocol_version", "target_session_attrs", "user",
    )
)  # fmt: skip
"""The parameters of an address that have their meaning of libpq."""
POOLERS: Final = (
    "Gapless needs sessions of its own: set pool_mode = session in pgbouncer, or let the url name PostgreSQL itself"
)
INSTEAD: Final = {
    "connect_timeout": "set connect_within under [store] instead",
    "ssl": "use sslmode instead",
    "statement_cache_size": f"remove it; {POOLERS}",
    "prepared_statement_cache_size": f"remove it; {POOLERS}",
    "pgbouncer": f"remove it; {POOLERS}",
}


def driver_address(url: str) -> str:
    """Return `url` as the driver reads it. Raises `StoreInvalid` for a parameter that would not have its meaning."""
    rest = url.partition("://")[2]
    address = f"postgresql://{rest}"
    for name in parse_qs(urlsplit(address).query, keep_blank_values=True):
        if name not in PARAMETERS:
            instead = INSTEAD.get(name, f"remove it, or use one of {', '.join(sorted(PARAMETERS))}")
            raise StoreInvalid(f"the store url has the parameter {name!r}, which does not work here: {instead}")
    return address


@dataclass(frozen=True, slots=True)
class _Backend:
    """A process of PostgreSQL. Its start tells it from a later one with the same number."""

    pid: int
    started: str


@dataclass(slots=True)
class _Writer:
    """The connection that writes, with the number of its last transaction."""

    connection: AsyncConnection
    driver: Any
    backend: _Backend
    name: str
    marks: bool
    """True if the schema has the table of commits."""
    number: int = 0


SESSION = (
    "SELECT pid, backend_start::text AS started, current_setting('fsync') AS fsync, "
    "current_setting('synchronous_commit') AS synchronous_commit, "
    "current_setting('transaction_read_only') = 'on' AS read_only, to_regclass('last_commit') IS NOT NULL AS marks "
    "FROM pg_stat_activity WHERE pid = pg_backend_pid()"
)
MARK = (
    "PREPARE gapless_mark_{writer} (bigint) AS INSERT INTO last_commit (writer, number, at_us) "
    "SELECT '{writer}', $1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint "
    "WHERE txid_current_if_assigned() IS NOT NULL "
    "ON CONFLICT (writer) DO UPDATE SET number = excluded.number, at_us = excluded.at_us"
)
OLD_MARKS = (
    "DELETE FROM last_commit WHERE at_us < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $1::bigint"
)
CONFIRM = "UPDATE last_commit SET at_us = at_us + 1 WHERE writer = $1 AND number = $2 RETURNING number"
"""A write, so that its own commit waits for all that the first one must wait for, such as a synchronous standby."""
END_BACKEND = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2"
LOOK = "see whether it runs and can be reached from here"


class PostgresStore(Store):
    """Any number of replicas. One connection of each process writes, one listens; a small pool reads."""

    dialect = "postgresql"

    def __init__(self, url: str, limits: StoreLimits, options: Mapping[str, object] = MappingProxyType({})) -> None:
        self._options = dict(options)
        self._address = driver_address(url)
        self._limits = limits
        self._connect_s = limits.connect_within.total_seconds()
        self._command_s = None if limits.command_within is None else limits.command_within.total_seconds()
        self._reads = self._engine(
            pool_size=max(1, limits.connections - OWN_READERS), max_overflow=0, pool_timeout=self._connect_s
        )
        self._writes = self._engine(poolclass=NullPool)
        self._open: WeakSet[Any] = WeakSet()
        self._has_sessions = False
        self._writing = asyncio.Lock()
        self._writer: _Writer | None = None
        self._lost: _Backend | None = None

    def _engine(self, **options: Any) -> AsyncEngine:
        return create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            execution_options=self._options,
            **options,
        )

    async def _connect(self) -> Any:
        """Open one connection of the driver, with every limit."""
        driver = await self._connect_driver()
        try:
            async with asyncio.timeout(self._connect_s):
                if not self._has_sessions:
                    await self._refuse_shared_sessions(driver)
                    self._has_sessions = True
                await driver.execute(self._session_settings())
        except BaseException:
            driver.terminate()
            raise
        self._open.add(driver)
        return driver

    async def _connect_driver(self) -> Any:
        import asyncpg  # noqa: PLC0415 - an extra

        named = "application_name=" in urlsplit(self._address).query
        try:
            driver = await asyncpg.connect(
                self._address,
                timeout=self._connect_s,
                command_timeout=None if self._command_s is None else self._command_s + ANSWER_MARGIN_S,
                server_settings=None if named else {"application_name": "gapless"},
            )
        except TimeoutError as error:
            raise StoreUnavailable(
                f"PostgreSQL did not accept a connection within {self._connect_s:g} s (connect_within): {LOOK}"
            ) from error
        except OSError as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}: {LOOK}") from error
        except (asyncpg.ClientConfigurationError, ValueError) as error:
            raise StoreInvalid(f"the store url cannot be used: {error}") from error
        _keep_alive(driver)
        return driver

    def _session_settings(self) -> str:
        settings = {
            "idle_in_transaction_session_timeout": f"{IDLE_WITH_LOCKS_S}s",
            "lock_timeout": f"{LOCKS_WITHIN_S}s",
            "statement_timeout": 0 if self._command_s is None else f"{round(self._command_s * 1000)}ms",
            "tcp_keepalives_idle": KEEPALIVE_IDLE_S,
            "tcp_keepalives_interval": KEEPALIVE_EVERY_S,
            "tcp_keepalives_count": KEEPALIVE_COUNT,
            "tcp_user_timeout": UNACKNOWLEDGED_MS,
        }
        return "; ".join(f"SET {name} = '{value}'" for name, value in settings.items())

    async def _refuse_shared_sessions(self, driver: Any) -> None:
        """Raise `StoreInvalid` if a pooler lends a session for one transaction only. Simple queries work there too."""
        if await _is_true(driver, f"pg_backend_pid() = {driver.get_server_pid()}"):
            return  # no pooler, or one that passes on what it gets
        name = secrets.token_hex(8)
        is_same = f"current_setting('gapless.session', true) IS NOT DISTINCT FROM '{name}'"
        await driver.execute(f"SET gapless.session = '{name}'")
        other = await self._connect_driver()
        try:
            await other.execute("BEGIN")  # a pooler of transactions lends it the session that was used last
            is_shared = await _is_true(other, is_same) or not await _is_true(driver, is_same)
        except Exception as error:
            if "pooling mode" not in str(error):
                raise
            is_shared = True  # a pooler of statements allows no transaction
        finally:
            other.terminate()
        if is_shared:
            raise StoreInvalid(f"the store url names a pooler that shares sessions between transactions: {POOLERS}")

    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound = bind(query, *args, **kwargs)
        with store_errors():
            try:
                return await self._read(bound)
            except TimeoutError:
                await self._drop_all()
                return await self._read(bound)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                return await self._read(bound)  # the pooled connections were cut meanwhile; the pool is new now

    async def _read(self, query: Callable[[Connection], T]) -> T:
        """Run each statement by itself, without BEGIN and COMMIT: see `dialect.one_snapshot`."""
        async with self._reads.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            try:
                return await connection.run_sync(query)
            except TimeoutError:
                driver.terminate()
                await connection.invalidate()
                raise

    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound = bind(work, *args, **kwargs)
        async with self._writing:
            try:
                with store_errors():
                    return await self._write(await self._open_writer(), bound)
            except ConnectionLost as lost:
                if isinstance(lost.__cause__, TimeoutError):
                    await self._drop_all()
                raise

    async def _write(self, writer: _Writer, work: Callable[[Connection], T]) -> T:
        try:
            await writer.driver.execute("BEGIN")
            result = await writer.connection.run_sync(work)
        except Exception as error:
            await self._roll_back(writer, error)
            if sqlstate_of(error) == READ_ONLY:  # the others lead to the same server
                await self._drop_all()
            raise
        except BaseException:  # cancelled: what the driver has under way is not waited for
            await self._drop_writer()
            raise
        try:
            await self._commit(writer)
        except Exception as error:
            if sqlstate_of(error) and not _is_lost(writer.driver, error):
                await self._roll_back(writer, error)
                raise
            await self._drop_writer()
            uncertain = UncertainCommit(writer=writer.name, number=writer.number, result=result)
            message = "the connection was lost during a commit" if str(error) else "a commit was not answered in time"
            raise ConnectionLost(f"{message} {error}".strip(), uncertain if writer.marks else None) from error
        except BaseException:
            await self._drop_writer()
            raise
        return result

    async def _commit(self, writer: _Writer) -> None:
        writer.number += 1
        mark = f"EXECUTE gapless_mark_{writer.name}({writer.number}); " if writer.marks else ""
        await writer.driver.execute(f"{mark}COMMIT")

    async def _roll_back(self, writer: _Writer, error: Exception) -> None:
        """Undo the transaction. Raises `ConnectionLost`, after dropping the connection, if it is lost."""
        if not _is_lost(writer.driver, error):
            with suppress(Exception):  # the connection is lost now, which the next lines find
                await writer.driver.execute("ROLLBACK")
                return
        await self._drop_writer()
        said = str(error) or "it did not answer in time"
        raise ConnectionLost(f"the connection was lost in a transaction: {said}") from error

    async def _open_writer(self) -> _Writer:
        if self._writer is None or self._writer.driver.is_closed():
            await self._drop_writer()
            connection = await self._writes.connect()
            try:
                self._writer = await self._prepare_writer(connection)
            except BaseException:
                await connection.invalidate()
                await connection.close()
                raise
        return self._writer

    async def _prepare_writer(self, connection: AsyncConnection) -> _Writer:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        found = await driver.fetchrow(SESSION)
        for setting in ("fsync", "synchronous_commit"):
            if found[setting] == "off":
                message = "an acknowledged webhook could be lost; set it to on"
                raise StoreInvalid(f"PostgreSQL has {setting} = off: {message}")
        if found["read_only"]:
            raise ReadOnly(ADVICE[READ_ONLY])
        await self._end_lost_backend(driver)
        name, marks = secrets.token_hex(8), found["marks"] and self._command_s is not None
        if marks:
            await driver.execute(MARK.format(writer=name))
            await driver.execute(OLD_MARKS, MARKS_KEPT_S * 1_000_000)
        backend = _Backend(found["pid"], found["started"])
        return _Writer(connection=connection, driver=driver, backend=backend, name=name, marks=marks)

    async def _end_lost_backend(self, driver: Any) -> None:
        """End the process that served the lost connection, so that its locks and its transaction are gone."""
        if self._lost is None:
            return
        try:
            async with asyncio.timeout(BACKEND_ENDS_WITHIN_S):
                while await driver.fetchval(END_BACKEND, self._lost.pid, self._lost.started):
                    await driver.execute("SELECT pg_sleep(0.02)")
        except TimeoutError as error:
            raise StoreUnavailable(f"process {self._lost.pid} of PostgreSQL does not end") from error
        except Exception as error:
            if sqlstate_of(error) != NOT_ALLOWED:
                raise
        self._lost = None

    async def has_committed(self, commit: UncertainCommit) -> bool:
        async with self._writing:
            with store_errors():
                writer = await self._open_writer()  # has ended the process that might still commit
                return await writer.driver.fetchval(CONFIRM, commit.writer, commit.number) is not None

    async def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            self._lost = writer.backend
            writer.driver.terminate()
            await writer.connection.invalidate()
            await writer.connection.close()

    async def _drop_all(self) -> None:
        """Drop every connection; the next use opens new ones, perhaps to another server."""
        for driver in list(self._open):
            driver.terminate()
        await self._reads.dispose()

    async def listen(self, channel: str, hear: Callable[[str], None]) -> None:
        lost = asyncio.Event()
        with store_errors():
            async with self._writes.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                driver.add_termination_listener(lambda _: lost.set())
                try:
                    await driver.add_listener(channel, lambda *notice: hear(notice[-1]))
                    while not await _is_set_within(lost, LISTEN_CHECK_S):
                        await driver.fetchval("SELECT 1")
                finally:
                    driver.terminate()
                    await connection.invalidate()
        raise StoreUnavailable("the connection that listens was lost")

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer.connection.close()
        await self._writes.dispose()
        await self._reads.dispose()

    def free_bytes(self) -> int | None:
        return None


def _is_lost(driver: Any, error: Exception) -> bool:
    """Return True if the connection has ended or is silent."""
    state = sqlstate_of(error) or ""
    return driver.is_closed() or isinstance(error, OSError) or state.startswith(("08", "57P"))


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await event.wait()
    return False


async def _is_true(driver: Any, condition: str) -> bool:
    """Ask by the simple protocol, which returns no rows through this driver: a false condition divides by zero."""
    import asyncpg  # noqa: PLC0415 - an extra

    try:
        await driver.execute(f"SELECT 1 / ({condition})::int")
    except asyncpg.DivisionByZeroError:
        return False
    return True


def _keep_alive(driver: Any) -> None:
    """Let the kernel find out if the other machine is gone, also while nothing is sent."""
    shown = driver._transport.get_extra_info("socket")  # noqa: SLF001 - the driver has no other way to it
    if shown is None or shown.family == getattr(socket, "AF_UNIX", None):
        return
    with socket.socket(fileno=os.dup(shown.fileno())) as own:  # uvloop shows a socket that cannot be set
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        options = {
            "TCP_KEEPIDLE": KEEPALIVE_IDLE_S,
            "TCP_KEEPINTVL": KEEPALIVE_EVERY_S,
            "TCP_KEEPCNT": KEEPALIVE_COUNT,
            "TCP_USER_TIMEOUT": UNACKNOWLEDGED_MS,
        }
        for name, value in options.items():
            if hasattr(socket, name):
                own.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
