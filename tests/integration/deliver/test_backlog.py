"""What is owed is counted by the database, and nothing that people ask for scans what waits."""

from collections import Counter
from functools import partial
from random import Random
from typing import Any

import pytest
from plans import fill, plans, whole
from sqlalchemy import delete, func, select, update

from gapless.domain import Via, system_clock, to_us
from gapless.ledger import backlogs, dead_letters, deliveries, events, ordering, proof, retention, snapshot, unsettled
from gapless.ledger.deliveries import Attempt, DeliveryState, Settlement
from gapless.ledger.engine import dialect, open_store
from gapless.ledger.tables import DELIVERY, DELIVERY_COUNT, EVENT, PAYLOAD

pytestmark = pytest.mark.anyio
HOUR_US = 3_600_000_000


async def counted(setup: Any) -> tuple[Counter[tuple[str, str | None]], Counter[tuple[str, str | None]]]:
    """What the database has counted, and what there is, by state and reason."""
    backlog = await setup.store.read(backlogs.read, now_us=0)
    owed = [row for row in await setup.deliveries() if row.state != "delivered"]
    there_is = Counter((row.state, row.reason) for row in owed)
    return Counter({(part.state.value, part.reason): part.count for part in backlog}), there_is


async def test_the_database_counts_whatever_changes_deliveries(setup: Any) -> None:
    chance = Random(5)
    await setup.record(*(setup.sighting(f"evt_{n}", Via.LIST if n % 3 else Via.WEBHOOK) for n in range(60)))
    source, app, now_us = setup.source.id, setup.destination_id, to_us(system_clock())

    def settle(connection: Any) -> int:
        claims = deliveries.claim(connection, app, now_us, 9, 1)
        states = [DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.HELD, DeliveryState.PENDING, None]
        tried = Attempt(at_us=1, duration_us=1, outcome="timeout")
        ends = [
            Settlement(claim=each, state=chance.choice(states), at_us=now_us, reason="timeout", attempt=tried)
            for each in claims
        ]
        deliveries.settle(connection, ends)
        return 1

    steps: list[Any] = [
        settle,
        partial(dead_letters.hold_listed, source_id=source, reason="other_account", now_us=now_us, limit=5),
        partial(dead_letters.owe_held, source_id=source, reason="other_account", limit=3),
        partial(dead_letters.dismiss_held, source_id=source, reason="other_account", limit=1),
        partial(dead_letters.park_source, source_id=source, limit=4),
        partial(dead_letters.unpark_source, source_id=source, limit=3),
        partial(dead_letters.requeue, now_us=now_us, limit=2),
        partial(dead_letters.release, now_us=now_us, limit=2),
        partial(dead_letters.replay, destination_id=app, seqs=list(range(1, 9)), now_us=now_us),
        partial(retention.prune_deliveries, destination_id=app, before_us=now_us + HOUR_US, limit=100),
        partial(unsettled.discard, keys=[(seq, app) for seq in range(40)], state=DeliveryState.DEAD, now_us=1, why=""),
    ]
    seen = Counter[tuple[str, str | None]]()
    for _ in range(60):
        await setup.writer.submit(chance.choice(steps))
        kept, there_is = await counted(setup)
        assert kept == there_is
        seen |= there_is
    assert {state for state, _ in seen} == {"pending", "dead", "held", "parked"}


async def test_a_transaction_that_is_rolled_back_counts_nothing(setup: Any) -> None:
    await setup.record(setup.sighting("evt_1"))

    def fail(connection: Any) -> None:
        connection.execute(delete(DELIVERY))
        raise RuntimeError("no commit")

    with pytest.raises(RuntimeError, match="no commit"):
        await setup.writer.submit(fail)
    kept, there_is = await counted(setup)
    assert kept == there_is == Counter({("pending", None): 1})


