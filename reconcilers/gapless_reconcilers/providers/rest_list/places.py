"""The places in a webhook or a row from which a declaration takes its texts, and how they are written.

A place is a dotted path in the JSON (`data.id`); `header:<name>`, `query:<name>` or `form:<name>` (of a short body that
is a form) of the request; or `hash:event`, the SHA-256 of the event's JSON, for vendors that give it no identity.
`{time|day}` is the day of a time in UTC. An expression is a place, a fixed text in single quotes, or a text with
places in braces (`{resource}.{action}`); several that are parted by ` | ` are tried in their order.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from gapless_reconcilers.kit.contract import WebhookRequest
from gapless_reconcilers.kit.decoders import value_at
from gapless_reconcilers.kit.errors import UnexpectedShape

RECEIVED: Final = "received"
"""The time at which a webhook was received, in the place of one that it names."""
_WHOLE: Final = re.compile(r"'[^']*'|[^{}']+|[^{}]*(?:\{[^{}]+\}[^{}]*)+")
_PLACES: Final = re.compile(r"\{([^{}]*)\}")
_HEADER: Final = "header:"
_QUERY: Final = "query:"
_FORM: Final = "form:"
_SHORT: Final = 1024
"""The longest body that is looked into as a form, in bytes."""
HASH: Final = "hash:event"
_DAY: Final = "|day"


@dataclass(frozen=True, slots=True)
class Parts:
    """The JSON of one event and, if a webhook brought it, the whole request."""

    text: msgspec.Raw | bytes
    request: WebhookRequest | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """One place: a path in the JSON, or the name of a header (lower case), of a parameter or of a field of a form."""

    name: str
    is_header: bool = False
    is_query: bool = False
    is_form: bool = False
    is_day: bool = False

    @classmethod
    def of(cls, written: str) -> "Place":
        """Return the place that is written so."""
        if written.startswith(_HEADER):
            return cls(written.removeprefix(_HEADER).lower(), is_header=True)
        if written.startswith(_QUERY):
            return cls(written.removeprefix(_QUERY), is_query=True)
        if written.startswith(_FORM):
            return cls(written.removeprefix(_FORM), is_form=True)
        return cls(written.removesuffix(_DAY), is_day=written.endswith(_DAY))

    def value(self, parts: Parts) -> object:
        """Return what stands there. Raises `UnexpectedShape` if nothing does; `WebhookRefused` if a header repeats."""
        if self.name == HASH:
            return sha256(bytes(parts.text)).hexdigest()
        if not self.is_of_request:
            return value_at(parts.text, self.name, object)
        found = None if parts.request is None else self._in_request(parts.request)
        if not found:
            kind = _HEADER if self.is_header else _QUERY if self.is_query else _FORM
            raise UnexpectedShape(f"{kind}{self.name}", "missing", "a value")
        return found

    @property
    def is_of_request(self) -> bool:
        """True if it is no path in the JSON."""
        return self.is_header or self.is_query or self.is_form

    def _in_request(self, request: WebhookRequest) -> str | None:
        if self.is_header:
            return request.header(self.name)
        if self.is_query:
            return request.param(self.name)
        is_form = len(request.body) <= _SHORT and not request.body.lstrip().startswith((b"{", b"["))
        fields = parse_qsl(request.body.decode("latin-1")) if is_form else []  # a text within JSON is no field
        return dict(fields).get(self.name)

    def text(self, parts: Parts) -> str:
        """Return the text or the whole number that stands there. Raises `UnexpectedShape`."""
        value = self.value(parts)
        return _day(value, self.name) if self.is_day else _scalar(value, self.name)


Alternative = tuple[str | Place, ...]


def is_expression(written: str) -> bool:
    """Return True if `written` can be read as an expression."""
    return all(_WHOLE.fullmatch(each) for each in written.split(" | "))


@cache
def alternatives(expression: str) -> tuple[Alternative, ...]:
    """Return the alternatives of an expression, each as the fixed texts and places that it is made of."""
    return tuple(_alternative(each) for each in expression.split(" | "))


def _alternative(written: str) -> Alternative:
    if written.startswith("'"):
        return (written.strip("'"),)
    if "{" not in written:
        return (Place.of(written),)
    split = _PLACES.split(written)
    return tuple(Place.of(each) if at % 2 else each for at, each in enumerate(split) if each)


@cache
def _plain_path(expression: str) -> str | None:
    """Return the path if the expression is nothing else, as most are; None: there is more to it."""
    (first, *others) = alternatives(expression)
    place = first[0] if len(first) == 1 and not others else None
    is_path = isinstance(place, Place) and not place.is_of_request and not place.is_day and place.name != HASH
    return place.name if isinstance(place, Place) and is_path else None


def text_of(parts: Parts, expression: str) -> str:
    """Return the text of the first alternative that is there. Raises `UnexpectedShape` of the last one."""
    if (path := _plain_path(expression)) is not None:
        return _scalar(value_at(parts.text, path, object), path)
    *first, last = alternatives(expression)
    for each in first:
        try:
            return _joined(parts, each)
        except UnexpectedShape:
            continue
    return _joined(parts, last)


def value_of(parts: Parts, expression: str) -> object:
    """Return the value at the first alternative that is there and not null. Raises `UnexpectedShape` of the last."""
    if (path := _plain_path(expression)) is not None:
        return value_at(parts.text, path, object)
    *first, last = alternatives(expression)
    for each in first:
        try:
            if (found := _value(parts, each)) is not None:
                return found
        except UnexpectedShape:
            continue
    return _value(parts, last)


def found_text(parts: Parts, expression: str) -> str | None:
    """Return the text of an expression; None if there is none."""
    try:
        return text_of(parts, expression)
    except UnexpectedShape:
        return None


def headers_of(expression: str) -> Iterator[tuple[str, bool]]:
    """Yield each header that an expression reads, and True if it cannot be read without it."""
    found = alternatives(expression)
    for each in found:
        yield from ((piece.name, len(found) == 1) for piece in each if isinstance(piece, Place) and piece.is_header)


def only_header(expression: str) -> str | None:
    """Return the header whose value alone the first alternative reads; None if there is more to it."""
    first = alternatives(expression)[0]
    whole = first[0] if len(first) == 1 else None
    return whole.name if isinstance(whole, Place) and whole.is_header else None


def reads_request(expression: str) -> bool:
    """Return True if an expression reads a header or the query, which a row of a list does not have."""
    pieces = [piece for each in alternatives(expression) for piece in each]
    return any(isinstance(piece, Place) and piece.is_of_request for piece in pieces)


def _scalar(value: object, path: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise UnexpectedShape(path, type(value).__name__, "a text or a whole number")
    return str(value)


def _day(value: object, name: str) -> str:
    """Return the day, in UTC, of a number of seconds since 1970 or of an ISO time."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC).date().isoformat()
        return datetime.fromisoformat(str(value)).astimezone(UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        raise UnexpectedShape(name, type(value).__name__, "a time") from None


def _joined(parts: Parts, alternative: Alternative) -> str:
    return "".join([piece if isinstance(piece, str) else piece.text(parts) for piece in alternative])


def _value(parts: Parts, alternative: Alternative) -> object:
    if len(alternative) == 1 and isinstance(alternative[0], Place):
        return alternative[0].value(parts)
    return _joined(parts, alternative)
