"""The abilities and limits of a vendor that the engine, and the people who rely on it, must know."""

from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Final

import httpx

HTTPS: Final = 443


class Coverage(StrEnum):
    """The kind of proof that the vendor's list gives."""

    EVENT_LOG = "event_log"
    DELIVERY_LOG = "delivery_log"
    RESOURCE_STATE = "resource_state"
    NONE = "none"


class Reading(StrEnum):
    """The way in which the list is read."""

    WINDOW = "window"
    """By time, in slices that can be read concurrently."""
    WALK = "walk"
    """Newest first without a filter by time: one reader goes from the newest down to the start of the window."""
    CONSUME = "consume"
    """Reading removes events: the next cursor acknowledges those that were read."""


class Order(StrEnum):
    """The order in which a list shows its events."""

    NEWEST_FIRST = "newest_first"
    OLDEST_FIRST = "oldest_first"
    UNORDERED = "unordered"


class Rendering(StrEnum):
    """The similarity of a rendered webhook to the one that the vendor would have sent."""

    EXACT = "exact"
    EQUIVALENT = "equivalent"
    PUSHED = "pushed"
    """Exact for events that came by webhook; those of the list do not have the shape of a webhook."""
    IMPOSSIBLE = "impossible"


class Remedy(StrEnum):
    """The way in which a missed event is recovered."""

    LIST = "list"
    """The list has the whole event."""
    DETAIL = "detail"
    """One more request fetches it."""
    REDELIVERY = "redelivery"
    """The vendor is asked to send it again."""
    NONE = "none"


class Basis(StrEnum):
    """The source against which our code for the vendor was checked."""

    VENDOR_SDK = "vendor SDK"
    VENDOR_DOCS = "vendor docs only"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBudget:
    """The number of read requests that the vendor allows in `period`."""

    requests: int
    period: timedelta


