"""Reports are signed and verified, here and with openssl."""

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gapless.operations.signing import KeyInvalid, is_genuine, read_private_key, read_public_key, sign


def write_keys(folder: Path, name: str = "audit") -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_report_that_was_changed_is_not_genuine(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    report = tmp_path / "october.html"
    report.write_text("complete")
    signature = sign(report, read_private_key(private))
    assert is_genuine(report, read_public_key(public))
    _, other = write_keys(tmp_path, "other")
    assert not is_genuine(report, read_public_key(other))
    report.write_text("complete!")
    assert not is_genuine(report, read_public_key(public))
    report.write_text("complete")
    for broken in (b"", b"no base64 \xff", base64.b64encode(b"x" * 64)):
        signature.write_bytes(broken)
        assert not is_genuine(report, read_public_key(public))


def test_openssl_verifies_it_too(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    report = tmp_path / "october.json"
    report.write_text("{}")
    (tmp_path / "raw").write_bytes(base64.b64decode(sign(report, read_private_key(private)).read_bytes()))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", report, "-sigfile"]
    done = subprocess.run([*command, tmp_path / "raw"], capture_output=True, text=True, check=False)
    assert "Verified Successfully" in done.stdout


def test_another_file_is_no_key(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    with pytest.raises(KeyInvalid, match="openssl genpkey"):
        read_private_key(public)
    with pytest.raises(KeyInvalid, match="-pubout"):
        read_public_key(private)
