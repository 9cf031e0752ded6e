"""Due times that a clock which jumped has made wrong, on both databases."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Table, insert, select, update

from gapless.domain import MICROSECOND, Purpose, span_us, to_us
from gapless.ledger import budgets, deliveries, destinations, leases, missing, silence, sources, times
from gapless.ledger.budgets import PurseTerms
from gapless.ledger.engine import Store
from gapless.ledger.missing import Missing
from gapless.ledger.tables import BUDGET, DELIVERY, DESTINATION, DOWNTIME, SLOT, SOURCE

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOW_US, MINUTE_US, HOUR_US = to_us(NOW), span_us(timedelta(minutes=1)), span_us(timedelta(hours=1))
YEAR_US = 365 * 24 * HOUR_US


async def columns(store: Store, table: Table, *names: str) -> list[tuple[Any, ...]]:
    query = select(*(table.c[name] for name in names)).order_by(table.c[names[0]])
    return await store.read(lambda c: [tuple(row) for row in c.execute(query)])


async def open_ledger(store: Store, at_us: int = NOW_US) -> None:
    """Make a source and a destination whose clock shows `at_us`."""
    at = NOW + (at_us - NOW_US) * MICROSECOND

    def work(connection: Connection) -> None:
        sources.register_source(connection, "acme", "stripe", "hybrid", at, at)
        destinations.register_destination(connection, "shop", at)

    await store.write(work)


async def owe(store: Store, *waits: dict[str, int]) -> None:
    rows = [{"destination_id": 1, "event_seq": seq, "created_us": NOW_US, **wait} for seq, wait in enumerate(waits, 1)]
    await store.write(lambda c: [c.execute(insert(DELIVERY).values(**row)) for row in rows])


async def due(store: Store) -> list[int]:
    """Return the deliveries that can be claimed now."""
    claimed = await store.write(lambda c: deliveries.claim(c, 1, NOW_US, 10, MINUTE_US))
    return [each.seq for each in claimed]


async def test_deliveries_ahead_of_their_own_wait_are_due(store: Store) -> None:
    await open_ledger(store)
    await owe(
        store,
        {"next_us": NOW_US + HOUR_US + MINUTE_US, "wait_us": MINUTE_US, "attempts": 3},  # the clock was an hour ahead
        {"next_us": NOW_US + 6 * HOUR_US, "wait_us": 6 * HOUR_US, "attempts": 3},  # it waits for so long
        {"next_us": NOW_US + HOUR_US, "created_us": NOW_US + HOUR_US},  # recorded while the clock was ahead
        {"next_us": NOW_US + HOUR_US},  # delayed by an hour
    )
    assert await store.read(times.any_ahead, now_us=NOW_US)
    assert await store.write(times.make_due, now_us=NOW_US) == {"delivery": 2}
    assert not await store.read(times.any_ahead, now_us=NOW_US)
    assert await due(store) == [1, 3]


async def test_a_delivery_under_way_stays_with_its_process(store: Store) -> None:
    await open_ledger(store)
    await owe(store, {"next_us": NOW_US + YEAR_US, "wait_us": MINUTE_US, "lease_us": NOW_US + YEAR_US})
    await store.write(times.make_due, now_us=NOW_US)
    assert await due(store) == []
    assert await columns(store, DELIVERY, "next_us", "lease_us") == [(NOW_US + MINUTE_US, NOW_US + YEAR_US)]


async def test_a_claim_and_a_retry_store_their_waits(store: Store) -> None:
    await open_ledger(store)
    await owe(store, {"next_us": NOW_US})
    (claim,) = await store.write(lambda c: deliveries.claim(c, 1, NOW_US, 10, MINUTE_US))
    assert await columns(store, DELIVERY, "wait_us") == [(MINUTE_US,)]
    retry = deliveries.Settlement(
        claim=claim, state=deliveries.DeliveryState.PENDING, at_us=NOW_US + 5, next_us=NOW_US + 5 + HOUR_US
    )
    await store.write(deliveries.settle, settlements=[retry])
    assert await columns(store, DELIVERY, "next_us", "wait_us") == [(NOW_US + 5 + HOUR_US, HOUR_US)]


async def test_a_delivery_gets_no_older_when_the_clock_is_set(store: Store) -> None:
    await open_ledger(store)
    tried = {"attempts": 1, "first_us": NOW_US - MINUTE_US}
    await owe(store, {"next_us": NOW_US - 1, **tried}, {"next_us": NOW_US + MINUTE_US, **tried}, {"next_us": NOW_US})
    await store.write(lambda c: destinations.resume(c, 1, NOW_US))
    await store.write(times.move, now_us=NOW_US, by_us=YEAR_US)
    assert await columns(store, DELIVERY, "event_seq", "first_us") == [
        (1, NOW_US - MINUTE_US + YEAR_US), (2, NOW_US - MINUTE_US + YEAR_US), (3, None),
    ]  # fmt: skip
    assert await columns(store, DESTINATION, "resumed_us") == [(NOW_US + YEAR_US,)]


async def test_a_source_and_a_missing_event_ahead_are_due(store: Store) -> None:
    await open_ledger(store)
    ahead_us = NOW_US + YEAR_US
    row = Missing(
        source_id=1, stream_id=1, key="evt_1", type="x", occurred_us=NOW_US, found_us=ahead_us, expected=True,
        cause=missing.Cause.UNEXPLAINED, reason="detail",
    )  # fmt: skip
    await store.write(missing.add, slot=0, found=[row])
    await store.write(missing.postpone, row=row, now_us=ahead_us, wait_us=MINUTE_US, error="404")
    next_pass = {"next_pass_us": ahead_us + MINUTE_US, "interval_us": MINUTE_US}
    await store.write(lambda c: c.execute(update(SOURCE).values(**next_pass)))
    assert await store.read(sources.due, now_us=NOW_US) == []
    assert await store.write(times.make_due, now_us=NOW_US) == {"source": 1, "missing": 1}
    assert [each.name for each in await store.read(sources.due, now_us=NOW_US)] == ["acme"]
    assert [each.key for each in await store.read(missing.due, source_id=1, now_us=NOW_US, limit=9)] == ["evt_1"]


async def test_waits_of_the_right_length_are_left_alone(store: Store) -> None:
    await open_ledger(store)
    await owe(store, {"next_us": NOW_US + HOUR_US, "wait_us": HOUR_US}, {"next_us": NOW_US - 1})
    lease = leases.Lease(1, 0, NOW_US)
    await store.write(lambda c: c.execute(update(SOURCE).values(lease_holder="me")))
    await store.write(
        lambda c: leases.release(c, lease, next_pass_us=NOW_US + HOUR_US, wait_us=HOUR_US, interval_us=HOUR_US)
    )
    before = await columns(store, DELIVERY, "next_us", "wait_us")
    assert not await store.read(times.any_ahead, now_us=NOW_US)
    assert await store.write(times.make_due, now_us=NOW_US) == {}
    assert await columns(store, DELIVERY, "next_us", "wait_us") == before


@pytest.mark.parametrize("by_us", [HOUR_US, -HOUR_US, YEAR_US], ids=["ahead", "back", "a year"])
async def test_what_waits_is_moved_with_the_clock(store: Store, by_us: int) -> None:
    await open_ledger(store)
    await owe(store, {"next_us": NOW_US + HOUR_US, "wait_us": HOUR_US}, {"next_us": NOW_US - 1})
    next_pass = {"next_pass_us": NOW_US + MINUTE_US, "wait_us": MINUTE_US}
    await store.write(lambda c: c.execute(update(SOURCE).values(**next_pass)))
    await store.write(times.move, now_us=NOW_US, by_us=by_us)
    overdue_us = NOW_US - 1 + min(by_us, 0)
    assert await columns(store, DELIVERY, "event_seq", "next_us") == [(1, NOW_US + HOUR_US + by_us), (2, overdue_us)]
    assert await columns(store, SOURCE, "next_pass_us") == [(NOW_US + MINUTE_US + by_us,)]
    assert await store.write(times.make_due, now_us=NOW_US + by_us) == {}


async def test_a_budget_that_begins_in_the_future_begins_now(store: Store) -> None:
    of = {"scope": "s", "terms": PurseTerms(granted=100, period=timedelta(days=1)), "purpose": Purpose.HEARTBEAT}
    await store.write(budgets.reserve, **of, requests=90, now_us=NOW_US + YEAR_US)
    await store.write(budgets.reserve, **of, requests=10, now_us=NOW_US)
    assert await columns(store, BUDGET, "period_start_us", "used") == [(NOW_US, 10)]


async def test_silence_is_seen_after_a_webhook_of_the_future(store: Store) -> None:
    await open_ledger(store)
    await store.write(silence.note_heard, heard={1: NOW_US + YEAR_US})
    assert await store.read(times.any_ahead, now_us=NOW_US)
    await store.write(times.make_due, now_us=NOW_US)
    assert await columns(store, SOURCE, "last_webhook_us") == [(NOW_US,)]


async def test_a_process_that_is_there_has_no_downtime(store: Store) -> None:
    """Its last heartbeat seems to be long ago because the clock jumped."""
    slot = await store.write(leases.take_slot, holder="me", receives=True)
    await store.write(lambda c: c.execute(update(SLOT).values(heartbeat_us=SLOT.c.heartbeat_us - HOUR_US)))
    await store.write(leases.beat, slot=slot, holder="me", silent=timedelta(seconds=2))
    assert await columns(store, DOWNTIME, "id") == []
    await store.write(lambda c: c.execute(update(SLOT).values(heartbeat_us=SLOT.c.heartbeat_us - HOUR_US)))
    await store.write(leases.beat, slot=slot, holder="me", silent=timedelta(minutes=1))
    assert len(await columns(store, DOWNTIME, "id")) == 1


async def test_a_heartbeat_of_the_future_hides_no_downtime(store: Store) -> None:
    await store.write(leases.take_slot, holder="me", receives=True)
    await store.write(lambda c: c.execute(update(SLOT).values(heartbeat_us=SLOT.c.heartbeat_us + YEAR_US)))
    await store.write(leases.note_downtime)
    await store.write(lambda c: c.execute(update(SLOT).values(heartbeat_us=SLOT.c.heartbeat_us - HOUR_US)))
    await store.write(leases.note_downtime)
    assert len(await columns(store, DOWNTIME, "id")) == 1


async def test_nothing_is_pruned_by_a_clock_that_is_ahead(store: Store) -> None:
    await open_ledger(store)
    assert await store.read(sources.greatest_skew_us) == 0
    await store.write(sources.note_skew, source_id=1, skew_us=-HOUR_US)
    assert await store.read(sources.greatest_skew_us) == 0
    await store.write(sources.note_skew, source_id=1, skew_us=YEAR_US)
    assert await store.read(sources.greatest_skew_us) == YEAR_US
