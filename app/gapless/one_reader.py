"""Seals a short text so that one reader alone can open it: whoever has the ledger cannot. Pure, but for random numbers.

The reader makes a pair of keys for one text and shows the public one. Whoever seals makes a pair too (X25519); their
common secret gives the key (HKDF-SHA256) of AES-256-GCM. It is used once, so its nonce is fixed.
"""

from base64 import b64decode, b64encode
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
_NONCE: Final = bytes(12)
_INFO: Final = b"gapless one reader"


class Reader:
    """The reader of one text."""

    def __init__(self) -> None:
        self._key = X25519PrivateKey.generate()

    @property
    def address(self) -> str:
        """The public key, in base64: what it takes to seal."""
        return b64encode(self._key.public_key().public_bytes_raw()).decode()

    def open(self, sealed: str) -> str:
        """Return the text. Raises `ValueError` if it was sealed for another reader."""
        raw = b64decode(sealed, validate=True)
        theirs = X25519PublicKey.from_public_bytes(raw[:KEY_BYTES])
        try:
            return _cipher(self._key, theirs, raw[:KEY_BYTES]).decrypt(_NONCE, raw[KEY_BYTES:], None).decode()
        except InvalidTag:
            raise ValueError("the text is sealed for another reader") from None


def is_address(text: str) -> bool:
    """Return True if `text` can be sealed for."""
    try:
        seal("", text)
    except ValueError:
        return False
    return True


def seal(text: str, address: str) -> str:
    """Return `text` so that only the reader of `address` can open it. Raises `ValueError` if that is no address."""
    ours = X25519PrivateKey.generate()
    public = ours.public_key().public_bytes_raw()
    theirs = X25519PublicKey.from_public_bytes(b64decode(address, validate=True))
    return b64encode(public + _cipher(ours, theirs, public).encrypt(_NONCE, text.encode(), None)).decode()


def _cipher(ours: X25519PrivateKey, theirs: X25519PublicKey, salt: bytes) -> AESGCM:
    derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=_INFO)
    return AESGCM(derived.derive(ours.exchange(theirs)))
