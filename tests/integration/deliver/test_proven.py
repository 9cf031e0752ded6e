"""A destination can be given only what is proven: nothing earlier of the source is missing."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event as sql_event
from sqlalchemy import insert, select, update

from gapless.bootstrap.destinations import make_destinations
from gapless.deliver.routing import Destination
from gapless.destinations.contract import Delivered, Delivery, DestinationInvalid, Failed, FailureReason, Result
from gapless.domain import Mode, Order, Release, Sources, Via, system_clock, to_us
from gapless.ledger import backlogs, dead_letters, deliveries, destinations, proof
from gapless.ledger.tables import ABSENCE, MISSING, RELEASED, STREAM
from gapless.settings import DestinationSettings, Settings

pytestmark = pytest.mark.anyio
START = system_clock()


class Sink:
    def __init__(self, **answers: list[Result]) -> None:
        self.got: list[Delivery] = []
        self.answers = answers

    async def send(self, delivery: Delivery) -> Result:
        self.got.append(delivery)
        left = self.answers.get(delivery.key, [])
        return left.pop(0) if left else Delivered()

    async def close(self) -> None:
        return

    @property
    def keys(self) -> list[str]:
        return [each.key for each in self.got]


def proven(setup: Any, sender: Any, **changes: Any) -> Destination:
    made: Destination = setup.destination(sender, release=Release.PROVEN, **changes)
    return made


def of(setup: Any, key: str, at: float, about: str | None = "cus_1", via: Via = Via.WEBHOOK) -> Any:
    """A sighting of an event that occurred `at` seconds after the first."""
    return setup.sighting(key, via, object_key=about, occurred_at=START + timedelta(seconds=at))


async def complete_up_to(setup: Any, at: float, stream_id: int | None = None) -> None:
    """Let the list be read up to `at` seconds after the first event."""
    values = {"watermark_us": to_us(START + timedelta(seconds=at)), "checked_us": 1}
    moved = update(STREAM).where(STREAM.c.id == (stream_id or setup.stream_id)).values(**values)
    await setup.writer.submit(lambda c: c.execute(moved).rowcount)


async def states(setup: Any) -> dict[int, str]:
    return {row.event_seq: row.state for row in await setup.deliveries()}


async def test_nothing_is_sent_before_the_list_was_read(setup: Any) -> None:
    sink = Sink()
    async with setup.delivering(proven(setup, sink)):
        await setup.record(of(setup, "evt_1", 1), of(setup, "evt_2", 2))
        assert await setup.states() == {"waiting"}
        await complete_up_to(setup, 2)
        await setup.wait_for(lambda rows: any(row.state == "delivered" for row in rows))
        assert sink.keys == ["evt_1"]
        (part,) = await setup.store.read(backlogs.read, now_us=to_us(system_clock()))
        assert (part.state, part.count, await setup.store.read(backlogs.unproven, destination_id=1)) == (
            "waiting",
            1,
            1,
        )
        await complete_up_to(setup, 3)
        await setup.until("delivered")
    assert sink.keys == ["evt_1", "evt_2"]
    assert {each.late for each in sink.got} == {None}


async def test_they_are_sent_as_they_occurred_and_not_as_they_came(setup: Any) -> None:
    sink = Sink()
    async with setup.delivering(proven(setup, sink, concurrency=32)):
        for at in (5, 3, 9, 1, 7):
            await setup.record(of(setup, f"evt_{at}", at, about=f"cus_{at}"))
        await complete_up_to(setup, 10)
        await setup.until("delivered")
    assert sink.keys == ["evt_1", "evt_3", "evt_5", "evt_7", "evt_9"]


async def test_with_an_order_only_those_of_an_object_wait_for_each_other(setup: Any) -> None:
    fails = Failed(reason=FailureReason.CONSUMER_5XX, detail="HTTP 500", permanent=True)
    sink = Sink(evt_1=[fails])
    async with setup.delivering(proven(setup, sink, order=Order.OBJECT)):
        await setup.record(of(setup, "evt_3", 3), of(setup, "other", 2, "cus_2"), of(setup, "free", 5, None))
        await setup.record(of(setup, "evt_1", 1))
        await complete_up_to(setup, 10)
        await setup.wait_for(
            lambda rows: sorted(row.state for row in rows) == ["dead", "delivered", "delivered", "waiting"]
        )
    assert sorted(sink.keys) == ["evt_1", "free", "other"]


async def test_what_is_found_behind_comes_late_and_says_so(setup: Any) -> None:
    sink = Sink()
    async with setup.delivering(proven(setup, sink)):
        await setup.record(of(setup, "evt_5", 5))
        await complete_up_to(setup, 10)
        await setup.until("delivered")
        await setup.record(of(setup, "evt_4", 4, via=Via.LIST), of(setup, "evt_3", 3))
        await setup.until("delivered")
        await setup.record(of(setup, "evt_12", 12))
        await complete_up_to(setup, 13)
        await setup.until("delivered")
    late = {each.key: each.late for each in sink.got}
    assert late == {"evt_5": None, "evt_4": "recovered", "evt_3": "recovered", "evt_12": None}


async def test_the_proof_ends_before_what_is_missing_or_lacked(setup: Any) -> None:
    await complete_up_to(setup, 100)
    at_us = [to_us(START + timedelta(seconds=at)) for at in (50, 70)]
    of_source = {"source_id": setup.source.id, "stream_id": setup.stream_id, "type": "t", "reason": "detail"}
    missing = {**of_source, "key": "evt_50", "occurred_us": at_us[0], "found_us": 1, "next_attempt_us": 1}
    absent = {"event_seq": 1, "stream_id": setup.stream_id, "occurred_us": at_us[1], "found_us": 1, "pass_id": 1}
    await setup.writer.submit(lambda c: c.execute(insert(MISSING).values(**missing)).rowcount)
    await setup.writer.submit(lambda c: c.execute(insert(ABSENCE).values(**absent, next_us=1)).rowcount)
    read = setup.store.read
    assert await read(proof.complete_up_to_us, source_id=setup.source.id) == at_us[0]
    await setup.writer.submit(lambda c: c.execute(update(MISSING).values(state="recovered")).rowcount)
    assert await read(proof.complete_up_to_us, source_id=setup.source.id) == at_us[1]
    await setup.writer.submit(lambda c: c.execute(update(ABSENCE).values(state="listed")).rowcount)
    assert await read(proof.complete_up_to_us, source_id=setup.source.id) == to_us(START + timedelta(seconds=100))


async def test_a_stream_that_was_never_read_proves_nothing(setup: Any) -> None:
    await complete_up_to(setup, 10)
    row = {"source_id": setup.source.id, "name": "acct_2", "complete_from_us": 1, "watermark_us": to_us(START)}
    await setup.writer.submit(lambda c: c.execute(insert(STREAM).values(**row)).rowcount)
    assert await setup.store.read(proof.complete_up_to_us, source_id=setup.source.id) is None
    assert await setup.writer.submit(proof.release, destination_id=setup.destination_id, source_id=setup.source.id) == 0


async def test_a_release_goes_on_where_a_crash_has_left_it(setup: Any) -> None:
    """A batch ends within one second: what else occurred in it is not late."""
    async with setup.delivering(proven(setup, Sink())) as dispatcher:
        dispatcher.stop()
        await setup.record(*(of(setup, f"evt_{n}", n // 3) for n in range(12)))
    await complete_up_to(setup, 100)
    named = {"destination_id": setup.destination_id, "source_id": setup.source.id, "limit": 5}
    assert await setup.writer.submit(proof.release, **named) == 5
    up_to = select(RELEASED.c.up_to_us)
    assert await setup.store.read(lambda c: c.execute(up_to).scalar_one()) == to_us(START + timedelta(seconds=1))
    sink = Sink()
    async with setup.delivering(proven(setup, sink)):
        await setup.record(of(setup, "again", 1))
        await setup.until("delivered")
    times = [each.occurred_at for each in sink.got]
    assert (len(times), times) == (13, sorted(times))
    assert {each.late for each in sink.got} == {None}


async def test_what_is_held_is_proven_and_still_held(setup: Any) -> None:
    async with setup.delivering(proven(setup, Sink(), require_listed=True)):
        seqs = await setup.record(of(setup, "evt_1", 1))
        await complete_up_to(setup, 10)
        await setup.wait_for(lambda rows: rows[0].unproven_id is None)
        assert await setup.states() == {"held"}
        await setup.writer.submit(dead_letters.owe_listed, seqs=[*seqs.values()], now_us=1)
        await setup.until("delivered")


async def test_a_release_by_a_person_proves_nothing(setup: Any) -> None:
    async with setup.delivering(proven(setup, Sink(), require_listed=True)) as dispatcher:
        dispatcher.stop()
        seqs = await setup.record(of(setup, "evt_1", 1))
    await setup.writer.submit(dead_letters.release, now_us=1)
    assert await setup.states() == {"waiting"}
    await setup.writer.submit(dead_letters.replay, destination_id=setup.destination_id, seqs=[*seqs.values()], now_us=1)
    assert await setup.states() == {"waiting"}
    (shown,) = await setup.store.read(deliveries.of_event, seq=seqs["evt_1"])
    assert shown.is_unproven


async def test_without_proof_any_more_nothing_waits_for_it(setup: Any) -> None:
    async with setup.delivering(proven(setup, Sink())) as dispatcher:
        dispatcher.stop()
        await setup.record(of(setup, "evt_2", 2), of(setup, "evt_1", 1), of(setup, "free", 3, None))
    sink = Sink()
    async with setup.delivering(setup.destination(sink, order=Order.OBJECT)):
        await setup.until("delivered")
    assert [key for key in sink.keys if key != "free"] == ["evt_1", "evt_2"]


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_a_look_for_what_is_proven_costs_the_same_however_much_waits(setup: Any) -> None:
    async with setup.delivering(proven(setup, Sink())) as dispatcher:
        dispatcher.stop()
        await setup.record(*(of(setup, f"evt_{n}", n) for n in range(200)))
    await complete_up_to(setup, 50)
    executed: list[Any] = []

    def look(connection: Any) -> list[str]:
        sql_event.listen(connection, "before_cursor_execute", lambda *args: executed.append((args[2], args[3])))
        proof.due(connection, setup.destination_id)
        proof.release(connection, setup.destination_id, setup.source.id)
        steps = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all() for text, values in [*executed]]
        return [step[-1] for each in steps for step in each if " delivery" in step[-1]]

    plans = await setup.writer.submit(look)
    unproven = "ix_delivery_unproven (destination_id=? AND unproven_id=?"
    by_key = "SEARCH delivery USING PRIMARY KEY (destination_id=? AND event_seq=?)"
    assert [plan for plan in plans if unproven not in plan] == [by_key, by_key]
    assert len(plans) == 5


def test_a_source_without_a_list_is_refused() -> None:
    settings = Settings(destinations=(DestinationSettings(name="app", release=Release.PROVEN),))
    rows: Any = SimpleNamespace(destinations={"app": (1, 0)})
    source: Any = SimpleNamespace(name="acme", mode=Mode.WEBHOOK)
    with pytest.raises(DestinationInvalid, match='no list of source "acme" is read'):
        make_destinations(settings, rows, Sources([source]), system_clock)


async def test_what_waits_for_the_list_of_a_retired_source_is_parked(setup: Any) -> None:
    sink = Sink()
    async with setup.delivering(proven(setup, sink)) as dispatcher:
        await setup.record(of(setup, "evt_1", 0), of(setup, "evt_2", 1))
        assert await setup.writer.submit(dead_letters.park_source, source_id=setup.source.id) == 2
        await complete_up_to(setup, 10)
        released = {"destination_id": setup.destination_id, "source_id": setup.source.id}
        assert await setup.writer.submit(proof.release, **released) in (0, 2)  # the worker may have done it
        await setup.writer.submit(destinations.retire_absent_destinations, configured=[])
        await setup.writer.submit(destinations.register_destination, name="app", since=START)
        assert set((await states(setup)).values()) == {"parked"}
        assert await setup.writer.submit(dead_letters.unpark_source, source_id=setup.source.id) == 2
        dispatcher.wake()
        await setup.until("delivered")
    assert sink.keys == ["evt_1", "evt_2"]
