"""Each check of the storm passes what is right and fails what it is there for: one that cannot fail proves nothing."""

from dataclasses import replace

import pytest

from storm import checks
from storm.evidence import Emitted, Evidence, Lie, Row, Sample
from storm.made_up import at, make_evidence, sample, totals


def failed(evidence: Evidence) -> list[str]:
    return [verdict.name for verdict in checks.verdicts(evidence) if not verdict.is_met]


def test_a_storm_that_lost_nothing_passes_every_check() -> None:
    assert [verdict for verdict in checks.verdicts(make_evidence()) if verdict.problems] == []


def test_an_acknowledged_event_that_is_not_recorded_is_told() -> None:
    found = checks.nothing_acknowledged_is_lost(make_evidence(ledger=make_evidence().ledger[1:]))
    assert found.problems == ("1 acknowledged and not in the ledger: a",)


def test_a_storm_without_acknowledged_webhooks_proves_nothing() -> None:
    assert not checks.nothing_acknowledged_is_lost(make_evidence(acknowledged={})).is_met


@pytest.mark.parametrize(
    "ledger",
    [
        make_evidence().ledger[:-1],
        [*make_evidence().ledger, Row(key="stranger", via="list", expected=True, missed=True, webhooks=0)],
        [*make_evidence().ledger, make_evidence().ledger[0]],
    ],
    ids=["one less", "one more", "one twice"],
)
def test_a_ledger_that_differs_from_the_list_is_told(ledger: list[Row]) -> None:
    assert not checks.ledger_is_what_the_provider_lists(make_evidence(ledger=ledger)).is_met


def test_an_event_that_the_consumer_never_accepted_is_told() -> None:
    found = checks.consumer_has_what_it_is_owed(make_evidence(accepted_at={"a": at(1), "b": at(2)}))
    assert found.problems == ("1 owed and never accepted: c",)


def test_a_delivery_of_no_event_of_the_provider_is_told() -> None:
    attempts = {**make_evidence().attempts, "stranger": ["ids"]}
    assert not checks.consumer_has_what_it_is_owed(make_evidence(attempts=attempts)).is_met


@pytest.mark.parametrize(
    "attempts",
    [
        {"a": ["ida"], "b": ["idb", "other"], "c": ["idc"]},
        {"a": ["ida"], "b": ["ida"], "c": ["idc"]},
        {"a": ["ida"], "b": ["idb"], "c": [""]},
    ],
    ids=["changed", "shared", "empty"],
)
def test_repeats_that_cannot_be_recognised_are_told(attempts: dict[str, list[str]]) -> None:
    assert not checks.deliveries_are_recognisable(make_evidence(attempts=attempts)).is_met


@pytest.mark.parametrize("name", ["by_webhook", "by_list", "expected", "missed", "recovered", "late", "duplicates"])
def test_a_figure_that_is_off_by_one_is_told(name: str) -> None:
    wrong = totals(**{name: getattr(totals(), name) + 1})
    found = checks.tallies_are_the_recount(make_evidence(totals=wrong))
    assert [problem.partition(":")[0] for problem in found.problems] == [name.replace("_", " ")]


def test_a_missed_event_whose_webhook_came_counts_as_late() -> None:
    rows = [*make_evidence().ledger[:2], replace(make_evidence().ledger[2], webhooks=1)]
    assert checks.tallies_are_the_recount(make_evidence(ledger=rows, totals=totals(late=1))).is_met
    assert not checks.tallies_are_the_recount(make_evidence(ledger=rows)).is_met


def test_an_event_never_posted_and_not_missed_is_told() -> None:
    rows = [*make_evidence().ledger[:2], replace(make_evidence().ledger[2], missed=False)]
    assert not checks.counts_are_true(make_evidence(ledger=rows)).is_met
    young = [*rows[:2], replace(rows[2], awaited=True)]
    assert checks.counts_are_true(make_evidence(ledger=young)).is_met
    assert not checks.counts_are_true(make_evidence(ledger=[*rows[:2], replace(young[2], missed=True)])).is_met


def test_an_event_acknowledged_before_listed_is_not_missed() -> None:
    rows = [replace(make_evidence().ledger[0], missed=True), *make_evidence().ledger[1:]]
    assert not checks.counts_are_true(make_evidence(ledger=rows)).is_met
    assert checks.counts_are_true(make_evidence(ledger=rows, first_acknowledged_at={"a": at(9)})).is_met


