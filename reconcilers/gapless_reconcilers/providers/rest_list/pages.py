"""Everything that a declared list needs: the times of the window in its parameters, and six ways to page through it.

A page that does not advance is an error and never the end of the list.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import httpx
import msgspec

from gapless_reconcilers.kit.contract import Window
from gapless_reconcilers.kit.decoders import has, value_at
from gapless_reconcilers.kit.errors import UnexpectedShape
from gapless_reconcilers.kit.pagination import next_address, next_link

FIRST: Final = "gapless.first_key"
"""The extension of a request that holds the first key of the page before: it shows that a list repeats one page."""
OTHER_CUT: Final = "gapless.other_cut"
"""The extension of a request that holds the place of its parameters in `list.other_cuts`."""
HEADER: Final = "header:"
LAST: Final = "[-1]"
"""The last row, in the path of a cursor."""
MOMENTS: Final = ("window.start", "window.before_start", "window.end", "window.after_end")
FORMATS: Final = ("unix_s", "unix_ms", "rfc3339", "date")
ALLOWED: Final = f"{{<moment>|<format>}} of {', '.join(MOMENTS)} and {', '.join(FORMATS)}"
_BRACES: Final = re.compile(r"\{([^{}]*)\}")

Positive = Annotated[int, msgspec.Meta(ge=1)]


def fill(value: Any, window: Window, resolution: timedelta) -> Any:
    """Return `value`, a text or a table or list of texts, with every placeholder replaced by its time.

    `window.before_start` is one unit of `resolution` before the start, and `window.after_end` one after the end, for
    vendors whose bound is exclusive.
    """
    if isinstance(value, Mapping):
        return {key: fill(inner, window, resolution) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [fill(inner, window, resolution) for inner in value]
    if not isinstance(value, str):
        return value
    whole = _BRACES.fullmatch(value)
    if whole is not None:
        return _written(whole[1], window, resolution)
    return _BRACES.sub(lambda match: str(_written(match[1], window, resolution)), value)


def placeholders(value: Any) -> Iterator[str]:
    """Yield every text in braces within `value`."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from placeholders(inner)
    elif isinstance(value, str):
        yield from _BRACES.findall(value)


def is_known(placeholder: str) -> bool:
    """Return True if `fill` knows `placeholder`."""
    moment, _, form = placeholder.partition("|")
    return moment in MOMENTS and form in FORMATS


def unit_of(placeholder: str) -> timedelta:
    """Return the shortest time that the placeholder's format can express."""
    return timedelta(seconds=1) if placeholder.endswith("|unix_s") else timedelta(milliseconds=1)


def _written(placeholder: str, window: Window, resolution: timedelta) -> int | str:
    moment, _, form = placeholder.partition("|")
    moments = {
        "window.start": window.start,
        "window.before_start": window.start - resolution,
        "window.end": window.end,
        "window.after_end": window.end + resolution,
    }
    return _format(moments[moment], form)


def _format(at: datetime, form: str) -> int | str:
    if form == "unix_s":
        return int(at.timestamp())
    if form == "date":
        return at.date().isoformat()
    if form == "unix_ms":
        return int(at.timestamp()) * 1000 + at.microsecond // 1000
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One answered request of a list."""

    request: httpx.Request
    response: httpx.Response
    rows: int
    """The number of its rows, inside the window or not."""
    first: str
    """The key of the first of them."""

    def param(self, name: str) -> str | None:
        """Return the value that the request sent as `name`, or None."""
        if self.request.method == "GET":
            named: str | None = self.request.url.params.get(name)
            return named
        sent: dict[str, object] = msgspec.json.decode(self.request.content)
        return None if sent.get(name) is None else str(sent[name])


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The way to the next request: the list's own with other parameters, or an address that the vendor named."""

    params: Mapping[str, str | int] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    url: httpx.URL | None = None


