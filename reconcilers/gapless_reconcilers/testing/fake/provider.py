"""One fake provider for every vendor: it holds events, lists them, pushes them, and fails as it is told to.

The vendor's format is a `Wire`; how its list behaves is `ListSemantics`; what goes wrong is `Faults`.
`events` is the truth that a test compares with, `requests` and `pushes` are all that was asked and sent.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from gapless_reconcilers.kit.contract import OWN_STREAM
from gapless_reconcilers.testing.fake.event_store import EventStore, FakeEvent, Listing, ListSemantics, Query
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest, serve_http
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint, Faults, Message, Push, WebhookSender


class VendorFormat(Protocol):
    """One vendor's format: how requests are read, answers and webhooks written."""

    @property
    def semantics(self) -> ListSemantics:
        """How the vendor's list behaves."""
        ...

    def event_key(self, number: int, chance: random.Random) -> str:
        """A fresh event key of the vendor's form."""
        ...

    def object_id(self, number: int, event_type: str) -> str:
        """The id of an object for an event that names none."""
        ...

    def is_authorised(self, request: ApiRequest) -> bool:
        """Whether the request carries the right credentials."""
        ...

    def answer(self, request: ApiRequest, shelf: "FakeState") -> ApiAnswer:
        """Read the request, ask the shelf, write the answer."""
        ...

    def refuse(self, status: int) -> ApiAnswer:
        """An error as the vendor words it."""
        ...

    def message(self, event: FakeEvent, endpoint: FakeEndpoint, now: datetime, *, genuine: bool) -> Message:
        """The webhook for `endpoint`; if not `genuine`, its signature is nobody's."""
        ...


class FakeState(Protocol):
    """What a wire may ask of the fake."""

    endpoints: list[FakeEndpoint]

    def add_endpoint(self, url: str, *, secret: str, types: Sequence[str], connect: bool) -> FakeEndpoint:
        """Subscribe `url`."""
        ...

    def read(self, query: Query) -> Listing:
        """A page, as the list shows it now. Raises `UnknownCursorError`."""
        ...

    def find(self, key: str) -> FakeEvent | None:
        """The event `key`, if the list shows it."""
        ...

    def streams(self) -> list[str]:
        """The streams other than the account's own."""
        ...

    def push(self, event: FakeEvent) -> None:
        """Send the webhook of `event` to all who take it, again perhaps."""
        ...


RETRIES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between the attempts of one webhook: the vendor's days, shortened."""
NEVER = datetime.max.replace(tzinfo=UTC)
"""When the list shows an event that it has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One API request and its answer. `listing` is set if it was a page of events that was answered."""

    at: datetime
    method: str
    path: str
    params: tuple[tuple[str, str], ...]
    status: int
    listing: Listing | None = None


def utc_now() -> datetime:
    """Now, by the machine's clock."""
    return datetime.now(UTC)


