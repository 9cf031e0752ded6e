"""What a vendor can do, as far as the engine and the people who rely on it must know."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

import httpx

HTTPS: Final = 443


class Coverage(StrEnum):
    """What the vendor's list can prove."""

    EVENT_LOG = "event_log"
    DELIVERY_LOG = "delivery_log"
    RESOURCE_STATE = "resource_state"
    NONE = "none"


class Reading(StrEnum):
    """How the list is read."""

    WINDOW = "window"
    """By time, in slices that can be read side by side."""
    WALK = "walk"
    """Newest first with no filter by time: from the top down to the start of the window, by one walker."""
    CONSUME = "consume"
    """Reading takes away: a cursor acknowledges what was read."""


class Order(StrEnum):
    """The order in which a list shows its events."""

    NEWEST_FIRST = "newest_first"
    OLDEST_FIRST = "oldest_first"
    UNORDERED = "unordered"


class Rendering(StrEnum):
    """How near `render` comes to the webhook that the vendor would have sent."""

    EXACT = "exact"
    EQUIVALENT = "equivalent"
    PUSHED = "pushed"
    """Exact for what came by webhook; what only the list showed has no webhook's shape."""
    IMPOSSIBLE = "impossible"


class Remedy(StrEnum):
    """How a missed event is brought back."""

    LIST = "list"
    """The list has it whole."""
    DETAIL = "detail"
    """One more request has it."""
    REDELIVERY = "redelivery"
    """The vendor is asked to send it again."""
    NONE = "none"


class Basis(StrEnum):
    """What our reading of the vendor was checked against."""

    VENDOR_SDK = "vendor SDK"
    VENDOR_DOCS = "vendor docs only"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBudget:
    """How many read requests the vendor grants in `period`."""

    requests: int
    period: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the vendor can do, as far as the engine must know. Each value has its source in the provider's file."""

    coverage: Coverage
    basis: Basis
    reading: Reading = Reading.WINDOW
    order: Order = Order.UNORDERED
    resolution: timedelta = timedelta(seconds=1)
    """Unit of the list's time filter: bounds are aligned to it."""
    history: timedelta | None = None
    """How far back the list reaches; None: without limit."""
    grace: timedelta = timedelta(seconds=60)
    """How long after it occurred an event may be absent from the list without being missing from it."""
    exact_times: bool = True
    """False if a webhook does not say when its event occurred, so that the two roads differ by up to the grace."""
    precondition: str = ""
    """What must have held for the list to be complete, such as "the hook is active"; "": nothing.

    It counts as held while the subscription reads as healthy. A time in which it did not is unrecoverable.
    """
    streams_share_endpoint: bool = False
    """True if one endpoint receives the events of every stream, as far as the subscription says nothing else."""
    remedy: Remedy = Remedy.LIST
    rendering: Rendering
    signs_body: bool = True
    """False if a webhook only carries a secret: whoever has seen one can make others."""
    signature_headers: tuple[str, ...]
    """Lower-case names; the first is the one without which a webhook is not the vendor's."""
    twin_headers: tuple[str, ...] = ()
    """Other names of the signature headers, in their order, that some senders use instead: kept likewise."""
    carried_headers: tuple[str, ...] = ()
    """Other headers that a webhook cannot be read without, such as that of its type: kept beside the body."""
    evidence_hosts: tuple[str, ...] = ()
    """Hosts that evidence may be fetched from, by https; `.vendor.example` stands for all below that domain."""
    requests_per_second: float = 1.0
    """Pace that stays under the vendor's limit when nothing else is configured."""
    budget: ReadBudget | None = None
    unproven: str = ""
    """One sentence for the provider table: what the list cannot prove, and which facts are not verified."""

    @property
    def kept_headers(self) -> tuple[str, ...]:
        """All that must be kept of a webhook's headers so that it can be read again."""
        return self.signature_headers + self.carried_headers

    @property
    def slice_unit(self) -> timedelta | None:
        """Unit at multiples of which a window may be cut into slices; None: it is read in one, from the top."""
        return self.resolution if self.reading is Reading.WINDOW else None

    def may_fetch(self, url: httpx.URL) -> bool:
        """Whether evidence may be fetched from `url`."""
        hosts = self.evidence_hosts
        is_named = any(url.host == host or (host.startswith(".") and url.host.endswith(host)) for host in hosts)
        return is_named and url.scheme == "https" and url.port in (None, HTTPS)
