"""Typed JSON reading, with the error that its road wants and the path of the field that is wrong.

`msgspec` skips what a type does not name without building it, which is most of the speed of both
roads; a field typed `msgspec.Raw` keeps its bytes as they came.
"""

import re
from collections.abc import Sequence
from typing import TypeVar

import httpx
import msgspec

from gapless_reconcilers.kit.errors import MalformedWebhook, UnexpectedShape

T = TypeVar("T")

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that a decoder raises on hostile input: bad JSON or types, bad UTF-8, nesting without end."""

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
