"""Siblings of a webhook are looked for only where that pays."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gapless.domain import HOURS_OF_WEEK, Purpose, to_us
from gapless.ledger.streams import Stream
from gapless.reconcile.agenda import Occasion, Rhythm, Wanted, choose
from gapless.reconcile.heartbeat import StreamLoad
from gapless.reconcile.pace import Pace
from gapless.reconcile.reading_plan import PAGE, ReadingFacts, plan_reading

NOW, SECOND, MINUTE = datetime(2026, 11, 20, 12, tzinfo=UTC), timedelta(seconds=1), timedelta(minutes=1)
PLAN = plan_reading(
    ReadingFacts(
        allowance=None,
        streams={"": StreamLoad(rate=0.0)},
        rates=[0.0] * HOURS_OF_WEEK,
        groups_a_day=0.0,
        settle=20 * SECOND,
        page=PAGE,
        rate=20,
        sweep_depth=3 * timedelta(days=1),
        sweep_every=None,
        history=None,
        shortest=MINUTE,
    )
)
HEARD = Occasion(everything=False, is_first=False, look=None, heard=[1])


def read_at(head: datetime) -> Stream:
    return Stream(
        id=1, source_id=1, name="", complete_from_us=0, watermark_us=0, checked_us=None, last_complete_pass_us=None,
        last_outcome=None, parked_reason=None, last_listed=0, cursor=None, head_us=to_us(head),
    )  # fmt: skip


@pytest.mark.parametrize("siblings", [True, False])
def test_siblings_are_read_only_where_that_pays(siblings: bool) -> None:
    rhythm = Rhythm(
        pace=Pace(shortest=MINUTE, longest=15 * MINUTE, adaptive=True), plan=replace(PLAN, siblings=siblings)
    )
    just_read, unread = read_at(NOW - 30 * SECOND), read_at(NOW - MINUTE)
    expected = Wanted(streams=[just_read] if siblings else [], purpose=Purpose.SIBLING)
    assert choose([just_read], rhythm, HEARD, NOW) == expected
    assert choose([unread], rhythm, HEARD, NOW) == Wanted(streams=[unread], purpose=Purpose.HEARTBEAT)
