"""Reads a `[[destination]]` table: the keys that every destination has, and those that only its type has.

The `Options` of the type define its own keys (`destinations.contract.DestinationOptions`). A wrong value of either
kind is refused with the same sentence.
"""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, field, fields, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from types import GenericAlias, MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from gapless.destinations import registry
from gapless.destinations.contract import DestinationInvalid, DestinationOptions, SecretReader
from gapless.settings import parsers
from gapless.settings.build import RawTable, SettingsBuilder
from gapless.settings.environment import EnvironmentValue
from gapless.settings.parsers import OptionParser, ParseFailed
from gapless.settings.secrets import VARIABLE_NAME
from gapless.settings.tree import DestinationSettings, keys_of_field

_COMMON = tuple(f for f in fields(DestinationSettings) if f.name != "options")
_COMMON_KEYS = frozenset(key for f in _COMMON for key in keys_of_field(f))
_WANTED: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
    Mapping: "a table",
}


def read_destination(table: RawTable, builder: SettingsBuilder) -> DestinationSettings | None:
    """Return `table` as settings, or None if anything in it is wrong; `builder.problems` then says what."""
    kind = _kind_of(table)
    try:
        if kind not in registry.kinds():  # reading the common keys reports it; the other keys cannot be judged
            table = replace(table, content={key: table.content[key] for key in table.content.keys() & _COMMON_KEYS})
            builder.section(DestinationSettings, table)
            return None
        options = registry.load(kind).Options
        own = own_attributes(options)
    except DestinationInvalid as error:
        builder.problems.append(f"{table.place}: {error}")
        return None
    if taken := sorted({f.name for f in own} & _COMMON_KEYS):
        clash = f'type "{kind}" has an option {taken[0]} of its own, as every destination has; rename it'
        builder.problems.append(f"{table.place}: {clash}")
        return None
    values = builder.values((*_COMMON, *own), _without_foreign(table, kind, own, builder))
    if values is None:
        return None
    own_values = {f.name: values.pop(f.name) for f in own if f.name in values}
    try:
        return DestinationSettings(**values, options=options(**own_values))
    except ValueError as error:
        builder.problems.append(f"{table.place}: {error}")
        return None


def own_attributes(options: type[DestinationOptions]) -> tuple[Field[Any], ...]:
    """Return the attributes of a type's options, as fields like those of the settings tree."""
    hints = get_type_hints(options, include_extras=True)
    return tuple(_attribute(each, hints[each.name]) for each in msgspec.structs.fields(options))


def _attribute(of: msgspec.structs.FieldInfo, hint: object) -> Field[Any]:
    inner, meta = _unwrapped(hint)
    attribute: Field[Any] = field(metadata=_metadata(of.name, hint, inner, meta))
    attribute.name = of.name
    attribute.default = MISSING if of.required else None  # only whether there is one matters here
    return attribute


def _metadata(name: str, hint: object, inner: object, meta: msgspec.Meta | None) -> dict[str, object]:
    if inner is SecretReader:
        return {"secret": True, "literal": None}
    if get_origin(inner) is not None and SecretReader in get_args(inner):
        of_files = name.endswith("_file")
        origin = str if of_files else Annotated[str, msgspec.Meta(pattern=rf"\A{VARIABLE_NAME.pattern}\Z")]
        origins = GenericAlias(dict, (get_args(inner)[0], origin))
        return {"parser": _parser(origins, dict, meta, shown=False), "files" if of_files else "variables": True}
    return {"parser": _parser(hint, inner, meta)}


def _parser(hint: object, inner: object, meta: msgspec.Meta | None, *, shown: bool = True) -> OptionParser[Any]:
    """Return the parser of values of the type `hint`, which may allow None and have bounds."""
    if isinstance(inner, type) and issubclass(inner, StrEnum):
        parser: OptionParser[Any] = parsers.choice(inner)
    elif inner is timedelta:
        parser = parsers.duration()
    else:
        base = get_origin(inner) or inner
        as_text = str if base is str else parsers.from_list if base is tuple else parsers.from_json
        parser = OptionParser(
            wanted=_WANTED.get(base, "another value"), read=partial(_converted, hint), from_text=as_text
        )
    described = (meta.description if meta else None) or parser.wanted
    return replace(parser, wanted=described, shown=shown and (meta is None or (meta.extra or {}).get("shown", True)))


def _converted(hint: object, value: object) -> object:
    try:
        converted = msgspec.convert(value, hint)
    except msgspec.ValidationError:
        raise ParseFailed from None
    return MappingProxyType(converted) if isinstance(converted, dict) else converted


def _unwrapped(hint: object) -> tuple[object, msgspec.Meta | None]:
    """Return the type without `Annotated` and `| None`, and its `Meta`."""
    meta = None
    while True:
        origin, args = get_origin(hint), get_args(hint)
        if origin is Annotated:
            hint, meta = args[0], next((each for each in args[1:] if isinstance(each, msgspec.Meta)), meta)
        elif origin in (Union, UnionType) and len(rest := [each for each in args if each is not NoneType]) == 1:
            hint = rest[0]
        else:
            return hint, meta


def _kind_of(table: RawTable) -> object:
    raw = table.content.get("type", "http")
    return raw.text if isinstance(raw, EnvironmentValue) else raw


def _without_foreign(table: RawTable, kind: str, own: Iterable[Field[Any]], builder: SettingsBuilder) -> RawTable:
    """Return the table without the keys of other types, and report each of those."""
    known = _COMMON_KEYS.union(*(_keys(f) for f in own))
    if not table.content.keys() - known:
        return table
    others = [other for other in reversed(registry.kinds()) if other != kind]  # of several types, the first is named
    foreign = {key: other for other in others for key in _keys_of_kind(other) - known}
    for key in sorted(table.content.keys() & foreign.keys()):
        raw = table.content[key]
        place = f"environment: {raw.variable}" if isinstance(raw, EnvironmentValue) else f"{table.place}: option {key}"
        builder.problems.append(f'{place} is for type "{foreign[key]}"; leave it out, or change type')
    return replace(table, content={key: raw for key, raw in table.content.items() if key not in foreign})


def _keys_of_kind(kind: str) -> set[str]:
    """Return the keys of another type; none if it cannot be loaded, because this destination does not need it."""
    try:
        return set().union(*(_keys(f) for f in own_attributes(registry.load(kind).Options)))
    except DestinationInvalid:
        return set()


def _keys(f: Field[Any]) -> set[str]:
    return {f.name, *keys_of_field(f)}
