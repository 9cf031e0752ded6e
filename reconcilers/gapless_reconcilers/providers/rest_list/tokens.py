"""The scheme in which a webhook comes with a JSON Web Token that names a hash of its body (JWS, HS256)."""

# ruff: noqa: ARG002 - all schemes verify and sign by the same names

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from gapless_reconcilers.kit.contract import Secret, WebhookRequest
from gapless_reconcilers.kit.errors import OptionsInvalid, SignatureInvalid
from gapless_reconcilers.kit.jwt import check_not_after, read_token
from gapless_reconcilers.kit.signatures import SigningKeys
from gapless_reconcilers.providers.rest_list.schemes import NO_HEADERS, UNKNOWN, Scheme, required

ALGORITHM: Final = "HS256"
_PLAIN: Final = "-._~"
"""What is not escaped in a query, beside letters and digits."""


class JwtSignature(Scheme, tag="jwt", frozen=True, kw_only=True):
    """A token in a header, signed with HMAC-SHA256; no other algorithm is taken, whatever the token says."""

    header: str
    prefix: str = ""
    """The text before it, such as `Bearer `."""
    body_hash: str = ""
    """The claim with the SHA-256 of the body in hexadecimal; "": the token says nothing of the body."""
    request_hash: str = ""
    """The claim with the SHA-256 of method, path and sorted query (Atlassian's `qsh`); "": there is none."""
    path: str = ""
    """The path that is hashed, as the vendor knows it: our address after the address of the app."""
    claims: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    """What other claims must be, such as `iss`, and `aud` if it is our address."""
    expires: bool = False
    """True if it must have a time of expiry, in `exp`; one that it has is never ignored."""
    leeway: timedelta = timedelta(seconds=30)
    """The accepted difference between the clocks."""

    @property
    def signs_body(self) -> bool:  # type: ignore[override]
        """False if the token says nothing of the body."""
        return bool(self.body_hash)

    @property
    def can_sign(self) -> bool:  # type: ignore[override]
        """False: what else its claims say, only the vendor knows."""
        return False

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers without which a webhook is not the vendor's."""
        return (self.header.lower(),)

    def check(self) -> None:
        """Raise `OptionsInvalid` if it would be compared with the hash of no path."""
        if bool(self.request_hash) != bool(self.path):
            raise OptionsInvalid("signature.request_hash and signature.path belong together; name both, or neither")

    def verify(self, request: WebhookRequest, now: datetime) -> None:
        """Raise `SignatureInvalid` unless the token is signed with one of the secrets, in time, and about this body."""
        claims = self._claims(required(request, self.header))
        if self.body_hash:
            wanted = hashlib.sha256(request.body).hexdigest()
            if not hmac.compare_digest(wanted.encode(), str(claims.get(self.body_hash)).lower().encode()):
                raise SignatureInvalid("the token is about another body")
        if self.request_hash and claims.get(self.request_hash) != request_hash(request, self.path):
            raise SignatureInvalid("the token is about another address")
        for name, value in self.claims.items():
            found = claims.get(name)
            if value not in (found if isinstance(found, list) else [found]):
                raise SignatureInvalid(f"the token's {name} is not the one that is wanted")
        self._check_expiry(claims.get("exp"), now)

    def sign(
        self,
        secret: Secret,
        key: str,
        body: bytes,
        url: str,
        now: datetime,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        """Return None: only the vendor knows what else its token says."""
        return

    def _claims(self, text: str) -> dict[str, Any]:
        token = read_token(text.removeprefix(self.prefix), ALGORITHM)
        made = [hmac.digest(key, token.message, "sha256") for key in SigningKeys(self.secret)]
        if not any([hmac.compare_digest(each, token.signature) for each in made]):  # noqa: C419 - each takes its time
            raise SignatureInvalid(UNKNOWN)
        return token.claims

    def _check_expiry(self, until: object, now: datetime) -> None:
        if until is not None or self.expires:
            check_not_after(until, now, self.leeway)


def request_hash(request: WebhookRequest, path: str) -> str:
    """Return the hash of method, `path` and query. Raises `MalformedWebhook`.

    Source: atlassian-jwt 2.0.3 (createCanonicalRequest); read November 2026.
    """
    values: dict[str, list[str]] = {}
    for name, value in request.params():
        if name != "jwt":
            values.setdefault(quote(name, safe=_PLAIN), []).append(quote(value, safe=_PLAIN))
    query = "&".join(f"{name}={','.join(sorted(values[name]))}" for name in sorted(values))
    return hashlib.sha256(f"{request.method}&{path}&{query}".encode()).hexdigest()
