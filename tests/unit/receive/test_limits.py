"""The bounds on what strangers can cause."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.receive.limits import LINES_AT_ONCE, BoundedLog, TokenBucket

SECOND = 1_000_000


@given(
    burst=st.integers(1, 50),
    per_second=st.floats(0.01, 100),
    steps=st.lists(st.integers(-5 * SECOND, 5 * SECOND), max_size=300),
)
def test_a_bucket_never_grants_more_than_its_burst_and_what_time_has_earned(
    burst: int, per_second: float, steps: list[int]
) -> None:
    bucket, now, latest, granted = TokenBucket(burst=burst, per_second=per_second), 0, 0, 0
    for step in steps:
        now += step
        latest = max(latest, now)
        granted += bucket.take(now)
        earned = (latest - min(0, steps[0])) / SECOND * per_second
        assert granted <= burst + earned + 1e-6


def test_a_bucket_grants_its_burst_then_its_rate() -> None:
    bucket = TokenBucket(burst=3, per_second=2)
    assert [bucket.take(0) for _ in range(5)] == [True, True, True, False, False]
    assert [bucket.take(SECOND) for _ in range(3)] == [True, True, False]


def test_a_clock_that_steps_back_grants_nothing_extra() -> None:
    bucket = TokenBucket(burst=1, per_second=1)
    assert bucket.take(100 * SECOND)
    assert not bucket.take(0)
    assert not bucket.take(100 * SECOND)
    assert bucket.take(101 * SECOND)


def test_a_log_line_counts_those_that_were_not_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    log = BoundedLog(logging.getLogger("gapless.test"), "acme")
    for _ in range(LINES_AT_ONCE + 7):
        log.say(logging.INFO, "refused", 0)
    log.say(logging.INFO, "refused", 60 * SECOND)
    counts = [vars(record)["count"] for record in caplog.records]
    assert counts == [1] * LINES_AT_ONCE + [8]


def test_one_event_does_not_use_up_the_lines_of_another(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    log = BoundedLog(logging.getLogger("gapless.test"), "acme")
    for _ in range(100):
        log.say(logging.INFO, "refused", 0)
    log.say(logging.ERROR, "bug", 0)
    assert caplog.records[-1].message == "bug"
