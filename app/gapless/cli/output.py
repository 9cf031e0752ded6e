"""How results look: tables for people, JSON for programs."""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import click
import msgspec

from gapless.text import format_value


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    text: str


def ok(subject: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(subject=subject, verdict=Verdict.OK, text=text)


def warning(subject: str, text: str) -> Finding:
    """It will run; somebody should know."""
    return Finding(subject=subject, verdict=Verdict.WARNING, text=text)


def problem(subject: str, text: str) -> Finding:
    """It will lose events, or not run."""
    return Finding(subject=subject, verdict=Verdict.PROBLEM, text=text)


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
        made.add_row(*(format_value(cell) for cell in row))
    if not made.row_count:
        click.echo(empty, err=True)
        return
    width = None if sys.stdout.isatty() else 200
    Console(width=width, soft_wrap=True, highlight=False, markup=False).print(made)


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
