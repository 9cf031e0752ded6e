r"""Read JSON that the fast decoder refuses although nothing is wrong with what is needed.

`msgspec` checks the whole of a text, so that one lone surrogate (`"\ud83d"`, legal by the grammar of RFC 8259) or one
value that is nested too deep for it refuses everything. This decoder checks the grammar of the whole text as well, but
reads only the fields that the wanted type names. All others are passed over without building them, whatever their
strings, numbers and depth. It never recurses into the text. `decoders` calls it for what `msgspec` refuses.

Where both can read a text, both return equal values, but for one thing: a name that is repeated and needed is an error
here. Every error is one of msgspec's, in its words.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import msgspec

T = TypeVar("T")
Reader = Callable[[bytes, int, str], tuple[Any, int]]
"""Reads the value that begins at an index of a text, at a place such as `$.data`; returns it and the index after it."""

_STRING: Final = rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+"'
_NUMBER: Final = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_SPACE: Final = re.compile(rb"[ \t\n\r]*+")
_VALUE: Final = re.compile(rb"[ \t\n\r]*+(?:%b|%b|true|false|null|([\[{]))" % (_STRING, _NUMBER))
_NAME: Final = re.compile(rb"[ \t\n\r]*+(%b)[ \t\n\r]*+:" % _STRING)
_CLOSED_AT_ONCE: Final = re.compile(rb"[ \t\n\r]*+[\]}]")
_AFTER_VALUE: Final = re.compile(rb"[ \t\n\r]*+([,\]}])")
_TOKEN: Final = re.compile(rb"%b|[{}\[\]:]" % _STRING)
_CLOSES: Final = {ord("]"): ord("["), ord("}"): ord("{")}
_COMMA, _BRACE, _BRACKET = ord(","), ord("{"), ord("[")
_KINDS: Final = {b"{": "object", b"[": "array", b'"': "str", b"t": "bool", b"f": "bool", b"n": "null"}
_PLACE: Final = re.compile(r" - at `\$(?P<path>[^`]*)`$")

_decoder: Final[Callable[[Any], "msgspec.json.Decoder[Any]"]] = cache(msgspec.json.Decoder)
_text: Final = msgspec.json.Decoder(str)


def decode(text: bytes, wanted: Any) -> Any:
    """Return the JSON `text` as `wanted`.

    Raises `msgspec.ValidationError` if a needed field is absent, of another type, repeated, or holds what no text may,
    and `msgspec.DecodeError` if `text` is not JSON.
    """
    value, end = _reader(wanted)(text, 0, "$")
    _require_end(text, end)
    return value


def member(text: bytes, name: str) -> msgspec.Raw | None:
    """Return the value of `name` in the JSON object `text`; None if there is none. Raises as `decode` does."""
    found, end = _members(text, 0, "$", {name: _raw})
    _require_end(text, end)
    return found.get(name)


def is_json(text: bytes) -> bool:
    """Return True if `text` is one whole JSON value by the grammar, whatever it holds."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _decoder(msgspec.Raw).decode(text)
        return True
    try:
        _require_end(text, _end_of_value(text, 0))
    except msgspec.DecodeError:
        return False
    return True


def has_repeated_name(text: bytes) -> bool:
    """Return True if an object anywhere in the JSON `text` has two members of one name.

    Readers differ about which of them counts: what a signature of values covers is then not what everybody reads.
    """
    opened: list[set[str] | None] = []
    last = b""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in b"{[":
            opened.append(set() if token == b"{" else None)
        elif token in b"}]":
            del opened[-1:]
        elif token != b":":
            last = token
        elif opened and (names := opened[-1]) is not None:
            name = json.loads(last) if b"\\" in last else last[1:-1].decode(errors="surrogateescape")
            if name in names:
                return True
            names.add(name)
    return False


@cache
def _reader(wanted: Any) -> Reader:
    """Return the function that reads values of type `wanted`."""
    origin, parts = get_origin(wanted), get_args(wanted)
    if wanted is msgspec.Raw:
        return _raw
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct) and _is_plain(wanted):
        return _of_struct(wanted)
    if origin is list or (origin is tuple and parts[1:] == (Ellipsis,)):
        return _of_array(origin, _reader(parts[0]))
    if origin is dict and parts[0] is str:
        return _of_table(_reader(parts[1]))
    others = [part for part in parts if part is not NoneType]
    if origin in (Union, UnionType) and len(others) == 1 and len(parts) > 1:
        return _or_none(_reader(others[0]))
    return _of_value(wanted)


def _is_plain(struct: type[msgspec.Struct]) -> bool:
    config = struct.__struct_config__
    return not (config.array_like or config.forbid_unknown_fields or config.tag_field)


def _raw(text: bytes, at: int, place: str) -> tuple[msgspec.Raw, int]:  # noqa: ARG001 - a `Reader`
    start, end = _start_of_value(text, at), _end_of_value(text, at)
    return msgspec.Raw(text[start:end]), end


def _of_value(wanted: Any) -> Reader:
    def read(text: bytes, at: int, place: str) -> tuple[Any, int]:
        start, end = _start_of_value(text, at), _end_of_value(text, at)
        try:
            return _decoder(wanted).decode(text[start:end]), end
        except msgspec.ValidationError as error:
            raise _placed(str(error), place) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _placed(f"Expected `a value that can be kept`, got `{_oddity(error)}`", place) from error

    return read


def _oddity(error: Exception) -> str:
    """Return why msgspec refuses a value that is JSON by the grammar."""
    if isinstance(error, UnicodeDecodeError):
        return "bad UTF-8"
    return "nested too deep" if isinstance(error, RecursionError) else "a lone surrogate"


