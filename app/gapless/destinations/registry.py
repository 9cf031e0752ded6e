"""Finds the kinds of destinations.

Built-in kinds are the modules of this package: a module without a valid `SENDER` is an error, never
skipped. Outside packages register a class in the entry-point group `gapless.destinations`.
"""

import importlib
import pkgutil
from typing import cast

from gapless import destinations
from gapless.destinations.contract import DestinationInvalid, DestinationKind, DestinationOptions
from gapless_reconcilers.kit.registry import entry_points

ENTRY_POINT_GROUP = "gapless.destinations"
NO_KINDS = frozenset(("brokers", "cloud_events", "contract", "headers", "registry"))
"""Modules of this package that are no kinds."""


def kinds() -> tuple[str, ...]:
    """Return every known kind, sorted. Raises `DestinationInvalid` if an outside package uses a built-in's name."""
    built_in, outside = _built_in_kinds(), entry_points(ENTRY_POINT_GROUP)
    if taken := sorted(built_in & outside.keys()):
        raise DestinationInvalid(
            f"destination type {taken[0]!r} is built in and is also registered by {outside[taken[0]].value}; "
            f"rename the one in the entry-point group {ENTRY_POINT_GROUP}"
        )
    return tuple(sorted(built_in | outside.keys()))


def load(kind: str) -> DestinationKind:
    """Return the class of the senders of `kind`. Raises `DestinationInvalid` if it is unknown or cannot be used."""
    known = kinds()
    if kind not in known:
        raise DestinationInvalid(f"there is no destination type {kind!r}; known are: {', '.join(known)}")
    outside = entry_points(ENTRY_POINT_GROUP).get(kind)
    try:
        found = outside.load() if outside else _built_in(kind)
    except (ImportError, AttributeError) as error:
        raise DestinationInvalid(f"destination type {kind!r} cannot be loaded: {error}; is all installed?") from error
    if getattr(found, "kind", None) != kind:
        raise DestinationInvalid(
            f"destination type {kind!r} says that its kind is {getattr(found, 'kind', None)!r}; wanted {kind!r}"
        )
    options = getattr(found, "Options", None)
    if not (isinstance(options, type) and issubclass(options, DestinationOptions)):
        raise DestinationInvalid(f"destination type {kind!r} has no Options; wanted a class of DestinationOptions")
    return cast("DestinationKind", found)


def _built_in_kinds() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(destinations.__path__)} - NO_KINDS


def _built_in(kind: str) -> object:
    module = importlib.import_module(f"{destinations.__name__}.{kind}")
    return module.SENDER
