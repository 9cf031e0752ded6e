"""The values that a provider receives and returns."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

import httpx
import msgspec

from gapless_reconcilers.kit.errors import MalformedWebhook, SignatureInvalid

MAX_KEY_BYTES = 512
"""The longest event key, type, stream or object key that the ledger stores, in bytes of UTF-8."""

MAX_HEADER_BYTES = 8 * 1024
"""The longest value of a header that is read, in bytes. The longest that a vendor sends has a few hundred."""

MAX_ROW_BYTES = 64 * 1024
"""The bytes that are kept of a listed row that cannot be read."""

EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""A time of occurrence outside these two is an error in reading, never an event."""

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_OWN_HEADERS: Final = frozenset(("connection", "content-length", "content-type", "set-cookie", "transfer-encoding"))

OWN_STREAM = ""
"""The stream of the configured account itself. Most sources have no other."""


class Secret:
    """A secret that no repr, message or log shows. Only `reveal()` returns it."""

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

    `key` is the vendor's identity, the same in the webhook and in the list; `payload` is the event as received, byte
    for byte. Texts are checked here, once: a value that the ledger could not store cannot be built.

    Raises `ValueError` when a text is empty (key, type), longer than `MAX_KEY_BYTES`, holds NUL or is
    not UTF-8, when `occurred_at` is naive or outside `[EARLIEST, LATEST)`, or when `object_version` has no place in
    64 bits.
    """

    key: str
    type: str
    occurred_at: datetime
    payload: msgspec.Raw | bytes
    stream: str = OWN_STREAM
    object_key: str | None = None
    object_version: int | None = None
    """If the list shows states and not events: a number that grows with each change, in webhook and list alike."""
    ref: str | None = None
    """The vendor's id of this row of its list, if requesting the event needs another id than the key."""
    listable: bool = True
    """False for an event that this source's list can never show, such as another mode's: never expected."""
    livemode: bool | None = None
    """True for an event of the vendor's live mode, False for one of its test mode; None: the vendor has no modes."""

    def __post_init__(self) -> None:
        if not self.key or not self.type:
            raise ValueError("an event needs a key and a type")
        check_text("key", self.key)
        check_text("type", self.type)
        check_text("stream", self.stream)
        if self.object_key is not None:
            check_text("object_key", self.object_key)
        if self.ref is not None:
            check_text("ref", self.ref)
        if self.occurred_at.utcoffset() is None:
            raise ValueError("occurred_at needs a time zone")
        if not EARLIEST <= self.occurred_at < LATEST:
            raise ValueError(f"occurred_at is {self.occurred_at.isoformat()}; wanted a time from 1990 to 2200")
        if self.object_version is not None and not 0 <= self.object_version < 1 << 63:
            raise ValueError("object_version does not fit into 63 bits")


def check_text(name: str, value: str) -> None:
    """Raise `ValueError` if the ledger could not store `value` as a key, type, stream or object key."""
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
    """An inbound request as it arrived: raw header pairs (names in lower case) and raw body bytes."""

    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    method: str = "POST"
    """One of `Capabilities.methods`."""
    query: bytes = b""
    """What stands after the `?` of the address, as it was sent. It is stored nowhere."""

    def params(self) -> list[tuple[str, str]]:
        """Return the names and values of the query, decoded.

        Raises `MalformedWebhook` if it is longer than `MAX_HEADER_BYTES` or no UTF-8.
        """
        if len(self.query) > MAX_HEADER_BYTES:
            raise MalformedWebhook(f"the query is longer than {MAX_HEADER_BYTES} bytes", reason="bad_header")
        try:
            return parse_qsl(self.query.decode("ascii"), keep_blank_values=True, errors="strict")
        except ValueError:
            raise MalformedWebhook("the query is not readable as UTF-8 names and values", reason="bad_header") from None

    def param(self, name: str) -> str | None:
        """Return the one value of `name` in the query, decoded, or None.

        Raises `MalformedWebhook` if it is repeated, and as `params` does.
        """
        found = [value for key, value in self.params() if key == name]
        if len(found) > 1:
            raise MalformedWebhook(f"{name} stands {len(found)} times in the query; wanted once", reason="bad_header")
        return found[0] if found else None

    def header(self, name: str) -> str | None:
        """Return the one value of header `name` (lower case), or None.

        Raises `MalformedWebhook` if it is repeated, or longer than `MAX_HEADER_BYTES`.
        """
        wanted = name.encode()
        found = [value for key, value in self.headers if key == wanted]
        if len(found) > 1:
            raise MalformedWebhook(f"header {name} is sent {len(found)} times; wanted once", reason="duplicate_header")
        if found and len(found[0]) > MAX_HEADER_BYTES:
            raise MalformedWebhook(f"header {name} is longer than {MAX_HEADER_BYTES} bytes", reason="bad_header")
        return found[0].decode("latin-1") if found else None

    def required(self, name: str, hint: str = "") -> str:
        """Return the value of a header that every webhook of the vendor has. Raises `SignatureInvalid` if absent."""
        value = self.header(name)
        if not value:
            raise SignatureInvalid(f"there is no {name}" + (f"; {hint}" if hint else ""), reason="no_signature")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The exact HTTP response that the vendor expects after the commit.

    Raises `ValueError` if it is no success, or if a header could not be sent as it is.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    """Further headers, such as one that a handshake is answered with. Its length and type are added for you."""

    def __post_init__(self) -> None:
        if not 200 <= self.status < 300:  # noqa: PLR2004 - the successes of HTTP
            raise ValueError(f"status is {self.status}; a refusal is raised as WebhookRefused, and nothing redirects")
        for name, value in self.headers:
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS or not _HEADER_VALUE.fullmatch(value):
                raise ValueError(f"header {name[:80]!r} cannot be sent; wanted printable ASCII, and none of our own")


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The events of one webhook, all to be recorded in one transaction, and the response to it."""

    events: tuple[RemoteEvent, ...]
    answer: Answer = Answer()
    offers: Secret | None = None
    """A secret that the vendor chose and tells us in a handshake, which is unsigned: anybody could send another.

    There are no events then. It is answered only while an operator waits for it, who is shown it once."""
    body: bytes | None = None
    """What is kept in the place of the webhook's body, if a secret stands in that; None: the body itself."""


