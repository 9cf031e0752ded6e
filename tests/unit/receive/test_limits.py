"""The log that strangers cannot flood."""

import logging

import pytest

from gapless.receive.bounded_log import LINES_AT_ONCE, BoundedLog

SECOND = 1_000_000


def test_a_log_line_counts_those_that_were_not_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    log = BoundedLog(logging.getLogger("gapless.test"), "acme")
    for _ in range(LINES_AT_ONCE + 7):
        log.log(logging.INFO, "refused", 0)
    log.log(logging.INFO, "refused", 60 * SECOND)
    counts = [vars(record)["count"] for record in caplog.records]
    assert counts == [1] * LINES_AT_ONCE + [8]


def test_one_event_does_not_use_up_the_lines_of_another(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    log = BoundedLog(logging.getLogger("gapless.test"), "acme")
    for _ in range(100):
        log.log(logging.INFO, "refused", 0)
    log.log(logging.ERROR, "bug", 0)
    assert caplog.records[-1].message == "bug"
