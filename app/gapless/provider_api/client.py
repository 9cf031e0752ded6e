"""The I/O of the reconcile road: sends a provider's requests with credentials, pace and retries.

The only place that talks to providers. Errors leave it as the contract's errors and nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
import stamina
from aiolimiter import AsyncLimiter

from gapless.domain import Clock, Source, Sources
from gapless.ledger.budgets import BLOCK
from gapless.metrics import Metrics, status_class
from gapless_reconcilers.kit.contract import JudgesResponses
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    ProviderUnavailable,
    Retryable,
)
from gapless_reconcilers.kit.statuses import judge

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
BURST_S = 0.1
"""A burst of what is granted in this time is let through; the rest comes so much slower that no second sees more."""
UNEVEN = 0.97
"""The part of the rate that is used: what leaves us evenly does not arrive so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRetryPolicy:
    """How often and how long a request is retried before the pass is given up for now."""

    attempts: int = 5
    total: timedelta = timedelta(minutes=2)
    first_wait: timedelta = timedelta(milliseconds=500)
    longest_wait: timedelta = timedelta(seconds=30)


PATIENT = RequestRetryPolicy()


def new_client() -> httpx.AsyncClient:
    """A client for providers: no redirects, nothing taken from the environment."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=50)
    return httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=False, limits=limits)


def new_limiter(rate: float) -> AsyncLimiter:
    """At most `rate` requests in any second, as the vendor counts them; under ten a second one at a time, evenly."""
    rate, burst = rate * UNEVEN, rate * BURST_S
    return AsyncLimiter(burst, burst / (rate - burst)) if burst >= 1 else AsyncLimiter(1, 1 / rate)


async def _unlimited(_requests: int) -> None:
    """No budget is kept."""


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
        patience: RequestRetryPolicy = PATIENT,
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
            attempts=patience.attempts,
            timeout=patience.total,
            wait_initial=patience.first_wait,
            wait_max=patience.longest_wait,
        )
        self.requests = 0
        self.skew: timedelta | None = None
        """Our clock less the provider's, as its last answer showed; None: it has not said."""

    @property
    def behind(self) -> timedelta:
        """How far the provider's clock is behind ours, as far as is known; never negative."""
        return max(timedelta(0), self.skew or timedelta(0))

    @property
    def source(self) -> Source:
        """The source as it is now: its secrets may have been replaced."""
        return self._sources[self._name]

    async def send(self, request: httpx.Request) -> httpx.Response:
        """The provider's answer to `request`, judged readable. Raises `ProviderError`s only."""
        return await self._retrying(_worth_another_try, self._send, request)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        await self._take_from_budget()
        provider = self.source.provider
        async with self._limiter:
            try:
                response = await self._client.send(request, auth=provider.auth())
            except (httpx.LocalProtocolError, UnicodeError):  # its words show the header, and that is the credential
                self._metrics.provider_requests.labels(self._name, "error").inc()
                raise CredentialsRejected(
                    f"no header can carry the credentials of source {self._name!r}; check the secret for odd characters"
                ) from None
            except httpx.HTTPError as error:
                self._metrics.provider_requests.labels(self._name, "error").inc()
                raise ProviderUnavailable(f"{request.url.host}: {type(error).__name__}: {error}") from error
        response.stream = httpx.ByteStream(b"")  # read already; it holds the response, body and all, in a cycle
        now = self._clock()
        self._metrics.provider_requests.labels(self._name, status_class(response.status_code)).inc()
        self._read_clock(response, now)
        if isinstance(provider, JudgesResponses):
            provider.judge(response, now)
        else:
            judge(response, now)
        return response

    async def _take_from_budget(self) -> None:
        """Count the request. One at a time: a block counts as reserved only once it is, even if this is cancelled."""
        self.requests += 1
        async with self._reserving:
            if self._reserved == 0:
                await self._spend(BLOCK)
                self._reserved = BLOCK
            self._reserved -= 1

    def _read_clock(self, response: httpx.Response, now: datetime) -> None:
        try:
            theirs = parsedate_to_datetime(response.headers["date"])
        except (KeyError, ValueError, OverflowError):
            return
        if theirs.utcoffset() is not None:
            self.skew = now - theirs


def _worth_another_try(error: Exception) -> bool | timedelta:
    if not isinstance(error, Retryable):
        return False
    return error.retry_after or True
