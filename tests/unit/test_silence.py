"""When quiet is too quiet. Pure."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gapless.domain import HOUR_US, HOURS_OF_WEEK, Silence, to_us
from gapless.ledger.silence import WebhookHistory, expected, is_silent, rhythm

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)  # a Friday
HOUR = timedelta(hours=1)
LEARN = Silence(after=None)


def by_hour(weeks: int, *, open_hours: range = range(24), count: int = 10) -> dict[int, int]:
    """`count` webhooks in each of the `open_hours` of every day."""
    this_hour = to_us(NOW) // HOUR_US
    hours = range(this_hour - weeks * HOURS_OF_WEEK, this_hour)
    return {hour: count for hour in hours if hour % 24 in open_hours}


def heard(ago: timedelta, hours: dict[int, int] | None = None) -> WebhookHistory:
    return WebhookHistory(since_us=to_us(NOW - ago), by_hour=hours or {})


def test_a_source_is_silent_from_the_configured_time_on() -> None:
    wanted = Silence(after=2 * HOUR)
    assert is_silent(wanted, heard(2 * HOUR), NOW) is False
    assert is_silent(wanted, heard(2 * HOUR + timedelta(seconds=1)), NOW) is True


def test_a_rhythm_is_unknown_before_three_weeks_of_it() -> None:
    assert is_silent(LEARN, heard(30 * HOUR), NOW) is None
    assert is_silent(LEARN, heard(30 * HOUR, by_hour(2)), NOW) is None
    assert is_silent(LEARN, heard(30 * HOUR, by_hour(3)), NOW) is True


def test_a_busy_source_is_silent_within_the_hour_and_a_quiet_one_after_days() -> None:
    assert is_silent(LEARN, heard(HOUR), NOW) is None
    assert is_silent(LEARN, heard(HOUR * 0.6, by_hour(4)), NOW) is False
    assert is_silent(LEARN, heard(HOUR * 0.8, by_hour(4)), NOW) is True
    one_a_day = by_hour(8, open_hours=range(9, 10), count=1)
    assert is_silent(LEARN, heard(timedelta(days=5), one_a_day), NOW) is False
    assert is_silent(LEARN, heard(timedelta(days=8), one_a_day), NOW) is True


def test_a_shop_that_is_closed_at_night_is_not_silent_at_night() -> None:
    office = by_hour(4, open_hours=range(8, 18))
    early = NOW.replace(hour=7)
    night = WebhookHistory(since_us=to_us(early - 13 * HOUR), by_hour=office)
    assert is_silent(LEARN, night, early) is False
    assert is_silent(LEARN, night, early + 2 * HOUR) is True


@given(
    rates=st.lists(st.floats(0, 100), min_size=HOURS_OF_WEEK, max_size=HOURS_OF_WEEK),
    parts=st.tuples(st.floats(0, 80), st.floats(0, 80)),
)
def test_what_is_expected_of_two_stretches_is_the_sum_of_both(rates: list[float], parts: tuple[float, float]) -> None:
    start = NOW - timedelta(hours=160)
    middle = start + timedelta(hours=parts[0])
    end = middle + timedelta(hours=parts[1])
    whole = expected(rates, start, end)
    assert abs(whole - expected(rates, start, middle) - expected(rates, middle, end)) < 1e-3


@given(weeks=st.integers(3, 8), count=st.integers(0, 1000))
def test_a_steady_source_has_a_steady_rhythm(weeks: int, count: int) -> None:
    rates = rhythm(by_hour(weeks, count=count), NOW)
    assert rates == [count] * HOURS_OF_WEEK
