"""The token bucket, driven through any history of a clock that may step back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.token_bucket import TokenBucket

SECOND = 1_000_000
RATES = st.floats(0.01, 1000)
STEPS = st.lists(st.integers(-5 * SECOND, 10 * SECOND), max_size=200)


@given(burst=st.floats(1, 50), rate=RATES, steps=STEPS)
def test_no_more_is_granted_than_the_burst_and_what_time_earned(burst: float, rate: float, steps: list[int]) -> None:
    bucket, now_us, forward_us, granted = TokenBucket(burst=burst, per_second=rate), 0, 0, 0
    granted += bucket.take(now_us)
    for step in steps:
        now_us += step
        forward_us += max(step, 0)
        granted += bucket.take(now_us)
        assert granted <= burst + rate * forward_us / SECOND + 1e-6


@given(burst=st.floats(1, 50), rate=RATES, steps=STEPS)
def test_several_at_once_are_bounded_like_one_by_one(burst: float, rate: float, steps: list[int]) -> None:
    bucket, now_us, forward_us, granted = TokenBucket(burst=burst, per_second=rate), 0, 0, 0
    for step in [0, *steps]:
        now_us += step
        forward_us += max(step, 0)
        count = bucket.available(now_us)
        assert not bucket.take(now_us, count + 1)
        assert bucket.take(now_us, count)
        granted += count
        assert granted <= burst + rate * forward_us / SECOND + 1e-6


@given(rate=RATES, count=st.integers(1, 20))
def test_after_the_wait_there_is_a_token_and_not_before(rate: float, count: int) -> None:
    bucket = TokenBucket(burst=count, per_second=rate)
    assert bucket.wait_us(0) == 0
    assert bucket.take(0, count)
    wait_us = bucket.wait_us(0)
    assert not bucket.available(wait_us * 99 // 100 - 1)
    assert bucket.available(wait_us + 1)


def test_the_burst_comes_first_and_then_the_rate() -> None:
    bucket = TokenBucket(burst=3, per_second=2)
    assert [bucket.take(0) for _ in range(5)] == [True, True, True, False, False]
    assert [bucket.take(SECOND) for _ in range(3)] == [True, True, False]


def test_no_more_than_the_burst_is_kept() -> None:
    bucket = TokenBucket(burst=3, per_second=2)
    assert bucket.available(0) == bucket.available(3600 * SECOND) == 3


def test_a_step_back_of_the_clock_earns_nothing_and_stops_nothing() -> None:
    bucket = TokenBucket(burst=1, per_second=1)
    assert bucket.take(3600 * SECOND)
    assert not bucket.take(0)
    assert not bucket.take(SECOND // 2)
    assert bucket.take(SECOND)


@pytest.mark.parametrize(("burst", "rate"), [(0.5, 1), (1, 0), (1, -1), (1, float("nan"))])
def test_a_bucket_that_could_never_grant_is_refused(burst: float, rate: float) -> None:
    with pytest.raises(ValueError, match="wanted 1 or more, and more than 0"):
        TokenBucket(burst=burst, per_second=rate)
