"""Formats times and lengths of time for people, and makes foreign text fit to be shown to them."""

import re
from datetime import UTC, datetime, timedelta

UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def largest_units(value: timedelta) -> list[tuple[int, str]]:
    """Return (count, unit) of the largest unit in a length of time, and of the next smaller one unless it is 0.

    Less than a second, or less than nothing, is 0 seconds.
    """
    rest, parts = max(0, int(value.total_seconds())), list[tuple[int, str]]()
    for unit, seconds in UNITS:
        count, rest = divmod(rest, seconds)
        if count or parts:
            parts.append((count, unit))
    return [part for part in parts[:2] if part[0]] or [(0, UNITS[-1][0])]


def format_span(value: timedelta) -> str:
    """Return a length of time in its two largest units: `15d`, `5m24s`."""
    return "".join(f"{count}{unit}" for count, unit in largest_units(value))


def format_time(value: datetime) -> str:
    """Return a time in UTC, to the second: `2026-11-20 12:00:00Z`."""
    return value.strftime("%Y-%m-%d %H:%M:%SZ")


def format_value(value: object) -> str:
    """Return any value as text; None is "unknown", never 0."""
    if value is None:
        return "unknown"
    if isinstance(value, timedelta):
        return format_span(value)
    if isinstance(value, datetime):
        return format_time(value)
    return str(value)


_AGO = re.compile(r"(\d{1,6})([smhdw])")
_AGO_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
WANTED_TIME = "30d, 2h, 2026-01-31 or 2026-01-31T08:00:00Z"
"""Examples of what `read_time` takes."""


def read_time(text: str, now: datetime) -> datetime:
    """Return the aware UTC time of `30d` (before `now`), `2026-01-31` or `2026-01-31T08:00:00Z`. Raises `ValueError`.

    A time without a zone is UTC.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return now - timedelta(**{_AGO_UNITS[ago[2]]: int(ago[1])})
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time; use {WANTED_TIME}") from None


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move the cursor, start a terminal's commands, turn the direction of text, or are no characters."""


def printable(text: str, *, one_line: bool = False) -> str:
    r"""Return `text` with each character that a terminal would obey written as `\u001b`, as JSON writes it.

    Line breaks and tabs stay, unless it is to be `one_line`.
    """
    shown = _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return shown.replace("\n", "\\n").replace("\t", "\\t") if one_line else shown
