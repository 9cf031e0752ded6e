"""The hot path: one source's webhooks, from the first byte of the request to the answer, and what endpoints share.

Plain ASGI, so that no request builds what it does not need: no request object, no middleware, and no
exception unless something is wrong. Whatever a stranger can cause is answered 4xx here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any, Final

import httpx

from gapless import masking
from gapless.client_address import Network, TrustedProxies, client_address, is_in, parse_address, sender_of
from gapless.clock import machine_clock
from gapless.domain import Source, Via, to_us
from gapless.ledger.engine import StoreError
from gapless.ledger.quarantine import CLOSED, TOO_LARGE
from gapless.ledger.recorder import BEYOND
from gapless.ledger.signed_messages import MOST
from gapless.ledger.writer import NotInTime, Unstorable
from gapless.receive import responses, webhook
from gapless.receive.admission import Admission
from gapless.receive.bodies import Bodies, Body
from gapless.receive.bounded_log import BoundedLog
from gapless.receive.evidence import EvidenceFetcher, EvidenceUnavailable, make_fetcher
from gapless.receive.offers import NOBODY, Offers
from gapless.receive.quarantine import DROPPED, KEPT, Quarantine, QuarantineOptions
from gapless.receive.responses import Response
from gapless.receive.stream_ids import StreamIds
from gapless.receive.turned_away import TurnedAway
from gapless.receive.webhook import METHOD, METHOD_NOT_ALLOWED, REASONS, UNSTORABLE, Outcome, Refusal
from gapless.runtime import Runtime
from gapless_reconcilers.kit.contract import Answer, NeedsEvidence, Reply, Secret, WebhookRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveOptions:
    """Limits of receiving."""

    body_limit: int
    """Most bytes of a body; a longer one is answered 413. Where the vendor sends more, the vendor's own maximum."""
    answer_within: timedelta
    """Time from the last byte of the body to the answer: durable, or 503."""
    body_limits: Mapping[str, int] = field(default_factory=dict)
    """The configured limits of single sources, by name."""

    allow_from: Mapping[str, tuple[Network, ...]]
    """The networks from which single sources take webhooks, by name. The others take them from everywhere."""
    trusted_proxies: TrustedProxies | None
    """The proxies whose header tells the address of the client; None: there are none."""

    def limit_of(self, source: Source) -> int:
        """Return the most bytes of a body: as configured for the source, else what its vendor may send."""
        default = max(self.body_limit, source.provider.capabilities.body_bytes or 0)
        return self.body_limits.get(source.name, default)

    body_within: timedelta
    """Time that a sender has for a body that comes in several parts."""
    quarantine: QuarantineOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """The parts that all endpoints of a process share."""

    runtime: Runtime
    admission: Admission
    bodies: Bodies
    quarantine: Quarantine
    stream_ids: StreamIds
    turned_away: TurnedAway
    evidence: EvidenceFetcher
    options: ReceiveOptions


def make_receiver(runtime: Runtime, *, options: ReceiveOptions, client: httpx.AsyncClient | None = None) -> Receiver:
    """Return the connected parts. The caller runs `admission.watch`, `quarantine.run` and `turned_away.run`.

    `client` fetches evidence; None: a client of its own.
    """
    writer = runtime.writer
    largest = max((options.limit_of(source) for source in runtime.sources), default=0)
    runtime.metrics.recorder_queue.set_function(lambda: writer.queued)
    return Receiver(
        runtime=runtime,
        admission=Admission(),
        bodies=Bodies(writer.queue_max_bytes, lambda: writer.queued_bytes, largest),
        quarantine=Quarantine(runtime.writer, runtime.metrics, options.quarantine),
        turned_away=TurnedAway(runtime.writer, options.quarantine.caps),
        stream_ids=StreamIds(runtime.writer),
        evidence=make_fetcher(runtime, client),
        options=options,
    )


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

EVIDENCE: Final = "evidence"
"""The reason of a quarantined webhook that could not be judged, because what is needed for it could not be fetched."""
DRAINED: Final = 8
"""A body over the limit is read up to this many times the limit before it is answered."""
LINGER_S: Final = 5.0
"""Time for which a longer one is read on after the answer: who is cut while sending does not see it."""
FROM_ELSEWHERE: Final[tuple[Outcome | None, Response]] = (Outcome.REFUSED, responses.FOREIGN_ADDRESS)
REPEATED_TOO_OFTEN: Final = Refusal(
    reason="repeated", detail=f"its signed message has come with {MOST} other events; the list brings it, if it is one"
)
_log = logging.getLogger(__name__)


