"""Retries: the wait before each, and the attempt that is the last."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.deliver.retry import DeliveryRetryPolicy, settlement, wait_us
from gapless.destinations.contract import Delivered, Failed, FailureReason, Held, HoldReason, Result, Withdrawn
from gapless.destinations.http import FINAL, read_status
from gapless.domain import span_us
from gapless.ledger.deliveries import DeliveryClaim, DeliveryState, Settlement

RULE = DeliveryRetryPolicy(
    first=timedelta(seconds=5), longest=timedelta(hours=6), max_attempts=15, waits=(), max_age=None
)


def settled(result: Result, attempts: int = 0, rule: DeliveryRetryPolicy = RULE) -> Settlement:
    claim = DeliveryClaim(destination_id=1, seq=7, attempts=attempts, lease_us=50)
    return settlement(claim, result, began_us=100, now_us=130, rule=rule, rng=Random(3))


@given(attempt=st.integers(1, 10_000), seed=st.integers())
def test_a_wait_is_between_nothing_and_the_doubled_first_one_up_to_the_longest(attempt: int, seed: int) -> None:
    ceiling = min(span_us(RULE.longest), span_us(RULE.first) * 2 ** (attempt - 1))
    assert 0 <= wait_us(attempt, RULE, Random(seed)) <= ceiling


def test_waits_use_the_whole_range_so_that_retries_spread() -> None:
    waits = [wait_us(1, RULE, Random(seed)) for seed in range(500)]
    assert min(waits) < 100_000
    assert max(waits) > 4_900_000


@given(status=st.integers(200, 599), attempts=st.integers(0, 40), retry_after_us=st.integers(0, 3_600_000_000))
def test_every_answer_ends_or_is_tried_again_and_never_more_often_than_allowed(
    status: int, attempts: int, retry_after_us: int
) -> None:
    after = settled(read_status(status, retry_after_us), attempts)
    if status < 300:
        assert after.state is DeliveryState.DELIVERED
    elif status in FINAL or attempts + 1 >= RULE.max_attempts:
        assert after.state is DeliveryState.DEAD
        assert after.reason in set(FailureReason)
    else:
        assert after.state is DeliveryState.PENDING
        assert after.reason is None
        assert after.next_us >= 130 + (0 if status < 400 else retry_after_us)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 407, 408, 409, 413, 422, 429, 451, 500, 501, 503, 302])
def test_what_a_bad_deployment_answers_is_tried_again(status: int) -> None:
    assert settled(read_status(status)).state is DeliveryState.PENDING


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, "consumer_4xx"), (404, "consumer_4xx"), (429, "throttled"), (500, "consumer_5xx"), (301, "redirect")],
)
def test_the_reason_of_a_dead_letter_is_why_its_last_attempt_failed(status: int, reason: str) -> None:
    after = settled(read_status(status), attempts=14)
    assert (after.state, after.reason) == (DeliveryState.DEAD, reason)


def test_what_was_not_sent_costs_no_attempt() -> None:
    held = settled(Held(reason=HoldReason.VERSION_MISMATCH, detail="2020 and 2026"))
    assert (held.state, held.reason, held.attempt) == (DeliveryState.HELD, "version_mismatch", None)
    withdrawn = settled(Withdrawn())
    assert (withdrawn.state, withdrawn.attempt) == (None, None)


def test_an_attempt_is_written_down_with_its_time_and_outcome() -> None:
    attempt = settled(Delivered(detail="HTTP 204")).attempt
    assert attempt is not None
    assert (attempt.at_us, attempt.duration_us, attempt.outcome, attempt.detail) == (100, 30, "delivered", "HTTP 204")
    failed = settled(Failed(reason=FailureReason.TIMEOUT, detail="slow")).attempt
    assert failed is not None
    assert (failed.outcome, failed.detail) == ("timeout", "slow")


def test_only_the_statuses_that_the_destination_names_are_final() -> None:
    assert settled(read_status(410)).state is DeliveryState.DEAD
    assert settled(read_status(410, final=(422,))).state is DeliveryState.PENDING
    assert settled(read_status(422, final=(422,))).state is DeliveryState.DEAD


def test_waits_are_those_of_the_list_and_the_last_one_is_repeated() -> None:
    rule = replace(RULE, waits=(timedelta(seconds=5), timedelta(minutes=5)))
    assert [wait_us(attempt, rule, Random(1)) for attempt in (1, 2, 3, 90)] == [
        5_000_000, 300_000_000, 300_000_000, 300_000_000,
    ]  # fmt: skip


def test_a_delivery_is_dead_when_its_next_attempt_would_be_too_old() -> None:
    rule = replace(RULE, waits=(timedelta(seconds=1),), max_age=timedelta(seconds=3))
    claim = DeliveryClaim(destination_id=1, seq=7, attempts=1, lease_us=50, first_us=0)
    at = partial(settlement, claim, read_status(500), rule=rule, rng=Random(3))
    assert at(began_us=2_000_000, now_us=2_000_000).state is DeliveryState.PENDING
    assert at(began_us=2_000_001, now_us=2_000_001).state is DeliveryState.DEAD


def test_a_delivery_does_not_age_during_a_pause() -> None:
    rule = replace(RULE, waits=(timedelta(seconds=1),), max_age=timedelta(seconds=3))
    claim = DeliveryClaim(destination_id=1, seq=7, attempts=1, lease_us=50, first_us=0)
    at = partial(settlement, claim, read_status(500), began_us=9_000_000, now_us=9_000_000, rule=rule, rng=Random(3))
    assert at().state is DeliveryState.DEAD
    assert at(resumed_us=8_000_000).state is DeliveryState.PENDING


@pytest.mark.parametrize(
    "rule",
    [
        {"max_attempts": 0},
        {"first": timedelta(0)},
        {"first": timedelta(seconds=2), "longest": timedelta(seconds=1)},
    ],
)
def test_a_rule_that_could_not_work_is_refused(rule: dict[str, timedelta]) -> None:
    with pytest.raises(ValueError, match="wanted max_attempts"):
        replace(RULE, **rule)  # type: ignore[arg-type]
