"""Typed JSON reading, with the error that its road wants and the path of the field that is wrong.

`msgspec` skips what a type does not name without building it, which is most of the speed of both
roads; a field typed `msgspec.Raw` keeps its bytes as they came.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import httpx
import msgspec

from gapless_reconcilers.kit.errors import MalformedWebhook, UnexpectedShape

T = TypeVar("T")

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that a decoder raises on hostile input: bad JSON or types, bad UTF-8, nesting without end."""

_ANY: Final = msgspec.json.Decoder(Any)
_TABLE: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_STEP: Final = re.compile(r"([^.\[\]]+)|\[(-?\d+)\]")
_PLACE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`")
_MISTYPED = re.compile(r"^Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`")


def decode_webhook(body: bytes, decoder: "msgspec.json.Decoder[T]") -> T:
    """The body of a webhook. Raises `MalformedWebhook` for anything that is not the UTF-8 JSON wanted.

    The encoding is checked over the whole body, for msgspec does not look into strings that it skips.
    """
    try:
        if not body.isascii():
            body.decode()
        return decoder.decode(body)
    except UNREADABLE as error:
        raise MalformedWebhook(f"the body cannot be read: {explain(error)}") from error


def decode_response(response: httpx.Response, decoder: "msgspec.json.Decoder[T]") -> T:
    """The body of a vendor's answer. Raises `UnexpectedShape` with the path of the field that is wrong."""
    try:
        return decoder.decode(response.content)
    except UNREADABLE as error:
        raise unexpected(error, whole="body") from error


def decode_items(items: Sequence[msgspec.Raw], decoder: "msgspec.json.Decoder[T]", path: str) -> list[T]:
    """The elements of the array at `path`, each raw till now. Raises `UnexpectedShape`, such as at `data[3].id`."""
    decoded: list[T] = []
    try:
        for item in items:
            decoded.append(decoder.decode(item))  # noqa: PERF401 - its length says which element failed
    except UNREADABLE as error:
        where = f"{path}[{len(decoded)}]"
        raise unexpected(error, whole=where, inside=where) from error
    return decoded


def decode_json(text: msgspec.Raw | bytes, place: str) -> Any:
    """The whole of `text`, which stands at `place`, as plain values. Raises `UnexpectedShape`."""
    try:
        return _ANY.decode(text)
    except UNREADABLE as error:
        raise unexpected(error, whole=place or "body", inside=place) from error


def raw_at(text: msgspec.Raw | bytes, path: str) -> msgspec.Raw:
    """What stands at `path`, such as `meta.next` or `data[-1].id`, its bytes as they came. Raises `UnexpectedShape`."""
    raw = text if isinstance(text, msgspec.Raw) else msgspec.Raw(text)
    for step in _STEP.finditer(path):
        name, index = step.groups()
        try:
            raw = _TABLE.decode(raw)[name] if name is not None else _ARRAY.decode(raw)[int(index)]
        except (KeyError, IndexError):
            raise UnexpectedShape(path[: step.end()], "missing", "a value") from None
        except UNREADABLE as error:
            raise unexpected(error, whole=path[: step.end()]) from error
    return raw


def rows_at(text: msgspec.Raw | bytes, path: str) -> list[msgspec.Raw]:
    """The elements of the array at `path`, each as it came. Raises `UnexpectedShape`."""
    raw = raw_at(text, path)
    try:
        return _ARRAY.decode(raw)
    except UNREADABLE as error:
        raise unexpected(error, whole=path or "body") from error


def value_at(text: msgspec.Raw | bytes, path: str, wanted: Any) -> Any:
    """What stands at `path`, of the type `wanted`. Raises `UnexpectedShape`."""
    raw = raw_at(text, path)
    try:
        return msgspec.json.decode(raw, type=wanted)
    except UNREADABLE as error:
        raise unexpected(error, whole=path) from error


def has(text: msgspec.Raw | bytes, path: str) -> bool:
    """Whether anything stands at `path`, be it null. Raises `UnexpectedShape` if not even what holds it is there."""
    try:
        raw_at(text, path)
    except UnexpectedShape as error:
        if error.got != "missing" or error.path != path:
            raise
        return False
    return True


def unexpected(error: BaseException, *, whole: str, inside: str = "") -> UnexpectedShape:
    """`error` of msgspec as `UnexpectedShape`; `whole` names the text if no single field is to blame."""
    text = explain(error)
    missing, mistyped = _MISSING.match(text), _MISTYPED.match(text)
    path = _join(inside, _path_in(text))
    if missing:
        return UnexpectedShape(_join(path, missing["name"]), "missing", "a value")
    if mistyped:
        return UnexpectedShape(path or whole, mistyped["got"], mistyped["wanted"])
    return UnexpectedShape(path or whole, f"not readable ({text})", "JSON of the documented shape")


def explain(error: BaseException) -> str:
    """The message of a decoder, which names fields and types and never shows their values."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    return str(error)


def _path_in(text: str) -> str:
    place = _PLACE.search(text)
    return place["path"] if place else ""


def _join(path: str, name: str) -> str:
    if not path or not name:
        return path or name
    return path + name if name.startswith("[") else f"{path}.{name}"
