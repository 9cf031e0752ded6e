"""Claims, settlements, dead letters, replays and pruning on both databases."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, func, insert, select, update

from gapless.deliver import Delivery
from gapless.deliver.breaker import BreakerRule
from gapless.deliver.worker import AHEAD_MAX, OUTCOMES
from gapless.destinations.contract import Delivered, Failed, FailureReason, Result
from gapless.domain import Via, system_clock, to_us
from gapless.ledger import backlogs, dead_letters, deliveries, retention, unsettled
from gapless.ledger.deliveries import CLAIM_BYTES, Attempt, DeliveryClaim, DeliveryState, Settlement
from gapless.ledger.engine import dialect
from gapless.ledger.tables import ATTEMPT, DELIVERY, EVENT, PAYLOAD
from gapless.ledger.unsettled import UnsettledFilter

pytestmark = pytest.mark.anyio
LEASE_US = 1_000_000


class Sink:
    """A sender that passes each event to `answer`."""

    def __init__(self, answer: Any = None) -> None:
        self.got: list[Delivery] = []
        self.under_way = self.most_under_way = 0
        self._answer = answer

    async def send(self, delivery: Delivery) -> Result:
        self.got.append(delivery)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0)
            return await self._answer(delivery) if self._answer else Delivered()
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        return


def delivered(claim: DeliveryClaim, at_us: int) -> Settlement:
    tried = Attempt(at_us=at_us, duration_us=1, outcome="delivered")
    return Settlement(claim=claim, state=DeliveryState.DELIVERED, at_us=at_us, attempt=tried)


async def claim(setup: Any, now_us: int, limit: int = 10) -> list[DeliveryClaim]:
    claims: list[DeliveryClaim] = await setup.writer.submit(
        deliveries.claim, destination_id=setup.destination_id, now_us=now_us, limit=limit, lease_us=LEASE_US
    )
    return claims


async def test_a_claimed_delivery_is_nobody_elses_until_its_lease_ends(setup: Any) -> None:
    await setup.record(setup.sighting("evt_1"))
    now_us = to_us(system_clock())
    (first,) = await claim(setup, now_us)
    assert await claim(setup, now_us + LEASE_US - 1) == []
    (second,) = await claim(setup, now_us + LEASE_US)
    assert (first.seq, first.attempts) == (second.seq, second.attempts)
    assert second.lease_us > first.lease_us


async def test_what_a_paused_process_settles_changes_nothing_of_a_newer_claim(setup: Any) -> None:
    await setup.record(setup.sighting("evt_1"))
    now_us = to_us(system_clock())
    (paused,) = await claim(setup, now_us)
    (newer,) = await claim(setup, now_us + LEASE_US)
    await setup.writer.submit(lambda c: deliveries.settle(c, [delivered(paused, now_us)]))
    (row,) = await setup.deliveries()
    assert (row.state, row.lease_us, row.attempts) == ("pending", newer.lease_us, 0)
    await setup.writer.submit(lambda c: deliveries.settle(c, [delivered(newer, now_us + LEASE_US)]))
    await setup.writer.submit(
        lambda c: deliveries.settle(c, [replace(delivered(paused, now_us), state=DeliveryState.DEAD)])
    )
    (row,) = await setup.deliveries()
    assert (row.state, row.attempts) == ("delivered", 1)


async def test_a_late_success_counts_while_nobody_else_has_claimed(setup: Any) -> None:
    await setup.record(setup.sighting("evt_1"))
    now_us = to_us(system_clock())
    (late,) = await claim(setup, now_us)
    await setup.writer.submit(lambda c: deliveries.settle(c, [delivered(late, now_us + 10 * LEASE_US)]))
    assert await setup.states() == {"delivered"}


async def test_two_that_claim_at_the_same_time_share_what_is_due(setup: Any) -> None:
    await setup.record(*(setup.sighting(f"evt_{n:03}") for n in range(100)))
    now_us = to_us(system_clock())
    claims = await asyncio.gather(*(claim(setup, now_us, 30) for _ in range(4)))
    seqs = [each.seq for batch in claims for each in batch]
    assert [len(batch) for batch in claims] == [30, 30, 30, 10]
    assert len(set(seqs)) == 100


async def test_killed_in_the_middle_an_event_is_delivered_again_with_the_same_id(setup: Any) -> None:
    hangs = Sink(lambda _: asyncio.sleep(60))
    await setup.record(setup.sighting("evt_1"))
    destination = setup.destination(hangs)
    async with setup.delivering(destination, grace=timedelta(0)):
        await setup.wait_for(lambda _: bool(hangs.got))
    (row,) = await setup.deliveries()
    assert row.lease_us > to_us(system_clock())
    given_back = await setup.writer.submit(lambda c: deliveries.give_back_all(c, to_us(system_clock())))
    works = Sink()
    async with setup.delivering(setup.destination(works)):
        await setup.until("delivered")
    assert given_back == 1
    assert [d.id for d in works.got] == [d.id for d in hangs.got]
    assert works.got[0].attempt == 1


async def test_a_lease_that_ended_is_claimed_without_any_help(setup: Any) -> None:
    await setup.record(setup.sighting("evt_1"))
    await setup.writer.submit(lambda c: deliveries.claim(c, setup.destination_id, to_us(system_clock()), 10, 300_000))
    works = Sink()
    async with setup.delivering(setup.destination(works)):
        await asyncio.sleep(0.1)
        assert works.got == []
        await setup.until("delivered")


async def test_trap_hookaido_a_requeued_dead_letter_has_its_whole_budget_again(setup: Any) -> None:
    async def refuse(_: Delivery) -> Result:
        return Failed(reason=FailureReason.CONSUMER_5XX, detail="HTTP 500")

    broken = Sink(refuse)
    async with setup.delivering(setup.destination(broken)) as dispatcher:
        await setup.record(setup.sighting("evt_1"))
        await setup.until("dead")
        requeued = await setup.writer.submit(
            lambda c: dead_letters.requeue(c, to_us(system_clock()), reason="consumer_5xx")
        )
        (row,) = await setup.deliveries()
        assert (requeued, row.state) == (1, "pending")
        dispatcher.wake()
        (row,) = await setup.until("dead")
    assert row.attempts == 4
    assert [d.attempt for d in broken.got] == [1, 2, 3, 4, 1, 2, 3, 4]


async def test_each_wish_of_a_person_is_a_generation_and_no_retry_is(setup: Any) -> None:
    async def fail_twice(delivery: Delivery) -> Result:
        failed = Failed(reason=FailureReason.CONNECTION, detail="gone", permanent=delivery.attempt == 2)
        return Delivered() if len(sink.got) == 5 else failed

    sink = Sink(fail_twice)
    async with setup.delivering(setup.destination(sink)) as dispatcher:
        seqs = await setup.record(setup.sighting("evt_1"))
        await setup.until("dead")
        await setup.writer.submit(lambda c: dead_letters.requeue(c, to_us(system_clock())))
        dispatcher.wake()
        await setup.until("dead")
        replayed = list(seqs.values())
        await setup.writer.submit(
            lambda c: dead_letters.replay(c, setup.destination_id, replayed, to_us(system_clock()))
        )
        dispatcher.wake()
        await setup.until("delivered")
    assert [(each.generation, each.attempt) for each in sink.got] == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1)]
    assert len({each.id for each in sink.got}) == 1


async def test_a_replay_of_what_is_owed_no_more_is_a_generation_too(setup: Any) -> None:
    seqs = await setup.record(setup.sighting("evt_1"))
    await setup.writer.submit(lambda c: c.execute(DELIVERY.delete()).rowcount)
    replayed, now_us = list(seqs.values()), to_us(system_clock())
    await setup.writer.submit(lambda c: dead_letters.replay(c, setup.destination_id, replayed, now_us))
    (row,) = await setup.deliveries()
    assert row.generation == 1


async def test_dead_letters_are_listed_and_counted_by_reason(setup: Any) -> None:
    reasons = {
        "evt_1": FailureReason.CONSUMER_4XX,
        "evt_2": FailureReason.CANNOT_RENDER,
        "evt_3": FailureReason.CONSUMER_4XX,
    }

    async def refuse(delivery: Delivery) -> Result:
        return Failed(reason=reasons[delivery.key], detail="a\0b \ud800 c", permanent=True)

    async with setup.delivering(setup.destination(Sink(refuse))):
        await setup.record(*(setup.sighting(key) for key in reasons))
        await setup.until("dead")
    backlog = await setup.store.read(partial(backlogs.read, now_us=0))
    assert [(b.destination, b.state, b.reason, b.count) for b in backlog] == [
        ("app", "dead", "cannot_render", 1),
        ("app", "dead", "consumer_4xx", 2),
    ]
    listed = await setup.store.read(unsettled.page, UnsettledFilter(state=DeliveryState.DEAD, reason="consumer_4xx"))
    assert [(letter.source, letter.key, letter.attempts) for letter in listed] == [
        ("acme", "evt_1", 1),
        ("acme", "evt_3", 1),
    ]
    chosen = UnsettledFilter(state=DeliveryState.DEAD, reason="consumer_4xx")
    rest = await setup.store.read(unsettled.page, chosen, after=(listed[0].seq, listed[0].destination_id))
    assert [letter.key for letter in rest] == ["evt_3"]
    both = [
        await setup.store.read(unsettled.page, UnsettledFilter(state=DeliveryState.DEAD, destinations=(each,)))
        for each in ("app", "other")
    ]
    assert [len(letters) for letters in both] == [3, 0]


async def test_sequin_a_backlog_of_20000_is_claimed_in_bounded_batches(setup: Any) -> None:
    seqs = await setup.record(setup.sighting("evt_1"))
    (payload_id,) = await setup.store.read(lambda c: c.execute(select(EVENT.c.payload_id)).scalars().all())
    first, count = next(iter(seqs.values())), 20_000
    await setup.writer.submit(lambda c: fill(c, setup, payload_id, first + 1, count))
    now_us = to_us(system_clock())
    assert len(await claim(setup, now_us, 64)) == 64
    sink = Sink()
    async with setup.delivering(setup.destination(sink, concurrency=4)):
        while len(sink.got) < 200:
            await asyncio.sleep(0.01)
        under_lease = sum(row.lease_us > now_us + LEASE_US for row in await setup.deliveries())
    assert sink.most_under_way <= 4
    assert under_lease <= 2 * AHEAD_MAX


async def test_a_claim_is_bounded_in_bytes(setup: Any) -> None:
    large = b'{"large": "%b"}' % (b"x" * (CLAIM_BYTES // 3))
    await setup.record(*(setup.sighting(f"evt_{n}", body=large) for n in range(5)))
    now_us = to_us(system_clock())
    assert [len(await claim(setup, now_us)) for _ in range(4)] == [2, 2, 1, 0]


async def test_what_is_larger_than_a_claim_is_claimed_alone(setup: Any) -> None:
    huge = b'{"huge": "%b"}' % (b"x" * CLAIM_BYTES)
    await setup.record(*(setup.sighting(f"evt_{n}", body=huge) for n in range(2)))
    now_us = to_us(system_clock())
    assert [len(await claim(setup, now_us)) for _ in range(3)] == [1, 1, 0]


@pytest.mark.parametrize("breaks", [False, True])
async def test_what_is_queued_is_given_back_when_nothing_more_is_sent(setup: Any, breaks: bool) -> None:
    async def answer(_: Delivery) -> Result:
        if len(sink.got) < 40:
            return Delivered()
        if not breaks:
            await asyncio.Event().wait()
        return Failed(reason=FailureReason.CONSUMER_5XX)

    await setup.record(*(setup.sighting(f"evt_{n}") for n in range(200)))
    sink = Sink(answer)
    rule = BreakerRule(threshold=1, rest=timedelta(hours=1))
    destination = setup.destination(sink, concurrency=2, breaker=rule)
    async with setup.delivering(destination, grace=timedelta(seconds=0.1)):
        while len(sink.got) < 40:
            await asyncio.sleep(0.01)
        if breaks:
            await setup.wait_for(lambda rows: not any(row.lease_us for row in rows))
    waiting = [row for row in await setup.deliveries() if row.state == "pending"]
    under_way = [row for row in waiting if row.lease_us]
    assert len(under_way) == (0 if breaks else 2)
    assert {row.attempts for row in waiting} <= {0, 1}
    assert sum(row.attempts for row in waiting) <= 2


def fill(connection: Any, setup: Any, payload_id: int, first: int, count: int) -> None:
    events = [
        {
            "seq": first + n, "source_id": setup.source.id, "stream_id": setup.stream_id, "key": f"bulk_{n}",
            "type": "t", "occurred_us": 1, "first_seen_us": 1, "via": "webhook", "payload_id": payload_id,
        }
        for n in range(count)
    ]  # fmt: skip
    connection.execute(insert(EVENT), events)
    owed = {"destination_id": setup.destination_id, "next_us": 1, "created_us": 1}
    connection.execute(insert(DELIVERY), [{**owed, "event_seq": first + n} for n in range(count)])


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_a_claim_costs_the_same_however_long_the_backlog(setup: Any) -> None:
    settled = [delivered(DeliveryClaim(destination_id=1, seq=1, attempts=0, lease_us=1), 1)]
    withdrawn = [replace(settled[0], state=None, attempt=None)]

    def run(connection: Any) -> None:
        deliveries.settle_and_claim(connection, 1, settled + withdrawn, now_us=1, limit=64, lease_us=1)
        backlogs.read(connection, 1)
        backlogs.unproven(connection, 1)
        backlogs.unconfirmed(connection, 1)
        dead_letters.requeue(connection, 1)

    await setup.record(*(setup.sighting(f"evt_{n}") for n in range(200)))
    await setup.writer.submit(lambda c: c.execute(update(DELIVERY).values(next_us=0)).rowcount)
    plans = [line for line in await setup.writer.submit(explained, run) if " delivery" in line]
    settling = f"EXPLAIN QUERY PLAN {dialect.SETTLE_SQLITE}"
    (settled_by,) = await setup.store.read(lambda c: c.exec_driver_sql(settling, (1,) * 15).all())
    by_key = "SEARCH delivery USING PRIMARY KEY (destination_id=? AND event_seq=?)"
    due = "SEARCH delivery USING INDEX ix_delivery_due (destination_id=?"
    claimed = [by_key, f"{due} AND next_us<?)", by_key, f"{due})"]
    backlog = [
        "SEARCH delivery_count USING INDEX sqlite_autoindex_delivery_count_1 (destination_id=?)",
        "SEARCH delivery USING INDEX ix_delivery_oldest (destination_id=?)",
        "SEARCH delivery USING INDEX ix_delivery_tried (destination_id=?)",
        f"{due} AND next_us<?)",
        f"{due})",
        "SEARCH delivery USING COVERING INDEX ix_delivery_unproven (destination_id=? AND unproven_id>?)",
        "SEARCH delivery USING INDEX ix_delivery_answered (destination_id=? AND answered_us>?)",
    ]
    assert settled_by[-1] == by_key
    assert plans == [*claimed, *backlog, "SEARCH delivery USING INDEX ix_delivery_unsettled (state=?)"]


def explained(connection: Any, run: Any) -> list[str]:
    """Return SQLite's query plan of each statement that `run` executes."""
    executed: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, many: bool) -> None:
        executed.append((statement, parameters[0] if many else parameters))

    event.listen(connection, "before_cursor_execute", note)
    run(connection)
    event.remove(connection, "before_cursor_execute", note)
    steps = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all() for text, values in executed]
    return [step[-1] for each in steps for step in each]


