"""The credentials with which a declared list is read."""

import hashlib

import httpx
import msgspec

from gapless_reconcilers.kit.auth import (
    BasicAuth,
    BearerAuth,
    ClientCredentialsAuth,
    HeaderAuth,
    QueryAuth,
    RefreshTokenAuth,
)
from gapless_reconcilers.kit.contract import Secret


class CredentialKind(msgspec.Struct, tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all kinds of credential; `type` distinguishes them."""


class NoCredentials(CredentialKind, tag="none", frozen=True, kw_only=True):
    """None: nothing is asked."""

    def auth(self, token_base: str) -> None:
        """Return None."""


class Bearer(CredentialKind, tag="bearer", frozen=True, kw_only=True):
    """`Authorization: Bearer <token>`."""

    token: Secret

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """Return the credentials."""
        return BearerAuth(self.token)


class Basic(CredentialKind, tag="basic", frozen=True, kw_only=True):
    """A name and a password; if the vendor has only an API key, the key is the name."""

    username: Secret = Secret("")
    password: Secret = Secret("")
    name: str = ""
    """The name, if it is the same for all accounts, such as `api`."""

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """Return the credentials."""
        return BasicAuth(Secret(self.name) if self.name else self.username, self.password)


class Header(CredentialKind, tag="header", frozen=True, kw_only=True):
    """A header that is the credential."""

    name: str
    token: Secret
    prefix: str = ""
    """The text before the token, such as `SSWS `."""

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """Return the credentials."""
        return HeaderAuth(self.name, Secret(self.prefix + self.token.reveal()) if self.prefix else self.token)


class Query(CredentialKind, tag="query", frozen=True, kw_only=True):
    """Parameters of the query that are the credential. They are added only while a request is sent."""

    name: str
    token: Secret
    key_name: str = ""
    """A second parameter, such as that of the key beside the token; "": there is none."""
    key: Secret = Secret("")

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """Return the credentials."""
        return QueryAuth({self.name: self.token} | ({self.key_name: self.key} if self.key_name else {}))


class ClientCredentials(CredentialKind, tag="client_credentials", frozen=True, kw_only=True):
    """OAuth2 client credentials: a token is requested, and again when it is refused."""

    token_path: str
    """The path of the token endpoint, on the same host."""
    client_id: str
    secret: Secret

    def auth(self, token_base: str) -> httpx.Auth:
        """Return the credentials; the token is requested at `token_base`."""
        return ClientCredentialsAuth(token_base + self.token_path, self.client_id, self.secret)


class RefreshToken(CredentialKind, tag="refresh_token", frozen=True, kw_only=True):
    """OAuth2 with a refresh token that stays valid: a vendor that replaces it with each use needs code."""

    token_path: str
    """The path of the token endpoint, on the same host."""
    client_id: str
    secret: Secret
    refresh_token: Secret

    def auth(self, token_base: str) -> httpx.Auth:
        """Return the credentials; the token is requested at `token_base`."""
        return RefreshTokenAuth(token_base + self.token_path, self.client_id, self.secret, self.refresh_token)


Credentials = NoCredentials | Bearer | Basic | Header | Query | ClientCredentials | RefreshToken


def fingerprint(credentials: Credentials) -> str:
    """Return 48 bits of the SHA-256 of the secrets in `credentials`. It only distinguishes accounts."""
    fields = (getattr(credentials, name) for name in credentials.__struct_fields__)
    texts = [field.reveal() if isinstance(field, Secret) else field for field in fields]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
