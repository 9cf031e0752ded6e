"""The command line: `commands` has one module for each command. Results go to stdout, logs to stderr."""

from gapless.cli.main import main

__all__ = ["main"]
