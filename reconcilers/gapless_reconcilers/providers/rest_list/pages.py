"""How a list goes on: six ways, each with its own end. A page that does not move on is an error, never an end."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import httpx
import msgspec

from gapless_reconcilers.kit.contract import Window
from gapless_reconcilers.kit.decoders import has, value_at
from gapless_reconcilers.kit.errors import UnexpectedShape
from gapless_reconcilers.kit.pagination import next_address, next_link

MOMENTS: Final = ("window.start", "window.before_start", "window.end")


FORMATS: Final = ("unix_s", "unix_ms", "rfc3339")


ALLOWED: Final = f"{{<moment>|<format>}} of {', '.join(MOMENTS)} and {', '.join(FORMATS)}"


_BRACES: Final = re.compile(r"\{([^{}]*)\}")


def fill(value: Any, window: Window, resolution: timedelta) -> Any:
    """`value`, a text or a table or list of texts, with every moment written out.

    `window.before_start` lies one unit of `resolution` before the start: for a bound that the vendor leaves out.
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
    """What stands in braces anywhere in `value`."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from placeholders(inner)
    elif isinstance(value, str):
        yield from _BRACES.findall(value)


def is_known(placeholder: str) -> bool:
    """Whether `placeholder` is one of those that are filled."""
    moment, _, form = placeholder.partition("|")
    return moment in MOMENTS and form in FORMATS


def unit_of(placeholder: str) -> timedelta:
    """The shortest time that the placeholder's format can tell."""
    return timedelta(seconds=1) if placeholder.endswith("|unix_s") else timedelta(milliseconds=1)


def _written(placeholder: str, window: Window, resolution: timedelta) -> int | str:
    moment, _, form = placeholder.partition("|")
    moments = {
        "window.start": window.start,
        "window.before_start": window.start - resolution,
        "window.end": window.end,
    }
    return _format(moments[moment], form)


def _format(at: datetime, form: str) -> int | str:
    if form == "unix_s":
        return int(at.timestamp())
    if form == "unix_ms":
        return int(at.timestamp()) * 1000 + at.microsecond // 1000
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")


Positive = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One answered request of a list."""

    request: httpx.Request
    response: httpx.Response
    rows: int
    """How many rows it has, inside the window or not."""
    first: str
    """The key of the first of them."""

    def asked(self, param: str) -> str | None:
        """What the request named under `param`."""
        if self.request.method == "GET":
            named: str | None = self.request.url.params.get(param)
            return named
        sent: dict[str, object] = msgspec.json.decode(self.request.content)
        return None if sent.get(param) is None else str(sent[param])


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next request: the list's own with other parameters, or one at an address that the vendor named."""

    params: Mapping[str, str | int] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    url: httpx.URL | None = None


class PageKind(msgspec.Struct, tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all kinds of page are told apart by."""


class CursorPage(PageKind, tag="cursor", frozen=True, kw_only=True):
    """The page says where the next begins."""

    param: str
    """The parameter that carries the cursor; of a list that is asked by POST, the field."""
    cursor: str
    """Path of the cursor: `meta.next`, or `data[-1].id` for the last row's."""
    more: str | None = None
    """Path of the truth value that says whether there is more; None: the cursor itself says it, by being null."""
    optional: bool = False
    """True if the vendor documents that the cursor is left out at the end."""
    until_empty: bool = False
    """True if the vendor documents that a page without rows is the end, whatever its cursor."""
    without: tuple[str, ...] = ()
    """Parameters that may not stand beside a cursor."""

    def next(self, page: Answered) -> Step | None:
        """The step to the next page. Raises `UnexpectedShape` if it would lead nowhere."""
        content = page.response.content
        if self.more is not None and not value_at(content, self.more, bool):
            return None
        if self.more is not None and not page.rows:
            raise UnexpectedShape(self.more, "true on a page without rows", "rows, or false")
        is_absent = self.optional and self.more is None and not has(content, self.cursor)
        if is_absent or (self.until_empty and not page.rows):
            return None
        cursor = value_at(content, self.cursor, str | int | None)
        if cursor in (None, "") and self.more is None:
            return None
        if cursor in (None, "") or str(cursor) == page.asked(self.param):
            raise UnexpectedShape(self.cursor, "empty, or the one that was asked for", "one that moves on")
        return Step(params={self.param: str(cursor)}, without=self.without)


class NextUrlPage(PageKind, tag="next_url", frozen=True, kw_only=True):
    """The body names the address of the next page."""

    url: str
    """Path of the address; null at the end."""
    more: str | None = None
    """Path of the truth value that says whether there is more; None: the address itself says it, by being null."""
    optional: bool = False
    """True if the vendor documents that the address is left out at the end."""

    def next(self, page: Answered) -> Step | None:
        """The step to the next page. Raises `UnexpectedShape` if it would lead nowhere, or elsewhere."""
        content = page.response.content
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
        """The step to the next page. Raises `UnexpectedShape` if it would lead nowhere, or elsewhere."""
        named = next_link(page.response)
        return None if named is None else Step(url=next_address(page.request, named, "Link"))


class NumberPage(PageKind, tag="number", frozen=True, kw_only=True):
    """Pages have numbers. The list ends with an empty one, or where `more` says so."""

    param: str = "page"
    start: int = 1
    more: str | None = None
    """Path of the truth value that says whether there is more; None: it ends with an empty page."""

    def next(self, page: Answered) -> Step | None:
        """The step to the next page."""
        if not _goes_on(page, self.more):
            return None
        return Step(params={self.param: int(page.asked(self.param) or self.start) + 1})


class OffsetPage(PageKind, tag="offset", frozen=True, kw_only=True):
    """The next page begins behind as many rows as were shown. The list ends like one of numbers."""

    param: str = "offset"
    more: str | None = None
    """Path of the truth value that says whether there is more; None: it ends with an empty page."""

    def next(self, page: Answered) -> Step | None:
        """The step to the next page."""
        if not _goes_on(page, self.more):
            return None
        return Step(params={self.param: int(page.asked(self.param) or 0) + page.rows})


class SinglePage(PageKind, tag="single", frozen=True, kw_only=True):
    """There is one page. One that is full may be cut off, and is no proof."""

    most: Positive
    """How many rows it can hold."""

    def next(self, page: Answered) -> None:
        """Nothing. Raises `UnexpectedShape` if the page is full."""
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


FIRST = "gapless.first_key"
"""Of a request: the key that the page before began with. A list that shows one page for ever is told by it."""


def merged(asked: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """The parameters of the next request."""
    return {**{key: value for key, value in asked.items() if key not in step.without}, **step.params}
