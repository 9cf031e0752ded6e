"""What an operation works with, and how it says no."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import msgspec

from gapless.domain import Clock, Source, Sources, to_us
from gapless.errors import UserError
from gapless.ledger import Connection, audit_log
from gapless.ledger.engine import Store
from gapless.ledger.writer import Work, Writer
from gapless_reconcilers.kit.contract import ReadBudget

T = TypeVar("T")


class OperationRefused(UserError):
    """The operation was not done, and nothing was changed. The message says what, got, wanted, what next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unquarantined:
    """What became of a refused webhook that was read again: `new` of its events, or why it stays."""

    new: int | None
    reason: str = ""
    detail: str = ""


ReleaseOne = Callable[[int], Awaitable[Unquarantined]]
"""Reads the refused webhook of that id again. Belongs to the receive road; the daemon supplies it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The store, the one writer of this process, the sources as they are configured, and the clock."""

    store: Store
    writer: Writer
    sources: Sources
    clock: Clock
    release_one: ReleaseOne
    budgets: Mapping[str, ReadBudget | None] = field(default_factory=dict)
    """What each source may read, by name."""
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
        """What `query` finds. Raises `StoreError`."""
        return await self.store.read(query)

    async def write(self, action: str, subject: str, work: Work[T]) -> T:
        """Do `work` and note its result, unless that is 0, in one transaction. Raises what it does; `StoreError`."""
        return await self.writer.submit(partial(self._noted, action=action, subject=subject, work=work))

    def _noted(self, connection: Connection, action: str, subject: str, work: Work[T]) -> T:
        result = work(connection)
        if result == 0:
            return result
        detail = msgspec.json.encode(result).decode()
        audit_log.add(connection, self.now_us, actor=self.actor, action=action, subject=subject, detail=detail)
        return result
