"""HMAC signatures: computed in one call, compared in constant time, several secrets against several signatures.

For providers only. Signatures are compared as bytes: one that is not hex, base64 or ASCII is unequal and no error.
"""

import hmac
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from gapless_reconcilers.kit import tolerant
from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.errors import SignatureInvalid

MOST_SIGNATURES: Final = 16
"""Most signatures in one header: a vendor sends one for each secret that it still uses, and each costs an HMAC."""
MOST_PARTS: Final = 64
"""Most parts of a header that has names and values, those that nobody reads included."""
_BLANKS = " \t\r\n\f\v"
"""The characters of which stripe-python takes a secret to be empty; ASCII only."""


class SigningKeys:
    """Secrets as UTF-8 bytes, encoded once. Blank ones are left out: anybody could sign with them."""

    __slots__ = ("_keys",)

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._keys = tuple(secret.reveal().encode() for secret in secrets if secret.reveal().strip(_BLANKS))

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)

    def __repr__(self) -> str:
        return f"SigningKeys({len(self._keys)})"


def hmac_sha256_hex(key: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA256 of `message` as lower-case hex (Stripe, GitHub, GoCardless, Paddle)."""
    return hmac.digest(key, message, "sha256").hex().encode()


def hmac_sha256_base64(key: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA256 of `message` as standard base64 with padding (Shopify, Square, Standard Webhooks)."""
    return b64encode(hmac.digest(key, message, "sha256"))


def require_single_names(body: bytes) -> None:
    """Raise `SignatureInvalid` if a name stands twice in an object of the JSON `body`.

    For a signature of values. We would take one of the two, and another reader of the same bytes the other, so that
    who has seen one signed message could put a value of his own before or behind the signed one.
    """
    if tolerant.has_repeated_name(body):
        raise SignatureInvalid(
            "a name stands twice in the body, and the signature covers one of them", reason="malformed"
        )


def is_same(expected: bytes, received: bytes) -> bool:
    """Return True if the two are equal. The time taken does not show where they differ."""
    return hmac.compare_digest(expected, received)


def is_signed_by_any(
    keys: Iterable[bytes],
    signatures: Sequence[bytes],
    message: bytes,
    sign: Callable[[bytes, bytes], bytes] = hmac_sha256_hex,
) -> bool:
    """Return True if one of `keys` signs `message` with one of `signatures`.

    While a secret is rolled, the vendor sends several signatures and we know several secrets; any pair
    suffices. `sign(key, message)` is computed once per key.
    """
    for key in keys:
        expected = sign(key, message)
        for signature in signatures:
            if hmac.compare_digest(expected, signature):
                return True
    return False


def parse_timed_signatures(header: str, *, time: str, scheme: str) -> tuple[int, list[bytes]]:
    """Return the time and the signatures of a header such as `t=1700000000,v1=5257a8…,v1=…` (Stripe, Paddle, WorkOS).

    Parsed like stripe-python 16.1.0: the first `time` counts, every `scheme` counts, other names are
    ignored, blanks are part of a name. Raises `SignatureInvalid`.
    """
    items = [item.split("=", 2) for item in split_bounded(header, ",", MOST_PARTS)]
    try:
        sent_at = int([item[1] for item in items if item[0] == time][0])  # noqa: RUF015 - each must have a value
        signatures = [item[1].encode("latin-1") for item in items if item[0] == scheme]
    except (IndexError, ValueError):
        raise SignatureInvalid(f"the signature is not of the form {time}=…,{scheme}=…", reason="bad_header") from None
    return sent_at, bounded(signatures)


def split_bounded(header: str, separator: str, most: int) -> list[str]:
    """Return the parts of a header. Raises `SignatureInvalid` if it has more than `most`, without building them."""
    parts = header.split(separator, most)
    if len(parts) > most:
        raise SignatureInvalid(f"the signature header has more than {most} parts", reason="bad_header")
    return parts


def bounded(signatures: list[bytes]) -> list[bytes]:
    """Return `signatures`. Raises `SignatureInvalid` if they are more than `MOST_SIGNATURES`."""
    if len(signatures) > MOST_SIGNATURES:
        raise SignatureInvalid(f"the header has more than {MOST_SIGNATURES} signatures", reason="bad_header")
    return signatures
