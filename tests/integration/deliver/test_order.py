"""A later event of an object waits for the earlier one, whatever happens between."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy import event as sql_event

from gapless.deliver.retry import DeliveryRetryPolicy, ReceiptRule
from gapless.deliver.routing import Destination
from gapless.destinations.contract import Delivered, Delivery, Failed, FailureReason, Result
from gapless.domain import Order, Via, system_clock, to_us
from gapless.ledger import dead_letters, deliveries, ordering, unsettled
from gapless.ledger.deliveries import Attempt, DeliveryClaim, DeliveryState, Settlement
from gapless.ledger.engine import Store, open_store
from gapless.ledger.tables import DELIVERY

pytestmark = pytest.mark.anyio
LEASE_US = 60_000_000
ONCE = DeliveryRetryPolicy(
    first=timedelta(milliseconds=1), longest=timedelta(milliseconds=1), max_attempts=1, waits=(), max_age=None
)
BROKEN = Failed(reason=FailureReason.CONSUMER_5XX, detail="HTTP 500")
START = system_clock()


class Sink:
    """A sender that answers by the key, and notes what it gets."""

    def __init__(self, **answers: list[Result]) -> None:
        self.got: list[Delivery] = []
        self.answers = answers
        self.under_way: set[str | None] = set()

    async def send(self, delivery: Delivery) -> Result:
        assert delivery.object_key is None or delivery.object_key not in self.under_way
        self.under_way.add(delivery.object_key)
        self.got.append(delivery)
        await asyncio.sleep(0)
        self.under_way.discard(delivery.object_key)
        left = self.answers.get(delivery.key, [])
        return left.pop(0) if left else Delivered()

    async def close(self) -> None:
        return

    @property
    def keys(self) -> list[str]:
        return [each.key for each in self.got]


def ordered(setup: Any, sender: Any, **changes: Any) -> Destination:
    made: Destination = setup.destination(sender, order=Order.OBJECT, **changes)
    return made


def of(setup: Any, key: str, about: str | None = "cus_1", at: float = 0, via: Via = Via.WEBHOOK) -> Any:
    """A sighting of an event about an object, that occurred `at` seconds after the first."""
    return setup.sighting(key, via, object_key=about, occurred_at=START + timedelta(seconds=at))


@asynccontextmanager
async def routed(setup: Any, **changes: Any) -> AsyncIterator[None]:
    """Record with the order of a destination to which nothing is sent."""
    async with setup.delivering(ordered(setup, Sink(), **changes)) as dispatcher:
        dispatcher.stop()
        yield


async def claimed(setup: Any, now_us: int | None = None) -> list[DeliveryClaim]:
    claims: list[DeliveryClaim] = await setup.writer.submit(
        deliveries.claim,
        destination_id=setup.destination_id,
        now_us=now_us or to_us(system_clock()),
        limit=100,
        lease_us=LEASE_US,
    )
    return claims


def settled(claim: DeliveryClaim, state: DeliveryState | None = DeliveryState.DELIVERED, **changes: Any) -> Settlement:
    now_us = to_us(system_clock())
    tried = Attempt(at_us=now_us, duration_us=1, outcome="delivered")
    return Settlement(claim=claim, state=state, at_us=now_us, attempt=tried, **changes)


async def settle(setup: Any, *settlements: Settlement) -> None:
    await setup.writer.submit(deliveries.settle, settlements=settlements)


async def states(setup: Any) -> list[str]:
    return [row.state for row in await setup.deliveries()]


async def test_the_next_event_of_an_object_waits_for_the_one_before(setup: Any) -> None:
    async with routed(setup):
        await setup.record(of(setup, "a1", "a"), of(setup, "b1", "b"))
        await setup.record(
            of(setup, "a2", "a"), of(setup, "a3", "a"), of(setup, "free", None), of(setup, "free2", None)
        )
    assert await states(setup) == ["pending", "pending", "pending", "pending", "waiting", "waiting"]
    first, *_ = await claimed(setup)
    await settle(setup, settled(first))
    (second,) = await claimed(setup)
    assert second.seq == 5
    await settle(setup, settled(second))
    assert [each.seq for each in await claimed(setup)] == [6]


async def test_a_failed_one_is_tried_again_before_the_next(setup: Any) -> None:
    sink = Sink(evt_1=[BROKEN, BROKEN])
    async with setup.delivering(ordered(setup, sink)):
        await setup.record(*(of(setup, f"evt_{n}", at=n) for n in range(1, 4)))
        await setup.until("delivered")
    assert sink.keys == ["evt_1", "evt_1", "evt_1", "evt_2", "evt_3"]


async def test_the_next_waits_for_the_receipt(setup: Any) -> None:
    rule = ReceiptRule(within=timedelta(milliseconds=1), max_answers=5)
    done = Delivered(applied=True)
    sink = Sink(evt_1=[Delivered(), Delivered(), done], evt_2=[done])
    async with setup.delivering(ordered(setup, sink, confirm=rule)):
        await setup.record(of(setup, "evt_1"), of(setup, "evt_2", at=1))
        await setup.until("delivered")
    assert sink.keys == ["evt_1", "evt_1", "evt_1", "evt_2"]


async def test_a_receipt_for_the_first_lets_the_next_go(setup: Any) -> None:
    async with routed(setup):
        await setup.record(of(setup, "evt_1"), of(setup, "evt_2", at=1))
    arguments = {"source_id": setup.source.id, "destination_id": setup.destination_id, "now_us": 1}
    await setup.writer.submit(deliveries.settle_applied, keys=["evt_1"], **arguments)
    assert await states(setup) == ["delivered", "pending"]


async def test_a_receipt_for_one_that_waits_lets_nothing_overtake(setup: Any) -> None:
    async with routed(setup):
        await setup.record(*(of(setup, f"evt_{n}", at=n) for n in range(3)))
        arguments = {"source_id": setup.source.id, "destination_id": setup.destination_id, "now_us": 1}
        await setup.writer.submit(deliveries.settle_applied, keys=["evt_1"], **arguments)
        assert await states(setup) == ["pending", "delivered", "waiting"]
        await setup.record(of(setup, "evt_3", at=3))
    assert await states(setup) == ["pending", "delivered", "waiting", "waiting"]


@pytest.mark.parametrize("turn", [1, -1])
async def test_events_of_one_page_come_in_the_order_of_occurrence(setup: Any, turn: int) -> None:
    """Whatever their keys, and whether the list shows the oldest or the newest first."""
    sink = Sink()
    page = [("z", 0.0), ("c", 1.0), ("b", 1.0), ("a", 2.0)]
    async with setup.delivering(ordered(setup, sink)):
        await setup.record(*(of(setup, key, at=at, via=Via.LIST) for key, at in page[::turn]))
        await setup.until("delivered")
    assert sink.keys == ["z", "c", "b", "a"]
    assert [each.late for each in sink.got] == [None] * 4


async def test_trap_of_two_events_of_one_second_the_later_one_comes_last(setup: Any) -> None:
    """Stripe stamps whole seconds: neither is dropped, and the one that arrived last is sent last."""
    sink = Sink()
    async with setup.delivering(ordered(setup, sink)):
        await setup.record(of(setup, "evt_z_created"), of(setup, "evt_a_updated"))
        await setup.until("delivered")
    assert sink.keys == ["evt_z_created", "evt_a_updated"]


async def test_trap_parallel_events_of_one_object_are_sent_one_by_one(setup: Any) -> None:
    """Three webhooks of one customer at once: the consumer is never in two of them at the same time."""
    sink = Sink()
    async with setup.delivering(ordered(setup, sink, concurrency=32)):
        await asyncio.gather(*(setup.record(of(setup, f"evt_{n}", f"cus_{n % 3}")) for n in range(30)))
        await setup.until("delivered")
    assert len(sink.got) == 30


async def test_what_a_list_found_too_late_is_marked(setup: Any) -> None:
    sink = Sink()
    async with setup.delivering(ordered(setup, sink)):
        await setup.record(of(setup, "evt_1", at=1))
        await setup.record(of(setup, "evt_5", at=5))
        await setup.until("delivered")
        await setup.record(of(setup, "evt_3", at=3, via=Via.LIST), of(setup, "evt_7", at=7, via=Via.LIST))
        await setup.record(of(setup, "evt_6", at=6, via=Via.LIST))
        await setup.record(of(setup, "other", "cus_2", at=2, via=Via.LIST))
        await setup.until("delivered")
    late = {each.key: each.late for each in sink.got}
    recovered = {key for key, why in late.items() if why == "recovered"}
    assert recovered == {"evt_3", "evt_6"}
    assert {late[key] for key in late.keys() - recovered} == {None}


async def test_a_consumer_reads_the_object_and_the_mark(setup: Any, consumer: Any) -> None:
    async with setup.delivering(ordered(setup, setup.http(consumer.url))) as dispatcher:
        seqs = await setup.record(of(setup, "evt_1"), of(setup, "evt_2", None))
        await setup.until("delivered")
        now_us = to_us(system_clock())
        await setup.writer.submit(lambda c: dead_letters.replay(c, setup.destination_id, [seqs["evt_1"]], now_us))
        dispatcher.wake()
        await setup.until("delivered")
    *_, last = consumer.got
    assert {got.headers.get("gapless-object") for got in consumer.got[:2]} == {"cus_1", None}
    assert not any("gapless-late" in got.headers for got in consumer.got[:2])
    assert (last.headers["gapless-late"], last.headers["gapless-object"]) == ("replayed", "cus_1")


async def test_a_dead_letter_blocks_its_object_and_no_other(setup: Any) -> None:
    sink = Sink(evt_1=[BROKEN])
    async with setup.delivering(ordered(setup, sink, retry=ONCE)):
        await setup.record(of(setup, "evt_1"), of(setup, "evt_2", at=1), of(setup, "evt_3", "cus_2"))
        await setup.wait_for(lambda rows: {row.state for row in rows} == {"dead", "waiting", "delivered"})
        await setup.record(of(setup, "evt_4", at=4))
    assert sorted(sink.keys) == ["evt_1", "evt_3"]
    assert sorted(await states(setup)) == ["dead", "delivered", "waiting", "waiting"]
    (blocked,) = await setup.store.read(ordering.blocked)
    assert (blocked.destination, blocked.count, blocked.source) == ("app", 1, "acme")
    assert (blocked.object_key, blocked.key) == ("cus_1", "evt_1")


async def test_a_dead_letter_that_nothing_waits_for_blocks_nothing(setup: Any) -> None:
    async with routed(setup):
        await setup.record(of(setup, "evt_1"))
    (claim,) = await claimed(setup)
    await settle(setup, settled(claim, DeliveryState.DEAD, reason="timeout"))
    assert await setup.store.read(ordering.blocked) == []


async def test_a_requeued_dead_letter_goes_first(setup: Any) -> None:
    sink = Sink(evt_1=[BROKEN])
    async with setup.delivering(ordered(setup, sink, retry=ONCE)) as dispatcher:
        await setup.record(of(setup, "evt_1"), of(setup, "evt_2", at=1))
        await setup.wait_for(lambda rows: {row.state for row in rows} == {"dead", "waiting"})
        await setup.writer.submit(dead_letters.requeue, now_us=to_us(system_clock()))
        dispatcher.wake()
        await setup.until("delivered")
    assert sink.keys == ["evt_1", "evt_1", "evt_2"]
    assert {each.late for each in sink.got} == {None}


async def test_a_dismissed_dead_letter_lets_the_next_go(setup: Any) -> None:
    sink = Sink(evt_1=[BROKEN])
    async with setup.delivering(ordered(setup, sink, retry=ONCE)) as dispatcher:
        await setup.record(of(setup, "evt_1"), of(setup, "evt_2", at=1))
        await setup.wait_for(lambda rows: {row.state for row in rows} == {"dead", "waiting"})
        named = {"keys": [(1, setup.destination_id)], "state": DeliveryState.DEAD}
        assert await setup.writer.submit(unsettled.discard, **named, now_us=1, why="by ann: a test") == 1
        dispatcher.wake()
        await setup.until("delivered")
    assert sink.keys == ["evt_1", "evt_2"]


async def test_a_dead_letter_may_be_skipped_and_comes_late_then(setup: Any) -> None:
    sink = Sink(evt_1=[BROKEN])
    async with setup.delivering(ordered(setup, sink, retry=ONCE, order_skips_dead=True)) as dispatcher:
        await setup.record(of(setup, "evt_1"), of(setup, "evt_2", at=1))
        await setup.wait_for(lambda rows: {row.state for row in rows} == {"dead", "delivered"})
        assert await setup.store.read(ordering.blocked) == []
        await setup.writer.submit(dead_letters.requeue, now_us=to_us(system_clock()))
        dispatcher.wake()
        await setup.until("delivered")
    assert [(each.key, each.late) for each in sink.got] == [("evt_1", None), ("evt_2", None), ("evt_1", "replayed")]


async def test_a_held_one_keeps_the_next_waiting_until_it_is_released(setup: Any) -> None:
    async with routed(setup):
        await setup.record(*(of(setup, f"evt_{n}", at=n) for n in range(3)))
    held = update(DELIVERY).where(DELIVERY.c.event_seq == 1).values(state="held", reason="version_mismatch")
    await setup.writer.submit(lambda c: c.execute(held).rowcount)
    assert await claimed(setup) == []
    await setup.writer.submit(dead_letters.release, now_us=to_us(system_clock()))
    assert [each.seq for each in await claimed(setup)] == [1]


async def test_what_a_restored_backup_holds_comes_back_in_order(setup: Any) -> None:
    async with routed(setup):
        await setup.record(*(of(setup, f"evt_{n}", at=n) for n in range(3)))
    assert await setup.writer.submit(dead_letters.hold_pending, reason="restored") == 3
    await setup.writer.submit(dead_letters.release, now_us=1)
    assert await states(setup) == ["pending", "waiting", "waiting"]


async def test_what_the_list_must_show_first_keeps_its_place(setup: Any) -> None:
    async with routed(setup, require_listed=True):
        seqs = await setup.record(of(setup, "evt_1"), of(setup, "evt_2", at=1))
        assert await states(setup) == ["held", "held"]
        await setup.writer.submit(dead_letters.owe_listed, seqs=[seqs["evt_2"]], now_us=1)
        assert await states(setup) == ["held", "waiting"]
        assert await setup.store.read(ordering.blocked) == []
        await setup.writer.submit(dead_letters.owe_listed, seqs=[seqs["evt_1"]], now_us=1)
    assert await states(setup) == ["pending", "waiting"]


async def test_a_withdrawn_delivery_lets_the_next_go(setup: Any) -> None:
    async with routed(setup):
        await setup.record(of(setup, "evt_1"), of(setup, "evt_2", at=1))
    (claim,) = await claimed(setup)
    await settle(setup, settled(claim, None))
    assert [each.seq for each in await claimed(setup)] == [2]


async def test_a_replay_of_what_was_delivered_overtakes_and_is_marked(setup: Any) -> None:
    async with routed(setup):
        seqs = await setup.record(*(of(setup, f"evt_{n}", at=n) for n in range(3)))
        (claim,) = await claimed(setup)
        await settle(setup, settled(claim))
    await setup.writer.submit(lambda c: dead_letters.replay(c, setup.destination_id, [*seqs.values()], 1))
    rows = await setup.deliveries()
    assert [row.state for row in rows] == ["pending", "pending", "waiting"]
    assert [row.late for row in rows] == ["replayed", None, None]


async def test_a_paused_process_that_settles_late_lets_nothing_overtake(setup: Any) -> None:
    async with routed(setup):
        await setup.record(of(setup, "evt_1"), of(setup, "evt_2", at=1))
    (paused,) = await claimed(setup)
    (newer,) = await claimed(setup, to_us(system_clock()) + 2 * LEASE_US)
    await settle(setup, settled(paused))
    assert await states(setup) == ["pending", "waiting"]
    await settle(setup, settled(newer))
    assert await states(setup) == ["delivered", "pending"]


async def test_without_an_order_any_more_nothing_waits(setup: Any) -> None:
    async with routed(setup):
        await setup.record(*(of(setup, f"evt_{n}", at=n) for n in range(5)))
    sink = Sink()
    async with setup.delivering(setup.destination(sink)):
        await setup.until("delivered")
    assert len(sink.got) == 5


async def test_dead_letters_of_before_may_be_skipped_from_the_next_start_on(setup: Any) -> None:
    sink = Sink(evt_1=[BROKEN])
    async with setup.delivering(ordered(setup, sink, retry=ONCE)):
        await setup.record(of(setup, "evt_1"), of(setup, "evt_2", at=1))
        await setup.wait_for(lambda rows: {row.state for row in rows} == {"dead", "waiting"})
    async with setup.delivering(ordered(setup, sink, retry=ONCE, order_skips_dead=True)):
        await setup.wait_for(lambda rows: {row.state for row in rows} == {"dead", "delivered"})


async def test_what_a_fault_left_stranded_goes_on_at_the_next_start(setup: Any) -> None:
    async with routed(setup):
        await setup.record(*(of(setup, f"evt_{n}", at=n) for n in range(3)))
    gone = update(DELIVERY).where(DELIVERY.c.event_seq == 1).values(state="delivered")
    await setup.writer.submit(lambda c: c.execute(gone).rowcount)
    sink = Sink()
    async with setup.delivering(ordered(setup, sink)):
        await setup.until("delivered")
    assert sink.keys == ["evt_1", "evt_2"]


async def test_one_blocked_object_with_many_events_starves_nobody(setup: Any) -> None:
    async with routed(setup):
        await setup.record(*(of(setup, f"evt_{n}", at=n) for n in range(300)))
        (claim,) = await claimed(setup)
        await settle(setup, settled(claim, DeliveryState.DEAD, reason="timeout"))
        await setup.record(*(of(setup, f"other_{n}", f"cus_{n + 2}") for n in range(20)))
    assert len(await claimed(setup)) == 20


@pytest.fixture
async def other(setup: Any, store_url: str) -> AsyncIterator[Store]:  # noqa: ARG001 - its tables
    """A second process's connection to the same PostgreSQL."""
    store = open_store(store_url)
    yield store
    await store.close()


