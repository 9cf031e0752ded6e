"""A source's options: secrets named, then resolved, then bound to the provider.

`[source.options]` names secrets (`api_key_env`, `webhook_secret_file`); only `resolve_options` reads
them, and it may be called again whenever a file has changed.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from gapless.settings.environment import Twin
from gapless.settings.secrets import SecretUnavailable, read_file, read_variable
from gapless.settings.tree import SourceSettings
from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import Provider, Secret


def build_provider(source: SourceSettings, environ: Mapping[str, str]) -> Provider:
    """The provider of `source`, bound to its options as they are now.

    Raises `SecretUnavailable` or `OptionsInvalid`.
    """
    return registry.build(source.provider, resolve_options(source, environ))


def resolve_options(source: SourceSettings, environ: Mapping[str, str]) -> dict[str, object]:
    """The options of `source` with each secret read from its variables and files. Raises `SecretUnavailable`."""
    secrets = registry.secret_fields(source.provider)
    references = {f"{name}_{place}" for name in secrets for place in ("env", "file")}
    resolved = {key: value for key, value in source.options.items() if key not in references}
    for name, number in secrets.items():
        found = list(_secrets_of(name, source.options, environ))
        if number == "one" and len(found) > 1:
            raise SecretUnavailable(f"option options.{name} has {len(found)} secrets; wanted one")
        if found:
            resolved[name] = found if number == "many" else found[0]
    return resolved


def option_files(source: SourceSettings) -> set[Path]:
    """The files that the secrets of `source` are read from."""
    keys = (f"{name}_file" for name in registry.secret_fields(source.provider))
    return {Path(path) for key in keys for path in _texts(source.options.get(key, ()), f"options.{key}")}


def plain_options(kind: str, table: Mapping[str, object], base: Path) -> tuple[dict[str, object], list[str]]:
    """The options as they are kept, twins become values and files absolute, and what is wrong with them.

    Raises `OptionsInvalid` if there is no provider `kind`.
    """
    secrets, types = registry.secret_fields(kind), registry.option_types(kind)
    options: dict[str, object] = {}
    problems: list[str] = []
    for key, value in table.items():
        if key in secrets and isinstance(value, Twin):
            options[f"{key}_env"] = value.variable
            options.pop(f"{key}_file", None)
        elif key in secrets:
            problems.append(literal_secret(f"options.{key}"))
        elif key.removesuffix("_file") in secrets and key.endswith("_file"):
            options[key] = _absolute(_plain(value), Path() if isinstance(value, Twin) else base)
        else:
            options[key] = _plain(value, as_text=_takes_text(types.get(key)))
    return options, problems


def literal_secret(key: str) -> str:
    """What to say to a secret that stands in the configuration itself."""
    name = key.rpartition(".")[2]
    return (
        f"option {key} is a secret and may not stand here; "
        f'name the variable that holds it, {name}_env = "…", or the file, {name}_file = "…"'
    )


def _secrets_of(name: str, options: Mapping[str, object], environ: Mapping[str, str]) -> Iterator[Secret]:
    for place in ("env", "file"):
        key = f"{name}_{place}"
        for reference in _texts(options.get(key, ()), f"options.{key}"):
            try:
                yield from read_variable(reference, environ) if place == "env" else read_file(Path(reference))
            except SecretUnavailable as error:
                raise SecretUnavailable(f"option options.{key}: {error}") from None


def _texts(value: object, key: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(one, str) for one in texts):
        raise SecretUnavailable(
            f"option {key} is neither a text nor a list of texts; wanted names of variables or files"
        )
    return list(texts)


def _takes_text(hint: object) -> bool:
    return str in (hint, *get_args(hint))


def _absolute(value: object, base: Path) -> object:
    if isinstance(value, list):
        return [_absolute(one, base) for one in value]
    return str((base / value).absolute()) if isinstance(value, str) else value


def _plain(value: object, *, as_text: bool = False) -> object:
    """The value behind `value`: a twin is read as JSON where it is JSON, unless the option is a text."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if not isinstance(value, Twin):
        return value
    if as_text:
        return value.text
    try:
        return json.loads(value.text)
    except ValueError:
        return value.text
