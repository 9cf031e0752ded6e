"""The interface of a store, which runs the ledger's statements in transactions, and its errors."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from gapless.errors import Unavailable, UserError

P = ParamSpec("P")
T = TypeVar("T")


class StoreError(Unavailable):
    """Base of the store's errors."""


class StoreUnavailable(StoreError):
    """The database cannot be reached or cannot write (disk full, shutting down): try again later."""


class ReadOnly(StoreUnavailable):
    """The database allows no writes: after a failover, for example. The connections to it were dropped."""


class LedgerReplaced(StoreUnavailable):
    """The file of the ledger was removed or replaced while this process had it open. Nothing may be acknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UncertainCommit:
    """A transaction whose commit was sent and not answered. `Store.has_committed` tells what became of it."""

    writer: str
    number: int
    result: Any
    """What the transaction would have returned."""


class ConnectionLost(StoreUnavailable):
    """The connection that wrote was lost or did not answer in time, and was dropped.

    The transaction did not take effect, unless `uncertain` is set.
    """

    def __init__(self, message: str, uncertain: UncertainCommit | None = None) -> None:
        super().__init__(message)
        self.uncertain = uncertain


class Conflict(StoreError):
    """A deadlock, a serialisation failure or a lock wait: the same transaction may succeed at once."""


class BadData(StoreError):
    """The database refuses a value. The transaction was rolled back; one of its rows cannot be stored."""


class StoreInvalid(StoreError, UserError):
    """The database is not fit for use: wrong settings, or a schema that this release does not know."""


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn the errors of drivers and SQLAlchemy into `StoreError`s, with the cause chained."""
    try:
        yield
    except StoreError:
        raise
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise _store_error(cause) from error
    except (OverflowError, UnicodeError) as error:
        raise BadData(str(error)) from error
    except TimeoutError as error:
        raise ConnectionLost("the database did not answer in time; the connection was dropped") from error
    except (OSError, SQLAlchemyError) as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "asyncpg":  # not installed unless PostgreSQL is used
            raise
        raise _store_error(error) from error


READ_ONLY = "25006"
ADVICE = {
    READ_ONLY: "PostgreSQL is read-only: it is a standby, or default_transaction_read_only is on. Every transaction "
    "connects again; if that does not help, name the primary server in the store url",
    "55P03": "another session holds a lock on the ledger; find it in pg_stat_activity and end it, for example an open "
    "transaction of a person or a LOCK TABLE",
    "57014": "a statement took longer than command_within; see what PostgreSQL is busy with in pg_stat_activity",
}
"""What the operator should know, by SQLSTATE."""


def sqlstate_of(error: BaseException | None) -> str | None:
    """Return the SQLSTATE of an error of a driver or of SQLAlchemy; None if it has none."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state if isinstance(state, str) else None


def _store_error(cause: BaseException | None) -> StoreError:
    message = f"{type(cause).__name__}: {cause}"
    advice = ADVICE.get(sqlstate_of(cause) or "")
    return classify(cause)(f"{advice} ({message})" if advice else message)


def classify(error: BaseException | None) -> type[StoreError]:
    """Return the `StoreError` that a driver's error means."""
    sqlstate = sqlstate_of(error)
    if sqlstate is not None:
        if sqlstate == READ_ONLY:
            return ReadOnly
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """Limits of the connections to PostgreSQL. SQLite has none of them."""

    connect_within: timedelta
    """Time that opening a connection may take."""
    command_within: timedelta | None
    """Time that one statement may take; None: any time."""
    connections: int
    """Most connections of this process: one writes, one listens, the others read."""


PATIENT = StoreLimits(connect_within=timedelta(seconds=10), command_within=None, connections=7)
"""For work of any length, such as an upgrade of the schema. Its commits are not looked up."""


class Store(ABC):
    """A database that runs statements in transactions."""

    dialect: str

    @abstractmethod
    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `query` in a transaction that only reads, and return its result. Raises `StoreError`."""

    @abstractmethod
    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in one transaction and return its result once that is durable. Raises `StoreError`."""

    async def has_committed(self, commit: UncertainCommit) -> bool:
        """Return True if that transaction took effect; it cannot take effect later. Raises `StoreError`."""
        raise StoreUnavailable(f"transaction {commit.number} of {commit.writer} is unknown to this store")

    async def listen(self, channel: str, hear: Callable[[str], None]) -> None:  # noqa: ARG002 - of those that can
        """Call `hear` with the text of each `dialect.notify` of the channel, in the event loop, until cancelled.

        On SQLite those of this process. Notices may be lost. Raises `StoreError` if the connection is lost.
        """
        raise StoreUnavailable(f"this store has no notices, of {channel} neither")

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""

    def log_bytes(self) -> int | None:
        """Return the size of the write-ahead log beside the database; None: there is none to look at."""
        return None

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Return the free disk space of the database; None: it is on another machine."""


def bind(
    work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
) -> Callable[[Connection], T]:
    """Return `work` with all its arguments but the connection."""

    def bound(connection: Connection) -> T:
        return work(connection, *args, **kwargs)

    return bound
