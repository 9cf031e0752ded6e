"""The quarantine: keeps refused webhooks for a while, so that they can be released once the cause is fixed.

Strangers fill it, so it must never slow down a genuine webhook: it keeps only requests with the provider's
signature header, at a bounded rate per source and reason, of which one sender has half, and writes them when the writer
is idle. What does not fit is dropped and counted.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from gapless.client_address import UNKNOWN
from gapless.domain import Source, from_us
from gapless.ledger import quarantine as ledger
from gapless.ledger.engine import StoreError
from gapless.ledger.quarantine import Caps, QuarantinedWebhook
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics
from gapless.receive import webhook
from gapless.receive.carried_secrets import hidden, revealed, secret_headers
from gapless.receive.evidence import EvidenceFetcher, EvidenceUnavailable
from gapless.receive.shared_limit import SharedLimit
from gapless.receive.stream_ids import StreamIds
from gapless.receive.webhook import Refusal
from gapless.runtime import Runtime
from gapless.sealing import CannotOpen
from gapless.token_bucket import TokenBucket
from gapless_reconcilers.kit.contract import Provider, Reply, WebhookRequest

KEPT: Final = "kept"
DROPPED: Final = "dropped"
"""The two outcomes of an offered webhook: the label `outcome` of `quarantined_total`."""
QUEUE: Final = 32
"""Most refused webhooks that wait to be written; of one sender, half of them."""
SHARE: Final = 4
"""The part of the bytes of one source that a single webhook, or all that wait to be written, may have: a quarter."""
BATCH: Final = 8
DETAIL_CHARS: Final = 500
HEADERS_MAX_BYTES: Final = 16 << 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineOptions:
    """Bounds of the quarantine, each per source; 0 in any of them disables it."""

    max_rows: int
    max_bytes: int
    per_minute: int
    """Most webhooks kept per reason and minute, and at once."""

    @property
    def caps(self) -> Caps:
        """The most rows and bytes of one source."""
        return Caps(rows=self.max_rows, size_bytes=self.max_bytes)

    @property
    def is_off(self) -> bool:
        """True if nothing is ever kept."""
        return not (self.max_rows and self.max_bytes and self.per_minute)


class Quarantine:
    """Accepts refused webhooks in `offer`, without waiting; `run` writes them when the writer is idle."""

    def __init__(self, writer: Writer, metrics: Metrics, options: QuarantineOptions) -> None:
        self._writer = writer
        self._metrics = metrics
        self._options = options
        self._caps = options.caps
        self._rates: dict[tuple[int, str], SharedLimit] = {}
        self._waiting: asyncio.Queue[tuple[str, QuarantinedWebhook]] = asyncio.Queue(QUEUE)
        self._of_senders: Counter[str] = Counter()
        self._bytes = 0

    def offer(
        self,
        source: Source,
        request: WebhookRequest,
        refusal: Refusal,
        received_us: int,
        sender: str = UNKNOWN,
    ) -> None:
        """Queue `request` if it has the provider's signature header and the limits allow it. Never blocks or raises."""
        if self._options.is_off or not has_signature(request, source.provider):
            return
        if not self._has_room(request, sender) or not self._rate(source.id, refusal.reason).take(sender, received_us):
            self._count(source.name, DROPPED)
            return
        row = refused_row(source, request, refusal, received_us, sender)
        if len(row.headers) > HEADERS_MAX_BYTES:
            self._count(source.name, DROPPED)
            return
        self._waiting.put_nowait((source.name, row))
        self._of_senders[sender] += 1
        self._bytes += len(row.body)

    def _has_room(self, request: WebhookRequest, sender: str) -> bool:
        if self._waiting.full() or self._of_senders[sender] >= QUEUE // 2:
            return False
        return self._bytes + len(request.body) <= self._caps.size_bytes // SHARE

    def _take(self, name: str, row: QuarantinedWebhook) -> tuple[str, QuarantinedWebhook]:
        self._bytes -= len(row.body)
        self._of_senders -= Counter((row.sender,))
        return name, row

    async def run(self) -> None:
        """Write the queued webhooks, a few to a transaction, until cancelled. If the store fails, they are dropped."""
        while True:
            batch = [self._take(*await self._waiting.get())]
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._take(*self._waiting.get_nowait()))
            outcome = KEPT
            try:
                await self._writer.submit_idle(ledger.add, refused=[row for _, row in batch], caps=self._caps)
            except StoreError as error:
                outcome = DROPPED
                _log.warning("quarantine_not_kept", extra={"count": len(batch), "error": str(error)})
            for name, _ in batch:
                self._count(name, outcome)

    def _rate(self, source_id: int, reason: str) -> SharedLimit:
        found = self._rates.get((source_id, reason))
        if found is None:
            rate = self._options.per_minute
            found = self._rates[source_id, reason] = SharedLimit(
                all=TokenBucket(burst=rate, per_second=rate / 60),
                share=partial(TokenBucket, burst=max(1.0, rate / 2), per_second=rate / 120),
            )
        return found

    def _count(self, source_name: str, outcome: str) -> None:
        self._metrics.quarantined.labels(source_name, outcome).inc()


