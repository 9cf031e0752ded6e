"""Writes values for people: counts, rates, times and lengths of time. Pure. None is "unknown", never 0."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from markupsafe import Markup, escape

from gapless.text import largest_units

UNKNOWN: Final = Markup('<span class="say-unknown">unknown</span>')
THIN: Final = "\u202f"
"""The narrow no-break space between thousands, and before a percent sign."""
SMALLEST_RATE: Final = 0.00001
UNIT_NAMES: Final = {"m": "min"}


def count(value: int | None) -> str:
    """Return a count with its thousands parted."""
    return UNKNOWN if value is None else f"{value:,}".replace(",", THIN)


def rate(value: float | None) -> str:
    """Return a share of 1 in percent; what is more than 0 is never written as 0."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return f"0{THIN}%"
    if value < SMALLEST_RATE:
        return f"<{THIN}0.001{THIN}%"
    return f"{value * 100:.{3 if value < 0.01 else 2}f}{THIN}%"  # noqa: PLR2004 - 1 %


def span(value: timedelta | None) -> str:
    """Return a length of time in its two largest units, below 10 s with one digit, below 1 s in ms."""
    if value is None:
        return UNKNOWN
    seconds = value.total_seconds()
    if 0 <= seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if 0 <= seconds < 10:  # noqa: PLR2004 - as the docstring says
        return f"{seconds:.1f} s"
    return " ".join(f"{number} {UNIT_NAMES.get(unit, unit)}" for number, unit in largest_units(value))


def seconds(value: float | None) -> str:
    """Return seconds as a length of time."""
    return span(None if value is None else timedelta(seconds=value))


def iso(value: datetime) -> str:
    """Return the exact time, as machines and titles have it."""
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def time(value: datetime | None, now: datetime) -> str:
    """Return the clock of today, or date and clock of another day, with the exact time."""
    if value is None:
        return UNKNOWN
    form = "%H:%M:%S" if value.date() == now.date() else "%Y-%m-%d %H:%M:%S"
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(iso(value), value.strftime(form))


def clock(value: datetime | None, now: datetime) -> str:
    """Return the clock for a column of a table, with the date below it if that is another day."""
    if value is None:
        return UNKNOWN
    moment = Markup('<time datetime="{0}" title="{0}">{1}</time>').format(iso(value), f"{value:%H:%M:%S}")
    if value.date() == now.date():
        return moment
    day = Markup('<time class="sub" datetime="{0}" data-date>{1}</time>').format(iso(value), f"{value:%Y-%m-%d}")
    return moment + day


def ago(value: datetime | None, now: datetime) -> str:
    """Return how long ago that was, or in what time it will be."""
    if value is None:
        return UNKNOWN
    return f"{span(now - value)} ago" if value <= now else f"in {span(value - now)}"


def until(value: datetime | None, now: datetime) -> str:
    """Return in what time that will be; `now` if it is over."""
    return UNKNOWN if value is None else f"in {span(value - now)}" if value > now else "now"


def breakable(text: str) -> str:
    """Return a long name that may be broken after `.`, `_` and `/`."""
    return Markup("<wbr>").join(escape(each) for each in re.split(r"(?<=[._/])", text))


def with_code(text: str) -> str:
    """Return a sentence in which what stands between backticks is code."""
    parts = text.split("`")
    shown = [Markup("<code>{}</code>").format(each) if at % 2 else escape(each) for at, each in enumerate(parts)]
    return Markup("").join(shown)


def words(name: str) -> str:
    """Return the name of a reason, a state or an action as words."""
    return name.replace("_", " ")


def listed(names: Sequence[str], most: int = 4) -> str:
    """Return names in one line, the rest as a number."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def value(of: object, now: datetime) -> str:  # noqa: PLR0911 - one for each type
    """Return a figure by its type."""
    if of is None:
        return UNKNOWN
    if isinstance(of, bool):
        return "yes" if of else "no"
    if isinstance(of, datetime):
        return time(of, now)
    if isinstance(of, timedelta):
        return span(of)
    if isinstance(of, float):
        return rate(of)
    if isinstance(of, int):
        return count(of)
    return str(of)
