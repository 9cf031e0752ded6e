"""The known providers, and building one from plain options.

Built-in providers are the modules of `gapless_reconcilers.providers`: a module that does not export a suitable
`PROVIDER` is an error and never skipped. Other packages register a class in the entry-point group
`gapless.providers`.
"""

import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, cast, get_args

import msgspec

from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.kit.errors import OptionsInvalid
from gapless_reconcilers.kit.options import is_many, nearest, prepared, types_in

ENTRY_POINT_GROUP = "gapless.providers"
BUILT_IN = "gapless_reconcilers.providers"
"""A name and no import: the kit imports a provider only when it is needed."""


def kinds() -> tuple[str, ...]:
    """Return every known kind, sorted. Raises `OptionsInvalid` if an outside package takes a built-in's name."""
    built_in, outside = _built_in_kinds(), entry_points(ENTRY_POINT_GROUP)
    if taken := sorted(built_in & outside.keys()):
        raise OptionsInvalid(
            f"provider {taken[0]!r} is built in and is also registered by {outside[taken[0]].value}; "
            f"rename the one in the entry-point group {ENTRY_POINT_GROUP}"
        )
    return tuple(sorted(built_in | outside.keys()))


def load(kind: str) -> type[Provider]:
    """Return the class of `kind`. Raises `OptionsInvalid` with the known kinds, or with what its module lacks."""
    known = kinds()
    if kind not in known:
        raise OptionsInvalid(f"there is no provider {kind!r}{nearest(kind, known)}; known are: {', '.join(known)}")
    outside = entry_points(ENTRY_POINT_GROUP).get(kind)
    found = outside.load() if outside else _built_in(kind)
    if getattr(found, "kind", None) != kind:
        raise OptionsInvalid(
            f"provider {kind!r} says that its kind is {getattr(found, 'kind', None)!r}; wanted {kind!r}"
        )
    return cast("type[Provider]", found)


def build(kind: str, options: Mapping[str, object]) -> Provider:
    """Return a provider of `kind` with `options`, in which every secret already is a `Secret`, or a list of them.

    A duration may be a `timedelta`, a number of seconds or a text such as "5m". Raises `OptionsInvalid`
    naming the key, what it got and what is wanted; no value is ever shown.
    """
    factory = cast("Callable[[object], Provider]", load(kind))
    return factory(read_options(kind, options))


def read_options(kind: str, options: Mapping[str, object]) -> object:
    """Return `options` as the provider's frozen `Options`; the mapping is not changed. Raises `OptionsInvalid`."""
    factory = load(kind).Options
    try:
        return msgspec.convert(prepared(factory, options, f"provider {kind!r}"), factory)
    except msgspec.ValidationError as error:
        raise OptionsInvalid(f"options of provider {kind!r}: {error}") from error


def option_types(kind: str) -> dict[str, Any]:
    """Return the options of `kind` and their types, those in tables by dotted names such as `auth.token`."""
    return dict(types_in(load(kind).Options))


def secret_fields(kind: str) -> dict[str, Literal["one", "many"]]:
    """Return the options that are secrets, which settings reads from variables or files, and if each is one or many."""
    found = {name: hint for name, hint in option_types(kind).items() if hint is Secret or Secret in get_args(hint)}
    return {name: "many" if is_many(hint) else "one" for name, hint in found.items()}


def required_secrets(kind: str) -> frozenset[str]:
    """Return the single secrets that the options of `kind` must have, such as the key of an API."""
    required = {each.name for each in msgspec.structs.fields(load(kind).Options) if each.required}
    return frozenset(name for name, number in secret_fields(kind).items() if number == "one" and name in required)


def entry_points(group: str) -> Mapping[str, importlib.metadata.EntryPoint]:
    """Return the entry points of `group`, by name."""
    return _entry_points_on(tuple(sys.path), group)


@cache
def _entry_points_on(_path: tuple[str, ...], group: str) -> Mapping[str, importlib.metadata.EntryPoint]:
    """Return the entry points, read once for each `sys.path` because that opens a file of every installed package."""
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=group)}


def _built_in_kinds() -> set[str]:
    package = importlib.import_module(BUILT_IN)
    return {module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")}


def _built_in(kind: str) -> object:
    module = importlib.import_module(f"{BUILT_IN}.{kind}")
    try:
        return module.PROVIDER
    except AttributeError:
        raise OptionsInvalid(f"{module.__name__} exports no PROVIDER; add PROVIDER = <the class>") from None
