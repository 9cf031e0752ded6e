"""The decisions of the reconcile road, as functions of values."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
from hypothesis import given
from hypothesis import strategies as st

from gapless.domain import cut
from gapless.ledger.passes import Slice
from gapless.ledger.watermarks import finished_prefix
from gapless.reconcile.budget import LEAST_HEADROOM, affordable_interval, latest_next_pass, slow_down
from gapless.reconcile.fetch import freeze, thaw
from gapless.reconcile.pace import Pace, Signals, due_at_start, next_interval
from gapless.reconcile.window import plan_pass, plan_sweeps
from gapless_reconcilers.kit.contract import ReadBudget, Window
from gapless_reconcilers.stripe import Stripe

SECOND, NOW = timedelta(seconds=1), datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
moments = st.datetimes(datetime(2026, 9, 1), datetime(2026, 11, 20)).map(lambda time: time.replace(tzinfo=UTC))  # noqa: DTZ001
spans = st.timedeltas(timedelta(0), timedelta(days=3))
PACE = Pace(shortest=timedelta(minutes=5), longest=timedelta(minutes=30), adaptive=True)


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
    windows = plan_sweeps(
        watermark=watermark,
        complete_from=NOW - timedelta(days=90),
        now=NOW,
        lookback=lookback,
        every=timedelta(days=1),
        capabilities=Stripe.capabilities,
    )
    assert all(window.end <= watermark for window in windows)
    assert all(window.start < window.end for window in windows)


@given(
    used=st.integers(0, 20_000),
    elapsed=st.timedeltas(timedelta(0), timedelta(days=40)),
    lag=st.timedeltas(timedelta(0), timedelta(days=29)),
    cost=st.floats(1, 50),
)
def test_a_budget_slows_and_never_blinds(used: int, elapsed: timedelta, lag: timedelta, cost: float) -> None:
    budget, history = ReadBudget(requests=10_000, period=timedelta(days=30)), timedelta(days=30)
    affordable = affordable_interval(budget=budget, used=used, period_start=NOW - elapsed, now=NOW, cost=cost)
    latest = latest_next_pass(history, NOW - lag)
    interval = slow_down(PACE.shortest, affordable, NOW, latest)
    assert interval >= PACE.shortest
    headroom_then = history - lag - interval
    assert interval == PACE.shortest or headroom_then >= history * LEAST_HEADROOM - SECOND


def test_a_fresh_budget_of_ten_thousand_keeps_a_fifth_for_hard_times() -> None:
    budget = ReadBudget(requests=10_000, period=timedelta(days=30))
    assert affordable_interval(budget=budget, used=0, period_start=NOW, now=NOW, cost=1) == timedelta(seconds=324)


@given(last=st.none() | st.timedeltas(SECOND, timedelta(hours=2)), found=st.booleans(), unwell=st.booleans())
def test_the_interval_is_short_when_there_is_reason_to_look(
    last: timedelta | None,
    found: bool,
    unwell: bool,
) -> None:
    interval = next_interval(PACE, last, Signals(found=found, unwell=unwell))
    assert PACE.shortest <= interval <= PACE.longest
    if found or unwell:
        assert interval == PACE.shortest
    assert next_interval(PACE, last, Signals(parked=True)) == PACE.longest


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


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=20), st.binary(max_size=50))
def test_a_stored_request_is_the_request(value: str, body: bytes) -> None:
    request = httpx.Request("POST", "https://api.test/v1", params={"q": value}, headers={"x-a": value}, content=body)
    again = thaw(freeze(request))
    assert (again.method, again.url, again.headers["x-a"]) == ("POST", request.url, value)
    assert again.content == body
    assert freeze(again) == freeze(request)
