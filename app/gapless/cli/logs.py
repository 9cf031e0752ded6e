"""The log of a process: lines to stderr, for people or for collectors, from us and from every library.

A traceback says where an error occurred, and never what the variables held: they hold tokens and payloads. It is
bounded, because an error may carry a whole request, and escaped, because its text may be a stranger's.
"""

import logging
import sys
from collections.abc import MutableMapping
from traceback import TracebackException
from typing import Any, Final

import structlog

from gapless.cli.terminal import plain
from gapless.settings import LogFormat, LogSettings
from gapless.text import printable

FRAMES: Final = 40
"""Most frames of one traceback that are shown: the innermost ones."""
TRACEBACK_CHARS: Final = 16_000
LINE_CHARS: Final = 2_000
"""Most characters of one line of a traceback, and of one value of a log line."""
CUT: Final = "…"
EventDict = MutableMapping[str, Any]
"""The values of one log line, as structlog has them."""


def start_logging(settings: LogSettings) -> None:
    """Log to stderr as configured. Libraries log from `warning` on."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    as_json = settings.format is LogFormat.JSON
    for_people = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    renderer = structlog.processors.JSONRenderer() if as_json else for_people
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, show_error, cut_values, renderer],
    )
    handler = logging.StreamHandler(plain(sys.stderr))
    handler.setFormatter(formatter)
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.WARNING)
    for package in ("gapless", "gapless_reconcilers"):
        logging.getLogger(package).setLevel(settings.level.value.upper())


def show_error(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Replace the error of a log line with its traceback as text."""
    found = line.pop("exc_info", None)
    error = found[1] if isinstance(found, tuple) else found
    if found is True:
        error = sys.exception()
    if isinstance(error, BaseException):
        line["exception"] = traceback_of(error)
    return line


def cut_values(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Bound and escape every text of a log line but its traceback; other values are shown by their repr."""
    for name, value in line.items():
        if isinstance(value, str) and name != "exception":
            line[name] = shortened(printable(value, one_line=True), LINE_CHARS)
    return line


def traceback_of(error: BaseException) -> str:
    """Return the traceback of `error` and of its causes, without variables, escaped and bounded in its length."""
    made = TracebackException.from_exception(error, limit=-FRAMES, compact=True)
    lines = [shortened(line, LINE_CHARS) for text in made.format() for line in printable(text).splitlines()]
    return _without_middle("\n".join(lines), TRACEBACK_CHARS)


def shortened(text: str, most: int) -> str:
    """Return the first `most` characters of `text`, marked if there are more."""
    return text if len(text) <= most else text[:most] + CUT


def _without_middle(text: str, most: int) -> str:
    """Return `text` without what is too much of it: the end says what happened, and the start what it came of."""
    return text if len(text) <= most else f"{text[: most // 4]}\n{CUT}\n{text[-3 * most // 4 :]}"
