"""When a row is an odd one, when it is another shape of the list, and when its event may have occurred."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.domain import from_us, to_us
from gapless.reconcile.odd_rows import MOST_NEW, Times, judge, refuse_open
from gapless_reconcilers.kit.contract import Order, Page, RemoteEvent, UnreadableRow

START, END, UNIT = 1_795_000_000_000_000, 1_795_003_600_000_000, 1_000_000
NEWEST, OLDEST, UNORDERED = Order.NEWEST_FIRST, Order.OLDEST_FIRST, Order.UNORDERED


def times(order: Order = NEWEST) -> Times:
    return Times(order=order, unit_us=UNIT, start_us=START, end_us=END)


def row(digest: str = "a", before_s: int | None = None, after_s: int | None = None) -> UnreadableRow:
    """A row between readable ones that occurred so many seconds after the start."""
    before, after = (None if at is None else from_us(START) + timedelta(seconds=at) for at in (before_s, after_s))
    return UnreadableRow(digest=digest, row=b"{}", problem="data[0].id is missing", before=before, after=after)


def seconds(found: tuple[int, int] | None) -> tuple[float, float] | None:
    return None if found is None else ((found[0] - START) / UNIT, (found[1] - START) / UNIT)


@pytest.mark.parametrize(
    ("order", "before", "after", "wanted"),
    [
        (NEWEST, 20, 10, (10, 21)),
        (OLDEST, 10, 20, (10, 21)),
        (UNORDERED, 20, 10, (0, 3600)),
        (NEWEST, None, 10, (10, 3600)),
        (NEWEST, 20, None, (0, 21)),
        (NEWEST, None, None, (0, 3600)),
        (NEWEST, 20, 20, (20, 21)),
        (NEWEST, 20, -9, (0, 21)),
        (NEWEST, 4000, 10, (10, 3600)),
        (NEWEST, -5, -9, None),
        (NEWEST, 4000, 3600, None),
        (OLDEST, 3600, None, None),
        (NEWEST, 10, 20, (0, 3600)),
    ],
)
def test_neighbours_tell_when_an_odd_row_occurred(
    order: Order, before: int | None, after: int | None, wanted: tuple[float, float] | None
) -> None:
    assert seconds(times(order).of(row(before_s=before, after_s=after))) == wanted


AT = st.integers(-60, 3660)


@given(at=AT, older=st.none() | AT, newer=st.none() | AT, order=st.sampled_from(Order))
def test_the_time_found_holds_the_true_one(at: int, older: int | None, newer: int | None, order: Order) -> None:
    """Whatever is known of its neighbours: completeness may not be claimed over a row that cannot be read."""
    older, newer = (None if older is None else min(older, at), None if newer is None else max(newer, at))
    odd = row(before_s=newer, after_s=older) if order is NEWEST else row(before_s=older, after_s=newer)
    found, true_us = times(order).of(odd), START + at * UNIT
    if START <= true_us < END:
        assert found is not None
        assert START <= found[0] <= true_us < found[1] <= END
    elif found is not None:
        assert START <= found[0] < found[1] <= END


def page(odd: list[UnreadableRow], readable: int, rows: int | None = None) -> Page:
    at = from_us(START)
    events = [RemoteEvent(key=str(n), type="x", occurred_at=at, payload=b"{}") for n in range(readable)]
    return Page(events=events, next=None, unreadable=odd, rows=rows)


@pytest.mark.parametrize(
    ("odd", "readable", "rows", "is_refused"),
    [(1, 0, None, False), (3, 0, None, False), (2, 2, None, True), (2, 3, None, False), (2, 0, 100, False)],
)
def test_half_of_a_page_is_no_odd_row(odd: int, readable: int, rows: int | None, is_refused: bool) -> None:
    found = judge(page([row(str(n)) for n in range(odd)], readable, rows), {}, times(), before=0)
    assert (found.refusal is not None) is is_refused
    assert len(found.rows) == found.new == (0 if is_refused else odd)


def test_equal_rows_are_counted_on_their_page_and_kept_once() -> None:
    assert judge(page([row(), row()], 2), {}, times(), before=0).refusal is not None
    found = judge(page([row(), row()], 3), {}, times(), before=0)
    assert (len(found.rows), found.new) == (1, 1)


def test_more_than_ten_new_rows_are_too_many() -> None:
    assert judge(page([row()], 9), {}, times(), before=MOST_NEW - 1).refusal is None
    refusal = judge(page([row()], 9), {}, times(), before=MOST_NEW).refusal
    assert refusal is not None
    assert "more than 10 that cannot be read in one pass (data[0].id is missing)" in str(refusal)
    for state in ("open", "dismissed"):
        known = judge(page([row()], 9), {"unreadable:a": state}, times(), before=MOST_NEW)
        assert (known.refusal, known.new, len(known.rows)) == (None, 0, 1)
    assert judge(page([row()], 9), {"unreadable:a": "resolved"}, times(), before=MOST_NEW).refusal is not None


def test_dismissed_rows_are_no_half_of_a_page() -> None:
    states = {"unreadable:a": "dismissed", "unreadable:b": "dismissed"}
    assert judge(page([row("a"), row("b")], 2), states, times(), before=0).refusal is None


def test_rows_outside_the_time_are_left_to_other_passes() -> None:
    found = judge(page([row("a", -5, -9), row("b", 20, 10)], 9), {}, times(), before=0)
    assert [each.digest for each, _ in found.rows] == ["b"]
    nothing = Times(order=NEWEST, unit_us=UNIT, start_us=END, end_us=START)
    assert judge(page([row()], 9), {}, nothing, before=0).rows == ()


def test_a_hundred_open_rows_are_too_many() -> None:
    assert refuse_open(99) is None
    assert "see `gapless missing list`" in str(refuse_open(100))
    assert to_us(from_us(START)) == START
