"""Slow requests down so that what the provider has left to us suffices, and after it has refused one for the rate."""

import asyncio
from datetime import datetime, timedelta
from typing import Final

from gapless.clock import elapsed_us
from gapless.domain import Clock, span_us
from gapless.ledger.budgets import HALVED_FOR
from gapless_reconcilers.kit.contract import Quota
from gapless_reconcilers.kit.errors import RateLimited
from gapless_reconcilers.kit.statuses import LONGEST_WAIT

SLEPT_WITHIN: Final = timedelta(seconds=30)
"""The longest wait that is slept within a request. Told to wait longer, the whole source waits."""
FREE_SHARE: Final = 0.5
"""The share of a quota above which it slows nothing: the half that we use of a grant."""
NOTED_WITHIN: Final = timedelta(minutes=1)
"""Refusals within this time are one."""


def spacing(quota: Quota, left: timedelta) -> timedelta:
    """Return the time between two requests, so that what remains lasts for `left`, the time until the reset.

    At most `LONGEST_WAIT`: one odd header must not stop a source for a day.
    """
    if quota.limit is not None and quota.remaining > FREE_SHARE * quota.limit:
        return timedelta(0)
    return min(max(left, timedelta(0)) / max(quota.remaining, 1), LONGEST_WAIT)


class Throttle:
    """The turns of one source's requests: when the quota, and the rate that a refusal has halved, allow them."""

    def __init__(self, clock: Clock, rate: float) -> None:
        self._clock = clock
        self._halved = timedelta(seconds=2 / rate)
        self._next_us = 0
        self._resets_us = 0
        self._noted_us: int | None = None
        self._halved_until: datetime | None = None
        self._quota: Quota | None = None

    @property
    def quota(self) -> Quota | None:
        """Return what the provider has left to us; None: it does not say so, or it was reset since."""
        return self._quota if elapsed_us(self._clock) < self._resets_us else None

    @property
    def is_halved(self) -> bool:
        """Return True if the provider refused a request for the rate within the last hour.

        A time further ahead than that comes from a clock that was wrong.
        """
        until, now = self._halved_until, self._clock()
        return until is not None and now < until <= now + HALVED_FOR

    def note(self, quota: Quota | None) -> None:
        """Note what an answer said is left; None: it said nothing."""
        if quota is not None:
            self._quota = quota
            left = quota.resets_at - self._clock()
            self._resets_us = elapsed_us(self._clock) + span_us(left if quota.remaining else min(left, LONGEST_WAIT))

    def note_halved(self, until: datetime | None) -> None:
        """Note the time until which the rate is halved, as the ledger has it."""
        self._halved_until = until if until is not None else self._halved_until

    def note_refusal(self) -> bool:
        """Halve the rate for an hour. Return True if this is the first refusal for a while."""
        now_us, last_us = elapsed_us(self._clock), self._noted_us
        self._halved_until, self._noted_us = self._clock() + HALVED_FOR, now_us
        return last_us is None or now_us - last_us > span_us(NOTED_WITHIN)

    async def turn(self) -> None:
        """Wait for the next turn. Raises `RateLimited` at once if that is further away than `SLEPT_WITHIN`."""
        now_us, quota = elapsed_us(self._clock), self.quota
        is_empty = quota is not None and quota.remaining == 0
        at_us = max(now_us, self._next_us, self._resets_us if is_empty else 0)
        wait = timedelta(microseconds=at_us - now_us)
        if wait > SLEPT_WITHIN:
            left = "no more requests" if quota is None else f"{quota.remaining} requests"
            raise RateLimited(f"the provider has {left} left for us, so the next one waits", retry_after=wait)
        between = self._halved if self.is_halved else timedelta(0)
        if quota is not None and not is_empty:
            between = max(between, spacing(quota, timedelta(microseconds=self._resets_us - now_us)))
        self._next_us = at_us + span_us(between)
        if wait:
            await asyncio.sleep(wait.total_seconds())
