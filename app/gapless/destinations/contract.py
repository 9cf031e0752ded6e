"""The contract of a kind of destination: its options, what its sender is given, and what came of sending."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

from gapless.domain import Clock, Sources, Via
from gapless.errors import UserError
from gapless_reconcilers.kit.contract import Secret


class FailureReason(StrEnum):
    """Why an attempt failed; of a dead letter: why its last attempt did. Closed: it labels metrics."""

    CONSUMER_4XX = "consumer_4xx"
    CONSUMER_5XX = "consumer_5xx"
    CONSUMER_ERROR = "consumer_error"  # a Python target raised
    REJECTED = "rejected"  # a Python target raised Reject
    THROTTLED = "throttled"  # 429
    REDIRECT = "redirect"
    TIMEOUT = "timeout"
    CONNECTION = "connection"  # no address, no connection, no TLS, or it broke
    ADDRESS_REFUSED = "address_refused"
    CANNOT_RENDER = "cannot_render"
    NO_PAYLOAD = "no_payload"  # imported, or pruned
    INTERNAL = "internal"


class HoldReason(StrEnum):
    """Why a delivery waits for a person. Closed: it labels metrics."""

    VERSION_MISMATCH = "version_mismatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt to deliver one event: all that a destination learns of it."""

    id: str
    """The event's id with us, the same on every attempt and every replay: what a consumer recognises it by."""
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
    attempt: int
    """1 for the first. A try that was cut off by a crash is not counted, so a number can come twice."""
    released: bool = False
    """A person asked for it: nothing may hold it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The consumer has it."""

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt failed. `permanent`: no further attempt can do better."""

    reason: FailureReason
    detail: str
    permanent: bool = False
    retry_after_us: int = 0
    """How long the consumer asked us to wait."""


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
        """Try once. Anything raised is our bug: it is logged and counts as `internal`."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@runtime_checkable
class ChecksAddress(Protocol):
    """A sender that can tell without a delivery whether its address can be delivered to. For `gapless check`."""

    async def address_problems(self) -> list[str]:
        """Return what keeps deliveries from arriving, one sentence each."""
        ...


@runtime_checkable
class RendersEvents(Protocol):
    """A sender that can deliver an event as its provider renders it, in place of the payload as received."""

    @property
    def renders(self) -> bool:
        """True if it is configured to."""
        ...


class DestinationInvalid(UserError, ValueError):
    """The configuration of a destination cannot work. The message says what, got, wanted, next step."""


class SecretReader(ABC):
    """A secret among a kind's options. Read it on every attempt, so that a replaced file is used at once."""

    __slots__ = ()

    @abstractmethod
    def read(self) -> Secret:
        """Return the secret as it is now. Raises if it cannot be read; the message shows no content."""


class DestinationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Base of a kind's own options: the keys of `[[destination]]` beside those that every destination has.

    The type of a field says how its key is read: a text, a number, true or false, a duration (`timedelta`), a word
    of a `StrEnum`, a list (`tuple[…, ...]`), a table (`Mapping[str, …]`), each with bounds in `msgspec.Meta`. Its
    `description` is what a refusal says is wanted; `extra={"shown": False}` keeps a value out of messages. A
    `SecretReader` is given as `<key>_env` or `<key>_file`; a table of them, `<name>_env`, names variables.
    """

    @property
    def address(self) -> str:
        """Where it delivers to, for people; empty: there is nothing to show."""
        return ""

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each rule between options that is broken, although each is fine by itself."""
        return iter(())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderContext:
    """What a sender is made with, beside its own options."""

    name: str
    """Of the destination."""
    sources: Sources
    """As they are configured now: their providers render."""
    clock: Clock
    concurrency: int
    """Most deliveries under way at the same time."""
    lets_go: frozenset[HoldReason]
    """Reasons for which nothing is to be held."""


class DestinationKind(Protocol):
    """What a kind's module exports as `SENDER`, and what an entry point names: the class of its senders."""

    @property
    def kind(self) -> str:
        """The word that `type` takes in the configuration."""
        ...

    @property
    def Options(self) -> type[DestinationOptions]:  # noqa: N802 - as a provider's
        """Its own options."""
        ...

    def __call__(self, options: Any, context: SenderContext, /) -> Sender:
        """Make a sender. Raises `DestinationInvalid` if the options cannot work."""
        ...


class Reject(Exception):
    """Raised by a Python target for an event that it will never take: a dead letter at once, with this reason."""


def event_id(source_id: int, key: str) -> str:
    """The id of an event towards consumers: safe in a header, and unchanged when the source is renamed."""
    return "gapless_" + hashlib.sha256(f"{source_id}:{key}".encode()).hexdigest()[:32]
