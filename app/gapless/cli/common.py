"""What all commands share: the configuration they read, how they fail, and how they log."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import click
import stamina.instrumentation
import structlog

from gapless.errors import Unavailable, UserError
from gapless.settings import LogFormat, LogSettings, Settings, load
from gapless_reconcilers.kit.errors import ProviderError


class Exit(IntEnum):
    """What a script can tell from the exit code."""

    OK = 0
    NEGATIVE = 1
    """The command worked, and its answer is no: something is missing, a check failed."""
    USAGE = 2
    """The call or the configuration is wrong."""
    UNAVAILABLE = 3
    """The store, the daemon or the provider could not be reached or said no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """How the program was called, before any command."""

    config: Path | None
    debug: bool

    def settings(self) -> Settings:
        """The settings. Raises `SettingsInvalid`."""
        return load(self.config, os.environ)


@contextmanager
def failing_clearly(*, debug: bool) -> Iterator[None]:
    """Turn what can go wrong into one message on stderr and an exit code; `debug` leaves the traceback."""
    try:
        yield
    except UserError as error:
        _fail(str(error), Exit.USAGE, error, debug=debug)
    except ExceptionGroup as errors:
        with failing_clearly(debug=debug):
            raise _first(errors) from errors
    except (Unavailable, ProviderError, OSError) as error:
        _fail(str(error) or type(error).__name__, Exit.UNAVAILABLE, error, debug=debug)


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """One error of a task group stands for the group: the others follow from it."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def _fail(message: str, code: Exit, error: Exception, *, debug: bool) -> None:
    if debug:
        raise error
    click.echo(f"gapless: {message}", err=True)
    sys.exit(code)


def start_logging(settings: LogSettings) -> None:
    """Log to stderr as configured. Libraries are heard from `warning` on."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    as_json = settings.format is LogFormat.JSON
    for_people = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    for_programs = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    renderer: list[Any] = for_programs if as_json else [for_people]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(logging.WARNING)
    stamina.instrumentation.set_on_retry_hooks([])  # what retries says so itself
    for package in ("gapless", "gapless_reconcilers"):
        logging.getLogger(package).setLevel(settings.level.value.upper())
