"""The deliver road's process: one lane per destination, so that a slow one delays no other."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from random import Random

from gapless.deliver.destination import Destination
from gapless.deliver.worker import DestinationWorker
from gapless.domain import Clock, system_clock
from gapless.ledger.engine import Store
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics

GRACE = timedelta(seconds=10)
"""How long attempts in hand may take to end after `stop`."""


class Dispatcher:
    """Delivers to `destinations`. `run` is its loop; `stop` lets it finish what is in hand.

    Stop it before the writer is closed: what was delivered last is settled through the writer.
    """

    def __init__(
        self,
        destinations: Sequence[Destination],
        store: Store,
        writer: Writer,
        metrics: Metrics,
        *,
        clock: Clock = system_clock,
        rng: Random | None = None,
        grace: timedelta = GRACE,
    ) -> None:
        self._destinations = destinations
        self._grace = grace
        jitter = rng or Random()  # noqa: S311 - spreads retries, hides nothing
        self._lanes = [DestinationWorker(each, store, writer, metrics, clock, jitter) for each in destinations]
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake(self) -> None:
        """Deliveries were made, or will be when the running transaction commits. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake_lanes)

    def _wake_lanes(self) -> None:
        for lane in self._lanes:
            lane.wake()

    def stop(self) -> None:
        """Claim nothing more. `run` returns when what is in hand is settled."""
        for lane in self._lanes:
            lane.stop()

    async def run(self) -> None:
        """Deliver until `stop`."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                for lane in self._lanes:
                    group.create_task(lane.run(self._grace))
        finally:
            for destination in self._destinations:
                await destination.sender.close()
