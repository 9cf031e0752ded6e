"""The breaker of one destination: gives it a rest when it is down, so that attempts are not burnt on it. Pure.

closed      everything may go
open        nothing is claimed until the rest is over
half-open   the rest is over: one delivery at a time is the probe; its success closes, its failure doubles the rest
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from gapless.destinations.contract import Delivered, Failed, FailureReason, Result
from gapless.domain import span_us

TROUBLE = frozenset({
    FailureReason.ADDRESS_REFUSED, FailureReason.CONNECTION, FailureReason.CONSUMER_5XX, FailureReason.CONSUMER_ERROR,
    FailureReason.REDIRECT, FailureReason.THROTTLED, FailureReason.TIMEOUT,
})  # fmt: skip
"""Failures that are the destination's and not one event's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRule:
    """Opens after `threshold` failures in a row; rests for `rest`, doubled with each failed probe up to `longest`."""

    threshold: int = 10
    rest: timedelta = timedelta(seconds=5)
    longest: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Where the breaker stands."""

    failures: int = 0
    """In a row, while closed."""
    openings: int = 0
    """In a row. 0: closed."""
    rests_until_us: int = 0

    @property
    def is_open(self) -> bool:
        """Open or half-open."""
        return self.openings > 0


def room(breaker: Breaker, wanted: int, in_hand: int, now_us: int) -> int:
    """How many of `wanted` deliveries may be claimed while `in_hand` are under way."""
    if not breaker.is_open:
        return wanted
    return min(wanted, 1) if now_us >= breaker.rests_until_us and in_hand == 0 else 0


def after(breaker: Breaker, result: Result, now_us: int, rule: BreakerRule) -> Breaker:
    """The breaker after one more result. What was not sent says nothing."""
    if not isinstance(result, Delivered | Failed):
        return breaker
    if isinstance(result, Delivered) or result.reason not in TROUBLE:
        return Breaker()
    if breaker.is_open:  # an attempt that began before it opened fails no probe
        return _opened(breaker, now_us, rule) if now_us >= breaker.rests_until_us else breaker
    failures = breaker.failures + 1
    return _opened(breaker, now_us, rule) if failures >= rule.threshold else replace(breaker, failures=failures)


def _opened(breaker: Breaker, now_us: int, rule: BreakerRule) -> Breaker:
    rest_us = min(span_us(rule.rest) << min(breaker.openings, 32), span_us(rule.longest))
    return Breaker(openings=breaker.openings + 1, rests_until_us=now_us + rest_us)