def _of_struct(struct: type[msgspec.Struct]) -> Reader:
    fields = msgspec.structs.fields(struct)
    readers = {field.encode_name: _reader(field.type) for field in fields}

    def read(text: bytes, at: int, place: str) -> tuple[Any, int]:
        found, end = _members(text, at, place, readers)
        for field in fields:
            if field.required and field.encode_name not in found:
                raise _placed(f"Object missing required field `{field.encode_name}`", place)
        known = {field.name: found[field.encode_name] for field in fields if field.encode_name in found}
        return struct(**known), end

    return read


def _of_table(read_one: Reader) -> Reader:
    def read(text: bytes, at: int, place: str) -> tuple[dict[str, Any], int]:
        return _members(text, at, place, None, read_one)

    return read


def _of_array(kind: Callable[[list[Any]], Any], read_one: Reader) -> Reader:
    def read(text: bytes, at: int, place: str) -> tuple[Any, int]:
        at = _opened(text, at, place, _BRACKET)
        items: list[Any] = []
        if closed := _CLOSED_AT_ONCE.match(text, at):
            return kind(items), _checked(text, closed.end(), _BRACKET)
        while True:
            item, at = read_one(text, at, f"{place}[{len(items)}]")
            items.append(item)
            at, is_last = _next(text, at, _BRACKET)
            if is_last:
                return kind(items), at

    return read


def _or_none(read_one: Reader) -> Reader:
    def read(text: bytes, at: int, place: str) -> tuple[Any, int]:
        start = _start_of_value(text, at)
        return (None, start + 4) if text.startswith(b"null", start) else read_one(text, at, place)

    return read


def _members(
    text: bytes, at: int, place: str, readers: Mapping[str, Reader] | None, read_any: Reader = _raw
) -> tuple[dict[str, Any], int]:
    """Return the members that `readers` name (None: all, read by `read_any`), and the index after the object."""
    at = _opened(text, at, place, _BRACE)
    found: dict[str, Any] = {}
    if closed := _CLOSED_AT_ONCE.match(text, at):
        return found, _checked(text, closed.end(), _BRACE)
    while True:
        match = _NAME.match(text, at)
        if match is None:
            raise _malformed(at)
        name = _name(match[1])
        at = match.end()
        read = (read_any if readers is None else readers.get(name)) if name is not None else None
        if name is None and readers is None:
            raise _placed("Expected `names that can be kept`, got `a lone surrogate or bad UTF-8`", place)
        if name is None or read is None:
            at = _end_of_value(text, at)
        elif name in found:
            raise _placed("Expected `one value`, got `several of this name`", f"{place}.{name}")
        else:
            found[name], at = read(text, at, f"{place}.{name}")
        at, is_last = _next(text, at, _BRACE)
        if is_last:
            return found, at


def _name(quoted: bytes) -> str | None:
    """Return the name of a member; None if no text can hold it, so that it is none that a type names."""
    try:
        return quoted[1:-1].decode() if b"\\" not in quoted else _text.decode(quoted)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _start_of_value(text: bytes, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _opened(text: bytes, at: int, place: str, kind: int) -> int:
    """Return the index after the `{` or `[` at `at`. Raises `msgspec.ValidationError` if another value stands there."""
    start = _start_of_value(text, at)
    if text[start : start + 1] == bytes((kind,)):
        return start + 1
    _end_of_value(text, start)
    wanted, got = _KINDS[bytes((kind,))], _KINDS.get(text[start : start + 1], "number")
    raise _placed(f"Expected `{wanted}`, got `{got}`", place)


def _next(text: bytes, at: int, kind: int) -> tuple[int, bool]:
    """Return the index after the comma or the end that follows a value in an object or array, and which it was."""
    match = _AFTER_VALUE.match(text, at)
    if match is None:
        raise _malformed(at)
    at = match.end()
    return (at, False) if text[at - 1] == _COMMA else (_checked(text, at, kind), True)


def _checked(text: bytes, at: int, kind: int) -> int:
    if _CLOSES[text[at - 1]] != kind:
        raise _malformed(at - 1)
    return at


def _end_of_value(text: bytes, at: int) -> int:
    """Return the index after the value at `at`. Its depth costs a byte for each level, and no recursion."""
    opened = bytearray()
    while True:
        match = _VALUE.match(text, at)
        if match is None:
            raise _malformed(at)
        at = match.end()
        if match[1] is not None:
            closed = _CLOSED_AT_ONCE.match(text, at)
            if closed is None:
                opened.append(text[at - 1])
                at = _after_name(text, at) if text[at - 1] == _BRACE else at
                continue
            at = _checked(text, closed.end(), text[at - 1])
        while opened:
            at, is_last = _next(text, at, opened[-1])
            if not is_last:
                at = _after_name(text, at) if opened[-1] == _BRACE else at
                break
            opened.pop()
        else:
            return at


def _after_name(text: bytes, at: int) -> int:
    match = _NAME.match(text, at)
    if match is None:
        raise _malformed(at)
    return match.end()


def _require_end(text: bytes, at: int) -> None:
    if _start_of_value(text, at) != len(text):
        raise _malformed(at)


def _malformed(at: int) -> msgspec.DecodeError:
    return msgspec.DecodeError(f"JSON is malformed (byte {at})")


def _placed(message: str, place: str) -> msgspec.ValidationError:
    """Return an error with `message` whose path begins with `place`."""
    inner = _PLACE.search(message)
    path = place + (inner["path"] if inner else "")
    message = message[: inner.start()] if inner else message
    return msgspec.ValidationError(message if path == "$" else f"{message} - at `{path}`")
