"""Generations of configurations: an older one retires and brings back nothing, until a person activates it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, select

from gapless.bootstrap.runtime import ProcessParts, open_runtime
from gapless.cli.main import main
from gapless.ledger.engine import Store, open_store
from gapless.ledger.tables import AUDIT_LOG, DESTINATION, SOURCE
from gapless.settings import load
from gapless.status.reader import read_report
from gapless.status.troubles import Trouble, troubles

pytestmark = pytest.mark.anyio
ENVIRON = {"KEY": "rk_live_1", "SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "GAPLESS_PRIVATE__PORT": "0"}
SOURCE_TABLE = '[[source]]\nname = "{}"\nprovider = "stripe"\nmode = "{}"\n[source.options]\napi_key_env = "KEY"\n'
DESTINATION_TABLE = '[[destination]]\nname = "{}"\nurl = "https://{}.example/"\nsecret_env = "SECRET"\n'
OLD, NEW = ("acme",), ("acme", "shop")
WITHHELD = "retire source shop, retire destination to-shop"


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch, store_url: str) -> None:
    monkeypatch.setenv("STORE_URL", store_url)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


def write(folder: Path, names: tuple[str, ...], mode: str = "hybrid") -> Path:
    """A configuration with a source, and a destination for each."""
    path = folder / f"{'-'.join(names)}-{mode}.toml"
    tables = [SOURCE_TABLE.format(name, mode) + DESTINATION_TABLE.format(f"to-{name}", name) for name in names]
    path.write_text("\n".join(['[store]\nurl_env = "STORE_URL"', *tables]))
    return path


@asynccontextmanager
async def started(path: Path, *, serves: bool = True) -> AsyncIterator[ProcessParts]:
    """A process with that configuration."""
    environ = dict(os.environ)
    async with open_runtime(load(path, environ), environ, serves=serves) as parts:
        yield parts


async def start(path: Path) -> None:
    async with started(path):
        pass


async def states(store: Store) -> dict[str, str]:
    def work(connection: Connection) -> dict[str, str]:
        tables = (SOURCE, DESTINATION)
        return {
            name: state for table in tables for name, state in connection.execute(select(table.c.name, table.c.state))
        }

    return await store.read(work)


async def shown(parts: ProcessParts) -> list[Trouble]:
    runtime = parts.runtime
    found = troubles(await read_report(runtime.store, runtime.sources, runtime.clock()))
    return [each for each in found if each.kind.value == "configuration_older"]


ALL = {"acme": "active", "shop": "active", "to-acme": "active", "to-shop": "active"}
RETIRED = ALL | {"shop": "retired", "to-shop": "retired"}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write(tmp_path, OLD)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return write(tmp_path, NEW)


async def test_an_older_configuration_retires_nothing(store: Store, old: Path, new: Path) -> None:
    await start(old)
    await start(new)
    async with started(old) as parts:
        assert await states(store) == ALL
        (found,) = await shown(parts)
        assert f"was started with an older configuration, and did not {WITHHELD}." in found.text
        assert "gapless config activate" in found.next
    async with started(new) as parts:
        assert await shown(parts) == []


async def test_an_older_configuration_brings_nothing_back(store: Store, old: Path, new: Path) -> None:
    await start(new)
    await start(old)
    assert await states(store) == RETIRED
    async with started(new) as parts:
        assert await states(store) == RETIRED
        (found,) = await shown(parts)
        assert "did not bring back source shop, bring back destination to-shop." in found.text


async def test_a_new_configuration_comes_into_force(store: Store, old: Path, new: Path) -> None:
    await start(new)
    await start(old)
    assert await states(store) == RETIRED


async def test_roles_and_environments_share_a_generation(tmp_path: Path, old: Path, new: Path) -> None:
    await start(old)
    await start(new)
    async with started(write(tmp_path, NEW, mode="poll")) as parts:
        assert await shown(parts) == []
        assert parts.rows.standing.generation == 2


async def test_a_command_neither_retires_nor_gets_a_generation(store: Store, old: Path, new: Path) -> None:
    await start(new)
    async with started(old, serves=False) as parts:
        assert await states(store) == ALL
        assert parts.rows.standing.generation is None
        assert await shown(parts) == []


def test_an_activated_configuration_is_in_force(old: Path, new: Path, store_url: str) -> None:
    async def run() -> None:
        await start(old)
        await start(new)

    async def look() -> tuple[dict[str, str], list[tuple[str, str]]]:
        await start(old)
        store = open_store(store_url)
        query = select(AUDIT_LOG.c.action, AUDIT_LOG.c.detail)
        try:
            logged = await store.read(lambda c: [tuple(row) for row in c.execute(query)])
            return await states(store), logged
        finally:
            await store.close()

    asyncio.run(run())
    result = CliRunner().invoke(main, ["--config", str(old), "config", "activate"])
    assert result.exit_code == 0, result.output
    assert "as generation 3" in result.output
    found, logged = asyncio.run(look())
    assert found == RETIRED
    ((action, detail),) = logged
    assert (action, json.loads(detail)["generation"]) == ("config.activate", 3)
