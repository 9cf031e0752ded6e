"""How long a delivery that is due waits for us: the service level that is ours alone."""

import asyncio
from typing import Any

import pytest

from gapless.destinations.contract import Delivered, Delivery, Failed, FailureReason, Result
from gapless.domain import system_clock, to_us
from gapless.ledger import destinations
from gapless.ledger.destinations import Pause

pytestmark = pytest.mark.anyio
SERIES = "gapless_first_attempt_seconds"


class FailsOnce:
    """A consumer that takes an event at its second attempt."""

    def __init__(self) -> None:
        self.attempts = 0

    async def send(self, _: Delivery) -> Result:
        self.attempts += 1
        return Delivered() if self.attempts > 1 else Failed(reason=FailureReason.TIMEOUT, detail="slow")

    async def close(self) -> None:
        pass


def waited(setup: Any) -> tuple[float, float]:
    """The number of first attempts, and of those that were due for at most a second."""
    values = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in setup.metrics.registry.collect()
        for sample in family.samples
        if sample.name.startswith(SERIES)
    }
    return values[f"{SERIES}_count", None], values[f"{SERIES}_bucket", "1.0"]


async def test_only_the_first_attempt_counts_from_when_it_was_due(setup: Any) -> None:
    await setup.record(setup.sighting("evt_1"))
    await asyncio.sleep(1.2)
    sink = FailsOnce()
    async with setup.delivering(setup.destination(sink)):
        await setup.until("delivered")
    assert sink.attempts == 2
    assert waited(setup) == (1, 0)


async def test_the_time_of_a_pause_is_not_ours(setup: Any) -> None:
    pause = Pause(since_us=to_us(system_clock()), by="ann", reason="upgrade")
    await setup.store.write(destinations.pause, destination_id=setup.destination_id, pause=pause)
    sink = FailsOnce()
    sink.attempts = 1
    async with setup.delivering(setup.destination(sink)):
        await setup.record(setup.sighting("evt_1"))
        await asyncio.sleep(1.7)
        now_us = to_us(system_clock())
        await setup.store.write(destinations.resume, destination_id=setup.destination_id, now_us=now_us)
        await setup.until("delivered")
    assert waited(setup) == (1, 1)
