"""Parsers of single options, from a TOML value or from the text of an environment variable.

Each parser describes in words what it wants, so that every refusal can say it. It never shows a value that may be a
secret.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Generic, TypeVar

from gapless.condition import WANTED, Condition, ConditionInvalid
from gapless.domain import Silence

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_DURATION_PART = re.compile(r"(\d{1,12})(ms|s|m|h|d|w)")
_DURATION_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_SIZE = re.compile(r"(\d{1,15})\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_SIZE_UNITS: dict[str, int] = {"B": 1, **{f"{p}B": 1000**n for n, p in enumerate("kMGT", 1)}}
_SIZE_UNITS |= {f"{p}iB": 1024**n for n, p in enumerate("KMGT", 1)}
_LOOKS_SECRET = re.compile(
    r"(^|[^a-z])(sk|rk|pk|whsec|ghp|ghs|xox[a-z]|bearer|basic)[_ -]|_(live|test)_|://[^/]*@", re.IGNORECASE
)
_LONGEST_SHOWN = 40
_LONGEST_DURATION = timedelta(days=3650)


class ParseFailed(ValueError):
    """The value is not what the parser wants. A message, if there is one, is more exact than `wanted`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionParser(Generic[T]):
    """Parser of one kind of option; `wanted` describes it in words.

    `read` raises `ParseFailed`. `from_text` turns the text of a variable into the value that TOML would hold.
    `shown` is False where the value may carry a credential: then no message repeats it.
    """

    wanted: str
    read: Callable[[object], T]
    from_text: Callable[[str], object] = str
    shown: bool = True
    is_path: bool = False
    """The value is a path, relative to the file that names it."""


def show(value: object, *, shown: bool = True) -> str:
    """Return `value` for a message: quoted if it is a short text that does not look like a secret, else described."""
    if isinstance(value, str):
        if not shown or len(value) > _LONGEST_SHOWN or _LOOKS_SECRET.search(value):
            return f"a text of {len(value)} characters"
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | date):
        return str(value)
    return "a list" if isinstance(value, list) else "a table" if isinstance(value, Mapping) else type(value).__name__


def text(wanted: str, pattern: str = r".+", *, shown: bool = True) -> OptionParser[str]:
    """Text that matches all of `pattern`."""
    expression = re.compile(pattern, re.DOTALL)

    def read(value: object) -> str:
        if not isinstance(value, str) or not expression.fullmatch(value):
            raise ParseFailed
        return str(value)

    return OptionParser(wanted=wanted, read=read, shown=shown)


def choice(words: type[E]) -> OptionParser[E]:
    """One of the words of an enum."""

    def read(value: object) -> E:
        try:
            return words(value)  # type: ignore[arg-type]  # refuses what is no text
        except ValueError:
            raise ParseFailed from None

    return OptionParser(wanted=f"one of {', '.join(words)}", read=read)


def word(words: Callable[[], Iterable[str]], wanted: str) -> OptionParser[str]:
    """One of `words`, which is called when a value is read."""

    def read(value: object) -> str:
        known = tuple(words())
        if value not in known:
            raise ParseFailed(f"one of {', '.join(known)}")
        return str(value)

    return OptionParser(wanted=wanted, read=read)


def flag() -> OptionParser[bool]:
    """True or false."""

    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise ParseFailed
        return value

    return OptionParser(wanted="true or false", read=read, from_text=from_json)