class Held:
    """A transaction that stays open for a while after its work; `done` is set when the work is done."""

    def __init__(self, store: Store, work: Callable[[Connection], object]) -> None:
        self.done = asyncio.Event()
        self._work = work
        self._running = asyncio.create_task(store.write(self._run))

    def _run(self, connection: Connection) -> None:
        self._work(connection)
        self.done.set()
        connection.exec_driver_sql("SELECT pg_sleep(0.3)")

    async def __aenter__(self) -> None:
        await self.done.wait()

    async def __aexit__(self, *_: object) -> None:
        await self._running


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
async def test_what_is_added_while_the_one_before_is_settled_is_not_stranded(setup: Any, other: Store) -> None:
    async with routed(setup):
        await setup.record(of(setup, "evt_1"))
        (claim,) = await claimed(setup)
        async with Held(other, lambda c: deliveries.settle(c, [settled(claim)])):
            await setup.record(of(setup, "evt_2", at=1))
    assert await states(setup) == ["delivered", "pending"]


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
async def test_what_is_settled_while_another_is_added_lets_that_go(setup: Any, other: Store) -> None:
    async with routed(setup):
        await setup.record(of(setup, "evt_1"))
        (claim,) = await claimed(setup)
        added = of(setup, "evt_2", at=1)
        async with Held(other, lambda c: setup.recorder.store(c, [added])):
            await settle(setup, settled(claim))
    assert await states(setup) == ["delivered", "pending"]


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
async def test_an_event_whose_commit_takes_long_is_not_overtaken(setup: Any, other: Store) -> None:
    async with routed(setup):
        slow = of(setup, "evt_1")
        async with Held(other, lambda c: setup.recorder.store(c, [slow])):
            await setup.record(of(setup, "evt_2", at=1))
    assert await states(setup) == ["pending", "waiting"]


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_an_order_costs_the_same_however_many_wait(setup: Any) -> None:
    async with routed(setup):
        await setup.record(*(of(setup, f"evt_{n}", f"cus_{n % 7}", n) for n in range(200)))
    claims = await claimed(setup)
    plans = await setup.writer.submit(_explained, [settled(each) for each in claims])
    by_key = "SEARCH delivery USING PRIMARY KEY (destination_id=? AND event_seq=?)"
    due = "SEARCH delivery USING INDEX ix_delivery_due (destination_id=?"
    head = "SEARCH delivery USING INDEX ix_delivery_order (destination_id=? AND order_key=?)"
    newest = "SEARCH delivery USING INDEX ix_delivery_newest (destination_id=? AND order_key=?)"
    assert plans["settle and claim"] == [by_key, f"{due} AND next_us<?)", by_key, f"{due})"]
    assert plans["look"] == [head, newest]


