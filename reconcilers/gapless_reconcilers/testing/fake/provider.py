"""One fake provider for every vendor: it has events, lists them, sends webhooks, and fails on request.

The vendor's format is a `VendorFormat`, the behaviour of its list `ListSemantics`, its faults `Faults`. A test compares
with `events`; `requests` has every request received, and `pushes` every webhook sent or lost.
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
    """One vendor's format: it reads requests and writes responses and webhooks."""

    @property
    def semantics(self) -> ListSemantics:
        """The behaviour of the vendor's list."""
        ...

    def event_key(self, number: int, chance: random.Random) -> str:
        """Return a new event key of the vendor's form."""
        ...

    def object_id(self, number: int, event_type: str) -> str:
        """Return the id of an object for an event that names none."""
        ...

    def is_authorised(self, request: ApiRequest) -> bool:
        """Return True if the request carries the right credentials."""
        ...

    def answer(self, request: ApiRequest, state: "FakeState") -> ApiAnswer:
        """Return the response to `request`, with the events and endpoints of `state`."""
        ...

    def refuse(self, status: int) -> ApiAnswer:
        """Return an error in the vendor's form."""
        ...

    def message(self, event: FakeEvent, endpoint: FakeEndpoint, now: datetime, *, genuine: bool) -> Message:
        """Return the webhook for `endpoint`; unless `genuine`, it is signed with an unknown secret."""
        ...


class FakeState(Protocol):
    """The part of the fake that a `VendorFormat` uses."""

    endpoints: list[FakeEndpoint]

    def add_endpoint(self, url: str, *, secret: str, types: Sequence[str], connect: bool) -> FakeEndpoint:
        """Subscribe `url`."""
        ...

    def read(self, query: Query) -> Listing:
        """Return a page as the list shows it now. Raises `UnknownCursorError`."""
        ...

    def find(self, key: str) -> FakeEvent | None:
        """Return the event `key` if the list shows it."""
        ...

    def streams(self) -> list[str]:
        """Return the streams other than the account's own."""
        ...

    def push(self, event: FakeEvent) -> None:
        """Send the webhook of `event` to each endpoint that takes it, also if it was sent before."""
        ...


RETRIES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between the attempts of one webhook; vendors take days."""
NEVER = datetime.max.replace(tzinfo=UTC)
"""`visible_at` of an event that the list never shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One API request and its response. `listing` is set if the response was a page of events."""

    at: datetime
    method: str
    path: str
    params: tuple[tuple[str, str], ...]
    status: int
    listing: Listing | None = None


def utc_now() -> datetime:
    """Return the time of the machine's clock."""
    return datetime.now(UTC)


