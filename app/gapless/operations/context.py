"""What every operation works with, and how it refuses."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec

from gapless.domain import Clock, Source, Sources, to_us
from gapless.errors import UserError
from gapless.ledger import Connection, audit_log
from gapless.ledger.engine import Store
from gapless.ledger.writer import Work, Writer
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds

T = TypeVar("T")


class OperationRefused(UserError):
    """The operation was not done, and nothing was changed. The message says what, got, wanted, what next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationContext:
    """The parts of this process that operations use, and who asks for them."""

    store: Store
    writer: Writer
    """The one writer of this process."""
    sources: Sources
    """As they are configured."""
    clock: Clock
    evidence: EvidenceFetcher
    stream_ids: StreamIds
    wake: Callable[[], None] = lambda: None
    """Tells the dispatcher of this process that something may be due."""
    actor: str = "api"
    """Who is written into the audit log."""

    @property
    def now_us(self) -> int:
        """Now, in microseconds."""
        return to_us(self.clock())

    def source(self, name: str) -> Source:
        """The configured source of that name. Raises `OperationRefused`."""
        if name not in self.sources:
            known = ", ".join(sorted(source.name for source in self.sources)) or "none"
            raise OperationRefused(f"source {name!r} is not configured; configured: {known}")
        return self.sources[name]

    async def read(self, query: Work[T]) -> T:
        """Return the result of `query`. Raises `StoreError`."""
        return await self.store.read(query)

    async def write(self, action: str, subject: str, work: Work[T]) -> T:
        """Do `work` and log its result, unless that is 0, in one transaction. Raises what it does; `StoreError`."""
        return await self.writer.submit(partial(self._logged, action=action, subject=subject, work=work))

    def _logged(self, connection: Connection, action: str, subject: str, work: Work[T]) -> T:
        result = work(connection)
        if result == 0:
            return result
        detail = msgspec.json.encode(result).decode()
        audit_log.add(connection, self.now_us, actor=self.actor, action=action, subject=subject, detail=detail)
        return result
