"""The values and small rules that receiving, reconciling and delivering share. Imports only the provider contract."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from itertools import pairwise
from typing import Any, Protocol, cast

import msgspec

from gapless_reconcilers.kit.contract import OWN_STREAM, Coverage, HasModes, Provider, RemoteEvent, Subscription, Window

Clock = Callable[[], datetime]
"""Returns the current time as aware UTC. Tests pass their own."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
HOURS_OF_WEEK = 7 * 24
RHYTHM_FROM = timedelta(weeks=8)
"""The time before now whose events show the rhythm of a source; older ones say nothing about it."""
SLICE_WIDTH = timedelta(hours=1)
"""A window no wider than this is one slice, because a slice costs at least one request."""
LEAST_HEADROOM = 0.25
"""Share of a provider's history below which it is running out, and is read whatever that costs. Alerts use it too."""
MAX_SLICES = 64
"""Most slices of a pass, so that a pass over a whole history has few rows."""


def system_clock() -> datetime:
    """Return the time of the machine's clock."""
    return datetime.now(UTC)


def to_us(time: datetime) -> int:
    """Return whole microseconds since 1970 UTC, as the ledger stores every time."""
    return (time - EPOCH) // MICROSECOND


def from_us(us: int) -> datetime:
    """Return the aware UTC time of microseconds since 1970: the inverse of `to_us`."""
    return EPOCH + timedelta(microseconds=us)


def span_us(span: timedelta) -> int:
    """Return a length of time in whole microseconds."""
    return span // MICROSECOND


def align_down(time: datetime, unit: timedelta) -> datetime:
    """Return the last multiple of `unit` since 1970 that is not after `time`."""
    return time - (time - EPOCH) % unit


def align_up(time: datetime, unit: timedelta) -> datetime:
    """Return the first multiple of `unit` since 1970 that is not before `time`."""
    return time + (EPOCH - time) % unit


