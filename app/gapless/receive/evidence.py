"""Fetches evidence: data that a provider needs before it can verify a webhook, such as the vendor's certificate.

Strangers decide when this happens, so it is bounded in every way, and for each source by itself: only hosts that the
provider's capabilities name, one request for all webhooks that wait for the same answer, few requests at once and in an
hour, few webhooks that wait, small answers, a short time. What is there already is looked at first, so a webhook whose
evidence is there never waits for others. Evidence with which a webhook was once verified is *proven*: it is kept apart,
and what strangers name neither displaces it nor keeps it from being fetched again. If a fetch fails, the webhook is
neither accepted nor refused: the sender is asked to try again.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import httpx
import msgspec
from httpx import codes

from gapless.client_address import UNKNOWN
from gapless.clock import elapsed_us
from gapless.domain import Source, from_us, span_us
from gapless.ledger import events
from gapless.ledger.engine import StoreError
from gapless.metrics import Metrics, status_class
from gapless.receive import webhook
from gapless.receive.shared_limit import SharedLimit
from gapless.receive.webhook import Refusal
from gapless.runtime import Runtime
from gapless.token_bucket import TokenBucket
from gapless_reconcilers.kit.contract import NeedsEvidence, Reply, WebhookRequest
from gapless_reconcilers.kit.errors import ProviderError
from gapless_reconcilers.kit.statuses import describe_origin

WITHIN_S: Final = 5.0
"""Vendors wait ten seconds for our answer, and it must still be stored."""
MAX_BYTES: Final = 256 << 10
MAX_CONCURRENT: Final = 8
"""Most requests of one source at once. Those for proven evidence are not among them."""
MAX_WAITING: Final = 256
"""Most webhooks of one source that wait for evidence; one more is answered 503."""
MAX_WAITING_FOR_ONE: Final = 128
"""Most of them that wait for the same answer, so that a slow one leaves room for others."""
CACHE_MAX: Final = 32
"""Most unproven answers that are kept for one source."""
PROVEN_MAX: Final = 16
"""Most proven answers that are kept for one source; only other proven ones displace them."""
REFUSAL_KEPT: Final = timedelta(minutes=1)
"""Time for which an answer that is not 2xx is kept."""
MAX_STEPS: Final = 4
"""Most pieces of evidence for one webhook."""
FETCHES_AT_ONCE: Final = 60
FETCHES_PER_SECOND: Final = 0.1
"""Limit of cacheable fetches per source: a vendor has a new certificate a few times a year."""
AGAIN_AT_ONCE: Final = 60
AGAIN_PER_SECOND: Final = 1.0
"""Limit of fetches per source of what is proven and too old: one a day suffices, unless the vendor is down."""
POSTBACKS_AT_ONCE: Final = 300
POSTBACKS_PER_SECOND: Final = 20.0
"""Limit of requests per source that are about one webhook each: they are as many as its webhooks."""
SENDER_AT_ONCE: Final = 8
SENDER_PER_SECOND: Final = 1 / 300
"""Limit of cacheable fetches per sender and source."""
SENDERS_POSTBACKS: Final = 0.5
"""The part of the questions about single webhooks that one sender may use up."""
REMEMBERED: Final = 8
"""The last webhooks of a source from which a new process learns what is proven."""
RECALL_EVERY: Final = timedelta(minutes=1)
"""Time between two tries to read them: the store may be away, or this process may not read payloads."""
TRY_AGAIN: Final = frozenset((codes.REQUEST_TIMEOUT, codes.TOO_EARLY, codes.TOO_MANY_REQUESTS))
CREDENTIALS_REFUSED: Final = frozenset((codes.UNAUTHORIZED, codes.FORBIDDEN))
"""Answers that concern our credentials, not the webhook."""


Stored = Callable[[int], Awaitable[Sequence[tuple[WebhookRequest, datetime]]]]
"""Returns the last webhooks of a source, by its id, that were verified and stored, and when each came."""
_log = logging.getLogger(__name__)


class EvidenceUnavailable(Exception):
    """The evidence could not be fetched now, so the webhook is neither verified nor refused: answer 503."""


@dataclass(frozen=True, slots=True)
class _KeptAnswer:
    answer: httpx.Response
    until_us: int


def _fetches() -> SharedLimit:
    return SharedLimit(
        all=TokenBucket(burst=FETCHES_AT_ONCE, per_second=FETCHES_PER_SECOND),
        share=partial(TokenBucket, burst=SENDER_AT_ONCE, per_second=SENDER_PER_SECOND),
    )


def _postbacks() -> SharedLimit:
    at_once, per_second = POSTBACKS_AT_ONCE * SENDERS_POSTBACKS, POSTBACKS_PER_SECOND * SENDERS_POSTBACKS
    return SharedLimit(
        all=TokenBucket(burst=POSTBACKS_AT_ONCE, per_second=POSTBACKS_PER_SECOND),
        share=partial(TokenBucket, burst=at_once, per_second=per_second),
    )


@dataclass(slots=True)
class _OfSource:
    """What is kept, what is proven and what is under way, for one source."""

    kept: OrderedDict[str, _KeptAnswer] = field(default_factory=OrderedDict)
    proven: OrderedDict[str, _KeptAnswer | None] = field(default_factory=OrderedDict)
    """None: it is known to be proven, and has not been fetched by this process."""
    under_way: dict[str, asyncio.Task[httpx.Response]] = field(default_factory=dict)
    waiting: Counter[str] = field(default_factory=Counter)
    is_recalled: bool = False
    recall_from_us: int = 0
    """When the last webhooks may be read again, after they could not be."""
    slots: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, MAX_CONCURRENT))
    proven_slots: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, PROVEN_MAX))
    fetches: SharedLimit = field(default_factory=_fetches)
    again: TokenBucket = field(default_factory=partial(TokenBucket, burst=AGAIN_AT_ONCE, per_second=AGAIN_PER_SECOND))
    postbacks: SharedLimit = field(default_factory=_postbacks)

    def answer(self, key: str, now_us: int) -> httpx.Response | None:
        """Return what is kept under `key`; None: nothing, or it is too old."""
        if key in self.proven:
            self.proven.move_to_end(key)
        for found in self.proven.get(key), self.kept.get(key):
            if found is not None and now_us < found.until_us:
                return found.answer
        return None

    def keep(self, key: str, answer: httpx.Response, until_us: int) -> None:
        """Keep an answer, in place of the oldest unproven one."""
        if key in self.proven and answer.is_success:
            self.proven[key] = _KeptAnswer(answer, until_us)
            return
        self.kept[key] = _KeptAnswer(answer, until_us)
        self.kept.move_to_end(key)
        while len(self.kept) > CACHE_MAX:
            self.kept.popitem(last=False)

    def may_fetch(self, key: str, sender: str, now_us: int) -> bool:
        """Count one more fetch; return False if there were too many lately."""
        return self.again.take(now_us) if key in self.proven else self.fetches.take(sender, now_us)

    def prove(self, key: str) -> None:
        """Keep the answer apart from now on: a webhook was verified with it."""
        if key not in self.proven:
            self.proven[key] = self.kept.pop(key, None)
            while len(self.proven) > PROVEN_MAX:
                self.proven.popitem(last=False)

    @contextmanager
    def wait(self, key: str) -> Iterator[None]:
        """Count one more webhook that waits for `key`. Raises `EvidenceUnavailable` if too many do."""
        if self.waiting[key] >= MAX_WAITING_FOR_ONE or self.waiting.total() >= MAX_WAITING:
            raise EvidenceUnavailable(f"{self.waiting.total()} webhooks wait for evidence")
        self.waiting[key] += 1
        try:
            yield
        finally:
            self.waiting[key] -= 1
            if not self.waiting[key]:
                del self.waiting[key]


class EvidenceFetcher:
    """Fetches and keeps evidence for the sources of one process."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        clock: Callable[[], datetime],
        metrics: Metrics,
        stored: Stored | None = None,
    ) -> None:
        self._client = client
        self._stored = stored
        self._clock = clock
        self._metrics = metrics
        self._sources: dict[int, _OfSource] = {}

    async def read(
        self, source: Source, request: WebhookRequest, now: datetime, sender: str = UNKNOWN
    ) -> Reply | Refusal:
        """Return what `read_webhook` makes of the request with all its evidence. Raises `EvidenceUnavailable`."""
        of_source = self._sources.setdefault(source.id, _OfSource())
        await self._recall(source, of_source)
        found: dict[str, httpx.Response] = {}
        for _ in range(MAX_STEPS):
            reply = webhook.read_webhook(source.provider, request, now, found)
            if not isinstance(reply, NeedsEvidence):
                if isinstance(reply, Reply):
                    _prove(of_source, found)
                return reply
            if not source.provider.capabilities.may_fetch(reply.request.url):
                detail = f"evidence would come from {describe_origin(reply.request.url)}, which is not the vendor's"
                return Refusal(reason=webhook.OTHER, detail=detail)
            found[reply.cache_key] = await self._get(source, of_source, reply, sender)
        raise EvidenceUnavailable(f"provider {source.provider.kind!r} asks for evidence without end")

    async def _recall(self, source: Source, of_source: _OfSource) -> None:
        """Learn once from the last webhooks in the ledger what is proven: strangers may come before the vendor does."""
        if of_source.is_recalled or self._stored is None or elapsed_us(self._clock) < of_source.recall_from_us:
            return
        of_source.is_recalled = True
        try:
            webhooks = await self._stored(source.id)
        except StoreError as error:
            of_source.is_recalled = False
            of_source.recall_from_us = elapsed_us(self._clock) + span_us(RECALL_EVERY)
            _log.info("proven_evidence_not_read", extra={"source": source.name, "error": str(error)})
            return
        for request, at in webhooks:
            reply = webhook.read_webhook(source.provider, request, at)
            if isinstance(reply, NeedsEvidence) and reply.max_age:
                of_source.prove(reply.cache_key)

    async def _get(self, source: Source, of_source: _OfSource, needed: NeedsEvidence, sender: str) -> httpx.Response:
        """Return the answer: one that is kept, that of a request under way, or that of a new request."""
        key, now_us = needed.cache_key, elapsed_us(self._clock)
        if not needed.max_age:
            with of_source.wait(f"postback of {sender}"):
                if not of_source.postbacks.take(sender, now_us):
                    raise EvidenceUnavailable("the vendor was asked about too many webhooks lately")
                return await self._fetch(source, needed, of_source.slots)
        kept = of_source.answer(key, now_us)
        if kept is not None:
            return kept
        with of_source.wait(key):
            task = of_source.under_way.get(key)
            if task is None:
                if not of_source.may_fetch(key, sender, now_us):
                    raise EvidenceUnavailable("too many pieces of evidence were requested lately")
                task = of_source.under_way[key] = asyncio.create_task(self._fetch_and_keep(source, of_source, needed))
                task.add_done_callback(partial(_end, of_source, key))
            return await asyncio.shield(task)

    async def _fetch_and_keep(self, source: Source, of_source: _OfSource, needed: NeedsEvidence) -> httpx.Response:
        is_proven = needed.cache_key in of_source.proven
        answer = await self._fetch(source, needed, of_source.proven_slots if is_proven else of_source.slots)
        life = needed.max_age if answer.is_success else min(needed.max_age, REFUSAL_KEPT)
        of_source.keep(needed.cache_key, answer, elapsed_us(self._clock) + span_us(life))
        return answer

    async def _fetch(self, source: Source, needed: NeedsEvidence, slots: asyncio.Semaphore) -> httpx.Response:
        """Send the request. Raises `EvidenceUnavailable` if it failed in a way that may pass."""
        auth = source.provider.auth() if needed.with_credentials else None
        try:
            async with asyncio.timeout(WITHIN_S), slots:
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

    def _count(self, source: Source, status: str) -> None:
        self._metrics.provider_requests.labels(source.name, status).inc()


def _prove(of_source: _OfSource, found: Mapping[str, httpx.Response]) -> None:
    for key in found:
        if key in of_source.kept:
            of_source.prove(key)


def _end(of_source: _OfSource, key: str, task: asyncio.Task[httpx.Response]) -> None:
    of_source.under_way.pop(key, None)
    if not task.cancelled():
        task.exception()  # whoever waited has it; perhaps nobody waits any more


def make_fetcher(runtime: Runtime, client: httpx.AsyncClient | None = None) -> EvidenceFetcher:
    """Return the fetcher of a process. `client` sends the requests; None: one of its own."""

    async def stored(source_id: int) -> list[tuple[WebhookRequest, datetime]]:
        rows = await runtime.read(events.newest_webhooks, source_id=source_id, limit=REMEMBERED)
        return [(_request(body, headers), from_us(at_us)) for body, headers, at_us in rows]

    return EvidenceFetcher(client or httpx.AsyncClient(trust_env=False), runtime.clock, runtime.metrics, stored)


def _request(body: bytes, headers: str) -> WebhookRequest:
    kept = msgspec.json.decode(headers, type=dict[str, str])
    return WebhookRequest(
        headers=tuple((name.encode(), value.encode("latin-1")) for name, value in kept.items()), body=body
    )
