"""The web on loopback: a proxy that answers for every host in its `pages`, with TLS by an authority of its own."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOSTS = (
    "api.github.com",
    "gist.githubusercontent.com",
    "raw.githubusercontent.com",
    "huggingface.co",
    "example.org",
)


@dataclass(frozen=True)
class Page:
    """An answer: its body, status, and further headers."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Web:
    """`pages` maps a URL to its answer, `asked` has every request as (URL, headers)."""

    proxy: str
    ca: Path
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web
    context: ssl.SSLContext
    host = ""

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.host = self.path.rpartition(":")[0]
        self.connection = self.context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False

    def do_GET(self) -> None:
        url = f"https://{self.host}{self.path}" if self.host else self.path
        self.web.asked.append((url, dict(self.headers)))
        page = self.web.pages.get(url, Page(b"Not Found", 404))
        self.send_response(page.status)
        headers = {"Content-Length": str(len(page.body)), **page.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, *arguments: Any) -> None:
        """Print nothing."""


@contextmanager
def served(folder: Path) -> Iterator[Web]:
    """Serve the web until the block ends; its authority is a file in `folder`."""
    authority, chain = _certificates()
    (folder / "ca.pem").write_bytes(authority)
    (folder / "chain.pem").write_bytes(chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "chain.pem")
    handler = type("Handler", (_Handler,), {"context": context})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.web = web = Web(f"http://127.0.0.1:{server.server_address[1]}", folder / "ca.pem")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield web
        server.shutdown()


def _certificates() -> tuple[bytes, bytes]:
    """An authority's certificate, and a key with a certificate by it for all `HOSTS`, as PEM."""
    key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.now(UTC)

    def certificate(public: Any, subject: x509.Name, extension: Any) -> bytes:
        builder = x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        signed = builder.add_extension(extension, critical=True).sign(key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS])
    server = certificate(own.public_key(), x509.Name([]), names)
    secret = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    authority = certificate(key.public_key(), issuer, x509.BasicConstraints(ca=True, path_length=None))
    return authority, secret + server
