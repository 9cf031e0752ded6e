"""The parts of a running process that everything below the command line shares."""

from dataclasses import dataclass
from typing import TypeVar

from gapless.domain import Clock
from gapless.ledger.engine import Store
from gapless.ledger.writer import Work, Writer
from gapless.metrics import Metrics

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The store, the process's writer, the clock and the metrics."""

    store: Store
    writer: Writer
    clock: Clock
    metrics: Metrics

    async def read(self, query: Work[T]) -> T:
        """What `query` finds. Raises `StoreError`."""
        return await self.store.read(query)
