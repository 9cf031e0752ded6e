"""Builds the frozen settings from raw tables, and collects one sentence for each thing that is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from gapless.settings.environment import EnvironmentValue, suggest
from gapless.settings.parsers import OptionParser, ParseFailed, show
from gapless.settings.provider_options import literal_secret, plain_options
from gapless.settings.secrets import SecretRef, SecretUnavailable, from_variable, lines_from_variable
from gapless.settings.tree import keys_of_field
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.errors import OptionsInvalid

T = TypeVar("T")

_MISSING = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTable:
    """A table as it was parsed; `place` names it in messages, and its paths are relative to the folder `base`."""

    place: str
    base: Path
    content: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsBuilder:
    """One run of `load`: the environment that secrets come from, and the problems found so far."""

    environ: Mapping[str, str]
    problems: list[str]
    remarks: list[str] = field(default_factory=list)
    """What is no problem, but may not be what was meant."""
    reads: str | None = None
    """The only source that is used, and only to read its list. None: everything is used."""

    @property
    def only_reads(self) -> bool:
        """Return True if secrets that are not there are no problem until they are used."""
        return self.reads is not None

    def section(self, cls: type[T], table: RawTable) -> T | None:
        """Return `table` as a `cls`, or None if anything in it is wrong; `problems` then says what."""
        values = self.values(fields(cls), table)  # type: ignore[arg-type]
        return None if values is None else cls(**values)

    def values(self, attributes: Sequence[Field[Any]], table: RawTable) -> dict[str, Any] | None:
        """Return the values that `table` has for `attributes`, or None if anything in it is wrong."""
        before = len(self.problems)
        self._refuse_unknown(attributes, table)
        values = {f.name: self._value(f, table) for f in attributes}
        if len(self.problems) > before:
            return None
        return {name: value for name, value in values.items() if value is not _MISSING}

    def _refuse_unknown(self, attributes: Sequence[Field[Any]], table: RawTable) -> None:
        known = {key for f in attributes for key in _names_of(f)}
        for key in sorted(table.content.keys() - known):
            raw = table.content[key]
            if isinstance(raw, EnvironmentValue):
                prefix = raw.variable.removesuffix(key.upper())
                hint = suggest(raw.variable, [f"{prefix}{each.upper()}" for each in known])
                self.problems.append(f"environment: there is no setting {raw.variable}{hint}")
            else:
                self.problems.append(f"{table.place}: there is no option {key}{suggest(key, known)}")

    def _value(self, f: Field[Any], table: RawTable) -> object:
        if "secret" in f.metadata:
            return self._secret(f, table)
        if f.name not in table.content:
            return self._absent(f, table)
        raw = table.content[f.name]
        if "section" in f.metadata:
            return self._subsection(f, raw, table)
        if "options" in f.metadata:
            return self._options(raw, table)
        if f.metadata.keys() & {"variables", "files"}:
            return self._secrets_by_name(f, raw, table)
        return self._read(f.metadata["parser"], f.name, raw, table) if "parser" in f.metadata else _MISSING

    def _absent(self, f: Field[Any], table: RawTable) -> object:
        if f.default is MISSING and f.default_factory is MISSING:
            parser = f.metadata.get("parser")
            wanted = parser.wanted if parser else f"{f.name}_env, or {f.name}_file"
            self.problems.append(f"{table.place}: option {f.name} is missing; wanted {wanted}")
        return _MISSING

    def _read(self, parser: OptionParser[Any], key: str, raw: object, table: RawTable) -> object:
        try:
            value = parser.read(parser.from_text(raw.text) if isinstance(raw, EnvironmentValue) else raw)
        except ParseFailed as error:
            got = show(raw.text if isinstance(raw, EnvironmentValue) else raw, shown=parser.shown)
            self.problems.append(f"{_place_of(key, raw, table)} is {got}; wanted {str(error) or parser.wanted}")
            return _MISSING
        if not parser.is_path:
            return value
        return ((Path() if isinstance(raw, EnvironmentValue) else table.base) / value).absolute()

    def _subsection(self, f: Field[Any], raw: object, table: RawTable) -> object:
        place = f"{table.place}: {f.name}"
        if not isinstance(raw, Mapping):
            self.problems.append(f"{place} is {show(raw, shown=False)}; wanted a table [{f.name}]")
            return _MISSING
        return self.section(f.metadata["section"], RawTable(place=place, base=table.base, content=raw))

    def _options(self, raw: object, table: RawTable) -> object:
        kind = table.content.get("provider")
        kind = kind.text if isinstance(kind, EnvironmentValue) else kind
        if not isinstance(raw, Mapping):
            self.problems.append(f"{table.place}: options is {show(raw, shown=False)}; wanted a table [source.options]")
            return _MISSING
        if not isinstance(kind, str):
            return _MISSING  # the missing provider is a problem of its own
        try:
            options, problems = plain_options(kind, raw, table.base)
        except OptionsInvalid as error:
            self.problems.append(f"{table.place}: {error}")
            return _MISSING
        self.problems.extend(f"{table.place}: {problem}" for problem in problems)
        return MappingProxyType(options)

    def _secret(self, f: Field[Any], table: RawTable) -> object:
        """Return the reference in `<name>`, `<name>_env` or `<name>_file`; the environment wins over the file."""
        keys = (f.name, f"{f.name}_env", f"{f.name}_file")
        present = {key: table.content[key] for key in keys if key in table.content}
        present = {key: raw for key, raw in present.items() if isinstance(raw, EnvironmentValue)} or present
        if not present:
            return self._absent(f, table)
        if len(present) > 1:
            self.problems.append(f"{table.place}: options {' and '.join(present)} are both given; wanted one of them")
            return _MISSING
        ((key, raw),) = present.items()
        try:
            reference = self._reference(f, key, raw, table)
            if f.metadata.get("is_many"):
                reference.read_lines()
                return reference
            return self._checked(reference, f.metadata["literal"])
        except SecretUnavailable as error:
            if self.only_reads:
                return SecretRef()
            self.problems.append(f"{_place_of(key, raw, table)}: {error}")
        except ParseFailed:
            self.problems.append(
                f"{_place_of(key, raw, table)} holds something else; wanted {f.metadata['literal'].wanted}"
            )
        except _LiteralSecretError:
            self.problems.append(f"{table.place}: {literal_secret(f.name)}")
        return _MISSING

    def _reference(self, f: Field[Any], key: str, raw: object, table: RawTable) -> SecretRef:
        found = lines_from_variable if f.metadata.get("is_many") else from_variable
        if key == f.name and isinstance(raw, EnvironmentValue):
            return found(raw.variable, self.environ)
        text = raw.text if isinstance(raw, EnvironmentValue) else raw
        if key == f.name:
            if f.metadata["literal"] is None or _holds_password(text):
                raise _LiteralSecretError
            return SecretRef(value=Secret(f.metadata["literal"].read(text)))
        if not isinstance(text, str):
            raise SecretUnavailable(f"it is {show(text, shown=False)}; wanted a text")
        if key.endswith("_env"):
            return found(text, self.environ)
        return SecretRef(path=((Path() if isinstance(raw, EnvironmentValue) else table.base) / text).absolute())

    @staticmethod
    def _checked(reference: SecretRef, literal: OptionParser[str] | None) -> SecretRef:
        content = reference.read().reveal()
        if literal is not None:
            literal.read(content)
        return reference

    def _secrets_by_name(self, f: Field[Any], raw: object, table: RawTable) -> object:
        names = self._read(f.metadata["parser"], f.name, raw, table)
        if not isinstance(names, Mapping):
            return _MISSING
        found: dict[str, SecretRef] = {}
        folder = Path() if isinstance(raw, EnvironmentValue) else table.base
        for name, origin in names.items():
            try:
                found[name] = (
                    self._checked(SecretRef(path=(folder / origin).absolute()), None)
                    if "files" in f.metadata
                    else from_variable(origin, self.environ)
                )
            except SecretUnavailable as error:
                found[name] = SecretRef()
                if not self.only_reads:
                    self.problems.append(f"{table.place}: option {f.name}.{name}: {error}")
        return MappingProxyType(found)


class _LiteralSecretError(Exception):
    """The configuration file contains a secret."""


def _names_of(f: Field[Any]) -> set[str]:
    """Return the keys that a table may have for `f`, and the bare name of a secret, which is refused by itself."""
    by_itself = {f.name} if f.metadata.keys() & {"secret", "options", "section"} else set()
    named = {f.metadata["named"]} if "named" in f.metadata else set()
    return {*keys_of_field(f), *by_itself, *named}


def _place_of(key: str, raw: object, table: RawTable) -> str:
    return f"environment: {raw.variable}" if isinstance(raw, EnvironmentValue) else f"{table.place}: option {key}"


def _holds_password(url: object) -> bool:
    """True if the user part of an address has a colon, or a parameter is called a password."""
    if not isinstance(url, str):
        return False
    authority = url.partition("://")[2].partition("/")[0]
    return ":" in authority.rpartition("@")[0] or "password=" in url.lower()
