"""Bounds on what strangers can cause: rows in the quarantine, lines in the log."""

import logging
from collections import Counter
from typing import Final

LINES_AT_ONCE: Final = 10
LINES_PER_SECOND: Final = 0.1


class TokenBucket:
    """Grants `burst` at once and `per_second` from then on. Its time is an argument."""

    __slots__ = ("_at_us", "_burst", "_left", "_per_us")

    def __init__(self, *, burst: float, per_second: float) -> None:
        self._burst = burst
        self._per_us = per_second / 1_000_000
        self._left = burst
        self._at_us: int | None = None

    def take(self, now_us: int) -> bool:
        """True if one more is granted at `now_us` (microseconds). A clock that steps back grants nothing extra."""
        if self._at_us is not None and now_us > self._at_us:
            self._left = min(self._burst, self._left + (now_us - self._at_us) * self._per_us)
        self._at_us = now_us if self._at_us is None else max(self._at_us, now_us)
        if self._left < 1:
            return False
        self._left -= 1
        return True


class BoundedLog:
    """Logs each event of one source at a bounded rate; `count` tells how many a line stands for."""

    __slots__ = ("_buckets", "_log", "_source", "_unlogged")

    def __init__(self, log: logging.Logger, source: str) -> None:
        self._log = log
        self._source = source
        self._buckets: dict[str, TokenBucket] = {}
        self._unlogged: Counter[str] = Counter()

    def say(
        self, level: int, event: str, now_us: int, *, exc_info: BaseException | None = None, **extra: object
    ) -> None:
        """Log `event`, a constant, unless too much was said of it lately."""
        self._unlogged[event] += 1
        bucket = self._buckets.get(event)
        if bucket is None:
            bucket = self._buckets[event] = TokenBucket(burst=LINES_AT_ONCE, per_second=LINES_PER_SECOND)
        if self._log.isEnabledFor(level) and bucket.take(now_us):
            count = self._unlogged.pop(event)
            self._log.log(level, event, exc_info=exc_info, extra={"source": self._source, "count": count, **extra})
