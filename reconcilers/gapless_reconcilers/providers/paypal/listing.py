"""The list of webhook events: its pages, and one event."""

import html
from datetime import UTC, datetime

import httpx
import msgspec

from gapless_reconcilers.kit.contract import MissingEvent, Page, RemoteEvent, Window
from gapless_reconcilers.kit.decoders import decode_response, read_rows, recordable
from gapless_reconcilers.kit.errors import UnexpectedShape
from gapless_reconcilers.providers.paypal.webhook import Event, remote


class _Link(msgspec.Struct, gc=False):
    rel: str
    href: str


class _Rows(msgspec.Struct, gc=False):
    events: list[msgspec.Raw]
    links: list[_Link] = []


def bounds(window: Window) -> dict[str, str]:
    """Return the filter by time; both bounds are inclusive."""
    return {"start_time": _text(window.start), "end_time": _text(window.end)}


def read_page(request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:  # noqa: ARG001
    """Return the page's events inside `window`. Only a missing next link ends the walk, as pages may be short."""
    rows = decode_response(response, _Rows)
    named = next((link.href for link in rows.links if link.rel == "next"), None)
    following = None if named is None else _next(request, named)
    return read_rows("events", rows.events, Event, remote).page(window, following)


def read_detail(missing: MissingEvent, response: httpx.Response) -> RemoteEvent:  # noqa: ARG001
    """Return the event; its payload is the body as received."""
    return recordable("", remote, decode_response(response, Event), msgspec.Raw(response.content))


def _next(request: httpx.Request, href: str) -> httpx.Request:
    """Return the query of the next link, with unescaped ampersands, at our own address.

    PayPal's documented link names another host of PayPal (`api-m.paypal.com` for `api.paypal.com`), and a slash at the
    end of the path. Credentials go only to the configured address.
    """
    path = "links[next].href"
    try:
        named = request.url.join(html.unescape(href))
    except (httpx.InvalidURL, ValueError) as error:
        raise UnexpectedShape(path, "no address", "that of the next page") from error
    here = request.url
    is_theirs = named.scheme == "https" and named.host.endswith(".paypal.com")
    is_here = (named.scheme, named.host, named.port) == (here.scheme, here.host, here.port)
    if not (is_theirs or is_here) or named.path.rstrip("/") != here.path.rstrip("/"):
        raise UnexpectedShape(path, "another address than that of the list", "a page of the list")
    url = here.copy_with(query=named.query)
    if url == here:
        raise UnexpectedShape(path, "this page's own address", "one that moves on")
    return httpx.Request("GET", url)


def _text(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
