"""The command line: one module per noun. Results on stdout, logs on stderr, exit codes for scripts."""

from gapless.cli.main import main

__all__ = ["main"]
