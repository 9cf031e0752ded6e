"""Fetches evidence: data that a provider needs before it can verify a webhook, such as the vendor's certificate.

Strangers decide when this happens, so it is bounded in every way: only hosts that the provider's
capabilities name, one request for all webhooks that wait for the same answer, few requests at once, small
answers, a short time, and a cache. If a fetch fails, the webhook is neither accepted nor refused: the sender
is asked to try again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import httpx
from httpx import codes

from gapless.clock import elapsed_us
from gapless.domain import Source, span_us
from gapless.metrics import Metrics, status_class
from gapless.receive import webhook
from gapless.receive.webhook import Refusal
from gapless.token_bucket import TokenBucket
from gapless_reconcilers.kit.contract import NeedsEvidence, Reply, WebhookRequest
from gapless_reconcilers.kit.errors import ProviderError
from gapless_reconcilers.kit.statuses import describe_origin

WITHIN_S: Final = 5.0
"""Vendors wait ten seconds for our answer, and it must still be stored."""
MAX_BYTES: Final = 256 << 10
MAX_CONCURRENT: Final = 16
MAX_WAITING: Final = 256
"""Most webhooks that wait for evidence; one more is answered 503."""
CACHE_MAX: Final = 512
"""Most answers in the cache."""
REFUSAL_KEPT: Final = timedelta(minutes=1)
"""Time for which an answer that is not 2xx is kept."""
MAX_STEPS: Final = 4
"""Most pieces of evidence for one webhook."""
FETCHES_AT_ONCE: Final = 60
FETCHES_PER_SECOND: Final = 5.0
"""Limit of cacheable fetches per source, so that a stranger who names ever new URLs causes no more than this."""
TRY_AGAIN: Final = frozenset((codes.REQUEST_TIMEOUT, codes.TOO_EARLY, codes.TOO_MANY_REQUESTS))
CREDENTIALS_REFUSED: Final = frozenset((codes.UNAUTHORIZED, codes.FORBIDDEN))
"""Answers that concern our credentials, not the webhook."""


class EvidenceUnavailable(Exception):
    """The evidence could not be fetched now, so the webhook is neither verified nor refused: answer 503."""


@dataclass(frozen=True, slots=True)
class _CachedAnswer:
    answer: httpx.Response
    until_us: int


class EvidenceFetcher:
    """Fetches and caches evidence for the sources of one process."""

    def __init__(self, client: httpx.AsyncClient, clock: Callable[[], datetime], metrics: Metrics) -> None:
        self._client = client
        self._clock = clock
        self._metrics = metrics
        self._kept: OrderedDict[tuple[int, str], _CachedAnswer] = OrderedDict()
        self._under_way: dict[tuple[int, str], asyncio.Task[httpx.Response]] = {}
        self._buckets: dict[int, TokenBucket] = {}
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._waiting = 0

    async def read(self, source: Source, request: WebhookRequest, now: datetime) -> Reply | Refusal:
        """Return what `read_webhook` makes of the request with all its evidence. Raises `EvidenceUnavailable`."""
        if self._waiting >= MAX_WAITING:
            raise EvidenceUnavailable(f"{self._waiting} webhooks wait for evidence")
        self._waiting += 1
        try:
            return await self._read(source, request, now)
        finally:
            self._waiting -= 1

    async def _read(self, source: Source, request: WebhookRequest, now: datetime) -> Reply | Refusal:
        found: dict[str, httpx.Response] = {}
        for _ in range(MAX_STEPS):
            reply = webhook.read_webhook(source.provider, request, now, found)
            if not isinstance(reply, NeedsEvidence):
                return reply
            if not source.provider.capabilities.may_fetch(reply.request.url):
                detail = f"evidence would come from {describe_origin(reply.request.url)}, which is not the vendor's"
                return Refusal(reason=webhook.OTHER, detail=detail)
            found[reply.cache_key] = await self._get(source, reply)
        raise EvidenceUnavailable(f"provider {source.provider.kind!r} asks for evidence without end")

    async def _get(self, source: Source, needed: NeedsEvidence) -> httpx.Response:
        """Return the answer: from the cache, from a request under way, or from a new request."""
        if not needed.max_age:
            return await self._fetch(source, needed)
        key, now_us = (source.id, needed.cache_key), elapsed_us(self._clock)
        kept = self._kept.get(key)
        if kept is not None and now_us < kept.until_us:
            self._kept.move_to_end(key)
            return kept.answer
        task = self._under_way.get(key)
        if task is None:
            if not self._bucket(source.id).take(now_us):
                raise EvidenceUnavailable("too many pieces of evidence were requested lately")
            task = self._under_way[key] = asyncio.create_task(self._fetch_and_keep(source, needed))
            task.add_done_callback(partial(self._end, key))
        return await asyncio.shield(task)

    def _end(self, key: tuple[int, str], task: asyncio.Task[httpx.Response]) -> None:
        self._under_way.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; perhaps nobody waits any more

    async def _fetch_and_keep(self, source: Source, needed: NeedsEvidence) -> httpx.Response:
        answer = await self._fetch(source, needed)
        life = needed.max_age if answer.is_success else min(needed.max_age, REFUSAL_KEPT)
        until_us = elapsed_us(self._clock) + span_us(life)
        self._kept[source.id, needed.cache_key] = _CachedAnswer(answer, until_us)
        while len(self._kept) > CACHE_MAX:
            self._kept.popitem(last=False)
        return answer

    async def _fetch(self, source: Source, needed: NeedsEvidence) -> httpx.Response:
        """Send the request. Raises `EvidenceUnavailable` if it failed in a way that may pass."""
        auth = source.provider.auth() if needed.with_credentials else None
        try:
            async with asyncio.timeout(WITHIN_S), self._slots:
                answer = await self._send(needed.request, auth)
        except (TimeoutError, httpx.HTTPError, OSError, ProviderError) as error:
            self._count(source, "error")
            message = f"{describe_origin(needed.request.url)}: {type(error).__name__}: {error}"
            raise EvidenceUnavailable(message) from error
        self._count(source, status_class(answer.status_code))
        is_ours = needed.with_credentials and answer.status_code in CREDENTIALS_REFUSED
        if answer.is_server_error or answer.status_code in TRY_AGAIN or is_ours:
            raise EvidenceUnavailable(f"{describe_origin(needed.request.url)} answered {answer.status_code}")
        return answer

    async def _send(self, request: httpx.Request, auth: httpx.Auth | None) -> httpx.Response:
        response = await self._client.send(request, auth=auth, follow_redirects=False, stream=True)
        try:
            body = b""
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    raise httpx.DecodingError(f"the answer is longer than {MAX_BYTES} bytes", request=request)
        finally:
            await response.aclose()
        return httpx.Response(response.status_code, content=body, request=request)

    def _bucket(self, source_id: int) -> TokenBucket:
        if source_id not in self._buckets:
            self._buckets[source_id] = TokenBucket(burst=FETCHES_AT_ONCE, per_second=FETCHES_PER_SECOND)
        return self._buckets[source_id]

    def _count(self, source: Source, status: str) -> None:
        self._metrics.provider_requests.labels(source.name, status).inc()
