"""Reads secrets from environment variables and files. A file may change while the daemon runs.

The configuration file itself never contains a secret.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from gapless.destinations.contract import SecretReader
from gapless.errors import UserError
from gapless_reconcilers.kit.contract import Secret

VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
"""Only capital letters: a secret that is pasted in place of a variable's name nearly always has small ones."""

TOKEN_CHARACTERS = 24
"""Least length of a token: 16 random bytes in base64."""
TOKEN_DIFFERENT = 8
"""Least number of different characters of a token: those of a random one of that length are more."""
_LARGEST_FILE_BYTES = 65_536


class SecretUnavailable(UserError):
    """A secret cannot be read. The message names the variable, or what is wrong with the file, and shows no content."""


class SecretRef(SecretReader):
    """A secret and where it is read from. No repr or message shows it."""

    __slots__ = ("_value", "path", "variable")

    def __init__(
        self,
        *,
        value: Secret | tuple[Secret, ...] | None = None,
        variable: str | None = None,
        path: Path | None = None,
    ) -> None:
        self._value = value
        self.variable = variable
        """The variable that it was read from. None: not from a variable."""
        self.path = path
        """The file that it is read from. None: not from a file."""

    def read(self) -> Secret:
        """Return the current secret; a file is read again each time. Raises `SecretUnavailable`."""
        return self._value if isinstance(self._value, Secret) else _only_one(self.read_lines())

    def read_lines(self) -> list[Secret]:
        """Return the current secrets of one that may have several lines. Raises `SecretUnavailable`."""
        if self._value is not None:
            return [self._value] if isinstance(self._value, Secret) else list(self._value)
        if self.path is None:
            raise SecretUnavailable("the secret has neither a variable nor a file")
        return read_file(self.path)

    def __repr__(self) -> str:
        return f"SecretRef({self.variable or ('file' if self.path else 'default')})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretRef):
            return NotImplemented
        return (self._value, self.variable, self.path) == (other._value, other.variable, other.path)

    def __hash__(self) -> int:
        return hash((self._value, self.variable, self.path))


def weakness_of(token: Secret) -> str | None:
    """Return why the token could be guessed, without showing it; None: it is long enough."""
    text = token.reveal()
    if len(text) >= TOKEN_CHARACTERS and len(set(text)) >= TOKEN_DIFFERENT:
        return None
    return (
        f"has {len(text)} characters, {len(set(text))} different ones, and could be guessed; wanted at least "
        f"{TOKEN_CHARACTERS} random ones, such as the output of `openssl rand -hex 32`"
    )


def from_variable(variable: str, environ: Mapping[str, str]) -> SecretRef:
    """Return the secret in `variable`. Raises `SecretUnavailable` if it is not set, or empty."""
    return SecretRef(value=_only_one(read_variable(variable, environ)), variable=variable)


def lines_from_variable(variable: str, environ: Mapping[str, str]) -> SecretRef:
    """Return the secrets in `variable`, one per line. Raises `SecretUnavailable` if it is not set, or empty."""
    return SecretRef(value=tuple(read_variable(variable, environ)), variable=variable)


def read_variable(variable: str, environ: Mapping[str, str]) -> list[Secret]:
    """Return the secrets in `variable`, one per line. Raises `SecretUnavailable`."""
    if not VARIABLE_NAME.fullmatch(variable):
        raise SecretUnavailable(
            "it holds no variable's name (capital letters, digits, _); "
            "write the name of the variable that holds the secret"
        )
    content = environ.get(variable)
    if content is None:
        raise SecretUnavailable(f"the variable {variable} is not set; set it, or name a file instead")
    return _lines(content, f"the variable {variable}")


def read_file(path: Path) -> list[Secret]:
    """Return the secrets in the file `path`, one per line. Raises `SecretUnavailable`, without the path."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SecretUnavailable(
            f"the file cannot be read ({type(error).__name__}); check its path and its mode"
        ) from None
    if len(content) > _LARGEST_FILE_BYTES:
        raise SecretUnavailable(f"the file is larger than {_LARGEST_FILE_BYTES} bytes; wanted a secret per line")
    try:
        return _lines(content.decode(), "the file")
    except UnicodeDecodeError:
        raise SecretUnavailable("the file is not UTF-8; wanted a secret per line") from None


def _lines(content: str, origin: str) -> list[Secret]:
    secrets = [Secret(line.strip()) for line in content.splitlines() if line.strip()]
    if not secrets:
        raise SecretUnavailable(f"{origin} is empty; wanted a secret")
    return secrets


def _only_one(secrets: list[Secret]) -> Secret:
    if len(secrets) != 1:
        raise SecretUnavailable(f"it holds {len(secrets)} lines; wanted one secret")
    return secrets[0]
