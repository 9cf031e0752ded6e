"""Decides when a failed delivery is tried again, and when it becomes a dead letter. Pure.

The reason of a dead letter is that of its last failed attempt; its attempts show whether they are used up, or too old.
"""

from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Final, assert_never

from gapless.destinations.contract import Delivered, Failed, FailureReason, Held, Result, Withdrawn
from gapless.domain import span_us
from gapless.ledger.deliveries import Attempt, DeliveryClaim, DeliveryState, Settlement


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRetryPolicy:
    """How long to wait between attempts, and which of them is the last.

    Without `waits`, the back-off is exponential with full jitter: the wait after attempt n is between 0 and
    `first` * 2^(n-1).
    """

    first: timedelta
    longest: timedelta
    max_attempts: int
    waits: tuple[timedelta, ...]
    """The waits in place of the back-off, in order; the last one is repeated."""
    max_age: timedelta | None
    """Time from the first attempt after which there is no further one; None: no limit but `max_attempts`."""

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or self.first <= timedelta(0) or self.longest < self.first:
            raise ValueError(f"retry rule is {self}; wanted max_attempts >= 1 and 0 < first <= longest")


ANSWERED: Final = "answered"
"""Outcome of an attempt that was answered 2xx, and whose receipt is to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRule:
    """A delivery is done when its receipt comes: `within` this time after a 2xx, or it is sent again.

    After `max_answers` such answers without a receipt it is a dead letter.
    """

    within: timedelta
    max_answers: int


def without_attempt(
    claim: DeliveryClaim, *, is_received: bool, now_us: int, rule: ReceiptRule | None
) -> Settlement | None:
    """Return the settlement of a delivery that needs a receipt and is not to be attempted; None: it is to be.

    `is_received`: its receipt came while it was made, so that nothing has settled it yet.
    """
    if rule is None:
        return None
    if is_received and not claim.released:
        return Settlement(claim=claim, state=DeliveryState.DELIVERED, at_us=now_us, applied=True)
    if claim.answers >= rule.max_answers:
        return Settlement(claim=claim, state=DeliveryState.DEAD, at_us=now_us, reason=FailureReason.UNCONFIRMED)
    return None


def wait_us(attempt: int, rule: DeliveryRetryPolicy, rng: Random) -> int:
    """Return the wait after the failed attempt number `attempt` (from 1), in microseconds."""
    if rule.waits:
        return span_us(rule.waits[min(attempt, len(rule.waits)) - 1])
    doublings = min(attempt - 1, 62)
    return int(rng.random() * min(span_us(rule.longest), span_us(rule.first) << doublings))


def settlement(
    claim: DeliveryClaim,
    result: Result,
    *,
    began_us: int,
    now_us: int,
    rule: DeliveryRetryPolicy,
    rng: Random,
    resumed_us: int = 0,
    receipts: ReceiptRule | None = None,
) -> Settlement:
    """Return the settlement of a claimed delivery after `result`.

    `resumed_us`: the end of the destination's last pause. No delivery ages during a pause. `receipts` None: a 2xx is
    enough.
    """
    took_us = max(now_us - began_us, 0)
    match result:
        case Delivered(detail=detail, answer=answer, applied=applied):
            is_done = receipts is None or applied
            tried = Attempt(
                at_us=began_us,
                duration_us=took_us,
                outcome=DeliveryState.DELIVERED if is_done else ANSWERED,
                detail=detail or None,
                answer=answer,
            )
            return Settlement(
                claim=claim,
                state=DeliveryState.DELIVERED if is_done else DeliveryState.PENDING,
                at_us=now_us,
                next_us=0 if receipts is None or is_done else now_us + span_us(receipts.within),
                attempt=tried,
                answered=receipts is not None,
                applied=receipts is not None and applied,
            )
        case Failed(reason=reason, detail=detail, answer=answer):
            tried = Attempt(at_us=began_us, duration_us=took_us, outcome=reason, detail=detail, answer=answer)
            since_us = max(began_us if claim.first_us is None else claim.first_us, resumed_us)
            return _after_failure(claim, result, tried, now_us, rule, rng, since_us)
        case Held(reason=hold):
            return Settlement(claim=claim, state=DeliveryState.HELD, at_us=now_us, reason=hold)
        case Withdrawn():
            return Settlement(claim=claim, state=None, at_us=now_us)
        case _:
            assert_never(result)


def _after_failure(
    claim: DeliveryClaim,
    failed: Failed,
    tried: Attempt,
    now_us: int,
    rule: DeliveryRetryPolicy,
    rng: Random,
    since_us: int,
) -> Settlement:
    number = claim.attempts + 1
    next_us = now_us + max(wait_us(number, rule, rng), failed.retry_after_us)
    is_old = rule.max_age is not None and next_us > since_us + span_us(rule.max_age)
    if failed.permanent or number >= rule.max_attempts or is_old:
        return Settlement(claim=claim, state=DeliveryState.DEAD, at_us=now_us, reason=failed.reason, attempt=tried)
    return Settlement(claim=claim, state=DeliveryState.PENDING, at_us=now_us, next_us=next_us, attempt=tried)
