"""Delivered means applied: a 2xx is not enough where a destination needs a receipt."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from gapless.deliver.retry import ReceiptRule
from gapless.deliver.routing import Destination
from gapless.destinations.contract import Delivered, Delivery, Failed, FailureReason, Result
from gapless.domain import system_clock, to_us
from gapless.ledger import backlogs, dead_letters, deliveries
from gapless.ledger.backlogs import Unconfirmed
from gapless.ledger.tables import ATTEMPT, DELIVERY
from gapless.operations.context import OperationContext
from gapless.operations.registry import perform
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds

pytestmark = pytest.mark.anyio
SOON, LATER = timedelta(milliseconds=1), timedelta(hours=1)
APPLIED = "gapless-applied: true"


class Sink:
    """A sender that gives one answer after the other, and then the last one for ever."""

    def __init__(self, *answers: Result) -> None:
        self.answers = list(answers) or [Delivered()]
        self.got: list[Delivery] = []

    async def send(self, delivery: Delivery) -> Result:
        self.got.append(delivery)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def close(self) -> None:
        return


def confirmed(setup: Any, sender: Any, within: timedelta = LATER, answers: int = 3, **changes: Any) -> Destination:
    rule = ReceiptRule(within=within, max_answers=answers)
    made: Destination = setup.destination(sender, confirm=rule, **changes)
    return made


async def do(setup: Any, name: str, args: Mapping[str, object], **parts: Any) -> dict[str, Any]:
    runtime = setup.runtime
    evidence = EvidenceFetcher(httpx.AsyncClient(), runtime.clock, runtime.metrics)
    context = OperationContext(runtime=runtime, evidence=evidence, stream_ids=StreamIds(runtime.writer), **parts)
    return await perform(context, name, args)


async def receipt(setup: Any, *keys: str) -> dict[str, Any]:
    return await do(setup, "receipts", {"destination": "app", "source": "acme", "keys": keys})


def answered(rows: list[Any]) -> bool:
    return all(row.answers for row in rows)


async def test_a_2xx_is_not_enough_until_the_receipt_comes(setup: Any, consumer: Any) -> None:
    async with setup.delivering(confirmed(setup, setup.http(consumer.url))):
        await setup.record(setup.sighting("evt_1"))
        await setup.wait_for(answered)
        (row,) = await setup.deliveries()
        assert (row.state, row.attempts, row.applied_us) == ("pending", 1, None)
        assert row.answered_us is not None
        assert await receipt(setup, "evt_1") == {"new": 1, "known": 0, "settled": 1}
        (row,) = await setup.deliveries()
    assert (row.state, len(consumer.got)) == ("delivered", 1)
    assert row.answered_us <= row.applied_us
    assert await setup.outcomes() == ["answered"]
    assert setup.counted("answered") == 1


async def test_the_answer_itself_can_be_the_receipt(setup: Any, consumer: Any) -> None:
    consumer.will_answer(200, APPLIED)
    async with setup.delivering(confirmed(setup, setup.http(consumer.url))):
        await setup.record(setup.sighting("evt_1"))
        (row,) = await setup.until("delivered")
    assert row.applied_us == row.answered_us == row.done_us
    assert await setup.outcomes() == ["delivered"]


@pytest.mark.parametrize("header", ["gapless-applied: false", "gapless-applied:", "x-applied: true"])
async def test_another_header_is_no_receipt(setup: Any, consumer: Any, header: str) -> None:
    consumer.will_answer(200, header)
    async with setup.delivering(confirmed(setup, setup.http(consumer.url))):
        await setup.record(setup.sighting("evt_1"))
        await setup.wait_for(answered)
    assert await setup.states() == {"pending"}


async def test_what_is_not_confirmed_in_time_is_sent_again_and_counted(setup: Any) -> None:
    sink = Sink(Delivered(), Delivered(applied=True))
    async with setup.delivering(confirmed(setup, sink, SOON)):
        await setup.record(setup.sighting("evt_1"))
        (row,) = await setup.until("delivered")
    assert [each.attempt for each in sink.got] == [1, 2]
    assert len({each.id for each in sink.got}) == 1
    assert (row.attempts, row.answers) == (2, 1)
    late = setup.metrics.registry.get_sample_value("gapless_receipts_late_total", {"destination": "app"})
    assert late == 1


async def test_what_is_never_confirmed_is_a_dead_letter_and_never_delivered(setup: Any) -> None:
    sink = Sink()
    async with setup.delivering(confirmed(setup, sink, SOON, answers=3)):
        await setup.record(setup.sighting("evt_1"))
        (row,) = await setup.until("dead")
    assert (row.reason, row.attempts, row.answers, row.applied_us) == ("unconfirmed", 3, 3, None)
    assert await setup.outcomes() == ["answered"] * 3
    assert setup.counted("dead") == 1


async def test_failures_before_and_after_a_2xx_have_their_own_budget(setup: Any) -> None:
    fails = Failed(reason=FailureReason.CONSUMER_5XX, detail="HTTP 500")
    sink = Sink(fails, Delivered(), fails, Delivered(applied=True))
    async with setup.delivering(confirmed(setup, sink, SOON)):
        await setup.record(setup.sighting("evt_1"))
        (row,) = await setup.until("delivered")
    assert (row.attempts, row.answers) == (4, 1)


@pytest.mark.parametrize("state", ["pending", "held", "parked", "dead", "waiting"])
async def test_a_receipt_settles_a_delivery_in_any_state(setup: Any, state: str) -> None:
    seqs = await setup.record(setup.sighting("evt_1"))
    change = update(DELIVERY).values(state=state, lease_us=5)
    await setup.writer.submit(lambda c: c.execute(change).rowcount)
    assert (await receipt(setup, "evt_1"))["settled"] == 1
    assert (await receipt(setup, "evt_1"))["settled"] == 0
    (row,) = await setup.deliveries()
    assert (row.state, row.lease_us) == ("delivered", 0)
    assert row.applied_us == row.done_us
    (shown,) = await setup.store.read(deliveries.of_event, seq=seqs["evt_1"])
    assert shown.applied_us == row.applied_us


async def test_a_receipt_during_an_attempt_settles_it(setup: Any) -> None:
    class Telling(Sink):
        async def send(self, delivery: Delivery) -> Result:
            await receipt(setup, delivery.key)
            return await super().send(delivery)

    sink = Telling(Failed(reason=FailureReason.CONSUMER_5XX, detail="HTTP 500"))
    async with setup.delivering(confirmed(setup, sink)):
        await setup.record(setup.sighting("evt_1"))
        await setup.until("delivered")
    assert len(sink.got) == 1
    assert await setup.outcomes() == ["consumer_5xx"]


async def test_an_early_receipt_is_applied_when_its_event_is_recorded(setup: Any) -> None:
    sink = Sink(Delivered(applied=True))
    async with setup.delivering(confirmed(setup, sink)):
        assert (await receipt(setup, "evt_1"))["settled"] == 0
        await setup.record(setup.sighting("evt_1"), setup.sighting("evt_2"))
        rows = await setup.until("delivered")
    assert [each.key for each in sink.got] == ["evt_2"]
    assert all(row.applied_us is not None for row in rows)


async def test_a_receipt_that_met_its_event_half_recorded_settles_it(setup: Any) -> None:
    """Neither transaction saw the other: the event's did not see the receipt, nor the receipt's the delivery."""
    await setup.record(setup.sighting("evt_1"))
    await receipt(setup, "evt_1")
    undone = update(DELIVERY).values(state="pending", done_us=None, applied_us=None)
    await setup.writer.submit(lambda c: c.execute(undone).rowcount)
    sink = Sink()
    async with setup.delivering(confirmed(setup, sink)):
        (row,) = await setup.until("delivered")
    assert not sink.got
    assert row.applied_us is not None


async def test_a_replay_of_a_confirmed_event_needs_a_receipt_again(setup: Any) -> None:
    sink = Sink(Delivered(applied=True), Delivered())
    async with setup.delivering(confirmed(setup, sink)) as dispatcher:
        seqs = await setup.record(setup.sighting("evt_1"))
        await setup.until("delivered")
        now_us = to_us(system_clock())
        await setup.writer.submit(lambda c: dead_letters.replay(c, setup.destination_id, [*seqs.values()], now_us))
        dispatcher.wake()
        await setup.wait_for(answered)
        assert await setup.states() == {"pending"}
        await receipt(setup, "evt_1")
    assert await setup.states() == {"delivered"}
    assert len(sink.got) == 2


async def test_a_requeued_unconfirmed_dead_letter_has_its_answers_again(setup: Any) -> None:
    sink = Sink(Delivered(), Delivered(applied=True))
    async with setup.delivering(confirmed(setup, sink, SOON, answers=1)) as dispatcher:
        await setup.record(setup.sighting("evt_1"))
        await setup.until("dead")
        assert await do(setup, "dead.requeue", {}, wake=dispatcher.wake) == {"requeued": 1}
        (row,) = await setup.until("delivered")
    assert (row.attempts, row.answers) == (1, 0)


async def test_trap_failed_after_taken_event_is_sent_again(setup: Any) -> None:
    """The consumer stored it and its handler failed: without a receipt it is sent again, and not lost for good."""
    applied: list[str] = []

    async def work(delivery: Delivery) -> None:
        if len(sink.got) > 1:
            applied.append(delivery.key)
            await receipt(setup, delivery.key)

    class Taking(Sink):
        async def send(self, delivery: Delivery) -> Result:
            result = await super().send(delivery)
            await work(delivery)
            return result

    sink = Taking()
    async with setup.delivering(confirmed(setup, sink, SOON)):
        await setup.record(setup.sighting("evt_1"))
        await setup.until("delivered")
    assert applied == ["evt_1"]


async def test_the_backlog_tells_answered_from_late(setup: Any) -> None:
    async with setup.delivering(confirmed(setup, Sink())):
        await setup.record(setup.sighting("evt_1"))
        await setup.wait_for(answered)
    now_us = to_us(system_clock())
    (part,) = await setup.store.read(backlogs.read, now_us=now_us)
    (row,) = await setup.deliveries()
    waits = Unconfirmed(count=1, resent=0, since_us=row.answered_us)
    assert (part.late_us, await setup.store.read(backlogs.unconfirmed, destination_id=1)) == (None, waits)
    await setup.writer.submit(lambda c: c.execute(update(DELIVERY).values(answers=2)).rowcount)
    (part,) = await setup.store.read(backlogs.read, now_us=row.next_us)
    resent = replace(waits, resent=1)
    assert (part.late_us, await setup.store.read(backlogs.unconfirmed, destination_id=1)) == (row.next_us, resent)


async def test_attempts_of_a_receipt_are_stored_beside_the_answer(setup: Any) -> None:
    async with setup.delivering(confirmed(setup, Sink())):
        await setup.record(setup.sighting("evt_1"))
        await setup.wait_for(answered)
        await receipt(setup, "evt_1")
    (row,) = await setup.deliveries()
    (at_us,) = await setup.store.read(lambda c: c.execute(ATTEMPT.select()).all())
    assert at_us.at_us <= row.answered_us <= row.applied_us
