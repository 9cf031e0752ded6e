"""Output of commands: tables for people, JSON for programs, progress, and the findings of `gapless check`."""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import click
import msgspec

from gapless.cli.terminal import plain
from gapless.text import format_value, printable

LOG_EVERY_S = 5.0
"""Time between two lines of progress if stderr is not a terminal."""


class FindingLevel(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    subject: str
    verdict: FindingLevel
    text: str


def ok(subject: str, text: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(subject=subject, verdict=FindingLevel.OK, text=text)


def warning(subject: str, text: str) -> Finding:
    """Return a finding that does not stop the daemon, but that somebody should know."""
    return Finding(subject=subject, verdict=FindingLevel.WARNING, text=text)


def problem(subject: str, text: str) -> Finding:
    """Return a finding that makes the daemon lose events, or not run."""
    return Finding(subject=subject, verdict=FindingLevel.PROBLEM, text=text)


def as_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def as_bytes(content: bytes) -> None:
    """Print bytes as they are into a file or a pipe; into a terminal, as text that it can show."""
    if sys.stdout.isatty():
        click.echo(content.decode(errors="backslashreplace"))
    else:
        sys.stdout.buffer.write(content)


def as_lines(values: Iterable[object]) -> None:
    """Print one JSON document a line."""
    for value in values:
        click.echo(msgspec.json.encode(value).decode())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print a table, or `empty` to stderr if there are no rows."""
    from rich.console import Console  # noqa: PLC0415 - most commands print no table
    from rich.table import Table  # noqa: PLC0415

    printed = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        printed.add_row(*(cell_text(cell) for cell in row))
    if not printed.row_count:
        click.echo(empty, err=True)
        return
    width = None if sys.stdout.isatty() else 200
    console = Console(file=plain(sys.stdout), width=width, soft_wrap=True, highlight=False, markup=False)
    console.print(printed)


def cell_text(value: object) -> str:
    """Return any value as text in one line, fit for a terminal."""
    return printable(format_value(value), one_line=True)


class ProgressLine:
    """Progress of long work on stderr: in a terminal one line that is rewritten, else a new line now and then."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._printed_at = time.monotonic()

    def show(self, text: str) -> None:
        """Print `text`, unless something was printed a moment ago."""
        now = time.monotonic()
        if now - self._printed_at >= (0.1 if self._is_terminal else LOG_EVERY_S):
            self._printed_at = now
            shown = printable(text, one_line=True)
            if self._is_terminal:
                click.echo(f"\r\x1b[K{shown}", nl=False, file=plain(sys.stderr))
            else:
                click.echo(shown, err=True)

    def end(self) -> None:
        """Clear the line for what is printed next."""
        if self._is_terminal:
            click.echo("\r\x1b[K", nl=False, file=plain(sys.stderr))
