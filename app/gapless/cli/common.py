"""Shared by all commands: the options of the program, exit codes, and errors as one message on stderr."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import click

from gapless.errors import Unavailable, UserError
from gapless.settings import Settings, SourceSettings, build_provider, load, remarks
from gapless_reconcilers.kit.errors import ProviderError


class Exit(IntEnum):
    """The exit codes."""

    OK = 0
    NEGATIVE = 1
    """The command worked, and its answer is no: something is missing, a check failed."""
    USAGE = 2
    """The call or the configuration is wrong."""
    UNAVAILABLE = 3
    """The store, the daemon or the provider could not be reached or said no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """The options that stand before the command."""

    config: str | None
    debug: bool

    def settings(self, *, reads: str | None = None) -> Settings:
        """Load the settings; `reads`: only the list of that source will be read. Raises `SettingsInvalid`."""
        settings = load(self._path, os.environ, reads=reads)
        if not settings.sources:
            for each in self.remarks():
                click.echo(f"gapless: {each}", err=True)
        return settings

    def remarks(self) -> list[str]:
        """Return what may be missing from the configuration: a sentence each."""
        return remarks(self._path, os.environ)

    @property
    def _path(self) -> Path | None:
        return None if self.config is None else Path(self.config)


def find_source(settings: Settings, name: str) -> SourceSettings:
    """Return the configured source of that name. Raises `click.BadParameter`."""
    for each in settings.sources:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in settings.sources) or "none"
    raise click.BadParameter(f"source {name!r} is not configured; configured: {known}", param_hint="SOURCE")


def mask_of(settings: Settings, name: str) -> tuple[str, ...]:
    """Return the pointers to the values of a source's events that are not shown; empty if it is not configured."""
    found = next((each for each in settings.sources if each.name == name), None)
    if found is None:
        return ()
    return found.effective_mask(build_provider(found, os.environ, only_reads=True).capabilities)


def job_text(begun: Mapping[str, Any]) -> str:
    """Return the sentence about a job that an operation has begun, or that this process has worked to its end."""
    number = begun["job"]
    if "state" in begun:
        return f"job {number} {begun['state']}: {begun['done']} done, {begun['left_out']} left out"
    return f"job {number} does it, for {begun['count']} events; `gapless job show {number}` tells how far it is"


@contextmanager
def failing_clearly(*, debug: bool) -> Iterator[None]:
    """Turn expected errors into one message on stderr and an exit code; with `debug`, leave the traceback."""
    try:
        yield
    except BrokenPipeError:
        raise  # click ends quietly
    except UserError as error:
        _fail(str(error), Exit.USAGE, error, debug=debug)
    except ExceptionGroup as errors:
        with failing_clearly(debug=debug):
            raise _first(errors) from errors
    except (Unavailable, ProviderError, OSError) as error:
        _fail(str(error) or type(error).__name__, Exit.UNAVAILABLE, error, debug=debug)


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """Return the first error of a task group: the others usually follow from it."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def _fail(message: str, code: Exit, error: Exception, *, debug: bool) -> None:
    if debug:
        raise error
    click.echo(f"gapless: {message}", err=True)
    sys.exit(code)
