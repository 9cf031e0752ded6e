"""Send a provider's requests, with credentials, within rate and budget, and with retries.

The only place that does I/O with providers. It raises the contract's errors and no others.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeGuard

import httpx
import stamina
import stamina.instrumentation
from aiolimiter import AsyncLimiter

from gapless.clock import elapsed_us
from gapless.domain import Clock, Purpose, Source, Sources, span_us
from gapless.ledger.budgets import BLOCK
from gapless.metrics import Metrics, status_class
from gapless.provider_api.throttle import SLEPT_WITHIN, Throttle
from gapless_reconcilers.kit.contract import JudgesResponses, Quota, ShowsQuota
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    ProviderUnavailable,
    RateLimited,
    Retryable,
    UnexpectedShape,
)
from gapless_reconcilers.kit.quotas import read_quota
from gapless_reconcilers.kit.statuses import date_of, describe_origin, judge

log = logging.getLogger(__name__)
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
"""Limits of single steps; httpx has none for the whole, so a byte every few seconds would never end."""
REQUEST_WITHIN = timedelta(seconds=60)
"""Time for a whole request, to the last byte of the answer: twice what a provider may hold a long poll."""
ANSWER_BYTES = 64 << 20
"""Most bytes of an answer, decoded: a page of a hundred events of half a megabyte each."""
BURST_WITHIN = timedelta(seconds=10)
"""Requests of one purpose that are further apart are reserved one by one, others in growing blocks."""
BURST_S = 0.1
"""The requests of this time may go out at once; the others are slowed so that no second has more than the rate."""
RATE_MARGIN = 0.97
"""The share of the rate that is used, because requests that are sent evenly do not arrive evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRetryPolicy:
    """The limits of retrying a request; after that the pass fails, and the next run goes on with it."""

    attempts: int = 5
    total: timedelta = timedelta(minutes=2)
    first_wait: timedelta = timedelta(milliseconds=500)
    longest_wait: timedelta = timedelta(seconds=30)


DEFAULT_RETRY = RequestRetryPolicy()


def new_client() -> httpx.AsyncClient:
    """Return an HTTP client for providers: it follows no redirects and reads nothing from the environment.

    The retries of this process print nothing from then on: stamina's lines go to stdout, which may be JSON.
    """
    stamina.instrumentation.set_on_retry_hooks([])
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=50)
    return httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=False, limits=limits)


def new_limiter(rate: float) -> AsyncLimiter:
    """Return a limiter to `rate` requests in any second, as the vendor counts them; below ten, without bursts."""
    rate, burst = rate * RATE_MARGIN, rate * BURST_S
    return AsyncLimiter(burst, burst / (rate - burst)) if burst >= 1 else AsyncLimiter(1, 1 / rate)


Spend = Callable[[Purpose, int], Awaitable[datetime | None]]
"""Counts requests before they are sent; returns the time until which the rate is halved, None: it is not."""


async def _uncounted(_purpose: Purpose, _requests: int) -> None:
    """Count nothing: there is no ledger."""


async def _unnoted() -> None:
    """Note no refusal: there is no ledger."""


@dataclass(slots=True)
class Reserved:
    """Requests of one purpose that are counted and not sent yet, the size of the last block, and when it was counted.

    A block is one request, and twice the last one while they follow each other closely: what is left over when the
    process ends was counted in vain, and a request now and then leaves nothing over.
    """

    left: int = 0
    block: int = 0
    at_us: int = 0

    def next_block(self, now_us: int) -> int:
        """Return the requests to count at `now_us`."""
        follows = now_us - self.at_us <= span_us(BURST_WITHIN)
        return min(2 * self.block, BLOCK) if follows and self.block else 1