def _explained(connection: Any, settlements: list[Settlement]) -> dict[str, list[str]]:
    executed: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, many: bool) -> None:
        executed.append((statement, parameters[0] if many else parameters))

    sql_event.listen(connection, "before_cursor_execute", note)
    deliveries.settle_and_claim(connection, 1, settlements, now_us=1 << 60, limit=64, lease_us=1)
    sql_event.remove(connection, "before_cursor_execute", note)
    looks = [(text.format("?", "?"), (1, 1)) for text in (ordering.HEAD, ordering.NEWEST)]

    def plan(statements: list[tuple[str, Any]]) -> list[str]:
        steps = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all() for text, values in statements]
        return [step[-1] for each in steps for step in each if " delivery" in step[-1]]

    return {"settle and claim": plan(executed), "look": plan(looks)}


async def test_event_show_says_what_waits_and_what_has_no_order(setup: Any) -> None:
    async with routed(setup):
        seqs = await setup.record(of(setup, "evt_1"), of(setup, "evt_2", at=1), of(setup, "free", None))
    found = {key: await setup.store.read(deliveries.of_event, seq=seq) for key, seq in seqs.items()}
    assert {key: (each.state, each.is_ordered) for key, (each,) in found.items()} == {
        "evt_1": ("pending", True),
        "evt_2": ("waiting", True),
        "free": ("pending", False),
    }


