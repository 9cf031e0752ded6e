"""The breaker, driven through any history."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from gapless.deliver.breaker import TROUBLE, UNSENT, Breaker, BreakerRule, after, claimable
from gapless.destinations.contract import Delivered, Failed, FailureReason, Held, HoldReason, Result, Withdrawn
from gapless.destinations.http import read_status

RULE = BreakerRule(threshold=3, rest=timedelta(microseconds=100), longest=timedelta(microseconds=400))
DOWN = Failed(reason=FailureReason.CONNECTION, detail="refused")
RESULTS = st.one_of(
    st.just(Delivered()),
    st.just(Withdrawn()),
    st.just(Held(reason=HoldReason.VERSION_MISMATCH, detail="")),
    st.builds(Failed, reason=st.sampled_from(FailureReason), detail=st.just("")),
)


def run(results: list[tuple[int, Result]]) -> tuple[Breaker, int]:
    breaker, now_us = Breaker(), 0
    for waited_us, result in results:
        now_us += waited_us
        breaker = after(breaker, result, now_us, RULE)
    return breaker, now_us


@given(history=st.lists(st.tuples(st.integers(0, 500), RESULTS)))
def test_an_open_breaker_always_comes_back_with_one_probe(history: list[tuple[int, Result]]) -> None:
    breaker, now_us = run(history)
    if breaker.is_open:
        assert now_us <= breaker.rests_until_us + 10**9
        assert breaker.rests_until_us - now_us <= 400
        assert claimable(breaker, 8, 0, breaker.rests_until_us - 1) == 0
        assert claimable(breaker, 8, 0, breaker.rests_until_us) == breaker.probes
        assert claimable(breaker, 8, breaker.probes, breaker.rests_until_us) == 0
    else:
        assert claimable(breaker, 8, 3, now_us) == 8


@given(history=st.lists(st.tuples(st.integers(0, 500), RESULTS)))
def test_one_success_closes_it_whatever_was_before(history: list[tuple[int, Result]]) -> None:
    assert run([*history, (0, Delivered())])[0] == Breaker()


@given(history=st.lists(st.sampled_from(sorted(set(FailureReason) - TROUBLE))))
def test_what_one_event_is_to_blame_for_never_opens_it(history: list[FailureReason]) -> None:
    assert not run([(0, Failed(reason=reason, detail="")) for reason in history])[0].is_open


def refuse(breaker: Breaker, *refusals: tuple[int, int]) -> Breaker:
    for seq, status in refusals:
        breaker = after(breaker, read_status(status), 0, RULE, seq)
    return breaker


def test_trap_a_handler_with_a_wrong_secret_opens_it_by_refusing_every_event() -> None:
    assert refuse(Breaker(), (1, 400), (2, 400), (3, 400)).is_open
    assert refuse(Breaker(), (1, 400), (2, 500), (2, 400), (3, 400)).is_open


def test_one_event_that_is_refused_again_and_again_does_not_open_it() -> None:
    assert not refuse(Breaker(), *[(1, 400), (2, 422)] * 20).is_open
    assert not refuse(Breaker(), *[(1, 400)] * 20).is_open


def test_a_success_between_refusals_shows_that_events_are_to_blame() -> None:
    breaker = Breaker()
    for seq in range(20):
        breaker = after(refuse(breaker, (2 * seq, 400), (2 * seq + 1, 400)), Delivered(), 0, RULE, 99)
        assert not breaker.is_open


def test_several_probe_after_refusals_and_one_after_failures() -> None:
    refused = refuse(Breaker(), (1, 400), (2, 400), (3, 400))
    assert claimable(refused, 8, 0, refused.rests_until_us) == 3
    down, _ = run([(0, DOWN)] * 3)
    assert claimable(down, 8, 0, down.rests_until_us) == 1
    probed = refused
    for result in (read_status(400), read_status(400), Delivered()):  # of the same rest: it is lengthened once
        before, probed = probed, after(probed, result, refused.rests_until_us, RULE, 9)
        assert probed.openings <= before.openings + 1
    assert probed == Breaker()


def test_a_refused_probe_fails() -> None:
    breaker = refuse(Breaker(), (1, 401), (2, 401), (3, 401))
    again = after(breaker, read_status(401), 100, RULE, 4)
    assert again.rests_until_us == 100 + 200


def test_it_opens_at_the_threshold_and_rests_longer_after_each_failed_probe() -> None:
    breaker, _ = run([(0, DOWN)] * 2)
    assert not breaker.is_open
    rests = []
    for probe_us in (0, 100, 300, 700, 1100):
        breaker = after(breaker, DOWN, probe_us, RULE)
        rests.append(breaker.rests_until_us - probe_us)
    assert rests == [100, 200, 400, 400, 400]


def test_attempts_that_were_under_way_when_it_opened_do_not_lengthen_its_rest() -> None:
    breaker, _ = run([(0, DOWN)] * 3)
    assert after(breaker, DOWN, 50, RULE) == breaker


@given(st.sampled_from(sorted({*UNSENT, FailureReason.ERASED})))
def test_what_was_not_sent_says_nothing_about_the_destination(reason: FailureReason) -> None:
    breaker = Breaker()
    for seq in range(20):
        breaker = after(breaker, Failed(reason=reason, detail=""), 0, RULE, seq)
    assert breaker == Breaker()
