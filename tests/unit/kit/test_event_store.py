"""The fake's list behaves as declared: order, ties, cursors either way, history, and pages found without a scan."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless_reconcilers.kit.contract import Order
from gapless_reconcilers.testing.fake.event_store import EventStore, FakeEvent, ListSemantics, Query, UnknownCursorError

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def shelf_of(
    *ages_s: int, order: Order = Order.NEWEST_FIRST, history: timedelta | None = timedelta(days=30)
) -> EventStore:
    """Events 0, 1, 2, … as old as told, named by their number."""
    semantics = ListSemantics(
        order=order, resolution=timedelta(seconds=1), history=history, default_limit=10, most_per_page=100
    )
    shelf = EventStore(semantics)
    for number, age_s in enumerate(ages_s):
        shelf.add(event(number, NOW - timedelta(seconds=age_s)))
    return shelf


def event(number: int, occurred_at: datetime, visible_at: datetime | None = None) -> FakeEvent:
    return FakeEvent(
        number=number,
        key=str(number),
        type="invoice.paid",
        occurred_at=occurred_at,
        visible_at=visible_at or occurred_at,
        stream="",
        object_id="in",
    )


def keys(shelf: EventStore, **asked: object) -> tuple[str, bool]:
    query = Query(stream="", **{"limit": 100, **asked})  # type: ignore[arg-type]
    listing = shelf.read(query, NOW)
    return "".join(event.key for event in listing.events), listing.has_more


def test_newest_is_listed_first_and_ties_by_number() -> None:
    assert keys(shelf_of(5, 3, 3, 3, 1)) == ("43210", False)


def test_oldest_is_listed_first_where_declared() -> None:
    assert keys(shelf_of(5, 3, 3, 3, 1, order=Order.OLDEST_FIRST)) == ("01234", False)


def test_ties_within_a_second_straddle_pages_without_loss() -> None:
    shelf = shelf_of(3, 3, 3, 3, 3)
    assert keys(shelf, limit=2) == ("43", True)
    assert keys(shelf, limit=2, after="3") == ("21", True)
    assert keys(shelf, limit=2, after="1") == ("0", False)


def test_page_before_an_event_is_the_nearest_one_in_the_lists_order() -> None:
    shelf = shelf_of(5, 4, 3, 2, 1)
    assert keys(shelf, limit=2, before="0") == ("21", True)
    assert keys(shelf, limit=2, before="2") == ("43", False)
    assert keys(shelf_of(5, 4, 3, order=Order.OLDEST_FIRST), limit=1, before="2") == ("1", True)


def test_window_is_half_open() -> None:
    start, end = NOW - timedelta(seconds=4), NOW - timedelta(seconds=2)
    assert keys(shelf_of(5, 4, 3, 2, 1), start=start, end=end) == ("21", False)


def test_event_older_than_the_history_is_neither_shown_nor_a_cursor() -> None:
    shelf = shelf_of(31 * 86400, 29 * 86400, 1)
    assert keys(shelf) == ("21", False)
    with pytest.raises(UnknownCursorError):
        keys(shelf, after="0")
    with pytest.raises(UnknownCursorError):
        keys(shelf, after="never")
    assert keys(shelf_of(31 * 86400, 1, history=None)) == ("10", False)


def test_late_event_appears_in_its_place_once_visible() -> None:
    shelf = shelf_of(5, 1)
    shelf.add(event(2, NOW - timedelta(seconds=3), visible_at=NOW + timedelta(seconds=10)))
    assert keys(shelf) == ("10", False)
    listing = shelf.read(Query(stream="", limit=10), NOW + timedelta(seconds=10))
    assert [one.key for one in listing.events] == ["1", "2", "0"]


@given(
    ages=st.lists(st.integers(0, 40), max_size=40),
    limit=st.integers(1, 7),
    order=st.sampled_from([Order.NEWEST_FIRST, Order.OLDEST_FIRST]),
    low=st.integers(0, 40),
    high=st.integers(0, 40),
)
def test_walk_by_cursor_shows_each_event_of_the_window_once(
    ages: list[int], limit: int, order: Order, low: int, high: int
) -> None:
    shelf = shelf_of(*ages, order=order)
    start, end = NOW - timedelta(seconds=max(low, high)), NOW - timedelta(seconds=min(low, high))
    walked: list[FakeEvent] = []
    has_more, after = True, None
    while has_more:
        listing = shelf.read(Query(stream="", limit=limit, start=start, end=end, after=after), NOW)
        walked += listing.events
        has_more, after = listing.has_more, listing.events[-1].key if listing.events else None
    wanted = [str(number) for number, age_s in enumerate(ages) if min(low, high) < age_s <= max(low, high)]
    assert sorted(one.key for one in walked) == sorted(wanted)
    places = [(one.occurred_at, one.number) for one in walked]
    assert places == sorted(places, reverse=order is Order.NEWEST_FIRST)


def test_page_costs_its_own_length_whatever_the_shelf_holds() -> None:
    shelf = shelf_of()
    for number in range(200_000):
        shelf.add(event(number, NOW - timedelta(days=20) + timedelta(seconds=number)))
    began = time.perf_counter()
    for number in range(0, 200_000, 2_000):
        assert len(shelf.read(Query(stream="", limit=100, after=str(number + 500)), NOW).events) == 100
    assert time.perf_counter() - began < 1.0, "100 pages of 200,000 events took more than a second"


def test_a_cursor_inside_a_time_is_told_from_one_between_times() -> None:
    shelf = shelf_of(5, 3, 3, 1)

    def is_within(after: str | None) -> bool:
        return shelf.is_within_a_time(Query(stream="", limit=2, after=after), NOW)

    assert [is_within(after) for after in (None, "3", "2", "1", "0")] == [False, False, True, False, False]


def test_hidden_events_are_left_out_of_pages() -> None:
    assert keys(shelf_of(5, 4, 3, 2, 1), limit=2, hidden=frozenset({"3"})) == ("42", True)
