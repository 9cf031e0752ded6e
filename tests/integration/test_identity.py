"""The ids by which consumers recognise events: the same in a ledger that was built anew, and nowhere two alike."""

from datetime import UTC, datetime

import pytest
from alembic import command
from sqlalchemy import Connection, update

from gapless.destinations.contract import event_id
from gapless.ledger import migrate, sources
from gapless.ledger.engine import Store
from gapless.ledger.tables import SOURCE

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def register(connection: Connection, name: str) -> int:
    return sources.register_source(connection, name, "stripe", "hybrid", NOW, NOW)


def go_back(connection: Connection, version: str) -> None:
    config = migrate._config()
    config.attributes["connection"] = connection
    command.downgrade(config, version)


async def seeds(store: Store) -> dict[str, str]:
    return {row["name"]: row["identity_seed"] for row in await store.read(sources.sources)}


async def test_a_rebuilt_ledger_gives_an_event_the_same_id(store: Store) -> None:
    await store.write(register, "another")  # so that the number of the row is not what it was
    await store.write(register, "acme")
    assert event_id((await seeds(store))["acme"], "evt_1") == event_id("acme", "evt_1")


async def test_a_renamed_source_keeps_its_ids(store: Store) -> None:
    await store.write(register, "acme")
    await store.write(sources.rename, "acme", "acme-eu")
    assert await seeds(store) == {"acme-eu": "acme"}


async def test_a_new_source_of_an_old_name_has_ids_of_its_own(store: Store) -> None:
    await store.write(register, "acme")
    await store.write(sources.rename, "acme", "acme-eu")
    await store.write(register, "acme")
    found = await seeds(store)
    assert found["acme-eu"] == "acme"
    assert found["acme"].startswith("acme.")


async def test_an_existing_ledger_keeps_its_ids(store: Store) -> None:
    source_id = await store.write(register, "acme")
    await store.write(lambda c: c.execute(update(SOURCE).values(identity_seed="later")))
    await store.write(go_back, "0004")
    await store.write(migrate.upgrade)
    assert await seeds(store) == {"acme": str(source_id)}


async def test_a_row_of_the_release_before_has_its_number_as_seed(store: Store) -> None:
    source_id = await store.write(register, "acme")
    await store.write(lambda c: c.execute(update(SOURCE).values(identity_seed=None)))
    assert await seeds(store) == {"acme": str(source_id)}
