"""Options as people write them, made ready for the frozen `Options` of a provider.

An option may be a table of its own, and a table of several kinds, told apart by a tag such as `type`.
For the registry only.
"""

import difflib
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.errors import OptionsInvalid

Struct = type[msgspec.Struct]

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def types_in(options: Struct, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option by its dotted name, and its type; those of all kinds that a table may be of."""
    for name, hint in _hints(options).items():
        inner = structs_of(hint)
        yield prefix + name, hint
        for struct in inner:
            yield from types_in(struct, f"{prefix}{name}.")


def prepared(options: Struct, table: Mapping[str, object], owner: str, prefix: str = "") -> dict[str, object]:
    """`table` in the form that msgspec takes: one secret where several may stand, durations written for people.

    Raises `OptionsInvalid` for a name that there is not, and for a table of no kind that there is.
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
                f"{owner} has no option {prefix + name!r}{nearest(name, hints)}; "
                f"its options are: {', '.join(prefix + each for each in sorted(hints))}"
            )
        ready[name] = _value(hints[name], value, owner, prefix + name)
    return ready


def structs_of(hint: object) -> tuple[Struct, ...]:
    """The kinds of table that an option may be; none: it is no table."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(each for each in members if isinstance(each, type) and issubclass(each, msgspec.Struct))


def nearest(name: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt `name`; empty: none is near."""
    near = difflib.get_close_matches(name, tuple(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def is_many(hint: object) -> bool:
    """Whether several values may stand."""
    return get_origin(hint) is tuple


def _hints(options: Struct) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(options).items() if name in options.__struct_fields__}


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
    """The one of `kinds` that the table's tag names."""
    tag = kinds[0].__struct_config__.tag_field
    if tag is None:
        return kinds[0]
    tags = {str(kind.__struct_config__.tag): kind for kind in kinds}
    given = table.get(tag)
    if not isinstance(given, str) or given not in tags:
        got = "missing" if given is None else repr(given)
        raise OptionsInvalid(f"{owner}: option {name}.{tag} is {got}; use one of {', '.join(sorted(tags))}")
    return tags[given]


def _duration(value: object) -> object:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return timedelta(seconds=value)
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]]) if match else value
    except (OverflowError, ValueError):
        return "no duration"
