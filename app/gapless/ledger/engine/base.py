"""The interface of a store, which runs the ledger's statements in transactions, and its errors."""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from gapless.errors import Unavailable, UserError

P = ParamSpec("P")
T = TypeVar("T")


class StoreError(Unavailable):
    """Base of the store's errors."""


class StoreUnavailable(StoreError):
    """The database cannot be reached or cannot write (disk full, shutting down): try again later."""


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
        raise classify(cause)(f"{type(cause).__name__}: {cause}") from error
    except (OverflowError, UnicodeError) as error:
        raise BadData(str(error)) from error
    except (OSError, SQLAlchemyError) as error:
        raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "asyncpg":  # not installed unless PostgreSQL is used
            raise
        raise classify(error)(f"{type(error).__name__}: {error}") from error


def classify(error: BaseException | None) -> type[StoreError]:
    """Return the `StoreError` that a driver's error means."""
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


class Store(ABC):
    """A database that runs statements in transactions."""

    dialect: str

    @abstractmethod
    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `query` in a transaction that only reads, and return its result. Raises `StoreError`."""

    @abstractmethod
    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in one transaction and return its result once that is durable. Raises `StoreError`."""

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""

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
