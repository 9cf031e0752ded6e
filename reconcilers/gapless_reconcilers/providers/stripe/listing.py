"""Stripe's lists, `GET /v1/events` and `GET /v1/accounts`: their pages, and the meaning of Stripe's refusals."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import httpx
import msgspec
from httpx import codes

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.contract import OWN_STREAM, MissingEvent, Page, RemoteEvent, StreamPage, Window
from gapless_reconcilers.kit.decoders import (
    decode_items,
    decode_or_none,
    decode_response,
    last_readable,
    read_rows,
    recordable,
)
from gapless_reconcilers.kit.errors import HistoryExpired, OptionsInvalid, ProviderUnavailable, RateLimited
from gapless_reconcilers.kit.pagination import cursor_after

EVENTS: Final = "/v1/events"
MOST_PER_PAGE: Final = 100
EARNING: Final = ("charge.succeeded",)
"""Types whose events earn reads. A charge is a transaction in any meaning of the word (Stripe defines none: NV)."""
ONLY_EARNING: Final = {"type": EARNING[0]}
"""The parameter that lists those events alone."""
MODES: Final = {True: "live", False: "test"}
THROTTLED: Final = timedelta(seconds=2)
"""Wait after a 429: Stripe documents no `Retry-After` (Rate limits page), and its limits are per second."""


class StripeApi(NamedTuple):
    """The API of one account in one mode; with `connect` also of the accounts that are connected to it."""

    base: str
    page_limit: int
    livemode: bool
    connect: bool

    def get(self, path: str, stream: str = OWN_STREAM, **params: str | int) -> httpx.Request:
        """Return a GET for our account, or for the connected account `stream`."""
        headers = {"Stripe-Account": stream} if stream else None
        return httpx.Request("GET", self.base + path, params=params or None, headers=headers)

    def lists(self, *, livemode: bool, stream: str) -> bool:
        """Return True if our lists can show an event of this mode and stream."""
        return livemode is self.livemode and (not stream or self.connect)


class _Object(msgspec.Struct, gc=False):
    id: Any = None


class _Data(msgspec.Struct, gc=False):
    object: _Object


class StripeEvent(msgspec.Struct, gc=False):
    """The fields of an event that are read; the rest is skipped without building it."""

    id: str
    type: str
    created: int
    livemode: bool
    data: _Data
    account: str | None = None


class StripeList(msgspec.Struct, gc=False):
    """One page of any list."""

    data: list[msgspec.Raw]
    has_more: bool


class _Identified(msgspec.Struct, gc=False):
    id: str


class StripeAccount(msgspec.Struct, gc=False):
    """Our account, or one that is connected to it."""

    id: str


class _Failure(msgspec.Struct, gc=False):
    code: str | None = None
    param: str | None = None


class _Refusal(msgspec.Struct, gc=False):
    error: _Failure


def page_request(api: StripeApi, stream: str, window: Window, *, limit: int, **further: str) -> httpx.Request:
    """`GET /v1/events` from the window's start, inclusive, to its end, exclusive."""
    bounds = {"created[gte]": int(window.start.timestamp()), "created[lt]": math.ceil(window.end.timestamp())}
    return api.get(EVENTS, stream, limit=limit, **bounds, **further)


def read_page(api: StripeApi, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
    """Return the page's events inside `window`. Any order works: the walk is by id and ends by `has_more`.

    Raises `OptionsInvalid` if the list is of the other mode, because it proves nothing about this source.
    """
    rows = decode_response(response, StripeList)
    listed = read_rows("data", rows.data, StripeEvent, lambda event, row: _listed_event(event, row, stream, api))
    last = last_readable(rows.data, _Identified) if rows.has_more else None
    cursor = cursor_after(request, last.id if last else "", has_more=rows.has_more)
    limit = int(request.url.params.get("limit", api.page_limit))
    only = ONLY_EARNING if "type" in request.url.params else {}
    following = page_request(api, stream, window, limit=limit, **only, starting_after=cursor) if cursor else None
    return listed.page(window, following)


def _listed_event(event: StripeEvent, row: msgspec.Raw, stream: str, api: StripeApi) -> RemoteEvent:
    if event.livemode is not api.livemode:
        wanted = MODES[api.livemode]
        raise OptionsInvalid(f"the list is not of {wanted} events; use a {wanted} api_key or change livemode")
    return remote_event(event, row, stream, api)


def remote_event(event: StripeEvent, payload: bytes | msgspec.Raw, stream: str, api: StripeApi) -> RemoteEvent:
    """Build the event, for webhooks and list alike: its identity is decided only here. Raises `ValueError`."""
    object_id = event.data.object.id
    return RemoteEvent(
        key=event.id,
        type=event.type,
        occurred_at=datetime.fromtimestamp(event.created, UTC),
        payload=payload,
        stream=stream,
        object_key=object_id if isinstance(object_id, str) else None,
        listable=api.lists(livemode=event.livemode, stream=stream),
        livemode=event.livemode,
    )


def detail_request(api: StripeApi, missing: MissingEvent) -> httpx.Request:
    """`GET /v1/events/{key}`."""
    return api.get(f"{EVENTS}/{quote(missing.key, safe='')}", missing.stream)


def read_detail(api: StripeApi, missing: MissingEvent, response: httpx.Response) -> RemoteEvent:
    """Return the event; its payload is the body as received."""
    event, payload = decode_response(response, StripeEvent), msgspec.Raw(response.content)
    return recordable("body", remote_event, event, payload, missing.stream, api)


def accounts_request(api: StripeApi, **cursor: str) -> httpx.Request:
    """`GET /v1/accounts`."""
    return api.get("/v1/accounts", limit=MOST_PER_PAGE, **cursor)


def read_accounts(api: StripeApi, request: httpx.Request, response: httpx.Response) -> StreamPage:
    """Return the ids of the connected accounts."""
    rows = decode_response(response, StripeList)
    accounts = [account.id for account in decode_items(rows.data, StripeAccount, "data")]
    cursor = cursor_after(request, accounts[-1] if accounts else "", has_more=rows.has_more)
    return StreamPage(streams=accounts, next=accounts_request(api, starting_after=cursor) if cursor else None)


def judge(response: httpx.Response, now: datetime) -> None:
    """Raise the error for a refusal: the default table and Stripe's own rules.

    A 429 names no time to wait. 409, and any response with `Stripe-Should-Retry: true`, may be tried again (both as in
    stripe-python's `_should_retry`). `resource_missing` for an event means that it is older than 30 days, for a request
    of the event and for a cursor (the latter NV).
    """
    if response.is_success:
        return
    if response.status_code == codes.TOO_MANY_REQUESTS:
        why = response.headers.get("stripe-rate-limited-reason", "lock-timeout")
        wait = statuses.parse_retry_after(response, now) or THROTTLED
        raise RateLimited(f"Stripe answered 429 ({why})", retry_after=wait)
    failure = refusal.error if (refusal := decode_or_none(response.content, _Refusal)) else _Failure()
    if failure.code == "resource_missing" and failure.param in ("starting_after", "ending_before", "id"):
        raise HistoryExpired("Stripe no longer has the event that the request names; it keeps events for 30 days")
    if response.status_code == codes.CONFLICT or response.headers.get("stripe-should-retry") == "true":
        raise ProviderUnavailable(f"Stripe answered {response.status_code}, which may be tried again")
    statuses.judge(response, now)
