"""Decode JSON into types. Errors are those of webhooks or of lists, and name the path of the wrong field.

`msgspec` skips fields that a type does not name without building them, which is most of the speed of receiving and
listing; a field typed `msgspec.Raw` keeps its bytes as received. Each type has one decoder, made at its first use: pass
the type, a struct or any other that msgspec knows.

What msgspec refuses is read again by `tolerant`, which looks only at the fields that the type names. So a lone
surrogate, bad UTF-8 or deep nesting in a field that nobody reads is no error. In a field that is needed it is one: it
is never replaced, so that no two events get one key.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final, ParamSpec, TypeVar

import httpx
import msgspec

from gapless_reconcilers.kit import tolerant
from gapless_reconcilers.kit.contract import MAX_ROW_BYTES, Page, RemoteEvent, UnreadableRow, Window
from gapless_reconcilers.kit.errors import MalformedWebhook, UnexpectedShape

T = TypeVar("T")
P = ParamSpec("P")

_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Everything that a decoder raises on hostile input: bad JSON or types, bad UTF-8, endless nesting."""
_NOT_RECORDABLE: Final = (ValueError, OverflowError, UnexpectedShape, *_UNREADABLE)
"""Everything that building an event raises on hostile input."""

_STEP: Final = re.compile(r"([^.\[\]]+)|\[(-?\d+)\]")
_PLACE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`")
_MISTYPED = re.compile(r"^Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`")

_decoder: Final[Callable[[Any], "msgspec.json.Decoder[Any]"]] = cache(msgspec.json.Decoder)
_TABLE: Final = _decoder(dict[str, msgspec.Raw])


def decode_webhook(body: bytes, wanted: type[T]) -> T:
    """Return the body of a webhook as `wanted`. Raises `MalformedWebhook` if it is not JSON of that type.

    Only needed fields must be UTF-8: the others are the consumer's, and it gets the bytes that the vendor signed.
    """
    try:
        return _decode(body, wanted)
    except _UNREADABLE as error:
        raise MalformedWebhook(f"the body cannot be read: {_explain(error)}") from error


def peek(body: bytes, wanted: type[T]) -> T | None:
    """Return the JSON `body` as `wanted`, or None if msgspec refuses it for any reason. Quick, whatever it is."""
    try:
        decoded: T = _decoder(wanted).decode(body)
    except _UNREADABLE:
        return None
    return decoded


def require_json(body: bytes) -> None:
    """Raise `MalformedWebhook` unless `body` is JSON. For what nobody has verified yet: quick, whatever it is.

    What is nested deeper than Python's own decoder reads is refused, which no vendor's events are.
    """
    try:
        _decoder(msgspec.Raw).decode(body)
    except _UNREADABLE as refusal:
        try:
            json.loads(body.decode(errors="replace"), parse_int=str, parse_float=str, parse_constant=_no_json)
        except (ValueError, RecursionError):
            raise MalformedWebhook(f"the body cannot be read: {_explain(refusal)}") from refusal


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def decode_response(response: httpx.Response, wanted: type[T]) -> T:
    """Return the body of a vendor's response as `wanted`. Raises `UnexpectedShape` with the path of the wrong field."""
    return decode_json(response.content, wanted, "")


def decode_items(items: Sequence[msgspec.Raw], wanted: type[T], path: str) -> list[T]:
    """Return `items`, the raw elements of the array at `path`, as `wanted`. Raises `UnexpectedShape` (`data[3].id`)."""
    decoded: list[T] = []
    try:
        for item in items:
            decoded.append(_decode(item, wanted))  # noqa: PERF401 - their number says which failed
    except _UNREADABLE as error:
        where = f"{path}[{len(decoded)}]"
        raise _unexpected(error, whole=where, inside=where) from error
    return decoded


def decode_json(text: msgspec.Raw | bytes, wanted: type[T], place: str) -> T:
    """Return the JSON `text`, found at `place`, as `wanted`. Raises `UnexpectedShape`."""
    try:
        return _decode(text, wanted)
    except _UNREADABLE as error:
        raise _unexpected(error, whole=place or "body", inside=place) from error


