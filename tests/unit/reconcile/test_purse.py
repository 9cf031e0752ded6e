"""The purse: no period has more requests than the allowance, and who may spend what is left."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.reconcile.purse import (
    KEPT,
    Allowance,
    Purpose,
    affordable_at,
    allow,
    believe,
    filled,
    first_affordable,
    granted,
    may_spend,
    new_purse,
    paid_at,
    spend,
    spendable,
)

NOW, DAY = datetime(2026, 11, 20, 12, tzinfo=UTC), timedelta(days=1)
MONTHLY = allow(10_000, 30 * DAY)
PAID = [purpose for purpose in Purpose if purpose is not Purpose.HISTORY]
allowances = st.builds(
    allow, st.floats(100, 2e6), st.sampled_from([timedelta(minutes=1), timedelta(hours=1), 30 * DAY])
)
steps = st.lists(st.tuples(st.floats(0, 0.5), st.sampled_from(PAID), st.integers(1, 200)), max_size=60)


def test_a_grant_grows_with_transactions_and_has_a_floor() -> None:
    assert granted(floor=10_000, per_transaction=500, transactions=0) == 10_000
    assert granted(floor=10_000, per_transaction=500, transactions=360) == 180_000
    assert granted(floor=5_000) == 5_000


def test_half_of_a_grant_is_used_and_a_quarter_after_a_429() -> None:
    assert MONTHLY.requests == 5_000
    assert allow(10_000, 30 * DAY, refused=timedelta(minutes=59)).requests == 2_500
    assert allow(10_000, 30 * DAY, refused=timedelta(hours=1)).requests == 5_000
    assert MONTHLY.per_day * 30 == pytest.approx(4_000)


@given(allowances, steps)
def test_no_period_has_more_requests_than_the_allowance(
    allowance: Allowance, wanted: list[tuple[float, Purpose, int]]
) -> None:
    now, purse, made = NOW, new_purse(NOW), list[tuple[datetime, int]]()
    for wait, purpose, requests in wanted:
        now += allowance.period * wait
        purse = filled(purse, allowance, now)
        if requests <= allowance.full and may_spend(purse, allowance, purpose, requests):
            purse = spend(purse, requests)
            made.append((now, requests))
    for start, _ in made:
        end = start + allowance.period
        assert sum(count for at, count in made if start <= at < end) <= allowance.requests * (1 + 1e-9)


@given(st.lists(st.tuples(st.floats(0, 0.3), st.floats(100, 1e5)), max_size=40))
def test_no_period_has_more_than_the_largest_allowance_that_was_known(changes: list[tuple[float, float]]) -> None:
    now, purse, made = NOW, new_purse(NOW), list[tuple[datetime, float, float]]()
    for wait, requests in changes:
        allowance = allow(requests, DAY, share=1.0)
        now += DAY * wait
        purse = filled(purse, allowance, now)
        taken = spendable(purse, allowance, Purpose.URGENT)
        purse = spend(purse, taken)
        made.append((now, taken, requests))
    for start, _, _ in made:
        inside = [each for each in made if start <= each[0] < start + DAY]
        assert sum(taken for _, taken, _ in inside) <= max(known for _, _, known in inside) * (1 + 1e-9)


@given(allowances, st.floats(0, 1000), st.sampled_from(list(Purpose)), st.integers(1, 300))
def test_what_is_not_affordable_now_is_at_the_time_that_is_told(
    allowance: Allowance, owed: float, purpose: Purpose, requests: int
) -> None:
    purse = spend(new_purse(NOW), owed)
    at = affordable_at(purse, allowance, purpose, requests)
    assert (at == NOW) == may_spend(purse, allowance, purpose, requests) or at - NOW < timedelta(microseconds=2)
    assert may_spend(filled(purse, allowance, at + timedelta(microseconds=2)), allowance, purpose, requests)


def test_each_purpose_leaves_something_for_those_before_it() -> None:
    levels = [KEPT[purpose] for purpose in Purpose]
    assert levels == sorted(levels)
    empty = spend(new_purse(NOW), MONTHLY.full)
    assert [purpose for purpose in Purpose if may_spend(empty, MONTHLY, purpose, 1)] == [Purpose.HISTORY]
    assert spendable(empty, MONTHLY, Purpose.HISTORY) == float("inf")
    assert spendable(empty, MONTHLY, Purpose.START) == 0
    last = spend(new_purse(NOW), MONTHLY.full - 1)
    assert [purpose for purpose in Purpose if may_spend(last, MONTHLY, purpose, 1)] == [
        Purpose.HISTORY,
        Purpose.START,
        Purpose.URGENT,
    ]


@given(allowances, st.floats(0, 1))
def test_siblings_and_sweeps_never_take_the_heartbeats_turn(allowance: Allowance, level: float) -> None:
    purse = filled(spend(new_purse(NOW), level * allowance.full), allowance, NOW)
    for purpose in (Purpose.SIBLING, Purpose.SWEEP, Purpose.ENDPOINT, Purpose.ACCOUNT, Purpose.DOUBT):
        left = spend(purse, spendable(purse, allowance, purpose))
        if spendable(purse, allowance, purpose):
            assert spendable(left, allowance, Purpose.HEARTBEAT) >= 0.199 * allowance.full


def test_a_clock_that_was_set_back_refills_nothing() -> None:
    purse = spend(new_purse(NOW), 100)
    assert filled(purse, MONTHLY, NOW - DAY).owed == 100
    assert filled(purse, MONTHLY, NOW + 30 * DAY).owed == 0


def test_a_grant_that_is_learned_to_be_larger_fills_the_purse_at_once() -> None:
    purse = spend(new_purse(NOW), MONTHLY.full)
    assert spendable(purse, MONTHLY, Purpose.URGENT) == 0
    assert spendable(purse, allow(20_000, 30 * DAY), Purpose.URGENT) == pytest.approx(1_000)
    assert spendable(new_purse(NOW), allow(10_000, 30 * DAY, refused=timedelta(0)), Purpose.URGENT) == pytest.approx(
        500
    )


def test_the_first_wish_that_can_be_paid_for_comes_first() -> None:
    purse, later = spend(new_purse(NOW), 0.9 * MONTHLY.full), NOW + timedelta(minutes=1)
    wishes = {Purpose.SIBLING: NOW, Purpose.URGENT: later}
    assert first_affordable(purse, MONTHLY, wishes, 1) == (later, Purpose.URGENT)
    assert first_affordable(new_purse(NOW), MONTHLY, wishes, 1) == (NOW, Purpose.SIBLING)
    assert first_affordable(purse, MONTHLY, {Purpose.HEARTBEAT: NOW, Purpose.HISTORY: NOW}, 9)[1] is Purpose.HISTORY


@given(allowances, st.floats(0, 1), st.integers(1, 5000))
def test_a_long_reading_waits_rather_than_take_more_than_the_allowance(
    allowance: Allowance, level: float, requests: int
) -> None:
    purse = spend(new_purse(NOW), level * allowance.full)
    took = paid_at(purse, allowance, requests) - NOW
    assert (
        requests
        <= allowance.full * (1 - level)
        + allowance.requests * 0.8 * ((took + timedelta(microseconds=1)) / allowance.period)
        + 1e-6
    )
    assert (took == timedelta(0)) == (requests <= allowance.full - purse.owed) or took < timedelta(microseconds=2)


@given(allowances, st.floats(0, 1), st.integers(0, 10**6))
def test_at_most_half_of_what_the_vendor_says_remains_is_spent(
    allowance: Allowance, level: float, remaining: int
) -> None:
    before = spend(new_purse(NOW), level * allowance.full)
    after = believe(before, allowance, remaining)
    assert spendable(after, allowance, Purpose.URGENT) <= remaining / 2 + 1e-6
    assert spendable(after, allowance, Purpose.URGENT) <= spendable(before, allowance, Purpose.URGENT)


def test_sources_that_share_a_grant_plan_with_a_part_of_it() -> None:
    part = MONTHLY.part(2)
    assert (part.requests, part.granted, part.period) == (2_500, 5_000, 30 * DAY)