def has_signature(request: WebhookRequest, provider: Provider) -> bool:
    """True if the request carries the header without which a webhook is not the provider's."""
    known = provider.capabilities
    first = {names[0].encode() for names in (known.signature_headers, known.twin_headers) if names}
    return any(name in first for name, _ in request.headers)


def refused_row(
    source: Source, request: WebhookRequest, refusal: Refusal, received_us: int, sender: str = UNKNOWN
) -> QuarantinedWebhook:
    """Return the row to keep: the body and all signature headers, repeated ones too, so that it can be read again.

    A secret that a header carries is kept as a digest.
    """
    names = webhook.read_headers(source.provider)
    found = [(name.decode(), value.decode("latin-1")) for name, value in request.headers if name in names]
    pairs = hidden(found, secret_headers(source.provider), source.digest_key)
    return QuarantinedWebhook(
        source_id=source.id,
        received_us=received_us,
        reason=refusal.reason,
        detail=refusal.detail.encode(errors="replace").decode().replace("\0", "")[:DETAIL_CHARS],
        headers=msgspec.json.encode(pairs).decode(),
        body=request.body,
        sender=sender,
        claims=msgspec.json.encode(webhook.claimed_keys(source.provider, request)).decode(),
    )


def request_of(row: QuarantinedWebhook, providers: Iterable[Provider] = (), digest_key: str = "") -> WebhookRequest:
    """Return the request from which `row` was made, with the headers that a provider reads.

    Secrets that a header carried are put back if one of `providers` knows them; `digest_key` is that of its source.
    """
    pairs = msgspec.json.decode(row.headers, type=list[tuple[str, str]])
    headers = tuple((name.encode(), value.encode("latin-1")) for name, value in pairs)
    return revealed(WebhookRequest(headers=headers, body=row.body), providers, digest_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A webhook left the quarantine; `new` of its events were not in the ledger."""

    new: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StillRefused:
    """A webhook stays in quarantine: the reason, and the detail for the operator."""

    reason: str
    detail: str


async def release_webhook(
    quarantine_id: int,
    *,
    runtime: Runtime,
    stream_ids: StreamIds,
    evidence: EvidenceFetcher,
) -> Released | StillRefused:
    """Read a kept webhook again with today's secrets, as of when it was received, and record it if it verifies.

    Idempotent: events that are there already are noted, not repeated. Raises `StoreError`.
    """
    found = await _content(quarantine_id, runtime)
    if isinstance(found, StillRefused):
        return found
    row, released_us, purged_us = found
    source = next((each for each in runtime.sources if each.id == row.source_id), None)
    if source is None:
        return StillRefused(
            reason="no_source", detail="its source is not configured; add it again to release its webhooks"
        )
    if (obstacle := _obstacle(row, released_us, purged_us)) is not None:
        return obstacle
    try:
        request = request_of(row, [source.provider], source.digest_key)
        reply = await evidence.read(source, request, from_us(row.received_us))
    except EvidenceUnavailable as error:
        return StillRefused(reason="evidence_unavailable", detail=f"{error}; try again")
    if isinstance(reply, Refusal):
        return StillRefused(reason=reply.reason, detail=reply.detail)
    return await _release(quarantine_id, row, source, reply, runtime=runtime, stream_ids=stream_ids)


async def _content(
    quarantine_id: int, runtime: Runtime
) -> tuple[QuarantinedWebhook, int | None, int | None] | StillRefused:
    try:
        found = await runtime.read(ledger.content, quarantine_id=quarantine_id)
    except CannotOpen as error:
        return StillRefused(reason="key_missing", detail=str(error))
    if found is None:
        detail = f"quarantine {quarantine_id} is not there; a full quarantine deletes its oldest webhooks"
        return StillRefused(reason="absent", detail=detail)
    return found


def _obstacle(row: QuarantinedWebhook, released_us: int | None, purged_us: int | None) -> StillRefused | None:
    """Return why the webhook is not even read again; None: it is."""
    if released_us is not None:
        return StillRefused(reason="released", detail=f"it was released at {from_us(released_us).isoformat()}")
    if purged_us is not None:
        detail = f"its body was deleted at {from_us(purged_us).isoformat()}, and only what it claimed was kept"
        return StillRefused(reason="purged", detail=detail)
    if row.reason in ledger.PARTIAL:
        detail = "it was not kept, only what names its events: the vendor or a pass brings them"
        return StillRefused(reason=row.reason, detail=detail)
    return None


async def _release(
    quarantine_id: int,
    row: QuarantinedWebhook,
    source: Source,
    reply: Reply,
    *,
    runtime: Runtime,
    stream_ids: StreamIds,
) -> Released | StillRefused:
    request = request_of(row)
    ids = await stream_ids.learn(source.id, reply.events)
    now_us = runtime.now_us
    headers = webhook.kept_headers(request.headers, webhook.header_names(source.provider))
    seen = webhook.sightings(source, reply, ids, body=row.body, headers=headers, seen_us=now_us)
    new = await runtime.write(
        ledger.release, quarantine_id=quarantine_id, recorder=runtime.writer.recorder, webhook=seen, now_us=now_us
    )
    if new is None:
        return StillRefused(reason="released", detail="somebody else has just released it")
    return Released(new=new)
