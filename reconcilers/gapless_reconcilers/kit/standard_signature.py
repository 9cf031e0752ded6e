"""The scheme of Standard Webhooks: id, time and body signed with a shared secret, or with the sender's ed25519 key.

Source: the Standard Webhooks specification and standardwebhooks 1.1.0, svix 2.9.1, read November 2026.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gapless_reconcilers.kit.contract import EARLIEST, LATEST, Secret, WebhookRequest
from gapless_reconcilers.kit.errors import SignatureInvalid
from gapless_reconcilers.kit.signatures import MOST_SIGNATURES, hmac_sha256_base64, is_signed_by_any, split_bounded

HEADERS: Final = ("webhook-signature", "webhook-id", "webhook-timestamp")
TWIN_HEADERS: Final = ("svix-signature", "svix-id", "svix-timestamp")
"""The names that Svix used before the specification."""
PREFIXES: Final = ("webhook", "svix")
SYMMETRIC, PUBLIC = "whsec_", "whpk_"
_SECONDS: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sent:
    """The message's id, which stays the same over retries, and the second at which it was sent, from the headers."""

    id: str
    at_s: int


class StandardKeys:
    """The secrets of one sender: `whsec_…` (symmetric), `whpk_…` (the sender's public key), any number of each."""

    __slots__ = ("_public", "_symmetric", "unusable")

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._symmetric = [key for secret in secrets if (key := symmetric_key(secret)) is not None]
        self._public = [owner for secret in secrets if (owner := public_key(secret)) is not None]
        self.unusable = len(secrets) - len(self._symmetric) - len(self._public)

    def verify(self, request: WebhookRequest, now: datetime, tolerance: timedelta) -> Sent:
        """Return id and time. Raises `SignatureInvalid` unless one of the keys signed, within `tolerance` of `now`."""
        sent, signatures = _headers(request)
        message = _message(sent.id.encode("latin-1"), sent.at_s, request.body)
        theirs: dict[str, list[bytes]] = {"v1": [], "v1a": []}
        for version, _, text in (each.partition(",") for each in signatures):
            theirs.get(version, []).append(text.encode("latin-1"))
        is_ours = is_signed_by_any(self._symmetric, theirs["v1"], message, hmac_sha256_base64)
        if not is_ours and not _is_signed_by_owner(self._public, theirs["v1a"], message):
            raise SignatureInvalid("no signature is that of a secret we know; check secret")
        if abs(now.timestamp() - sent.at_s) > tolerance.total_seconds():
            raise SignatureInvalid("the webhook's time is too far from ours; check the clock", reason="stale")
        return sent

    def __repr__(self) -> str:
        return f"StandardKeys({len(self._symmetric)}, {len(self._public)})"


def sign(secret: Secret, message_id: str, body: bytes, now: datetime) -> dict[str, str] | None:
    """Return the three headers for `body`, sent at `now`; None if the secret is not symmetric."""
    key = symmetric_key(secret)
    return None if key is None else signed_headers(key, message_id, int(now.timestamp()), body)


def signed_headers(key: bytes, message_id: str, sent_at_s: int, body: bytes) -> dict[str, str]:
    """Return the three headers of the standard."""
    signature = hmac_sha256_base64(key, _message(message_id.encode(), sent_at_s, body)).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(sent_at_s), "webhook-signature": f"v1,{signature}"}


def symmetric_key(secret: Secret) -> bytes | None:
    """Return the signing key; None if `secret` is not symmetric. Prefix and padding are optional."""
    text = secret.reveal()
    if text.startswith(PUBLIC):
        return None
    encoded = text.removeprefix(SYMMETRIC).rstrip("=")
    return _base64(encoded + "=" * (-len(encoded) % 4)) or None


def public_key(secret: Secret) -> Ed25519PublicKey | None:
    """Return the sender's public key; None if `secret` is not one."""
    text = secret.reveal()
    raw = _base64(text.removeprefix(PUBLIC)) if text.startswith(PUBLIC) else None
    try:
        return Ed25519PublicKey.from_public_bytes(raw) if raw else None
    except ValueError:
        return None


def _message(message_id: bytes, at_s: int, body: bytes) -> bytes:
    return b"%b.%d.%b" % (message_id, at_s, body)


def _headers(request: WebhookRequest) -> tuple[Sent, list[str]]:
    """Return id, time and signatures from the headers of one prefix. Raises `SignatureInvalid`."""
    family = next((each for each in PREFIXES if request.header(f"{each}-signature") is not None), None)
    if family is None:
        raise SignatureInvalid("there is no webhook-signature header", reason="no_signature")
    key, time = request.header(f"{family}-id"), request.header(f"{family}-timestamp")
    if not key or not key.isascii() or time is None or not _SECONDS.fullmatch(time):
        raise SignatureInvalid(f"{family}-id or {family}-timestamp is missing or unreadable", reason="bad_header")
    if not EARLIEST.timestamp() <= int(time) < LATEST.timestamp():
        raise SignatureInvalid(f"{family}-timestamp is no time of ours", reason="stale")
    signatures = split_bounded(request.header(f"{family}-signature") or "", " ", MOST_SIGNATURES)
    return Sent(key, int(time)), signatures


def _is_signed_by_owner(keys: Iterable[Ed25519PublicKey], signatures: Iterable[bytes], message: bytes) -> bool:
    candidates = [raw for text in signatures if (raw := _base64(text)) is not None]
    for key in keys:
        for signature in candidates:
            try:
                key.verify(signature, message)
            except InvalidSignature:
                continue
            return True
    return False


def _base64(text: str | bytes) -> bytes | None:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
