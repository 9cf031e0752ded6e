"""Times and lengths of time as people read them."""

from datetime import UTC, datetime, timedelta

import pytest

from gapless.console.pages.formats import span
from gapless.text import format_span, format_value

SPANS = {0: "0s", -5: "0s", 5: "5s", 324: "5m24s", 3600: "1h", 3605: "1h", 90_061: "1d1h", 15 * 86_400 + 2: "15d"}


@pytest.mark.parametrize(("seconds", "text"), SPANS.items())
def test_spans_show_their_two_largest_units(seconds: int, text: str) -> None:
    assert format_span(timedelta(seconds=seconds)) == text


def test_the_page_shows_the_same_units_apart() -> None:
    assert [span(timedelta(seconds=seconds)) for seconds in (0, 0.25, 4.6, 324, 3605, 90_061)] == [
        "0 ms", "250 ms", "4.6 s", "5 min 24 s", "1 h", "1 d 1 h",
    ]  # fmt: skip


def test_unknown_is_shown_as_unknown_and_zero_as_zero() -> None:
    assert (format_value(None), format_value(0)) == ("unknown", "0")


def test_values_are_shown_by_what_they_are() -> None:
    assert format_value(timedelta(minutes=3)) == "3m"
    assert format_value(datetime(2026, 11, 20, 12, tzinfo=UTC)) == "2026-11-20 12:00:00Z"
