"""Heartbeats, looks, windows and the plan of reading."""

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gapless.domain import to_us
from gapless.reconcile.heartbeat import (
    LONGEST,
    SHORTEST,
    StreamLoad,
    learned_rates,
    plan_heartbeats,
    requests_a_day,
)
from gapless.reconcile.lateness import AgeCounts, learned_grace, settle_time
from gapless.reconcile.pace import (
    NEVER,
    SWEEP_SHARE,
    endpoint_every,
    is_deep,
    next_piece,
    next_reading,
    plan_sweeps,
    reading_wishes,
    reads_siblings,
    sweep_slices,
)
from gapless.reconcile.purse import Purpose, allow
from gapless.reconcile.reading_plan import ReadingFacts, ReadingPlan, in_words, plan_reading
from gapless.reconcile.urgency import Look, Reason, first_look, next_look, silent_look, sooner
from gapless.reconcile.window import claimed_up_to, recorded_up_to

NOW, SECOND, DAY = datetime(2026, 11, 20, 12, tzinfo=UTC), timedelta(seconds=1), timedelta(days=1)
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
rates = st.lists(st.floats(0, 1e5), min_size=168, max_size=168)
loads = st.dictionaries(
    st.text(max_size=3), st.builds(StreamLoad, rate=st.floats(0, 1e6), cost=st.floats(1, 20)), min_size=1, max_size=8
)


def test_settle_follows_the_lag_within_its_bounds() -> None:
    assert settle_time(None) == 20 * SECOND
    assert settle_time(SECOND) == 5 * SECOND
    assert settle_time(12 * SECOND) == 15 * SECOND
    assert settle_time(HOUR) == 20 * SECOND


@given(
    declared=st.timedeltas(timedelta(0), HOUR),
    shown=st.none() | st.timedeltas(timedelta(0), HOUR),
    lag=st.none() | st.timedeltas(timedelta(0), HOUR),
    samples=st.integers(0, 5000),
    unit=st.timedeltas(timedelta(microseconds=1), MINUTE),
)
def test_grace_is_longer_than_settle(
    declared: timedelta, shown: timedelta | None, lag: timedelta | None, samples: int, unit: timedelta
) -> None:
    settle = settle_time(lag)
    grace = learned_grace(
        declared=declared, settle=settle, unit=unit, shown_p999=shown, webhook_lag_p999=lag, samples=samples
    )
    assert grace >= settle + unit
    if samples < 1000:
        assert grace == max(declared, settle + unit)


