"""HMAC signatures: computed in one call, compared in constant time, several secrets against several signatures.

For providers only. Signatures are compared as bytes: one that is not hex, not base64 or not ASCII is
simply not equal, never an error.
"""

import hmac
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence

from gapless_reconcilers.kit.contract import Secret
from gapless_reconcilers.kit.errors import SignatureInvalid

_BLANKS = " \t\r\n\f\v"
"""What stripe-python takes for an empty secret, and nothing beyond ASCII."""


class SigningKeys:
    """Secrets as the UTF-8 bytes that sign, encoded once. Blank ones are left out: they would sign anything."""

    __slots__ = ("_keys",)

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._keys = tuple(secret.reveal().encode() for secret in secrets if secret.reveal().strip(_BLANKS))

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)

    def __repr__(self) -> str:
        return f"SigningKeys({len(self._keys)})"


def hmac_sha256_hex(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 of `message` as lower-case hex (Stripe, GitHub, GoCardless, Paddle)."""
    return hmac.digest(key, message, "sha256").hex().encode()


def hmac_sha256_base64(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256 of `message` as standard base64 with padding (Shopify, Square, Standard Webhooks)."""
    return b64encode(hmac.digest(key, message, "sha256"))


def is_same(expected: bytes, received: bytes) -> bool:
    """Whether the two are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(expected, received)


def is_signed_by_any(
    keys: Iterable[bytes],
    signatures: Sequence[bytes],
    message: bytes,
    sign: Callable[[bytes, bytes], bytes] = hmac_sha256_hex,
) -> bool:
    """Whether one of `signatures` is the one that one of `keys` gives `message`.

    While a secret is rolled the vendor sends several signatures and we know several secrets; any pair
    will do. `sign(key, message)` is computed once per key.
    """
    for key in keys:
        expected = sign(key, message)
        for signature in signatures:
            if hmac.compare_digest(expected, signature):
                return True
    return False


def parse_timed_signatures(header: str, *, time: str, scheme: str) -> tuple[int, list[bytes]]:
    """The time and the signatures of a header such as `t=1700000000,v1=5257a8…,v1=…` (Stripe, Paddle, WorkOS).

    Read as stripe-python 16.1.0 reads it: the first `time` counts, every `scheme`, other names are
    passed over, blanks are part of a name. Raises `SignatureInvalid`.
    """
    items = [item.split("=", 2) for item in header.split(",")]
    try:
        sent_at = int([item[1] for item in items if item[0] == time][0])  # noqa: RUF015 - each must have a value
        signatures = [item[1].encode("latin-1") for item in items if item[0] == scheme]
    except (IndexError, ValueError):
        raise SignatureInvalid(f"the signature is not of the form {time}=…,{scheme}=…", reason="bad_header") from None
    return sent_at, signatures
