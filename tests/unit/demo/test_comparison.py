from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gapless.demo.configuration import CLOSING, plan_phases
from gapless.demo.consumer import ReceivedAttempt, is_signed
from gapless.demo.daemon_process import DaemonStatus, DestinationStatus, ListedStatus, SourceStatus
from gapless.demo.report import DemoComparison, Ending, compare_events
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.standard_signature import sign

T0 = datetime(2026, 11, 21, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def attempt(key: str, idempotency_id: str) -> ReceivedAttempt:
    return ReceivedAttempt(at=T0, key=key, idempotency_id=idempotency_id, via="list", accepted=True)


def compared(emitted: str, *attempts: ReceivedAttempt, refused: int = 0) -> DemoComparison:
    """Of one-letter events; every attempt was accepted."""
    by_key: dict[str, list[ReceivedAttempt]] = {}
    for each in attempts:
        by_key.setdefault(each.key, []).append(each)
    return compare_events(tuple(emitted), by_key, by_key, refused)


def status(*, complete_up_to: datetime, last_pass: datetime, pending: int = 0) -> DaemonStatus:
    listed = ListedStatus(complete_up_to=complete_up_to, last_complete_pass=last_pass)
    source = SourceStatus(name="s", events={}, duplicates=0, list=listed)
    destination = DestinationStatus(name="d", backlog={"pending": pending, "dead": 3})
    return DaemonStatus(at=T0, sources=(source,), destinations=(destination,))


def test_gap_is_closed_when_each_event_came_under_one_id() -> None:
    found = compared("ab", attempt("a", "1"), attempt("a", "1"), attempt("b", "2"))

    assert found.closed
    assert found.repeated == 1


@pytest.mark.parametrize(
    ("found", "finding"),
    [
        (compared("ab", attempt("a", "1")), "missing"),
        (compared("a", attempt("a", "1"), attempt("b", "2")), "unexpected"),
        (compared("a", attempt("a", "1"), attempt("a", "2")), "changed"),
        (compared("a", attempt("a", "")), "changed"),
        (compared("ab", attempt("a", "1"), attempt("b", "1")), "changed"),
        (compared("a", attempt("a", "1"), refused=1), "refused"),
    ],
)
def test_gap_is_open_when_anything_differs(found: DemoComparison, finding: str) -> None:
    assert not found.closed
    assert getattr(found, finding)
    assert replace(found, **{finding: () if finding != "refused" else 0}).closed


def test_end_is_reached_at_the_second_pass_with_all_visible() -> None:
    ending = Ending(last_occurred=T0, all_visible_at=T0 + SECOND)
    done = status(complete_up_to=T0 + SECOND, last_pass=T0 + 2 * SECOND)

    assert not ending.is_reached(status(complete_up_to=T0 + SECOND, last_pass=T0 + SECOND))
    assert not ending.is_reached(done)
    assert not ending.is_reached(done)
    assert ending.is_reached(status(complete_up_to=T0 + SECOND, last_pass=T0 + 3 * SECOND))


@pytest.mark.parametrize(("complete_up_to", "pending"), [(T0, 0), (T0 + SECOND, 1)])
def test_end_is_not_reached_while_unproven_or_owed(complete_up_to: datetime, pending: int) -> None:
    ending = Ending(last_occurred=T0, all_visible_at=T0)

    reached = [
        ending.is_reached(status(complete_up_to=complete_up_to, last_pass=T0 + n * SECOND, pending=pending))
        for n in range(1, 5)
    ]

    assert not any(reached)


def test_plan_leaves_a_third_of_the_time_for_closing() -> None:
    plan = plan_phases(30.0, drop=0.2, kill=True)

    names = [phase.name for _, phase in plan.phases]
    assert names == ["webhooks fine", "20% dropped", "receiver killed", "receiver back", "provider outage"]
    assert plan.at(0.0).name == "webhooks fine"
    assert plan.at(19.9).outage
    assert plan.at(20.0) is CLOSING


def test_plan_without_an_end_begins_again() -> None:
    plan = plan_phases(None, drop=0.2, kill=False)

    assert not any(phase.killed for _, phase in plan.phases)
    assert plan.at(29.9).name == "webhooks fine again"
    assert plan.at(30.0) is plan.at(0.0)


def test_consumer_accepts_only_recent_valid_signatures() -> None:
    secret, body, now = "whsec_c2VjcmV0IHNlY3JldCBzZWNyZXQ=", b"{}", T0
    headers = sign(Secret(secret), "1", body, now)
    assert headers is not None

    assert is_signed(headers, body, secret, now)
    assert not is_signed(headers, b"[]", secret, now)
    assert not is_signed(headers, body, secret, now + timedelta(minutes=6))
    assert not is_signed({}, body, secret, now)
