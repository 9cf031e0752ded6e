"""The options of a source, and the provider that is built from them.

`[source.options]` names secrets (`api_key_env`, `webhook_secret_file`). Only `resolve_options` reads them; it can be
called again when a file has changed.
"""

import json
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Union, get_args, get_origin

from gapless.domain import Mode
from gapless.settings.environment import EnvironmentValue
from gapless.settings.secrets import SecretUnavailable, read_file, read_variable
from gapless.settings.tree import SourceSettings
from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import Provider, Secret
from gapless_reconcilers.kit.errors import OptionsInvalid

PLACES = ("env", "file")
"""An option names the variable, or the file, that contains a secret."""


def build_provider(source: SourceSettings, environ: Mapping[str, str], *, only_reads: bool = False) -> Provider:
    """Return the provider of `source`, built with its options and their current secrets.

    A source of webhooks alone needs no key: what is missing is empty then (see `lacks_key`). With `only_reads`, the
    secrets of webhooks may be missing. Raises `SecretUnavailable` or `OptionsInvalid`.
    """
    options = resolve_options(source, environ, only_reads=only_reads)
    if source.mode is Mode.WEBHOOK:
        options = dict.fromkeys(registry.required_secrets(source.provider), Secret("")) | options
    return registry.build(source.provider, options)


def lacks_key(source: SourceSettings) -> bool:
    """Return True if `source` takes webhooks alone and has no key, so that the provider cannot be asked anything."""
    missing = registry.required_secrets(source.provider)
    given = {key.removesuffix(f"_{place}") for key in source.options for place in PLACES}
    return source.mode is Mode.WEBHOOK and not missing <= given


def declared_providers(
    file: Path, environ: Mapping[str, str] | None = None, unset: list[str] | None = None
) -> Iterator[tuple[str, Provider]]:
    """Yield name and provider of each source in `file`, with placeholders as secrets, to read their capabilities.

    A secret whose variable is in `environ` is that. Those that sign webhooks and are not there are appended to `unset`.
    Raises `OptionsInvalid`, or `OSError` if the file cannot be read.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8")).get("source", [])
    except ValueError as error:
        raise OptionsInvalid(f"{file}: {error}; wanted TOML") from error
    for table in tables:
        kind, options = table.get("provider", ""), table.get("options", {})
        yield (
            table.get("name", kind),
            registry.build(
                kind,
                _with_placeholders(
                    options, registry.secret_fields(kind), environ or {}, [] if unset is None else unset
                ),
            ),
        )


def _with_placeholders(
    table: Mapping[str, object],
    secrets: Mapping[str, str],
    environ: Mapping[str, str],
    unset: list[str],
    prefix: str = "",
) -> dict[str, object]:
    options: dict[str, object] = {}
    for key, value in table.items():
        name, _, place = key.rpartition("_")
        if place in PLACES and prefix + name in secrets:
            named = str(value) if place == "env" else ""
            if named not in environ and secrets[prefix + name] == "many":
                unset.append(str(value))
            options[name] = Secret(environ.get(named, "placeholder"))
        else:
            options[key] = (
                _with_placeholders(value, secrets, environ, unset, f"{prefix}{key}.")
                if isinstance(value, Mapping)
                else value
            )
    return options


def resolve_options(
    source: SourceSettings, environ: Mapping[str, str], *, only_reads: bool = False
) -> dict[str, object]:
    """Return the options of `source` with each secret read from its variables and files. Raises `SecretUnavailable`.

    With `only_reads`, the secrets that sign webhooks may be missing.
    """
    fields = registry.secret_fields(source.provider)
    optional = frozenset(name for name, number in fields.items() if only_reads and number == "many")
    return _resolved(source.options, fields, "", environ, optional)


def signing_secret(source: SourceSettings, environ: Mapping[str, str]) -> Secret | None:
    """Return the first of the secrets that webhooks of `source` are signed with.

    The signing secret is the option that takes several secrets, for rotation. None if there is none.
    Raises `SecretUnavailable`.
    """
    options: object = resolve_options(source, environ)
    names = [name for name, number in registry.secret_fields(source.provider).items() if number == "many"]
    for step in names[0].split(".") if names else ():
        options = options.get(step) if isinstance(options, Mapping) else None
    return options[0] if names and isinstance(options, list) and options else None


def _resolved(
    table: Mapping[str, object],
    secrets: Mapping[str, str],
    prefix: str,
    environ: Mapping[str, str],
    optional: frozenset[str] = frozenset(),
) -> dict[str, object]:
    """Resolve `table`, the part of the options under `prefix`. Secrets in `optional` may be unavailable."""
    here = {name.removeprefix(prefix): number for name, number in secrets.items() if _is_directly_in(name, prefix)}
    references = {f"{name}_{place}" for name in here for place in PLACES}
    resolved: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and key not in references:
            resolved[key] = _resolved(value, secrets, f"{prefix}{key}.", environ, optional)
        elif key not in references:
            resolved[key] = value
    for name, number in here.items():
        found = list[Secret]()
        with suppress(SecretUnavailable) if prefix + name in optional else nullcontext():
            found += _secrets_of(name, prefix, table, environ)
        if number == "one" and len(found) > 1:
            raise SecretUnavailable(f"option options.{prefix}{name} has {len(found)} secrets; wanted one")
        if found:
            resolved[name] = found if number == "many" else found[0]
    return resolved


def option_files(source: SourceSettings) -> set[Path]:
    """Return the files that the secrets of `source` are read from."""
    return {Path(path) for path in _references(source.options, registry.secret_fields(source.provider), "file")}


def plain_options(kind: str, table: Mapping[str, object], base: Path) -> tuple[dict[str, object], list[str]]:
    """Return the options with environment values read and file paths absolute, and what is wrong with them.

    Raises `OptionsInvalid` if there is no provider `kind`.
    """
    problems: list[str] = []
    return _plain_table(
        table, _OptionRules(registry.secret_fields(kind), registry.option_types(kind), base, problems)
    ), problems


@dataclass(frozen=True, slots=True)
class _OptionRules:
    """The secrets and types of a provider's options, the folder of relative paths, and the problems found."""

    secrets: Mapping[str, str]
    types: Mapping[str, object]
    base: Path
    problems: list[str]


