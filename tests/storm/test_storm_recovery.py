"""The time to recovery, by hand."""

from datetime import timedelta

import pytest

from storm.evidence import Emitted
from storm.faults import Fault, Kind
from storm.made_up import at, make_evidence, sample
from storm.recovery import figures, recoveries


def took(**changes: object) -> float | None:
    (found,) = recoveries(make_evidence(**changes))
    return None if found.took is None else found.took.total_seconds()


def test_recovery_waits_for_the_last_delivery() -> None:
    assert took(samples=[sample(5, 5, 5)]) == pytest.approx(3.5)  # `c` was accepted 3.5 s after the fault's end


def test_recovery_waits_for_a_watermark_past_the_end() -> None:
    assert took(samples=[sample(5, 3, 5), sample(9, 4, 9)]) == pytest.approx(5.0)


def test_recovery_waits_for_a_healthy_source() -> None:
    ill = sample(8, 6, 8, needs_a_person=("source_parked",))
    assert took(samples=[ill, sample(10, 6, 8, last_outcome="retryable"), sample(12, 6, 8)]) == pytest.approx(8.0)


def test_recovery_does_not_wait_for_what_became_visible_later() -> None:
    events = [*make_evidence().events, Emitted(key="d", occurred_at=at(3), visible_at=at(5))]
    assert took(events=events, samples=[sample(5, 5, 5)]) == pytest.approx(3.5)


def test_an_event_that_is_never_delivered_is_no_recovery() -> None:
    assert took(accepted_at={"a": at(1), "b": at(2)}) is None


def test_figures_keep_faults_that_were_alone_apart() -> None:
    faults = [
        Fault(kind=Kind.KILL, began=at(2), ended=at(4)),
        Fault(kind=Kind.KILL, began=at(10), ended=at(11), alone=True),
        Fault(kind=Kind.KILL, began=at(90), ended=at(95), alone=True),
    ]
    (line,) = figures(recoveries(make_evidence(faults=faults, samples=[sample(5, 4, 5), sample(14, 12, 13)])))
    assert (line.count, line.alone, line.never) == (3, 2, 1)
    assert (line.median_s, line.longest_s) == (3.0, 3.0)
    assert line.storm_longest_s == timedelta(seconds=3.5).total_seconds()
