"""Conditions of destinations: judged as the event is recorded, however it came."""

from typing import Any

import pytest

from gapless.condition import Condition
from gapless.domain import Via, system_clock, to_us
from gapless.ledger import dead_letters, events

pytestmark = pytest.mark.anyio
EUR = Condition("currency == 'eur' && amount > `10`")
BODIES = {
    "evt_yes": b'{"currency": "eur", "amount": 11}',
    "evt_no": b'{"currency": "usd", "amount": 11}',
    "evt_odd": b'{"currency": "eur"}',
    "evt_xml": b"<xml/>",
}


@pytest.mark.parametrize("via", [Via.WEBHOOK, Via.LIST])
async def test_pushed_and_recovered_events_are_judged_alike(setup: Any, consumer: Any, via: Via) -> None:
    destination = setup.destination(setup.http(consumer.url), when=EUR)
    async with setup.delivering(destination) as dispatcher:
        seqs = await setup.record(*(setup.sighting(key, via, body) for key, body in BODIES.items()))
        await setup.wait_for(lambda rows: sum(row.state == "delivered" for row in rows) == 1)
        rows = {row.event_seq: (row.state, row.reason) for row in await setup.deliveries()}
        assert rows == {
            seqs["evt_yes"]: ("delivered", None),
            seqs["evt_odd"]: ("held", "condition"),
            seqs["evt_xml"]: ("held", "condition"),
        }
        assert len(await setup.store.read(events.seqs_of, keys=list(BODIES))) == 4  # all of them are recorded

        released = await setup.writer.submit(
            lambda c: dead_letters.release(c, to_us(system_clock()), reason="condition")
        )
        dispatcher.wake()
        await setup.until("delivered")
    assert released == 2
    assert {got.headers["gapless-event-key"] for got in consumer.got} == {"evt_yes", "evt_odd", "evt_xml"}


async def test_what_no_condition_judged_is_not_sent_once_it_is_listed(setup: Any, consumer: Any) -> None:
    """The list shows that an event is genuine, and says nothing of the condition."""
    destination = setup.destination(setup.http(consumer.url), when=EUR, require_listed=True)
    async with setup.delivering(destination):
        seqs = await setup.record(setup.sighting("evt_odd", body=BODIES["evt_odd"]))
        owed = await setup.writer.submit(
            lambda c: dead_letters.owe_listed(c, list(seqs.values()), to_us(system_clock()))
        )
        (row,) = await setup.deliveries()
    assert (owed, row.state, row.reason) == (0, "held", "condition")
