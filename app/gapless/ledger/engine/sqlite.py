"""The ledger on SQLite, in one file. One thread writes, two read, and one copies the write-ahead log into the file."""

import asyncio
import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event

from gapless.ledger.engine import dialect
from gapless.ledger.engine.base import LedgerReplaced, Store, bind, store_errors
from gapless.ledger.engine.lock import identity, refuse_other_file
from gapless.ledger.engine.private_files import make_file

P = ParamSpec("P")
T = TypeVar("T")

READERS = 2
"""Threads that read: one for passes, one for everything else that may wait."""
READ_CACHE_KIB, WRITE_CACHE_KIB = 4 << 10, 64 << 10
"""Page caches. A commit empties those of the reading connections, so a larger one would only cost memory."""
LOG_LIMIT_BYTES = 64 << 20
"""Size to which the write-ahead log is cut when it starts over."""
COMMITS_PER_CHECKPOINT = 64
CHECKPOINT_EVERY_S = 5.0
"""Time after which few commits are copied too."""
WARN_EVERY_S = 60.0
log = logging.getLogger(__name__)


class SqliteStore(Store):
    """One file, WAL, fsync on every commit. One thread writes."""

    dialect = "sqlite"

    def __init__(self, path: Path, options: Mapping[str, object] = MappingProxyType({})) -> None:
        self.path = path
        self._engine = _sqlite_engine(path, options)
        self._writer = ThreadPoolExecutor(1, "gapless-write")
        self._readers = ThreadPoolExecutor(READERS, "gapless-read")
        self._connection: Connection | None = None
        self._files: tuple[str, ...] = ()
        self._checkpoints: Checkpoints | None = None
        self._heard: dict[str, tuple[Callable[[str], object], ...]] = {}
        """Those who listen, by channel."""

    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound = bind(query, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, bound)

    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound = bind(work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._write, bound)

    def _read(self, query: Callable[[Connection], T]) -> T:
        with store_errors(), self._engine.connect() as connection:
            return query(connection)

    def _write(self, work: Callable[[Connection], T]) -> T:
        with store_errors():
            connection, checkpoints = self._open_writer()
            if self._files:
                self._refuse_other_files()
            notices = connection.info[dialect.NOTICES] = list[tuple[str, str]]()
            with checkpoints.turn, connection.begin():
                result = work(connection)
            self._refuse_other_files()
            checkpoints.note_commit()
            for channel, text in notices:
                for hear in self._heard.get(channel, ()):
                    hear(text)
            return result

    async def listen(self, channel: str, hear: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()

        def pass_on(text: str) -> None:
            loop.call_soon_threadsafe(hear, text)

        self._heard[channel] = (*self._heard.get(channel, ()), pass_on)
        try:
            await asyncio.Event().wait()
        finally:
            self._heard[channel] = tuple(each for each in self._heard[channel] if each is not pass_on)

    def _open_writer(self) -> tuple[Connection, "Checkpoints"]:
        if self._connection is None or self._checkpoints is None:
            self._connection = self._engine.connect().execution_options(gapless_writes=True)
            driver: Any = self._connection.connection.driver_connection
            driver.execute(f"PRAGMA cache_size=-{WRITE_CACHE_KIB}")
            driver.execute(f"PRAGMA journal_size_limit={LOG_LIMIT_BYTES}")
            self._checkpoints = Checkpoints(self.path)
            driver.execute("PRAGMA wal_autocheckpoint=0")
        return self._connection, self._checkpoints

    def _refuse_other_files(self) -> None:
        """Raise `LedgerReplaced` unless the files at the ledger's path are those that were written first.

        An open file lives on without its name, so every commit to it would succeed and be lost with this process. It
        is only looked at, never opened: closing a second descriptor would end SQLite's locks.
        """
        found = tuple(identity(path) for path in (self.path, log_path(self.path)))
        if not self._files:
            self._files = found
        elif found != self._files:
            raise LedgerReplaced(
                f"the ledger {self.path} was removed or replaced while this process has it open: put the file back "
                "(with its -wal), or stop this process and start it again with the file that is there now"
            )

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        if self._checkpoints is not None:
            await asyncio.to_thread(self._checkpoints.close)
        if self._connection is not None:
            await loop.run_in_executor(self._writer, self._connection.close)
        self._writer.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self._engine.dispose()

    def log_bytes(self) -> int | None:
        return _size(log_path(self.path))

    def free_bytes(self) -> int | None:
        return shutil.disk_usage(self.path.parent).free


class Checkpoints:
    """Copies the write-ahead log into the ledger's file, in a thread and by a connection of its own.

    So no webhook waits for it, except at its end, when the log starts over: that needs the writer's `turn`. A reader
    that stays keeps the log from starting over; then it grows, and the log of the process says so.
    """

    def __init__(self, ledger: Path) -> None:
        self.turn = threading.Lock()
        """Held by whoever writes."""
        self._ledger = ledger
        self._commits = 0
        self._due = threading.Event()
        self._closing = False
        self._warned: float | None = None
        self._thread = threading.Thread(target=self._run, name="gapless-checkpoint", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """True until `close`."""
        return self._thread.is_alive()

    def note_commit(self) -> None:
        """Count a commit."""
        self._commits += 1
        if self._commits >= COMMITS_PER_CHECKPOINT:
            self._due.set()

    def close(self) -> None:
        """End the thread, and wait for it."""
        self._closing = True
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        connection = sqlite3.connect(self._ledger, isolation_level=None)
        try:
            connection.execute("PRAGMA busy_timeout=0")
            while not self._closing:
                self._due.wait(CHECKPOINT_EVERY_S)
                self._due.clear()
                if self._commits:
                    self._commits = 0
                    with suppress(sqlite3.OperationalError):  # busy or full: the writer says what it means
                        self._checkpoint(connection)
        finally:
            connection.close()

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        size = _size(log_path(self._ledger))
        mode = "TRUNCATE" if size > LOG_LIMIT_BYTES else "RESTART"
        with self.turn:
            is_held, _, _ = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        if is_held and size > LOG_LIMIT_BYTES:
            self._warn(size)

    def _warn(self, size: int) -> None:
        now = time.monotonic()
        if self._warned is None or now - self._warned >= WARN_EVERY_S:
            self._warned = now
            log.warning(
                "ledger_log_grows",
                extra={"bytes": size, "next": "end the program that reads the ledger in one long transaction"},
            )


def log_path(ledger: Path) -> Path:
    """Return the path of the write-ahead log."""
    return ledger.with_name(ledger.name + "-wal")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sqlite_engine(path: Path, options: Mapping[str, object]) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=READERS + 1,
        connect_args={"check_same_thread": False},
        hide_parameters=True,
        execution_options=dict(options),
    )

    @event.listens_for(engine, "do_connect")
    def refuse(*_: object) -> None:
        refuse_other_file(path)
        make_file(path)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # `begin` below sends BEGIN
        for pragma in (
            "page_size=16384",
            "journal_mode=WAL",
            "synchronous=FULL",
            "secure_delete=ON",  # what is deleted is overwritten, in the file and its log
            "foreign_keys=ON",
            "busy_timeout=5000",
            f"cache_size=-{READ_CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("gapless_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