class ProviderClient:
    """Sends requests for one source. `spend` counts them first; `limited` is told of a refusal for the rate."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        sources: Sources,
        name: str,
        *,
        clock: Clock,
        metrics: Metrics,
        rate: float,
        spend: Spend = _uncounted,
        limited: Callable[[], Awaitable[None]] = _unnoted,
        retry: RequestRetryPolicy = DEFAULT_RETRY,
        within: timedelta = REQUEST_WITHIN,
    ) -> None:
        self._client = client
        self._within = within
        self._sources = sources
        self._name = name
        self._clock = clock
        self._metrics = metrics
        self._limiter = new_limiter(rate)
        self._spend = spend
        self._limited = limited
        self._throttle = Throttle(clock, rate)
        self._reserved: dict[Purpose, Reserved] = {}
        self._reserving = asyncio.Lock()
        self._retrying = stamina.AsyncRetryingCaller(
            attempts=retry.attempts,
            timeout=retry.total,
            wait_initial=retry.first_wait,
            wait_max=retry.longest_wait,
        )
        self.requests = 0
        self.answered = False
        """True once the provider has answered at all; if `skew` is None then, it does not say what time it is."""
        self._date: tuple[datetime, int] | None = None
        """The time in the provider's last answer, and when that came, in elapsed microseconds."""
        self._waits_until_us: int | None = None
        """The time before which the provider wants no request, in elapsed microseconds."""

    @property
    def waits_until(self) -> datetime | None:
        """Return the time before which the provider wants no request; None: it has not said so, or it is past."""
        left_us = 0 if self._waits_until_us is None else self._waits_until_us - elapsed_us(self._clock)
        return self._clock() + timedelta(microseconds=left_us) if left_us > 0 else None

    @property
    def skew(self) -> timedelta | None:
        """Return our clock less the provider's, as its last answer showed that; None: unknown."""
        if self._date is None:
            return None
        date, came_us = self._date
        return self._clock() - date - timedelta(microseconds=elapsed_us(self._clock) - came_us)

    @property
    def now(self) -> datetime:
        """Return the earlier of our time and the provider's: an event that has happened is never later."""
        return self._clock() - self.behind

    @property
    def provider_now(self) -> datetime:
        """Return the time at the provider, up to which its list has events; ours if that is unknown."""
        return self._clock() - (self.skew or timedelta(0))

    @property
    def behind(self) -> timedelta:
        """Return how far the provider's clock is behind ours: 0 if that is unknown, never negative."""
        return max(timedelta(0), self.skew or timedelta(0))

    @property
    def source(self) -> Source:
        """Return the current source: its secrets may have been replaced."""
        return self._sources[self._name]

    @property
    def quota(self) -> Quota | None:
        """Return what is left to us, as the provider's last answer said; None: it does not say so."""
        return self._throttle.quota

    def spending(self, purpose: Purpose, *, once: bool = False) -> "PurposeClient":
        """Return a sender of requests for `purpose`. `once`: each is sent once, by callers that try again later."""
        return PurposeClient(client=self, purpose=purpose, once=once)

    async def send(self, request: httpx.Request, purpose: Purpose) -> httpx.Response:
        """Return the provider's answer to `request`, if its status is good. Raises `ProviderError`s only.

        If the provider asks for a wait of more than `SLEPT_WITHIN`, that error is raised at once, and again by each
        request until then, without sending it.
        """
        return await self._retrying(_retry_after, self.send_once, request, purpose)

    async def send_once(self, request: httpx.Request, purpose: Purpose) -> httpx.Response:
        """Do as `send`, without a retry."""
        self._refuse_while_waiting()
        await self._wait_for_turn()
        await self._count(purpose)
        provider = self.source.provider
        async with self._limiter:
            self._refuse_while_waiting()
            response = await self._exchange(request, provider.auth())
        self._throttle.note(self._quota_of(response))
        self._metrics.provider_requests.labels(self._name, status_class(response.status_code)).inc()
        self.answered = True
        self._read_clock(response)
        try:
            if isinstance(provider, JudgesResponses):
                provider.judge(response, self.provider_now)
            else:
                judge(response, self.provider_now)
        except Retryable as error:
            self._note_wait(error)
            if isinstance(error, RateLimited) and self._throttle.note_refusal():
                await self._limited()
            raise
        return response

    async def _wait_for_turn(self) -> None:
        try:
            await self._throttle.turn()
        except RateLimited as error:
            self._note_wait(error)
            raise

    def _note_wait(self, error: Retryable) -> None:
        """If the wait is long, send nothing until it is over."""
        if _is_long(error.retry_after):
            self._waits_until_us = elapsed_us(self._clock) + span_us(error.retry_after)
            log.warning("provider_wants_a_pause", extra={"source": self._name, "until": str(self.waits_until)})

    def _quota_of(self, response: httpx.Response) -> Quota | None:
        provider, now = self.source.provider, self._clock()
        if isinstance(provider, ShowsQuota):
            return provider.read_quota(response, now)
        return read_quota(response, now)

    def _refuse_while_waiting(self) -> None:
        until = self.waits_until
        if until is not None:
            message = f"the provider asked for no request before {until.isoformat(timespec='seconds')}"
            raise RateLimited(message, retry_after=max(until - self._clock(), SLEPT_WITHIN + timedelta(seconds=1)))

    async def _exchange(self, request: httpx.Request, auth: httpx.Auth | None) -> httpx.Response:
        """Return the whole answer. Raises `ProviderError`s."""
        address = describe_origin(request.url)
        try:
            async with asyncio.timeout(self._within.total_seconds()):
                return await read_answer(self._client, request, auth)
        except (httpx.LocalProtocolError, UnicodeError):  # its text shows the header, which is the credential
            self._metrics.provider_requests.labels(self._name, "error").inc()
            raise CredentialsRejected(
                f"no header can carry the credentials of source {self._name!r}; check the secret for odd characters"
            ) from None
        except TimeoutError as error:
            self._metrics.provider_requests.labels(self._name, "error").inc()
            message = f"{address}: no whole answer within {self._within.total_seconds():g} s"
            log.warning("provider_request_cut", extra={"source": self._name, "error": message})
            raise ProviderUnavailable(message) from error
        except httpx.HTTPError as error:
            self._metrics.provider_requests.labels(self._name, "error").inc()
            raise ProviderUnavailable(f"{address}: {type(error).__name__}: {error}") from error

    async def _count(self, purpose: Purpose) -> None:
        """Count the request. A block counts only once it is reserved, even if this is cancelled; so one at a time."""
        self.requests += 1
        async with self._reserving:
            reserved = self._reserved.setdefault(purpose, Reserved())
            if reserved.left == 0:
                now_us = elapsed_us(self._clock)
                block = reserved.next_block(now_us)
                self._throttle.note_halved(await self._spend(purpose, block))
                self._reserved[purpose] = reserved = Reserved(left=block, block=block, at_us=now_us)
            reserved.left -= 1

    def _read_clock(self, response: httpx.Response) -> None:
        date = date_of(response)
        if date is not None:
            self._date = date, elapsed_us(self._clock)


