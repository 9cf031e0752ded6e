"""How the list is asked with the right to it: four ways."""

import hashlib

import httpx
import msgspec

from gapless_reconcilers.kit.auth import BasicAuth, BearerAuth, ClientCredentialsAuth, HeaderAuth
from gapless_reconcilers.kit.contract import Secret


class CredentialKind(msgspec.Struct, tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all kinds of credential are told apart by."""


class Bearer(CredentialKind, tag="bearer", frozen=True, kw_only=True):
    """`Authorization: Bearer <token>`."""

    token: Secret

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """The credentials."""
        return BearerAuth(self.token)


class Basic(CredentialKind, tag="basic", frozen=True, kw_only=True):
    """A name and a password; where the vendor has an API key alone, the key is the name."""

    username: Secret
    password: Secret = Secret("")

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """The credentials."""
        return BasicAuth(self.username, self.password)


class Header(CredentialKind, tag="header", frozen=True, kw_only=True):
    """A header that is the credential."""

    name: str
    token: Secret

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """The credentials."""
        return HeaderAuth(self.name, self.token)


class ClientCredentials(CredentialKind, tag="client_credentials", frozen=True, kw_only=True):
    """OAuth2 client credentials: a token is asked for, and anew when it is refused."""

    token_path: str
    """Where, on the same host."""
    client_id: str
    secret: Secret

    def auth(self, token_base: str) -> httpx.Auth:
        """The credentials, whose token is asked for at `token_base`."""
        return ClientCredentialsAuth(token_base + self.token_path, self.client_id, self.secret)


Credentials = Bearer | Basic | Header | ClientCredentials


def fingerprint(credentials: Credentials) -> str:
    """48 bits of the SHA-256 of all that is secret in `credentials`: tells accounts apart, and nothing else."""
    fields = (getattr(credentials, name) for name in credentials.__struct_fields__)
    texts = [field.reveal() if isinstance(field, Secret) else field for field in fields]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