def _plain_table(table: Mapping[str, object], rules: _OptionRules, prefix: str = "") -> dict[str, object]:
    options: dict[str, object] = {}
    for key, value in _without_overridden(table, rules.secrets, prefix).items():
        name = prefix + key
        if name in rules.secrets and isinstance(value, EnvironmentValue):
            options[f"{key}_env"] = value.variable
        elif name in rules.secrets:
            rules.problems.append(literal_secret(f"options.{name}"))
        elif name.removesuffix("_file") in rules.secrets and key.endswith("_file"):
            options[key] = _absolute(_plain(value), Path() if isinstance(value, EnvironmentValue) else rules.base)
        elif isinstance(value, Mapping):
            options[key] = _plain_table(value, rules, f"{name}.")
        else:
            options[key] = _plain(value, as_text=_takes_text(rules.types.get(name)))
    return options


def _without_overridden(table: Mapping[str, object], secrets: Iterable[str], prefix: str) -> dict[str, object]:
    """Return `table` without the keys of the file for a secret that the environment sets: the environment wins."""
    rest = dict(table)
    for name in secrets:
        last = name.removeprefix(prefix)
        siblings = [key for key in (last, *(f"{last}_{place}" for place in PLACES)) if key in rest]
        if _is_directly_in(name, prefix) and any(isinstance(rest[key], EnvironmentValue) for key in siblings):
            for key in siblings:
                if not isinstance(rest[key], EnvironmentValue):
                    del rest[key]
    return rest


def literal_secret(key: str) -> str:
    """Return the sentence that refuses a secret in the configuration file."""
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
    """Yield the variables, or the paths of files, that secrets in `table` are read from."""
    for key, value in table.items():
        if key.endswith(f"_{place}") and prefix + key.removesuffix(f"_{place}") in secrets:
            yield from _texts(value, f"options.{prefix}{key}")
        elif isinstance(value, Mapping):
            yield from _references(value, secrets, place, f"{prefix}{key}.")


def _is_directly_in(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and "." not in name.removeprefix(prefix)


def _texts(value: object, key: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(one, str) for one in texts):
        raise SecretUnavailable(
            f"option {key} is neither a text nor a list of texts; wanted names of variables or files"
        )
    return list(texts)


def _takes_text(hint: object) -> bool:
    """Return True if the option may be a text, alone or in a union; a list or a table of texts does not count."""
    is_union = get_origin(hint) in (Union, types.UnionType)
    return hint is str or (is_union and str in get_args(hint))


def _absolute(value: object, base: Path) -> object:
    if isinstance(value, list):
        return [_absolute(one, base) for one in value]
    return str((base / value).absolute()) if isinstance(value, str) else value


def _plain(value: object, *, as_text: bool = False) -> object:
    """Return `value`; the text of a variable is read as JSON if it is JSON, unless the option is a text."""
    if not isinstance(value, EnvironmentValue):
        return value
    if as_text:
        return value.text
    try:
        return json.loads(value.text)
    except ValueError:
        return value.text