async def test_pruning_never_takes_a_payload_that_is_still_owed(setup: Any) -> None:
    seqs = await setup.record(*(setup.sighting(f"evt_{n}") for n in range(6)))
    states = dict(zip(seqs, ["pending", "held", "parked", "dead", "delivered", "delivered"], strict=True))
    for key, state in states.items():
        change = update(DELIVERY).where(DELIVERY.c.event_seq == seqs[key]).values(state=state, done_us=1)
        await setup.writer.submit(lambda c, change=change: c.execute(change).rowcount)
    later_us = to_us(system_clock()) + 1
    pruned = await everything(setup, partial(retention.prune_payloads, before_us=later_us, limit=2))
    left = await setup.store.read(
        lambda c: c.execute(select(EVENT.c.key).join(PAYLOAD, PAYLOAD.c.id == EVENT.c.payload_id)).scalars().all()
    )
    assert pruned == 2
    assert {states[key] for key in left} == {"pending", "held", "parked", "dead"}


async def test_trap_hookaido_pruning_bounds_attempts_and_deliveries_a_batch_at_a_time_and_leaves_the_rest(
    setup: Any,
) -> None:
    await setup.record(*(setup.sighting(f"evt_{n}") for n in range(7)))
    now_us = to_us(system_clock())
    claims = await claim(setup, now_us)
    settled = [delivered(each, now_us) for each in claims[:6]]
    await setup.writer.submit(lambda c: deliveries.settle(c, settled))
    old = partial(retention.prune_deliveries, destination_id=setup.destination_id, before_us=now_us, limit=2)
    assert await everything(setup, old) == 0
    old = partial(retention.prune_deliveries, destination_id=setup.destination_id, before_us=now_us + 1, limit=2)
    assert await everything(setup, old) == 6
    assert [row.event_seq for row in await setup.deliveries()] == [claims[6].seq]
    assert await everything(setup, partial(retention.prune_attempts, before_us=now_us, limit=4)) == 0
    assert await everything(setup, partial(retention.prune_attempts, before_us=now_us + 1, limit=4)) == 6
    assert await setup.store.read(lambda c: c.execute(select(func.count()).select_from(ATTEMPT)).scalar()) == 0


