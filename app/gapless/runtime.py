"""The parts that everything in a running process shares."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, Self, TypeVar

from gapless.clock import elapsed_us
from gapless.domain import Clock, Sources, to_us
from gapless.ledger import Connection
from gapless.ledger.audit_log import UNKEYED, AuditKey
from gapless.ledger.engine import Store
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics
from gapless.sealing import Keyring

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Runtime:
    """The store, the one writer, the clock, the metrics and the sources of a process.

    As an async context manager it runs the writer; at the end everything that was submitted is committed.
    """

    store: Store
    writer: Writer
    clock: Clock
    """The ledger's clock: every stored time is by it."""
    metrics: Metrics
    sources: Sources
    """The current sources: an entry is replaced when its secrets or its subscription change."""
    audit_key: AuditKey = UNKEYED
    """The key of the audit log's chain."""
    keyring: Keyring = field(default_factory=Keyring)
    """The keys that seal payloads, which the store's connections have too."""
    _writer_task: asyncio.Task[None] | None = field(default=None, init=False, repr=False)

    @property
    def now_us(self) -> int:
        """Return the current time of the ledger's clock in microseconds."""
        return to_us(self.clock())

    @property
    def elapsed_us(self) -> int:
        """Return the microseconds since some moment in the past, to measure lengths of time. They never jump."""
        return elapsed_us(self.clock)

    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of `query(connection, …)`. Raises `StoreError`."""
        return await self.store.read(query, *args, **kwargs)

    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, …)` in a transaction of the writer, and return its result. Raises `StoreError`."""
        return await self.writer.submit(work, *args, **kwargs)

    async def __aenter__(self) -> Self:
        self._writer_task = asyncio.create_task(self.writer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        if self._writer_task is not None:
            await self._writer_task
