"""Reads the keys of `[encryption]`: one a line, each with an id by which rows name it."""

import re
from typing import Final

from gapless.settings.secrets import SecretUnavailable
from gapless.settings.tree import EncryptionSettings

LINE: Final = re.compile(r"([a-z0-9][a-z0-9._-]{0,39}):([0-9a-fA-F]{64})")
CLEAR: Final = "clear"
"""Stands for no key where keys are counted, so no key may be called so."""
WANTED: Final = (
    "wanted an id (1 to 40 of a-z, 0-9, dot, dash, _), a colon, and 64 hex digits such as the output of "
    "`openssl rand -hex 32`"
)


def read_keys(settings: EncryptionSettings) -> dict[str, bytes]:
    """Return {id: 32 bytes}, in their order; the first seals. Empty: nothing is sealed.

    Raises `SecretUnavailable`, whose message shows no key.
    """
    keys: dict[str, bytes] = {}
    for number, line in enumerate([] if settings.keys is None else settings.keys.read_lines(), 1):
        match = LINE.fullmatch(line.reveal())
        if match is None or match[1] == CLEAR:
            raise SecretUnavailable(f"line {number} is no key; {WANTED}")
        if match[1] in keys:
            raise SecretUnavailable(f"line {number} has the id {match[1]!r} of a line before; wanted another id")
        if len(set(match[2].lower())) == 1:
            raise SecretUnavailable(f"line {number} has a key that could be guessed; {WANTED}")
        keys[match[1]] = bytes.fromhex(match[2])
    return keys
