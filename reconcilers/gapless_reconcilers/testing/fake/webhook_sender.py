"""Sends the webhooks of a fake provider: signed POSTs, with a retry schedule for each event and endpoint."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from random import Random
from types import TracebackType
from typing import Self

import httpx

from gapless_reconcilers.testing.fake.event_store import FakeEvent


@dataclass(slots=True, kw_only=True)
class Faults:
    """The faults of a fake provider, all off by default. Rates are probabilities from 0 to 1 with the fake's seed."""

    drop: float = 0.0
    """Webhooks that are never sent, nor retried."""
    duplicate: float = 0.0
    """Webhooks that are sent twice."""
    delay_s: float = 0.0
    """Seconds before a webhook is first sent."""
    reorder: float = 0.0
    """Webhooks that are delayed by `reorder_s`, so that later ones overtake them."""
    reorder_s: float = 0.5
    bad_signature: float = 0.0
    """Attempts signed with an unknown secret; each attempt is decided separately."""
    webhooks_off: bool = False
    """No webhook is sent; those that become due meanwhile are lost, as with `drop`."""

    late_visible: float = 0.0
    """Events that the list shows only `late_visible_s` after they were emitted."""
    late_visible_s: float = 2.0
    unlogged: bool = False
    """Events that occur meanwhile are never listed: the vendor's store is off, or its hook."""
    hidden_types: frozenset[str] = frozenset()
    """Types that the list never shows."""
    empty_lists: bool = False
    """Every page is well formed, empty and the last, although there are events."""
    hidden_keys: frozenset[str] = frozenset()
    """Events that the list never shows."""
    drops_ties: bool = False
    """A page after a cursor lacks the other events of the cursor's own time, and is the last."""
    answer_delay_s: float = 0.0
    """Seconds that each API answer takes."""
    throttle_every: int = 0
    """Each n-th API request is throttled, with a 429 or in the vendor's way; 0: none."""
    retry_after: str | None = None
    """`Retry-After` of a 429; None: none is sent."""
    error_rate: float = 0.0
    """API requests that are answered 500."""
    outage: bool = False
    """Every API request is answered 503, and no webhook is sent."""
    key_revoked: bool = False
    """Every API request is answered 401."""


MOST_AT_ONCE = 32
"""Webhooks in flight at the same time."""
ANSWER_WITHIN_S = 10.0


@dataclass(slots=True, kw_only=True)
class FakeEndpoint:
    """One subscription. Everything but its number may change while the fake runs."""

    number: int
    url: str
    secret: str
    types: tuple[str, ...]
    connect: bool
    enabled: bool = True
    api_version: str | None = None

    def takes(self, event: FakeEvent) -> bool:
        """Return True if `event` is sent to this endpoint."""
        is_subscribed = any(fnmatchcase(event.type, pattern) for pattern in self.types)
        return self.enabled and is_subscribed and bool(event.stream) is self.connect


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A webhook ready to be sent."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One attempt, or a webhook that was lost (`attempt` 0). `status` None: no response."""

    at: datetime
    event: FakeEvent
    endpoint: FakeEndpoint
    attempt: int
    status: int | None
    genuine: bool = True


Signer = Callable[[FakeEvent, FakeEndpoint, bool], Message]
"""Makes the webhook of an event for an endpoint; False: signed with an unknown secret."""


class WebhookSender:
    """Sends webhooks while its block runs; those still waiting at the end are dropped."""

    def __init__(
        self,
        *,
        sign: Signer,
        faults: Callable[[], Faults],
        retries_s: Sequence[float],
        chance: Random,
        clock: Callable[[], datetime],
        log: list[Push],
    ) -> None:
        self._sign = sign
        self._faults = faults
        self._retries_s = retries_s
        self._chance = chance
        self._clock = clock
        self._log = log
        self._client = httpx.AsyncClient(timeout=ANSWER_WITHIN_S, trust_env=False)
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        waiting = tuple(self._tasks)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._client.aclose()

    def push(self, event: FakeEvent, endpoint: FakeEndpoint) -> None:
        """Begin to send `event` to `endpoint`: once or twice or not at all, as the faults say."""
        if self._is_lost():
            self._record(event, endpoint, attempt=0, status=None)
            return
        for _ in range(2 if self._happens(self._faults().duplicate) else 1):
            task = asyncio.create_task(self._deliver(event, endpoint, self._first_delay()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait until every webhook is sent or given up."""
        while self._tasks:
            await asyncio.gather(*tuple(self._tasks), return_exceptions=True)

    async def _deliver(self, event: FakeEvent, endpoint: FakeEndpoint, delay_s: float) -> None:
        """Send until a 2xx, the last retry, or the end of the subscription."""
        await asyncio.sleep(delay_s)
        for attempt, wait_s in enumerate((0.0, *self._retries_s), start=1):
            await asyncio.sleep(wait_s)
            if not endpoint.enabled:
                return
            status = await self._attempt(event, endpoint, attempt)
            if status is not None and httpx.codes.is_success(status):
                return

    async def _attempt(self, event: FakeEvent, endpoint: FakeEndpoint, attempt: int) -> int | None:
        if self._faults().outage or self._faults().webhooks_off:
            return None
        is_genuine = not self._happens(self._faults().bad_signature)
        async with self._slots:
            status = await self._post(endpoint.url, self._sign(event, endpoint, is_genuine))
        self._record(event, endpoint, attempt=attempt, status=status, genuine=is_genuine)
        return status

    async def _post(self, url: str, message: Message) -> int | None:
        try:
            response = await self._client.post(url, content=message.body, headers=dict(message.headers))
        except httpx.TransportError:
            return None
        return response.status_code

    def _record(
        self, event: FakeEvent, endpoint: FakeEndpoint, *, attempt: int, status: int | None, genuine: bool = True
    ) -> None:
        at = self._clock()
        self._log.append(Push(at=at, event=event, endpoint=endpoint, attempt=attempt, status=status, genuine=genuine))

    def _is_lost(self) -> bool:
        faults = self._faults()
        return faults.webhooks_off or faults.outage or self._happens(faults.drop)

    def _first_delay(self) -> float:
        faults = self._faults()
        return faults.delay_s + (faults.reorder_s if self._happens(faults.reorder) else 0.0)

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self._chance.random() < rate
