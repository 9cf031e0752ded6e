"""The scheme in which a webhook comes with a JSON Web Token that names a hash of its body (JWS, HS256)."""

# ruff: noqa: ARG002 - all schemes verify and sign by the same names

import hashlib
import hmac
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from gapless_reconcilers.kit.contract import Secret, WebhookRequest
from gapless_reconcilers.kit.decoders import decode_or_none
from gapless_reconcilers.kit.errors import OptionsInvalid, SignatureInvalid
from gapless_reconcilers.kit.signatures import SigningKeys
from gapless_reconcilers.providers.rest_list.schemes import NO_HEADERS, UNKNOWN, Scheme, required

ALGORITHM: Final = "HS256"
_PARTS: Final = 3
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
        parts = text.removeprefix(self.prefix).strip().split(".", _PARTS)
        named = decode_or_none(_unpacked(parts[0]), dict[str, Any])
        if len(parts) != _PARTS or named is None or named.get("alg") != ALGORITHM:
            raise SignatureInvalid(f"{self.header} is no token that is signed with {ALGORITHM}", reason="bad_header")
        message, signature = f"{parts[0]}.{parts[1]}".encode("latin-1"), _unpacked(parts[2])
        made = [hmac.digest(key, message, "sha256") for key in SigningKeys(self.secret)]
        if not any([hmac.compare_digest(each, signature) for each in made]):  # noqa: C419 - each takes its time
            raise SignatureInvalid(UNKNOWN)
        claims = decode_or_none(_unpacked(parts[1]), dict[str, Any])
        if claims is None:
            raise SignatureInvalid("the token has no claims", reason="bad_header")
        return claims

    def _check_expiry(self, until: object, now: datetime) -> None:
        if until is None and not self.expires:
            return
        if isinstance(until, bool) or not isinstance(until, int | float):
            raise SignatureInvalid("the token has no time of expiry", reason="bad_header")
        if now.timestamp() - self.leeway.total_seconds() > until:  # an int of any size can be compared, not added
            raise SignatureInvalid("the token is out of date", reason="stale")


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


def _unpacked(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        return b""
