"""The contract of a kind of destination: its options, the delivery that its sender gets, and the result."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

from gapless.domain import Clock, Sources, Via
from gapless.errors import UserError
from gapless_reconcilers.kit.contract import Secret


class FailureReason(StrEnum):
    """The reason why an attempt failed; of a dead letter: the last attempt. A closed set, because it labels metrics."""

    CONSUMER_4XX = "consumer_4xx"  # the breaker tells a refusal of one event from that of all by its status
    CONSUMER_5XX = "consumer_5xx"
    CONSUMER_ERROR = "consumer_error"  # a Python target raised; a broker or a database answered with an error
    REJECTED = "rejected"  # a Python target raised Reject; a broker or a table never takes it
    THROTTLED = "throttled"  # 429; a broker asks to slow down
    REDIRECT = "redirect"
    TIMEOUT = "timeout"
    CONNECTION = "connection"  # no address, no connection, no TLS, or it broke
    ADDRESS_REFUSED = "address_refused"
    CANNOT_RENDER = "cannot_render"
    NO_PAYLOAD = "no_payload"  # imported, or pruned
    NOT_FETCHED = "not_fetched"  # it is thin, and the provider did not return its data
    ERASED = "erased"  # a person had its payload erased
    UNCONFIRMED = "unconfirmed"  # answered 2xx as often as is allowed, and no receipt came
    INTERNAL = "internal"


class HoldReason(StrEnum):
    """The reason why a delivery waits for a person. A closed set, because it labels metrics."""

    VERSION_MISMATCH = "version_mismatch"
    UNREADABLE = "unreadable"  # what decides about it cannot be read in the payload
    RESTORED = "restored"
    OTHER_ACCOUNT = "other_account"
    NOT_LISTED = "not_listed"  # the provider's list has not shown the event yet
    CONDITION = "condition"  # the destination's condition cannot be evaluated on the payload
    KEY_MISSING = "key_missing"  # its payload is sealed with a key that is not there


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt to deliver one event: all that a destination gets."""

    id: str
    """Our id of the event, the same on every attempt and every replay, by which a consumer recognises repeats."""
    key: str
    """The vendor's own id of the event."""
    source: str
    stream: str
    type: str
    occurred_at: datetime
    recorded_at: datetime
    via: Via
    payload: bytes
    """As received, byte for byte: the webhook's body, or the listed item."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The kept headers of its webhook, by lower-case name; empty if no webhook brought it."""
    attempt: int
    """1 for the first. An attempt that a crash interrupted is not counted, so a number can occur twice."""
    released: bool = False
    """A person released it, so it must not be held again."""
    object_key: str | None = None
    """The vendor's id of the object that the event is about; None: the provider does not say."""
    late: str | None = None
    """`recovered` or `replayed`: it comes after others that occurred after it, or were delivered before."""
    livemode: bool | None = None
    """False for an event of the vendor's test mode; None: the vendor has no modes."""
    endpoint_version: str | None = None
    """The API version of our endpoint, as the vendor last showed it; None: unknown."""
    generation: int = 0
    """How often a person has asked to send it again: a broker that drops repeats may drop those of one generation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a consumer answered, for people who look for the cause of a failure.

    A sender gives what it likes of it: the worker masks and bounds it, and stores it with the attempt.
    """

    status: int | None = None
    """The status or the code of the answer, if it has one."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Some of its headers, by lower-case name: only those that hold no secrets."""
    body: str = ""
    """The beginning of its body, if that is text."""
    is_cut: bool = False
    """`body` is not the whole of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The consumer has it. `applied`: it says in its answer that it has applied the event."""

    detail: str = ""
    answer: Answer | None = None
    """What it answered; None: that is not known, or not kept."""
    applied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt failed. `permanent`: no further attempt can succeed."""

    reason: FailureReason
    detail: str
    permanent: bool = False
    retry_after_us: int = 0
    """The wait that the consumer requested, in microseconds."""
    status: int | None = None
    """The status of the consumer's answer; None: it did not answer, or its protocol has none."""
    answer: Answer | None = None
    """What it answered; None: nothing, or it is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """It was not sent, and waits for a person."""

    reason: HoldReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """It was not sent, because it is no longer owed."""


Result: TypeAlias = Delivered | Failed | Held | Withdrawn


class Sender(Protocol):
    """Sends events to one destination. One attempt per call; retries, timing and counting are the worker's."""

    async def send(self, delivery: Delivery) -> Result:
        """Attempt the delivery once. An exception is our bug: it is logged and counts as `internal`."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@runtime_checkable
class ChecksAddress(Protocol):
    """A sender that can check its address without a delivery. For `gapless check`."""

    async def address_problems(self) -> list[str]:
        """Return the problems that keep deliveries from arriving, one sentence each."""
        ...


@runtime_checkable
class RendersEvents(Protocol):
    """A sender that can deliver an event as its provider renders it, in place of the payload as received."""

    @property
    def renders(self) -> bool:
        """True if it is configured to render."""
        ...


@runtime_checkable
class TriesRendering(Protocol):
    """A sender that can try whether it could sign a delivery, without sending it."""

    def rendering_problem(self, delivery: Delivery) -> str | None:
        """Return why `delivery` could not be sent as configured, or None."""
        ...


class DestinationInvalid(UserError, ValueError):
    """The configuration of a destination cannot work. The message says what to change."""


class SecretReader(ABC):
    """A secret among a kind's options. Read it on every attempt, so that a replaced file is used at once."""

    __slots__ = ()

    @abstractmethod
    def read(self) -> Secret:
        """Return the current secret. Raises if it cannot be read; the message shows no content."""


class DestinationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Base of a kind's own options: the keys of `[[destination]]` beside those that every destination has.

    The type of a field determines how its key is read: a text, a number, true or false, a duration (`timedelta`), a
    value of a `StrEnum`, a list (`tuple[…, ...]`), a table (`Mapping[str, …]`), each with bounds in `msgspec.Meta`.
    Error messages give its `description` as the wanted value; `extra={"shown": False}` keeps a value out of messages.
    A `SecretReader` is configured as `<key>_env` or `<key>_file`; a table of them, `<name>_env`, names variables, and
    one that is called `<name>_file` names files.
    """

    @property
    def address(self) -> str:
        """The address that it delivers to, for people; empty: there is nothing to show."""
        return ""

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each rule between options that is broken, although each is fine by itself."""
        return iter(())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderContext:
    """The common settings and services that a sender gets beside its own options."""

    name: str
    """The name of the destination."""
    sources: Sources
    """The configured sources; their providers render events."""
    clock: Clock
    concurrency: int
    """Most deliveries under way at once."""
    releases: frozenset[HoldReason]
    """Reasons for which no delivery is held."""
    timeout: timedelta
    """The worker cancels an attempt after this time."""


class DestinationKind(Protocol):
    """The class of a kind's senders: its module exports it as `SENDER`, or an entry point names it."""

    @property
    def kind(self) -> str:
        """The value of `type` in the configuration."""
        ...

    @property
    def Options(self) -> type[DestinationOptions]:  # noqa: N802 - as a provider's
        """The class of its own options."""
        ...

    def __call__(self, options: Any, context: SenderContext, /) -> Sender:
        """Make a sender. Raises `DestinationInvalid` if the options cannot work."""
        ...


class Reject(Exception):
    """Raised by a Python target for an event that it will never accept: it becomes a dead letter at once."""


def event_id(identity_seed: str, key: str) -> str:
    """Return our id of an event for consumers: safe in a header, and equal wherever the source has the same seed.

    A seed holds no colon.
    """
    return "gapless_" + hashlib.sha256(f"{identity_seed}:{key}".encode()).hexdigest()[:32]
