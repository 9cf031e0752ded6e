"""Convert options as people write them into the form of a provider's frozen `Options`. For the registry only.

An option may be a table, and a table may be of several kinds, which a tag such as `type` distinguishes.
"""

import difflib
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.errors import OptionsInvalid

Struct = type[msgspec.Struct]

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def types_in(options: Struct, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the type of every option, also of all kinds of a table."""
    yield from _types_in(options, prefix)


@cache
def _types_in(options: Struct, prefix: str) -> tuple[tuple[str, Any], ...]:
    found: list[tuple[str, Any]] = []
    for name, hint in _hints(options).items():
        found.append((prefix + name, hint))
        found += [each for struct in structs_of(hint) for each in _types_in(struct, f"{prefix}{name}.")]
    return tuple(found)


def prepared(options: Struct, table: Mapping[str, object], owner: str, prefix: str = "") -> dict[str, object]:
    """Return `table` in the form that msgspec takes: a list for one secret of several, durations as numbers.

    Raises `OptionsInvalid` for an unknown name, and for a table of an unknown kind.
    """
    hints = _hints(options)
    tag = options.__struct_config__.tag_field
    ready: dict[str, object] = {}
    for name, value in table.items():
        if name == tag:
            ready[name] = value
            continue
        if name not in hints:
            raise OptionsInvalid(
                f"{owner} has no option {prefix + name!r}{nearest(name, _written(hints))}; "
                f"its options are: {', '.join(prefix + each for each in sorted(_written(hints)))}"
            )
        ready[name] = _value(hints[name], value, owner, prefix + name)
    return ready


def structs_of(hint: object) -> tuple[Struct, ...]:
    """Return the kinds of table that an option may be; empty if it is no table."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(each for each in members if isinstance(each, type) and issubclass(each, msgspec.Struct))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a suggestion for a misspelt `name`, or an empty text if no known name is near."""
    near = difflib.get_close_matches(name, tuple(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def is_many(hint: object) -> bool:
    """Return True if an option of this type takes several values."""
    return get_origin(hint) is tuple


@cache
def _hints(options: Struct) -> Mapping[str, Any]:
    return {name: hint for name, hint in get_type_hints(options).items() if name in options.__struct_fields__}


def _written(hints: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names under which options are written: a secret is named by its variable or its file."""
    for name, hint in hints.items():
        is_secret = hint is Secret or Secret in get_args(hint)
        yield from (f"{name}_env", f"{name}_file") if is_secret else (name,)


def _value(hint: object, value: object, owner: str, name: str) -> object:
    kinds = structs_of(hint)
    if kinds and isinstance(value, Mapping):
        return prepared(_kind(kinds, value, owner, name), value, owner, f"{name}.")
    if is_many(hint) and isinstance(value, Secret):
        return (value,)
    if hint is timedelta or timedelta in get_args(hint):
        return _duration(value)
    return value


def _kind(kinds: tuple[Struct, ...], table: Mapping[str, object], owner: str, name: str) -> Struct:
    """Return the kind that the table's tag names."""
    tag = kinds[0].__struct_config__.tag_field
    if tag is None:
        return kinds[0]
    tags = {str(kind.__struct_config__.tag): kind for kind in kinds}
    found = table.get(tag)
    if not isinstance(found, str) or found not in tags:
        got = "missing" if found is None else repr(found)
        raise OptionsInvalid(f"{owner}: option {name}.{tag} is {got}; use one of {', '.join(sorted(tags))}")
    return tags[found]


def _duration(value: object) -> object:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return timedelta(seconds=value)
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]]) if match else value
    except (OverflowError, ValueError):
        return "no duration"
