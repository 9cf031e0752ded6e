"""The migrations make the tables that the code works with, and can be taken back one by one."""

import json

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

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


async def test_no_schema_without_keys_gets_sealed_payloads(store: Store) -> None:
    def downgrade(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO payload (id, body, stored_us, sealed_by) VALUES (1, '', 1, 'k1')")
        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0026")

    with pytest.raises(RuntimeError, match="sealed rows in payload"):
        await store.write(downgrade)
    assert await store.read(schema.is_current)


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


async def test_secrets_that_webhooks_carried_are_deleted(store: Store) -> None:
    secret, signature = '{"x-telegram-bot-api-secret-token": "canary"}', '{"stripe-signature": "t=1"}'
    refused = [["authorization", "Basic canary"]]
    kinds = {1: ("bot", "telegram"), 2: ("shop", "stripe")}
    payloads = {1: (secret, None), 2: (signature, None), 3: (secret, None), 4: (None, 3)}
    rows = {
        "source (id, name, provider, mode, start_us)": [(n, *each, "hybrid", 0) for n, each in kinds.items()],
        "event (source_id, stream_id, key, type, occurred_us, first_seen_us, via, payload_id)": [
            (source, source, str(payload), "x", 1, 1, "webhook", payload)
            for source, payload in ((1, 1), (2, 2), (1, 4))
        ],
        "payload (id, headers, envelope_id, stored_us, body)": [(n, *each, 1, b"") for n, each in payloads.items()],
        "quarantine (source_id, received_us, reason, detail, headers, body)": [
            (source, 1, "signature", "", json.dumps(refused), b"") for source in kinds
        ],
    }

    def before(connection: Connection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0018")
        for table, values in rows.items():
            names = table.partition("(")[2].rstrip(")").split(", ")
            statement = text(f"INSERT INTO {table} VALUES ({', '.join(f':{name}' for name in names)})")
            connection.execute(statement, [dict(zip(names, each, strict=True)) for each in values])

    def left(connection: Connection) -> list[object]:
        tables = ("SELECT headers FROM payload ORDER BY id", "SELECT headers FROM quarantine ORDER BY source_id")
        return [value for table in tables for (value,) in connection.exec_driver_sql(table)]

    await store.write(before)
    await store.write(migrate.upgrade)
    assert await store.read(left) == [None, signature, None, None, "[]", json.dumps(refused)]


async def test_what_waits_is_due_for_earlier_releases(store: Store) -> None:
    def before(connection: Connection) -> list[str]:
        values = "(1, 1, 'waiting', 1, 1), (1, 2, 'dead', 1, 1)"
        connection.exec_driver_sql(
            f"INSERT INTO delivery (destination_id, event_seq, state, next_us, created_us) VALUES {values}"
        )
        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0022")
        return list(connection.exec_driver_sql("SELECT state FROM delivery ORDER BY event_seq").scalars())

    assert await store.write(before) == ["pending", "dead"]
