"""The command line: one module per noun. Results on stdout, logs on stderr, exit codes for scripts."""

import gc

gc.disable()  # what an import makes stays: looking for garbage meanwhile costs a tenth of `gapless --version`
from gapless.cli.main import main  # noqa: E402

gc.enable()

__all__ = ["main"]