def test_more_webhooks_counted_than_were_sent_is_told() -> None:
    assert not checks.counts_are_true(make_evidence(posts={"a": 1, "b": 1})).is_met


def test_fewer_webhooks_counted_than_were_answered_is_told() -> None:
    assert not checks.counts_are_true(make_evidence(acknowledged={"a": 1, "b": 3})).is_met


def test_a_false_claim_of_completeness_is_told() -> None:
    found = checks.completeness_was_true(make_evidence(samples=[sample(5, 4, 4.5)]))
    assert len(found.problems) == 1
    assert found.problems[0].startswith("c of 12:00:03.000 was not in the ledger at 12:00:05.000")


def test_a_claim_before_the_event_became_visible_was_true() -> None:
    events = [*make_evidence().events[:2], Emitted(key="c", occurred_at=at(3), visible_at=at(6))]
    assert checks.completeness_was_true(make_evidence(events=events, samples=[sample(5, 4, 4.5)])).is_met


def test_a_claim_after_a_page_that_lacked_the_event_was_true() -> None:
    lie = Lie(at=at(4.4), kind="a page lacks events", keys=("c",))
    assert checks.completeness_was_true(make_evidence(lies=[lie], samples=[sample(5, 4, 4.5)])).is_met


def test_a_lie_excuses_nothing_once_the_event_was_shown() -> None:
    lie, shown = Lie(at=at(4.2), kind="a page lacks events", keys=("c",)), {"c": at(4.4)}
    evidence = make_evidence(lies=[lie], first_shown_at=shown, samples=[sample(5, 4, 4.5)])
    assert not checks.completeness_was_true(evidence).is_met


def test_claims_that_could_not_be_checked_prove_nothing() -> None:
    unread = [replace(each, ledger_read=False) for each in make_evidence().samples]
    assert not checks.completeness_was_true(make_evidence(samples=unread)).is_met


def test_an_event_shown_behind_a_claim_must_be_counted() -> None:
    events = [*make_evidence().events[:2], Emitted(key="c", occurred_at=at(3), visible_at=at(6))]
    behind = make_evidence(events=events, samples=[sample(5, 4, 4.5), *make_evidence().samples])
    assert not checks.later_finds_are_counted(behind).is_met
    assert checks.later_finds_are_counted(replace(behind, totals=totals(found_behind=1))).is_met


def test_more_found_behind_than_can_have_been_is_told() -> None:
    assert not checks.later_finds_are_counted(make_evidence(totals=totals(found_behind=2))).is_met


@pytest.mark.parametrize(
    "wrong",
    [{"missing_open": 1}, {"lost": 1}, {"unrecoverable": 1}, {"backlog": {"pending": 0, "dead": 1}}],
    ids=str,
)
def test_what_is_left_over_is_told(wrong: dict[str, object]) -> None:
    assert not checks.nothing_is_left_over(make_evidence(totals=totals(**wrong))).is_met


def test_a_trouble_that_remains_is_told() -> None:
    last = sample(21, 19, 20, needs_a_person=("list_suspect",))
    found = checks.nothing_is_left_over(make_evidence(samples=[*make_evidence().samples, last]))
    assert found.problems == ("trouble at the end: list_suspect",)


def test_a_daemon_that_shows_no_figures_passes_nothing() -> None:
    silent = make_evidence(totals=None, samples=[Sample(at=at(9), answered=False)])
    assert set(failed(silent)) >= {"tallies = recount", "complete_up_to was true", "nothing is left over"}


def test_a_fault_that_was_never_recovered_from_is_told() -> None:
    assert not checks.every_fault_was_recovered_from(make_evidence(samples=[sample(5, 3, 4.5)])).is_met
    assert not checks.every_fault_was_recovered_from(make_evidence(faults=[])).is_met


def test_a_fault_alone_must_be_recovered_from_in_the_calm() -> None:
    late = [sample(50, 49, 49.5)]
    fault = make_evidence().faults[0]
    assert checks.every_fault_was_recovered_from(make_evidence(samples=late)).is_met
    alone = checks.every_fault_was_recovered_from(make_evidence(samples=late, faults=[replace(fault, alone=True)]))
    assert alone.problems == ("daemon: kill -9 of 12:00:04.000: after 46 s, not in the calm",)
