"""The lock file beside a SQLite ledger: it admits one daemon at a time, and tells commands how to reach it.

It also names the file that the daemon has open. Whoever opened another one at its path would apply the write-ahead log
of the first to it, and delete that log.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from gapless.ledger.engine.base import LedgerReplaced, StoreError
from gapless.ledger.engine.private_files import make_folder, narrow

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """The process that holds a ledger. `url` is its private listener; empty while it has none."""

    pid: int
    url: str = ""
    token: str = ""
    file: str = ""
    """The identity of the file that it has open; empty while that is not known."""

    def __repr__(self) -> str:
        return f"LockHolder(pid={self.pid}, url={self.url!r}, token=***)"

    @property
    def is_running(self) -> bool:
        """Return True if there is a process of that number."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


class LedgerHeld(StoreError):
    """Another process holds the ledger; `holder` is None if the lock file does not name it."""

    def __init__(self, path: Path, holder: LockHolder | None) -> None:
        who = f"process {holder.pid}" if holder else "another process"
        super().__init__(f"ledger {path} is held by {who}; stop it, or give this one another store url")
        self.holder = holder


class LedgerLock:
    """The lock that this process holds."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write_holder(self, holder: LockHolder) -> None:
        """Write the holder into the lock file. It contains the token of this run, so only this user can read it."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(holder)).encode(), 0)


def lock_path(ledger: Path) -> Path:
    """Return the path of a ledger's lock file."""
    return ledger.with_name(ledger.name + ".lock")


def identity(path: Path) -> str:
    """Return what tells the file at `path` from another one there; empty if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def refuse_other_file(ledger: Path) -> None:
    """Raise `LedgerReplaced` if another process holds the ledger and has a file open that is not at its path any more.

    It is only looked at: closing a second descriptor of the holder's own would end SQLite's locks.
    """
    holder = holder_of(ledger)
    if holder is None or holder.pid == os.getpid() or not holder.file or not holder.is_running:
        return
    if (found := identity(ledger)) != holder.file:
        what = "another file than" if found else "gone, and"
        raise LedgerReplaced(
            f"the ledger {ledger} is {what} process {holder.pid} has {'' if found else 'it '}open: put the file back "
            "(with its -wal), and it goes on by itself; or stop it, restore a backup and start `gapless serve` again"
        )


@contextmanager
def hold(ledger: Path) -> Iterator[LedgerLock]:
    """Hold the ledger file while the context lasts, for this user alone.

    Raises `LedgerHeld` at once if another process holds it, and `StoreInvalid` if another user owns one of its files
    that others can read.
    """
    path = lock_path(ledger)
    make_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerHeld(ledger, holder_of(ledger)) from None
        if opened := narrow(ledger):
            names = ", ".join(each.name for each in opened)
            log.warning("ledger_files_narrowed", extra={"files": names, "mode": "600"})
        lock = LedgerLock(descriptor)
        lock.write_holder(LockHolder(pid=os.getpid()))
        yield lock
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def holder_of(ledger: Path) -> LockHolder | None:
    """Return the process that the lock file names; None if it names nobody or cannot be read."""
    try:
        return LockHolder(**json.loads(lock_path(ledger).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