async def test_counts_that_a_restore_has_spoiled_are_made_anew(setup: Any) -> None:
    await setup.record(*(setup.sighting(f"evt_{n}") for n in range(3)))
    await setup.writer.submit(lambda c: c.execute(update(DELIVERY_COUNT).values(count=99)).rowcount)
    await setup.writer.submit(backlogs.recount)
    kept, there_is = await counted(setup)
    assert kept == there_is


async def test_the_backlog_tells_from_when_on_it_is_late(setup: Any) -> None:
    await setup.record(*(setup.sighting(f"evt_{n}") for n in range(4)))
    seqs = [row.event_seq for row in await setup.deliveries()]
    values: list[dict[str, Any]] = [
        {"created_us": 100, "next_us": 900},  # delayed, and due
        {"created_us": 300, "next_us": 5_000, "attempts": 2},  # tried, waits
        {"created_us": 50, "next_us": 4_000},  # delayed, not due
        {"created_us": 20, "next_us": 1, "state": "dead", "reason": "timeout"},
    ]
    for seq, value in zip(seqs, values, strict=True):
        change = update(DELIVERY).where(DELIVERY.c.event_seq == seq).values(value)
        await setup.writer.submit(lambda c, change=change: c.execute(change).rowcount)
    dead, pending = await setup.store.read(backlogs.read, now_us=1_000)
    assert (dead.state, dead.reason, dead.count, dead.oldest_us, dead.late_us) == ("dead", "timeout", 1, 20, None)
    assert (pending.reason, pending.count, pending.oldest_us, pending.late_us) == (None, 3, 50, 300)
    (_, pending) = await setup.store.read(backlogs.read, now_us=200)
    assert pending.late_us == 300


async def test_status_counts_nothing_that_waits(setup: Any) -> None:
    await fill(setup)

    take = partial(snapshot.take_snapshot, sources=[setup.source], now=system_clock())
    found = await plans(setup, take, reads=True)
    assert whole(found, "delivery", "event", "missing") == [], found
    assert [line for line in found if "ix_delivery_due" in line]
    assert (await setup.store.read(backlogs.read, now_us=2))[-1].count == 20_000


async def test_pruning_payloads_reads_no_more_than_it_deletes(setup: Any) -> None:
    await fill(setup)
    found = await plans(setup, partial(retention.prune_payloads, before_us=30_000, after=19_500, limit=500))
    assert whole(found, "delivery", "event", "payload") == [], found
    gone = (await setup.writer.submit(retention.prune_payloads, 30_000, after=19_000, limit=500)).count
    rest = await setup.writer.submit(retention.prune_payloads, 30_000, after=19_700, limit=1000)
    assert (gone, rest.count) == (500, 0)  # up to 19,700 they are delivered; then dead letters and pending ones come
    left = select(func.count()).select_from(PAYLOAD).join(EVENT, EVENT.c.payload_id == PAYLOAD.c.id)
    owed = left.join(DELIVERY, DELIVERY.c.event_seq == EVENT.c.seq).where(DELIVERY.c.state != "delivered")
    assert await setup.store.read(lambda c: c.execute(owed).scalar()) == 20_300


async def test_the_missed_are_found_without_the_others(setup: Any) -> None:
    await fill(setup)
    choices: tuple[tuple[dict[str, Any], str], ...] = (
        ({"missed": True}, "ix_event_missed"),
        ({"missed": True, "source": "acme"}, "ix_event_missed"),
        ({"unlisted": True}, "ix_event_unlisted"),
    )
    for chosen, index in choices:
        found = await plans(setup, partial(events.recent, **chosen, limit=50))
        assert [line for line in found if index in line], found
    keys = [row.key for row in await setup.store.read(events.recent, missed=True, source="acme", limit=3)]
    assert keys == ["e36001", "e32001", "e28001"]


