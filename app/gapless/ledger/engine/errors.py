"""What can go wrong in the store, named by what the caller should do; drivers' errors are mapped here alone."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from gapless.errors import Unavailable, UserError


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
