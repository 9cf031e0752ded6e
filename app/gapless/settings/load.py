"""From a file and the environment to the tree. The only place that reads configuration files."""

import difflib
import ipaddress
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from gapless.domain import Mode
from gapless.errors import UserError
from gapless.settings.build import SettingsBuilder, Table
from gapless.settings.destination_options import read_destination
from gapless.settings.environment import CONFIG_VARIABLE, Twin, names_in, twins_in, unknown_variables
from gapless.settings.parsers import ParseFailed, from_list, show
from gapless.settings.provider_options import build_provider
from gapless.settings.secrets import SecretUnavailable
from gapless.settings.tree import (
    NAMED,
    DestinationSettings,
    PaceStrategy,
    PrivateSettings,
    PublicSettings,
    Settings,
    SourceSettings,
)
from gapless_reconcilers.kit.errors import OptionsInvalid


def is_loopback(host: str) -> bool:
    """True if only this machine can reach `host`: `localhost`, `127.0.0.0/8` and `::1`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.")


def listener_problems(public: PublicSettings, private: PrivateSettings) -> Iterator[str]:
    """The two listeners must not meet, and the private one must be private."""
    if not is_loopback(private.host) and private.token is None:
        yield (
            f'private: option host is "{private.host}", which others can reach; '
            "set token_env or token_file, or bind 127.0.0.1"
        )
    if public.port == private.port != 0:
        yield f"private: option port is {private.port}, as in public; wanted another one"


def source_problems(source: SourceSettings) -> Iterator[str]:
    """The options of one source must fit each other."""
    if source.pace is PaceStrategy.ADAPTIVE and source.every > source.every_max:
        yield 'option every is longer than every_max; raise every_max, or set pace = "interval"'
    if source.mode is Mode.WEBHOOK and source.read_budget is not None:
        yield 'option read_budget is given, but mode "webhook" never reads; leave it out, or choose hybrid'


def destination_problems(destination: DestinationSettings, sources: Sequence[str]) -> Iterator[str]:
    """The options of one destination must fit each other, and the sources that exist."""
    yield from destination.options.problems()
    if destination.backoff_first > destination.backoff_max:
        yield "option backoff_first is longer than backoff_max; wanted it to be shorter, or equal"
    for name in destination.sources:
        if name != "*" and name not in sources:
            near = difflib.get_close_matches(name, sources, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(sources) or 'none'}"
            yield f'option sources names "{name}", which is no source; {hint}'


def duplicate_names(names: Sequence[str], kind: str) -> Iterator[str]:
    """A name stands for one thing."""
    yield from (
        f'{kind} "{name}" is defined twice; rename one' for name in sorted({n for n in names if names.count(n) > 1})
    )


DEFAULT_FILE = Path("gapless.toml")
"""Read from the working directory if it is there and nothing else is named."""


DECLARED = "declared:"
"""The beginning of an `include` that names a ready-made declaration of the package, such as `declared:paddle`."""


class SettingsInvalid(UserError):
    """The configuration cannot be used. `problems` holds every sentence, not only the first; none shows a secret."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of the file `path` (else `GAPLESS_CONFIG`, else `./gapless.toml`) and of `environ`, which wins.

    Both are only read. Raises `SettingsInvalid` with all problems found.
    """
    reading = SettingsBuilder(environ=environ, problems=[])
    root = _root_table(path, reading)
    tables = _tables(root, reading)
    tables = _with_twins(tables, environ)
    settings = _tree(tables, reading)
    names = _names(tables)
    reading.problems.extend(unknown_variables(environ, names, _referenced(tables)))
    if reading.problems or settings is None:
        raise SettingsInvalid(dict.fromkeys(reading.problems))
    return settings


Tables = dict[str, list[Table]]
"""The root table, under "", and the named tables, under "source" and "destination"."""


def _root_table(path: Path | None, reading: SettingsBuilder) -> Table:
    named = path or (Path(reading.environ[CONFIG_VARIABLE]) if reading.environ.get(CONFIG_VARIABLE) else None)
    if named is None and not DEFAULT_FILE.is_file():
        return Table(place="config", base=Path(), content={})
    file = named or DEFAULT_FILE
    return Table(place=f"config {file.name}", base=file.parent, content=_parsed(file, f"config {file.name}", reading))


def _parsed(file: Path, place: str, reading: SettingsBuilder) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        reading.problems.append(f"{place}: the file cannot be read ({error.strerror}); wanted a file at {file}")
    except UnicodeDecodeError:
        reading.problems.append(f"{place}: the file is not UTF-8; wanted TOML")
    except tomllib.TOMLDecodeError as error:
        reading.problems.append(f"{place}: {error}; wanted TOML")
    return {}


def _tables(root: Table, reading: SettingsBuilder) -> Tables:
    tables: Tables = {"": [root], **{kind: [] for kind in NAMED}}
    for table in (root, *_included(root, reading)):
        for kind in NAMED:
            tables[kind].extend(_named_tables(kind, table, reading))
    return tables


def declared_file(entry: str) -> Path:
    """Return the ready-made declaration of the package that `entry` names, such as `declared:paddle`.

    Raises `UserError` with the names that there are.
    """
    name = entry.removeprefix(DECLARED)
    with resources.as_file(resources.files("gapless_reconcilers") / "declared") as folder:
        files = {file.stem: file for file in sorted(folder.glob("*.toml"))}
    if name not in files:
        raise UserError(f"there is no ready-made declaration {show(name)}; wanted one of {', '.join(files)}")
    return files[name]


def _included(root: Table, reading: SettingsBuilder) -> Iterator[Table]:
    for entry in _include_entries(root, reading):
        for file in _files_of(entry, root, reading):
            place = f"config {entry if entry.startswith(DECLARED) else file.name}"
            content = _parsed(file, place, reading)
            if strange := sorted(content.keys() - NAMED.keys()):
                reading.problems.append(
                    f"{place}: there is {strange[0]}; an included file holds [[source]] and [[destination]] only"
                )
            yield Table(place=place, base=file.parent, content=content)


def _include_entries(root: Table, reading: SettingsBuilder) -> list[str]:
    """Return the entries of `include`; none if it is no list, which its parser reports."""
    twin = reading.environ.get("GAPLESS_INCLUDE")
    try:
        entries = from_list(twin) if twin is not None else root.content.get("include", [])
    except ParseFailed:
        return []
    return [text for one in entries if (text := str(one).strip())] if isinstance(entries, list) else []


def _files_of(entry: str, root: Table, reading: SettingsBuilder) -> list[Path]:
    """Return the files that one entry of `include` names: a ready-made declaration, or those that match a path."""
    if entry.startswith(DECLARED):
        try:
            return [declared_file(entry)]
        except UserError as error:
            reading.problems.append(f"{root.place}: option include: {error}")
            return []
    files = _matching(root.base, entry)
    if not files and "*" not in entry:
        reading.problems.append(f"{root.place}: option include names {show(entry)}, and there is no such file")
    return files


def _matching(base: Path, pattern: str) -> list[Path]:
    target = base / pattern
    folder = target.parent
    return sorted(file for file in folder.glob(target.name) if file.is_file()) if folder.is_dir() else []


def _named_tables(kind: str, table: Table, reading: SettingsBuilder) -> Iterator[Table]:
    found = table.content.get(kind, [])
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        reading.problems.append(f"{table.place}: {kind} is {show(found, shown=False)}; wanted tables [[{kind}]]")
        return
    for number, content in enumerate(found, 1):
        name = content.get("name")
        label = f'"{name}"' if isinstance(name, str) and name.isprintable() and len(name) <= 80 else str(number)  # noqa: PLR2004
        yield Table(place=f"{table.place}: {kind} {label}", base=table.base, content=content)


def _names(tables: Tables) -> dict[str, list[str]]:
    return {kind: [name for t in tables[kind] if isinstance(name := t.content.get("name"), str)] for kind in NAMED}


def _with_twins(tables: Tables, environ: Mapping[str, str]) -> Tables:
    """A copy of `tables` with every twin in its place, and a table for each name that only the environment has."""
    merged = {kind: list(found) for kind, found in tables.items()}
    for kind in NAMED:
        for name in sorted(names_in(environ, kind) - set(_names(merged)[kind])):
            merged[kind].append(Table(place=f'environment: {kind} "{name}"', base=Path(), content={"name": name}))
    for path, twin in twins_in(environ, _names(merged)).items():
        kind, name = (path[0], path[1]) if path[0] in NAMED else ("", "")
        keys = path[2:] if kind else path
        merged[kind] = [
            replace(t, content=_placed(t.content, keys, twin)) if not kind or t.content.get("name") == name else t
            for t in merged[kind]
        ]
    return merged


def _placed(content: Mapping[str, object], keys: tuple[str, ...], twin: Twin) -> dict[str, object]:
    if len(keys) == 1:
        return {**content, keys[0]: twin}
    inner = content.get(keys[0])
    return {**content, keys[0]: _placed(inner if isinstance(inner, Mapping) else {}, keys[1:], twin)}


def _tree(tables: Tables, reading: SettingsBuilder) -> Settings | None:
    (root,) = tables[""]
    names = _names(tables)
    for kind in NAMED:
        _add(reading, root, duplicate_names(names[kind], kind))
    settings = reading.section(Settings, root)
    sources = tuple(_sources(tables["source"], reading))
    destinations = tuple(_destinations(tables["destination"], names["source"], reading))
    if settings is None:
        return None
    _add(reading, root, listener_problems(settings.public, settings.private))
    return replace(settings, sources=sources, destinations=destinations)


def _sources(tables: Iterable[Table], reading: SettingsBuilder) -> Iterator[SourceSettings]:
    for table in tables:
        if (source := reading.section(SourceSettings, table)) is not None:
            _add(reading, table, source_problems(source))
            _add(reading, table, _provider_problems(source, reading.environ))
            yield source


def _destinations(
    tables: Iterable[Table], sources: Sequence[str], reading: SettingsBuilder
) -> Iterator[DestinationSettings]:
    for table in tables:
        if (destination := read_destination(table, reading)) is not None:
            _add(reading, table, destination_problems(destination, sources))
            yield destination


def _add(reading: SettingsBuilder, table: Table, problems: Iterable[str]) -> None:
    reading.problems.extend(f"{table.place}: {problem}" for problem in problems)


def _provider_problems(source: SourceSettings, environ: Mapping[str, str]) -> Iterator[str]:
    try:
        build_provider(source, environ)
    except (SecretUnavailable, OptionsInvalid) as error:
        yield str(error)


def _referenced(tables: Tables) -> set[str]:
    """The variables that keys name: they may begin with our prefix."""
    return {name for found in tables.values() for table in found for name in _variables_in(table.content)}


def _variables_in(content: Mapping[str, object]) -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            inner = value.values() if key.endswith("_env") else ()
            yield from (one for one in inner if isinstance(one, str))
            yield from _variables_in(value)
        elif key.endswith("_env"):
            text = value.text if isinstance(value, Twin) else value
            yield from (
                [text]
                if isinstance(text, str)
                else [one for one in text if isinstance(one, str)]
                if isinstance(text, list)
                else []
            )
