"""A source whose lease this process holds, and what the process remembers of it."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Concatenate, ParamSpec, TypeVar

import httpx

from gapless.domain import Mode, Purpose, Source, Via
from gapless.ledger import Connection
from gapless.ledger.budgets import PurseTerms
from gapless.ledger.engine import bind
from gapless.ledger.findings import Recovered
from gapless.ledger.leases import Lease, fence
from gapless.ledger.writer import Work
from gapless.provider_api.client import ProviderClient
from gapless.reconcile.lateness import ListWatch
from gapless.reconcile.policy import SourcePolicy
from gapless.reconcile.reading_plan import Reckoning
from gapless.runtime import Runtime
from gapless_reconcilers.kit.contract import Capabilities, Provider
from gapless_reconcilers.kit.errors import Retryable

P = ParamSpec("P")
T = TypeVar("T")
UNLIMITED = PurseTerms(granted=None, period=timedelta(days=30))
"""Requests are counted, and nothing limits them."""


class KeyReplaced(Retryable):
    """A secret of the source was replaced during the run: the next run begins by comparing the account."""


@dataclass(slots=True, kw_only=True)
class SourceMemory:
    """What this process remembers of a source from one run to the next. It can be wrong without any harm but delay."""

    reckoning: Reckoning | None = None
    watches: dict[int, ListWatch] = field(default_factory=dict)
    """By the id of the stream."""
    cost: float = 1.0
    """Requests that a reading of one stream takes."""
    heard_us: int | None = None
    """The last webhook whose silence since then was looked into."""
    silence: float = 0.0
    """How many webhooks were expected when that silence was last looked into."""
    details_wait: bool = False
    """Missing events wait until requests for them can be paid for."""
    has_earned: bool = False
    """The events that earn requests were listed, so that what is granted is reckoned anew."""
    earning_us: int | None = None
    """When it was last tried to list those events, in elapsed microseconds; None: never."""
    was_read: bool = False
    """This process has read it."""
    failures: int = 0
    """Runs in a row in which nothing could be read."""
    provider: Provider | None = None
    """The provider with the credential of the last run; None: there was none yet."""
    endpoint_us: int | None = None
    """When endpoint and streams were last looked at with that credential, in elapsed microseconds; None: never."""
    account_us: int | None = None

    def use(self, provider: Provider) -> None:
        """Forget what was checked with another credential."""
        self.provider, self.account_us, self.endpoint_us = provider, None, None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedSource:
    """A source whose lease this process holds, with what every step of its run needs."""

    runtime: Runtime
    client: ProviderClient
    policy: SourcePolicy
    lease: Lease
    stopping: asyncio.Event
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the source is due again during the run: what looks behind the watermark gives way."""
    memory: SourceMemory = field(default_factory=SourceMemory)
    terms: PurseTerms = UNLIMITED
    """What is granted to the source at present."""
    sharing: int = 1
    """The number of sources that share the grant."""
    provider: Provider = field(init=False)
    """The provider with the credential of this run: whose account it reads is compared before anything is recorded."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "provider", self.client.source.provider)
        if self.source.mode is Mode.HYBRID:  # from 0, so that a rise shows the first missed event
            for via in (Via.LIST, Via.REDELIVERY):
                self.runtime.metrics.recovery.labels(self.source.name, via.value)

    @property
    def source(self) -> Source:
        """Return the current source: its secrets and types may have been replaced."""
        return self.client.source

    @property
    def capabilities(self) -> Capabilities:
        """Return the capabilities of the provider, with the overrides of the configuration.

        Its grace is that which was learned, and that of the whole run: every rule that depends on the grace takes it
        from here.
        """
        known, reckoning = self.policy.capabilities, self.memory.reckoning
        return known if reckoning is None else replace(known, grace=reckoning.grace)

    @property
    def settle(self) -> timedelta:
        """Return the age from which on a listed event is recorded: less than the grace by a unit of the list's times.

        It is zero for a source that only polls: there is no webhook to wait for.
        """
        known = self.capabilities
        if self.source.mode is Mode.POLL:
            return timedelta(0)
        settle = self.policy.settle if self.memory.reckoning is None else self.memory.reckoning.settle
        return max(timedelta(0), min(settle, known.grace - known.resolution))

    @property
    def is_replaced(self) -> bool:
        """Return True if a secret of the source was replaced since the run began."""
        return self.source.provider is not self.provider

    def require_same_key(self) -> None:
        """Raise `KeyReplaced` if a secret was replaced since the run began: what was just read may be another's."""
        if self.is_replaced:
            raise KeyReplaced(f"a secret of source {self.source.name!r} was replaced: its account is checked first")

    def count_recovered(self, recovered: Iterable[Recovered]) -> None:
        """Count how long it took to recover these missed events."""
        for each in recovered:
            self.runtime.metrics.recovery.labels(self.source.name, each.via.value).observe(each.took_s)

    async def send(self, request: httpx.Request, purpose: Purpose) -> httpx.Response:
        """Return the provider's answer, read with the credential of this run. Raises `ProviderError`s only."""
        try:
            return await self.client.send(request, purpose)
        finally:
            self.require_same_key()

    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in a transaction that also checks the lease. Raises `LeaseLost`; then nothing was written."""
        return await self.runtime.write(_fenced, lease=self.lease, work=bind(work, *args, **kwargs))


def _fenced(connection: Connection, lease: Lease, work: Work[T]) -> T:
    fence(connection, lease)
    return work(connection)
