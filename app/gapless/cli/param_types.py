"""Times on the command line: `30d` ago, a day, or a moment; and lengths of time."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from gapless.settings.parsers import ParseFailed, duration

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType[datetime]):
    """`90m`, `30d` (that long ago), `2026-01-31`, or `2026-01-31T08:00:00Z`; without a zone it is UTC."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The aware UTC time."""
        if isinstance(value, datetime):
            return value
        text = str(value)
        ago = re.fullmatch(r"(\d+)([smhdw])", text)
        if ago:
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is no time; use 30d, 2h, 2026-01-31 or 2026-01-31T08:00:00Z", param, ctx)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Duration(click.ParamType[float]):
    """A length of time such as 30s, in seconds; not below `least`."""

    name = "duration"

    def __init__(self, least: timedelta = timedelta(0)) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        parser = duration(self._least)
        try:
            return parser.read(value).total_seconds()
        except ParseFailed as error:
            self.fail(f"{value!r} is not {error if error.args else parser.wanted}", param, ctx)


MOMENT = Moment()
DURATION = Duration()