class PageKind(msgspec.Struct, tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all kinds of page; `type` distinguishes them."""


class CursorPage(PageKind, tag="cursor", frozen=True, kw_only=True):
    """The page has a cursor for the next one."""

    param: str
    """The parameter that carries the cursor; for a list by POST, the field."""
    cursor: str
    """Path of the cursor: `meta.next`, `data[-1].id` for that of the last row, `header:<name>` for one in a header."""
    more: str | None = None
    """Path of the boolean for "there is more"; None: a cursor that is null is the end."""
    optional: bool = False
    """True if the vendor documents that the cursor is left out at the end."""
    until_empty: bool = False
    """True if the vendor documents that a page without rows is the end, whatever its cursor."""
    without: tuple[str, ...] = ()
    """Parameters that may not be sent together with a cursor."""

    def next(self, page: Answered) -> Step | None:
        """Return the step to the next page. Raises `UnexpectedShape` if the list would not advance."""
        content = page.response.content
        if self.more is not None and not value_at(content, self.more, bool):
            return None
        if self.more is not None and not page.rows:
            raise UnexpectedShape(self.more, "true on a page without rows", "rows, or false")
        is_absent = self.optional and self.more is None and not self._is_there(page)
        if is_absent or (self.until_empty and not page.rows):
            return None
        cursor = self._cursor(page)
        if cursor in (None, "") and self.more is None:
            return None
        if cursor in (None, "") or str(cursor) == page.param(self.param):
            raise UnexpectedShape(self.cursor, "empty, or the one of this page", "one that moves on")
        return Step(params={self.param: str(cursor)}, without=self.without)

    def _is_there(self, page: Answered) -> bool:
        if self.cursor.startswith(HEADER):
            return self.cursor.removeprefix(HEADER) in page.response.headers
        return has(page.response.content, self.cursor)

    def _cursor(self, page: Answered) -> str | int | None:
        """Return the cursor of the page. One that is a part of the last row is that of the last row which has it."""
        content, form = page.response.content, str | int | None
        if self.cursor.startswith(HEADER):
            named: str | None = page.response.headers.get(self.cursor.removeprefix(HEADER))
            return named
        for back in range(1, page.rows + 1) if LAST in self.cursor else ():
            with suppress(UnexpectedShape):
                found = value_at(content, self.cursor.replace(LAST, f"[-{back}]"), form)
                if found not in (None, ""):
                    return found  # type: ignore[no-any-return]
        return value_at(content, self.cursor, form)  # type: ignore[no-any-return]


class NextUrlPage(PageKind, tag="next_url", frozen=True, kw_only=True):
    """The body names the address of the next page."""

    url: str
    """Path of the address; null at the end."""
    more: str | None = None
    """Path of the boolean for "there is more"; None: an address that is null is the end."""
    optional: bool = False
    """True if the vendor documents that the address is left out at the end."""
    until_empty: bool = False
    """True if the vendor documents that a page without rows is the end, whatever address it names."""

    def next(self, page: Answered) -> Step | None:
        """Return the step to the next page. Raises `UnexpectedShape` if it would not advance, or leave the host."""
        content = page.response.content
        if self.until_empty and not page.rows:
            return None
        if self.more is not None and not value_at(content, self.more, bool):
            return None
        if self.optional and self.more is None and not has(content, self.url):
            return None
        url = value_at(content, self.url, str | None)
        if not url and self.more is None:
            return None
        return Step(url=next_address(page.request, url or "", self.url))


class LinkHeaderPage(PageKind, tag="link_header", frozen=True, kw_only=True):
    """The `Link` header names the next page; without one this is the last (RFC 8288)."""

    def next(self, page: Answered) -> Step | None:
        """Return the step to the next page. Raises `UnexpectedShape` if it would not advance, or leave the host."""
        named = next_link(page.response)
        return None if named is None else Step(url=next_address(page.request, named, "Link"))


class NumberPage(PageKind, tag="number", frozen=True, kw_only=True):
    """Pages have numbers. The list ends with an empty page, or where `more` says so."""

    param: str = "page"
    start: int = 1
    more: str | None = None
    """Path of the boolean for "there is more"; None: the list ends with an empty page."""

    def next(self, page: Answered) -> Step | None:
        """Return the step to the next page. Raises `UnexpectedShape` if the list would not advance."""
        if not _goes_on(page, self.more):
            return None
        return Step(params={self.param: int(page.param(self.param) or self.start) + 1})


class OffsetPage(PageKind, tag="offset", frozen=True, kw_only=True):
    """The next page begins after as many rows as were listed so far. The list ends as with `number`."""

    param: str = "offset"
    more: str | None = None
    """Path of the boolean for "there is more"; None: the list ends with an empty page."""

    def next(self, page: Answered) -> Step | None:
        """Return the step to the next page. Raises `UnexpectedShape` if the list would not advance."""
        if not _goes_on(page, self.more):
            return None
        return Step(params={self.param: int(page.param(self.param) or 0) + page.rows})


class SinglePage(PageKind, tag="single", frozen=True, kw_only=True):
    """There is one page. A full one may be cut off, so it proves nothing."""

    most: Positive
    """The number of rows that it can hold."""

    def next(self, page: Answered) -> None:
        """Return None. Raises `UnexpectedShape` if the page is full."""
        if page.rows >= self.most:
            raise UnexpectedShape(
                "rows", f"{page.rows}, as many as a page can hold", "fewer; ask for less time at once"
            )


Page = CursorPage | NextUrlPage | LinkHeaderPage | NumberPage | OffsetPage | SinglePage


def _goes_on(page: Answered, more: str | None) -> bool:
    goes_on = bool(page.rows) if more is None else value_at(page.response.content, more, bool)
    if goes_on and (not page.rows or page.request.extensions.get(FIRST) == page.first):
        raise UnexpectedShape(more or "rows", "those of the page before, or none", "rows that move on")
    return goes_on


def merged(params: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """Return the parameters of the next request."""
    return {**{key: value for key, value in params.items() if key not in step.without}, **step.params}
