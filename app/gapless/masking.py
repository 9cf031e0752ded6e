"""Hides the values that a source names by JSON pointers from people and from logs. Deliveries get them as they came.

Pure. A pointer is that of RFC 6901, such as `/data/object/card`; `*` stands for each item of an array or an object.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import msgspec

MASKED: Final = "***"
UNREADABLE: Final = "not shown: it is no JSON, so the masked fields cannot be found in it; mask = [] shows it"
SHORTEST: Final = 4
"""Characters from which on a masked value is looked for in a text. Shorter ones would hit too much else."""
EVERY: Final = "*"
Pointer: TypeAlias = tuple[str, ...]


def parse(pointer: str) -> Pointer:
    """Return the steps of a JSON pointer that is not empty."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def shown(payload: bytes, pointers: Sequence[str]) -> bytes:
    """Return the payload with `MASKED` in the place of each value that a pointer names, to be shown to people.

    Without pointers it is as it came. If it cannot be read as JSON, nothing of it is returned.
    """
    if not pointers:
        return payload
    try:
        value = msgspec.json.decode(payload)
        for pointer in pointers:
            value = _replaced(value, parse(pointer))
        return msgspec.json.encode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return msgspec.json.encode(UNREADABLE)


def readable(body: bytes) -> tuple[Any, str | None]:
    """Return the body as JSON, or as text if JSON for people cannot show it, such as a lone surrogate."""
    try:
        value = msgspec.json.decode(body)
        msgspec.json.encode([[value]])  # it is shown two levels deeper
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None, body.decode(errors="backslashreplace")
    return value, None


def scrubbed(text: str, payload: bytes, pointers: Sequence[str], *, is_cut: bool = False) -> str:
    """Return `text`, such as that of an error, with `MASKED` in the place of every masked value of the payload.

    `is_cut`: the text goes on, so that its end may be the beginning of such a value.
    """
    if not pointers or not text:
        return text
    try:
        value = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return MASKED
    found = {leaf for pointer in pointers for named in _named(value, parse(pointer)) for leaf in _leaves(named)}
    return hidden(text, found, is_cut=is_cut)


def hidden(text: str, values: Iterable[str], *, is_cut: bool = False) -> str:
    """Return `text` with `MASKED` in the place of these values, also where they are written as in JSON, HTML or a URL.

    `is_cut`: the text goes on, so that its end may be the beginning of a value.
    """
    written = {form for each in values if len(each) >= SHORTEST for form in _forms(each)}
    for form in sorted(written, key=len, reverse=True):
        text = text.replace(form, MASKED)
    if is_cut:
        ends = (form[:length] for form in written for length in range(len(form) - 1, 0, -1))
        longest = max((end for end in ends if text.endswith(end)), key=len, default="")
        text = text[: len(text) - len(longest)] + (MASKED if longest else "")
    return text


def _forms(value: str) -> set[str]:
    as_json = (json.dumps(value, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False))
    return {value, *as_json, escape(value), quote(value, errors="replace")}


def scrubbed_error(error: BaseException, payload: bytes, pointers: Sequence[str]) -> BaseException:
    """Return `error`, or if masked values may be in its text or in that of its causes, one without them."""
    if not pointers:
        return error
    text = scrubbed(f"{type(error).__name__}: {error}", payload, pointers)
    return RuntimeError(text).with_traceback(error.__traceback__)


def texts_at(value: Any, pointer: str) -> Iterator[str]:
    """Yield the texts and numbers that a pointer names in a value, each as a text."""
    yield from (text for each in _named(value, parse(pointer)) if (text := _text(each)) is not None)


def texts_in(value: Any) -> Iterator[str]:
    """Yield all texts and numbers in a value, each as a text."""
    if isinstance(value, dict | list):
        yield from (text for each in (value.values() if isinstance(value, dict) else value) for text in texts_in(each))
    elif (text := _text(value)) is not None:
        yield text


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _replaced(value: Any, steps: Pointer) -> Any:
    if not steps:
        return MASKED
    step, *rest = steps
    if isinstance(value, dict):
        return {name: _replaced(each, tuple(rest)) if step in (EVERY, name) else each for name, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, tuple(rest)) if step in (EVERY, str(at)) else each for at, each in enumerate(value)]
    return value


def _named(value: Any, steps: Pointer) -> Iterator[Any]:
    if not steps:
        yield value
        return
    step, *rest = steps
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in items:
        if step in (EVERY, str(name)):
            yield from _named(each, tuple(rest))


def _leaves(value: Any) -> Iterator[str]:
    """Yield the texts and numbers in a value that are long enough to be told from others."""
    if isinstance(value, dict):
        yield from (leaf for each in value.values() for leaf in _leaves(each))
    elif isinstance(value, list):
        yield from (leaf for each in value for leaf in _leaves(each))
    elif isinstance(value, str | int | float) and len(str(value)) >= SHORTEST:
        yield str(value)
