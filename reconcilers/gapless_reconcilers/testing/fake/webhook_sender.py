"""The webhook road of a fake provider: signed POSTs, one retry schedule for each event and endpoint."""

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
    """All off by default. Rates are probabilities from 0 to 1, drawn from the fake's seeded source."""

    drop: float = 0.0
    """Webhooks that are never sent, nor retried."""
    duplicate: float = 0.0
    """Webhooks that are sent twice."""
    delay_s: float = 0.0
    """Seconds before a webhook is first sent."""
    reorder: float = 0.0
    """Webhooks that are held back for `reorder_s`, so that later ones overtake them."""
    reorder_s: float = 0.5
    bad_signature: float = 0.0
    """Attempts signed with a secret that nobody knows; the next attempt is drawn anew."""
    webhooks_off: bool = False
    """No webhook leaves at all; those that fall due meanwhile are lost, as with `drop`."""

    late_visible: float = 0.0
    """Events that the list shows only `late_visible_s` after they were emitted."""
    late_visible_s: float = 2.0
    unlogged: bool = False
    """What occurs meanwhile is in no list, ever: the vendor's store is off, or its hook."""
    hidden_types: frozenset[str] = frozenset()
    """Types that the list never shows."""
    empty_lists: bool = False
    """The list lies: every page is well formed, empty and the last."""
    answer_delay_s: float = 0.0
    """Seconds that each API answer takes."""
    throttle_every: int = 0
    """Each n-th API request is throttled, with a 429 or as the vendor does it; 0: none."""
    retry_after: str | None = None
    """`Retry-After` of a 429; None: none is sent."""
    error_rate: float = 0.0
    """API requests that are answered 500."""
    outage: bool = False
    """Every API request is answered 503, and no webhook leaves."""
    key_revoked: bool = False
    """Every API request is answered 401."""


MOST_AT_ONCE = 32
"""Webhooks in flight at the same time."""
ANSWER_WITHIN_S = 10.0


@dataclass(slots=True, kw_only=True)
class FakeEndpoint:
    """One subscription. All but its number may be changed while the fake runs."""

    number: int
    url: str
    secret: str
    types: tuple[str, ...]
    connect: bool
    enabled: bool = True
    api_version: str | None = None

    def takes(self, event: FakeEvent) -> bool:
        """Whether `event` is owed to this endpoint."""
        is_subscribed = any(fnmatchcase(event.type, pattern) for pattern in self.types)
        return self.enabled and is_subscribed and bool(event.stream) is self.connect


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A webhook ready to be sent."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One attempt that was made, or a webhook that was lost (`attempt` 0). `status` None: no answer came."""

    at: datetime
    event: FakeEvent
    endpoint: FakeEndpoint
    attempt: int
    status: int | None
    genuine: bool = True


Signer = Callable[[FakeEvent, FakeEndpoint, bool], Message]
"""Makes the webhook of an event for an endpoint; False: with a signature that is nobody's."""


class WebhookSender:
    """Sends what it is given while its block runs; whatever still waits at the end is dropped."""

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
        """Begin to send `event` to `endpoint`: once, twice, or, as the faults have it, not at all."""
        if self._is_lost():
            self._record(event, endpoint, attempt=0, status=None)
            return
        for _ in range(2 if self._happens(self._faults().duplicate) else 1):
            task = asyncio.create_task(self._deliver(event, endpoint, self._first_delay()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Return when nothing waits to be sent or retried."""
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
