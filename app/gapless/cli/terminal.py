"""The one place where commands write: what vendors and strangers have sent never reaches a terminal as a command.

`guard` puts a `PrintableStream` in the place of stdout and stderr. Whatever moves the cursor on purpose, or colours its
text, writes to `plain` and escapes what it shows by itself.
"""

import sys
from typing import Any, TextIO, cast

from gapless.text import printable


class PrintableStream:
    """A text stream that escapes control characters, except line breaks and tabs; `buffer` takes bytes as they are."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write `text`, escaped."""
        self.stream.write(printable(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write each of the lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard() -> None:
    """Let stdout and stderr escape control characters from now on."""
    sys.stdout, sys.stderr = _guarded(sys.stdout), _guarded(sys.stderr)


def plain(stream: TextIO) -> TextIO:
    """Return the stream that escapes nothing behind `stream`, for a program's own control characters."""
    return stream.stream if isinstance(stream, PrintableStream) else stream


def _guarded(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, PrintableStream) else cast("TextIO", PrintableStream(stream))
