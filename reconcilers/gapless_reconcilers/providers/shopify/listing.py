"""Shopify's lists: the resources by time of update, with the present state of each object. Sources: see `provider`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, NamedTuple
from urllib.parse import parse_qsl

import httpx
import msgspec

from gapless_reconcilers.kit.contract import Page, RemoteEvent, StreamPage, Window
from gapless_reconcilers.kit.decoders import ListedRows, read_rows, value_at
from gapless_reconcilers.kit.errors import OptionsInvalid, UnexpectedShape
from gapless_reconcilers.providers.shopify.graphql import Connection, Identified, PageInfo, ShopifyApi, read_data

DEPTH: Final = 25_000
"""Objects that one query can be paged through. After them the walk starts a new query at the last time it saw."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Resource(NamedTuple):
    """A list that can be read by time of update."""

    gid: str
    update: str
    """The action of its topic for a change."""
    others: tuple[str, ...]
    fields: str
    """The fields of each object: those without a cost, so that a full page stays under 1,000 points."""


RESOURCES: Final = {
    "orders": Resource(
        gid="gid://shopify/Order/",
        update="updated",
        others=("create", "delete", "cancelled", "fulfilled", "paid", "partially_fulfilled"),
        fields="id name createdAt updatedAt processedAt cancelledAt closedAt test currencyCode "
        "displayFinancialStatus displayFulfillmentStatus",
    ),
    "products": Resource(
        gid="gid://shopify/Product/",
        update="update",
        others=("create", "delete"),
        fields="id handle title status vendor productType createdAt updatedAt publishedAt",
    ),
    "customers": Resource(
        gid="gid://shopify/Customer/",
        update="update",
        others=("create", "delete", "disable", "enable"),
        fields="id createdAt updatedAt state",
    ),
}
STATE_TYPES: Final = frozenset(f"{name}.state" for name in RESOURCES)

SHOP: Final = "{ shop { id } }"
SCOPES: Final = "{ currentAppInstallation { accessScopes { handle } } }"
_LIST: Final = (
    "query($first: Int!, $after: String, $query: String!) { %s(first: $first, after: $after, query: $query, "
    "sortKey: UPDATED_AT) { nodes { %s } pageInfo { hasNextPage endCursor } } }"
)


class _Node(msgspec.Struct, gc=False, rename="camel"):
    id: str
    updated_at: Annotated[datetime, msgspec.Meta(tz=True)]


class _Variables(msgspec.Struct, gc=False):
    after: str | None = None


class Handle(msgspec.Struct, gc=False):
    """A scope or an API version."""

    handle: str


class _Installation(msgspec.Struct, gc=False, rename="camel"):
    access_scopes: list[Handle]


def to_time(value: object) -> datetime | None:
    """Return a time in a body or header as aware UTC; None if it is no time."""
    try:
        time: datetime = msgspec.convert(value, Annotated[datetime, msgspec.Meta(tz=True)])
        return time.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        return None


def to_text(time: datetime) -> str:
    """Return a time as Shopify writes it."""
    return time.isoformat().replace("+00:00", "Z")


def version_of(time: datetime) -> int:
    """Return a time of update as a number that grows: microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def read_shop(response: httpx.Response) -> str:
    """Return the shop's gid."""
    return read_data(response, "shop", Identified).id


def read_streams(api: ShopifyApi, response: httpx.Response) -> StreamPage:
    """Return the resources. Raises `OptionsInvalid` if the options promise more history than the scopes allow.

    A resource without its scope is refused when it is listed; the others go on.
    """
    scopes = read_data(response, "currentAppInstallation", _Installation).access_scopes
    if api.all_orders and not any(scope.handle == "read_all_orders" for scope in scopes):
        raise OptionsInvalid("read_all_orders is set and the app lacks that scope; ask for it or unset the option")
    return StreamPage(streams=list(api.resources), next=None)


def first_request(api: ShopifyApi, stream: str, window: Window) -> httpx.Request:
    """Request the objects of the resource `stream` that were updated in the window, oldest first.

    The account's own stream, and one that the options no longer name, has no list: the shop's id is requested.
    """
    return _list(api, stream, window, window.start) if stream in api.resources else api.post(SHOP)


def read_page(api: ShopifyApi, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
    """Return the page's states inside `window`. Raises `UnexpectedShape`."""
    if stream not in api.resources:
        read_shop(response)
        return Page(events=[], next=None)
    rows, path = read_data(response, stream, Connection), f"data.{stream}.nodes"
    listed = read_rows(path, rows.nodes, _Node, lambda node, row: _state(node, row, stream))
    following = _next(api, request, stream, window, listed, rows.page_info) if rows.page_info.has_next_page else None
    return listed.page(window, following)


def _state(node: _Node, row: msgspec.Raw, stream: str) -> RemoteEvent:
    """Return the event for the state of a listed object. Raises `ValueError` and `OverflowError`."""
    at = node.updated_at.astimezone(UTC)
    return RemoteEvent(
        key=f"{node.id}@{to_text(at)}",
        type=f"{stream}.state",
        occurred_at=at,
        payload=row,
        stream=stream,
        object_key=node.id,
        object_version=version_of(at),
    )


def _next(
    api: ShopifyApi, request: httpx.Request, stream: str, window: Window, listed: ListedRows, info: PageInfo
) -> httpx.Request:
    """Return the request after `request`. Its fragment (after `#`), which is never sent, holds the end of the query."""
    path, after = f"data.{stream}.pageInfo", info.end_cursor
    rows = len(listed.events) + len(listed.unreadable)
    if not rows or after is None:
        raise UnexpectedShape(path, "hasNextPage without nodes or endCursor", "both, or hasNextPage = false")
    if after == value_at(request.content, "variables", _Variables).after:
        raise UnexpectedShape(f"{path}.endCursor", "the cursor of this page itself", "one further")
    place = dict(parse_qsl(request.url.fragment))
    since = to_time(place.get("since")) or window.start.replace(microsecond=0)
    read = int(place.get("read", 0)) + rows
    if read + api.page_limit <= DEPTH:
        return _list(api, stream, window, since, after, f"#since={to_text(since)}&read={read}")
    reached = min((state.occurred_at for state in listed.events), default=since).replace(microsecond=0)
    if reached <= since:
        got, wanted = f"more than {read} objects at {to_text(since)}", f"at most {DEPTH} in a second"
        raise UnexpectedShape(path, got, wanted)
    return _list(api, stream, window, reached, mark=f"#since={to_text(reached)}&read=0")


def _list(
    api: ShopifyApi, stream: str, window: Window, since: datetime, after: str | None = None, mark: str = ""
) -> httpx.Request:
    start, end = since.replace(microsecond=0), window.end.replace(microsecond=0)
    end += timedelta(seconds=1) if window.end.microsecond else timedelta(0)
    wanted = f"updated_at:>='{to_text(start)}' AND updated_at:<'{to_text(end)}'"
    variables = {"first": api.page_limit, "query": wanted} | ({"after": after} if after else {})
    return api.post(_LIST % (stream, RESOURCES[stream].fields), variables, mark)
