"""The purse of a scope, the use of the rolling period, and the events that earn requests, on each kind of ledger."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select

from gapless.clock import TOLERANCE_US
from gapless.domain import Purpose, span_us, to_us
from gapless.ledger import budgets, earnings, migrate, times
from gapless.ledger.budgets import BLOCK, HALVED_FOR, PARTS, GrantUse, PurseState, PurseTerms
from gapless.ledger.engine import Store, open_store
from gapless.ledger.tables import BUDGET, BUDGET_USE, EVENT, SOURCE, STREAM
from gapless.reconcile.grants import UNPUBLISHED, purse_terms
from gapless_reconcilers.kit.contract import Grant
from gapless_reconcilers.providers.stripe import Stripe

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
NOW_US = to_us(NOW)
SECOND_US = 1_000_000
HOUR_US, DAY_US = 3_600 * SECOND_US, 86_400 * SECOND_US
DAY = timedelta(days=1)
TERMS = PurseTerms(granted=2_400, period=DAY, full=240, per_day=960)
"""40 requests an hour."""
MONTH_US = 30 * DAY_US


async def reserve(
    store: Store, requests: int, now_us: int = NOW_US, purpose: Purpose = Purpose.HEARTBEAT, **more: Any
) -> PurseState | None:
    terms = more.pop("terms", TERMS)
    return await store.write(
        budgets.reserve, scope="s", terms=terms, purpose=purpose, requests=requests, now_us=now_us, **more
    )


async def tokens(store: Store, now_us: int, terms: PurseTerms = TERMS) -> float:
    return (await store.read(budgets.purse, scope="s", terms=terms, now_us=now_us)).tokens


async def used(store: Store, now_us: int, period: timedelta = DAY) -> Mapping[str, int]:
    return await store.read(budgets.used_in_period, scope="s", period=period, now_us=now_us)


async def test_a_purse_is_full_at_first_and_refills_with_time(store: Store) -> None:
    assert await tokens(store, NOW_US) == 240
    purse = await reserve(store, 100)
    assert purse == PurseState(tokens=140, at_us=NOW_US, halved_until_us=None)
    assert await tokens(store, NOW_US + HOUR_US) == pytest.approx(180)
    assert await tokens(store, NOW_US + DAY_US) == 240
    assert (await reserve(store, 1, NOW_US + HOUR_US)).tokens == pytest.approx(179)  # type: ignore[union-attr]


async def test_a_purse_may_be_overdrawn_and_refills_from_there(store: Store) -> None:
    await reserve(store, 300)
    assert await tokens(store, NOW_US) == -60
    assert await tokens(store, NOW_US + 3 * HOUR_US) == pytest.approx(60)


async def test_what_the_purse_cannot_pay_is_refused_and_not_counted(store: Store) -> None:
    await reserve(store, 230)
    assert await reserve(store, 20, needed=20) is None
    assert await used(store, NOW_US) == {"heartbeat": 230}
    assert await tokens(store, NOW_US) == 10
    assert await reserve(store, 20, NOW_US + HOUR_US, needed=20) is not None
    assert await used(store, NOW_US + HOUR_US) == {"heartbeat": 250}


async def test_a_clock_that_is_set_back_gives_no_tokens(store: Store) -> None:
    await reserve(store, 200)
    for back_us in (1, TOLERANCE_US, HOUR_US, DAY_US, 400 * DAY_US):
        assert await tokens(store, NOW_US - back_us) == 40
        await reserve(store, 0, NOW_US - back_us)
    purse = await store.read(budgets.purse, scope="s", terms=TERMS, now_us=NOW_US - 400 * DAY_US + HOUR_US)
    assert purse.tokens == pytest.approx(80)


async def test_clocks_of_replicas_that_differ_a_little_give_nothing_twice(store: Store) -> None:
    await reserve(store, 200)
    for n in range(50):
        await reserve(store, 0, NOW_US + n * SECOND_US)
        await reserve(store, 0, NOW_US + n * SECOND_US - TOLERANCE_US)
    assert await tokens(store, NOW_US + 49 * SECOND_US) == pytest.approx(40 + 49 / 90, abs=1e-3)


async def test_a_refusal_halves_the_purse_for_an_hour(store: Store) -> None:
    await reserve(store, 200)
    until_us = await store.write(budgets.note_limit, scope="s", now_us=NOW_US)
    assert until_us == NOW_US + span_us(HALVED_FOR)
    assert (await reserve(store, 0)).halved_until_us == until_us  # type: ignore[union-attr]
    assert await tokens(store, NOW_US + HOUR_US // 2) == pytest.approx(50)
    assert await tokens(store, NOW_US + HOUR_US) == pytest.approx(60)
    assert await tokens(store, NOW_US + 2 * HOUR_US) == pytest.approx(100)
    again = await reserve(store, 0, NOW_US + 2 * HOUR_US)
    assert again is not None
    assert again.halved_until_us is None


async def test_a_halved_purse_holds_half_and_a_wrong_clock_halves_nothing(store: Store) -> None:
    await store.write(budgets.note_limit, scope="s", now_us=NOW_US)
    assert await tokens(store, NOW_US) == 120
    await store.write(budgets.note_limit, scope="s", now_us=NOW_US + 400 * DAY_US)
    assert await tokens(store, NOW_US) == 240


async def test_the_rolling_period_has_every_request_by_its_purpose(store: Store) -> None:
    for hour in range(48):
        await reserve(store, 2, NOW_US + hour * HOUR_US)
        await reserve(store, 1, NOW_US + hour * HOUR_US, Purpose.SWEEP)
    end_us, part = NOW_US + 47 * HOUR_US, 24 / PARTS
    found = await used(store, end_us)
    assert set(found) == {"heartbeat", "sweep"}
    assert 2 * 24 <= found["heartbeat"] <= 2 * (24 + 2 * part)
    assert found["sweep"] * 2 == found["heartbeat"]
    rows = await store.read(lambda c: c.execute(select(BUDGET_USE.c.start_us)).scalars().all())
    assert len(rows) <= 2 * (PARTS + 2)
    assert await used(store, end_us + 2 * DAY_US) == {}


async def test_no_moment_of_the_period_shows_less_than_was_asked(store: Store) -> None:
    asked: list[int] = []
    for n in range(200):
        at_us = NOW_US + n * 17 * 60 * SECOND_US
        asked.append(at_us)
        await reserve(store, 1, at_us)
        within = sum(1 for each in asked if each > at_us - DAY_US)
        assert within <= (await used(store, at_us))["heartbeat"] <= within + 2 * (24 * 60 / PARTS) / 17 + 2


async def test_requests_of_a_time_ahead_count_now(store: Store) -> None:
    await reserve(store, 7, NOW_US + 400 * DAY_US, Purpose.SWEEP)
    assert await used(store, NOW_US) == {"sweep": 7}
    await reserve(store, 1)
    assert await used(store, NOW_US) == {"sweep": 7, "heartbeat": 1}
    assert await used(store, NOW_US + 2 * DAY_US) == {}


@pytest.mark.parametrize("by_us", [DAY_US // PARTS, -DAY_US // PARTS, 5 * HOUR_US + 1, -400 * DAY_US])
async def test_a_clock_that_is_set_moves_what_was_asked_with_it(store: Store, by_us: int) -> None:
    for hour in range(0, 24, 2):
        await reserve(store, 1, NOW_US + hour * HOUR_US)
    await store.write(budgets.note_limit, scope="s", now_us=NOW_US + 22 * HOUR_US)
    before = [await used(store, NOW_US + (22 + hour) * HOUR_US) for hour in range(24)]
    purse = await store.read(budgets.purse, scope="s", terms=TERMS, now_us=NOW_US + 22 * HOUR_US)
    await store.write(times.move, now_us=NOW_US + 22 * HOUR_US, by_us=by_us)
    assert [await used(store, NOW_US + (22 + hour) * HOUR_US + by_us) for hour in range(24)] == before
    moved = await store.read(budgets.purse, scope="s", terms=TERMS, now_us=NOW_US + 22 * HOUR_US + by_us)
    assert moved.tokens == purse.tokens
    assert purse.halved_until_us is not None
    assert moved.halved_until_us == purse.halved_until_us + by_us


async def test_replicas_that_spend_at_once_lose_no_request(store_url: str, store: Store) -> None:
    replicas = [store, open_store(store_url)] if store.dialect == "postgresql" else [store]
    try:
        await asyncio.gather(
            *(reserve(replicas[n % len(replicas)], 3, NOW_US, list(Purpose)[n % 3]) for n in range(40))
        )
        assert sum((await used(store, NOW_US)).values()) == 120
        assert await tokens(store, NOW_US) == 120
        granted = await asyncio.gather(*(reserve(replicas[n % len(replicas)], 10, needed=10) for n in range(30)))
        assert sum(each is not None for each in granted) == 12
        assert await tokens(store, NOW_US) == 0
    finally:
        for each in replicas[1:]:
            await each.close()


async def test_the_use_of_the_grant_follows_what_is_granted_now(store: Store) -> None:
    async def use(now_us: int = NOW_US) -> GrantUse | None:
        return await store.read(budgets.grant_use, scope="s", now_us=now_us)

    assert await use() is None
    await reserve(store, 600)
    assert await use() == GrantUse(granted=2_400, period=DAY, by_purpose={"heartbeat": 600})
    await reserve(store, 0, terms=PurseTerms(granted=6_000, period=DAY, full=600, per_day=2_400))
    assert await use() == GrantUse(granted=6_000, period=DAY, by_purpose={"heartbeat": 600})
    assert await use(NOW_US + 2 * DAY_US) == GrantUse(granted=6_000, period=DAY, by_purpose={})


async def test_where_nothing_is_published_requests_are_counted(store: Store) -> None:
    terms = purse_terms(None, 0)
    purse = await reserve(store, 5, terms=terms, needed=1_000)
    assert purse is not None
    assert await used(store, NOW_US, UNPUBLISHED) == {"heartbeat": 5}
    use = await store.read(budgets.grant_use, scope="s", now_us=NOW_US)
    assert use == GrantUse(granted=None, period=UNPUBLISHED, by_purpose={"heartbeat": 5})


async def test_a_row_of_an_earlier_release_keeps_its_requests(store: Store) -> None:
    def before(connection: Any) -> None:
        from alembic import command  # noqa: PLC0415

        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0013")
        connection.exec_driver_sql(f"INSERT INTO budget (scope, period_start_us, used) VALUES ('s', {NOW_US}, 70)")

    await store.write(before)
    await store.write(migrate.upgrade)
    assert await used(store, NOW_US + HOUR_US) == {"heartbeat": 70}
    await reserve(store, 5, NOW_US + HOUR_US)
    row = await store.read(lambda c: c.execute(select(BUDGET)).one())
    assert (row.used, row.owed_millionths) == (75, 5_000_000)
    assert await used(store, NOW_US + 2 * DAY_US) == {}


@given(st.lists(st.tuples(st.integers(0, 30 * 60), st.integers(1, BLOCK)), max_size=60), st.integers(500, 5_000))
def test_no_period_has_more_than_our_share(asked: list[tuple[int, int]], granted: int) -> None:
    """Whatever is asked when, if each request is paid for: the purse is the one of the ledger, without its rows."""
    terms = purse_terms(Grant(requests=granted, period=timedelta(hours=1)), 0)
    now_us, spent, row = NOW_US, list[tuple[int, int]](), _Row()
    for gap_s, requests in asked:
        now_us += gap_s * SECOND_US
        purse = budgets._filled(row, terms, now_us)  # type: ignore[arg-type]
        if purse.tokens >= requests:
            spent.append((now_us, requests))
            owed = terms.full - purse.tokens + requests
            row.at_us, row.owed_millionths = purse.at_us, round(owed * budgets.MILLION)
    for end_us, _ in spent:
        assert sum(n for at_us, n in spent if end_us - HOUR_US < at_us <= end_us) <= granted / 2 + 1


class _Row:
    at_us: int | None = None
    owed_millionths: int = 0
    halved_until_us: int | None = None


async def make_source(store: Store, streams: int = 1, *, livemode: bool | None = True) -> None:
    def work(connection: Any) -> None:
        connection.execute(
            insert(SOURCE).values(
                id=1,
                name="acme",
                provider="stripe",
                mode="hybrid",
                state="active",
                state_us=NOW_US,
                start_us=NOW_US,
                next_pass_us=NOW_US,
                livemode=livemode,
            )
        )
        rows = [
            {"id": n, "source_id": 1, "name": f"acct_{n}", "watermark_us": 0, "complete_from_us": 0}
            for n in range(1, streams + 1)
        ]
        connection.execute(insert(STREAM), rows)

    await store.write(work)


async def record(
    store: Store, ages_h: list[float], kind: str = "charge.succeeded", stream: int = 1, *, livemode: bool | None = True
) -> None:
    rows = [
        {
            "source_id": 1,
            "stream_id": stream,
            "key": f"evt_{stream}_{kind}_{livemode}_{n}",
            "type": kind,
            "occurred_us": NOW_US - round(age_h * HOUR_US),
            "first_seen_us": NOW_US,
            "via": "webhook",
            "livemode": livemode,
        }
        for n, age_h in enumerate(ages_h)
    ]
    await store.write(lambda c: c.execute(insert(EVENT), rows))


async def earned(store: Store, since_us: int = NOW_US - MONTH_US) -> int:
    return await store.read(earnings.earned, source_id=1, types=("charge.succeeded",), since_us=since_us)


async def test_the_events_that_earn_are_counted_over_all_streams(store: Store) -> None:
    await make_source(store, streams=3)
    await record(store, [1, 2, 3])
    await record(store, [1, 2], stream=2)
    await record(store, [31 * 24], stream=3)
    await record(store, [1, 2], kind="charge.failed")
    await record(store, [1, 2], livemode=False)
    assert await earned(store) == 5
    assert await earned(store, NOW_US - HOUR_US - 1) == 2


async def test_a_count_of_events_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earnings, "MOST_COUNTED", 8)
    monkeypatch.setattr(earnings, "MOST_ROWS", 10)
    await make_source(store, streams=2, livemode=None)
    await record(store, [float(n) for n in range(6)], livemode=None)
    await record(store, [n + 0.5 for n in range(6)], kind="invoice.paid", livemode=None)
    await record(store, [float(n) for n in range(20)], stream=2, livemode=None)
    assert await store.read(earnings.count_events, source_id=1, types=("charge.succeeded",), since_us=0) == 5
    monkeypatch.setattr(earnings, "MOST_ROWS", 1_000)
    assert await store.read(earnings.count_events, source_id=1, types=("charge.succeeded",), since_us=0) == 8


async def test_before_the_first_listing_ended_it_is_what_it_showed(store: Store) -> None:
    await make_source(store)
    start_us, part_us = NOW_US - 10 * DAY_US, MONTH_US // 30
    assert not await store.read(earnings.is_listed, source_id=1)
    listed = [start_us - n * DAY_US - 1 for n in range(20) for _ in range(3)]
    await store.write(earnings.note_listed, source_id=1, times_us=listed, end_us=start_us, part_us=part_us)
    assert await store.read(earnings.is_listed, source_id=1)
    await record(store, [1, 2, 3])
    await record(store, [11 * 24, 12 * 24], kind="charge.succeeded", livemode=None)  # an import of what was listed
    assert await earned(store) == 3 * 20 + 3
    assert await earned(store, NOW_US - 20 * DAY_US) == 3 * 10 + 3
    assert await earned(store, start_us) == 3
    await store.write(earnings.note_listed, source_id=1, times_us=[], end_us=start_us, part_us=part_us)
    assert await store.read(earnings.is_listed, source_id=1)
    assert await earned(store) == 3


def test_a_purse_is_half_of_the_grant_and_holds_a_fifth_of_that() -> None:
    assert Stripe.capabilities.grant is not None
    terms = purse_terms(Stripe.capabilities.grant, 100)
    assert terms == PurseTerms(
        granted=50_000, period=timedelta(days=30), full=pytest.approx(5_000), per_day=pytest.approx(20_000 / 30)
    )
