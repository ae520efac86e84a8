"""TLS for clients that speak nothing else: an authority of the hub's own, and the certificate that it signs.

The authority is made once and kept in a folder of the user's. It is good for this machine's names and for Google's API
hosts only (name constraints, RFC 5280, section 4.2.1.10), so that trusting it opens nothing else. The hub's own
certificate is made anew at each start, and its key is on disk only while it is read.
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

from haversack import disk
from haversack.errors import InputError
from haversack.hub.proxy import GOOGLE

_AUTHORITY_LASTS = timedelta(days=3650)
_HUB_LASTS = timedelta(days=365)
_Names = list[x509.GeneralName]


@dataclass(frozen=True)
class Authority:
    """`certificate` is the file that clients are to trust; `key` signs, and never leaves the folder."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """What a server needs to be the hub, by any of its names."""
        own = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        signing = serialization.load_pem_private_key(self.key.read_bytes(), None)
        assert isinstance(signing, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        names: _Names = [x509.DNSName(name) for name in ("localhost", GOOGLE, f"*.{GOOGLE}")]
        names.append(x509.IPAddress(ip_address("127.0.0.1")))
        signed = (
            _begun("haversack hub", own.subject, key.public_key(), _HUB_LASTS)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
            .sign(signing, hashes.SHA256())
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with tempfile.NamedTemporaryFile(dir=self.key.parent) as file:
            file.write(_pem(key) + signed.public_bytes(serialization.Encoding.PEM))
            file.flush()
            context.load_cert_chain(file.name)
        return context


def authority(folder: Path) -> Authority:
    """The authority that `folder` keeps, made at first use. Raises `InputError` where it cannot be kept there."""
    found = Authority(folder / "ca.pem", folder / "ca-key.pem")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_good(found):
            _make(found)
    except OSError as error:
        raise InputError(f"The hub cannot keep its authority in {folder} ({error.strerror}).", "Mend that.") from error
    return found


def _is_good(found: Authority) -> bool:
    """Whether both files are there, belong together and last for as long as a hub's certificate."""
    try:
        certificate = x509.load_pem_x509_certificate(found.certificate.read_bytes())
        key = serialization.load_pem_private_key(found.key.read_bytes(), None)
    except (FileNotFoundError, ValueError):
        return False
    return (
        certificate.public_key() == key.public_key()
        and certificate.not_valid_after_utc > datetime.now(UTC) + _HUB_LASTS
    )


def _make(wanted: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _named("haversack authority of this machine")
    allowed: _Names = [x509.DNSName("localhost"), x509.DNSName(GOOGLE), x509.IPAddress(ip_network("127.0.0.1/32"))]
    usage = {"digital_signature", "key_cert_sign", "crl_sign"}
    possible = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    certificate = (
        _begun("haversack authority of this machine", subject, key.public_key(), _AUTHORITY_LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{name: name in usage for name in possible}), critical=True)
        .add_extension(x509.NameConstraints(permitted_subtrees=allowed, excluded_subtrees=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(wanted.key, _pem(key))
    _write(wanted.certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _begun(name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lasts: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=_named(name),
        public_key=key,
        serial_number=x509.random_serial_number(),
        # A clock that is a little behind must not refuse it.
        not_valid_before=now - timedelta(days=1),
        not_valid_after=now + lasts,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    disk.write(path, content, private=True)
