"""The clock of a process, and the rules for stored times."""

import time
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gapless.clock import TOLERANCE_US, ProcessClock, elapsed_us, is_ahead, is_due, machine_clock

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR_US = 3_600_000_000
times_us = st.integers(0, 10 * 365 * 24 * HOUR_US)
waits_us = st.integers(0, 365 * 24 * HOUR_US)


def test_a_wait_is_over_when_its_time_has_come() -> None:
    assert is_due(100, 50, 100)
    assert not is_due(100, 50, 99)


def test_a_time_further_ahead_than_its_own_wait_is_due() -> None:
    assert is_due(HOUR_US + 5_000_000, 5_000_000, 0)
    assert not is_due(6 * HOUR_US, 6 * HOUR_US, 0)


@given(now_us=times_us, wait_us=waits_us, later_us=waits_us)
def test_a_clock_that_never_jumps_waits_as_long_as_it_should(now_us: int, wait_us: int, later_us: int) -> None:
    assert is_due(now_us + wait_us, wait_us, now_us + later_us) == (later_us >= wait_us)


@given(now_us=times_us, wait_us=waits_us, back_us=waits_us)
def test_a_clock_set_back_lengthens_no_wait_by_more_than_the_tolerance(now_us: int, wait_us: int, back_us: int) -> None:
    stored_us, corrected_us = now_us + wait_us, now_us - back_us
    assert is_due(stored_us, wait_us, corrected_us) or stored_us - corrected_us <= wait_us + TOLERANCE_US


def test_clocks_that_nearly_agree_are_not_ahead() -> None:
    assert not is_ahead(TOLERANCE_US, 0)
    assert is_ahead(TOLERANCE_US + 1, 0)


def test_a_process_clock_does_not_jump_with_the_machine() -> None:
    machine = [T0]
    clock = ProcessClock(lambda: machine[0])
    machine[0] += timedelta(days=365)
    assert T0 <= clock() < T0 + timedelta(minutes=1)
    clock.set(machine[0])
    assert clock() >= machine[0]


def test_elapsed_time_goes_on_when_a_clock_is_set_back() -> None:
    clock = ProcessClock()
    before_us = elapsed_us(clock)
    clock.set(clock() - timedelta(hours=1))
    assert elapsed_us(clock) >= before_us


def test_a_clock_of_a_test_moves_its_lengths_of_time_too() -> None:
    now = [T0]
    before_us = elapsed_us(lambda: now[0])
    now[0] += timedelta(seconds=1)
    assert elapsed_us(lambda: now[0]) - before_us == 1_000_000
    assert machine_clock(lambda: now[0])() == now[0]


def test_a_clock_is_settled_until_it_jumps() -> None:
    clock = ProcessClock()
    assert clock.is_settled(timedelta(hours=1))
    clock.note_jump()
    assert not clock.is_settled(timedelta(hours=1))
    time.sleep(0.001)
    assert clock.is_settled(timedelta(0))
