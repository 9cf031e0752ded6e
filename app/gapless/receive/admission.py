"""Decides when the receiver accepts webhooks.

Not while it shuts down, not on a disk that is nearly full, and not while what comes could not be sealed.
"""

import asyncio
import logging
from datetime import timedelta
from typing import Final

from gapless.ledger.engine import Store

WATCH_EVERY: Final = timedelta(seconds=1)
_log = logging.getLogger(__name__)


class Admission:
    """Open, or closed for a reason; while closed every webhook is answered 503 before it is read."""

    __slots__ = ("_low_disk", "_no_key", "_paused", "closed_because")

    def __init__(self) -> None:
        self._paused = ""
        self._low_disk = ""
        self._no_key = ""
        self.closed_because = ""
        """Empty while open."""

    def pause(self, why: str) -> None:
        """Accept no more webhooks, for good: the process shuts down."""
        self._paused = why
        self._decide()

    def note_keys(self, blocked: str) -> None:
        """Close while nothing may be recorded for want of a key: `blocked` says why. Empty: open again."""
        if bool(blocked) != bool(self._no_key):
            _log.log(logging.ERROR if blocked else logging.INFO, "sealing_blocked", extra={"why": blocked})
        self._no_key = blocked
        self._decide()

    def note_free(self, free_bytes: int | None, min_free: int) -> None:
        """Close below `min_free` bytes, and open again at or above it. None: unknown, which is no reason to close."""
        was = self._low_disk
        low = free_bytes is not None and free_bytes < min_free
        self._low_disk = f"{free_bytes} bytes are free, min_free is {min_free}" if low else ""
        self._decide()
        if bool(was) != low:
            _log.log(
                logging.ERROR if low else logging.INFO, "disk_low" if low else "disk_free", extra={"free": free_bytes}
            )

    async def watch(self, store: Store, min_free: int, every: timedelta = WATCH_EVERY) -> None:
        """Check the store's free disk space every `every`, until cancelled. Returns at once if `min_free` is 0."""
        while min_free:
            self.note_free(await asyncio.to_thread(_free_bytes, store), min_free)
            await asyncio.sleep(every.total_seconds())

    def _decide(self) -> None:
        self.closed_because = self._paused or self._low_disk or self._no_key


def _free_bytes(store: Store) -> int | None:
    try:
        return store.free_bytes()
    except OSError:  # the folder is gone: the commit reports it, with more detail
        return None
