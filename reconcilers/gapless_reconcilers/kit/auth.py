"""Credentials as `httpx.Auth`, so that the engine adds them and no request that a provider builds holds any.

The secret stays a `Secret` until the request leaves: no repr, message or log of these objects shows it.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Generator
from datetime import UTC, datetime

import httpx
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.errors import CredentialsRejected


def utc_now() -> datetime:
    """The time at which a request leaves: credentials may depend on it, what a provider reads never does."""
    return datetime.now(UTC)


class BearerAuth(httpx.Auth):
    """`Authorization: Bearer <token>`."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header to `request`."""
        request.headers["Authorization"] = f"Bearer {self._token.reveal()}"
        yield request

    def __repr__(self) -> str:
        return "BearerAuth(***)"


class PathAuth(httpx.Auth):
    """A token in the path (Telegram): it replaces `placeholder` while the request is on its way, and only then."""

    def __init__(self, token: Secret, placeholder: str) -> None:
        self._token = token
        self._placeholder = placeholder

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Put the token into the address of `request`, and take it out again."""
        shown = request.url
        request.url = shown.copy_with(path=shown.path.replace(self._placeholder, self._token.reveal()))
        try:
            yield request
        finally:
            request.url = shown

    def __repr__(self) -> str:
        return "PathAuth(***)"


class AppAuth(httpx.Auth):
    """A GitHub App as itself: a short-lived token that its private key signs (RS256)."""

    def __init__(self, app_id: str, private_key: Secret, clock: Callable[[], datetime] = utc_now) -> None:
        self._app_id = app_id
        self._key = private_key
        self._clock = clock

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add a token to `request`. Raises `CredentialsRejected` if the key is none."""
        request.headers["Authorization"] = f"Bearer {self.token()}"
        yield request

    def token(self) -> str:
        """A token that was valid a minute ago already, for clocks that differ, and is so for nine more."""
        now = int(self._clock().timestamp())
        claims = {"iat": now - 60, "exp": now + 540, "iss": self._app_id}
        parts = [_base64url(json.dumps(each).encode()) for each in ({"alg": "RS256", "typ": "JWT"}, claims)]
        message = b".".join(parts)
        try:
            key = load_pem_private_key(self._key.reveal().encode(), None)
        except (ValueError, TypeError) as error:
            raise CredentialsRejected("app_private_key is no PEM of a private key") from error
        if not isinstance(key, RSAPrivateKey):
            raise CredentialsRejected("app_private_key is no RSA key")
        return b".".join((message, _base64url(key.sign(message, PKCS1v15(), SHA256())))).decode()

    def __repr__(self) -> str:
        return f"AppAuth({self._app_id!r}, ***)"


def _base64url(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")
