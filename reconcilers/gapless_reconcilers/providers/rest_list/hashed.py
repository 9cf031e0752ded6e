"""The scheme in which a plain hash of the secret and the signed text stands for a signature."""

import hashlib
from base64 import b64encode

from gapless_reconcilers.providers.rest_list.hmacs import HmacSignature


class HashSignature(HmacSignature, tag="hash", frozen=True, kw_only=True):
    """A hash of the secret with the signed text behind it, which is no HMAC: prefer another scheme of the vendor.

    Whoever has seen one can make that of a longer text. Bytes that are no UTF-8 then stand in it, so it is no JSON.
    """

    def mac(self, key: bytes, message: bytes) -> bytes:
        """Return the hash of key and `message` as the vendor writes it."""
        made = hashlib.new(self.digest, key + message).digest()
        return made.hex().encode() if self.encoding == "hex" else b64encode(made)
