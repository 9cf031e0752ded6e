"""Reports of a source and a destination without trouble, for tests to change."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import structs

from gapless.destinations.contract import FailureReason
from gapless.domain import Cause, Mode, Via
from gapless.ledger.budgets import GrantUse
from gapless.ledger.learned import Learned, PlanSummary
from gapless.ledger.snapshot import WINDOWS, UnrecoverableEntry
from gapless.status.report import (
    OWED,
    DestinationReport,
    Gap,
    ListReport,
    Losses,
    Proof,
    SourceReport,
    StatusReport,
    StreamReport,
)
from gapless_reconcilers.kit.contract import Coverage

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PROOF = Proof(
    watermark=NOW - 5 * MINUTE,
    complete_up_to=NOW - 5 * MINUTE,
    checked_at=NOW - MINUTE,
    last_complete_pass=NOW - MINUTE,
)
NO_PROOF = Proof(watermark=None, complete_up_to=None, checked_at=None, last_complete_pass=None)
OWN = StreamReport(name="", complete_from=NOW - 9 * DAY, proof=PROOF, last_outcome="clean", parked_reason=None)
PLAN = PlanSummary(
    words="reads every 30s to 5m, for 40 % of the grant; a lost webhook is found within about 40s",
    shortest_s=30,
    longest_s=300,
    median_s=40,
    p99_s=290,
    wanted_median_s=30,
    used=0.4,
    is_short=False,
    runs_out=False,
    siblings=False,
    sweep_every_s=86_400,
)
LEARNED = Learned(
    settle_s=10,
    grace_s=60,
    webhooks=900,
    lag_p50_s=1.2,
    lag_p999_s=8.0,
    events_a_day=2_000,
    groups_a_day=500,
    granted=10_000,
    period_s=2_592_000,
    plan=PLAN,
)
LISTED = ListReport(
    proof=PROOF,
    history=30 * DAY,
    history_headroom=29 * DAY,
    behind_watermark=0,
    missing_open=0,
    missing_since=None,
    unreadable_rows=0,
    unreadable_since=None,
    lost=0,
    contradicting=0,
    grant=GrantUse(granted=10_000, period=30 * DAY, by_purpose={"heartbeat": 1_000, "sweep": 234}),
    learned=LEARNED,
    learned_at=NOW - MINUTE,
    interval=5 * MINUTE,
    next_pass=NOW + MINUTE,
)
SOURCE = SourceReport(
    name="acme",
    provider="stripe",
    coverage=Coverage.EVENT_LOG,
    mode=Mode.HYBRID,
    state="active",
    state_since=NOW - 9 * DAY,
    reason=None,
    types=("*",),
    types_origin="config",
    subscription_healthy=True,
    subscription_reason=None,
    subscription_good_at=NOW - MINUTE,
    account="acct_1",
    other_account=None,
    livemode=True,
    other_mode=0,
    clock_skew=timedelta(0),
    clock_unverified=False,
    ahead=(),
    silent=False,
    heard_at=NOW - MINUTE,
    streams=(OWN,),
    events=dict.fromkeys(Via, 10),
    duplicates=0,
    losses=Losses(expected=1000, missed=dict.fromkeys(Cause, 0), recovered=0, late=0, unlisted=0),
    gaps={window: Gap(missed=0, expected=1000) for window in WINDOWS},
    unrecoverable=(),
    listed=LISTED,
)
DESTINATION = DestinationReport(
    name="shop",
    state="active",
    backlog=dict.fromkeys(OWED, 0),
    oldest={},
    late_since=None,
    ahead=False,
    dead={reason.value: 0 for reason in FailureReason},
)
LOSS = UnrecoverableEntry(
    id=17, stream="", start_us=0, end_us=60_000_000, reason="history_exceeded", recorded_us=3_600_000_000
)


def report(*parts: SourceReport | DestinationReport, **changes: Any) -> StatusReport:
    """Return a report of these sources and destinations."""
    whole = StatusReport(
        at=NOW,
        sources=tuple(each for each in parts if isinstance(each, SourceReport)),
        destinations=tuple(each for each in parts if isinstance(each, DestinationReport)),
    )
    return replace(whole, **changes)


def listed(source: SourceReport, **changes: Any) -> SourceReport:
    """Return the source with another list report."""
    assert source.listed is not None
    return replace(source, listed=replace(source.listed, **changes))


def planned(source: SourceReport, **changes: Any) -> SourceReport:
    """Return the source with another plan of its reading."""
    assert source.listed is not None
    plan = structs.replace(source.listed.plan or PLAN, **changes)
    return listed(source, learned=structs.replace(LEARNED, plan=plan))


def read_as(source: SourceReport, **changes: Any) -> SourceReport:
    """Return the source with one more stream, whose last pass ended differently."""
    stream = replace(OWN, name=f"acct_{len(source.streams)}", **changes)
    return replace(source, streams=(*source.streams, stream))
