"""Loads the settings from files and the environment, and checks that they fit together.

This is the only module that reads configuration files.
"""

import difflib
import ipaddress
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gapless.domain import Mode, Order, Release, Via
from gapless.errors import UserError
from gapless.settings.build import RawTable, SettingsBuilder
from gapless.settings.declarations import DECLARED, declared_file, with_declaration
from gapless.settings.destination_options import read_destination
from gapless.settings.encryption_keys import read_keys
from gapless.settings.environment import (
    CONFIG_VARIABLE,
    EnvironmentValue,
    environment_values,
    names_in,
    unknown_variables,
)
from gapless.settings.parsers import ParseFailed, from_list, show
from gapless.settings.provider_options import build_provider
from gapless.settings.secrets import SecretUnavailable, weakness_of
from gapless.settings.tree import (
    NAMED,
    DestinationSettings,
    OidcSettings,
    PaceStrategy,
    PrivateSettings,
    PublicSettings,
    Settings,
    SourceSettings,
)
from gapless_reconcilers.kit.errors import OptionsInvalid

DEFAULT_FILE = Path("gapless.toml")
"""The file that is read, if it exists, when no other is named."""
DEEPEST = 32
"""The most tables and lists within each other; no setting needs ten."""
Tables = dict[str, list[RawTable]]
"""The root table, under "", and the named tables, under "source" and "destination"."""


class SettingsInvalid(UserError):
    """The configuration cannot be used. `problems` has one sentence for each problem; none shows a secret."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def load(path: Path | None, environ: Mapping[str, str], *, reads: str | None = None) -> Settings:
    """Return the settings of the file `path` (else `GAPLESS_CONFIG`, else `./gapless.toml`) and of `environ`.

    The environment wins. Neither is changed. `reads`: only the list of that source will be read, so only its key must
    be there. Raises `SettingsInvalid` with all problems found.
    """
    builder = SettingsBuilder(environ=environ, problems=[], reads=reads)
    root = _root_table(path, builder)
    tables = _tables(root, builder)
    tables = _with_environment(tables, environ)
    tables["source"] = [with_declaration(table) for table in tables["source"]]
    settings = _tree(tables, builder)
    names = _names(tables)
    builder.problems.extend(unknown_variables(environ, names, _referenced(tables)))
    if builder.problems or settings is None:
        raise SettingsInvalid(dict.fromkeys(builder.problems))
    return settings


def remarks(path: Path | None, environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each file that may be missing: no configuration at all, or an include without a match."""
    builder = SettingsBuilder(environ=environ, problems=[])
    for _ in _included(_root_table(path, builder), builder):
        pass
    return builder.remarks


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach `host`: `localhost`, `127.0.0.0/8` and `::1`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.")


def _root_table(path: Path | None, builder: SettingsBuilder) -> RawTable:
    named = path or (Path(builder.environ[CONFIG_VARIABLE]) if builder.environ.get(CONFIG_VARIABLE) else None)
    if named is None and not DEFAULT_FILE.is_file():
        builder.remarks.append(
            f"there is no {DEFAULT_FILE} in {Path.cwd()}, and neither --config nor {CONFIG_VARIABLE} names a file; "
            "only the environment is used"
        )
        return RawTable(place="config", base=Path(), content={})
    file = named or DEFAULT_FILE
    return RawTable(
        place=f"config {file.name}", base=file.parent, content=_parsed(file, f"config {file.name}", builder)
    )


def _parsed(file: Path, place: str, builder: SettingsBuilder) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        if not is_deeper(content, DEEPEST):
            return content
        builder.problems.append(f"{place}: tables are nested more than {DEEPEST} deep; wanted them as documented")
    except RecursionError:
        builder.problems.append(f"{place}: values are nested too deep to be read; wanted TOML")
    except OSError as error:
        builder.problems.append(f"{place}: the file cannot be read ({error.strerror}); wanted a file at {file}")
    except UnicodeDecodeError:
        builder.problems.append(f"{place}: the file is not UTF-8; wanted TOML")
    except tomllib.TOMLDecodeError as error:
        builder.problems.append(f"{place}: {error}; wanted TOML")
    return {}


def is_deeper(value: object, most: int) -> bool:
    """Return True if tables and lists are nested more than `most` deep."""
    level: list[object] = [value]
    for _ in range(most + 1):
        level = [
            inner
            for each in level
            if isinstance(each, Mapping | list)
            for inner in (each.values() if isinstance(each, Mapping) else each)
        ]
        if not level:
            return False
    return True


def _tables(root: RawTable, builder: SettingsBuilder) -> Tables:
    tables: Tables = {"": [root], **{kind: [] for kind in NAMED}}
    for table in (root, *_included(root, builder)):
        for kind in NAMED:
            tables[kind].extend(_named_tables(kind, table, builder))
    return tables


def _included(root: RawTable, builder: SettingsBuilder) -> Iterator[RawTable]:
    for entry in _include_entries(root, builder):
        for file in _files_of(entry, root, builder):
            place = f"config {entry if entry.startswith(DECLARED) else file.name}"
            content = _parsed(file, place, builder)
            if unexpected := sorted(content.keys() - NAMED.keys()):
                builder.problems.append(
                    f"{place}: there is {unexpected[0]}; an included file holds [[source]] and [[destination]] only"
                )
            yield RawTable(place=place, base=file.parent, content=content)


