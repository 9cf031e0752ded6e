"""Reads files of processed events: one id a line, CSV, or NDJSON."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import click

KEY_NAMES = ("key", "id", "event_id", "event")
TIME_NAMES = ("occurred_at", "created", "time")
ENCODING = "utf-8-sig"
"""UTF-8, with or without the byte order mark that spreadsheets write."""
READABLE = click.File("r", encoding=ENCODING)
BAD_SHOWN = 3


class LineInvalid(click.UsageError):
    """A line that names no event."""


class BadLines:
    """Refuses lines that name no event, or skips and counts them."""

    def __init__(self, *, skip: bool) -> None:
        self._skip = skip
        self.count = 0

    def add(self, number: int, error: ValueError) -> None:
        """Count the line. Raises `LineInvalid` unless such lines are skipped."""
        message = f"line {number}: {error}"
        if not self._skip:
            raise LineInvalid(f"{message}; correct it, or skip such lines with --skip-bad")
        self.count += 1
        if self.count <= BAD_SHOWN:
            click.echo(f"skipped {message}", err=True)


def read_rows(lines: Iterable[str], format_: str, bad: BadLines) -> Iterator[dict[str, Any]]:
    """Yield the events of a file: `key`, and `type` and `occurred_at` if given. Raises `LineInvalid`."""
    numbered = ((number, line.strip()) for number, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise LineInvalid("the file is empty; wanted ids of events: one a line, CSV or NDJSON")
    as_json = format_ == "ndjson" or (format_ == "auto" and first[1].startswith("{"))
    if not as_json:
        _refuse_other_separators(first[1])
    names = None if as_json else _column_names(first[1])
    for number, line in numbered if names else _prepend(first, numbered):
        try:
            event = _from_json(line) if as_json else _from_csv(line, names)
        except ValueError as error:
            bad.add(number, error)
            continue
        yield event


def _prepend(first: tuple[int, str], others: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from others


def _refuse_other_separators(line: str) -> None:
    """Raise `LineInvalid` if the columns are parted by something else than commas."""
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if separator in line and "," not in line:
            raise LineInvalid(f"line 1: its columns are separated by {name}; wanted commas")


def _column_names(line: str) -> list[str] | None:
    cells = [cell.strip().lower().replace(" ", "_") for cell in next(csv.reader(io.StringIO(line)))]
    return cells if any(name in KEY_NAMES for name in cells) else None


def _from_csv(line: str, names: list[str] | None) -> dict[str, Any]:
    cells = next(csv.reader(io.StringIO(line)))
    return _event(dict(zip(names or ["key", "type", "occurred_at"], (cell.strip() for cell in cells), strict=False)))


def _from_json(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is {type(value).__name__}; wanted an object with an id")  # noqa: TRY004 - a bad line
    return _event(value)


def _event(row: dict[str, Any]) -> dict[str, Any]:
    key = next((row[name] for name in KEY_NAMES if row.get(name)), None)
    if not isinstance(key, str):
        raise ValueError(f"it names no event; wanted one of {', '.join(KEY_NAMES)}")  # noqa: TRY004 - a bad line
    event = {"key": key}
    if row.get("type"):
        event["type"] = str(row["type"])
    value = next((row[name] for name in TIME_NAMES if row.get(name)), None)
    if value is not None:
        event["occurred_at"] = _time(value).isoformat()
    return event


def _time(value: object) -> datetime:
    text = str(value)
    try:
        moment = datetime.fromtimestamp(int(text), UTC) if text.isdigit() else datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is no time; wanted seconds since 1970, or 2026-01-31T08:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
