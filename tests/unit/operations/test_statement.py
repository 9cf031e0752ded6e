"""What is wrong with each event, the sums, the digests and the verdict."""

import hashlib
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.domain import to_us
from gapless.ledger.worksheet import AuditedRow, ListedRow, RecordedRow, open_worksheet
from gapless.operations.statement import Compared, Fault, FoundFault, IdDigest, Statement, faults_of
from gapless.operations.statement_report import as_json, csv_row, html_parts, sums_csv, text_lines, verdict
from gapless.operations.statement_run import conclude

T0 = datetime(2026, 11, 1, tzinfo=UTC)
T0_US = to_us(T0)
EVERYTHING = Compared(table=True, start_us=T0_US)


def row(key: str = "evt_1", **changes: object) -> AuditedRow:
    sound = AuditedRow(
        key=key,
        type="invoice.paid",
        occurred_us=T0_US,
        is_listed=True,
        is_recorded=True,
        is_provable=True,
        was_missed=False,
        undelivered="",
        unconfirmed="",
        in_table=True,
        amount="100",
        currency="EUR",
        unit="minor",
    )
    return sound._replace(**changes)  # type: ignore[arg-type]


def made(rows: Sequence[AuditedRow] = (), compared: Compared = EVERYTHING) -> tuple[Statement, list[FoundFault]]:
    statement = Statement(
        source="stripe-live",
        start=T0,
        end=T0 + timedelta(days=30),
        made_at=T0,
        types=("*",),
        types_origin="config",
        compared=compared,
    )
    faults = [fault for each in rows for fault in statement.add(each)]
    statement.conclude()
    return statement, faults


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, []),
        ({"is_recorded": False}, [Fault.MISSING]),
        ({"is_listed": False}, [Fault.UNLISTED]),
        ({"is_listed": False, "is_provable": False}, []),
        ({"undelivered": "ours"}, [Fault.UNDELIVERED]),
        ({"unconfirmed": "ours"}, [Fault.UNCONFIRMED]),
        ({"in_table": False}, [Fault.ABSENT]),
        ({"is_recorded": False, "in_table": False}, [Fault.MISSING, Fault.ABSENT]),
        ({"is_recorded": False, "occurred_us": T0_US - 1}, []),
    ],
)
def test_each_fault_is_named(changes: dict[str, object], wanted: list[Fault]) -> None:
    assert [fault for fault, _ in faults_of(row(**changes), EVERYTHING)] == wanted


def test_what_was_not_compared_is_unknown_and_never_zero() -> None:
    for compared in (Compared(ledger=False), Compared(listed=False)):
        statement, faults = made([row(in_table=False)], compared)
        counts = statement.as_values(faults)["counts"]
        assert counts["missing"] is counts["unlisted"] is counts["absent"] is None
        assert not statement.is_complete
    assert made([], Compared(ledger=False))[0].as_values([])["counts"]["unrecoverable"] is None


def test_only_a_sound_statement_is_complete() -> None:
    assert made([row()])[0].is_complete
    for change in ({"in_table": False}, {"undelivered": "ours"}, {"is_recorded": False, "occurred_us": T0_US - 1}):
        assert not made([row(**change)])[0].is_complete
    lost, _ = made([row()])
    lost.lost_times.append({"start": T0, "end": T0, "reason": "history", "acknowledged_by": "ann", "stream": ""})
    assert not lost.is_complete
    assert verdict(lost) == "NOT COMPLETE: 1 unrecoverable times"


def test_what_no_list_shows_is_unknown() -> None:
    statement, _ = made([row(is_listed=False, is_provable=False)])
    assert statement.unknowns == ["1 recorded events are of kinds that the list does not show"]


def test_an_event_without_an_amount_has_none_and_not_zero() -> None:
    statement, _ = made([row("a"), row("b", amount=None, currency=None, unit=None)])
    without, named = statement.sum_rows()
    assert without["listed"] == {"count": 1, "sum": None}
    assert named["listed"] == {"count": 1, "sum": "100"}
    assert named["missing"] == {"count": 0, "sum": "0"}


