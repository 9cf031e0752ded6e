"""Reads the ids that a team has processed from its own database, by its own query, and can change nothing there."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from gapless.errors import UserError
from gapless.ledger.engine.base import StoreUnavailable, store_errors
from gapless.ledger.worksheet import BATCH

CONNECT_S = 10.0


class TeamTableInvalid(UserError):
    """The team's database, or what the query returns, is not what an audit can read."""


async def read_ids(dsn: str, query: str) -> AsyncIterator[list[str]]:
    """Yield the first column of the query's rows, in batches. No message repeats the address.

    The transaction only reads. Raises `TeamTableInvalid` and `StoreError`.
    """
    scheme = dsn.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        for batch in _read_sqlite(dsn, query):
            yield batch
    elif scheme in ("postgresql", "postgres"):
        async for batch in _read_postgres(dsn, query):
            yield batch
    else:
        raise TeamTableInvalid(
            "the address of the team's table is neither sqlite:///… nor postgresql://…: "
            "write its ids into a file, and name that with --against"
        )


def _read_sqlite(dsn: str, query: str) -> Iterator[list[str]]:
    try:
        path = Path(make_url(dsn).database or "")
    except (ArgumentError, ValueError):
        raise TeamTableInvalid("the address of the team's table cannot be read") from None
    if not path.is_file():
        raise TeamTableInvalid("the file of the team's table is not there")
    with store_errors(), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        cursor = connection.execute(query)
        while rows := cursor.fetchmany(BATCH):
            yield [_id(row) for row in rows]


async def _read_postgres(dsn: str, query: str) -> AsyncIterator[list[str]]:
    try:
        import asyncpg  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise TeamTableInvalid("reading from PostgreSQL needs: pip install 'gapless[postgres]'") from error
    address = "postgresql:" + dsn.partition(":")[2]
    with store_errors():
        try:
            connection = await asyncpg.connect(address, timeout=CONNECT_S)
        except (asyncpg.ClientConfigurationError, ValueError):
            raise TeamTableInvalid("the address of the team's table cannot be read") from None
        except TimeoutError:
            raise StoreUnavailable(f"the team's database did not answer within {CONNECT_S:g} s") from None
        try:
            async with connection.transaction(readonly=True):
                cursor = await connection.cursor(query)
                while rows := await cursor.fetch(BATCH):
                    yield [_id(row) for row in rows]
        finally:
            await connection.close()


def _id(row: Any) -> str:
    """Return the first value of a row. Raises `TeamTableInvalid` if it is no text: it must be the provider's id."""
    if not isinstance(row[0], str):
        raise TeamTableInvalid(
            f"the query returns {type(row[0]).__name__} in its first column; wanted the provider's ids, as text"
        )
    return row[0]
