"""What is listed against what is known."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gapless.domain import TypePatterns
from gapless.operations.audit import AuditReport
from gapless_reconcilers.kit.contract import RemoteEvent, Window

T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
WINDOW = Window(start=T0 - timedelta(days=30), end=T0)


def event(key: str, kind: str = "invoice.paid", day: int = 1) -> RemoteEvent:
    return RemoteEvent(key=key, type=kind, occurred_at=T0 - timedelta(days=day), payload=b"{}")


def report(*patterns: str) -> AuditReport:
    return AuditReport(window=WINDOW, types=TypePatterns(patterns or ("*",)), types_origin="config")


def feed(made: AuditReport, events: list[RemoteEvent], known: set[str]) -> AuditReport:
    made.add(made.audited(events), known)
    return made


def test_missing_events_are_counted_per_type_and_day() -> None:
    made = feed(report(), [event("a"), event("b", day=2), event("c", "charge.failed", day=2)], {"a"})
    values = made.as_values({"a"})
    assert (values["listed"], values["found"], values["missing"]) == (3, 1, 2)
    assert values["by_type"] == {
        "charge.failed": {"listed": 1, "missing": 1},
        "invoice.paid": {"listed": 2, "missing": 1},
    }
    assert values["by_day"] == {"2026-11-18": {"listed": 2, "missing": 2}, "2026-11-19": {"listed": 1, "missing": 0}}


def test_what_is_listed_twice_counts_once_and_is_told() -> None:
    made = report()
    feed(made, [event("a"), event("b")], {"a"})
    feed(made, [event("b")], {"a"})
    assert (made.listed, made.repeated, list(made.missing)) == (2, 1, ["b"])


def test_other_types_are_not_audited() -> None:
    made = feed(report("invoice.*"), [event("a"), event("b", "charge.failed")], set())
    assert list(made.missing) == ["a"]


def test_ids_that_the_list_does_not_show_are_counted_apart() -> None:
    assert feed(report(), [event("a")], {"a"}).as_values({"a", "x", "y"})["not_listed"] == 2


def test_without_a_comparison_missing_is_unknown_and_never_zero() -> None:
    made = report()
    made.compared = False
    values = feed(made, [event("a")], set()).as_values(None)
    assert (values["listed"], values["found"], values["missing"], values["not_listed"]) == (1, None, None, None)
    assert values["by_type"] == {"invoice.paid": {"listed": 1, "missing": None}}


@given(st.lists(st.integers(0, 40)), st.sets(st.integers(0, 40)), st.integers(1, 7))
def test_found_and_missing_share_out_what_is_listed(listed: list[int], known: set[int], page: int) -> None:
    made, keys = report(), {str(number) for number in known}
    events = [event(str(number)) for number in listed]
    for at in range(0, len(events), page):
        feed(made, events[at : at + page], keys)
    assert set(made.missing) == {str(number) for number in set(listed) - known}
    assert made.found == len(set(listed) & known)
    assert made.listed + made.repeated == len(listed)
    assert made.not_listed(keys) == len(known - set(listed))
