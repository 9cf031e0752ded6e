"""The I/O of the reconcile road: sends a provider's requests with credentials, pace and retries.

The only place that talks to providers. Errors leave it as the contract's errors and nothing else.
"""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
import stamina
from aiolimiter import AsyncLimiter

from gapless.domain import Clock, Source, Sources
from gapless.ledger.budgets import BLOCK
from gapless.metrics import Metrics, status_class
from gapless_reconcilers.kit.contract import ConsumesEvents, JudgesResponses, ListsEvents, Page, Provider, Window
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    OptionsInvalid,
    ProviderUnavailable,
    Retryable,
    UnexpectedShape,
)
from gapless_reconcilers.kit.statuses import judge

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
BURST_S = 0.1
"""A burst of what is granted in this time is let through; the rest comes so much slower that no second sees more."""
UNEVEN = 0.97
"""The part of the rate that is used: what leaves us evenly does not arrive so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often and how long a request is retried before the pass is given up for now."""

    attempts: int = 5
    total: timedelta = timedelta(minutes=2)
    first_wait: timedelta = timedelta(milliseconds=500)
    longest_wait: timedelta = timedelta(seconds=30)


PATIENT = Patience()


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


class Fetcher:
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
        patience: Patience = PATIENT,
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


Walked = AsyncGenerator[Page, None]


def pages(fetcher: Fetcher, stream: str, window: Window, cursor: str | None = None) -> aclosing[Walked]:
    """The pages of `window`, as a context manager around an async generator.

    The walk can go on after a page from its `next`, frozen as `cursor`. The next page is asked for while
    the caller works on this one. Raises `ProviderError`s; `UnexpectedShape` if a request comes round
    again, which would never end.
    """
    return aclosing(_walk(fetcher, stream, window, cursor))


async def _walk(fetcher: Fetcher, stream: str, window: Window, cursor: str | None) -> Walked:
    request: httpx.Request | None
    request = thaw(cursor) if cursor else lister(fetcher.source.provider).first_request(stream, window)
    asked = {_mark(request)}
    pending = asyncio.ensure_future(fetcher.send(request))
    try:
        while request is not None:
            page = lister(fetcher.source.provider).read_page(request, await pending, stream, window)
            request = page.next
            if request is not None:
                if (mark := _mark(request)) in asked:
                    raise UnexpectedShape("next page", "the address of a page that was read already", "a new one")
                asked.add(mark)
                pending = asyncio.ensure_future(fetcher.send(request))
            yield page
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)


def lister(provider: Provider) -> ListsEvents:
    """The provider as one that lists. Raises `OptionsInvalid`."""
    if isinstance(provider, ConsumesEvents):
        raise OptionsInvalid(f"what {provider.kind!r} hands out is gone afterwards: it cannot be audited or tried")
    if not isinstance(provider, ListsEvents):
        raise OptionsInvalid(f"provider {provider.kind!r} lists nothing: what it pushes is all that can be known")
    return provider


def _mark(request: httpx.Request) -> int:
    """Equal for equal requests, and small: a walk remembers one for each page."""
    url = request.url
    return hash((request.method, url.raw_host, url.raw_path, tuple(request.headers.raw), request.content))


HOP_HEADERS = frozenset({"host", "content-length", "accept-encoding", "connection", "user-agent"})


def freeze(request: httpx.Request) -> str:
    """A provider's request as text, to be stored. It holds no credentials: the engine adds those when it sends."""
    headers = {name: value for name, value in request.headers.items() if name not in HOP_HEADERS}
    body = base64.b64encode(request.content).decode()
    return json.dumps([request.method, str(request.url), headers, body])


def thaw(text: str) -> httpx.Request:
    """The request that `freeze` stored."""
    method, url, headers, body = json.loads(text)
    return httpx.Request(method, url, headers=headers, content=base64.b64decode(body))
