"""Typed JSON reading, with the error that its road wants and the path of the field that is wrong.

`msgspec` skips what a type does not name without building it, which is most of the speed of both
roads; a field typed `msgspec.Raw` keeps its bytes as they came. Each type has one decoder, made when
it is first read: name the type, a struct or any other that msgspec knows.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, ParamSpec, TypeVar

import httpx
import msgspec

from gapless_reconcilers.kit.contract import RemoteEvent
from gapless_reconcilers.kit.errors import MalformedWebhook, UnexpectedShape

T = TypeVar("T")
P = ParamSpec("P")

_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that a decoder raises on hostile input: bad JSON or types, bad UTF-8, nesting without end."""
_NOT_RECORDABLE: Final = (ValueError, OverflowError, UnexpectedShape, *_UNREADABLE)
"""All that building an event raises on hostile input."""

_STEP: Final = re.compile(r"([^.\[\]]+)|\[(-?\d+)\]")
_PLACE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`")
_MISTYPED = re.compile(r"^Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`")


_decoder: Final[Callable[[Any], "msgspec.json.Decoder[Any]"]] = cache(msgspec.json.Decoder)
_TABLE: Final = _decoder(dict[str, msgspec.Raw])
_ARRAY: Final = _decoder(list[msgspec.Raw])


def decode_webhook(body: bytes, wanted: type[T]) -> T:
    """The body of a webhook. Raises `MalformedWebhook` for anything that is not the UTF-8 JSON wanted.

    The encoding is checked over the whole body, for msgspec does not look into strings that it skips.
    """
    try:
        if not body.isascii():
            body.decode()
        decoded: T = _decoder(wanted).decode(body)
    except _UNREADABLE as error:
        raise MalformedWebhook(f"the body cannot be read: {_explain(error)}") from error
    return decoded


def decode_response(response: httpx.Response, wanted: type[T]) -> T:
    """The body of a vendor's answer. Raises `UnexpectedShape` with the path of the field that is wrong."""
    return decode_json(response.content, wanted, "")


def decode_items(items: Sequence[msgspec.Raw], wanted: type[T], path: str) -> list[T]:
    """The elements of the array at `path`, each raw till now. Raises `UnexpectedShape`, such as at `data[3].id`."""
    decode = _decoder(wanted).decode
    decoded: list[T] = []
    try:
        for item in items:
            decoded.append(decode(item))  # noqa: PERF401 - their number says which failed
    except _UNREADABLE as error:
        where = f"{path}[{len(decoded)}]"
        raise _unexpected(error, whole=where, inside=where) from error
    return decoded


def decode_json(text: msgspec.Raw | bytes, wanted: type[T], place: str) -> T:
    """The whole of `text`, which stands at `place`. Raises `UnexpectedShape`."""
    try:
        decoded: T = _decoder(wanted).decode(text)
    except _UNREADABLE as error:
        raise _unexpected(error, whole=place or "body", inside=place) from error
    return decoded


def decode_or_none(text: msgspec.Raw | bytes, wanted: type[T]) -> T | None:
    """The whole of `text`, where another shape is no error; None: it has another."""
    try:
        decoded: T = _decoder(wanted).decode(text)
    except _UNREADABLE:
        return None
    return decoded


def recordable(place: str | None, build: Callable[P, RemoteEvent], /, *args: P.args, **kwargs: P.kwargs) -> RemoteEvent:
    """The event that `build` makes of the arguments, if they can be read and the ledger can hold it.

    Raises `UnexpectedShape` if not, for what a list has at `place`; `MalformedWebhook` if `place` is None.
    """
    try:
        return build(*args, **kwargs)
    except _NOT_RECORDABLE as error:
        raise _not_recordable(error, place) from error


def recordable_items(
    path: str, build: Callable[[T, msgspec.Raw], RemoteEvent], items: Sequence[T], rows: Sequence[msgspec.Raw]
) -> list[RemoteEvent]:
    """The events that `build` makes of the elements of the array at `path`: each as it was decoded, and as it came.

    Raises `UnexpectedShape`, such as at `data[3]`, if one cannot be read or the ledger cannot hold it.
    """
    events: list[RemoteEvent] = []
    try:
        for item, row in zip(items, rows, strict=True):
            events.append(build(item, row))  # their number says which failed
    except _NOT_RECORDABLE as error:
        raise _not_recordable(error, f"{path}[{len(events)}]") from error
    return events


def raw_at(text: msgspec.Raw | bytes, path: str) -> msgspec.Raw:
    """What stands at `path`, such as `meta.next` or `data[-1].id`, its bytes as they came. Raises `UnexpectedShape`."""
    raw = text if isinstance(text, msgspec.Raw) else msgspec.Raw(text)
    for step in _STEP.finditer(path):
        name, index = step.groups()
        try:
            raw = _TABLE.decode(raw)[name] if name is not None else _ARRAY.decode(raw)[int(index)]
        except (KeyError, IndexError):
            raise UnexpectedShape(path[: step.end()], "missing", "a value") from None
        except _UNREADABLE as error:
            raise _unexpected(error, whole=path[: step.end()]) from error
    return raw


def rows_at(text: msgspec.Raw | bytes, path: str) -> list[msgspec.Raw]:
    """The elements of the array at `path`, each as it came. Raises `UnexpectedShape`."""
    return decode_json(raw_at(text, path), list[msgspec.Raw], path)


def value_at(text: msgspec.Raw | bytes, path: str, wanted: Any) -> Any:
    """What stands at `path`, of the type `wanted`. Raises `UnexpectedShape`."""
    return decode_json(raw_at(text, path), wanted, path)


def has(text: msgspec.Raw | bytes, path: str) -> bool:
    """Whether anything stands at `path`, be it null. Raises `UnexpectedShape` if not even what holds it is there."""
    try:
        raw_at(text, path)
    except UnexpectedShape as error:
        if error.got != "missing" or error.path != path:
            raise
        return False
    return True


def _unexpected(error: BaseException, *, whole: str, inside: str = "") -> UnexpectedShape:
    """`error` of msgspec as `UnexpectedShape`; `whole` names the text if no single field is to blame."""
    text = _explain(error)
    missing, mistyped = _MISSING.match(text), _MISTYPED.match(text)
    path = _join(inside, _path_in(text))
    if missing:
        return UnexpectedShape(_join(path, missing["name"]), "missing", "a value")
    if mistyped:
        return UnexpectedShape(path or whole, mistyped["got"], mistyped["wanted"])
    return UnexpectedShape(path or whole, f"not readable ({text})", "JSON of the documented shape")


def _explain(error: BaseException) -> str:
    """The message of a decoder, which names fields and types and never shows their values."""
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