class Pool(StrEnum):
    """The requests that a grant counts together, and with them the events that earn it."""

    ACCOUNT = "account"
    """Those of one account, or of one key or app of it."""
    PLATFORM = "platform"
    """Those of a platform on behalf of all its connected accounts, whose events count together too."""
    ADDRESS = "address"
    """Those of all accounts that are read from one address of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The requests that the vendor lets its customer make in any `period`, with the source of that fact.

    Raises `ValueError` if it is not a grant: without a request or a period, or for events without types.
    """

    requests: int
    """The least that is granted in any `period`."""
    period: timedelta
    """It is rolling: it ends at the present."""
    per_event: int = 0
    """Requests for each event of `types` that occurred in the period, if they are more than `requests`; 0: none."""
    types: tuple[str, ...] = ()
    """The exact types of the events that earn requests."""
    pool: Pool = Pool.ACCOUNT
    source: str = ""
    """Where the vendor says so, for people; with NV for what is not verified."""
    read_on: date | None = None
    """The day on which the source was read."""

    def __post_init__(self) -> None:
        if self.requests < 1 or self.period <= timedelta(0):
            raise ValueError(f"a grant of {self.requests} requests in {self.period} is none")
        if self.per_event < 0 or bool(self.per_event) != bool(self.types):
            raise ValueError(f"{self.per_event} requests per event of types {self.types!r}: name both, or neither")

    def amount(self, events: int) -> int:
        """Return the requests granted in a period in which `events` occurred that earn requests."""
        return max(self.requests, self.per_event * events)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The abilities and limits of a vendor. Each value has its source in the provider's file."""

    coverage: Coverage
    basis: Basis
    reading: Reading = Reading.WINDOW
    order: Order = Order.UNORDERED
    resolution: timedelta = timedelta(seconds=1)
    """Unit of the list's time filter: bounds are aligned to it."""
    history: timedelta | None = None
    """The age of the oldest events in the list; None: no limit."""
    grace: timedelta = timedelta(seconds=60)
    """The time after its occurrence for which an event may be absent from the list without being missing."""
    exact_times: bool = True
    """False if a webhook does not name the time of its event, so that webhook and list differ by up to the grace."""
    precondition: str = ""
    """The condition under which the list is complete, such as "the hook is active"; "": none.

    It counts as met while the subscription is read as healthy. A time in which it was not met is unrecoverable.
    """
    streams_share_endpoint: bool = False
    """True if one endpoint receives the events of every stream, unless the subscription says otherwise."""
    remedy: Remedy = Remedy.LIST
    rendering: Rendering
    signs_body: bool = True
    """False if a webhook only carries a secret: whoever has seen one webhook can forge others."""
    identity_unsigned: bool = False
    """True if the signature covers the body and not the event's identity, such as GitHub's, which stands in a header.

    Whoever has seen one webhook can then send it again as another event. Never true for a webhook that only carries a
    secret: whoever has that can make up bodies too."""
    message_headers: tuple[str, ...] = ()
    """Headers that tell one signed message from another; empty: its body does.

    For a signature that covers these, and the body only by a checksum that can be met with another body."""
    signature_headers: tuple[str, ...]
    """Lower-case names; without the first one a webhook is not the vendor's."""
    twin_headers: tuple[str, ...] = ()
    """Other names that some senders use for the signature headers, in the same order; they are kept too."""
    carried_headers: tuple[str, ...] = ()
    """Other headers that are needed to read a webhook, such as that of its type; they are kept beside the body."""
    optional_headers: tuple[str, ...] = ()
    """Headers that a webhook is read without, and that are kept so that it can be rendered with them."""
    evidence_hosts: tuple[str, ...] = ()
    """Hosts that evidence may be fetched from, by https; `.vendor.example` stands for all below that domain."""
    body_bytes: int | None = None
    """The most bytes of a webhook's body that the vendor sends; None: it names no maximum."""
    methods: tuple[str, ...] = ("POST",)
    """The methods of the vendor's requests to us; others are answered 405. Those but POST carry no events."""
    offers_secret: bool = False
    """True if the vendor chooses the secret and tells it in a handshake alone: see `Reply.offers`."""
    refusal_statuses: tuple[int, ...] = ()
    """The 4xx with which a refused webhook may be answered; another becomes the first of them. Empty: any 4xx.

    For a vendor to which some mean more: that it forgets the event at once, or deletes our endpoint."""
    content_encodings: tuple[str, ...] = ()
    """The values of `Content-Encoding` in which the vendor sends bodies, in lower case; others are answered 415.

    The provider gets the body as it was sent, because that is what is signed."""
    requests_per_second: float = 1.0
    """Rate under the vendor's limit, used unless another is configured."""
    least_interval: timedelta = timedelta(0)
    """The shortest interval at which the list may sensibly be read; 0: the vendor asks for none."""
    budget: ReadBudget | None = None
    grant: Grant | None = None
    """What the vendor lets us read; None: as `budget` says, and if that is None too, the vendor publishes nothing."""
    personal_data: tuple[str, ...] = ()
    """JSON pointers to what is known of personal and card data in its events, `*` for each item: masked by default."""
    met: str = ""
    """The system of the vendor that this was run against, such as "sandbox, 2026-11"; "": it never met a live one."""
    unproven: str = ""
    """One sentence for the table of providers: what the list cannot prove, and which facts are not verified."""

    @property
    def effective_grant(self) -> Grant | None:
        """Return the grant, or that of `budget`; None: the vendor publishes nothing."""
        if self.grant is not None or self.budget is None:
            return self.grant
        return Grant(requests=self.budget.requests, period=self.budget.period)

    @property
    def kept_headers(self) -> tuple[str, ...]:
        """The headers of a webhook that are kept, so that it can be read again and rendered as it came."""
        return self.needed_headers + self.optional_headers

    @property
    def needed_headers(self) -> tuple[str, ...]:
        """The headers without which a webhook is refused."""
        return self.signature_headers + self.carried_headers

    @property
    def slice_unit(self) -> timedelta | None:
        """The unit at multiples of which a window may be cut into slices; None: it is read in one piece."""
        return self.resolution if self.reading is Reading.WINDOW else None

    def may_fetch(self, url: httpx.URL) -> bool:
        """Return True if evidence may be fetched from `url`."""
        hosts = self.evidence_hosts
        is_named = any(url.host == host or (host.startswith(".") and url.host.endswith(host)) for host in hosts)
        return is_named and url.scheme == "https" and url.port in (None, HTTPS)
