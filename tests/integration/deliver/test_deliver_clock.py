"""A clock that jumps while deliveries wait, rest and are under way."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gapless.clock import ProcessClock
from gapless.daemon import maintenance
from gapless.deliver.breaker import BreakerRule
from gapless.deliver.dispatcher import Dispatcher
from gapless.deliver.retry import DeliveryRetryPolicy
from gapless.deliver.routing import build_route
from gapless.destinations.contract import Delivered, Delivery, Failed, FailureReason, Result
from gapless.domain import to_us
from gapless.ledger.engine import SqliteStore
from gapless.runtime import Runtime

pytestmark = pytest.mark.anyio
HOUR, YEAR = timedelta(hours=1), timedelta(days=365)
DOWN = Failed(reason=FailureReason.CONSUMER_5XX, detail="500")


class Consumer:
    """A sender that fails until it is `up`, and answers while it is not `busy`."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.up = False
        self.free = asyncio.Event()
        self.free.set()

    async def send(self, delivery: Delivery) -> Result:
        self.got.append(delivery.key)
        await self.free.wait()
        return Delivered() if self.up else DOWN

    async def close(self) -> None:
        return


class Machine:
    """A process whose machine's clock can be set."""

    def __init__(self, setup: Any) -> None:
        self.ahead = timedelta(0)
        real = ProcessClock()
        self.clock = ProcessClock(lambda: real() + self.ahead)
        runtime = setup.runtime
        self.runtime = Runtime(
            store=runtime.store,
            writer=runtime.writer,
            clock=self.clock,
            metrics=runtime.metrics,
            sources=runtime.sources,
        )

    async def jump(self, ahead: timedelta) -> None:
        self.ahead = ahead
        assert await maintenance.follow_clock(self.runtime) is isinstance(self.runtime.store, SqliteStore)
        await maintenance.correct_waits(self.runtime)


@pytest.mark.parametrize("jump", [HOUR, -HOUR, YEAR], ids=str)
async def test_a_jump_and_its_correction_hold_up_no_delivery(setup: Any, jump: timedelta) -> None:
    consumer, machine = Consumer(), Machine(setup)
    rule = BreakerRule(threshold=2, rest=timedelta(milliseconds=50), longest=timedelta(milliseconds=50))
    destination = setup.destination(consumer, breaker=rule)
    async with delivering(setup, destination, machine.runtime):
        await setup.record(*(setup.sighting(f"evt_{number}") for number in range(4)))
        await setup.wait_for(lambda rows: sum(row.attempts for row in rows) > 4)
        for ahead in (jump, timedelta(0)):
            await machine.jump(ahead)
            before = len(consumer.got)
            await asyncio.wait_for(until_more(consumer, before), 10)
        consumer.up = True
        await setup.until("delivered")


async def test_a_jump_ahead_sends_nothing_before_its_time(setup: Any) -> None:
    """On SQLite what waits is moved with the clock; PostgreSQL's clock has not jumped at all."""
    consumer, machine = Consumer(), Machine(setup)
    slow = DeliveryRetryPolicy(
        first=timedelta(minutes=30), longest=timedelta(minutes=30), max_attempts=9, waits=(), max_age=None
    )
    async with delivering(setup, setup.destination(consumer, retry=slow), machine.runtime):
        await setup.record(setup.sighting("evt_1"))
        await setup.wait_for(lambda rows: rows[0].attempts == 1 and rows[0].lease_us == 0)
        (row,) = await setup.deliveries()
        left_us = row.next_us - to_us(machine.clock())
        for ahead in (HOUR, timedelta(0), -HOUR, YEAR):
            await machine.jump(ahead)
            (row,) = await setup.deliveries()
            assert row.next_us - to_us(machine.clock()) == pytest.approx(left_us, abs=20_000_000)
        assert consumer.got == ["evt_1"]


async def test_a_delivery_under_way_is_not_sent_again_after_a_jump(setup: Any) -> None:
    consumer, machine = Consumer(), Machine(setup)
    consumer.up = True
    consumer.free.clear()
    destination = replace(setup.destination(consumer), timeout=timedelta(minutes=1))
    async with delivering(setup, destination, machine.runtime) as dispatcher:
        await setup.record(setup.sighting("evt_1"))
        await asyncio.wait_for(until_more(consumer, 0), 10)
        for ahead in (HOUR, timedelta(0)):
            await machine.jump(ahead)
            dispatcher.wake()
            await asyncio.sleep(0.05)
        consumer.free.set()
        await setup.until("delivered")
    assert consumer.got == ["evt_1"]


async def until_more(consumer: Consumer, before: int) -> None:
    while len(consumer.got) <= before:
        await asyncio.sleep(0.01)


class delivering:  # noqa: N801 - a context manager
    """Deliver with that runtime while inside."""

    def __init__(self, setup: Any, destination: Any, runtime: Runtime) -> None:
        self._dispatcher = Dispatcher([destination], runtime)
        setup.recorder.route, setup.recorder.wake = build_route([destination]), self._dispatcher.wake

    async def __aenter__(self) -> Dispatcher:
        self._task = asyncio.create_task(self._dispatcher.run())
        return self._dispatcher

    async def __aexit__(self, *_: object) -> None:
        self._dispatcher.stop()
        await self._task
