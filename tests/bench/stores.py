"""Fresh places for ledgers: a file, or a database of the PostgreSQL that is named."""

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
from sqlalchemy import func, make_url, select

from gapless.ledger.engine import Store, open_store
from gapless.ledger.tables import EVENT, METADATA

SQLITE, POSTGRESQL = "sqlite", "postgresql"


class Places:
    """Makes ledgers that last as long as a context. `postgres` is the address of a server, or empty."""

    def __init__(self, folder: Path, postgres: str) -> None:
        self._folder = folder
        self._postgres = postgres

    @property
    def kinds(self) -> list[str]:
        """The kinds of store that can be measured here."""
        return [SQLITE, POSTGRESQL] if self._postgres else [SQLITE]

    @contextlib.contextmanager
    def fresh(self, kind: str, like: str = "", *, is_empty: bool = False) -> Iterator[str]:
        """The address of a ledger with all tables, or without any; a copy of the one at address `like`, if given."""
        name = f"gapless_bench_{secrets.token_hex(4)}"
        if kind == SQLITE:
            path = self._folder / f"{name}.db"
            if like:
                shutil.copyfile(like.removeprefix("sqlite:///"), path)
            yield self._made(f"sqlite:///{path}", is_ready=is_empty or bool(like))
            for left in self._folder.glob(f"{name}.db*"):
                left.unlink()
            return
        template = f" TEMPLATE {make_url(like).database}" if like else ""
        asyncio.run(_execute(self._postgres, f"CREATE DATABASE {name}{template}"))
        try:
            url = make_url(self._postgres).set(drivername="postgresql", database=name)
            yield self._made(url.render_as_string(hide_password=False), is_ready=is_empty or bool(like))
        finally:
            asyncio.run(_execute(self._postgres, f"DROP DATABASE {name} WITH (FORCE)"))

    def _made(self, url: str, *, is_ready: bool) -> str:
        if not is_ready:
            asyncio.run(_create_tables(url))
        return url


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """The store at `url`, closed afterwards."""
    store = open_store(url)
    try:
        yield store
    finally:
        await store.close()


def count_events(url: str) -> int:
    """How many events the ledger at `url` holds."""

    async def count() -> int:
        async with opened(url) as store:
            return await store.read(lambda c: int(c.execute(select(func.count()).select_from(EVENT)).scalar_one()))

    return asyncio.run(count())


async def _create_tables(url: str) -> None:
    async with opened(url) as store:
        await store.write(METADATA.create_all)


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
