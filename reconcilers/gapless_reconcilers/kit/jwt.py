"""Read signed JSON Web Tokens (JWS in its compact form). Whoever reads one names the algorithm, never the token."""

from base64 import urlsafe_b64decode
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from gapless_reconcilers.kit.decoders import decode_or_none
from gapless_reconcilers.kit.errors import SignatureInvalid

_PARTS: Final = 3
_ES256_BYTES: Final = 64


class Token(NamedTuple):
    """A token that nobody has verified yet: its header and claims, the signed bytes, and the signature."""

    header: dict[str, Any]
    claims: dict[str, Any]
    message: bytes
    signature: bytes

    def key_id(self) -> str:
        """Return the id of the key that signed it. Raises `SignatureInvalid`."""
        found = self.header.get("kid")
        if not isinstance(found, str) or not found:
            raise SignatureInvalid("the token names no key", reason="bad_header")
        return found


def read_token(text: str, algorithm: str) -> Token:
    """Return the token in `text`. Raises `SignatureInvalid` if it is none, or names another algorithm."""
    parts = text.strip().split(".", _PARTS)
    header = decode_or_none(unpacked(parts[0]), dict[str, Any])
    if len(parts) != _PARTS or header is None or header.get("alg") != algorithm:
        raise SignatureInvalid(f"the header is no token that is signed with {algorithm}", reason="bad_header")
    claims = decode_or_none(unpacked(parts[1]), dict[str, Any])
    if claims is None:
        raise SignatureInvalid("the token has no claims", reason="bad_header")
    message = f"{parts[0]}.{parts[1]}".encode("latin-1", "replace")
    return Token(header=header, claims=claims, message=message, signature=unpacked(parts[2]))


def check_not_after(until: object, now: datetime, leeway: timedelta) -> None:
    """Raise `SignatureInvalid` unless `until`, in seconds since 1970, is still to come."""
    if isinstance(until, bool) or not isinstance(until, int | float):
        raise SignatureInvalid("the token has no time of expiry", reason="bad_header")
    if now.timestamp() - leeway.total_seconds() > until:  # an int of any size can be compared, not added
        raise SignatureInvalid("the token is out of date", reason="stale")


def check_issued(at: object, now: datetime, within: timedelta) -> float:
    """Return the time `at` which it was made, if that is within a time of `now`. Raises `SignatureInvalid`."""
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise SignatureInvalid("the token does not say when it was made", reason="bad_header")
    present, most = now.timestamp(), within.total_seconds()
    if at < present - most or at > present + most:
        raise SignatureInvalid("the token's time is too far from ours; check the clock", reason="stale")
    return float(at)


def is_es256(token: Token, x: str, y: str) -> bool:
    """Return True if the owner of the P-256 key (`x`, `y` in base64url) signed the token."""
    point = [int.from_bytes(unpacked(each)) for each in (x, y)]
    if len(token.signature) != _ES256_BYTES:
        return False
    half = _ES256_BYTES // 2
    numbers = [int.from_bytes(each) for each in (token.signature[:half], token.signature[half:])]
    try:
        key = EllipticCurvePublicNumbers(point[0], point[1], SECP256R1()).public_key()
        key.verify(encode_dss_signature(*numbers), token.message, ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def unpacked(text: str) -> bytes:
    """Return the bytes behind base64url without padding; none if it is not."""
    try:
        return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        return b""