@dataclass(slots=True)
class FakeProvider:
    """A vendor with faults, such as lost webhooks. `emit` makes an event; `serve` opens the API and sends webhooks."""

    vendor_format: VendorFormat
    semantics: ListSemantics | None = None
    clock: Callable[[], datetime] = utc_now
    seed: int = 0
    retries_s: Sequence[float] = RETRIES_S
    faults: Faults = field(default_factory=Faults)
    events: list[FakeEvent] = field(default_factory=list)
    requests: list[LoggedRequest] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    endpoints: list[FakeEndpoint] = field(default_factory=list)
    _store: EventStore = field(init=False)
    _chance: random.Random = field(init=False)
    _sender: WebhookSender | None = field(init=False, default=None)
    _listing: Listing | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.semantics = self.semantics or self.vendor_format.semantics
        self._store = EventStore(self.semantics)
        self._chance = random.Random(self.seed)  # noqa: S311 - repeatable, not secret

    def add_endpoint(
        self, url: str, *, secret: str, types: Sequence[str] = ("*",), connect: bool = False
    ) -> FakeEndpoint:
        """Subscribe `url` to events of `types`: of the account itself, or with `connect` of all others."""
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
        livemode: bool | None = None,
    ) -> FakeEvent:
        """Add a new event that occurred at `occurred_at` (now); while serving, send its webhook if `push`.

        `livemode`: it is of that mode, which is not the account's own, so that the list never shows it.
        """
        now = self.clock()
        late = (
            timedelta(seconds=self.faults.late_visible_s) if self._happens(self.faults.late_visible) else timedelta(0)
        )
        visible_at = NEVER if self.faults.unlogged or livemode is not None else now + late
        event = self._add(event_type, object_id, stream, occurred_at or now, visible_at=visible_at, livemode=livemode)
        if push:
            self.push(event)
        return event

    def push(self, event: FakeEvent) -> None:
        """Send the webhook of `event`, while serving, to each endpoint that takes it, also if it was sent before."""
        if self._sender is None:
            return
        for endpoint in self.endpoints:
            if endpoint.takes(event):
                self._sender.push(event, endpoint)

    def backfill(
        self, count: int, start: datetime, end: datetime, types: Sequence[str], stream: str = OWN_STREAM
    ) -> None:
        """Add `count` events, evenly over `[start, end)`, listed from the time they occurred and never sent."""
        step = (end - start) / count
        for index in range(count):
            time = start + index * step
            self._add(types[index % len(types)], None, stream, time, visible_at=time)

    @asynccontextmanager
    async def serve(self, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Answer the API and send webhooks until the block ends; yield the API's base URL."""
        server = serve_http(self._respond, host=host, port=port, clock=self.clock)
        async with self._new_sender() as sender, server as url:
            self._sender = sender
            try:
                yield url
            finally:
                self._sender = None

    async def settle(self) -> None:
        """Wait until every webhook is sent or given up."""
        if self._sender is not None:
            await self._sender.settle()

    def read(self, query: Query) -> Listing:
        """Return a page as the list shows it now, with the faults of lists. Raises `UnknownCursorError`."""
        wanted, hidden = query.types, self.faults.hidden_types
        if hidden:
            query = replace(query, types=lambda kind: kind not in hidden and (wanted is None or wanted(kind)))
        if self.faults.hidden_keys:
            query = replace(query, hidden=self.faults.hidden_keys)
        listing = self._store.read(query, self.clock())
        if self.faults.drops_ties and self._store.is_within_a_time(query, self.clock()):
            listing = Listing(query=query, events=(), has_more=False)
        if self.faults.empty_lists:
            listing = Listing(query=query, events=(), has_more=False)
        self._listing = listing
        return listing

    def find(self, key: str) -> FakeEvent | None:
        """Return the event `key` if the list shows it."""
        event = self._store.by_key.get(key)
        return event if event and self._store.shows(event, self.clock()) else None

    def streams(self) -> list[str]:
        """Return the streams other than the account's own."""
        return [stream for stream in self._store.streams() if stream != OWN_STREAM]

    def _new_sender(self) -> WebhookSender:
        return WebhookSender(
            sign=self._sign,
            faults=lambda: self.faults,
            retries_s=self.retries_s,
            chance=self._chance,
            clock=self.clock,
            log=self.pushes,
        )

    def _sign(self, event: FakeEvent, endpoint: FakeEndpoint, genuine: bool) -> Message:  # noqa: FBT001 - of `Signer`
        return self.vendor_format.message(event, endpoint, self.clock(), genuine=genuine)

    def _add(
        self,
        event_type: str,
        object_id: str | None,
        stream: str,
        occurred_at: datetime,
        visible_at: datetime,
        *,
        livemode: bool | None = None,
    ) -> FakeEvent:
        number = len(self.events)
        event = FakeEvent(
            number=number,
            key=self.vendor_format.event_key(number, self._chance),
            type=event_type,
            occurred_at=self._store.floor(occurred_at),
            visible_at=visible_at,
            stream=stream,
            object_id=object_id or self.vendor_format.object_id(number, event_type),
            livemode=livemode,
        )
        self.events.append(event)
        self._store.add(event)
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
        """Return the failure that the faults demand, else the response of the vendor's format."""
        faults = self.faults
        if faults.outage:
            return self.vendor_format.refuse(503)
        if faults.key_revoked or not self.vendor_format.is_authorised(request):
            return self.vendor_format.refuse(401)
        if faults.throttle_every and (len(self.requests) + 1) % faults.throttle_every == 0:
            refusal = self.vendor_format.refuse(429)
            wait = {"Retry-After": faults.retry_after} if faults.retry_after is not None else {}
            return ApiAnswer(status=refusal.status, body=refusal.body, headers={**refusal.headers, **wait})
        if self._happens(faults.error_rate):
            return self.vendor_format.refuse(500)
        return self.vendor_format.answer(request, self)

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self._chance.random() < rate
