"""The tables of `[source.options]` with which a vendor is declared."""

from datetime import date, timedelta
from typing import Annotated, Any, Literal

import msgspec

from gapless_reconcilers.kit.contract import Basis, Coverage, Grant, Order, Pool
from gapless_reconcilers.providers.rest_list import pages
from gapless_reconcilers.providers.rest_list.credentials import Credentials, NoCredentials
from gapless_reconcilers.providers.rest_list.events import EventFields
from gapless_reconcilers.providers.rest_list.handshakes import Handshake
from gapless_reconcilers.providers.rest_list.signatures import Signature


class ListOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The list of events."""

    path: str
    """The path of the list, after `base_url`."""
    records: str
    """Path of the array of events; "" if the answer is the array."""
    page: pages.Page
    order: Order
    """The order of the list. It decides when a walk may end early."""
    nothing: dict[str, Any] | None = None
    """The whole response if there are no events, such as `{}`; None: an empty array."""
    item: str = ""
    """Path of the event inside a row; "" if the row is the event."""
    payload: str = ""
    """Path in the event of what a webhook has as its body, as JSON or as a text with JSON; "": it is the event."""
    coverage: Literal["event_log", "delivery_log"] = "event_log"
    """What it proves: every event, or every delivery that the vendor tried."""
    params: dict[str, str | int | bool | list[str]] = {}
    """The query; placeholders such as `{window.start|unix_s}` are filled in."""
    other_cuts: tuple[dict[str, str | int | bool | list[str]], ...] = ()
    """Parameters that list the same events in another way: other sizes of page, or the other order.

    Each table replaces parameters of the same names, in `json` if there is one. They are used only if the list lacks an
    event whose webhook came."""
    json: dict[str, Any] | None = None
    """The body of a POST, filled in likewise; None: the list is read by GET."""
    headers: dict[str, str] = {}
    """Further headers, such as the version of the API."""
    resolution: timedelta = timedelta(seconds=1)
    """Unit of the filter by time."""
    history: timedelta | None = None
    """The age of the oldest events in it; None: no limit."""
    grace: timedelta = timedelta(seconds=60)
    """The time after its occurrence for which an event may be absent without being missing."""


class WebhookOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The vendor's webhooks."""

    signature: Signature
    root: str = ""
    """Path of the event in the body; "" if the body is the event. With `many`, `[]` stands for each of an array."""
    many: bool = False
    """True if there is an array of events at `root`."""
    item: str = ""
    """Path of the event in an element of that array; "" if the element is the event."""
    unlisted: tuple[str, ...] = ()
    """Beginnings of keys that the list never shows, such as a simulator's: recorded, never expected."""
    event: EventFields | None = None
    """The parts of an event in webhooks, if they stand elsewhere than in the list; None: they do not."""
    form: bool = False
    """True if the body is a form: its fields become the event's JSON."""
    empty: bool = False
    """True if the vendor sends an empty array, such as a heartbeat: it is taken, and records nothing."""
    ignore: dict[str, str] = {}
    """Tests that the vendor sends: expressions and the texts there, any of which says so. They record nothing."""
    answer: str = ""
    """The body of the answer to a webhook, if the vendor wants one."""
    status: int = 200
    """The status of that answer."""
    handshake: Handshake | None = None
    """How the vendor proves our endpoint; None: it does not."""
    refusals: tuple[int, ...] = ()
    """The statuses that a refused webhook may be answered with; the first stands for all others. Empty: any 4xx."""

    @property
    def arrays(self) -> list[str]:
        """Return the path of each array on the way to the events, the first in the body, the next in its elements."""
        return [path.removeprefix(".") for path in self.root.removesuffix("[]").split("[]")]


class ErrorOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Statuses with another meaning than usual."""

    ignore: tuple[int, ...] = ()
    """There are no events: an empty last page."""
    retry: tuple[int, ...] = ()
    """Wait and try again, as after 408, 425 and 5xx."""
    throttled: tuple[int, ...] = ()
    """Too many requests, as after 429."""
    expired: tuple[int, ...] = ()
    """The requested time is older than the history."""


class GrantOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the vendor lets us read."""

    requests: Annotated[int, msgspec.Meta(ge=1)]
    """The least that is granted in any `period`."""
    period: timedelta
    pool: Literal["account", "address"] = "account"
    """The requests that count together: those of the account, or those of all accounts from one address of ours."""
    source: str = ""
    """Where the vendor says so, for people."""
    read_on: date | None = None
    """The day on which the source was read."""

    def grant(self) -> Grant:
        """Return it as the contract has it. Raises `ValueError` if the period is not one."""
        pool = Pool(self.pool)
        return Grant(requests=self.requests, period=self.period, pool=pool, source=self.source, read_on=self.read_on)


class RestListOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One account of one vendor."""

    base_url: str = ""
    """The address of its API; "" if nothing is asked there."""
    auth: Credentials = NoCredentials()
    list: ListOptions | None = None
    """None: there is no list, and nothing is asked."""
    event: EventFields = EventFields()
    webhook: WebhookOptions | None = None
    """None: no webhook is accepted (audit, `mode = "poll"`)."""
    errors: ErrorOptions = ErrorOptions()
    rate: float = 1.0
    """Requests per second, below the vendor's limit."""
    grant: GrantOptions | None = None
    """What the vendor lets us read; None: it publishes nothing."""
    least_interval: timedelta = timedelta(0)
    """The shortest interval at which the list may sensibly be read; 0: the vendor asks for none."""
    personal_data: tuple[str, ...] = ()
    """JSON pointers to personal and card data in its events: masked by default."""
    unproven: str = "What its declaration does not say."
    """One sentence for people: what the list cannot prove, and which facts are not verified."""
    basis: Basis = Basis.VENDOR_DOCS
    """The source against which the declaration was checked."""
    met: str = ""
    """The system of the vendor that it was run against, and when; "": it never met a live one."""

    @property
    def pushed(self) -> EventFields:
        """Return the parts of an event in webhooks."""
        return self.event if self.webhook is None or self.webhook.event is None else self.webhook.event

    @property
    def exact_times(self) -> bool:
        """False if webhooks and list may name different times of one event."""
        own = None if self.webhook is None else self.webhook.event
        return not self.pushed.takes_receipt and (own is None or self.list is None or own.exact)

    @property
    def coverage(self) -> Coverage:
        """Return what the list proves."""
        return Coverage.NONE if self.list is None else Coverage(self.list.coverage)
