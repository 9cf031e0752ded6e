"""How the pages write values, and what they draw."""

from datetime import UTC, datetime, timedelta

import pytest
from litestar.exceptions import HTTPException

from gapless.console.api import cursors
from gapless.console.api.events import OwedState
from gapless.console.api.hours import HourItem, HoursOfSource
from gapless.console.pages import formats
from gapless.console.pages.acting import local_path
from gapless.console.pages.charts import LEAST, chart
from gapless.console.pages.events import STATES, WORST
from gapless.ledger.deliveries import DeliveryState

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


def test_each_state_of_a_delivery_has_its_words() -> None:
    assert set(STATES) == set(WORST) == set(map(str, DeliveryState))
    assert set(map(str, OwedState)) == {*map(str, DeliveryState), "none"}


def hour(ago: int, **counts: int) -> HourItem:
    start = NOW.replace(minute=0) - timedelta(hours=ago)
    zero = dict.fromkeys(("by_webhook", "by_list", "by_redelivery", "missed", "missing"), 0)
    return HourItem(start=start, is_proven=ago > 0, **(zero | counts))


def test_unknown_is_never_written_as_nothing() -> None:
    for write in (formats.count, formats.rate, formats.span):
        assert "unknown" in write(None)
    assert "unknown" in formats.time(None, NOW)
    assert "unknown" in formats.value(None, NOW)


def test_what_is_more_than_nothing_is_not_written_as_zero() -> None:
    assert formats.rate(0) == "0\u202f%"
    assert formats.rate(0.000_001) == "<\u202f0.001\u202f%"
    assert formats.rate(0.000_17) == "0.017\u202f%"
    assert formats.rate(0.25) == "25.00\u202f%"
    assert formats.count(218_404) == "218\u202f404"


def test_what_comes_from_outside_is_escaped() -> None:
    assert formats.breakable("a.b<script>") == "a.<wbr>b&lt;script&gt;"
    assert formats.with_code("run `<b>` & go") == "run <code>&lt;b&gt;</code> &amp; go"


def test_a_time_of_another_day_has_its_date() -> None:
    assert formats.time(NOW, NOW).endswith(">12:30:00</time>")
    assert "2026-11-19" in formats.clock(NOW - timedelta(days=1), NOW)
    assert formats.ago(NOW - timedelta(seconds=92), NOW) == "1 min 32 s ago"
    assert formats.until(NOW, NOW) == "now"


def test_one_recovered_in_ten_thousand_can_be_seen() -> None:
    drawn = chart(
        HoursOfSource(source="acme", proven_until=NOW - timedelta(minutes=30), items=[
            hour(1, by_webhook=10_000, by_list=1, missed=1), hour(0, by_webhook=5, missing=2)]),
        polled=False, now=NOW,
    )  # fmt: skip
    gap, now = drawn.bars
    assert (gap.recovered, gap.was_gap, gap.is_open, gap.is_proven) == (LEAST, True, False, True)
    assert (now.is_open, now.is_proven) == (True, False)
    assert "2 still missing" in now.title
    assert drawn.proof_x == 12
    assert "10\u202f005 by webhook" in drawn.label


def test_a_source_without_a_list_has_no_line_of_proof() -> None:
    drawn = chart(HoursOfSource(source="push", proven_until=None, items=[hour(0)]), polled=False, now=NOW)
    assert (drawn.proof_x, "nothing is proven" in drawn.label) == (None, True)


def test_cursors_are_of_one_list_and_hold_what_they_were_given() -> None:
    text = cursors.encode("events", (5, 2**62))
    assert cursors.decode("events", text, length=2) == (5, 2**62)
    assert cursors.encode("events", None) is cursors.decode("events", None) is None
    for wrong in (
        text,
        "",
        "x",
        "é",
        "bm8",
        "W10",
        cursors.encode("passes", (2**64,)),
        cursors.encode("passes", (1, 2)),
    ):
        with pytest.raises(HTTPException):
            cursors.decode("passes", wrong)


@pytest.mark.parametrize("path", ["//evil", "/\\evil", "https://evil", "javascript:x", "", None, "/a\n", "/ü"])
def test_nobody_is_led_to_another_site(path: str | None) -> None:
    assert local_path(path) == "/"
    assert local_path("/events?id=1&x=2") == "/events?id=1&x=2"
