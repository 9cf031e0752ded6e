"""The files of a SQLite ledger hold payments, so only the user of the daemon may read them.

SQLite gives its log and its shared memory the mode of the ledger's file, so that is the one to make.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from gapless.ledger.engine.base import StoreInvalid

OWNER_ONLY: Final = 0o600
OWNER_ONLY_FOLDER: Final = 0o700
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
BESIDE: Final = ("", "-wal", "-shm", "-journal", ".lock")
"""What follows the name of the ledger in the names of its files. Backups end in `.bak`."""


def make_folder(folder: Path) -> None:
    """Make the folder of a ledger if there is none; only its owner may enter it."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=OWNER_ONLY_FOLDER, exist_ok=True)


def make_file(path: Path) -> None:
    """Make the empty file at `path` if there is none; only its owner may read it."""
    if not path.exists():
        with suppress(OSError):  # SQLite reports a folder that is absent or full
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY))


def files_of(ledger: Path) -> list[Path]:
    """Return the files of the ledger that exist, its backups among them."""
    named = [ledger.with_name(ledger.name + end) for end in BESIDE]
    backups = [each for each in ledger.parent.glob("*.bak") if each.name.startswith(f"{ledger.name}.")]
    return [each for each in (*named, *backups) if each.is_file()]


def too_open(ledger: Path) -> list[Path]:
    """Return the files of the ledger that others than their owner may read, write or run."""
    return [each for each in files_of(ledger) if each.stat().st_mode & OTHERS]


def narrow(ledger: Path) -> list[Path]:
    """Take the files of the ledger away from all but their owner; return those that were open to others.

    Raises `StoreInvalid` if one belongs to another user. Only the mode is changed and no file is opened: closing a
    second descriptor would end SQLite's locks.
    """
    found = too_open(ledger)
    for each in found:
        try:
            each.chmod(each.stat().st_mode & ~OTHERS & 0o777)
        except PermissionError as error:
            raise StoreInvalid(
                f"others can read {each}, and it belongs to another user, so it cannot be changed here; "
                f"give it to the user of the daemon, or run: chmod 600 {each}"
            ) from error
    return found
