"""An unknown number is absent, never 0; tested on the tables of each kind of database."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from reports import LEARNED, PLAN
from sqlalchemy import update

from gapless.domain import Cause, Mode, Via, span_us, to_us
from gapless.ledger import learned, missing
from gapless.ledger.budgets import GrantUse
from gapless.ledger.missing import Missing
from gapless.ledger.streams import ensure_stream
from gapless.ledger.tables import BUDGET, BUDGET_USE, DELIVERY, SOURCE, UNRECOVERABLE
from gapless.status.reader import read_report
from gapless.status.reading import reading_in_words
from gapless.status.report import SourceReport

pytestmark = pytest.mark.anyio
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


async def read_status(console: Any, name: str = "acme") -> SourceReport:
    whole = await read_report(console.context.runtime.store, console.context.sources, console.now[0])
    return next(source for source in whole.sources if source.name == name)


async def never_listed(console: Any) -> None:
    await console.listed(checked_us=None, last_complete_pass_us=None, last_outcome=None)


async def no_complete_pass(console: Any) -> None:
    await console.listed(last_complete_pass_us=None, last_outcome="provider_unavailable")


async def key_revoked(console: Any) -> None:
    await console.listed(last_outcome="credentials_rejected", parked_reason="401: the key is revoked")


async def suspect_listing(console: Any) -> None:
    await console.listed(last_outcome="suspect_listing")


async def parked_source(console: Any) -> None:
    await console.listed()
    parked = update(SOURCE).where(SOURCE.c.name == "acme").values(state="parked", reason="by hand")
    await console.context.runtime.write(lambda c: c.execute(parked).rowcount)


async def one_stream_unread(console: Any) -> None:
    await console.listed()
    await console.context.runtime.write(lambda c: ensure_stream(c, console.source().id, "acct_new"))


async def part_unrecoverable(console: Any) -> None:
    await console.listed()
    end_us = to_us(console.now[0] - 20 * MINUTE)
    stream_id = await console.stream_id()
    await console.rows(
        UNRECOVERABLE,
        stream_id=stream_id,
        start_us=end_us - 60_000_000,
        end_us=end_us,
        reason="history_exceeded",
        recorded_us=end_us,
    )


@pytest.mark.parametrize(
    "circumstance",
    [
        never_listed,
        no_complete_pass,
        key_revoked,
        suspect_listing,
        parked_source,
        one_stream_unread,
        part_unrecoverable,
    ],
)
async def test_the_gap_rate_is_unknown_while(console: Any, circumstance: Callable[[Any], Awaitable[None]]) -> None:
    await console.record(Via.WEBHOOK, "evt_1")
    await circumstance(console)
    assert (await read_status(console)).gaps == {"1h": None, "24h": None, "7d": None}


async def test_a_window_older_than_the_watermark_is_unknown(console: Any) -> None:
    await console.record(Via.WEBHOOK, "evt_1")
    await console.listed()
    known = {}
    for age in (timedelta(minutes=30), timedelta(hours=2), 2 * DAY, 8 * DAY):
        await console.listed(ago=age)
        known[age] = [window for window, gap in (await read_status(console)).gaps.items() if gap is not None]
    assert list(known.values()) == [["1h", "24h", "7d"], ["24h", "7d"], ["7d"], []]


async def test_a_clean_window_has_rate_0_and_an_empty_one_none(console: Any) -> None:
    await console.listed()
    gap = (await read_status(console)).gaps["1h"]
    assert gap is not None
    assert (gap.expected, gap.missed, gap.rate) == (0, 0, None)
    await console.record(Via.WEBHOOK, "evt_1")
    gap = (await read_status(console)).gaps["1h"]
    assert gap is not None
    assert (gap.expected, gap.missed, gap.rate) == (1, 0, 0.0)


async def test_a_source_in_mode_webhook_claims_nothing_about_losses(console: Any) -> None:
    await console.add_source("push", Mode.WEBHOOK)
    await console.listed("push")
    push = await read_status(console, "push")
    assert push.losses is None
    assert push.listed is None
    assert set(push.gaps.values()) == {None}
    assert push.streams[0].proof.watermark is None


async def test_a_source_in_mode_poll_has_a_watermark_but_no_losses(console: Any) -> None:
    await console.add_source("pull", Mode.POLL)
    await console.listed("pull")
    pull = await read_status(console, "pull")
    assert pull.losses is None
    assert pull.listed is not None
    assert pull.listed.proof.watermark == console.now[0] - 5 * MINUTE
    assert set(pull.gaps.values()) == {None}


async def test_a_new_hybrid_source_has_missed_nothing(console: Any) -> None:
    losses = (await read_status(console)).losses
    assert losses is not None
    assert losses.missed == dict.fromkeys(Cause, 0)
    assert (losses.expected, losses.recovered, losses.late) == (0, 0, 0)


async def test_a_missing_event_holds_completeness_back(console: Any) -> None:
    await console.record(Via.WEBHOOK, "evt_1", "evt_2")
    await console.record(Via.LIST, "evt_3", "evt_4")
    occurred_us, stream_id = to_us(console.now[0] - 30 * MINUTE), await console.stream_id()
    row = Missing(
        source_id=console.source().id, stream_id=stream_id, key="evt_5", type="invoice.paid", occurred_us=occurred_us,
        found_us=to_us(console.now[0]), expected=True, cause=Cause.RECEIVER_DOWN, reason="detail",
    )  # fmt: skip
    await console.context.runtime.write(lambda c: missing.add(c, 0, [row]))
    await console.listed()
    source = await read_status(console)
    assert source.losses is not None
    assert source.listed is not None
    assert source.losses.missed[Cause.UNEXPLAINED] == 2
    assert source.losses.missed[Cause.RECEIVER_DOWN] == 1
    assert (source.losses.expected, source.losses.recovered) == (5, 2)
    assert source.listed.missing_open == 1
    assert source.listed.proof.watermark == console.now[0] - 5 * MINUTE
    assert source.listed.proof.complete_up_to == console.now[0] - 30 * MINUTE
    gap = source.gaps["24h"]
    assert gap is not None
    assert gap.rate == 3 / 5


async def test_what_is_used_of_the_grant_is_unknown_until_asked(console: Any) -> None:
    async def use() -> GrantUse | None:
        listed = (await read_status(console)).listed
        assert listed is not None
        return listed.grant

    assert await use() is None
    scope, now_us, day_us = console.source().provider.budget_scope(), to_us(console.now[0]), span_us(DAY)
    await console.rows(BUDGET, scope=scope, period_start_us=now_us, granted=1_000, period_us=day_us)
    await console.rows(BUDGET_USE, scope=scope, start_us=now_us, purpose="heartbeat", requests=400)
    assert await use() == GrantUse(granted=1_000, period=DAY, by_purpose={"heartbeat": 400})
    console.now[0] += 2 * DAY
    assert await use() == GrantUse(granted=1_000, period=DAY, by_purpose={})


async def test_the_plan_is_unknown_until_the_daemon_has_made_one(console: Any) -> None:
    listed = (await read_status(console)).listed
    assert (listed.learned, listed.plan, reading_in_words(listed)) == (None, None, [])
    now_us, source_id = to_us(console.now[0]), console.source().id
    await console.context.runtime.write(learned.note, source_id=source_id, at_us=now_us, learned=LEARNED)
    listed = (await read_status(console)).listed
    assert (listed.learned, listed.learned_at) == (LEARNED, console.now[0])
    plan, ages = reading_in_words(listed)
    assert plan == f"It {PLAN.words}."
    assert ages.startswith("About 2,000 events a day; a listed one is recorded from an age of 10s on, and is missed")


async def test_headroom_shrinks_with_time_even_if_never_read(console: Any) -> None:
    async def headroom() -> timedelta | None:
        listed = (await read_status(console)).listed
        assert listed is not None
        return listed.history_headroom

    history = console.source().provider.capabilities.history
    assert await headroom() == history - 30 * DAY
    await console.listed(ago=2 * DAY)
    assert await headroom() == history - 2 * DAY


async def test_types_and_subscription_are_shown_with_their_origin(console: Any) -> None:
    source = await read_status(console)
    assert (source.types, source.types_origin, source.subscription_healthy) == (("*",), "assumed", None)
    values = {"types": '["invoice.*"]', "types_origin": "subscription", "subscription_healthy": False}
    await console.context.runtime.write(lambda c: c.execute(update(SOURCE).values(**values)).rowcount)
    source = await read_status(console)
    assert (source.types, source.types_origin) == (("invoice.*",), "subscription")
    assert source.subscription_healthy is False


async def test_a_delivery_is_late_once_it_could_have_been_made(console: Any) -> None:
    """A delayed one, or one that is claimed for its first attempt, is due later; one that failed was due before."""
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, "evt_1")
    now, made = console.now[0], console.now[0] - 3 * MINUTE
    since = {}
    for attempts, due in ((0, now + DAY), (0, now - MINUTE), (2, now + DAY)):
        waiting = update(DELIVERY).values(attempts=attempts, next_us=to_us(due), created_us=to_us(made))
        await console.context.runtime.write(lambda c, waiting=waiting: c.execute(waiting).rowcount)
        whole = await read_report(console.context.runtime.store, console.context.sources, now)
        since[attempts, due] = whole.destinations[0].late_since
    assert list(since.values()) == [None, now - MINUTE, made]