async def everything(setup: Any, prune: Any) -> int:
    total = 0
    pruned: retention.Pruned = await setup.writer.submit(prune)
    while True:
        total += pruned.count
        if pruned.after is None:
            return total
        pruned = await setup.writer.submit(prune, after=pruned.after)


async def test_a_replayed_event_without_a_payload_is_left_out(setup: Any) -> None:
    seqs = await setup.record(setup.sighting("evt_1", Via.IMPORT), setup.sighting("evt_2"))
    now_us = to_us(system_clock())
    await setup.writer.submit(lambda c: c.execute(DELIVERY.delete()).rowcount)
    again = await setup.writer.submit(
        lambda c: dead_letters.replay(c, setup.destination_id, list(seqs.values()), now_us)
    )
    assert again == 1
    assert [(row.event_seq, row.state) for row in await setup.deliveries()] == [(seqs["evt_2"], "pending")]


async def test_what_a_retired_source_is_owed_is_parked_and_comes_back_with_it(setup: Any) -> None:
    await setup.record(*(setup.sighting(f"evt_{n}") for n in range(5)))
    batches = [await setup.writer.submit(lambda c: dead_letters.park_source(c, setup.source.id, 3)) for _ in range(3)]
    assert (batches, await setup.states()) == ([3, 2, 0], {"parked"})
    assert await claim(setup, to_us(system_clock())) == []
    await setup.writer.submit(lambda c: dead_letters.unpark_source(c, setup.source.id))
    assert await setup.states() == {"pending"}


