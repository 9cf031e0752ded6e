"""TLS of the listeners: the certificates that new connections get, read again when their files change."""

import logging
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from gapless.errors import UserError
from gapless.settings import PrivateSettings, PublicSettings

Stamps = tuple[tuple[int, int, int] | None, ...]
ALPN: Final = ["http/1.1"]
log = logging.getLogger(__name__)


class TlsInvalid(UserError):
    """The files of a listener's TLS cannot be used. The message says which option, and shows no content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The files of one listener, which is `public` or `private`."""

    listener: str
    certificate: Path
    key: Path | None
    """None: the certificate's file has it too."""
    client_ca: Path | None
    """The authorities of clients; None: clients need no certificate."""

    def __iter__(self) -> Iterator[Path]:
        return iter(each for each in (self.certificate, self.key, self.client_ca) if each is not None)


def tls_files(listener: str, settings: PublicSettings | PrivateSettings) -> TlsFiles | None:
    """Return the files of a listener; None: it has no TLS. Raises `TlsInvalid` if only the certificate is missing."""
    certificate, key, client_ca = settings.certificate, settings.certificate_key, settings.client_ca
    if certificate is not None:
        return TlsFiles(listener=listener, certificate=certificate, key=key, client_ca=client_ca)
    if key is not None or client_ca is not None:
        raise TlsInvalid(f"{listener}: certificate_key and client_ca need a certificate; set option certificate")
    return None


class NewestContext(ssl.SSLContext):
    """Gives each new connection the newest context. Open connections keep the one that they began with."""

    newest: ssl.SSLContext

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a connection with the newest context."""
        return self.newest.wrap_bio(*args, **kwargs)


class Certificates:
    """The certificates of one listener. `context` is for its server, which need not know that they change."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamps = _stamps(files)
        self.context = NewestContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.newest = read_context(files)

    @classmethod
    def of(cls, files: TlsFiles | None) -> Self | None:
        """Return the certificates in the files; None: the listener has no TLS. Raises `TlsInvalid`."""
        return None if files is None else cls(files)

    def reload_if_changed(self) -> bool:
        """Read the files again if one has changed; return True if new connections get other certificates now.

        If they cannot be used, the old ones stay, and the log says why.
        """
        stamps = _stamps(self._files)
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            self.context.newest = read_context(self._files)
        except TlsInvalid as error:
            log.error("certificate_not_replaced", extra={"error": str(error)})  # noqa: TRY400 - the message says it all
            return False
        log.info("certificate_replaced", extra={"listener": self._files.listener})
        return True


def read_context(files: TlsFiles) -> ssl.SSLContext:
    """Return a context with the certificates that the files have now. Raises `TlsInvalid`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    for each in files:
        _check_readable(files.listener, each)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        named = "certificate" if files.key is None else "certificate or certificate_key"
        raise TlsInvalid(
            f"{files.listener}: option {named} cannot be used ({_reason(error)}); wanted PEM files that belong together"
        ) from None
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError as error:
            raise TlsInvalid(
                f"{files.listener}: option client_ca cannot be used ({_reason(error)}); wanted a PEM file"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")


def _check_readable(listener: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise TlsInvalid(
            f"{listener}: {path.name} cannot be read ({error.strerror}); check its path and mode"
        ) from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error).replace("_", " ").lower()


def _stamps(files: TlsFiles) -> Stamps:
    return tuple(_stamp(each) for each in files)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
