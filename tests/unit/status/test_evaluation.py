"""The figures that are computed rather than read, each by its one function."""

from hypothesis import given
from hypothesis import strategies as st
from reports import DAY, HOUR, NOW

from gapless.domain import from_us
from gapless.ledger.budgets import GrantUse
from gapless.ledger.snapshot import LedgerSnapshot, MissingCounts
from gapless.ledger.streams import Stream
from gapless.status.evaluation import complete_up_to, evaluate, headroom


def stream(watermark_us: int, checked_us: int | None) -> Stream:
    return Stream(
        id=1,
        source_id=1,
        name="",
        complete_from_us=0,
        watermark_us=watermark_us,
        checked_us=checked_us,
        last_complete_pass_us=checked_us,
        last_outcome=None,
        parked_reason=None,
        last_listed=0,
        cursor=None,
    )


@given(watermark_us=st.integers(0, 10**15), missing_us=st.none() | st.integers(0, 10**15))
def test_complete_is_what_lies_before_watermark_and_missing(watermark_us: int, missing_us: int | None) -> None:
    found = complete_up_to(stream(watermark_us, checked_us=1), MissingCounts(oldest_open_us=missing_us))
    assert found == from_us(min(watermark_us, watermark_us if missing_us is None else missing_us))


def test_nothing_is_complete_before_a_list_was_read() -> None:
    assert complete_up_to(stream(10**15, checked_us=None), MissingCounts()) is None


@given(used=st.integers(0, 5000))
def test_a_grant_is_used_by_what_was_asked_for_all_purposes(used: int) -> None:
    use = GrantUse(granted=1000, period=DAY, by_purpose={"heartbeat": used, "sweep": 500})
    assert (use.used, use.ratio) == (used + 500, (used + 500) / 1000)


def test_what_is_used_of_no_grant_is_unknown() -> None:
    assert GrantUse(granted=None, period=DAY, by_purpose={"heartbeat": 5}).ratio is None


def test_headroom_is_the_history_behind_the_watermark() -> None:
    assert headroom(30 * DAY, NOW - HOUR, NOW) == 30 * DAY - HOUR
    assert headroom(HOUR, NOW - DAY, NOW) == HOUR - DAY
    assert headroom(None, NOW - DAY, NOW) is None


def test_a_configured_source_without_figures_is_reported() -> None:
    report = evaluate(LedgerSnapshot(sources=(), destinations=()), NOW, ["acme", "new"])
    assert report.unknown_sources == ("acme", "new")