def _include_entries(root: RawTable, builder: SettingsBuilder) -> list[str]:
    """Return the entries of `include`; none if it is no list, which its parser reports."""
    variable = builder.environ.get("GAPLESS_INCLUDE")
    try:
        entries = from_list(variable) if variable is not None else root.content.get("include", [])
    except ParseFailed:
        return []
    return [text for one in entries if (text := str(one).strip())] if isinstance(entries, list) else []


def _files_of(entry: str, root: RawTable, builder: SettingsBuilder) -> list[Path]:
    """Return the files that one entry of `include` names: a ready-made declaration, or those that match a path."""
    if entry.startswith(DECLARED):
        try:
            return [declared_file(entry)]
        except UserError as error:
            builder.problems.append(f"{root.place}: option include: {error}")
            return []
    files = _matching(root.base, entry)
    if not files and "*" not in entry:
        builder.problems.append(f"{root.place}: option include names {show(entry)}, and there is no such file")
    elif not files:
        builder.remarks.append(f"{root.place}: option include names {show(entry)}, and no file matches it")
    return files


def _matching(base: Path, pattern: str) -> list[Path]:
    target = base / pattern
    folder = target.parent
    return sorted(file for file in folder.glob(target.name) if file.is_file()) if folder.is_dir() else []


def _named_tables(kind: str, table: RawTable, builder: SettingsBuilder) -> Iterator[RawTable]:
    found = table.content.get(kind, [])
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        builder.problems.append(f"{table.place}: {kind} is {show(found, shown=False)}; wanted tables [[{kind}]]")
        return
    for number, content in enumerate(found, 1):
        name = content.get("name")
        label = f'"{name}"' if isinstance(name, str) and name.isprintable() and len(name) <= 80 else str(number)  # noqa: PLR2004
        yield RawTable(place=f"{table.place}: {kind} {label}", base=table.base, content=content)


def _names(tables: Tables) -> dict[str, list[str]]:
    return {kind: [name for t in tables[kind] if isinstance(name := t.content.get("name"), str)] for kind in NAMED}


def _with_environment(tables: Tables, environ: Mapping[str, str]) -> Tables:
    """Return a copy of `tables` that has every value of the environment, and a table for each name that only it has."""
    merged = {kind: list(found) for kind, found in tables.items()}
    for kind in NAMED:
        for name in sorted(names_in(environ, kind) - set(_names(merged)[kind])):
            merged[kind].append(RawTable(place=f'environment: {kind} "{name}"', base=Path(), content={"name": name}))
    for path, value in environment_values(environ, _names(merged)).items():
        kind, name = (path[0], path[1]) if path[0] in NAMED else ("", "")
        keys = path[2:] if kind else path
        merged[kind] = [
            replace(t, content=_with_value(t.content, keys, value)) if not kind or t.content.get("name") == name else t
            for t in merged[kind]
        ]
    return merged


def _with_value(content: Mapping[str, object], keys: tuple[str, ...], value: EnvironmentValue) -> dict[str, object]:
    if len(keys) == 1:
        return {**content, keys[0]: value}
    inner = content.get(keys[0])
    return {**content, keys[0]: _with_value(inner if isinstance(inner, Mapping) else {}, keys[1:], value)}


def _tree(tables: Tables, builder: SettingsBuilder) -> Settings | None:
    (root,) = tables[""]
    names = _names(tables)
    for kind in NAMED:
        _add(builder, root, duplicate_names(names[kind], kind))
    settings = builder.section(Settings, root)
    sources = tuple(_sources(tables["source"], builder))
    destinations = tuple(_destinations(tables["destination"], names["source"], builder))
    if settings is None:
        return None
    _add(builder, root, listener_problems(settings.public, settings.private))
    _add(builder, root, token_problems(settings))
    _add(builder, root, encryption_problems(settings, only_reads=builder.only_reads))
    _add(builder, root, oidc_problems(settings.oidc))
    return replace(settings, sources=sources, destinations=destinations)


def _sources(tables: Iterable[RawTable], builder: SettingsBuilder) -> Iterator[SourceSettings]:
    for table in tables:
        if (source := builder.section(SourceSettings, table)) is not None:
            _add(builder, table, source_problems(source))
            _add(builder, table, _provider_problems(source, builder))
            yield source


def _destinations(
    tables: Iterable[RawTable], sources: Sequence[str], builder: SettingsBuilder
) -> Iterator[DestinationSettings]:
    for table in tables:
        if (destination := read_destination(table, builder)) is not None:
            _add(builder, table, destination_problems(destination, sources))
            yield destination


def _add(builder: SettingsBuilder, table: RawTable, problems: Iterable[str]) -> None:
    builder.problems.extend(f"{table.place}: {problem}" for problem in problems)