@dataclass(slots=True)
class FakeProvider:
    """A vendor that can be made to lose webhooks. `emit` makes an event; `serve` opens its API and its webhook road."""

    wire: VendorFormat
    semantics: ListSemantics | None = None
    clock: Callable[[], datetime] = utc_now
    seed: int = 0
    retries_s: Sequence[float] = RETRIES_S
    faults: Faults = field(default_factory=Faults)
    events: list[FakeEvent] = field(default_factory=list)
    requests: list[LoggedRequest] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    endpoints: list[FakeEndpoint] = field(default_factory=list)
    _shelf: EventStore = field(init=False)
    _chance: random.Random = field(init=False)
    _pusher: WebhookSender | None = field(init=False, default=None)
    _listing: Listing | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.semantics = self.semantics or self.wire.semantics
        self._shelf = EventStore(self.semantics)
        self._chance = random.Random(self.seed)  # noqa: S311 - repeatable, not secret

    def add_endpoint(
        self, url: str, *, secret: str, types: Sequence[str] = ("*",), connect: bool = False
    ) -> FakeEndpoint:
        """Subscribe `url` to events of `types`: of the own account, or, with `connect`, of all the others."""
        endpoint = FakeEndpoint(number=len(self.endpoints), url=url, secret=secret, types=tuple(types), connect=connect)
        self.endpoints.append(endpoint)
        return endpoint

    def emit(
        self,
        event_type: str,
        *,
        object_id: str | None = None,
        stream: str = OWN_STREAM,
        occurred_at: datetime | None = None,
        push: bool = True,
    ) -> FakeEvent:
        """Hold a new event that occurred at `occurred_at` (now) and, while serving, push it unless `push` is off."""
        now = self.clock()
        late = (
            timedelta(seconds=self.faults.late_visible_s) if self._happens(self.faults.late_visible) else timedelta(0)
        )
        visible_at = NEVER if self.faults.unlogged else now + late
        event = self._hold(event_type, object_id, stream, occurred_at or now, visible_at=visible_at)
        if push:
            self.push(event)
        return event

    def push(self, event: FakeEvent) -> None:
        """Send the webhook of `event`, while serving, to all who take it: again perhaps."""
        if self._pusher is None:
            return
        for endpoint in self.endpoints:
            if endpoint.takes(event):
                self._pusher.push(event, endpoint)

    def backfill(
        self, count: int, start: datetime, end: datetime, types: Sequence[str], stream: str = OWN_STREAM
    ) -> None:
        """`count` events spread evenly over `[start, end)`, listed from when they occurred, never pushed."""
        step = (end - start) / count
        for index in range(count):
            time = start + index * step
            self._hold(types[index % len(types)], None, stream, time, visible_at=time)

    @asynccontextmanager
    async def serve(self, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Answer the API and push webhooks until the block ends; yields the API's base URL."""
        server = serve_http(self._respond, host=host, port=port, clock=self.clock)
        async with self._new_pusher() as pusher, server as url:
            self._pusher = pusher
            try:
                yield url
            finally:
                self._pusher = None

    async def settle(self) -> None:
        """Return when no webhook waits to be sent or retried."""
        if self._pusher is not None:
            await self._pusher.settle()

    def read(self, query: Query) -> Listing:
        """A page, as the list shows it now, hidden types and lies included. Raises `UnknownCursorError`."""
        wanted, hidden = query.types, self.faults.hidden_types
        if hidden:
            query = replace(query, types=lambda kind: kind not in hidden and (wanted is None or wanted(kind)))
        listing = self._shelf.read(query, self.clock())
        if self.faults.empty_lists:
            listing = Listing(query=query, events=(), has_more=False)
        self._listing = listing
        return listing

    def find(self, key: str) -> FakeEvent | None:
        """The event `key`, if the list shows it."""
        event = self._shelf.by_key.get(key)
        return event if event and self._shelf.shows(event, self.clock()) else None

    def streams(self) -> list[str]:
        """The streams other than the account's own."""
        return [stream for stream in self._shelf.streams() if stream != OWN_STREAM]

    def _new_pusher(self) -> WebhookSender:
        return WebhookSender(
            sign=lambda event, endpoint, genuine: self.wire.message(event, endpoint, self.clock(), genuine=genuine),
            faults=lambda: self.faults,
            retries_s=self.retries_s,
            chance=self._chance,
            clock=self.clock,
            log=self.pushes,
        )

    def _hold(
        self, event_type: str, object_id: str | None, stream: str, occurred_at: datetime, visible_at: datetime
    ) -> FakeEvent:
        number = len(self.events)
        event = FakeEvent(
            number=number,
            key=self.wire.event_key(number, self._chance),
            type=event_type,
            occurred_at=self._shelf.floor(occurred_at),
            visible_at=visible_at,
            stream=stream,
            object_id=object_id or self.wire.object_id(number, event_type),
        )
        self.events.append(event)
        self._shelf.add(event)
        return event

    async def _respond(self, request: ApiRequest) -> ApiAnswer:
        if self.faults.answer_delay_s:
            await asyncio.sleep(self.faults.answer_delay_s)
        self._listing = None
        answer = self._answer(request)
        self.requests.append(
            LoggedRequest(
                at=self.clock(),
                method=request.method,
                path=request.path,
                params=request.params,
                status=answer.status,
                listing=self._listing,
            )
        )
        return answer

    def _answer(self, request: ApiRequest) -> ApiAnswer:
        """What the faults let through, answered by the wire."""
        faults = self.faults
        if faults.outage:
            return self.wire.refuse(503)
        if faults.key_revoked or not self.wire.is_authorised(request):
            return self.wire.refuse(401)
        if faults.throttle_every and (len(self.requests) + 1) % faults.throttle_every == 0:
            refusal = self.wire.refuse(429)
            wait = {"Retry-After": faults.retry_after} if faults.retry_after is not None else {}
            return ApiAnswer(status=refusal.status, body=refusal.body, headers={**refusal.headers, **wait})
        if self._happens(faults.error_rate):
            return self.wire.refuse(500)
        return self.wire.answer(request, self)

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self._chance.random() < rate
