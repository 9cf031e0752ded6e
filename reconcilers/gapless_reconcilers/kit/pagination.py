"""Read pages without guessing: required fields by dotted path, and guards against walks that do not end.

A field that is absent or of another type raises `UnexpectedShape` with its path. It never becomes an empty page.
"""

import re
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx

from gapless_reconcilers.kit.contract import Window
from gapless_reconcilers.kit.errors import UnexpectedShape

_LINK = re.compile(
    r"""\s*<([^<>]*)>((?:\s*;\s*[!#$%&'*+.^_`|~\w-]+(?:\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s",;]*))?)*)\s*(?:,|$)"""
)
_LINK_PARAM = re.compile(r""";\s*([!#$%&'*+.^_`|~\w-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",;]*)))?""")
_STEP = re.compile(r"([^.\[\]]+)|\[(-?\d+)\]")


def require(body: object, path: str) -> Any:
    """Return the value at `path`, such as `data`, `meta.next` or `data[-1].id`. Raises `UnexpectedShape` if absent."""
    value: Any = body
    for step in _STEP.finditer(path):
        name, index = step.groups()
        try:
            value = value[name] if name is not None and isinstance(value, Mapping) else _element(value, index)
        except (KeyError, IndexError):
            raise UnexpectedShape(path[: step.end()], "missing", "a value") from None
    return value


def cursor_after(request: httpx.Request, last: str, *, has_more: bool, param: str = "starting_after") -> str | None:
    """Return the cursor of the page after that of `request`, or None if that was the last one.

    `last` is the cursor of the page's last row, empty if it has none. Raises `UnexpectedShape` if the page promises
    more but the walk would not advance: a page without rows, or one that ends where it began.
    """
    if not has_more:
        return None
    if not last:
        raise UnexpectedShape("data", "empty although has_more is true", "rows, or has_more = false")
    if request.url.params.get(param) == last:
        raise UnexpectedShape("data[-1]", "the row that this page was asked to start after", "one that moves on")
    return last


def is_walked(times: Collection[datetime], window: Window, margin: timedelta) -> bool:
    """Return True if a walk down a list without a filter by time may end after a page with rows of these `times`.

    It may if the whole page lies before the window, by more than `margin`: the time by which the list may be out of
    order, usually the grace. One old row among newer ones ends nothing, nor does a page without rows.
    """
    return bool(times) and max(times) < window.start - margin


def other_size(size: int, most: int = 100) -> int:
    """Return another number of rows a page: `most`, or if that is `size` two thirds of it, so that pages end elsewhere.

    Two sizes of which one is a multiple of the other would meet at the same rows.
    """
    return most if size < most else max(1, most * 2 // 3)


def next_link(response: httpx.Response) -> str | None:
    """Return the address of the next page in the `Link` header, or None if it names none.

    Raises `UnexpectedShape` for a header that cannot be read: the end of a list is never guessed.
    Source: RFC 8288 section 3, read November 2026.
    """
    text, at, found = ", ".join(response.headers.get_list("link")).rstrip(" \t,"), 0, None
    while at < len(text):
        link = _LINK.match(text, at)
        if link is None:
            raise UnexpectedShape("Link", "not readable", "links as RFC 8288 has them")
        params: dict[str, str] = {}
        for name, quoted, plain in _LINK_PARAM.findall(link[2]):
            params.setdefault(name.lower(), quoted or plain)
        if found is None and "next" in params.get("rel", "").lower().split():
            found = link[1]
        at = link.end()
    return found


def next_address(request: httpx.Request, named: str, path: str) -> httpx.URL:
    """Return `named`, the address of the next page that the response to `request` has at `path`, as an absolute URL.

    Raises `UnexpectedShape` if it is on another host, because credentials are sent along, or if it is this page's own.
    """
    here = request.url
    try:
        url = here.join(named)
    except (httpx.InvalidURL, ValueError) as error:
        raise UnexpectedShape(path, "no address", "that of the next page") from error
    if not named or url == here:
        raise UnexpectedShape(path, "empty, or this page's own address", "one that moves on")
    if (url.scheme, url.host, url.port) != (here.scheme, here.host, here.port):
        raise UnexpectedShape(path, f"an address at {_origin(url)[:80]!r}", f"one at {_origin(here)}")
    return url


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


def _element(value: object, index: str | None) -> Any:
    if index is None or not isinstance(value, list):
        raise KeyError(index)
    return value[int(index)]
