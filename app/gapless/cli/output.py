"""How results look: tables for people, JSON for programs."""

import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import click
import msgspec


def as_json(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def as_lines(values: Iterable[object]) -> None:
    """One JSON document a line on stdout."""
    for value in values:
        click.echo(msgspec.json.encode(value).decode())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table on stdout, or `empty` on stderr if it has no rows."""
    from rich.console import Console  # noqa: PLC0415 - most commands print no table
    from rich.table import Table  # noqa: PLC0415

    made = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*(shown(cell) for cell in row))
    if not made.row_count:
        click.echo(empty, err=True)
        return
    width = None if sys.stdout.isatty() else 200
    Console(width=width, soft_wrap=True, highlight=False, markup=False).print(made)


UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
QUIET_S = 5.0
"""Between two lines of progress where no person watches."""


class ProgressLine:
    """How far long work has come, on stderr: one line that is rewritten for a person, a line now and then in a log."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()
        self._told_at = time.monotonic()

    def tell(self, text: str) -> None:
        """Say it, unless it was said a moment ago."""
        now = time.monotonic()
        if now - self._told_at >= (0.1 if self._watched else QUIET_S):
            self._told_at = now
            click.echo(f"\r\x1b[K{text}" if self._watched else text, nl=not self._watched, err=True)

    def end(self) -> None:
        """Leave the line free for what comes next."""
        if self._watched:
            click.echo("\r\x1b[K", nl=False, err=True)


def format_span(value: timedelta) -> str:
    """A length of time in its two largest units: `15d`, `5m24s`."""
    rest, parts = int(value.total_seconds()), list[str]()
    for unit, seconds in UNITS:
        count, rest = divmod(rest, seconds)
        parts.append(f"{count}{unit}" if count else "")
    first = next((place for place, part in enumerate(parts) if part), len(parts) - 1)
    return "".join(parts[first : first + 2]) or "0s"


def shown(value: object) -> str:
    """A cell: unknown is said to be unknown, never 0."""
    if value is None:
        return "unknown"
    if isinstance(value, timedelta):
        return format_span(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    return str(value)
