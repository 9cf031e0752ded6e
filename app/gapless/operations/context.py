"""Shared by all operations: the base of requests, the context with the audit log, and `OperationRefused`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, ClassVar, Concatenate, ParamSpec, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from gapless.deliver.routing import Destination
from gapless.domain import Source, Sources
from gapless.errors import UserError
from gapless.ledger import Connection, audit_log
from gapless.ledger.engine import bind
from gapless.ledger.writer import Work
from gapless.operations.principals import API, AccessRole, Principal
from gapless.receive.evidence import EvidenceFetcher
from gapless.receive.stream_ids import StreamIds
from gapless.runtime import Runtime

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
AwareTime: TypeAlias = Annotated[datetime, Meta(tz=True)]
Keys: TypeAlias = Annotated[tuple[str, ...], Meta(min_length=1, max_length=10_000)]
P = ParamSpec("P")
T = TypeVar("T")


class OperationRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all requests. `operation` is the name of the operation."""

    operation: ClassVar[str]
    needs: ClassVar[AccessRole] = AccessRole.OPERATOR
    """The role that may ask for it; an owner may ask for everything."""
    checks_limits: ClassVar[bool] = False
    """True: the operation itself sees to it that a limited principal touches its own sources only."""
    explained_by: ClassVar[str] = "note"
    """The field that is the reason in the audit log."""
    is_shown_once: ClassVar[bool] = False
    """True: the result has a secret, so that nothing keeps it."""
    note: Annotated[str, Meta(max_length=1000)] | None = None
    """Why, in the words of whoever asks."""


class OperationForbidden(UserError):
    """Whoever asks may not do this. Nothing was changed."""


class ApprovalNeeded(UserError):
    """Another person must approve the operation first. Nothing was changed; the message says how."""


class OperationRefused(UserError):
    """The operation was refused, and nothing was changed. The message says what, got, wanted, what next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationContext:
    """The parts of this process that operations use, and the actor for the audit log."""

    runtime: Runtime
    evidence: EvidenceFetcher
    stream_ids: StreamIds
    destinations: Sequence[Destination] = ()
    """The destinations of this process."""
    wake: Callable[[], None] = lambda: None
    """Wakes the dispatcher of this process, because deliveries may be due."""
    actor: str = API.name
    """Name of the actor in the audit log."""
    principal: Principal = API
    """The role and the limits of the actor."""
    reason: str | None = None
    """Why, in the actor's words, for the audit log."""
    second_person_above: int | None = None
    """Most events of one operation that needs no second person; None: none does."""
    approved_by: str | None = None
    """The second person; None: nobody has approved the operation."""

    @property
    def now_us(self) -> int:
        """The current time in microseconds."""
        return self.runtime.now_us

    @property
    def sources(self) -> Sources:
        """The configured sources."""
        return self.runtime.sources

    def source(self, name: str) -> Source:
        """Return the configured source `name`. Raises `OperationRefused`."""
        if name not in self.sources:
            known = ", ".join(sorted(source.name for source in self.sources)) or "none"
            raise OperationRefused(f"source {name!r} is not configured; configured: {known}")
        return self.sources[name]

    def acting_as(self, principal: Principal) -> "OperationContext":
        """Return the context in which this principal acts."""
        return replace(self, actor=principal.name, principal=principal)

    @property
    def needs_second_person(self) -> bool:
        """Return True if another person must approve what concerns many events."""
        return self.second_person_above is not None and self.approved_by is None

    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of `query(connection, …)`. Raises `StoreError`."""
        return await self.runtime.read(query, *args, **kwargs)

    async def write(
        self,
        action: str,
        subject: str,
        work: Callable[Concatenate[Connection, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `work` and log its result, unless it is 0, in one transaction.

        Raises `StoreError`, and what `work` raises.
        """
        bound = bind(work, *args, **kwargs)
        return await self.runtime.write(self._logged, action=action, subject=subject, work=bound)

    def _logged(self, connection: Connection, action: str, subject: str, work: Work[T]) -> T:
        result = work(connection)
        if result == 0:
            return result
        approved = None if self.approved_by is None else f"approved by {self.approved_by}"
        done = audit_log.Action(
            at_us=self.now_us,
            actor=self.actor,
            role=self.principal.role.value,
            action=action,
            subject=subject,
            detail=msgspec.json.encode(result).decode(),
            reason="; ".join(each for each in (self.reason, approved) if each) or None,
        )
        audit_log.add(connection, done, self.runtime.audit_key)
        return result