Evidence = Mapping[str, httpx.Response]
"""The responses fetched to verify one webhook, by `NeedsEvidence.cache_key`. They may be refusals."""
NO_EVIDENCE: Final[Evidence] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsEvidence:
    """The webhook can be verified only with the response to `request`; the engine fetches it and calls again.

    It fetches only from `Capabilities.evidence_hosts`. If that fails, the webhook is answered 503, so that the
    sender tries again: the webhook may well be genuine.
    """

    request: httpx.Request
    cache_key: str
    max_age: timedelta
    """The time for which the response may serve other webhooks; zero: it is about this one only."""
    with_credentials: bool = False
    """True if the engine must add `auth()`."""


class UnreadableRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a list that is no event, because a needed field is absent or cannot be read. `kit.decoders` makes it."""

    digest: str
    """The SHA-256 of the whole row, in hex."""
    row: bytes
    """The row as received, byte for byte, up to `MAX_ROW_BYTES`."""
    problem: str
    """What is wrong, for people. It names fields and never shows values."""
    before: datetime | None = None
    """The time of the nearest readable row before it on its page; None: there is none."""
    after: datetime | None = None
    """The time of the nearest readable row after it on its page; None: there is none."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a list and the request for the next one; None: this was the last."""

    events: list[RemoteEvent]
    next: httpx.Request | None
    unreadable: list[UnreadableRow] = []
    """The rows that are no events. The engine sets each aside, and records the events."""
    rows: int | None = None
    """The number of rows, inside the window or not; None: those of `events` and `unreadable`."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The events that one reading removed, and the cursor that acknowledges them: committed together, then sent."""

    events: list[RemoteEvent]
    cursor: str | None
    """None: nothing was read, the cursor stays."""
    unreadable: list[UnreadableRow] = []
    """The rows that are no events, and that the cursor acknowledges too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingEvent:
    """An event that the list has and the ledger lacks, to be requested."""

    key: str
    type: str
    occurred_at: datetime
    stream: str
    ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event as the ledger holds it, ready to be rendered."""

    key: str
    type: str
    occurred_at: datetime
    stream: str
    payload: bytes
    via: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """The kept headers of its webhook, by lower-case name; empty if no webhook brought it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookMessage:
    """A webhook that the vendor's own SDK accepts: headers (lower-case names) and body."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CannotRender:
    """The reason why no faithful webhook can be rendered from an event."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The requests that are left to us, as the vendor said in a response."""

    remaining: int
    resets_at: datetime
    """The time at which there are `limit` again."""
    limit: int | None = None
    """The requests between two resets; None: the vendor did not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The account of the read key. `livemode` is None if the vendor does not name it."""

    fingerprint: str
    livemode: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Our endpoint as the vendor describes it. `types` are patterns; None: the vendor does not name them."""

    healthy: bool
    reason: str
    id: str | None = None
    """The vendor's id of the endpoint; None: there is none."""
    types: tuple[str, ...] | None = None
    api_version: str | None = None
    own_covered: bool = True
    """False if the endpoint receives only the events of the other streams."""
    streams_covered: bool = False
    """True if the endpoint also receives the events of the other streams (Stripe: a Connect endpoint)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """An endpoint that was just created."""

    id: str
    secret: Secret | None = None
    """The secret that the vendor chose and shows only now; None: it is the one that we sent, or there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPage:
    """One page of stream names and the request for the next one."""

    streams: list[str]
    next: httpx.Request | None