def test_objects_of_two_sources_are_two() -> None:
    assert ordering.key_of(1, "cus_1") != ordering.key_of(2, "cus_1")
    assert ordering.key_of(1, "cus_1") == ordering.key_of(1, "cus_1")
    assert -(1 << 63) <= ordering.key_of(1, "cus_1") < 1 << 63


async def test_seqs_of_an_object_are_in_the_order_of_commits(setup: Any) -> None:
    async with routed(setup):
        await asyncio.gather(*(setup.record(of(setup, f"evt_{n:02}", at=n)) for n in range(10)))
    query = select(DELIVERY.c.event_seq).order_by(DELIVERY.c.order_us, DELIVERY.c.event_seq)
    found = await setup.store.read(lambda c: list(c.execute(query).scalars()))
    assert found == sorted(found)


async def test_what_waits_is_held_too_while_the_key_reads_another_account(setup: Any) -> None:
    async with routed(setup):
        await setup.record(of(setup, "a1"))
        await setup.record(of(setup, "a2", at=1, via=Via.LIST))
    hold = {"source_id": setup.source.id, "reason": "other_account", "now_us": to_us(system_clock())}
    assert await setup.writer.submit(dead_letters.hold_listed, **hold) == 1
    assert await setup.writer.submit(dead_letters.hold_listed, **hold) == 0
    (first,) = await claimed(setup)
    await settle(setup, settled(first))
    assert await claimed(setup) == []
    owed = {"source_id": setup.source.id, "reason": "other_account"}
    assert await setup.writer.submit(dead_letters.owe_held, **owed) == 1
    assert [each.seq for each in await claimed(setup)] == [2]