class WebhookEndpoint:
    """`POST /webhooks/<name>`, and the methods of its vendor's handshake.

    The source is looked up at each request: it is replaced when its secrets change.
    """

    __slots__ = (
        "_address_refused", "_admission", "_allow_from", "_answer", "_answer_messages", "_answer_s", "_bodies",
        "_clock", "_counts", "_delay", "_evidence", "_header_names", "_limit", "_log", "_machine_clock", "_methods",
        "_name", "_offers", "_quarantine", "_refused", "_seconds", "_sources", "_stream_ids", "_trusted_proxies",
        "_turned_away", "_within_s", "_writer",
    )  # fmt: skip

    def __init__(self, source: Source, receiver: Receiver) -> None:
        self._name = source.name
        self._methods = source.provider.capabilities.methods
        self._header_names = webhook.header_names(source.provider)
        self._sources = receiver.runtime.sources
        self._writer = receiver.runtime.writer
        self._clock = receiver.runtime.clock
        self._machine_clock = machine_clock(receiver.runtime.clock)
        self._admission = receiver.admission
        self._bodies = receiver.bodies
        self._quarantine = receiver.quarantine
        self._turned_away = receiver.turned_away
        self._stream_ids = receiver.stream_ids
        self._evidence = receiver.evidence
        self._offers = Offers(receiver.runtime, source.id)
        self._limit = receiver.options.limit_of(source)
        self._within_s = receiver.options.body_within.total_seconds()
        self._answer_s = receiver.options.answer_within.total_seconds()
        self._allow_from = receiver.options.allow_from.get(source.name)
        self._trusted_proxies = receiver.options.trusted_proxies
        metrics = receiver.runtime.metrics
        self._address_refused = metrics.address_refused
        self._counts = {outcome: metrics.webhooks.labels(source.name, outcome.value) for outcome in Outcome}
        self._refused = {reason: metrics.refused.labels(source.name, reason) for reason in REASONS}
        for outcome in KEPT, DROPPED:
            metrics.quarantined.labels(source.name, outcome)
        self._seconds = metrics.webhook_seconds.labels(source.name)
        self._delay = metrics.record_delay.labels(source.name, Via.WEBHOOK.value)
        self._answer: Answer | None = None
        self._answer_messages: Response = responses.HEALTHY
        self._log = BoundedLog(_log, source.name)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. 2xx only after the commit that holds all its events."""
        started = perf_counter()
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        is_refused = self._allow_from is not None and self._is_from_elsewhere(scope)
        outcome, (start, body) = FROM_ELSEWHERE if is_refused else await self._decide(scope, receive)
        if outcome is not None:
            self._counts[outcome].inc()
        self._seconds.observe(perf_counter() - started)
        await send(start)
        await send(body)
        if body is responses.TOO_LARGE_UNREAD[1]:
            await linger(receive)
            await send(responses.END)

    async def _decide(self, scope: Scope, receive: Receive) -> tuple[Outcome | None, Response]:
        """Return the outcome and the answer. An outcome of None is counted later: the commit is still under way."""
        if scope["method"] not in self._methods:
            return self._refuse(Refusal(reason=METHOD, detail=scope["method"], status=METHOD_NOT_ALLOWED))
        if self._admission.closed_because:
            self._note_unread(scope, CLOSED, self._admission.closed_because)
            return Outcome.UNAVAILABLE, responses.unavailable()
        message = await receive()
        if message.get("more_body") or message["type"] != "http.request":
            body = await self._read_body(message, receive, content_length(scope))
            if not isinstance(body, bytes):
                return self._not_whole(scope, body)
        else:
            body = message.get("body", b"")
            if len(body) > self._limit:
                return self._too_large(scope, responses.TOO_LARGE)
        return await self._take(
            scope,
            WebhookRequest(
                headers=tuple(scope["headers"]), body=body, method=scope["method"], query=scope.get("query_string", b"")
            ),
        )

    def _sender(self, scope: Scope) -> str:
        return sender_of(scope, self._trusted_proxies)

    def _is_from_elsewhere(self, scope: Scope) -> bool:
        """Return True, and count and log it, if the client is in none of the source's networks."""
        peer = (scope.get("client") or ("",))[0]
        client = client_address(peer, scope["headers"], self._trusted_proxies)
        address = parse_address(client)
        if address is not None and is_in(address, self._allow_from or ()):
            return False
        self._address_refused.inc()
        self._log.log(logging.WARNING, "webhook_address_refused", to_us(self._clock()), client=client, peer=peer)
        return True

    async def _read_body(self, message: Any, receive: Receive, declared: int) -> bytes | Outcome | None:
        body = self._bodies.begin()
        try:
            return await read_body(
                message, receive, body, declared=declared, limit=self._limit, within_s=self._within_s
            )
        finally:
            body.clear()

    def _not_whole(self, scope: Scope, why: Outcome | None) -> tuple[Outcome, Response]:
        """Answer a body of which `read_body` returned no bytes."""
        if why is None or why is Outcome.TOO_LARGE:
            return self._too_large(scope, responses.TOO_LARGE if why else responses.TOO_LARGE_UNREAD)
        if why is Outcome.UNAVAILABLE:
            self._note_unread(scope, CLOSED, "too many bytes of others came in")
            return why, responses.unavailable()
        return why, responses.CUT

    def _too_large(self, scope: Scope, answer: Response) -> tuple[Outcome, Response]:
        self._note_unread(scope, TOO_LARGE, f"its body is over {self._limit} bytes")
        return Outcome.TOO_LARGE, answer

    def _note_unread(self, scope: Scope, reason: str, why: str) -> None:
        """Keep the headers of a webhook that is turned away unread: some vendors name the event in one."""
        request = WebhookRequest(headers=tuple(scope["headers"]), body=b"")
        refusal = Refusal(reason=reason, detail=f"only its headers were kept: {why}")
        self._quarantine.offer(self._sources[self._name], request, refusal, to_us(self._clock()), self._sender(scope))

    async def _take(self, scope: Scope, request: WebhookRequest) -> tuple[Outcome | None, Response]:
        """Verify and record the webhook; return its outcome and the answer."""
        answer_by = asyncio.get_running_loop().time() + self._answer_s
        now, machine_now = self._clock(), self._machine_clock()
        source = self._sources[self._name]
        reply = webhook.read_webhook(source.provider, request, machine_now)
        if isinstance(reply, NeedsEvidence):
            try:
                async with asyncio.timeout_at(answer_by):
                    reply = await self._evidence.read(source, request, machine_now, self._sender(scope))
            except (EvidenceUnavailable, TimeoutError) as error:
                message = str(error) or f"the evidence did not come within {self._answer_s:g} s"
                self._log.log(logging.WARNING, "evidence_unavailable", to_us(now), error=message)
                self._keep(scope, source, request, Refusal(reason=EVIDENCE, detail=message), now)
                return Outcome.UNAVAILABLE, responses.unavailable()
        if isinstance(reply, Refusal):
            self._keep(scope, source, request, reply, now)
            if reply.bug is not None:
                bug = masking.scrubbed_error(reply.bug, request.body, source.mask)
                self._log.log(logging.ERROR, "provider_bug", to_us(now), error=reply.detail, exc_info=bug)
            return self._refuse(reply)
        if reply.offers is not None:
            return await self._take_offer(reply, reply.offers, answer_by, now)
        try:
            new = await self._record(source, request, reply, now, answer_by)
        except Exception as error:  # noqa: BLE001 - the loop edge: whatever it is, it was not acknowledged
            return self._not_recorded(scope, source, request, reply, error, now)
        if new == BEYOND:
            self._log.log(logging.WARNING, "webhook_repeated", to_us(now), event_key=reply.events[0].key)
            self._keep(scope, source, request, REPEATED_TOO_OFTEN, now)
            return Outcome.DUPLICATE, self._prescribed(reply.answer)
        if new:
            self._delay.observe(max(0.0, (now - reply.events[0].occurred_at).total_seconds()))
        return Outcome.ACCEPTED if new or not reply.events else Outcome.DUPLICATE, self._prescribed(reply.answer)

    async def _take_offer(
        self, reply: Reply, offered: Secret, answer_by: float, now: datetime
    ) -> tuple[Outcome, Response]:
        """Answer a handshake that tells a secret; refuse it if no operator waits for one."""
        try:
            is_taken = await self._offers.take(offered, answer_by)
        except (StoreError, TimeoutError) as error:
            self._log.log(logging.WARNING, "handshake_unavailable", to_us(now), error=str(error))
            return Outcome.UNAVAILABLE, responses.unavailable()
        return (Outcome.ACCEPTED, self._prescribed(reply.answer)) if is_taken else self._refuse(NOBODY)

    def _keep(self, scope: Scope, source: Source, request: WebhookRequest, refusal: Refusal, now: datetime) -> None:
        self._quarantine.offer(source, request, refusal, to_us(now), self._sender(scope))

    async def _record(
        self, source: Source, request: WebhookRequest, reply: Reply, now: datetime, answer_by: float
    ) -> int:
        """Record the events; return how many were new, once all are durable. Raises `NotInTime` at `answer_by`."""
        if not reply.events:
            return 0
        stream_ids = self._stream_ids.known(source.id, reply.events)
        if stream_ids is None:
            stream_ids = await self._learn(source, reply, answer_by)
        headers = webhook.kept_headers(request.headers, self._header_names)
        seen = webhook.sightings(
            source,
            reply,
            stream_ids,
            body=request.body,
            headers=headers,
            seen_us=to_us(now),
            digest=webhook.message_digest(source.provider, request),
        )
        self._bodies.make_room(len(request.body))
        return await self._writer.record(seen, len(request.body), answer_by)

    async def _learn(self, source: Source, reply: Reply, answer_by: float) -> list[int]:
        try:
            async with asyncio.timeout_at(answer_by):
                return await self._stream_ids.learn(source.id, reply.events)
        except TimeoutError:
            raise NotInTime(None) from None

    def _prescribed(self, answer: Answer) -> Response:
        """The provider's answer; nearly always the same one as before."""
        if answer is not self._answer:
            self._answer, self._answer_messages = answer, responses.of_provider(answer)
        return self._answer_messages

    def _refuse(self, refusal: Refusal) -> tuple[Outcome, Response]:
        self._refused[refusal.reason].inc()
        now_us = to_us(self._clock())
        if refusal.bug is None:
            self._log.log(logging.INFO, "webhook_refused", now_us, reason=refusal.reason, error=refusal.detail)
        return Outcome.REFUSED, responses.refused(refusal.status, refusal.reason, self._methods)

    def _not_recorded(
        self, scope: Scope, source: Source, request: WebhookRequest, reply: Reply, error: Exception, now: datetime
    ) -> tuple[Outcome | None, Response]:
        """Answer 503, so that the provider sends it again. A webhook that can never be stored is quarantined too."""
        if isinstance(error, Unstorable):
            refusal = Refusal(reason=UNSTORABLE, detail=str(error))
            self._keep(scope, source, request, refusal, now)
            self._refused[UNSTORABLE].inc()
            self._log.log(logging.ERROR, "webhook_unstorable", to_us(now), error=str(error))
            return Outcome.UNSTORABLE, responses.unavailable()
        self._turned_away.note(source, reply.events, to_us(now))
        if isinstance(error, NotInTime) and error.recorded is not None:
            self._log.log(logging.WARNING, "webhook_unavailable", to_us(now), error=str(error))
            error.recorded.add_done_callback(self._count_late)
            return None, responses.unavailable()
        if isinstance(error, StoreError):
            self._log.log(logging.WARNING, "webhook_unavailable", to_us(now), error=str(error))
        else:
            shown = masking.scrubbed_error(error, request.body, source.mask)
            self._log.log(logging.ERROR, "recorder_bug", to_us(now), error=repr(shown), exc_info=shown)
        return Outcome.UNAVAILABLE, responses.unavailable()

    def _count_late(self, recorded: asyncio.Future[int]) -> None:
        """Count a webhook that was answered before its commit ended."""
        is_recorded = not recorded.cancelled() and recorded.exception() is None
        self._counts[Outcome.RECORDED_LATE if is_recorded else Outcome.UNAVAILABLE].inc()


