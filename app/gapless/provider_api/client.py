"""Send a provider's requests, with credentials, within rate and budget, and with retries.

The only place that does I/O with providers. It raises the contract's errors and no others.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpx
import stamina
from aiolimiter import AsyncLimiter

from gapless.clock import elapsed_us
from gapless.domain import Clock, Source, Sources
from gapless.ledger.budgets import BLOCK
from gapless.metrics import Metrics, status_class
from gapless_reconcilers.kit.contract import JudgesResponses
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    ProviderUnavailable,
    Retryable,
)
from gapless_reconcilers.kit.statuses import date_of, judge

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
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
    """Return an HTTP client for providers: it follows no redirects and reads nothing from the environment."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=50)
    return httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=False, limits=limits)


def new_limiter(rate: float) -> AsyncLimiter:
    """Return a limiter to `rate` requests in any second, as the vendor counts them; below ten, without bursts."""
    rate, burst = rate * RATE_MARGIN, rate * BURST_S
    return AsyncLimiter(burst, burst / (rate - burst)) if burst >= 1 else AsyncLimiter(1, 1 / rate)


async def _unlimited(_requests: int) -> None:
    """Reserve nothing: there is no budget."""


class ProviderClient:
    """Sends requests for one source. `spend` reserves that many requests of the read budget."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        sources: Sources,
        name: str,
        *,
        clock: Clock,
        metrics: Metrics,
        rate: float,
        spend: Callable[[int], Awaitable[None]] = _unlimited,
        retry: RequestRetryPolicy = DEFAULT_RETRY,
    ) -> None:
        self._client = client
        self._sources = sources
        self._name = name
        self._clock = clock
        self._metrics = metrics
        self._limiter = new_limiter(rate)
        self._spend = spend
        self._reserved = 0
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

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Return the provider's answer to `request`, if its status is good. Raises `ProviderError`s only."""
        return await self._retrying(_retry_after, self.send_once, request)

    async def send_once(self, request: httpx.Request) -> httpx.Response:
        """Do as `send`, without a retry."""
        await self._take_from_budget()
        provider = self.source.provider
        async with self._limiter:
            try:
                response = await self._client.send(request, auth=provider.auth())
            except (httpx.LocalProtocolError, UnicodeError):  # its text shows the header, which is the credential
                self._metrics.provider_requests.labels(self._name, "error").inc()
                raise CredentialsRejected(
                    f"no header can carry the credentials of source {self._name!r}; check the secret for odd characters"
                ) from None
            except httpx.HTTPError as error:
                self._metrics.provider_requests.labels(self._name, "error").inc()
                raise ProviderUnavailable(f"{request.url.host}: {type(error).__name__}: {error}") from error
        response.stream = httpx.ByteStream(b"")  # read already; it holds the response, body and all, in a cycle
        self._metrics.provider_requests.labels(self._name, status_class(response.status_code)).inc()
        self.answered = True
        self._read_clock(response)
        if isinstance(provider, JudgesResponses):
            provider.judge(response, self.provider_now)
        else:
            judge(response, self.provider_now)
        return response

    async def _take_from_budget(self) -> None:
        """Count the request. A block counts only once it is reserved, even if this is cancelled; so one at a time."""
        self.requests += 1
        async with self._reserving:
            if self._reserved == 0:
                await self._spend(BLOCK)
                self._reserved = BLOCK
            self._reserved -= 1

    def _read_clock(self, response: httpx.Response) -> None:
        date = date_of(response)
        if date is not None:
            self._date = date, elapsed_us(self._clock)


def _retry_after(error: Exception) -> bool | timedelta:
    """Return the wait before the next try, True for the usual one, False if no try can help."""
    if not isinstance(error, Retryable):
        return False
    return error.retry_after or True