async def test_the_deliveries_of_one_event_are_found_by_their_key(setup: Any) -> None:
    await fill(setup)
    found = await plans(setup, partial(deliveries.of_event, seq=20_000))
    assert whole(found, "delivery") == [], found


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
async def test_settling_finds_deliveries_by_their_key(setup: Any) -> None:
    await fill(setup)
    ids, text = [1] * dialect.FEW, ["delivered"] * dialect.FEW
    values = (ids, list(range(39_000, 39_000 + dialect.FEW)), ids, ids, text, *[ids] * 4, text, *[ids] * 4, "pending")
    explained = f"EXPLAIN {dialect.SETTLE_POSTGRES}"
    steps = await setup.store.read(lambda c: [row[0] for row in c.exec_driver_sql(explained, values)])
    assert [line for line in steps if "pk_delivery" in line], steps
    assert whole(steps, "delivery") == []


async def test_other_pending_deliveries_are_not_read_to_hold_or_owe_some(setup: Any) -> None:
    await fill(setup)
    source = setup.source.id
    steps = [
        partial(dead_letters.holds, source_id=source, reason="x"),
        partial(dead_letters.count_held, source_id=source, reason="x"),
        partial(dead_letters.owe_held, source_id=source, reason="x"),
        partial(dead_letters.dismiss_held, source_id=source, reason="x"),
        partial(dead_letters.unpark_source, source_id=source),
        partial(dead_letters.not_listed, seqs=[1, 2]),
        partial(dead_letters.owe_listed, seqs=[1, 2], now_us=1),
    ]
    found = [line for each in steps for line in await plans(setup, each)]
    assert whole(found, "delivery") == [], found
    assert [line for line in found if "ix_delivery_due" in line or "ix_delivery_oldest" in line] == []


async def test_two_writers_count_side_by_side(postgres_url: str) -> None:
    stores = open_store(postgres_url), open_store(postgres_url)
    rows = [{"destination_id": 1, "event_seq": n, "next_us": 1, "created_us": 1} for n in range(1, 41)]
    try:
        for n, store in enumerate(stores):
            await store.write(dialect.insert_many, DELIVERY, tuple(rows[0]), [(*row.values(),) for row in rows[n::2]])
        total = select(func.sum(DELIVERY_COUNT.c.count))
        assert await stores[0].read(lambda c: c.execute(total).scalar()) == 40
    finally:
        for store in stores:
            await store.close()


@pytest.mark.parametrize(
    "run",
    [
        lambda connection, _: backlogs.read(connection, now_us=1),
        lambda connection, app: dead_letters.release(connection, 1, destination_id=app, reason="version_mismatch"),
        proof.forget,
        lambda connection, app: ordering.dissolve(connection, app, 1000),
        lambda connection, app: ordering.let_stranded_go(connection, app, 1000),
        lambda connection, app: ordering.let_dead_pass(connection, app, 1000),
    ],
    ids=["status", "release", "forget", "dissolve", "stranded", "dead"],
)
async def test_neither_status_nor_a_start_reads_what_was_delivered(setup: Any, run: Any) -> None:
    await fill(setup)
    steps = await plans(setup, lambda connection: run(connection, setup.destination_id))
    assert whole(steps, "delivery") == []
    assert not [step for step in steps if step.endswith("USING PRIMARY KEY (destination_id=?)")]


async def test_a_restored_ledger_holds_what_is_owed_without_reading_the_rest(setup: Any) -> None:
    await fill(setup, 6_000, pending=2_500)
    state = update(DELIVERY).where(DELIVERY.c.event_seq > 5_990)
    await setup.writer.submit(lambda c: c.execute(state.values(state="waiting")).rowcount)
    steps = await plans(setup, lambda connection: dead_letters.hold_pending(connection, "restored", 1))
    assert [step for step in steps if step.endswith("SCAN delivery") or "Seq Scan" in step] == []
    held = [await setup.writer.submit(dead_letters.hold_pending, reason="restored") for _ in range(5)]
    assert held == [1000, 1000, 499, 0, 0]
