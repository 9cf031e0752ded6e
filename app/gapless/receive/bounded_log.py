"""A log that strangers cannot flood."""

import logging
from collections import Counter
from typing import Final

from gapless.token_bucket import TokenBucket

LINES_AT_ONCE: Final = 10
LINES_PER_SECOND: Final = 0.1


class BoundedLog:
    """Logs each event of one source at a bounded rate; `count` is the number of events that a line stands for."""

    __slots__ = ("_buckets", "_log", "_source", "_unlogged")

    def __init__(self, log: logging.Logger, source: str) -> None:
        self._log = log
        self._source = source
        self._buckets: dict[str, TokenBucket] = {}
        self._unlogged: Counter[str] = Counter()

    def log(
        self, level: int, event: str, now_us: int, *, exc_info: BaseException | None = None, **extra: object
    ) -> None:
        """Log `event`, a constant, unless its rate is used up."""
        self._unlogged[event] += 1
        bucket = self._buckets.get(event)
        if bucket is None:
            bucket = self._buckets[event] = TokenBucket(burst=LINES_AT_ONCE, per_second=LINES_PER_SECOND)
        if self._log.isEnabledFor(level) and bucket.take(now_us):
            count = self._unlogged.pop(event)
            self._log.log(level, event, exc_info=exc_info, extra={"source": self._source, "count": count, **extra})
