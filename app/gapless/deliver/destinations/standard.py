"""Standard Webhooks: how a delivery is signed by default. Libraries that verify it exist for every language.

Source: the Standard Webhooks specification, version 1.0.0, read November 2026.
"""

import binascii
from base64 import b64decode

from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.signing import hmac_sha256_base64

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


def signed_headers(key: bytes, message_id: str, sent_at_s: int, body: bytes) -> dict[str, str]:
    """The three headers of the standard."""
    signature = hmac_sha256_base64(key, b"%b.%d.%b" % (message_id.encode(), sent_at_s, body)).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(sent_at_s), "webhook-signature": f"v1,{signature}"}
