"""Which streams of a source are read, and when it is due next."""

from datetime import UTC, datetime, timedelta

from gapless.domain import Purpose, to_us
from gapless.ledger.streams import Stream
from gapless.reconcile.agenda import Occasion, Rhythm, choose, next_due, wishes
from gapless.reconcile.pace import Pace
from gapless.reconcile.purse import allow, first_affordable, new_purse, spend

NOW, MINUTE, DAY = datetime(2026, 11, 20, 12, tzinfo=UTC), timedelta(minutes=1), timedelta(days=1)
SELDOM = Pace(shortest=30 * DAY, longest=30 * DAY, adaptive=False)
OFTEN = Pace(shortest=MINUTE, longest=15 * MINUTE, adaptive=False)
NOTHING = Occasion(everything=False, is_first=False, look=None, heard=())


def stream(number: int, *, watermark: datetime, head: datetime | None) -> Stream:
    return Stream(
        id=number,
        source_id=1,
        name=f"acct_{number}",
        complete_from_us=0,
        watermark_us=to_us(watermark),
        checked_us=None,
        last_complete_pass_us=None,
        last_outcome=None,
        parked_reason=None,
        last_listed=0,
        cursor=None,
        head_us=None if head is None else to_us(head),
    )


def test_a_stream_is_due_when_its_history_begins_to_run_out_however_seldom_it_is_read() -> None:
    seldom = Rhythm(pace=SELDOM, history=40 * DAY)
    one = stream(1, watermark=NOW - 5 * DAY, head=NOW)
    assert next_due([one], seldom, NOW) == NOW + 25 * DAY
    assert next_due([stream(1, watermark=NOW - 10 * DAY, head=NOW)], seldom, NOW + DAY) == NOW + 20 * DAY
    assert next_due([one], Rhythm(pace=OFTEN, history=4 * DAY), NOW) == NOW + MINUTE


def test_a_history_that_has_run_out_makes_nothing_due_at_once_again() -> None:
    failing = stream(1, watermark=NOW - 9 * DAY, head=NOW)
    rhythm = Rhythm(pace=OFTEN, history=4 * DAY)
    assert next_due([failing], rhythm, NOW) == NOW + MINUTE
    assert choose([failing], rhythm, NOTHING, NOW).streams == []


def test_only_the_streams_whose_history_runs_out_are_read_whatever_it_costs() -> None:
    old, young = stream(1, watermark=NOW - 9 * DAY, head=None), stream(2, watermark=NOW, head=None)
    wanted = choose([old, young], Rhythm(pace=OFTEN, history=4 * DAY), NOTHING, NOW)
    assert (wanted.streams, wanted.purpose) == ([old], Purpose.HISTORY)


def test_an_empty_purse_never_waits_longer_than_the_history() -> None:
    rhythm, allowance = Rhythm(pace=OFTEN, history=4 * DAY), allow(100, 30 * DAY)
    wanted = choose([stream(1, watermark=NOW, head=None)], rhythm, NOTHING, NOW)
    purse = spend(new_purse(NOW), 1000)
    assert first_affordable(purse, allowance, wishes(wanted, rhythm, NOW), 1) == (NOW + 3 * DAY, Purpose.HISTORY)
