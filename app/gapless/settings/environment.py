"""Maps each key to its environment variable: `GAPLESS_STORE__URL`, `GAPLESS_SOURCE__STRIPE_LIVE__EVERY`.

Two underscores separate a table from its key; in a name, dashes become underscores. The environment wins over the
file. A variable that begins with `GAPLESS_` and belongs to no key is an error, so that a misspelt setting does not
silently keep its default.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from gapless.settings.tree import NAMED, Settings, keys_of, sections_of

PREFIX = "GAPLESS_"
CONFIG_VARIABLE = "GAPLESS_CONFIG"
"""Path of the configuration file."""

_NOT_SETTINGS = re.compile(r"GAPLESS_(CONFIG|REQUIRE|TEST_.*)")
_NAMED_VARIABLE = re.compile(r"GAPLESS_(SOURCE|DESTINATION)__([A-Z0-9]+(?:_[A-Z0-9]+)*)__(.+)")
_DESTINATION_VARIABLE = re.compile(r"GAPLESS_DESTINATION__([A-Z0-9]+(?:_[A-Z0-9]+)*)__([A-Z0-9_]+)")
"""The type of a destination defines its keys, so an unknown variable is refused where its table is read."""
_OPTION_VARIABLE = re.compile(r"GAPLESS_SOURCE__([A-Z0-9]+(?:_[A-Z0-9]+)*)__OPTIONS__([A-Z0-9_]+)")

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EnvironmentValue:
    """The text of an environment variable that sets a key."""

    variable: str
    text: str

    def __repr__(self) -> str:
        return f"EnvironmentValue({self.variable})"


def variable_of(path: Path) -> str:
    """Return the environment variable of the key at `path`, such as `("source", "stripe-live", "every")`."""
    return PREFIX + "__".join(part.upper().replace("-", "_") for part in path)


def key_paths(names: Mapping[str, Iterable[str]]) -> Iterator[Path]:
    """Yield the path of every key, for the sources and destinations `names`.

    Keys that only one provider or one type of destination has are left out.
    """
    yield from _paths_in(Settings, ())
    for kind, cls in NAMED.items():
        for name in names.get(kind, ()):
            yield from (path for path in _paths_in(cls, (kind, name)) if path[-1] != "name")


def names_in(environ: Mapping[str, str], kind: str) -> set[str]:
    """Return the names of the sources, or destinations, that environment variables mention."""
    found = (_NAMED_VARIABLE.fullmatch(variable) for variable in environ)
    return {match[2].lower().replace("_", "-") for match in found if match and match[1].lower() == kind}


def environment_values(environ: Mapping[str, str], names: Mapping[str, Iterable[str]]) -> dict[Path, EnvironmentValue]:
    """Return every key that the environment sets, by its path."""
    known = {variable_of(path): path for path in key_paths(names)}
    values = {
        path: EnvironmentValue(variable, environ[variable]) for variable, path in known.items() if variable in environ
    }
    for variable, text in environ.items():
        if option := _OPTION_VARIABLE.fullmatch(variable):
            name = option[1].lower().replace("_", "-")
            values["source", name, "options", *option[2].lower().split("__")] = EnvironmentValue(variable, text)
        elif variable not in known and (own := _DESTINATION_VARIABLE.fullmatch(variable)):
            name = own[1].lower().replace("_", "-")
            values["destination", name, *own[2].lower().split("__")] = EnvironmentValue(variable, text)
    return values


def unknown_variables(
    environ: Mapping[str, str], names: Mapping[str, Iterable[str]], referenced: set[str]
) -> Iterator[str]:
    """Yield one sentence for each `GAPLESS_` variable that sets no key and that no key names."""
    known = {variable_of(path) for path in key_paths(names)}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in known or variable in referenced:
            continue
        if not any(each.fullmatch(variable) for each in (_NOT_SETTINGS, _OPTION_VARIABLE, _DESTINATION_VARIABLE)):
            yield f"environment: there is no setting {variable}{suggest(variable, known)}"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the hint for a misspelt `word`: the closest known one, else all of them if they are few."""
    known = sorted(known)
    if near := difflib.get_close_matches(word, known, n=1):
        return f"; did you mean {near[0]}?"
    return f"; wanted one of {', '.join(known)}" if len(known) <= 40 else "; docs/configuration.md has them all"  # noqa: PLR2004


def _paths_in(cls: type[Any], prefix: Path) -> Iterator[Path]:
    yield from ((*prefix, key) for key in keys_of(cls))
    yield from ((*prefix, f.name) for f in fields(cls) if "secret" in f.metadata and not f.metadata["literal"])
    for name, section in sections_of(cls).items():
        yield from _paths_in(section, (*prefix, name))
