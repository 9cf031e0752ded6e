"""What a provider is: values in, values out.

A provider knows one vendor. It builds requests and reads responses; the engine does the I/O, keeps
the clock, adds the credentials, retries, paces and stores. That is why a provider has no coroutine,
no clock, no log and no environment, and why its tests need neither a network nor a patch.

The required part is `Provider`. Each optional ability is a protocol of its own (`ListsStreams`,
`ReadsSubscription`, `FetchesDetail`, `JudgesResponses`): the engine asks with `isinstance`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Protocol, runtime_checkable

import httpx
import msgspec

from gapless_reconcilers.kit.errors import MalformedWebhook

MAX_KEY_BYTES = 512
"""Longest event key, type, stream or object key that the ledger takes, in bytes of UTF-8."""

EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Times of occurrence outside these two are a reading error, never an event."""

OWN_STREAM = ""
"""The stream of the configured account itself. Most sources have no other."""


class Coverage(StrEnum):
    """What the vendor's list can prove."""

    EVENT_LOG = "event_log"
    DELIVERY_LOG = "delivery_log"
    RESOURCE_STATE = "resource_state"
    NONE = "none"


class Order(StrEnum):
    """The order in which a list shows its events."""

    NEWEST_FIRST = "newest_first"
    OLDEST_FIRST = "oldest_first"
    UNORDERED = "unordered"


class Rendering(StrEnum):
    """How near `render` comes to the webhook that the vendor would have sent."""

    EXACT = "exact"
    EQUIVALENT = "equivalent"
    IMPOSSIBLE = "impossible"


class Remedy(StrEnum):
    """How a missed event is brought back: the list has it whole, one more request has it, or nothing has."""

    LIST = "list"
    DETAIL = "detail"
    NONE = "none"


class Secret:
    """A secret that no repr, message or log shows. `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBudget:
    """How many read requests the vendor grants in `period`."""

    requests: int
    period: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the vendor can do, as far as the engine must know. Each value has its source in the provider's file."""

    coverage: Coverage
    order: Order
    resolution: timedelta
    """Unit of the list's time filter: bounds are aligned to it."""
    history: timedelta | None
    """How far back the list reaches; None: without limit."""
    grace: timedelta
    """How long after it occurred an event may be absent from the list without being missing from it."""
    remedy: Remedy
    rendering: Rendering
    signature_headers: tuple[str, ...]
    """Lower-case names; the first is the one without which a webhook is not the vendor's."""
    requests_per_second: float
    """Pace that stays under the vendor's limit when nothing else is configured."""
    budget: ReadBudget | None = None
    unproven: str = ""
    """One sentence for the provider table: what the list cannot prove, and which facts are not verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The half-open time `[start, end)`, aware UTC, aligned to the provider's resolution."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() is None or self.end.utcoffset() is None:
            raise ValueError("a window needs aware times")
        if self.start > self.end:
            raise ValueError(f"window ends before it starts: {self.start.isoformat()} > {self.end.isoformat()}")

    def __contains__(self, time: datetime) -> bool:
        return self.start <= time < self.end


class RemoteEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event of the vendor, read from a webhook or from a list.

    `key` is the vendor's identity and the same on both roads; `payload` is the event as received, byte
    for byte. Text is checked here, once: a value that the ledger could not hold cannot be built.

    Raises `ValueError` when a text is empty (key, type), longer than `MAX_KEY_BYTES`, holds NUL or is
    not UTF-8, or when `occurred_at` is naive or outside `[EARLIEST, LATEST)`.
    """

    key: str
    type: str
    occurred_at: datetime
    payload: msgspec.Raw | bytes
    stream: str = OWN_STREAM
    object_key: str | None = None
    listable: bool = True
    """False for an event that this source's list can never show, such as another mode's: never expected."""

    def __post_init__(self) -> None:
        if not self.key or not self.type:
            raise ValueError("an event needs a key and a type")
        check_text("key", self.key)
        check_text("type", self.type)
        check_text("stream", self.stream)
        if self.object_key is not None:
            check_text("object_key", self.object_key)
        if self.occurred_at.utcoffset() is None:
            raise ValueError("occurred_at needs a time zone")
        if not EARLIEST <= self.occurred_at < LATEST:
            raise ValueError(f"occurred_at is {self.occurred_at.isoformat()}; wanted a time from 1990 to 2200")


def check_text(name: str, value: str) -> None:
    """Raise `ValueError` if the ledger could not hold `value` as a key, type, stream or object key."""
    if value.isascii():
        size = len(value)
    else:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise ValueError(f"{name} is not valid UTF-8") from None
    if size > MAX_KEY_BYTES:
        raise ValueError(f"{name} has {size} bytes; at most {MAX_KEY_BYTES} are taken")
    if "\0" in value:
        raise ValueError(f"{name} holds a NUL character")


class WebhookRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An inbound POST as it arrived: raw header pairs (names in lower case) and raw body bytes."""

    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The one value of header `name` (lower case), or None. Raises `MalformedWebhook` if it is repeated."""
        wanted = name.encode()
        found = [value for key, value in self.headers if key == wanted]
        if len(found) > 1:
            raise MalformedWebhook(f"header {name} is sent {len(found)} times; wanted once", reason="duplicate_header")
        return found[0].decode("latin-1") if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The exact HTTP answer that the vendor wants after the commit."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What one webhook carried: its events, all to be recorded in one transaction, and the answer."""

    events: tuple[RemoteEvent, ...]
    answer: Answer = Answer()


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a list and the request for the next one; None: this was the last."""

    events: list[RemoteEvent]
    next: httpx.Request | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event as the ledger holds it, ready to be rendered."""

    key: str
    type: str
    occurred_at: datetime
    stream: str
    payload: bytes
    via: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookMessage:
    """A webhook that the vendor's own SDK accepts: headers (lower-case names) and body."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CannotRender:
    """Why no faithful webhook can be made of an event."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose data the read key reads. `livemode` is None where the vendor does not say."""

    fingerprint: str
    livemode: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Our endpoint as the vendor has it. `types` are patterns; None: the vendor does not say."""

    healthy: bool
    reason: str
    types: tuple[str, ...] | None = None
    api_version: str | None = None
    streams_covered: bool = False
    """True if the endpoint also receives the events of the other streams (Stripe: a Connect endpoint)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPage:
    """One page of stream names and the request for the next one."""

    streams: list[str]
    next: httpx.Request | None


@runtime_checkable
class Provider(Protocol):
    """One vendor, bound to one account's options. Built by `kind.Options`, see `registry.build`."""

    kind: ClassVar[str]
    """The module's name: config key, metric label, fixture folder."""
    Options: ClassVar[type[Any]]
    """A frozen `msgspec.Struct` with `forbid_unknown_fields`; secrets are `Secret`."""
    capabilities: Capabilities

    def auth(self) -> httpx.Auth | None:
        """The credentials; the engine applies them, so that no request a provider builds holds a secret."""
        ...

    def budget_scope(self) -> str:
        """Name of what the vendor's read budget is counted per; equal scopes share one budget. No secret in it."""
        ...

    def read_webhook(self, request: WebhookRequest, now: datetime) -> Reply:
        """Verify over the raw bytes, then parse. Any bad input whatever raises `WebhookRefused`."""
        ...

    def render(
        self, event: RecordedEvent, target_url: str, secret: Secret, now: datetime
    ) -> WebhookMessage | CannotRender:
        """The event as the vendor would send it to `target_url`, signed with `secret` at `now`."""
        ...

    def first_request(self, stream: str, window: Window) -> httpx.Request:
        """The first page of all events that occurred in `window`. Same input, same request."""
        ...

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """The events of `response` (only those inside `window`) and the next request.

        Raises `UnexpectedShape` with the path of the field, never guesses.
        """
        ...


@runtime_checkable
class ReadsAccount(Protocol):
    """The vendor can say whose key this is."""

    def account_request(self) -> httpx.Request:
        """Ask who the read key belongs to."""
        ...

    def read_account(self, response: httpx.Response) -> Account:
        """Who it belongs to. Raises `UnexpectedShape`."""
        ...


@runtime_checkable
class ListsStreams(Protocol):
    """The account has parts that are listed by themselves, such as Connect accounts."""

    def streams_request(self) -> httpx.Request | None:
        """Ask for the other streams; None: the options say there are none."""
        ...

    def read_streams(self, request: httpx.Request, response: httpx.Response) -> StreamPage:
        """Their names. Raises `UnexpectedShape`."""
        ...


@runtime_checkable
class ReadsSubscription(Protocol):
    """The vendor can say which endpoint it sends to, and what."""

    def subscription_request(self) -> httpx.Request:
        """Ask for the endpoints that the account has."""
        ...

    def read_subscription(self, response: httpx.Response, webhook_url: str) -> Subscription:
        """The endpoint whose address is `webhook_url` (or ends in its path). Raises `UnexpectedShape`."""
        ...


@runtime_checkable
class FetchesDetail(Protocol):
    """One event can be asked for by its key."""

    def detail_request(self, key: str, stream: str) -> httpx.Request:
        """Ask for the event `key`."""
        ...

    def read_detail(self, response: httpx.Response, stream: str) -> RemoteEvent:
        """The event, whole. Raises `UnexpectedShape`."""
        ...


@runtime_checkable
class JudgesResponses(Protocol):
    """The vendor's refusals need more than the default table of statuses (`kit.statuses.judge`)."""

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """Raise the error that tells what to do, or return if the response can be read."""
        ...


@runtime_checkable
class NamesVersions(Protocol):
    """Payloads have API versions, and a listed payload may be of another one than the endpoint's."""

    def payload_version(self, payload: bytes) -> str | None:
        """The version that `payload` was rendered in; None: unknown."""
        ...

    def endpoint_version(self) -> str | None:
        """The version that the options name for our endpoint; None: unknown."""
        ...


@runtime_checkable
class WarnsAboutOptions(Protocol):
    """The options can be refused or doubted without asking the vendor."""

    def option_problems(self) -> list[str]:
        """One sentence per problem: what, got, wanted, next step. Empty: none."""
        ...
