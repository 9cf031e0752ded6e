"""A source's options: secrets named, then resolved, then bound to the provider.

`[source.options]` names secrets (`api_key_env`, `webhook_secret_file`); only `resolve_options` reads
them, and it may be called again whenever a file has changed.
"""

import json
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Union, get_args, get_origin

from gapless.settings.environment import Twin
from gapless.settings.secrets import SecretUnavailable, read_file, read_variable
from gapless.settings.tree import SourceSettings
from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.kit.errors import OptionsInvalid

PLACES = ("env", "file")
"""Where a secret may stand: in a variable or in a file that the option names."""


def build_provider(source: SourceSettings, environ: Mapping[str, str]) -> Provider:
    """The provider of `source`, bound to its options as they are now.

    Raises `SecretUnavailable` or `OptionsInvalid`.
    """
    return registry.build(source.provider, resolve_options(source, environ))


def declared_providers(file: Path) -> Iterator[tuple[str, Provider]]:
    """Name and provider of each source in `file`, for what they say of themselves: their secrets are placeholders.

    Raises `OptionsInvalid`, or `OSError` if the file cannot be read.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8")).get("source", [])
    except ValueError as error:
        raise OptionsInvalid(f"{file}: {error}; wanted TOML") from error
    for table in tables:
        kind, options = table.get("provider", ""), table.get("options", {})
        yield table.get("name", kind), registry.build(kind, _shown(options, registry.secret_fields(kind)))


def _shown(table: Mapping[str, object], secrets: Iterable[str], prefix: str = "") -> dict[str, object]:
    shown: dict[str, object] = {}
    for key, value in table.items():
        name, _, place = key.rpartition("_")
        if place in PLACES and prefix + name in secrets:
            shown[name] = Secret("placeholder")
        else:
            shown[key] = _shown(value, secrets, f"{prefix}{key}.") if isinstance(value, Mapping) else value
    return shown


def resolve_options(source: SourceSettings, environ: Mapping[str, str]) -> dict[str, object]:
    """The options of `source` with each secret read from its variables and files. Raises `SecretUnavailable`."""
    return _resolved(source.options, registry.secret_fields(source.provider), "", environ)


def signing_secret(source: SourceSettings, environ: Mapping[str, str]) -> Secret | None:
    """The first secret that webhooks of `source` are signed with: the one of which several may live at a time.

    None if there is none, or the provider has no such secret. Raises `SecretUnavailable`.
    """
    options: object = resolve_options(source, environ)
    names = [name for name, number in registry.secret_fields(source.provider).items() if number == "many"]
    for step in names[0].split(".") if names else ():
        options = options.get(step) if isinstance(options, Mapping) else None
    return options[0] if names and isinstance(options, list) and options else None


def _resolved(
    table: Mapping[str, object], secrets: Mapping[str, str], prefix: str, environ: Mapping[str, str]
) -> dict[str, object]:
    """`table`, which stands at `prefix` of the options."""
    here = {name.removeprefix(prefix): number for name, number in secrets.items() if _stands_in(name, prefix)}
    references = {f"{name}_{place}" for name in here for place in PLACES}
    resolved: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and key not in references:
            resolved[key] = _resolved(value, secrets, f"{prefix}{key}.", environ)
        elif key not in references:
            resolved[key] = value
    for name, number in here.items():
        found = list(_secrets_of(name, prefix, table, environ))
        if number == "one" and len(found) > 1:
            raise SecretUnavailable(f"option options.{prefix}{name} has {len(found)} secrets; wanted one")
        if found:
            resolved[name] = found if number == "many" else found[0]
    return resolved


def option_files(source: SourceSettings) -> set[Path]:
    """The files that the secrets of `source` are read from."""
    return {Path(path) for path in _references(source.options, registry.secret_fields(source.provider), "file")}


def plain_options(kind: str, table: Mapping[str, object], base: Path) -> tuple[dict[str, object], list[str]]:
    """The options as they are kept, twins become values and files absolute, and what is wrong with them.

    Raises `OptionsInvalid` if there is no provider `kind`.
    """
    problems: list[str] = []
    return _kept(table, _Kept(registry.secret_fields(kind), registry.option_types(kind), base, problems)), problems


@dataclass(frozen=True, slots=True)
class _Kept:
    """What it takes to keep options: which are secrets, what they take, where files stand, and what was wrong."""

    secrets: Mapping[str, str]
    types: Mapping[str, object]
    base: Path
    problems: list[str]


def _kept(table: Mapping[str, object], known: _Kept, prefix: str = "") -> dict[str, object]:
    options: dict[str, object] = {}
    for key, value in _without_outdone(table, known.secrets, prefix).items():
        name = prefix + key
        if name in known.secrets and isinstance(value, Twin):
            options[f"{key}_env"] = value.variable
        elif name in known.secrets:
            known.problems.append(literal_secret(f"options.{name}"))
        elif name.removesuffix("_file") in known.secrets and key.endswith("_file"):
            options[key] = _absolute(_plain(value), Path() if isinstance(value, Twin) else known.base)
        elif isinstance(value, Mapping):
            options[key] = _kept(value, known, f"{name}.")
        else:
            options[key] = _plain(value, as_text=_takes_text(known.types.get(name)))
    return options


def _without_outdone(table: Mapping[str, object], secrets: Iterable[str], prefix: str) -> dict[str, object]:
    """`table` without what the file says of a secret that a twin gives: the environment wins, wherever it points."""
    kept = dict(table)
    for name in secrets:
        last = name.removeprefix(prefix)
        siblings = [key for key in (last, *(f"{last}_{place}" for place in PLACES)) if key in kept]
        if _stands_in(name, prefix) and any(isinstance(kept[key], Twin) for key in siblings):
            for key in siblings:
                if not isinstance(kept[key], Twin):
                    del kept[key]
    return kept


def literal_secret(key: str) -> str:
    """What to say to a secret that stands in the configuration itself."""
    name = key.rpartition(".")[2]
    return (
        f"option {key} is a secret and may not stand here; "
        f'name the variable that holds it, {name}_env = "…", or the file, {name}_file = "…"'
    )


def _secrets_of(name: str, prefix: str, table: Mapping[str, object], environ: Mapping[str, str]) -> Iterator[Secret]:
    for place in PLACES:
        key = f"{name}_{place}"
        for reference in _texts(table.get(key, ()), f"options.{prefix}{key}"):
            try:
                yield from read_variable(reference, environ) if place == "env" else read_file(Path(reference))
            except SecretUnavailable as error:
                raise SecretUnavailable(f"option options.{prefix}{key}: {error}") from None


def _references(table: Mapping[str, object], secrets: Mapping[str, str], place: str, prefix: str = "") -> Iterator[str]:
    """The names of variables, or the paths of files, that secrets in `table` are read from."""
    for key, value in table.items():
        if key.endswith(f"_{place}") and prefix + key.removesuffix(f"_{place}") in secrets:
            yield from _texts(value, f"options.{prefix}{key}")
        elif isinstance(value, Mapping):
            yield from _references(value, secrets, place, f"{prefix}{key}.")


def _stands_in(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and "." not in name.removeprefix(prefix)


def _texts(value: object, key: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(one, str) for one in texts):
        raise SecretUnavailable(
            f"option {key} is neither a text nor a list of texts; wanted names of variables or files"
        )
    return list(texts)


def _takes_text(hint: object) -> bool:
    """Whether a text may stand: alone, or as one of several kinds; not as an element of a list or a table."""
    is_union = get_origin(hint) in (Union, types.UnionType)
    return hint is str or (is_union and str in get_args(hint))


def _absolute(value: object, base: Path) -> object:
    if isinstance(value, list):
        return [_absolute(one, base) for one in value]
    return str((base / value).absolute()) if isinstance(value, str) else value


def _plain(value: object, *, as_text: bool = False) -> object:
    """The value behind `value`: a twin is read as JSON where it is JSON, unless the option is a text."""
    if not isinstance(value, Twin):
        return value
    if as_text:
        return value.text
    try:
        return json.loads(value.text)
    except ValueError:
        return value.text
