"""A certificate authority of our own, with an intermediate: what stands behind a webhook's signature."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Authority:
    """A root and an intermediate, valid from `start` on."""

    def __init__(self, start: datetime | None = None, days: int = 30) -> None:
        self._start = start or datetime.now(UTC) - timedelta(days=1)
        self._end = self._start + timedelta(days=days)
        self._root_key, self._middle_key = generate_private_key(65537, 2048), generate_private_key(65537, 2048)
        self._root = self._made("Our root", "Our root", self._root_key, self._root_key, authority=True)
        self._middle = self._made("Our intermediate", "Our root", self._middle_key, self._root_key, authority=True)

    def root_pem(self) -> bytes:
        """What is to be trusted."""
        return self._root.public_bytes(Encoding.PEM)

    def leaf(
        self, host: str, *, days: int | None = None, alone: bool = False, of_client: bool = False
    ) -> tuple[bytes, RSAPrivateKey]:
        """A certificate of `host` with its intermediate (unless it is to come `alone`) as PEM, and its key.

        `of_client`: it is one that a client shows.
        """
        key = generate_private_key(65537, 2048)
        end = None if days is None else self._start + timedelta(days=days)
        made = self._made(host, "Our intermediate", key, self._middle_key, host=host, end=end, of_client=of_client)
        chain = [made] if alone else [made, self._middle]
        return b"".join(each.public_bytes(Encoding.PEM) for each in chain), key

    def _made(
        self,
        subject: str,
        issuer: str,
        key: RSAPrivateKey,
        signer: RSAPrivateKey,
        *,
        authority: bool = False,
        host: str = "",
        end: datetime | None = None,
        of_client: bool = False,
    ) -> x509.Certificate:
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject, issuer)]
        usage = x509.KeyUsage(
            digital_signature=not authority,
            key_cert_sign=authority,
            crl_sign=authority,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[0])
            .issuer_name(names[1])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._start)
            .not_valid_after(end or self._end)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if host:
            purpose = ExtendedKeyUsageOID.CLIENT_AUTH if of_client else ExtendedKeyUsageOID.SERVER_AUTH
            alternative = x509.SubjectAlternativeName([x509.DNSName(host)])
            builder = builder.add_extension(alternative, critical=False).add_extension(
                x509.ExtendedKeyUsage([purpose]), critical=False
            )
        return builder.sign(signer, SHA256())