async def test_an_event_of_which_nothing_is_kept_is_a_dead_letter_that_says_so(setup: Any) -> None:
    async with setup.delivering(setup.destination(Sink(), via=frozenset(Via))):
        await setup.record(setup.sighting("evt_1", Via.IMPORT))
        (row,) = await setup.until("dead")
    assert row.reason == "no_payload"


async def test_a_bug_of_ours_is_a_failure_with_a_limit_and_stops_nothing_else(setup: Any) -> None:
    async def bug(delivery: Delivery) -> Result:
        if delivery.key == "evt_1":
            raise KeyError("ours")
        return Delivered()

    async with setup.delivering(setup.destination(Sink(bug))):
        await setup.record(setup.sighting("evt_1"), setup.sighting("evt_2"))
        await setup.wait_for(lambda rows: {row.state for row in rows} == {"dead", "delivered"})
    assert (await setup.outcomes()).count("internal") == 4


async def test_series_of_a_destination_are_there_before_its_first_event(setup: Any) -> None:
    async with setup.delivering(setup.destination(Sink())):
        found = {
            sample.labels["outcome"]: sample.value
            for family in setup.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "gapless_deliveries_total"
        }
    assert found == dict.fromkeys(OUTCOMES, 0.0)


async def test_a_replay_whose_key_was_missing_is_still_a_replay(setup: Any) -> None:
    """So it is sent, although its handler had the event."""
    seqs = list((await setup.record(setup.sighting("evt_1"), setup.sighting("evt_2"))).values())
    app, now_us = setup.destination_id, to_us(system_clock())
    await setup.writer.submit(dead_letters.replay, destination_id=app, seqs=seqs[:1], now_us=now_us)
    claim = {"destination_id": app, "now_us": now_us + 1, "limit": 9, "lease_us": 9}
    held = [
        Settlement(claim=each, state=DeliveryState.HELD, at_us=now_us, reason="key_missing")
        for each in await setup.writer.submit(deliveries.claim, **claim)
    ]
    await setup.writer.submit(deliveries.settle, settlements=held)
    assert await setup.writer.submit(dead_letters.owe_all_held, reason="key_missing") == 2
    again = await setup.writer.submit(deliveries.claim, **claim)
    assert [(each.seq, each.released) for each in again] == [(seqs[0], True), (seqs[1], False)]
