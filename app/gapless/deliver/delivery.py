"""The values of this road: what is sent, and what came of sending it."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from gapless.domain import Via
from gapless.ledger.deliveries import HoldReason, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt to deliver one event: all that a destination is told of it."""

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

    reason: Reason
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


class Reject(Exception):
    """Raised by a Python target for an event that it will never take: a dead letter at once, with this reason."""


def event_id(source_id: int, key: str) -> str:
    """The id of an event towards consumers: safe in a header, and unchanged when the source is renamed."""
    return "gapless_" + hashlib.sha256(f"{source_id}:{key}".encode()).hexdigest()[:32]
