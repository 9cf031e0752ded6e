"""Keeps secrets that webhooks carry out of the ledger: a token or a password is stored as a keyed digest at most.

Who has the ledger must not be able to send webhooks. The digest tells whether a refused webhook carried a secret that
is known now, so that it can be explained and released. Pure.
"""

import hmac
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from gapless_reconcilers.kit.contract import CarriesSecret, Provider, WebhookRequest

DIGEST: Final = "hmac-sha256:"
"""The beginning of what is stored in the place of a secret."""


def secret_headers(provider: Provider) -> frozenset[bytes]:
    """Return the names of the headers that carry a secret, as a request has them."""
    named = set(provider.carried_secrets()) if isinstance(provider, CarriesSecret) else set[str]()
    if not provider.capabilities.signs_body:
        named.update(provider.capabilities.signature_headers)
    return frozenset(name.encode() for name in named)


def digest_of(key: str, name: str, value: str) -> str:
    """Return what is stored in the place of the value of the header `name`; `key` is that of its source."""
    mac = hmac.digest(key.encode(), b"%b\0%b" % (name.encode(), value.encode("latin-1", "replace")), "sha256")
    return DIGEST + mac.hex()


def is_digest(value: bytes) -> bool:
    """Return True if a header of a kept webhook has a digest in the place of its value."""
    return value.startswith(DIGEST.encode())


def hidden(pairs: Iterable[tuple[str, str]], names: frozenset[bytes], key: str) -> list[tuple[str, str]]:
    """Return the headers, each secret among them as its digest."""
    return [(name, digest_of(key, name, value) if name.encode() in names else value) for name, value in pairs]


def revealed(request: WebhookRequest, providers: Iterable[Provider], key: str) -> WebhookRequest:
    """Return a kept request with the secrets that one of `providers` knows; a digest of any other stays as it is."""
    if not any(is_digest(value) for _, value in request.headers):
        return request
    known: Mapping[str, str] = {
        digest_of(key, name, value): value
        for provider in providers
        if isinstance(provider, CarriesSecret)
        for name, values in provider.carried_secrets().items()
        for value in values
    }
    headers = tuple((name, known.get(value.decode("latin-1"), "").encode() or value) for name, value in request.headers)
    return msgspec.structs.replace(request, headers=headers)