@dataclass(frozen=True, slots=True)
class PurposeClient:
    """Sends requests of a client for one purpose; with `once`, each of them once."""

    client: ProviderClient
    purpose: Purpose
    once: bool = False

    @property
    def source(self) -> Source:
        """Return the current source, as the client does."""
        return self.client.source

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Return the provider's answer, as the client does."""
        send = self.client.send_once if self.once else self.client.send
        return await send(request, self.purpose)


async def read_answer(
    client: httpx.AsyncClient, request: httpx.Request, auth: httpx.Auth | None, most: int = ANSWER_BYTES
) -> httpx.Response:
    """Return the whole answer. Raises `UnexpectedShape` if its body is longer than `most` bytes, and httpx's errors."""
    response = await client.send(request, auth=auth, stream=True)
    body = bytearray()
    try:
        async for part in response.aiter_bytes():
            body += part
            if len(body) > most:
                raise UnexpectedShape("body", f"longer than {most} bytes", "a page that fits into memory")
    finally:
        await response.aclose()
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in DECODED]
    return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)


DECODED = frozenset((b"content-encoding", b"content-length", b"transfer-encoding"))
"""Headers that no longer hold once the body is read."""


def _is_long(wait: timedelta | None) -> TypeGuard[timedelta]:
    return wait is not None and wait > SLEPT_WITHIN


def _retry_after(error: Exception) -> bool | timedelta:
    """Return the wait before the next try, True for the usual one, False if no try can help now."""
    if not isinstance(error, Retryable) or _is_long(error.retry_after):
        return False
    return error.retry_after or True