def decode_or_none(text: msgspec.Raw | bytes, wanted: type[T]) -> T | None:
    """Return the JSON `text` as `wanted`, or None if it has another shape, where that is no error."""
    try:
        return _decode(text, wanted)
    except _UNREADABLE:
        return None


def recordable(place: str | None, build: Callable[P, RemoteEvent], /, *args: P.args, **kwargs: P.kwargs) -> RemoteEvent:
    """Return the event that `build` makes of the arguments.

    If it cannot be read or the ledger cannot hold it, raises `UnexpectedShape` for the item of a list at `place`, or
    `MalformedWebhook` if `place` is None.
    """
    try:
        return build(*args, **kwargs)
    except _NOT_RECORDABLE as error:
        raise _not_recordable(error, place) from error


def recordable_items(
    path: str, build: Callable[[T, msgspec.Raw], RemoteEvent], items: Sequence[T], rows: Sequence[msgspec.Raw]
) -> list[RemoteEvent]:
    """Return the events that `build` makes of the elements of the array at `path`: decoded `items` and raw `rows`.

    Raises `UnexpectedShape`, such as at `data[3]`, if one cannot be read or the ledger cannot hold it.
    """
    events: list[RemoteEvent] = []
    try:
        for item, row in zip(items, rows, strict=True):
            events.append(build(item, row))  # their number says which failed
    except _NOT_RECORDABLE as error:
        raise _not_recordable(error, f"{path}[{len(events)}]") from error
    return events


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRows:
    """The rows of one page, read one by one: the events, inside the window or not, and the rows that are none."""

    events: list[RemoteEvent]
    unreadable: list[UnreadableRow]

    def page(self, window: Window, following: httpx.Request | None) -> Page:
        """Return the page: its events inside `window`, the unreadable rows, and the next request."""
        inside = [event for event in self.events if event.occurred_at in window]
        rows = len(self.events) + len(self.unreadable)
        return Page(events=inside, next=following, unreadable=self.unreadable, rows=rows)


def read_rows(
    path: str, rows: Sequence[msgspec.Raw], wanted: type[T], build: Callable[[T, msgspec.Raw], RemoteEvent]
) -> ListedRows:
    """Return the events that `build` makes of `rows`, the raw elements of the array at `path`, decoded as `wanted`.

    A row that cannot be read, or that the ledger cannot hold, keeps no other from being read: it is among `unreadable`.
    """
    return read_each(path, rows, lambda row, place: recordable(place, build, decode_json(row, wanted, place), row))


def read_each(path: str, rows: Sequence[msgspec.Raw], read: Callable[[msgspec.Raw, str], RemoteEvent]) -> ListedRows:
    """Return the events that `read` makes of each of `rows` and its place, such as `data[3]`.

    A row for which it raises `UnexpectedShape` is among `unreadable`.
    """
    found: list[RemoteEvent | tuple[msgspec.Raw, UnexpectedShape]] = []
    for at, row in enumerate(rows):
        try:
            found.append(read(row, f"{path}[{at}]"))
        except UnexpectedShape as error:
            found.append((row, error))
    events = [each for each in found if isinstance(each, RemoteEvent)]
    if len(events) == len(found):
        return ListedRows(events=events, unreadable=[])
    times = [each.occurred_at if isinstance(each, RemoteEvent) else None for each in found]
    odd = [
        unreadable_row(
            each[0],
            str(each[1]),
            before=next((time for time in reversed(times[:at]) if time), None),
            after=next((time for time in times[at:] if time), None),
        )
        for at, each in enumerate(found)
        if not isinstance(each, RemoteEvent)
    ]
    return ListedRows(events=events, unreadable=odd)


def unreadable_row(
    row: msgspec.Raw | bytes, problem: str, *, before: datetime | None = None, after: datetime | None = None
) -> UnreadableRow:
    """Return `row` as one that cannot be read. `before` and `after`: see `UnreadableRow`."""
    text = bytes(row)
    digest = hashlib.sha256(text).hexdigest()
    return UnreadableRow(digest=digest, row=text[:MAX_ROW_BYTES], problem=problem, before=before, after=after)


def last_readable(rows: Sequence[msgspec.Raw], wanted: type[T]) -> T | None:
    """Return the last of `rows` that can be read as `wanted`, to continue after it; None if none can.

    If it is not the last row, the next page shows the rows after it again.
    """
    return next((found for row in reversed(rows) if (found := decode_or_none(row, wanted)) is not None), None)


