"""Decides when a failed delivery is tried again, and when it becomes a dead letter. Pure.

The reason of a dead letter is that of its last failed attempt; the number of attempts shows that they are used up.
"""

from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import assert_never

from gapless.destinations.contract import Delivered, Failed, Held, Result, Withdrawn
from gapless.domain import span_us
from gapless.ledger.deliveries import Attempt, DeliveryClaim, DeliveryState, Settlement


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRetryPolicy:
    """Exponential back-off with full jitter: the wait after attempt n is between 0 and `first` * 2^(n-1)."""

    first: timedelta
    longest: timedelta
    max_attempts: int

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or self.first <= timedelta(0) or self.longest < self.first:
            raise ValueError(f"retry rule is {self}; wanted max_attempts >= 1 and 0 < first <= longest")


def wait_us(attempt: int, rule: DeliveryRetryPolicy, rng: Random) -> int:
    """Return the wait after the failed attempt number `attempt` (from 1), in microseconds."""
    doublings = min(attempt - 1, 62)
    return int(rng.random() * min(span_us(rule.longest), span_us(rule.first) << doublings))


def settlement(
    claim: DeliveryClaim, result: Result, *, began_us: int, now_us: int, rule: DeliveryRetryPolicy, rng: Random
) -> Settlement:
    """Return the settlement of a claimed delivery after `result`."""
    took_us = max(now_us - began_us, 0)
    match result:
        case Delivered(detail=detail, answer=answer):
            tried = Attempt(
                at_us=began_us,
                duration_us=took_us,
                outcome=DeliveryState.DELIVERED,
                detail=detail or None,
                answer=answer,
            )
            return Settlement(claim=claim, state=DeliveryState.DELIVERED, at_us=now_us, attempt=tried)
        case Failed(reason=reason, detail=detail, answer=answer):
            tried = Attempt(at_us=began_us, duration_us=took_us, outcome=reason, detail=detail, answer=answer)
            return _after_failure(claim, result, tried, now_us, rule, rng)
        case Held(reason=hold):
            return Settlement(claim=claim, state=DeliveryState.HELD, at_us=now_us, reason=hold)
        case Withdrawn():
            return Settlement(claim=claim, state=None, at_us=now_us)
        case _:
            assert_never(result)


def _after_failure(
    claim: DeliveryClaim, failed: Failed, tried: Attempt, now_us: int, rule: DeliveryRetryPolicy, rng: Random
) -> Settlement:
    number = claim.attempts + 1
    if failed.permanent or number >= rule.max_attempts:
        return Settlement(claim=claim, state=DeliveryState.DEAD, at_us=now_us, reason=failed.reason, attempt=tried)
    next_us = now_us + max(wait_us(number, rule, rng), failed.retry_after_us)
    return Settlement(claim=claim, state=DeliveryState.PENDING, at_us=now_us, next_us=next_us, attempt=tried)
