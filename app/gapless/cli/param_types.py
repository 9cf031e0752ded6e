"""Types of command-line parameters: points in time, and durations."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from gapless.settings.parsers import ParseFailed, duration
from gapless.text import read_time


class PointInTime(click.ParamType[datetime]):
    """A point in time: `90m` or `30d` ago, `2026-01-31`, or `2026-01-31T08:00:00Z`; UTC if it has no zone."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the aware UTC time."""
        if isinstance(value, datetime):
            return value
        try:
            return read_time(str(value), datetime.now(UTC))
        except ValueError as error:
            self.fail(str(error), param, ctx)


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
