"""TLS for clients that require it: a certificate authority of the hub's own, and a server certificate signed by it.

The authority is created once and stored in a folder of the user's. Name constraints (RFC 5280, section 4.2.1.10) limit
it to this machine's names and to Google's API hosts, so a client that trusts it trusts it for nothing else. The
server certificate is created at each start; its key is on disk only while OpenSSL loads it.
"""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from haversack import disk
from haversack.errors import InputError
from haversack.hub.proxy import GOOGLE_DOMAIN

_AUTHORITY_VALIDITY = timedelta(days=3650)
_SERVER_VALIDITY = timedelta(days=365)
_Names = list[x509.GeneralName]


@dataclass(frozen=True)
class Authority:
    """A certificate authority on disk: `certificate` is the PEM file for clients to trust, `key` its private key."""

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return a server's TLS context with a new certificate for localhost, 127.0.0.1 and Google's API hosts.

        The certificate is signed by this authority and valid for a year. Raises `OSError` or `ValueError` if the
        authority's files cannot be read or the certificate cannot be written to a temporary file beside them.
        """
        authority_certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        authority_key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        names: _Names = [x509.DNSName(name) for name in ("localhost", GOOGLE_DOMAIN, f"*.{GOOGLE_DOMAIN}")]
        names.append(x509.IPAddress(ip_address("127.0.0.1")))
        signed = (
            _certificate_builder("haversack hub", authority_certificate.subject, key.public_key(), _SERVER_VALIDITY)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
            .sign(authority_key, hashes.SHA256())
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with tempfile.NamedTemporaryFile(dir=self.key.parent) as file:
            file.write(_pem(key) + signed.public_bytes(serialization.Encoding.PEM))
            file.flush()
            context.load_cert_chain(file.name)
        return context


def load_authority(folder: Path) -> Authority:
    """Load the authority stored in `folder`; create it if a file is missing or damaged, or if it expires within a year.

    Clients have to trust a new authority again. Raises `InputError` if the folder cannot be created, read or written.
    """
    files = Authority(folder / "ca.pem", folder / "ca-key.pem")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_usable(files):
            _generate(files)
    except OSError as error:
        raise InputError(
            f"The hub cannot store its certificate authority in {folder} ({error.strerror}).",
            "Make the folder writable, or choose another data folder with HAVERSACK_DATA.",
        ) from error
    return files


def _is_usable(files: Authority) -> bool:
    """Whether both files exist, match, and outlast a server certificate that is issued now."""
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    except (FileNotFoundError, ValueError):
        return False
    return (
        certificate.public_key() == key.public_key()
        and certificate.not_valid_after_utc > datetime.now(UTC) + _SERVER_VALIDITY
    )


def _generate(files: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _common_name("haversack authority of this machine")
    permitted: _Names = [
        x509.DNSName("localhost"),
        x509.DNSName(GOOGLE_DOMAIN),
        x509.IPAddress(ip_network("127.0.0.1/32")),
    ]
    usage = {"digital_signature", "key_cert_sign", "crl_sign"}
    possible = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    certificate = (
        _certificate_builder("haversack authority of this machine", subject, key.public_key(), _AUTHORITY_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{name: name in usage for name in possible}), critical=True)
        .add_extension(x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    disk.write(files.key, _pem(key), private=True)
    disk.write(files.certificate, certificate.public_bytes(serialization.Encoding.PEM), private=True)


def _certificate_builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, validity: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=_common_name(name),
        public_key=key,
        serial_number=x509.random_serial_number(),
        # A client whose clock is slightly behind must accept the certificate.
        not_valid_before=now - timedelta(days=1),
        not_valid_after=now + validity,
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
