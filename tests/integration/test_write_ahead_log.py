"""The write-ahead log of SQLite is bounded, and a reader that makes it grow is named."""

import asyncio
import logging
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from gapless.domain import Sources
from gapless.ledger.engine import SqliteStore, Store, open_store, sqlite
from gapless.status import reader
from gapless.status.report import StoreFault
from gapless.status.troubles import TroubleKind, troubles

pytestmark = pytest.mark.anyio
LIMIT = 1 << 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach the limits with few commits."""
    monkeypatch.setattr(sqlite, "LOG_LIMIT_BYTES", LIMIT)
    monkeypatch.setattr(sqlite, "COMMITS_PER_CHECKPOINT", 4)
    monkeypatch.setattr(reader, "LOG_TOO_LARGE", 2 * LIMIT)


def write_much(connection: Connection) -> None:
    connection.exec_driver_sql(
        "INSERT INTO audit_log (at_us, actor, action, subject, detail) VALUES (0, '', '', '', ?)", ("x" * 100_000,)
    )


async def log_bytes_within(store: Store, most: int) -> bool:
    """Return True once the log is at most that large, as a checkpoint makes it."""
    for _ in range(400):
        if (store.log_bytes() or 0) <= most:
            return True
        await store.write(write_much)
        await asyncio.sleep(0.01)
    return False


async def faults(store: Store) -> list[TroubleKind]:
    report = await reader.read_report(store, Sources(()), datetime.now(UTC))
    assert all(each.fault is StoreFault.LOG_GROWS for each in report.store)
    return [each.kind for each in troubles(report) if each.kind is TroubleKind.STORE_LOG_GROWS]


async def test_the_log_stays_bounded_while_much_is_written(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    try:
        for _ in range(100):
            await store.write(write_much)
        assert await log_bytes_within(store, 2 * LIMIT)
        assert await faults(store) == []
    finally:
        await store.close()


async def test_a_reader_that_makes_the_log_grow_is_told(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(sqlite_url)
    assert isinstance(store, SqliteStore)
    other = sqlite3.connect(make_url(sqlite_url).database or "", isolation_level=None)
    try:
        await store.write(write_much)
        other.execute("BEGIN")
        other.execute("SELECT * FROM audit_log").fetchone()
        with caplog.at_level(logging.WARNING):
            for _ in range(400):
                await store.write(write_much)
                if "ledger_log_grows" in caplog.text and (store.log_bytes() or 0) > 2 * LIMIT:
                    break
                await asyncio.sleep(0.01)
        assert "ledger_log_grows" in caplog.text
        assert await faults(store) == [TroubleKind.STORE_LOG_GROWS]
        other.execute("COMMIT")
        assert await log_bytes_within(store, LIMIT)
        assert await faults(store) == []
    finally:
        other.close()
        await store.close()


async def test_no_webhook_waits_for_the_checkpoint_of_its_own_commit(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    try:
        asked = await store.write(lambda c: c.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar_one())
        limit = await store.write(lambda c: c.exec_driver_sql("PRAGMA journal_size_limit").scalar_one())
        assert (asked, limit) == (0, LIMIT)
    finally:
        await store.close()


async def test_a_lock_at_the_start_ends_no_checkpoints(sqlite_url: str) -> None:
    path = Path(make_url(sqlite_url).database or "")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    checkpoints = sqlite.Checkpoints(path)
    try:
        await asyncio.sleep(0.2)
        assert checkpoints.is_running
    finally:
        other.close()
        checkpoints.close()
