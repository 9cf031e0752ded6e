"""The circuit breaker of one destination: pauses deliveries while it is down, so that no attempts are wasted. Pure.

closed      deliveries are claimed as usual
open        nothing is claimed until the rest is over
half-open   the rest is over: one delivery at a time is the probe; success closes the breaker, failure doubles the rest

A refusal (4xx) may be the fault of one event, or of all: a handler with a wrong secret answers 400 or 401 to
everything. So refusals open the breaker only if they have the same status, concern different events, and no event
succeeds between them. Then several deliveries at a time are the probe, so that events which are refused for their own
sake do not keep others waiting.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from gapless.destinations.contract import Delivered, Failed, FailureReason, Held, Result, Withdrawn
from gapless.domain import span_us

TROUBLE = frozenset({
    FailureReason.ADDRESS_REFUSED, FailureReason.CONNECTION, FailureReason.CONSUMER_5XX, FailureReason.CONSUMER_ERROR,
    FailureReason.REDIRECT, FailureReason.THROTTLED, FailureReason.TIMEOUT,
})  # fmt: skip
"""Failures of the destination, as opposed to failures of one event."""
UNSENT = frozenset({
    FailureReason.CANNOT_RENDER, FailureReason.ERASED, FailureReason.INTERNAL, FailureReason.NO_PAYLOAD,
    FailureReason.NOT_FETCHED,
})  # fmt: skip
"""Failures before anything was sent, which say nothing about the destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRule:
    """Opens after `threshold` failures without a success, or refusals of so many events with one status.

    It rests for `rest`, doubled with each failed probe up to `longest`.
    """

    threshold: int = 10
    rest: timedelta = timedelta(seconds=5)
    longest: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The state of the breaker."""

    failures: int = 0
    """Since an event was delivered, while closed; refusals are not counted here."""
    status: int | None = None
    """The status of the last refusals, while closed; None: the last event was delivered, or none was refused."""
    refused: frozenset[int] = frozenset()
    """The events that were refused with that status since one was delivered."""
    openings: int = 0
    """In a row. 0 while closed."""
    rests_until_us: int = 0
    probes: int = 1
    """Most deliveries that are the probe at the same time."""

    @property
    def is_open(self) -> bool:
        """True if open or half-open."""
        return self.openings > 0


def claimable(breaker: Breaker, wanted: int, in_flight: int, now_us: int) -> int:
    """Return how many of `wanted` deliveries may be claimed while `in_flight` are under way."""
    if not breaker.is_open:
        return wanted
    return max(min(wanted, breaker.probes - in_flight), 0) if now_us >= breaker.rests_until_us else 0


def after(breaker: Breaker, result: Result, now_us: int, rule: BreakerRule, seq: int = 0) -> Breaker:
    """Return the breaker after one more result, of the event `seq`. What was not sent changes nothing."""
    if isinstance(result, Held | Withdrawn) or (isinstance(result, Failed) and result.reason in UNSENT):
        return breaker
    if isinstance(result, Delivered) or result.reason is FailureReason.REJECTED:
        return Breaker()
    probes = 1 if result.reason in TROUBLE else rule.threshold
    if breaker.is_open:  # an attempt that began before it opened fails no probe, and of several probes only the first
        return _opened(breaker, now_us, rule, probes) if now_us >= breaker.rests_until_us else breaker
    if result.reason in TROUBLE:
        failed = replace(breaker, failures=breaker.failures + 1)
        return _opened(breaker, now_us, rule, probes) if failed.failures >= rule.threshold else failed
    refused = (breaker.refused if result.status == breaker.status else frozenset()) | {seq}
    if len(refused) >= rule.threshold:
        return _opened(breaker, now_us, rule, probes)
    return replace(breaker, status=result.status, refused=refused)


def _opened(breaker: Breaker, now_us: int, rule: BreakerRule, probes: int) -> Breaker:
    rest_us = min(span_us(rule.rest) << min(breaker.openings, 32), span_us(rule.longest))
    return Breaker(openings=breaker.openings + 1, rests_until_us=now_us + rest_us, probes=probes)