def raw_at(text: msgspec.Raw | bytes, path: str) -> msgspec.Raw:
    """Return the raw JSON at `path`, such as `meta.next` or `data[-1].id`. Raises `UnexpectedShape`."""
    raw = text if isinstance(text, msgspec.Raw) else msgspec.Raw(text)
    for step in _STEP.finditer(path):
        name, index = step.groups()
        try:
            raw = _member(raw, name) if name is not None else _decode(raw, list[msgspec.Raw])[int(index)]
        except (KeyError, IndexError):
            raise UnexpectedShape(path[: step.end()], "missing", "a value") from None
        except _UNREADABLE as error:
            raise _unexpected(error, whole=path[: step.end()]) from error
    return raw


def rows_at(text: msgspec.Raw | bytes, path: str) -> list[msgspec.Raw]:
    """Return the raw elements of the array at `path`. Raises `UnexpectedShape`."""
    return decode_json(raw_at(text, path), list[msgspec.Raw], path)


def value_at(text: msgspec.Raw | bytes, path: str, wanted: Any) -> Any:
    """Return the value at `path` as `wanted`. Raises `UnexpectedShape`."""
    return decode_json(raw_at(text, path), wanted, path)


def has(text: msgspec.Raw | bytes, path: str) -> bool:
    """Return True if there is a value at `path`, even null. Raises `UnexpectedShape` if its parent is absent."""
    try:
        raw_at(text, path)
    except UnexpectedShape as error:
        if error.got != "missing" or error.path != path:
            raise
        return False
    return True


def _decode(text: msgspec.Raw | bytes, wanted: type[T]) -> T:
    """Return `text` as `wanted`: read by msgspec or, if it refuses the text for another reason, by `tolerant`."""
    try:
        decoded: T = _decoder(wanted).decode(text)
    except msgspec.ValidationError:
        raise
    except _UNREADABLE as refusal:
        decoded = _read_again(refusal, tolerant.decode, text, wanted)
    return decoded


def _member(text: msgspec.Raw | bytes, name: str) -> msgspec.Raw:
    """Return the value of `name` in an object. Raises `KeyError` if there is none."""
    try:
        found: msgspec.Raw | None = _TABLE.decode(text)[name]
    except msgspec.ValidationError:
        raise
    except _UNREADABLE as refusal:
        found = _read_again(refusal, tolerant.member, text, name)
    if found is None:
        raise KeyError(name)
    return found


def _read_again(refusal: BaseException, read: Callable[[bytes, Any], Any], text: msgspec.Raw | bytes, what: Any) -> Any:
    """Return what `read` finds. If the text is no JSON at all, raises `refusal`, which says so in msgspec's words."""
    try:
        return read(bytes(text), what)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        raise refusal from None


def _unexpected(error: BaseException, *, whole: str, inside: str = "") -> UnexpectedShape:
    """Turn msgspec's `error` into `UnexpectedShape`; `whole` names the text if the error names no field."""
    text = _explain(error)
    missing, mistyped = _MISSING.match(text), _MISTYPED.match(text)
    path = _join(inside, _path_in(text))
    if missing:
        return UnexpectedShape(_join(path, missing["name"]), "missing", "a value")
    if mistyped:
        return UnexpectedShape(path or whole, mistyped["got"], mistyped["wanted"])
    return UnexpectedShape(path or whole, f"not readable ({text})", "JSON of the documented shape")


def _explain(error: BaseException) -> str:
    """Return the decoder's message, which names fields and types and never shows values."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    return str(error)


def _not_recordable(error: BaseException, place: str | None) -> MalformedWebhook | UnexpectedShape:
    if place is None:
        return MalformedWebhook(f"the event cannot be recorded: {_explain(error)}")
    if isinstance(error, UnexpectedShape):
        return error.inside(place)
    return UnexpectedShape(place or "body", f"not recordable: {_explain(error)}", "an event that is")


def _path_in(text: str) -> str:
    place = _PLACE.search(text)
    return place["path"] if place else ""


def _join(path: str, name: str) -> str:
    if not path or not name:
        return path or name
    return path + name if name.startswith("[") else f"{path}.{name}"
