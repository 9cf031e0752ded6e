"""Credentials as `httpx.Auth`, so that the engine adds them and no request that a provider builds holds any.

The secret stays a `Secret` until the request leaves: no repr, message or log of these objects shows it.
"""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.decoders import decode_or_none
from gapless_reconcilers.kit.errors import CredentialsRejected, ProviderUnavailable
from gapless_reconcilers.kit.statuses import describe_origin

EARLY: Final = timedelta(seconds=60)
"""A token is replaced this long before it expires."""


def utc_now() -> datetime:
    """Return the time at which a request is sent. Credentials may depend on it; what a provider reads never does."""
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


class HeaderAuth(httpx.Auth):
    """A header that is the credential, such as `X-Api-Key: <token>`."""

    def __init__(self, name: str, token: Secret) -> None:
        self._name = name
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header to `request`."""
        request.headers[self._name] = self._token.reveal()
        yield request

    def __repr__(self) -> str:
        return f"HeaderAuth({self._name!r}, ***)"


class BasicAuth(httpx.Auth):
    """A name and a password (RFC 7617); either may be the secret, and the password empty."""

    def __init__(self, name: Secret, password: Secret) -> None:
        self._name = name
        self._password = password

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header to `request`."""
        pair = f"{self._name.reveal()}:{self._password.reveal()}".encode()
        request.headers["Authorization"] = f"Basic {b64encode(pair).decode()}"
        yield request

    def __repr__(self) -> str:
        return "BasicAuth(***)"


class PathAuth(httpx.Auth):
    """A token in the path (Telegram): it replaces `placeholder` only while the request is being sent."""

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


class QueryAuth(httpx.Auth):
    """Tokens in the query (Trello): they are in the address only while the request is being sent."""

    def __init__(self, tokens: Mapping[str, Secret]) -> None:
        self._tokens = dict(tokens)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Put the tokens into the address of `request`, and take them out again."""
        shown = request.url
        request.url = shown.copy_merge_params({name: token.reveal() for name, token in self._tokens.items()})
        try:
            yield request
        finally:
            request.url = shown

    def __repr__(self) -> str:
        return f"QueryAuth({', '.join(self._tokens)}, ***)"


class AppAuth(httpx.Auth):
    """The credentials of a GitHub App: a short-lived token that its private key signs (RS256)."""

    def __init__(self, app_id: str, private_key: Secret, clock: Callable[[], datetime] = utc_now) -> None:
        self._app_id = app_id
        self._key = private_key
        self._clock = clock

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add a token to `request`. Raises `CredentialsRejected` if the key cannot be used."""
        request.headers["Authorization"] = f"Bearer {self.token()}"
        yield request

    def token(self) -> str:
        """Return a token valid from one minute ago, because clocks differ, until nine minutes from now."""
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


class ClientCredentialsAuth(httpx.Auth):
    """A bearer token by OAuth2 client credentials, requested when it is needed, and again when it is refused."""

    requires_response_body = True

    def __init__(self, token_url: str, client_id: str, secret: Secret, clock: Callable[[], datetime] = utc_now) -> None:
        self._token_url = token_url
        self._client_id = client_id
        self._secret = secret
        self._clock = clock
        self._token: Secret | None = None
        self._until = datetime.min.replace(tzinfo=UTC)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the token. Raises `CredentialsRejected` if our credentials get none, and `ProviderUnavailable`."""
        if self._token is None or self._clock() >= self._until:
            self._keep((yield self._ask()))
        response = yield self._signed(request)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._keep((yield self._ask()))
            yield self._signed(request)

    def _ask(self) -> httpx.Request:
        pair = f"{self._client_id}:{self._secret.reveal()}".encode()
        headers = {"Authorization": f"Basic {b64encode(pair).decode()}", "Accept": "application/json"}
        return httpx.Request("POST", self._token_url, data={"grant_type": "client_credentials"}, headers=headers)

    def _keep(self, response: httpx.Response) -> None:
        if response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            address = describe_origin(response.request.url)
            raise ProviderUnavailable(f"no token for now: {address} answered {response.status_code}")
        granted = decode_or_none(response.content, _Grant) if response.is_success else None
        if granted is None:
            raise CredentialsRejected(f"client credentials got no token: {response.status_code}; check id and secret")
        self._token = Secret(granted.access_token)
        self._until = self._clock() + timedelta(seconds=granted.expires_in) - EARLY

    def _signed(self, request: httpx.Request) -> httpx.Request:
        token = self._token.reveal() if self._token else ""
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    def __repr__(self) -> str:
        return f"ClientCredentialsAuth({self._client_id!r}, ***)"


class RefreshTokenAuth(ClientCredentialsAuth):
    """A bearer token for a refresh token, with the client's credentials; requested as with `ClientCredentialsAuth`.

    A new refresh token in the answer takes the place of the old one, for as long as the process lives.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        secret: Secret,
        refresh_token: Secret,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__(token_url, client_id, secret, clock)
        self._refresh = refresh_token

    def _ask(self) -> httpx.Request:
        asked = super()._ask()
        data = {"grant_type": "refresh_token", "refresh_token": self._refresh.reveal()}
        headers = {name: asked.headers[name] for name in ("Authorization", "Accept")}
        return httpx.Request("POST", asked.url, data=data, headers=headers)

    def _keep(self, response: httpx.Response) -> None:
        super()._keep(response)
        named = decode_or_none(response.content, _Refreshed)
        if named is not None and named.refresh_token:
            self._refresh = Secret(named.refresh_token)

    def __repr__(self) -> str:
        return f"RefreshTokenAuth({self._client_id!r}, ***)"


class _Refreshed(msgspec.Struct, gc=False):
    refresh_token: str = ""


class _Grant(msgspec.Struct, gc=False):
    access_token: str
    expires_in: Annotated[int, msgspec.Meta(ge=0, le=10**8)] = 300