amounts = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**25), max_value=10**25)


@given(st.lists(amounts, max_size=50))
def test_sums_are_exact(given_amounts: list[Decimal]) -> None:
    rows = [row(f"evt_{n:03}", amount=format(each, "f")) for n, each in enumerate(given_amounts)]
    statement, _ = made(rows)
    for line in statement.sum_rows():
        assert Fraction(line["listed"]["sum"]) == sum(Fraction(each) for each in given_amounts)
        assert line["listed"]["count"] == len(given_amounts)


keys = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(st.sets(keys), st.sets(keys), st.sets(keys))
def test_the_worksheet_and_the_statement_find_exactly_the_differences(
    listed: set[str], recorded: set[str], own: set[str]
) -> None:
    statement, _ = made()
    with open_worksheet() as sheet:
        assert sheet.add_listed(ListedRow(key, "a", T0_US, "1", "EUR", "minor") for key in listed) == len(listed)
        assert sheet.add_listed(ListedRow(key, "a", T0_US, "1", "EUR", "minor") for key in listed) == 0
        sheet.add_recorded(RecordedRow(key, "a", T0_US, True, False, "", "") for key in recorded)  # noqa: FBT003
        assert {key for batch in sheet.unrecorded() for key in batch} == listed - recorded
        sheet.add_own(own)
        faults = list(conclude(statement, sheet))
    found = {fault: {each.key for each in faults if each.fault is fault} for fault in Fault}
    assert found[Fault.MISSING] == listed - recorded
    assert found[Fault.UNLISTED] == recorded - listed
    assert found[Fault.ABSENT] == (listed | recorded) - own
    assert statement.strangers == len(own - listed - recorded)
    assert statement.counts["listed"] == len(listed)
    by_hand = b"".join(key.encode() + b"\0" for key in sorted(listed, key=str.encode))
    assert statement.listed_ids.hex == hashlib.sha256(by_hand).hexdigest()


def test_the_digest_is_that_of_the_documented_command(tmp_path: Path) -> None:
    ids, digest = ["evt_b", "evt_a", "evt_C", "evt_é"], IdDigest()
    for key in sorted(ids, key=str.encode):
        digest.add(key)
    (tmp_path / "ids.txt").write_text("".join(f"{key}\n" for key in [*ids, "evt_a"]))
    command = r"tr '\n' '\0' < ids.txt | LC_ALL=C sort -zu | sha256sum"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == digest.hex
    with pytest.raises(ValueError, match="out of order"):
        digest.add("evt_a")


def test_the_page_runs_nothing_and_names_no_other_host() -> None:
    evil = '<script src="https://evil.example/x"></script>'
    statement, faults = made([row(evil, is_recorded=False, type='"><img src=x onerror=alert(1)>', currency="<b>")])
    page = "".join(html_parts(statement, faults))
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page
    assert "&lt;script" in page
    assert "default-src 'none'" in page
    for outside in ('src="', "url(", "@import", "href="):
        assert outside not in page


def test_a_spreadsheet_computes_nothing() -> None:
    assert csv_row(("=1+1", "@x", "-5", "-5.25", "-1+cmd", "+1", None)) == "'=1+1,'@x,-5,-5.25,'-1+cmd,'+1,\r\n"


def test_every_report_says_what_is_unknown() -> None:
    statement, faults = made([row(is_recorded=False)], Compared(ledger=False))
    assert "missing            unknown" in list(text_lines(statement, faults))
    assert "<td>missing</td><td>unknown</td>" in "".join(html_parts(statement, faults))
    assert '"missing": null' in as_json(statement, faults)
    assert list(sums_csv(statement))[1].startswith("invoice.paid,EUR,minor,1,100,,,")