def content_length(scope: Scope) -> int:
    """The declared length of the body; 0 if there is none, or none that is a number."""
    value = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(value) if value.isdigit() and len(value) < 20 else 0  # noqa: PLR2004 - more digits than any body


async def linger(receive: Receive) -> None:
    """Throw away what a sender still sends, for `LINGER_S` at most, so that it can read the answer."""
    try:
        async with asyncio.timeout(LINGER_S):
            while True:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
    except TimeoutError:
        return


async def read_body(
    first: Any, receive: Receive, body: Body, *, declared: int, limit: int, within_s: float
) -> bytes | Outcome | None:
    """Read a body that comes in several parts into `body`; `first` is the first message.

    Returns `Outcome.TOO_LARGE` if it is over `limit`; the rest was read and thrown away, because a sender whose
    connection is closed while it sends does not see the answer. Returns None if it is over `DRAINED` times the limit,
    and the sender still sends. Returns `Outcome.UNAVAILABLE` if it had to give way to others. Returns `Outcome.CUT` if
    the sender goes away or takes longer than `within_s` seconds.
    A cut body is never mistaken for a whole one.
    """
    size, message = 0, first
    try:
        async with asyncio.timeout(within_s):
            while message["type"] == "http.request" and max(declared, size) <= limit * DRAINED:
                part = message.pop("body", b"")
                size += len(part)
                if size <= limit:
                    body.add(part)
                elif body.size:
                    body.clear()
                del part  # while the next one is waited for, only what is counted is held
                if not message.get("more_body"):
                    return _whole(body) if size <= limit else Outcome.TOO_LARGE
                message = await receive()
            if message["type"] == "http.request":
                return None
    except TimeoutError:
        pass
    return Outcome.TOO_LARGE if max(declared, size) > limit else Outcome.CUT


def _whole(body: Body) -> bytes | Outcome:
    return Outcome.UNAVAILABLE if body.gave_way else body.whole()
