"""The migrations make the tables that the code works with, and can be taken back one by one."""

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from gapless.ledger import migrate, schema
from gapless.ledger.engine import Store
from gapless.ledger.tables import METADATA

pytestmark = pytest.mark.anyio


async def test_the_migrations_make_the_tables_of_the_code(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"compare_server_default": connection.dialect.name != "sqlite"}  # SQLite tells no identity
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))

    assert await store.read(differences) == []


def test_versions_are_those_of_the_migrations() -> None:
    scripts = ScriptDirectory.from_config(migrate._config())
    assert scripts.get_current_head() == schema.head()
    assert [script.revision for script in scripts.walk_revisions()] == list(reversed(schema.VERSIONS))


async def test_the_version_is_what_alembic_recorded(store: Store) -> None:
    def recorded(connection: Connection) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    assert await store.read(schema.version) == await store.read(recorded) == schema.head()


async def test_the_newest_migration_can_be_taken_back_and_made_again(store: Store) -> None:
    def columns(connection: Connection) -> set[tuple[str, str]]:
        found = inspect(connection)
        return {(table, column["name"]) for table in found.get_table_names() for column in found.get_columns(table)}

    def downgrade(connection: Connection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "-1")

    now = await store.read(columns)
    await store.write(downgrade)
    assert await store.read(columns) < now
    assert not await store.read(schema.is_current)
    await store.write(migrate.upgrade)
    assert await store.read(columns) == now


async def test_events_lost_by_earlier_releases_get_an_interval(store: Store) -> None:
    row = "(source_id, stream_id, key, type, occurred_us, found_us, reason, state, next_attempt_us, acknowledged_us)"
    lost = (
        "(1, 1, 'a', 'x', 5000000, 9, 'detail', 'lost', 0, NULL), (1, 1, 'b', 'x', 5900000, 8, 'detail', 'lost', 0, 7)",
        "(1, 1, 'c', 'x', 7000001, 9, 'detail', 'lost', 0, 7), (1, 1, 'd', 'x', 1, 9, 'detail', 'open', 0, NULL)",
    )

    def before(connection: Connection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0007")
        connection.exec_driver_sql(f"INSERT INTO missing {row} VALUES {', '.join(lost)}")

    def intervals(connection: Connection) -> list[tuple[object, ...]]:
        columns = "start_us, end_us, reason, recorded_us, acknowledged_us"
        return [tuple(each) for each in connection.exec_driver_sql(f"SELECT {columns} FROM unrecoverable ORDER BY 1")]

    await store.write(before)
    await store.write(migrate.upgrade)
    assert await store.read(intervals) == [
        (5000000, 6000000, "event_lost", 8, None),
        (7000000, 8000000, "event_lost", 9, 7),
    ]
