"""Bounds the log lines of the server library: whatever a stranger does, the same line comes once a minute."""

import logging
import time
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 60.0
LINES_KNOWN: Final = 256
"""Different lines that are told apart; all further ones of a logger count as one."""
LONGEST: Final = 80
LOGGERS: Final = ("uvicorn.error", "uvicorn.asgi", "asyncio")


class OncePerMinute(logging.Filter):
    """Lets a line pass once a minute; `count` of the record is how many it stands for, those left out before it too."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._last: dict[tuple[str, str], float] = {}
        self._unlogged: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True if the line is written."""
        key = (record.name, str(record.msg).partition("\n")[0][:LONGEST])
        if key not in self._last and len(self._last) >= LINES_KNOWN:
            key = (record.name, "")
        count = self._unlogged.pop(key, 0) + 1
        now = self._now()
        if now - self._last.get(key, -EVERY_S) < EVERY_S:
            self._unlogged[key] = count
            return False
        self._last[key] = now
        record.count = count
        return True


_FILTER: Final = OncePerMinute()


def quieten() -> None:
    """Bound the loggers of the server library, of this process, from now on. To do it again changes nothing."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)
