"""Signs a report with Ed25519, and verifies it: anybody who has the public key can tell that nothing was changed.

The signature stands beside the report, as `<name>.sig`: 64 bytes in base64, of the report's bytes as they are.
"""

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from gapless.errors import UserError


class KeyInvalid(UserError):
    """The file has no key that signs or verifies reports."""


def signature_path(report: Path) -> Path:
    """Return where the signature of a report stands."""
    return report.with_name(f"{report.name}.sig")


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Return the key of a PEM file without a password. Raises `KeyInvalid`; no message has a part of the file."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyInvalid(
            f"{path} is no Ed25519 private key in PEM without a password; make one: "
            "openssl genpkey -algorithm ed25519 -out audit.pem"
        )
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Return the key of a PEM file. Raises `KeyInvalid`."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyInvalid(
            f"{path} is no Ed25519 public key in PEM; make it from the private one: "
            "openssl pkey -in audit.pem -pubout -out audit.pub.pem"
        )
    return key


def sign(report: Path, key: Ed25519PrivateKey) -> Path:
    """Write the report's signature beside it, and return its path."""
    path = signature_path(report)
    path.write_bytes(base64.b64encode(key.sign(report.read_bytes())) + b"\n")
    return path


def is_genuine(report: Path, key: Ed25519PublicKey) -> bool:
    """Return True if the signature beside the report is of these bytes and of this key. Raises `OSError`."""
    try:
        signature = base64.b64decode(signature_path(report).read_bytes().strip(), validate=True)
        key.verify(signature, report.read_bytes())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
