"""A token bucket: the rate limit of deliveries, evidence, quarantined webhooks and log lines.

Requests to providers are paced by aiolimiter, which makes its caller wait; this one never waits.
"""


class TokenBucket:
    """Grants `burst` tokens at once, and `per_second` from then on.

    Time is an argument, in microseconds of any clock. A clock that steps back adds no tokens; its new
    time counts from then on, so that a corrected clock blocks nobody.
    """

    __slots__ = ("_at_us", "_burst", "_per_us", "_tokens")

    def __init__(self, *, burst: float, per_second: float) -> None:
        if not (burst >= 1 and per_second > 0):
            raise ValueError(f"burst is {burst} and the rate {per_second} a second; wanted 1 or more, and more than 0")
        self._burst = burst
        self._per_us = per_second / 1_000_000
        self._tokens = burst
        self._at_us: int | None = None

    def available(self, now_us: int) -> int:
        """Return the whole tokens that can be taken at `now_us`."""
        if self._at_us is not None and now_us > self._at_us:
            self._tokens = min(self._burst, self._tokens + (now_us - self._at_us) * self._per_us)
        self._at_us = now_us
        return int(self._tokens)

    def take(self, now_us: int, count: int = 1) -> bool:
        """Take `count` tokens, or none if there are fewer; return True if they were taken."""
        if self.available(now_us) < count:
            return False
        self._tokens -= count
        return True

    def wait_us(self, now_us: int) -> int:
        """Return the microseconds until a whole token is available; 0: one is available now."""
        if self.available(now_us):
            return 0
        return int((1 - self._tokens) / self._per_us) + 1
