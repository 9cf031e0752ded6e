"""The ready-made declarations of the package: vendors that need no Python, named like a provider."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from gapless.errors import UserError
from gapless.settings.build import RawTable
from gapless.settings.environment import EnvironmentValue
from gapless.settings.parsers import show
from gapless.settings.provider_options import PLACES
from gapless_reconcilers.kit import registry

DECLARED: Final = "declared:"
"""The beginning of an `include` that names a ready-made declaration of the package, such as `declared:paddle`."""


def declared_file(entry: str) -> Path:
    """Return the ready-made declaration of the package that `entry` names, such as `declared:paddle`.

    Raises `UserError` with the names that there are.
    """
    name, files = entry.removeprefix(DECLARED), _files()
    if name not in files:
        raise UserError(f"there is no ready-made declaration {show(name)}; wanted one of {', '.join(files)}")
    return files[name]


def with_declaration(table: RawTable) -> RawTable:
    """Return a table `[[source]]` whose `provider` names a ready-made declaration with what that declares.

    What the table itself says wins, option by option; a secret that it names by another place, such as `token_file`
    instead of `token_env`, stands for the declared one. Other tables are returned as they are.
    """
    named = table.content.get("provider")
    name = named.text if isinstance(named, EnvironmentValue) else named
    if not isinstance(name, str) or name in registry.kinds() or name not in (files := _files()):
        return table
    declared = tomllib.loads(files[name].read_text(encoding="utf-8"))["source"][0]
    own = {key: value for key, value in table.content.items() if key != "provider"}
    return replace(table, content=_merged(declared, own))


def _files() -> dict[str, Path]:
    with resources.as_file(resources.files("gapless_reconcilers") / "declared") as folder:
        return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def _merged(declared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    replaced = {_bare(key) for key in own}
    merged = {key: value for key, value in declared.items() if key in own or _bare(key) not in replaced}
    for key, value in own.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(inner, value)
        else:
            merged[key] = value
    return merged


def _bare(key: str) -> str:
    """Return the key without the place of a secret: `token` of `token_env`."""
    name, _, place = key.rpartition("_")
    return name if name and place in PLACES else key