def _provider_problems(source: SourceSettings, builder: SettingsBuilder) -> Iterator[str]:
    if builder.reads not in (None, source.name):
        return
    try:
        build_provider(source, builder.environ, only_reads=builder.only_reads)
    except (SecretUnavailable, OptionsInvalid) as error:
        yield str(error)


def _referenced(tables: Tables) -> set[str]:
    """Return the variables that keys name: they may begin with `GAPLESS_` too."""
    return {name for found in tables.values() for table in found for name in _variables_in(table.content)}


def _variables_in(content: Mapping[str, object]) -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            inner = value.values() if key.endswith("_env") else ()
            yield from (one for one in inner if isinstance(one, str))
            yield from _variables_in(value)
        elif key.endswith("_env"):
            text = value.text if isinstance(value, EnvironmentValue) else value
            yield from (
                [text]
                if isinstance(text, str)
                else [one for one in text if isinstance(one, str)]
                if isinstance(text, list)
                else []
            )


def listener_problems(public: PublicSettings, private: PrivateSettings) -> Iterator[str]:
    """Yield what is wrong with the listeners: both on one port, or the private one open to others without a token."""
    if not is_loopback(private.host) and private.token is None:
        yield (
            f'private: option host is "{private.host}", which others can reach; '
            "set token_env or token_file, or bind 127.0.0.1"
        )
    if public.port == private.port != 0:
        yield f"private: option port is {private.port}, as in public; wanted another one"


def token_problems(settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the tokens and the key that this configuration names: those that could be guessed."""
    private = settings.private
    named = {
        "private: option token": private.token,
        "private: option metrics_token": private.metrics_token,
        "private: option consumer_token": private.consumer_token,
        "store: option audit_key": settings.store.audit_key,
    }
    for place, reference in named.items():
        if reference is None:
            continue
        try:
            weakness = weakness_of(reference.read())
        except SecretUnavailable:  # reported where it is read, unless only a list is
            continue
        if weakness is not None:
            yield f"{place} {weakness}"


def encryption_problems(settings: Settings, *, only_reads: bool = False) -> Iterator[str]:
    """Yield what is wrong with the keys of `[encryption]`."""
    if settings.encryption.keys is None or only_reads:
        return
    if find_spec("zstandard") is None:
        yield "encryption: the package zstandard is not installed; install it: pip install 'gapless[encryption]'"
    try:
        read_keys(settings.encryption)
    except SecretUnavailable as error:
        yield f"encryption: option keys: {error}"


def oidc_problems(oidc: OidcSettings) -> Iterator[str]:
    """Yield what is wrong with `[oidc]`."""
    if oidc.issuer is None:
        return
    if find_spec("joserfc") is None:
        yield "oidc: the package joserfc is not installed; install it: pip install 'gapless[oidc]'"
    if oidc.client_id is None or oidc.url is None:
        yield "oidc: options client_id and url are required with issuer"
    if not oidc.operators and not oidc.viewers:
        yield "oidc: options operators and viewers name no group, so nobody could come in"
    for name, url in (("issuer", oidc.issuer), ("url", oidc.url or "")):
        if url.startswith("http://") and not is_loopback(urlsplit(url).hostname or ""):
            yield f"oidc: option {name} is not https, so that others could read along; wanted https://"


def source_problems(source: SourceSettings) -> Iterator[str]:
    """Yield what contradicts within the options of one source."""
    if source.pace is PaceStrategy.ADAPTIVE and source.every and source.every > source.every_max:
        yield 'option every is longer than every_max; raise every_max, or set pace = "interval"'
    if source.mode is Mode.WEBHOOK and source.read_budget is not None:
        yield 'option read_budget is given, but mode "webhook" never reads; leave it out, or choose hybrid'


def destination_problems(destination: DestinationSettings, sources: Sequence[str]) -> Iterator[str]:
    """Yield what contradicts within the options of one destination, and names of sources that do not exist."""
    yield from destination.options.problems()
    if destination.backoff_first > destination.backoff_max:
        yield "option backoff_first is longer than backoff_max; wanted it to be shorter, or equal"
    if destination.receipts and not destination.delay:
        yield 'option receipts is true, but delay is 0s; set the time within which the handler reports, such as "5m"'
    is_ordered = destination.order is not Order.NONE or destination.release is Release.PROVEN
    if is_ordered and (destination.receipts or Via.WEBHOOK not in destination.via):
        yield (
            f'options order and release are "{destination.order}" and "{destination.release}", but the handler gets '
            'webhooks that Gapless does not send; set them to "none" and "recorded", or deliver every event: '
            "via with webhook, and receipts = false"
        )
    if destination.order_skips_dead and not is_ordered:
        yield 'option order_skips_dead is true, but order is "none"; set order, or leave it out'
    for name in destination.sources:
        if name != "*" and name not in sources:
            near = difflib.get_close_matches(name, sources, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(sources) or 'none'}"
            yield f'option sources names "{name}", which is no source; {hint}'


def duplicate_names(names: Sequence[str], kind: str) -> Iterator[str]:
    """Yield a sentence for each name that is used more than once."""
    yield from (
        f'{kind} "{name}" is defined twice; rename one' for name in sorted({n for n in names if names.count(n) > 1})
    )
