"""The schemes in which a webhook carries a secret, and Standard Webhooks: what `kit` knows already."""

# ruff: noqa: ARG002 - all schemes verify and sign by the same names

from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import ClassVar, Literal

from gapless_reconcilers.kit import standard_signature
from gapless_reconcilers.kit.contract import Secret, WebhookRequest
from gapless_reconcilers.kit.errors import OptionsInvalid, SignatureInvalid
from gapless_reconcilers.providers.rest_list.schemes import (
    NO_HEADERS,
    Scheme,
    check_tolerance,
    is_one_of,
    required,
    unpacked,
)


class StandardSignature(Scheme, tag="standard_webhooks", frozen=True, kw_only=True):
    """Standard Webhooks, and Svix."""

    key: Literal["base64", "text", "either"] = "base64"
    """The signing key: the secret decoded from base64, as in the specification, its text (Increase), or any of both."""
    names: Literal["webhook", "svix"] = "webhook"
    """The beginning of the names of its headers; the other one is taken too."""
    tolerance: timedelta = timedelta(seconds=300)
    """The accepted difference from our time, in either direction."""

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers without which a webhook is not the vendor's."""
        return standard_signature.TWIN_HEADERS if self.names == "svix" else standard_signature.HEADERS

    @property
    def twins(self) -> tuple[str, ...]:  # type: ignore[override]
        """The other names of the headers."""
        return standard_signature.HEADERS if self.names == "svix" else standard_signature.TWIN_HEADERS

    def check(self) -> None:
        """Raise `OptionsInvalid` if this can verify nothing."""
        check_tolerance(self.tolerance)

    @property
    def unusable(self) -> int:
        """The number of secrets that do not have the scheme's form."""
        if self.key == "either":
            return sum(not each.reveal().strip() for each in self.secret)
        return standard_signature.StandardKeys(self._known()).unusable

    def verify(self, request: WebhookRequest, now: datetime) -> None:
        """Raise `SignatureInvalid` unless one of the secrets signed the request, near enough in time."""
        standard_signature.StandardKeys(self._known()).verify(request, now, self.tolerance)

    def sign(
        self,
        secret: Secret,
        key: str,
        body: bytes,
        url: str,
        now: datetime,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> dict[str, str] | None:
        """Return the headers of `body`, sent at `now`; None if `secret` cannot sign."""
        if self.key == "either" and standard_signature.symmetric_key(secret) is None:
            secret = _as_text(secret)
        signed = standard_signature.sign(_as_text(secret) if self.key == "text" else secret, key, body, now)
        return signed and {f"{self.names}-{name.partition('-')[2]}": value for name, value in signed.items()}

    def _known(self) -> list[Secret]:
        """Return the secrets in the specification's form."""
        decoded = [] if self.key == "text" else list(self.secret)
        as_text = [] if self.key == "base64" else [_as_text(each) for each in self.secret if each.reveal().strip()]
        return [*decoded, *as_text] if self.key == "either" else decoded or [_as_text(each) for each in self.secret]


def _as_text(secret: Secret) -> Secret:
    return Secret(b64encode(secret.reveal().encode()).decode())


class BasicSignature(Scheme, tag="basic", frozen=True, kw_only=True):
    """No signature, but a name and a password that only the vendor and we know (RFC 7617): `name:password`."""

    signs_body: ClassVar[bool] = False

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers without which a webhook is not the vendor's."""
        return ("authorization",)

    def carried(self) -> dict[str, tuple[str, ...]]:
        """Return what the header holds with each secret. The word before it may be written in small letters too."""
        packed = [b64encode(each.reveal().encode()).decode() for each in self.secret]
        return {"authorization": tuple(f"{word} {each}" for each in packed for word in ("Basic", "basic"))}

    def verify(self, request: WebhookRequest, now: datetime) -> None:
        """Raise `SignatureInvalid` unless the request carries one of the secrets."""
        scheme, _, credentials = required(request, "authorization").partition(" ")
        if scheme.lower() != "basic" or not is_one_of(self.secret, unpacked(credentials.strip())):
            raise SignatureInvalid("the name or the password is not one that we know; check the secret")

    def sign(
        self,
        secret: Secret,
        key: str,
        body: bytes,
        url: str,
        now: datetime,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> dict[str, str]:
        """Return the header that carries `secret`."""
        return {"authorization": f"Basic {b64encode(secret.reveal().encode()).decode()}"}


class TokenSignature(Scheme, tag="token", frozen=True, kw_only=True):
    """No signature, but a text in a header or in the query that only the vendor and we know."""

    header: str = ""
    prefix: str = ""
    """The text before it in the header, such as `Bearer `."""
    query: str = ""
    """The parameter of the query that holds it, in place of a header or beside it."""
    signs_body: ClassVar[bool] = False

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers without which a webhook is not the vendor's."""
        return (self.header.lower(),) if self.header and not self.query else ()

    @property
    def twins(self) -> tuple[str, ...]:  # type: ignore[override]
        """The header, if the query may hold the text as well."""
        return (self.header.lower(),) if self.header and self.query else ()

    @property
    def can_sign(self) -> bool:  # type: ignore[override]
        """False if the address holds the text, which is not ours to change."""
        return bool(self.header)

    def check(self) -> None:
        """Raise `OptionsInvalid` if there is no place for the text."""
        if not self.header and not self.query:
            raise OptionsInvalid("signature has no header and no query; name the one that holds the token")

    def carried(self) -> dict[str, tuple[str, ...]]:
        """Return the secrets, which the header holds as they are."""
        return {self.header.lower(): tuple(self.prefix + each.reveal() for each in self.secret)} if self.header else {}

    def verify(self, request: WebhookRequest, now: datetime) -> None:
        """Raise `SignatureInvalid` unless the request carries one of the secrets."""
        in_query = request.param(self.query) if self.query else None
        if in_query is not None:
            received = in_query.encode()
        else:
            text = required(request, self.header or f"{self.query} parameter, which takes the place of a")
            received = text.removeprefix(self.prefix).encode("latin-1") if text.startswith(self.prefix) else b""
        if not is_one_of(self.secret, received):
            raise SignatureInvalid(f"{self.header or self.query} is none that we know; check the secret")

    def sign(
        self,
        secret: Secret,
        key: str,
        body: bytes,
        url: str,
        now: datetime,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> dict[str, str] | None:
        """Return the header that carries `secret`; None if the query carries it."""
        return {self.header.lower(): self.prefix + secret.reveal()} if self.header else None