@given(st.lists(st.floats(0.05, 1e5), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_right_to_a_tenth(ages: list[float], share: float) -> None:
    counts = AgeCounts()
    for age in ages:
        counts.add(age)
    exact = sorted(ages)[math.ceil(len(ages) * share) - 1]
    told = counts.percentile(share)
    assert told is not None
    assert exact * 0.999 <= told.total_seconds() <= exact * 1.101
    assert AgeCounts().percentile(share) is None


@given(loads, rates, st.floats(0.1, 1e6))
def test_heartbeats_cost_what_was_planned_and_no_more(
    streams: dict[str, StreamLoad], by_hour: list[float], per_day: float
) -> None:
    beats = plan_heartbeats(streams, by_hour, per_day)
    cost, shortest = requests_a_day(beats, streams), sum(load.cost for load in streams.values()) * (DAY / SHORTEST)
    assert cost <= per_day * 1.001
    assert cost >= min(per_day, shortest) * 0.98
    for name in streams:
        for hour in range(0, 168, 13):
            interval = beats.interval(name, NOW + hour * HOUR)
            assert SHORTEST <= interval <= beats.longest
    assert beats.interval("a name of no stream", NOW) == beats.longest
    affordable = sum(load.cost for load in streams.values()) * (DAY / LONGEST) <= per_day
    assert (beats.longest == LONGEST) == affordable


@given(rates, st.floats(100, 2500))
def test_hours_with_more_events_are_read_more_often(by_hour: list[float], per_day: float) -> None:
    beats = plan_heartbeats({"": StreamLoad(rate=sum(by_hour) / 7)}, by_hour, per_day)
    intervals = [beats.limited("", hour) for hour in range(168)]
    ordered = [interval for _, interval in sorted(zip(by_hour, intervals, strict=True))]
    assert all(left >= right - 1e-6 for left, right in pairwise(ordered))


def test_streams_share_by_the_square_root() -> None:
    streams = {"busy": StreamLoad(rate=400), "quiet": StreamLoad(rate=100)}
    beats = plan_heartbeats(streams, [1.0] * 168, 2000)
    assert beats.interval("quiet", NOW) / beats.interval("busy", NOW) == pytest.approx(2)


def test_equal_intervals_would_wait_longer() -> None:
    by_hour = [100.0 if 8 <= hour % 24 < 20 else 4.0 for hour in range(168)]
    streams = {"": StreamLoad(rate=sum(by_hour) / 7)}
    beats = plan_heartbeats(streams, by_hour, 300)
    equal = 86_400 / 300
    waited = sum(rate * beats.limited("", hour) for hour, rate in enumerate(by_hour))
    assert waited < 0.85 * equal * sum(by_hour)


def test_a_thousand_streams_are_planned_at_once() -> None:
    streams = {str(number): StreamLoad(rate=float(number)) for number in range(1000)}
    beats = plan_heartbeats(streams, [float(hour % 24) for hour in range(168)], 200_000)
    assert requests_a_day(beats, streams) == pytest.approx(200_000, rel=0.02)


def test_a_rhythm_is_learned_from_the_first_hours_on() -> None:
    assert learned_rates({}, NOW, NOW) == [0.0] * 168
    hour = to_us(NOW) // 3_600_000_000
    first = learned_rates({hour - 1: 24}, NOW - HOUR, NOW)
    assert first == pytest.approx([24.0] * 168)
    day = {at: 10 if at % 24 < 12 else 0 for at in range(hour - 8 * 168, hour)}
    known = learned_rates(day, NOW - 100 * DAY, NOW)
    assert known[0] == pytest.approx(85 / 9)
    assert known[13] == pytest.approx(5 / 9)


def test_a_reading_is_due_with_the_heartbeat_or_when_a_webhook_has_settled() -> None:
    base = {"last": NOW, "beat": 10 * MINUTE, "settle": 15 * SECOND, "shortest": 30 * SECOND}
    assert next_reading(**base) == NOW + 10 * MINUTE  # type: ignore[arg-type]
    at = NOW + MINUTE
    assert next_reading(**base, webhook=at) == at + 17 * SECOND  # type: ignore[arg-type]
    assert next_reading(**base, webhook=at, unread=at - 29 * SECOND) == at + 3 * SECOND  # type: ignore[arg-type]
    assert next_reading(**base, webhook=NOW + SECOND, unread=NOW - MINUTE) == NOW + 15 * SECOND  # type: ignore[arg-type]
    assert next_reading(**base, urgent=NOW + 2 * SECOND) == NOW + 2 * SECOND  # type: ignore[arg-type]


def test_a_reading_says_what_it_is_for() -> None:
    wishes = reading_wishes(
        last=NOW,
        beat=10 * MINUTE,
        settle=15 * SECOND,
        shortest=30 * SECOND,
        webhook=NOW,
        urgent=NOW + HOUR,
        latest=NOW + DAY,
    )
    assert wishes == {
        Purpose.HEARTBEAT: NOW + 10 * MINUTE,
        Purpose.URGENT: NOW + 30 * MINUTE,
        Purpose.SIBLING: NOW + 17 * SECOND,
        Purpose.HISTORY: NOW + DAY,
    }


def test_siblings_are_off_where_half_of_them_could_not_be_paid() -> None:
    per_day = allow(10_000, 30 * DAY).per_day
    assert reads_siblings(5, 1, per_day)
    assert reads_siblings(66, 1, per_day)
    assert not reads_siblings(67, 1, per_day)
    assert not reads_siblings(66, 2, per_day)


def test_looks_after_a_find_grow_until_the_heartbeat_is_enough() -> None:
    look, waits = first_look(Reason.FIND, NOW, 5 * MINUTE), list[float]()
    assert look is not None
    assert look.due == NOW + 30 * SECOND
    assert first_look(Reason.FIND, NOW, 40 * SECOND) is None
    while look is not None:
        waits.append(look.wait.total_seconds())
        look = next_look(look, look.due, 5 * MINUTE, goes_on=False)
    assert waits == pytest.approx([30, 45, 67.5, 101.25, 151.875, 227.8125])
    again = next_look(Look(reason=Reason.FIND, due=NOW, wait=3 * MINUTE), NOW, 5 * MINUTE, goes_on=True)
    assert again is not None
    assert again.wait == 30 * SECOND


def test_a_look_at_once_is_one_look_unless_it_finds_something() -> None:
    start = first_look(Reason.START, NOW, MINUTE)
    assert start is not None
    assert start.due == NOW
    assert next_look(start, NOW, 5 * MINUTE, goes_on=False) is None
    after = next_look(start, NOW, 5 * MINUTE, goes_on=True)
    assert after == Look(reason=Reason.FIND, due=NOW + 30 * SECOND, wait=30 * SECOND)
    assert next_look(start, NOW, 30 * SECOND, goes_on=True) is None
    assert first_look(Reason.KEY_REPLACED, NOW, MINUTE) == Look(reason=Reason.KEY_REPLACED, due=NOW, wait=30 * SECOND)


def test_looks_at_an_endpoint_that_stays_unhealthy_grow_to_the_heartbeat() -> None:
    look, until = first_look(Reason.ENDPOINT, NOW, 5 * MINUTE), dict[int, int]()
    for number in range(1_000):
        assert look is not None
        until.setdefault(int((look.due - NOW) / (6 * HOUR)), number)
        look = next_look(look, look.due, 5 * MINUTE, 30 * SECOND, goes_on=True)
    assert 250 < until[1] < 350
    assert 450 < until[4] < 700
    assert look is not None
    assert look.wait == 5 * MINUTE
    assert next_look(look, look.due, 2 * MINUTE, 30 * SECOND, goes_on=False) is None


def test_a_rejected_key_is_tried_after_1_2_4_and_at_most_30_minutes() -> None:
    look, waits = first_look(Reason.KEY_REJECTED, NOW, MINUTE), list[timedelta]()
    assert look is not None
    for _ in range(8):
        waits.append(look.wait)
        after = next_look(look, look.due, MINUTE, goes_on=True)
        assert after is not None
        look = after
    assert waits == [MINUTE * each for each in (1, 2, 4, 8, 16, 30, 30, 30)]
    assert next_look(look, look.due, MINUTE, goes_on=False) is None


def test_a_silence_is_looked_into_at_twice_as_much_each_time() -> None:
    assert silent_look(4.5, 0) is None
    assert silent_look(4.7, 0) == 4.7
    assert silent_look(9.3, 4.7) is None
    assert silent_look(9.4, 4.7) == 9.4


def test_the_sooner_look_comes_first() -> None:
    one, other = first_look(Reason.START, NOW, MINUTE), first_look(Reason.FIND, NOW, 5 * MINUTE)
    assert sooner(one, other) == sooner(other, one) == one
    assert sooner(None, one) == sooner(one, None) == one
    assert sooner(None, None) is None


@given(settle=st.timedeltas(timedelta(0), MINUTE), more=st.timedeltas(timedelta(microseconds=1), HOUR))
def test_less_is_claimed_than_recorded(settle: timedelta, more: timedelta) -> None:
    assert claimed_up_to(NOW, settle + more, SECOND) < recorded_up_to(NOW, settle)


def test_a_head_reaches_back_over_the_lookback_twice_in_each() -> None:
    assert is_deep(None, 15 * MINUTE, NOW)
    assert not is_deep(NOW - 7 * MINUTE, 15 * MINUTE, NOW)
    assert is_deep(NOW - 7.5 * MINUTE, 15 * MINUTE, NOW)
    assert is_deep(NOW + MINUTE, 15 * MINUTE, NOW), "a clock was ahead when it was stored"


@given(events=st.floats(0, 1e7), page=st.integers(1, 500), per_day=st.floats(1, 1e6), rate=st.floats(0.5, 100))
def test_sweeps_stay_within_their_fifth_and_half_the_rate(
    events: float, page: int, per_day: float, rate: float
) -> None:
    pace = plan_sweeps(events, page, per_day, rate, DAY)
    assert pace.pieces == sweep_slices(events, page)
    pages = max(math.ceil(events / page), pace.pieces)
    assert pace.pieces * pace.requests >= pages
    assert pace.every >= DAY
    if pace.every < NEVER:
        assert pages * (DAY / pace.every) <= max(SWEEP_SHARE * per_day * 1.001, 1e-9)
        assert pages <= rate / 2 * pace.every.total_seconds() * 1.001
    assert next_piece(pace, NOW, pace.pieces) - (NOW + pace.every) < SECOND


def test_a_piece_of_a_sweep_takes_no_more_than_the_purse_can_spare() -> None:
    pace = plan_sweeps(600_000, 100, 86_400, 2, DAY, at_once=6)
    assert (pace.pieces, pace.requests) == (1_000, 6)
    assert plan_sweeps(600_000, 100, 86_400, 2, DAY, at_once=0.9).requests == 1


def test_a_sweep_of_a_quiet_account_is_one_piece() -> None:
    assert sweep_slices(60, 100) == 1
    assert sweep_slices(6_000, 100) == 15
    assert sweep_slices(600_000, 100) == 64


def test_our_endpoint_is_looked_at_each_hour_or_each_three() -> None:
    assert endpoint_every(allow(10_000, 30 * DAY).per_day) == 3 * HOUR
    assert endpoint_every(allow(5_000, HOUR).per_day) == HOUR


def plan(grant: int | None, events: float, *, period: timedelta = 30 * DAY, groups: float | None = None) -> ReadingPlan:
    facts = ReadingFacts(
        allowance=None if grant is None else allow(grant, period),
        streams={"": StreamLoad(rate=events)},
        rates=[events / 24] * 168,
        groups_a_day=events / 4 if groups is None else groups,
        settle=15 * SECOND,
        page=100,
        rate=20,
        sweep_depth=3 * DAY,
        sweep_every=DAY,
        history=30 * DAY,
    )
    return plan_reading(facts)


@given(grant=st.integers(200, 10**8), events=st.floats(0, 3e5), period=st.sampled_from([HOUR, DAY, 30 * DAY]))
def test_a_plan_stays_within_the_allowance_and_is_never_blind(grant: int, events: float, period: timedelta) -> None:
    made = plan(grant, events, period=period)
    assert made.used is not None
    assert made.used <= 0.4001
    assert made.heartbeats.longest < timedelta(days=22)
    assert made.median <= made.p99 <= made.heartbeats.longest + 15 * SECOND


@given(grant=st.integers(2_000, 10**7), events=st.floats(10, 3e5))
def test_more_of_a_grant_finds_losses_no_later(grant: int, events: float) -> None:
    less, more = plan(grant, events, groups=events), plan(2 * grant, events, groups=events)
    assume(less.siblings == more.siblings)
    assert more.p99 <= less.p99 * 1.02


def test_the_plan_says_what_it_does_and_what_the_grant_costs() -> None:
    assert in_words(plan(10**7, 2_000)) == (
        "reads every 30s, and soon after each webhook, for 1 % of the grant; a lost webhook is found within about 20s"
    )
    short = plan(10_000, 2_000)
    assert short.is_short
    assert not short.siblings
    assert "The grant is short: with more of it, 30s" in in_words(short)
    assert in_words(plan(None, 2_000)).startswith("reads every 30s, and soon after each webhook; a lost")
    assert plan(4, 2_000).runs_out


def test_looks_are_never_closer_than_the_shortest_interval() -> None:
    made = Look(reason=Reason.FIND, due=NOW, wait=2 * MINUTE)
    again = next_look(made, NOW, 15 * MINUTE, MINUTE, goes_on=True)
    assert again is not None
    assert again.wait == MINUTE
