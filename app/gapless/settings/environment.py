"""The environment twin of every key: `GAPLESS_STORE__URL`, `GAPLESS_SOURCE__STRIPE_LIVE__EVERY`.

Two underscores part a table from its key; in a name, dashes become underscores. A twin wins over the
file. A variable of ours that is nobody's twin is an error: a misspelt setting must not be a default.
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
"""Which keys a destination has, its type says: what reads the table refuses a variable that is none of them."""
_OPTION_VARIABLE = re.compile(r"GAPLESS_SOURCE__([A-Z0-9]+(?:_[A-Z0-9]+)*)__OPTIONS__([A-Z0-9_]+)")

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Twin:
    """The text of an environment variable that stands for a key."""

    variable: str
    text: str

    def __repr__(self) -> str:
        return f"Twin({self.variable})"


def variable_of(path: Path) -> str:
    """The twin of the key at `path`, such as `("source", "stripe-live", "every")`."""
    return PREFIX + "__".join(part.upper().replace("-", "_") for part in path)


def key_paths(names: Mapping[str, Iterable[str]]) -> Iterator[Path]:
    """The path of every key, for the sources and destinations `names`.

    Keys that only one provider, or one type of destination, has are not among them.
    """
    yield from _paths_in(Settings, ())
    for kind, cls in NAMED.items():
        for name in names.get(kind, ()):
            yield from (path for path in _paths_in(cls, (kind, name)) if path[-1] != "name")


def names_in(environ: Mapping[str, str], kind: str) -> set[str]:
    """The names of sources, or destinations, that the environment speaks of."""
    found = (_NAMED_VARIABLE.fullmatch(variable) for variable in environ)
    return {match[2].lower().replace("_", "-") for match in found if match and match[1].lower() == kind}


def twins_in(environ: Mapping[str, str], names: Mapping[str, Iterable[str]]) -> dict[Path, Twin]:
    """Every twin that is set, by the path of its key."""
    known = {variable_of(path): path for path in key_paths(names)}
    twins = {path: Twin(variable, environ[variable]) for variable, path in known.items() if variable in environ}
    for variable, text in environ.items():
        if option := _OPTION_VARIABLE.fullmatch(variable):
            name = option[1].lower().replace("_", "-")
            twins["source", name, "options", *option[2].lower().split("__")] = Twin(variable, text)
        elif variable not in known and (own := _DESTINATION_VARIABLE.fullmatch(variable)):
            name = own[1].lower().replace("_", "-")
            twins["destination", name, *own[2].lower().split("__")] = Twin(variable, text)
    return twins


def unknown_variables(
    environ: Mapping[str, str], names: Mapping[str, Iterable[str]], referenced: set[str]
) -> Iterator[str]:
    """One sentence for each variable of ours that is no twin and that no key refers to."""
    known = {variable_of(path) for path in key_paths(names)}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in known or variable in referenced:
            continue
        if not any(each.fullmatch(variable) for each in (_NOT_SETTINGS, _OPTION_VARIABLE, _DESTINATION_VARIABLE)):
            yield f"environment: there is no setting {variable}{nearest(variable, known)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """The next step for a misspelt `word`: the likeliest one meant, else all there are, if they are few."""
    known = sorted(known)
    if near := difflib.get_close_matches(word, known, n=1):
        return f"; did you mean {near[0]}?"
    return f"; wanted one of {', '.join(known)}" if len(known) <= 40 else "; docs/configuration.md has them all"  # noqa: PLR2004


def _paths_in(cls: type[Any], prefix: Path) -> Iterator[Path]:
    yield from ((*prefix, key) for key in keys_of(cls))
    yield from ((*prefix, f.name) for f in fields(cls) if "secret" in f.metadata and not f.metadata["literal"])
    for name, section in sections_of(cls).items():
        yield from _paths_in(section, (*prefix, name))
