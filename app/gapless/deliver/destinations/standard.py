"""The secret of a delivery that is signed by Standard Webhooks, the default: libraries for every language verify it.

Source: the Standard Webhooks specification, version 1.0.0, read November 2026.
"""

import binascii
from base64 import b64decode

from gapless_reconcilers.kit.contract import Secret

PREFIX = "whsec_"


def signing_key(secret: Secret) -> bytes:
    """The key that the secret stands for: base64, with or without `whsec_`. Raises `ValueError`, never showing it."""
    text = secret.reveal().strip().removeprefix(PREFIX)
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(
            "the secret of a standard signature is not base64; wanted whsec_ and the base64 of 24 to 64 random bytes"
        )
    return key
