"""Types of command-line parameters: points in time, and durations."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from gapless.settings.parsers import ParseFailed, duration

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class PointInTime(click.ParamType[datetime]):
    """A point in time: `90m` or `30d` ago, `2026-01-31`, or `2026-01-31T08:00:00Z`; UTC if it has no zone."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the aware UTC time."""
        if isinstance(value, datetime):
            return value
        text = str(value)
        ago = re.fullmatch(r"(\d+)([smhdw])", text)
        if ago:
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is no time; use 30d, 2h, 2026-01-31 or 2026-01-31T08:00:00Z", param, ctx)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


class Duration(click.ParamType[float]):
    """A duration such as 30s, in seconds; `least` or longer."""

    name = "duration"

    def __init__(self, least: timedelta = timedelta(0)) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, float):
            return value
        parser = duration(self._least)
        try:
            return parser.read(value).total_seconds()
        except ParseFailed as error:
            self.fail(f"{value!r} is not {error if error.args else parser.wanted}", param, ctx)


TIME = PointInTime()
DURATION = Duration()