def count(least: int, most: int, unit: str) -> OptionParser[int]:
    """A whole number of `unit` from `least` to `most`."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ParseFailed
        return value

    return OptionParser(wanted=f"a whole number of {unit} from {least} to {most}", read=read, from_text=from_json)


def rate(unit: str) -> OptionParser[float]:
    """A number of `unit` per second, above 0."""

    def read(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1_000_000:  # noqa: PLR2004
            raise ParseFailed
        return float(value)

    return OptionParser(wanted=f"a number of {unit} per second above 0", read=read, from_text=from_json)


def duration(least: timedelta = timedelta(0)) -> OptionParser[timedelta]:
    """A length of time with its unit, `least` or longer: 30s, 5m, 1h30m."""

    def read(value: object) -> timedelta:
        length = _duration(value)
        if length < least:
            raise ParseFailed(f"a duration of {least.total_seconds():g}s or longer")
        return length

    return OptionParser(wanted="a duration such as 30s, 5m, 2h, 30d", read=read)


def duration_or_off(least: timedelta = timedelta(0)) -> OptionParser[timedelta | None]:
    """A duration, or "off", which is None."""
    inner = duration(least)

    def read(value: object) -> timedelta | None:
        return None if value == "off" else inner.read(value)

    return OptionParser(wanted=f'{inner.wanted}, or "off"', read=read)


def silence() -> OptionParser[Silence]:
    """A duration, or "learn": learned from how often the source is heard."""
    inner = duration(timedelta(minutes=1))

    def read(value: object) -> Silence:
        return Silence(after=None if value == "learn" else inner.read(value))

    return OptionParser(wanted=f'{inner.wanted}, or "learn"', read=read)


def size(least: int = 0) -> OptionParser[int]:
    """A number of bytes, `least` or more: "64MB" is 64,000,000, "64MiB" is 67,108,864, a bare number is bytes."""

    def read(value: object) -> int:
        found = parse(value)
        if found < least:
            raise ParseFailed(f"a size of {least} bytes or more")
        return found

    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ParseFailed
        return int(match[1]) * _SIZE_UNITS[match[2]]

    return OptionParser(wanted="a size such as 500kB, 64MB, 1GiB", read=read, from_text=_json_or_text)


def moment() -> OptionParser[datetime | None]:
    """A date (its first instant, UTC) or a time with its zone. "now" is None: the time of the first start."""

    def read(value: object) -> datetime | None:
        if value == "now":
            return None
        if isinstance(value, str):
            value = _parsed_moment(value)
        if isinstance(value, datetime):
            if value.utcoffset() is None:
                raise ParseFailed
            return value.astimezone(UTC)
        if isinstance(value, date):
            return datetime.combine(value, time(), UTC)
        raise ParseFailed

    return OptionParser(
        wanted='"now", a date such as 2026-01-31, or a time with its zone such as 2026-01-31T08:00:00Z', read=read
    )


def many(item: OptionParser[T], wanted: str, *, least: int = 0) -> OptionParser[tuple[T, ...]]:
    """A list. In the environment it is comma separated, or JSON."""

    def read(value: object) -> tuple[T, ...]:
        if not isinstance(value, list | tuple) or len(value) < least:
            raise ParseFailed
        return tuple(item.read(one) for one in value)

    return OptionParser(wanted=f"a list of {wanted}", read=read, from_text=from_list, shown=item.shown)


def condition() -> OptionParser[Condition]:
    """A condition on the payload of an event."""

    def read(value: object) -> Condition:
        if not isinstance(value, str):
            raise ParseFailed
        try:
            return Condition(value)
        except ConditionInvalid as error:
            raise ParseFailed(f"{WANTED}; {error}") from None

    return OptionParser(wanted=WANTED, read=read)


def path() -> OptionParser[Path]:
    """The path of a file, relative to the configuration file; in the environment, to the working directory."""

    def read(value: object) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ParseFailed
        return Path(value)

    return OptionParser(wanted="the path of a file", read=read, is_path=True)


def network() -> OptionParser[IPv4Network | IPv6Network]:
    """A network such as 203.0.113.0/24, or one address."""

    def read(value: object) -> IPv4Network | IPv6Network:
        if not isinstance(value, str):
            raise ParseFailed
        try:
            return ip_network(value)
        except ValueError:
            raise ParseFailed from None

    return OptionParser(wanted="a network such as 203.0.113.0/24 or 2001:db8::/32, without host bits", read=read)


def texts_by_name(wanted: str, name: str, value_pattern: str) -> OptionParser[Mapping[str, str]]:
    """A read-only table of texts. No message shows any of it."""
    names, values = re.compile(name), re.compile(value_pattern)

    def read(value: object) -> Mapping[str, str]:
        if not isinstance(value, Mapping):
            raise ParseFailed
        for key, content in value.items():
            if not isinstance(content, str) or not names.fullmatch(key) or not values.fullmatch(content):
                raise ParseFailed
        return MappingProxyType({key.lower(): content for key, content in value.items()})

    return OptionParser(wanted=wanted, read=read, from_text=from_json, shown=False)


def _duration(value: object) -> timedelta:
    if not isinstance(value, str) or not re.fullmatch(rf"({_DURATION_PART.pattern})+", value):
        raise ParseFailed
    try:
        length = sum((int(n) * _DURATION_UNITS[unit] for n, unit in _DURATION_PART.findall(value)), timedelta(0))
    except (OverflowError, ValueError):
        raise ParseFailed from None
    if length > _LONGEST_DURATION:
        raise ParseFailed
    return length


def _parsed_moment(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        raise ParseFailed from None


def from_json(value: str) -> object:
    """Return the JSON value in the text of an environment variable. Raises `ParseFailed`."""
    try:
        return json.loads(value)
    except ValueError:
        raise ParseFailed from None


def _json_or_text(value: str) -> object:
    return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else value


def from_list(value: str) -> object:
    """Return the list in the text of an environment variable, comma separated or JSON. Raises `ParseFailed`."""
    if value.lstrip().startswith("["):
        return from_json(value)
    return [part.strip() for part in value.split(",") if part.strip()]
