"""The pure decisions of reconciliation."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
from hypothesis import given
from hypothesis import strategies as st

from gapless.domain import LEAST_HEADROOM, LONGEST_INTERVAL, align_down, cut, from_us, to_us
from gapless.ledger.passes import Slice
from gapless.ledger.watermarks import finished_prefix
from gapless.provider_api.pages import freeze, thaw
from gapless.reconcile.contradiction import MOST_WINDOWS, halves, windows_around
from gapless.reconcile.pace import (
    RESERVED,
    Pace,
    Signals,
    Spending,
    affordable_interval,
    due_at_start,
    latest_next_pass,
    next_interval,
    slow_down,
    sweep_allowance,
)
from gapless.reconcile.window import SWEEP_DEPTH, plan_horizon, plan_pass, plan_sweep
from gapless_reconcilers.kit.contract import ReadBudget, Reading, Window
from gapless_reconcilers.providers.stripe import Stripe

SECOND, NOW = timedelta(seconds=1), datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
moments = st.datetimes(datetime(2026, 9, 1), datetime(2026, 11, 20)).map(lambda time: time.replace(tzinfo=UTC))  # noqa: DTZ001
spans = st.timedeltas(timedelta(0), timedelta(days=3))
PACE = Pace(shortest=timedelta(minutes=5), longest=timedelta(minutes=30), adaptive=True)
MONTHLY = ReadBudget(requests=10_000, period=timedelta(days=30))


def spending(*, used: int, elapsed: timedelta, cost: float) -> Spending:
    return Spending(budget=MONTHLY, used=used, period_start=NOW - elapsed, cost=cost)


@given(start=st.integers(0, 10**9), width=st.integers(1, 40 * 86400))
def test_slices_cover_the_window_without_a_hole_or_an_overlap(start: int, width: int) -> None:
    begin = datetime.fromtimestamp(start, UTC)
    window = Window(start=begin, end=begin + timedelta(seconds=width))
    parts = cut(window, SECOND)
    assert parts[0].start == window.start
    assert parts[-1].end == window.end
    assert all(left.end == right.start for left, right in pairwise(parts))
    assert all(part.start < part.end and part.start.microsecond == 0 for part in parts)
    assert len(parts) <= 64


@given(watermark=moments, complete_from=moments, lookback=spans)
def test_a_pass_begins_at_or_behind_the_watermark_and_within_history(
    watermark: datetime, complete_from: datetime, lookback: timedelta
) -> None:
    watermark = max(watermark, complete_from)
    plan = plan_pass(
        watermark=watermark,
        complete_from=complete_from,
        now=NOW,
        provider_now=NOW,
        lookback=lookback,
        capabilities=Stripe.capabilities,
    )
    oldest = NOW - timedelta(days=30)
    if plan.unrecoverable is not None:
        assert (plan.unrecoverable.start, plan.unrecoverable.end) == (watermark, oldest)
        watermark = oldest
    if plan.window is not None:
        assert oldest <= plan.window.start <= watermark
        assert plan.window.start > complete_from - SECOND or plan.window.start == oldest
        assert plan.window.end == NOW - Stripe.capabilities.grace


@given(watermark=moments, lookback=spans)
def test_sweeps_look_behind_the_lookback_only(watermark: datetime, lookback: timedelta) -> None:
    complete_from = NOW - timedelta(days=90)
    window = plan_sweep(
        watermark=watermark, complete_from=complete_from, lookback=lookback, capabilities=Stripe.capabilities
    )
    assert (window is None) == (lookback > SWEEP_DEPTH - SECOND)
    if window is not None:
        assert watermark - SWEEP_DEPTH - SECOND < window.start < window.end <= watermark - lookback


@given(intervals=st.lists(st.integers(1, 3600), max_size=100), days=st.integers(1, 60))
def test_all_that_leaves_the_history_was_looked_at_once(intervals: list[int], days: int) -> None:
    history, now = timedelta(days=days), NOW
    windows: list[Window] = []
    for seconds in (0, *intervals):
        now += seconds * SECOND
        window = plan_horizon(
            watermark=now - timedelta(minutes=1),
            complete_from=NOW - timedelta(days=90),
            now=now,
            every=timedelta(days=1),
            looked_to=windows[-1].end if windows else None,
            capabilities=replace(Stripe.capabilities, history=history),
        )
        windows += [] if window is None else [window]
        assert windows[-1].end > now - history + timedelta(hours=1)
    assert windows[0].start == NOW - history
    assert all(one.end == other.start for one, other in pairwise(windows))


@given(
    used=st.integers(0, 20_000),
    elapsed=st.timedeltas(timedelta(0), timedelta(days=40)),
    lag=st.timedeltas(timedelta(0), timedelta(days=29)),
    cost=st.floats(1, 50),
)
def test_a_budget_slows_and_loses_nothing(used: int, elapsed: timedelta, lag: timedelta, cost: float) -> None:
    history, latest = timedelta(days=30), latest_next_pass(timedelta(days=30), NOW - lag)
    affordable = affordable_interval(spending(used=used, elapsed=elapsed, cost=cost), NOW)
    interval = slow_down(PACE.shortest, affordable, NOW, latest)
    assert PACE.shortest <= interval <= LONGEST_INTERVAL
    assert slow_down(PACE.shortest, affordable, NOW, None) <= LONGEST_INTERVAL
    headroom_then = history - lag - interval
    assert interval == PACE.shortest or headroom_then >= history * LEAST_HEADROOM - SECOND
    chosen = timedelta(hours=5)
    assert slow_down(chosen, affordable, NOW, latest) == chosen


def test_a_fresh_budget_of_ten_thousand_keeps_a_fifth_in_reserve() -> None:
    fresh = spending(used=0, elapsed=timedelta(0), cost=1)
    assert affordable_interval(fresh, NOW) == timedelta(seconds=324)


@given(
    used=st.integers(0, 20_000),
    elapsed=st.timedeltas(timedelta(0), timedelta(days=40)),
    cost=st.floats(1, 50),
)
def test_no_sweep_makes_the_passes_rarer(used: int, elapsed: timedelta, cost: float) -> None:
    before = spending(used=used, elapsed=elapsed, cost=cost)
    allowed = sweep_allowance(before, NOW, PACE.longest)
    assert 0 <= allowed <= MONTHLY.requests * (1 - RESERVED)
    if elapsed < MONTHLY.period and allowed:
        after = affordable_interval(replace(before, used=used + allowed), NOW + PACE.longest)
        fresh = affordable_interval(spending(used=0, elapsed=timedelta(0), cost=cost), NOW)
        assert after <= fresh + SECOND


def test_a_sweep_gets_what_is_left_over() -> None:
    day = timedelta(days=1)
    half_used = spending(used=2_000, elapsed=15 * day, cost=10)
    assert sweep_allowance(half_used, NOW, timedelta(0)) == 4_000 - 2_000 - 10
    assert sweep_allowance(spending(used=4_000, elapsed=15 * day, cost=10), NOW, timedelta(0)) == 0
    assert sweep_allowance(spending(used=9_000, elapsed=31 * day, cost=10), NOW, day) == 266 - 10
    hourly = Spending(budget=ReadBudget(requests=5_000, period=timedelta(hours=1)), used=100, period_start=NOW, cost=50)
    assert sweep_allowance(hourly, NOW, timedelta(minutes=30)) == 2_000 - 150


@given(last=st.none() | st.timedeltas(SECOND, timedelta(hours=2)), found=st.booleans(), unhealthy=st.booleans())
def test_the_interval_is_short_when_there_is_reason_to_look(
    last: timedelta | None,
    found: bool,
    unhealthy: bool,
) -> None:
    interval = next_interval(PACE, last, Signals(found=found, unhealthy=unhealthy))
    assert PACE.shortest <= interval <= PACE.longest
    if found or unhealthy:
        assert interval == PACE.shortest
    assert next_interval(PACE, last, Signals(parked=True)) == PACE.longest


@given(shortest=st.timedeltas(SECOND, timedelta(days=1)), more=st.timedeltas(timedelta(0), timedelta(days=1)))
def test_a_parked_source_is_read_once_an_hour(shortest: timedelta, more: timedelta) -> None:
    pace = Pace(shortest=shortest, longest=shortest + more, adaptive=True)
    assert next_interval(pace, None, Signals(parked=True)) <= max(LONGEST_INTERVAL, shortest)


def test_a_start_up_pass_is_made_only_if_the_last_is_older_than_the_shortest_interval() -> None:
    assert due_at_start(None, PACE, NOW) == NOW
    assert due_at_start(NOW - timedelta(hours=1), PACE, NOW) == NOW
    assert due_at_start(NOW - timedelta(minutes=1), PACE, NOW) == NOW + timedelta(minutes=4)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8))
def test_the_finished_prefix_ends_at_the_first_open_slice(parts: list[tuple[bool, int, int]]) -> None:
    slices = [
        Slice(
            id=at,
            start_us=at * 10,
            end_us=at * 10 + 10,
            done=done,
            cursor=None,
            witnesses=witnesses,
            matched=min(matched, witnesses),
        )
        for at, (done, witnesses, matched) in enumerate(parts)
    ]
    prefix = finished_prefix(0, slices)
    done = next((at for at, part in enumerate(slices) if not part.done), len(slices))
    assert prefix.end_us == done * 10
    believed = any(part.matched for part in slices[:done])
    assert prefix.suspect == (any(part.witnesses for part in slices[:done]) and not believed)


@given(st.lists(st.integers(0, 10**15), max_size=60), st.sampled_from([Reading.WINDOW, Reading.WALK]))
def test_absent_events_lie_in_the_windows_that_are_asked_for(times_us: list[int], reading: Reading) -> None:
    known = replace(Stripe.capabilities, reading=reading)
    windows = windows_around(times_us, known)
    assert windows == sorted(windows, key=lambda each: each.start)
    assert all(any(from_us(us) in window for window in windows) for us in times_us)
    assert all(one.end <= other.start for one, other in pairwise(windows))
    units = {us // 1_000_000 for us in times_us}
    if reading is Reading.WINDOW:
        assert len(windows) <= MOST_WINDOWS
        if len(units) <= MOST_WINDOWS:
            assert all(
                window.end - window.start == known.resolution for window in windows if len(units) == len(windows)
            )
    else:
        assert len(windows) <= 1


def test_more_windows_than_may_be_asked_for_are_joined_where_they_are_near() -> None:
    times_us = [1_000_000 * second for second in (0, 10, 100, 101, 110, 1000)]
    windows = windows_around(times_us, Stripe.capabilities, 3)
    spans = [(to_us(window.start) // 1_000_000, to_us(window.end) // 1_000_000) for window in windows]
    assert spans == [(0, 11), (100, 111), (1000, 1001)]


def test_windows_are_wider_where_webhooks_name_no_times() -> None:
    vague = replace(Stripe.capabilities, exact_times=False, grace=timedelta(seconds=90))
    first, second = windows_around([10**12, 10**12 + 60 * 10**6, 10**13], vague)
    assert first == Window(start=from_us(10**12 - 90 * 10**6), end=from_us(10**12 + 151 * 10**6))
    assert second.end - second.start == timedelta(seconds=181)


@given(st.integers(0, 10**6), st.integers(1, 10**5))
def test_halves_are_the_whole_and_end_at_one_unit(start_s: int, length_s: int) -> None:
    start, unit = from_us(start_s * 1_000_000), timedelta(seconds=1)
    window = Window(start=start, end=start + length_s * unit)
    parts = halves(window, unit)
    assert bool(parts) is (length_s > 1)
    if parts:
        first, second = parts
        assert (first.start, first.end, second.end) == (window.start, second.start, window.end)
        assert window.start < first.end < window.end
        assert first.end == align_down(first.end, unit)


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=20), st.binary(max_size=50))
def test_a_stored_request_is_the_request(value: str, body: bytes) -> None:
    request = httpx.Request("POST", "https://api.test/v1", params={"q": value}, headers={"x-a": value}, content=body)
    again = thaw(freeze(request))
    assert (again.method, again.url, again.headers["x-a"]) == ("POST", request.url, value)
    assert again.content == body
    assert freeze(again) == freeze(request)
