"""Which answers are final, when a delivery is tried again, and when it is too old."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from gapless.deliver.breaker import BreakerRule
from gapless.deliver.retry import DeliveryRetryPolicy
from gapless.destinations.contract import Delivery, Result
from gapless.destinations.http import read_status
from gapless.domain import system_clock, to_us
from gapless.ledger import dead_letters
from gapless.ledger.tables import DELIVERY

pytestmark = pytest.mark.anyio
ONCE_AGED = DeliveryRetryPolicy(
    first=timedelta(milliseconds=1),
    longest=timedelta(milliseconds=1),
    max_attempts=1000,
    waits=(timedelta(milliseconds=1),),
    max_age=timedelta(hours=1),
)


async def test_trap_a_handler_with_a_wrong_secret_kills_no_delivery(setup: Any, consumer: Any) -> None:
    consumer.will_answer(400, times=60)
    events, rule = [f"evt_{number}" for number in range(50)], BreakerRule(threshold=5, rest=timedelta(milliseconds=20))
    patient = DeliveryRetryPolicy(
        first=timedelta(milliseconds=5), longest=timedelta(milliseconds=9), max_attempts=900, waits=(), max_age=None
    )
    destination = setup.destination(setup.http(consumer.url), breaker=rule, retry=patient, concurrency=4)
    async with setup.delivering(destination) as dispatcher:
        await setup.record(*map(setup.sighting, events))
        await setup.wait_for(lambda _: setup.metrics.registry.get_sample_value(*circuit()) == 1)
        assert len(consumer.got) < len(events)
        consumer.answers.clear()
        dispatcher.wake()
        await setup.until("delivered")
    assert setup.counted("dead") == 0


async def test_events_that_are_refused_for_their_own_sake_keep_no_other_waiting(setup: Any) -> None:
    class Picky:
        async def send(self, delivery: Delivery) -> Result:
            return read_status(400 if delivery.key.startswith("bad") else 200)

        async def close(self) -> None:
            return

    rule = BreakerRule(threshold=5, rest=timedelta(milliseconds=200), longest=timedelta(hours=1))
    patient = DeliveryRetryPolicy(
        first=timedelta(milliseconds=5), longest=timedelta(milliseconds=9), max_attempts=900, waits=(), max_age=None
    )
    async with setup.delivering(setup.destination(Picky(), breaker=rule, retry=patient)) as dispatcher:
        await setup.record(*(setup.sighting(f"bad_{number}") for number in range(14)))
        await setup.wait_for(lambda _: setup.metrics.registry.get_sample_value(*circuit()) == 1)
        await setup.record(setup.sighting("good"))  # 14 single probes would take 50 minutes to come to it
        dispatcher.wake()
        await setup.wait_for(lambda rows: rows[-1].state == "delivered")


def circuit() -> tuple[str, dict[str, str]]:
    return "gapless_circuit_open", {"destination": "app"}


async def test_a_destination_says_which_answers_are_final(setup: Any, consumer: Any) -> None:
    consumer.will_answer(410)
    consumer.will_answer(422)
    async with setup.delivering(setup.destination(setup.http(consumer.url, final=(422,)))):
        await setup.record(setup.sighting("evt_1"))
        (row,) = await setup.until("dead")
    assert (row.reason, row.attempts) == ("consumer_4xx", 2)


async def test_trap_hookaido_a_requeued_dead_letter_is_young_again(setup: Any, consumer: Any) -> None:
    consumer.will_answer(503, times=1000)
    long_ago = to_us(system_clock() - timedelta(days=1))
    async with setup.delivering(setup.destination(setup.http(consumer.url), retry=ONCE_AGED)) as dispatcher:
        await setup.record(setup.sighting("evt_1"))
        await setup.wait_for(lambda rows: rows[0].attempts >= 1 or rows[0].state != "pending")
        await setup.writer.submit(lambda c: c.execute(update(DELIVERY).values(first_us=long_ago)).rowcount)
        (row,) = await setup.until("dead")
        assert row.attempts < 1000
        consumer.answers.clear()
        consumer.will_answer(503, times=2)
        await setup.writer.submit(lambda c: dead_letters.requeue(c, to_us(system_clock())))
        dispatcher.wake()
        (row,) = await setup.until("delivered")
    assert row.attempts == 3
    assert row.first_us > long_ago
