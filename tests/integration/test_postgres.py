"""Events that only PostgreSQL has: locks of other sessions, and connections that are cut."""

import asyncpg
import pytest

from gapless.ledger import Connection, streams
from gapless.ledger.engine import Conflict, ConnectionLost, Store, open_store, postgres

pytestmark = pytest.mark.anyio


def touch(connection: Connection) -> None:
    """Write to every source."""
    connection.exec_driver_sql("UPDATE source SET next_pass_us = next_pass_us + 1")


async def with_a_source(url: str) -> Store:
    store = open_store(url)
    await store.write(
        lambda c: c.exec_driver_sql("INSERT INTO source (name, provider, mode, start_us) VALUES ('a', 'x', 'y', 0)")
    )
    await store.write(streams.ensure_stream, source_id=1, name="")
    return store


async def test_a_lock_that_somebody_else_holds_stops_the_writer_for_seconds_only(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, a session that was left open in a transaction."""
    monkeypatch.setattr(postgres, "LOCKS_WITHIN_S", 1)
    store = await with_a_source(postgres_url)
    session = await asyncpg.connect(postgres_url)
    try:
        async with session.transaction():
            await session.execute("SELECT * FROM source FOR UPDATE")
            with pytest.raises(Conflict):
                await store.write(touch)
        await store.write(touch)
    finally:
        await session.close()
        await store.close()


async def test_after_a_cut_connection_reads_and_writes_go_on(postgres_url: str) -> None:
    """A read can be repeated. A connection that was idle had no transaction that could have taken effect."""
    store = await with_a_source(postgres_url)
    session = await asyncpg.connect(postgres_url)
    try:
        await store.read(streams.streams, source_id=1)
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        await session.execute(f"SELECT pg_terminate_backend(pid) {others}")
        assert len(await store.read(streams.streams, source_id=1)) == 1
        await store.write(touch)
    finally:
        await session.close()
        await store.close()


async def test_a_write_that_is_cut_says_that_it_failed(postgres_url: str) -> None:
    """Nothing of it took effect, so the caller may do it again."""

    def cut(connection: Connection) -> None:
        touch(connection)
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    store = await with_a_source(postgres_url)
    try:
        with pytest.raises(ConnectionLost) as lost:
            await store.write(cut)
        assert lost.value.uncertain is None
        await store.write(touch)
        assert await store.read(lambda c: c.exec_driver_sql("SELECT next_pass_us FROM source").scalar_one()) == 1
    finally:
        await store.close()