def cut(window: Window, resolution: timedelta, pieces: int | None = None) -> list[Window]:
    """Cut a window into aligned slices of about equal width, without holes or overlaps.

    `pieces`: how many, if the window is not too short for it; None: by its width, so that a short window is one.
    """
    width = window.end - window.start
    count = max(1, min(MAX_SLICES, -(-width // SLICE_WIDTH) if pieces is None else pieces))
    bounds = [window.start + (width * n / count) // resolution * resolution for n in range(count)] + [window.end]
    return [Window(start=start, end=end) for start, end in pairwise(bounds) if start < end]


class Via(StrEnum):
    """The way by which an event was first recorded."""

    WEBHOOK = "webhook"
    LIST = "list"
    REDELIVERY = "redelivery"
    IMPORT = "import"


class Mode(StrEnum):
    """The ways by which a source's events come: both, webhooks only, or lists only."""

    HYBRID = "hybrid"
    WEBHOOK = "webhook"
    POLL = "poll"


class Purpose(StrEnum):
    """What a request to a provider is for, in the order of priority."""

    HISTORY = "history"
    """To read what is about to leave the provider's history."""
    START = "start"
    """The first reading after a start, or after a downtime of ours."""
    URGENT = "urgent"
    """A reading for which there is a reason, such as a person who asks for it."""
    DETAIL = "detail"
    """To fetch one missing event, or to have it sent again: that recovers one for certain, a heartbeat perhaps none."""
    HEARTBEAT = "heartbeat"
    """The regular reading of a list."""
    SIBLING = "sibling"
    """A reading soon after a webhook, for others that belong to it."""
    SWEEP = "sweep"
    """To read again what was read."""
    ENDPOINT = "endpoint"
    """The state of our endpoint, and its repair."""
    ACCOUNT = "account"
    """The account of our key, its streams and its time."""
    DOUBT = "doubt"
    """A reading because a webhook was refused that may be genuine: a stranger may have ordered it, so it comes last."""


class EventMode(StrEnum):
    """The vendor's mode of an event, where the vendor has modes."""

    LIVE = "live"
    TEST = "test"

    @classmethod
    def of(cls, *, livemode: bool) -> "EventMode":
        """Return the mode that the vendor names by `livemode`."""
        return cls.LIVE if livemode else cls.TEST


class Order(StrEnum):
    """Which events of a destination are sent one after the other."""

    NONE = "none"
    OBJECT = "object"
    """Those of one object, in the order in which they were recorded."""


class Release(StrEnum):
    """When a destination is given an event."""

    RECORDED = "recorded"
    """As soon as it is recorded."""
    PROVEN = "proven"
    """When the provider's list proves that nothing earlier of the source is missing; in order of occurrence."""


class Cause(StrEnum):
    """The cause of a missed event, as far as it is known."""

    RECEIVER_DOWN = "receiver_down"
    REFUSED = "refused"
    SUBSCRIPTION = "subscription"
    UNEXPLAINED = "unexplained"


class TypesOrigin(StrEnum):
    """The origin of a source's subscribed types; `assumed` means all types, because nothing else is known."""

    CONFIG = "config"
    SUBSCRIPTION = "subscription"
    ASSUMED = "assumed"


class TypePatterns:
    """A set of event types: exact names, prefixes such as `invoice.*`, or `*` for all."""

    __slots__ = ("_exact", "_prefixes", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._exact = frozenset(p for p in self.patterns if not p.endswith("*"))
        self._prefixes = tuple(p[:-1] for p in self.patterns if p.endswith("*"))

    def __contains__(self, event_type: str) -> bool:
        return event_type in self._exact or event_type.startswith(self._prefixes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypePatterns) and other.patterns == self.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def __repr__(self) -> str:
        return f"TypePatterns({list(self.patterns)!r})"


ALL_TYPES = TypePatterns(("*",))


@cache
def _has_modes(kind: type) -> bool:
    return issubclass(kind, HasModes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A source without webhooks counts as silent after this time; None: by its own rhythm."""

    after: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One configured account of a provider: the id of its row, its provider and the events that it expects."""

    id: int
    name: str
    provider: Provider
    mode: Mode
    start: datetime
    types: TypePatterns = ALL_TYPES
    types_origin: TypesOrigin = TypesOrigin.ASSUMED
    earlier_types: tuple[tuple[datetime, TypePatterns], ...] = ()
    """Earlier subscribed types, as (end, types), oldest first."""
    own_covered: bool = True
    streams_covered: bool | None = None
    """True if our endpoint receives the events of the other streams; None: as the provider's capabilities say."""
    keep_unsubscribed: bool = False
    silence: Silence | None = None
    """None: silence is not watched."""
    absences_allowed: int = 0
    """Webhook events that the list of a stream may lack before its watermark is held."""
    mask: tuple[str, ...] = ()
    """JSON pointers to the values of events that are not shown (`masking`)."""
    digest_key: str = field(default="", repr=False)
    """The key of the digests that are stored in the place of secrets (`receive.carried_secrets`)."""
    can_ask: bool = True
    """False: there is no key, so the provider is asked nothing. Only a source of webhooks alone can do without."""

    def expects(self, event: RemoteEvent) -> bool:
        """Return True if our subscription should have pushed `event`. Decided once, when it is first recorded."""
        return (
            self.mode is Mode.HYBRID
            and event.listable
            and event.occurred_at >= self.start
            and event.type in self.types_at(event.occurred_at)
            and self._covers(event.stream)
        )

    def lists_identity(self, event: RemoteEvent) -> bool:
        """Return True if the provider's list can show `event` itself, and not only the state of an object."""
        coverage = self.provider.capabilities.coverage
        has_events = coverage in (Coverage.EVENT_LOG, Coverage.DELIVERY_LOG)
        return self.mode is Mode.HYBRID and event.listable and has_events

    @property
    def livemode(self) -> bool | None:
        """The mode of the source; None: its provider has no modes."""
        return cast("HasModes", self.provider).own_livemode() if _has_modes(type(self.provider)) else None

    def is_of_other_mode(self, livemode: bool | None) -> bool:  # noqa: FBT001 - the vendor's own value
        """Return True if an event of that mode is not of the source's own. Without a mode it always is."""
        return livemode is not None and self.livemode not in (None, livemode)

    def _covers(self, stream: str) -> bool:
        if stream == OWN_STREAM:
            return self.own_covered
        known = self.streams_covered
        return self.provider.capabilities.streams_share_endpoint if known is None else known

    def subscribed(self, subscription: Subscription, now: datetime) -> "Source":
        """Return the source with the types of `subscription` from `now` on, unless the configuration names types."""
        changes: dict[str, Any] = {}
        if subscription.healthy:
            changes |= {"own_covered": subscription.own_covered, "streams_covered": subscription.streams_covered}
        if self.types_origin is not TypesOrigin.CONFIG and subscription.types is not None:
            types = TypePatterns(subscription.types)
            changes |= {"types": types, "types_origin": TypesOrigin.SUBSCRIPTION}
            if self.types_origin is TypesOrigin.SUBSCRIPTION and types != self.types:
                changes["earlier_types"] = (*self.earlier_types, (now, self.types))
        return replace(self, **changes)

    def types_at(self, time: datetime) -> TypePatterns:
        """Return the types that were subscribed at `time`, as far as is known."""
        return next((types for until, types in self.earlier_types if time < until), self.types)


class Sources:
    """The active sources by name. An entry is replaced whole when its secrets or its subscription change."""

    def __init__(self, sources: Iterable[Source] = ()) -> None:
        self._by_name = {source.name: source for source in sources}

    def __getitem__(self, name: str) -> Source:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Source]:
        return iter(tuple(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def replace(self, source: Source) -> None:
        """Replace the source of that name."""
        self._by_name[source.name] = source

    def change(self, name: str, **changes: Any) -> Source:
        """Replace some fields of the source `name` and return the new one."""
        self.replace(replace(self._by_name[name], **changes))
        return self._by_name[name]


class Owed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A delivery to create for a new event, not to be sent before `not_before_us`."""

    destination_id: int
    not_before_us: int
    until_listed: bool = False
    """It waits until the provider's list has shown the event."""
    held: str | None = None
    """Why it waits for a person; None: it does not."""
    confirms: bool = False
    """It is done when its receipt comes, so one that is there already settles it."""
    order_key: int | None = None
    """Those of one key are sent one after the other; None: in any order."""
    proof_key: int | None = None
    """The order key of its source, if nothing earlier of that may be missing when it is sent; None: something may."""


class Route(Protocol):
    """Decides which deliveries a new event makes."""

    def __call__(
        self, source: Source, event: RemoteEvent, via: Via, recorded_us: int, awaited_until_us: int = 0, /
    ) -> list[Owed]:
        """Return the deliveries. Times are microseconds.

        `awaited_until_us`: until then its webhook may come, and it is not missed; 0: its webhook is not awaited.
        """
        ...
