"""The scheme in which only the vendor can sign: with a key of which we have the public half."""

# ruff: noqa: ARG002 - all schemes verify and sign by the same names

from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.providers.rest_list.hmacs import SignedText
from gapless_reconcilers.providers.rest_list.schemes import NO_HEADERS

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey
_RAW_BYTES = 32
"""The bytes of an ed25519 key."""


class PublicKeySignature(SignedText, tag="public_key", frozen=True, kw_only=True):
    """ed25519, ECDSA with SHA-256, or RSA (PKCS #1 v1.5) with SHA-256. `secret` is the vendor's public key.

    A key is PEM, base64 of DER, or, for ed25519, 32 bytes in hexadecimal or base64.
    """

    algorithm: Literal["ed25519", "ecdsa", "rsa"]
    can_sign: ClassVar[bool] = False

    def fits(self, signatures: list[bytes], message: bytes) -> bool:
        """Return True if the owner of one of the keys made one of `signatures` of `message`."""
        made = [self._decoded(each) for each in signatures]
        keys = [key for secret in self.secret if (key := read_key(secret.reveal(), self.algorithm)) is not None]
        return any(_is_signed(key, each, message) for key in keys for each in made if each)

    def sign(
        self,
        secret: Secret,
        key: str,
        body: bytes,
        url: str,
        now: datetime,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        """Return None: only the vendor has the key."""
        return

    @property
    def unusable(self) -> int:
        """The number of keys that can verify nothing."""
        return sum(read_key(each.reveal(), self.algorithm) is None for each in self.secret)

    def _decoded(self, signature: bytes) -> bytes:
        try:
            return bytes.fromhex(signature.decode()) if self.encoding == "hex" else b64decode(signature, validate=True)
        except ValueError:
            return b""


@cache
def read_key(text: str, algorithm: str) -> PublicKey | None:
    """Return the public key in `text`, or None if there is none of this algorithm."""
    wanted: Any = {"ed25519": Ed25519PublicKey, "ecdsa": EllipticCurvePublicKey, "rsa": RSAPublicKey}[algorithm]
    try:
        if text.lstrip().startswith("-----BEGIN"):
            key: Any = load_pem_public_key(text.encode())
        else:
            raw = _raw(text.strip())
            key = Ed25519PublicKey.from_public_bytes(raw) if len(raw) == _RAW_BYTES else load_der_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        return None
    found: PublicKey | None = key if isinstance(key, wanted) else None
    return found


def _raw(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b64decode(text, validate=True)


def _is_signed(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        elif isinstance(key, RSAPublicKey):
            key.verify(signature, message, PKCS1v15(), SHA256())
        else:
            key.verify(signature, message, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
