"""One worker for each destination, so that a slow one delays no other."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from random import Random

from gapless.deliver.routing import Destination
from gapless.deliver.worker import DestinationWorker
from gapless.runtime import Runtime

GRACE = timedelta(seconds=10)
"""Time that attempts under way have to end after `stop`."""


class Dispatcher:
    """Delivers to `destinations`. `run` is its loop; `stop` lets it finish the attempts under way.

    Stop it before the writer is closed: the last deliveries are settled through the writer.
    """

    def __init__(
        self,
        destinations: Sequence[Destination],
        runtime: Runtime,
        *,
        rng: Random | None = None,
        grace: timedelta = GRACE,
    ) -> None:
        self._destinations = destinations
        self._grace = grace
        jitter = rng or Random()  # noqa: S311 - spreads retries, needs no secrecy
        self._workers = [DestinationWorker(each, runtime, jitter) for each in destinations]
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake(self) -> None:
        """Wake the workers: deliveries exist, or will when the running transaction commits. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake_workers)

    def _wake_workers(self) -> None:
        for worker in self._workers:
            worker.wake()

    def stop(self) -> None:
        """Claim nothing more. `run` returns when the attempts under way are settled."""
        for worker in self._workers:
            worker.stop()

    async def run(self) -> None:
        """Deliver until `stop`."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self._workers:
                    group.create_task(worker.run(self._grace))
        finally:
            for destination in self._destinations:
                await destination.sender.close()
