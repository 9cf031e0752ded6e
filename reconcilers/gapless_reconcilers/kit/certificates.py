"""Verify the certificate that comes with a webhook, and the signature made with its key.

The roots are those of `certifi`, which is read once: it is a list of public keys and not our state.
"""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache

import certifi
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError


class NotTrusted(ValueError):
    """The certificate proves nothing; the message says why."""


@cache
def public_roots() -> tuple[x509.Certificate, ...]:
    """Return the roots that the public web trusts, without those that break the rules of their own format."""
    end = "-----END CERTIFICATE-----"
    roots = []
    with warnings.catch_warnings(action="error", category=CryptographyDeprecationWarning):
        for text in certifi.contents().split(end)[:-1]:
            with suppress(ValueError, CryptographyDeprecationWarning):
                roots += x509.load_pem_x509_certificates(f"{text}{end}".encode())
    return tuple(roots)


@cache
def read_roots(pem: str) -> tuple[x509.Certificate, ...]:
    """Return the certificates in `pem`. Raises `ValueError` if there is none."""
    return tuple(x509.load_pem_x509_certificates(pem.encode()))


def trusted_key(pem: bytes, roots: Sequence[x509.Certificate], domain: str, now: datetime) -> RSAPublicKey:
    """Return the RSA key of the first certificate in `pem`; the others are its chain to one of `roots`.

    The certificate must be valid at `now` and name a host below `domain`. Raises `NotTrusted`.
    """
    try:
        leaf, *others = x509.load_pem_x509_certificates(pem)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = names.get_values_for_type(x509.DNSName)
        key = leaf.public_key()
    except (ValueError, x509.ExtensionNotFound, x509.UnsupportedGeneralNameType) as error:
        raise NotTrusted(f"the certificate cannot be read: {type(error).__name__}") from error
    host = next((each for each in hosts if each.endswith(f".{domain}")), None)
    if host is None:
        raise NotTrusted(f"the certificate is of no host below {domain}")
    if not isinstance(key, RSAPublicKey):
        raise NotTrusted("the certificate's key is no RSA key")
    verifier = PolicyBuilder().store(Store(list(roots))).time(now).build_server_verifier(x509.DNSName(host))
    try:
        verifier.verify(leaf, others)
    except VerificationError as error:
        raise NotTrusted("no root that we trust stands behind the certificate, or it is out of date") from error
    return key


def is_signed_with(key: RSAPublicKey, signature: bytes, message: bytes) -> bool:
    """Return True if the key's owner signed `message` with `signature`: RSA with SHA-256."""
    try:
        key.verify(signature, message, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True
