"""What can be declared of a vendor: the tables of `[source.options]`."""

from datetime import timedelta
from typing import Any

import msgspec

from gapless_reconcilers.kit.contract import Basis, Order
from gapless_reconcilers.providers.rest_list import pages
from gapless_reconcilers.providers.rest_list.credentials import Credentials
from gapless_reconcilers.providers.rest_list.events import EventFields
from gapless_reconcilers.providers.rest_list.signatures import Signature


class ListOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the events are listed."""

    path: str
    """Behind `base_url`."""
    records: str
    """Path of the array of events; "" if the answer is the array."""
    page: pages.Page
    order: Order
    """What the list shows first. It decides when a walk may end early."""
    nothing: dict[str, Any] | None = None
    """The whole answer that the vendor gives where there is nothing, such as `{}`; None: an empty array says it."""
    item: str = ""
    """Path of the event inside a row; "" if the row is the event."""
    params: dict[str, str | int | bool | list[str]] = {}
    """The query, in which `{window.start|unix_s}` and its like are filled in."""
    json: dict[str, Any] | None = None
    """The body, filled in likewise; where it is there the list is asked by POST."""
    headers: dict[str, str] = {}
    """Sent along, such as a version of the API."""
    resolution: timedelta = timedelta(seconds=1)
    """Unit of the filter by time."""
    history: timedelta | None = None
    """How far back it reaches; None: without limit."""
    grace: timedelta = timedelta(seconds=60)
    """How long after it occurred an event may be absent without being missing."""


class WebhookOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the vendor's webhooks are read."""

    signature: Signature
    root: str = ""
    """Path of the event in the body; "" if the body is the event."""
    many: bool = False
    """True if an array of events stands there."""
    unlisted: tuple[str, ...] = ()
    """Beginnings of keys that the list never shows, such as those of a simulator: recorded, never expected."""


class ErrorOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Statuses that mean something else than they usually do."""

    ignore: tuple[int, ...] = ()
    """There is nothing there: an empty last page."""
    retry: tuple[int, ...] = ()
    """For now: wait and ask again, as after 408, 425 and 5xx."""
    throttled: tuple[int, ...] = ()
    """Too fast, as after 429."""
    expired: tuple[int, ...] = ()
    """What was asked for is too long ago."""


class RestListOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One account of one vendor."""

    base_url: str
    auth: Credentials
    list: ListOptions
    event: EventFields = EventFields()
    webhook: WebhookOptions | None = None
    """None: no webhook is accepted (audit, `mode = "poll"`)."""
    errors: ErrorOptions = ErrorOptions()
    rate: float = 1.0
    """Requests a second that stay under the vendor's limit."""
    unproven: str = "What its declaration does not say."
    """One sentence for people: what the list cannot prove, and which facts are not verified."""
    basis: Basis = Basis.VENDOR_DOCS
    """What the declaration was checked against."""
