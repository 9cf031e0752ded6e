"""Made-up evidence of a storm in which all is well, for tests of the checks."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from storm.evidence import Emitted, Evidence, Row, Sample, Totals
from storm.faults import Fault, Kind

T0 = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def sample(seconds: float, up_to: float, checked: float, **changes: object) -> Sample:
    """A sample of a healthy source whose watermark is `up_to`."""
    healthy = Sample(
        at=at(seconds),
        answered=True,
        ledger_read=True,
        complete_up_to=at(up_to),
        checked_at=at(checked),
        watermark=at(up_to),
        last_outcome="clean",
    )
    return replace(healthy, **changes)  # type: ignore[arg-type]


def make_evidence(**changes: object) -> Evidence:
    """Three events: `a` by webhook, `b` by webhook twice, `c` missed and found 4 s after it occurred. All is well."""
    values: dict[str, object] = {
        "store": "sqlite",
        "began": T0,
        "ended": at(60),
        "events": [Emitted(key=key, occurred_at=at(n), visible_at=at(n)) for n, key in enumerate("abc", start=1)],
        "ledger": [
            Row(key="a", via="webhook", expected=True, missed=False, webhooks=1),
            Row(key="b", via="webhook", expected=True, missed=False, webhooks=2),
            Row(key="c", via="list", expected=True, missed=True, webhooks=0),
        ],
        "recorded_at": {"a": at(2), "b": at(3), "c": at(7)},
        "acknowledged": {"a": 1, "b": 1},
        "first_acknowledged_at": {"a": at(1.2), "b": at(2.2)},
        "posts": {"a": 1, "b": 3},
        "never_posted": frozenset("c"),
        "first_shown_at": {"a": at(5), "b": at(5), "c": at(6.5)},
        "lies": [],
        "attempts": {"a": ["ida"], "b": ["idb", "idb"], "c": ["idc"]},
        "accepted_at": {"a": at(1.5), "b": at(2.5), "c": at(7.5)},
        "totals": Totals(
            by_webhook=2, by_list=1, expected=3, missed=1, recovered=1, late=0, duplicates=1, found_behind=0,
            missing_open=0, unrecoverable=0, lost=0, backlog={"pending": 0, "dead": 0},
        ),
        "samples": [sample(5, 3, 4.5), sample(6, 3, 5), sample(7, 5, 6.5), sample(8, 6, 7.5), sample(20, 18, 19.5)],
        "calm": timedelta(seconds=30),
        "faults": [Fault(kind=Kind.KILL, began=at(2), ended=at(4))],
        **changes,
    }  # fmt: skip
    return Evidence(**values)  # type: ignore[arg-type]


def totals(**changes: object) -> Totals:
    found = make_evidence().totals
    assert found is not None
    return replace(found, **changes)  # type: ignore[arg-type]
