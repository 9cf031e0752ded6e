"""Everything that can be wrong: each alone, all pairs, and nothing that is shadowed by something else."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import combinations

import pytest
from reports import DAY, DESTINATION, HOUR, LOSS, MINUTE, NO_PROOF, NOW, SOURCE, listed, planned, read_as, report

from gapless.domain import Mode, from_us, to_us
from gapless.ledger.absences import AbsenceCounts
from gapless.ledger.budgets import GrantUse
from gapless.ledger.configurations import OlderProcess
from gapless.ledger.deliveries import DeliveryState
from gapless.ledger.destinations import Pause
from gapless.ledger.leases import ClockOffset
from gapless.ledger.ordering import Blocked
from gapless.ledger.passes import FailingPass
from gapless.ledger.snapshot import UnrecoverableEntry
from gapless.status.report import DestinationReport, Gap, SourceReport, StatusReport, StoreFault, StoreReport
from gapless.status.troubles import (
    Severity,
    Trouble,
    TroubleKind,
    is_blind,
    notes,
    summary,
    troubles,
    verdict,
)
from gapless_reconcilers.kit.contract import Coverage

FAILING = FailingPass(
    id=17, stream="", start_us=to_us(NOW - DAY), end_us=to_us(NOW - HOUR), started_us=to_us(NOW - MINUTE),
    error="OptionsInvalid: 404", is_given_up=False,
)  # fmt: skip
PAUSE = Pause(since_us=to_us(NOW - DAY), by="ann", reason="upgrade")
BLOCKED = Blocked(
    destination="shop", count=3, source="acme", object_key="cus_1", key="evt_1", since_us=to_us(NOW - DAY)
)
TROUBLE, UNKNOWN, IN_HAND = Severity.TROUBLE, Severity.UNKNOWN, Severity.IN_HAND


def owing(destination: DestinationReport, state: DeliveryState, count: int = 3) -> DestinationReport:
    return replace(
        destination,
        backlog={**destination.backlog, state: count},
        oldest={**destination.oldest, state: NOW - DAY},
    )


def gap(source: SourceReport, window: str, missed: int, expected: int) -> SourceReport:
    return replace(source, gaps={**source.gaps, window: Gap(missed=missed, expected=expected)})


def proven(source: SourceReport, **changes: object) -> SourceReport:
    assert source.listed is not None
    return listed(source, proof=replace(source.listed.proof, **changes))


ABSENT = AbsenceCounts(open=4, first_us=0, found_us=3_600_000_000, tries=1, keys=("evt_1", "evt_2", "evt_3"))


def missing_open(source: SourceReport) -> int:
    return 0 if source.listed is None else source.listed.missing_open


def with_fault(whole: StatusReport, fault: StoreFault) -> StatusReport:
    return replace(whole, store=(*whole.store, StoreReport(fault=fault, detail="it said so", since=NOW - MINUTE)))


def lose(source: SourceReport, loss: UnrecoverableEntry) -> SourceReport:
    return replace(source, unrecoverable=(*source.unrecoverable, loss))


Changed = SourceReport | DestinationReport | StatusReport
K = TroubleKind
CASES: dict[str, tuple[TroubleKind, Severity, Callable[..., Changed]]] = {
    "no source": (K.NO_SOURCE, UNKNOWN, lambda whole: replace(whole, sources=())),
    "source not in the ledger": (K.SOURCE_UNKNOWN, UNKNOWN, lambda whole: replace(whole, unknown_sources=("new",))),
    "an older configuration": (
        K.CONFIGURATION_OLDER,
        TROUBLE,
        lambda whole: replace(
            whole, older_processes=(OlderProcess(holder="host:1", generation=1, withheld=("retire source b",)),)
        ),
    ),
    "a receiver's clock": (
        K.CLOCK_WRONG,
        TROUBLE,
        lambda whole: replace(whole, clock_offsets=(ClockOffset(holder="host:1", offset=-10 * MINUTE),)),
    ),
    "another account": (
        K.OTHER_ACCOUNT,
        TROUBLE,
        lambda source: replace(source, state="parked", reason="other_account", other_account="acct_2"),
    ),
    "store read-only": (K.STORE_READ_ONLY, TROUBLE, partial(with_fault, fault=StoreFault.READ_ONLY)),
    "store locked": (K.STORE_LOCKED, TROUBLE, partial(with_fault, fault=StoreFault.LOCKED)),
    "store replaced": (K.STORE_REPLACED, TROUBLE, partial(with_fault, fault=StoreFault.REPLACED)),
    "store unavailable": (K.STORE_UNAVAILABLE, TROUBLE, partial(with_fault, fault=StoreFault.UNAVAILABLE)),
    "store log grows": (K.STORE_LOG_GROWS, TROUBLE, partial(with_fault, fault=StoreFault.LOG_GROWS)),
    "store cannot seal": (K.STORE_CANNOT_SEAL, TROUBLE, partial(with_fault, fault=StoreFault.CANNOT_SEAL)),
    "store key missing": (K.STORE_KEY_MISSING, TROUBLE, partial(with_fault, fault=StoreFault.KEY_MISSING)),
    "source parked": (K.SOURCE_PARKED, TROUBLE, lambda source: replace(source, state="parked", reason="by hand")),
    "source retired": (K.SOURCE_RETIRED, TROUBLE, lambda source: replace(source, state="retired")),
    "stream parked": (K.STREAM_PARKED, TROUBLE, lambda source: read_as(source, parked_reason="401: revoked")),
    "clock ahead": (K.CLOCK_WRONG, TROUBLE, lambda source: replace(source, clock_skew=HOUR)),
    "clock behind": (K.CLOCK_WRONG, TROUBLE, lambda source: replace(source, clock_skew=-HOUR)),
    "times ahead": (K.TIMES_AHEAD, TROUBLE, lambda source: replace(source, ahead=("next pass",))),
    "deliveries ahead": (K.TIMES_AHEAD, TROUBLE, lambda shop: replace(owing(shop, DeliveryState.PENDING), ahead=True)),
    "suspect listing": (K.LIST_SUSPECT, TROUBLE, lambda source: read_as(source, last_outcome="suspect_listing")),
    "events that the list lacks": (K.LIST_CONTRADICTED, IN_HAND, lambda source: read_as(source, absences=ABSENT)),
    "events that the list still lacks": (
        K.LIST_CONTRADICTED,
        TROUBLE,
        lambda source: read_as(source, absences=replace(ABSENT, tries=2)),
    ),
    "unexpected shape": (K.LIST_UNREADABLE, TROUBLE, lambda source: read_as(source, last_outcome="unexpected_shape")),
    "provider down": (K.READ_FAILED, IN_HAND, lambda source: read_as(source, last_outcome="provider_unavailable")),
    "provider throttles": (K.READ_FAILED, IN_HAND, lambda source: read_as(source, last_outcome="rate_limited")),
    "a pass on demand fails": (K.DEMAND_FAILED, IN_HAND, lambda source: replace(source, failing=(FAILING,))),
    "a pass on demand was given up": (
        K.DEMAND_FAILED,
        TROUBLE,
        lambda source: replace(source, failing=(replace(FAILING, is_given_up=True),)),
    ),
    "provider wants a pause": (
        K.PROVIDER_WAITS,
        IN_HAND,
        lambda source: listed(source, waiting_until=NOW + HOUR),
    ),
    "never compared": (K.NEVER_COMPARED, UNKNOWN, lambda source: listed(source, proof=NO_PROOF)),
    "a stream never read whole": (K.NEVER_COMPARED, UNKNOWN, lambda source: proven(source, last_complete_pass=None)),
    "proof stalled": (
        K.PROOF_STALLED,
        TROUBLE,
        lambda source: proven(source, last_complete_pass=NOW - HOUR - 16 * MINUTE),
    ),
    "history runs out": (K.HISTORY_RUNS_OUT, TROUBLE, lambda source: listed(source, history_headroom=7 * DAY)),
    "grant short": (K.GRANT_SHORT, IN_HAND, lambda source: planned(source, is_short=True)),
    "history runs out between readings": (K.HISTORY_TIGHT, TROUBLE, lambda source: planned(source, runs_out=True)),
    "grant nearly used": (
        K.GRANT_NEARLY_USED,
        TROUBLE,
        lambda source: listed(source, grant=GrantUse(granted=1_000, period=DAY, by_purpose={"history": 900})),
    ),
    "a reading was put off": (
        K.READING_PUT_OFF,
        IN_HAND,
        lambda source: listed(source, unpaid_until=NOW + HOUR),
    ),
    "unrecoverable": (K.UNRECOVERABLE, TROUBLE, lambda source: lose(source, LOSS)),
    "events lost": (
        K.EVENTS_LOST,
        TROUBLE,
        lambda source: lose(source, replace(LOSS, reason="event_lost")),
    ),
    "quarantine expired": (
        K.QUARANTINE_EXPIRED,
        TROUBLE,
        lambda source: replace(source, quarantine_expired=3, quarantine_expired_at=NOW - DAY),
    ),
    "events missing": (
        K.EVENTS_MISSING,
        IN_HAND,
        lambda source: listed(source, missing_open=4, missing_since=NOW - 29 * MINUTE),
    ),
    "rows unreadable": (
        K.ROWS_UNREADABLE,
        TROUBLE,
        lambda source: listed(source, unreadable_rows=2, missing_open=missing_open(source) + 2, unreadable_since=NOW),
    ),
    "events missing for long": (
        K.EVENTS_MISSING,
        TROUBLE,
        lambda source: listed(source, missing_open=4, missing_since=NOW - 31 * MINUTE),
    ),
    "webhooks lost in the last hour": (K.WEBHOOKS_LOST, IN_HAND, lambda source: gap(source, "1h", 1, 100_000)),
    "one in nine webhooks lost": (K.WEBHOOKS_LOST, IN_HAND, lambda source: gap(source, "7d", 110, 1000)),
    "endpoint off": (
        K.ENDPOINT_OFF,
        TROUBLE,
        lambda source: replace(source, subscription_healthy=False, subscription_reason="it is disabled"),
    ),
    "silent": (K.SILENT, TROUBLE, lambda source: replace(source, silent=True)),
    "dead letters": (K.DEAD_LETTERS, TROUBLE, lambda shop: owing(shop, DeliveryState.DEAD)),
    "held": (K.DELIVERIES_HELD, TROUBLE, lambda shop: owing(shop, DeliveryState.HELD)),
    "parked": (K.DELIVERIES_PARKED, IN_HAND, lambda shop: owing(shop, DeliveryState.PARKED)),
    "owed by a retired destination": (
        K.DELIVERIES_PARKED,
        IN_HAND,
        lambda shop: replace(owing(shop, DeliveryState.DEAD), state="retired"),
    ),
    "late": (
        K.DELIVERIES_LATE,
        IN_HAND,
        lambda shop: replace(owing(shop, DeliveryState.PENDING), late_since=NOW - 2 * MINUTE),
    ),
    "late for long": (
        K.DELIVERIES_LATE,
        TROUBLE,
        lambda shop: replace(owing(shop, DeliveryState.PENDING), late_since=NOW - HOUR - MINUTE),
    ),
    "paused": (
        K.DESTINATION_PAUSED,
        IN_HAND,
        lambda shop: replace(owing(shop, DeliveryState.PENDING), pause=PAUSE, late_since=NOW - HOUR),
    ),
    "paused for long": (
        K.DESTINATION_PAUSED,
        TROUBLE,
        lambda shop: replace(owing(shop, DeliveryState.PENDING), pause=PAUSE, late_since=NOW - HOUR - MINUTE),
    ),
    "a blocked object": (
        K.OBJECTS_BLOCKED,
        TROUBLE,
        lambda shop: replace(shop, blocked=BLOCKED),
    ),
    "receipts late": (
        K.RECEIPTS_LATE,
        IN_HAND,
        lambda shop: replace(shop, unconfirmed=3, unconfirmed_again=2, unconfirmed_since=NOW - 2 * MINUTE),
    ),
    "receipts late for long": (
        K.RECEIPTS_LATE,
        TROUBLE,
        lambda shop: replace(shop, unconfirmed=3, unconfirmed_again=2, unconfirmed_since=NOW - HOUR - MINUTE),
    ),
}
OF_STORE = {name for name in CASES if name.startswith("store ")}
OF_WHOLE = {"no source", "source not in the ledger", "an older configuration", "a receiver's clock", *OF_STORE}
OF_DESTINATION = {
    "deliveries ahead",
    "dead letters",
    "held",
    "parked",
    "owed by a retired destination",
    "late",
    "late for long",
    "paused",
    "paused for long",
    "receipts late",
    "a blocked object",
    "receipts late for long",
}


OF_SOURCE = set(CASES) - OF_WHOLE - OF_DESTINATION
INSTEAD = [
    {"source parked", "another account", "source retired"},
    {"clock ahead", "clock behind"},
    {"never compared", "a stream never read whole", "proof stalled"},
    {"events missing", "events missing for long"},
    {"a pass on demand fails", "a pass on demand was given up"},
    {"webhooks lost in the last hour", "one in nine webhooks lost"},
    {"late", "late for long", "paused", "paused for long"},
    {"receipts late", "receipts late for long"},
    *({"owed by a retired destination", other} for other in OF_DESTINATION),
]
"""Groups that exclude each other: one source or destination can have only one case of each."""
PAIRS = [
    pair
    for pair in combinations(CASES, 2)
    if "no source" not in pair or OF_DESTINATION.intersection(pair)  # else there is a source
]


def changed(*names: str) -> StatusReport:
    """Return a report with all of `names`, of the same source and the same destination where that is possible."""
    sources, shops, used = [SOURCE], [DESTINATION], set[str]()
    for name in names:
        change, apart = CASES[name][2], any(name in group and group & used for group in INSTEAD)
        parts: list[Changed] = shops if name in OF_DESTINATION else sources
        if name in OF_WHOLE:
            continue
        if apart:
            parts.append(change(replace(DESTINATION if parts is shops else SOURCE, name="other")))
        else:
            parts[0] = change(parts[0])
        used.add(name)
    whole = report(*sources, *shops)
    for name in OF_WHOLE.intersection(names):
        whole = CASES[name][2](whole)
    return whole


def test_nothing_is_wrong_with_what_is_well() -> None:
    assert troubles(report(SOURCE, DESTINATION)) == []
    assert verdict([]) is Severity.GOOD
    assert summary([]) == "Nothing is wrong"


def test_every_kind_of_trouble_has_a_case() -> None:
    assert {kind for kind, _, _ in CASES.values()} == set(TroubleKind)


@pytest.mark.parametrize("name", CASES)
def test_each_trouble_alone_is_reported(name: str) -> None:
    kind, severity, _ = CASES[name]
    (found,) = troubles(changed(name))
    assert (found.kind, found.severity) == (kind, severity)
    assert verdict([found]) is severity
    assert verdict([found]).is_well == (severity is IN_HAND)
    assert found.text.endswith((".", "…"))
    assert found.next.endswith(".")
    assert found.where == {"source not in the ledger": "new", "no source": "gapless"}.get(name, found.where)


@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_no_trouble_hides_another(pair: tuple[str, str]) -> None:
    wanted = sorted(CASES[name][:2] for name in pair)
    found = troubles(changed(*pair))
    assert sorted((each.kind, each.severity) for each in found) == wanted
    assert verdict(found) == min((severity for _, severity in wanted), key=lambda each: each.rank)
    assert [each.severity.rank for each in found] == sorted(each.severity.rank for each in found)


def test_all_troubles_together_are_reported() -> None:
    names = [name for name in CASES if name not in ("no source", "a stream never read whole")]
    found = troubles(changed(*names))
    assert sorted((each.kind, each.severity) for each in found) == sorted(CASES[name][:2] for name in names)
    assert verdict(found) is TROUBLE


@pytest.mark.parametrize(("one", "other"), list(combinations(Severity, 2)))
def test_the_verdict_is_the_worst(one: Severity, other: Severity) -> None:
    found = [Trouble(kind=K.SILENT, severity=each, text="", next="") for each in (other, one)]
    assert verdict(found) is one
    assert [each.is_well for each in Severity] == [False, False, True, True]


def test_the_worst_comes_first_then_the_oldest() -> None:
    old = replace(SOURCE, unrecoverable=(LOSS,))
    parked = replace(read_as(SOURCE, parked_reason="401"), name="b")
    new = replace(listed(SOURCE, missing_open=1, missing_since=NOW), name="c")
    found = troubles(report(new, parked, old))
    assert [each.kind for each in found] == [K.UNRECOVERABLE, K.STREAM_PARKED, K.EVENTS_MISSING]
    assert found[0].since == from_us(LOSS.recorded_us)
    assert summary(found) == "2 are wrong, 1 is in hand"


def test_passes_that_fail_alike_are_one_trouble() -> None:
    others = [replace(FAILING, id=number, started_us=0) for number in (18, 19)]
    (found,) = troubles(report(replace(SOURCE, failing=(FAILING, *others))))
    assert "OptionsInvalid: 404. The same holds for 2 other passes." in found.text
    assert found.since == from_us(0)


# --- what is no trouble


def test_a_source_without_a_list_is_blind_and_no_trouble() -> None:
    """By declaration, not by failure: `gapless status` must be able to exit 0 for a push-only source."""
    blind = replace(SOURCE, coverage=Coverage.NONE, mode=Mode.WEBHOOK, listed=None, losses=None, streams=())
    assert (troubles(report(blind)), is_blind(blind)) == ([], True)
    assert notes(blind) == ["There is no list to compare with: lost webhooks cannot be seen."]


def test_a_blind_source_can_still_be_in_trouble() -> None:
    blind = replace(SOURCE, mode=Mode.WEBHOOK, listed=None, losses=None, silent=True, subscription_healthy=False)
    assert {each.kind for each in troubles(report(blind))} == {K.SILENT, K.ENDPOINT_OFF}


def test_what_was_acknowledged_is_no_trouble() -> None:
    done = replace(LOSS, acknowledged_us=1, acknowledged_by="api", acknowledged_reason="compared")
    found = troubles(report(replace(SOURCE, unrecoverable=(done, LOSS))))
    assert [each.kind for each in found] == [K.UNRECOVERABLE]
    assert troubles(report(replace(SOURCE, unrecoverable=(done,)))) == []


def test_a_small_gap_that_closed_yesterday_is_no_trouble() -> None:
    assert troubles(report(gap(gap(SOURCE, "24h", 1, 5000), "7d", 9, 20_000))) == []


def test_what_is_unknown_of_a_gap_is_no_trouble_by_itself() -> None:
    assert troubles(report(replace(SOURCE, gaps=dict.fromkeys(SOURCE.gaps)))) == []


def test_assumed_types_are_a_note() -> None:
    assumed = replace(SOURCE, types_origin="assumed")
    assert troubles(report(assumed)) == []
    assert "set types" in notes(assumed)[0]
    assert notes(SOURCE) == []


@pytest.mark.parametrize(
    "fine",
    [
        listed(SOURCE, interval=8 * HOUR, proof=replace(SOURCE.listed.proof, last_complete_pass=NOW - DAY)),  # type: ignore[union-attr]
        listed(SOURCE, history=None, history_headroom=None),
        listed(SOURCE, grant=None, learned=None),
        listed(SOURCE, grant=GrantUse(granted=None, period=DAY, by_purpose={"heartbeat": 9_000})),
        listed(SOURCE, grant=GrantUse(granted=1_000, period=DAY, by_purpose={"heartbeat": 890})),
        replace(SOURCE, silent=None, heard_at=None, subscription_healthy=None),
        replace(owing(DESTINATION, DeliveryState.PENDING), late_since=NOW - timedelta(seconds=50)),
        replace(DESTINATION, state="retired"),
    ],
)
def test_what_is_as_it_should_be_is_no_trouble(fine: SourceReport | DestinationReport) -> None:
    assert troubles(report(SOURCE, fine)) == []


# --- how it is reported


def test_streams_that_fail_alike_are_one_trouble() -> None:
    """A thousand connected accounts of a provider that is down are one outage."""
    source = SOURCE
    for _ in range(1000):
        source = read_as(source, last_outcome="provider_unavailable")
    (found,) = troubles(report(source))
    assert (found.stream, "999 other streams" in found.text) == ("acct_1", True)
    assert found.where == "acme acct_1"


def test_each_reason_of_parked_streams_is_reported() -> None:
    source = read_as(read_as(SOURCE, parked_reason="401: revoked"), parked_reason="404: gone")
    assert [each.text for each in troubles(report(source))] == ["Not read: 401: revoked.", "Not read: 404: gone."]


@pytest.mark.parametrize("name", sorted(OF_DESTINATION - {"owed by a retired destination"}))
def test_a_destination_shows_since_when(name: str) -> None:
    (found,) = troubles(changed(name))
    assert found.since in (NOW - DAY, NOW - 2 * MINUTE, NOW - HOUR - MINUTE)
    assert found.where == "shop"
