"""TLS with an authority of the hub's own, and the proxy for clients whose host is fixed."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509

from haversack.errors import InputError
from haversack.hub.authority import load_authority
from tests.conftest import RunningHub, start_hub


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    hub = start_hub(tmp_path_factory.mktemp("tls") / "root", None, "--tls")
    yield hub
    hub.process.terminate()
    hub.process.wait(60)


def connected(hub: RunningHub, host: str, trusted: str | None = None) -> http.client.HTTPSConnection:
    """A connection to `host` through the hub's proxy."""
    proxy = urlsplit(hub.state["proxy"])
    context = ssl.create_default_context(cafile=trusted or hub.state["ca"])
    connection = http.client.HTTPSConnection(str(proxy.hostname), proxy.port, context=context, timeout=10)
    connection.set_tunnel(host, 443)
    return connection


def listed(hub: RunningHub, connection: http.client.HTTPSConnection, **headers: str) -> int:
    connection.request("GET", "/drive/v3/files", headers={"Authorization": f"Bearer {hub.token}", **headers})
    response = connection.getresponse()
    response.read()
    return response.status


@pytest.mark.parametrize("host", ["www.googleapis.com", "oauth2.googleapis.com", "localhost", "127.0.0.1"])
def test_the_proxy_leads_googles_names_and_this_machines_to_the_hub(secure: RunningHub, host: str) -> None:
    connection = connected(secure, host)
    assert [listed(secure, connection), listed(secure, connection)] == [200, 200]


@pytest.mark.parametrize("host", ["example.org", "googleapis.com.example.org", "evilgoogleapis.com", "10.0.0.1"])
def test_the_proxy_leads_nowhere_else(secure: RunningHub, host: str) -> None:
    with pytest.raises(OSError, match="403 Forbidden"):
        listed(secure, connected(secure, host))


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"CONNECT x HTTP/1.1\r\n\r\n", b"\x16\x03\x01\r\n\r\n"])
def test_noise_at_the_proxy_is_refused(secure: RunningHub, noise: bytes) -> None:
    proxy = urlsplit(secure.state["proxy"])
    with socket.create_connection((proxy.hostname, proxy.port), timeout=10) as connection:
        connection.sendall(noise)
        assert connection.recv(100).startswith(b"HTTP/1.1 403 ")


def test_the_hub_answers_over_tls_by_its_own_address(secure: RunningHub) -> None:
    address = urlsplit(secure.state["tls_url"])
    context = ssl.create_default_context(cafile=secure.state["ca"])
    connection = http.client.HTTPSConnection(str(address.hostname), address.port, context=context, timeout=10)
    assert listed(secure, connection) == 200


def test_an_upload_goes_on_at_the_host_that_it_was_begun_at(secure: RunningHub) -> None:
    connection = connected(secure, "www.googleapis.com")
    headers = {"Authorization": f"Bearer {secure.token}"}
    connection.request("POST", "/upload/drive/v3/files?uploadType=resumable", "{}", headers)
    response = connection.getresponse()
    response.read()
    assert response.headers["Location"].startswith("https://www.googleapis.com/upload/drive/v3/files?")


def test_googles_names_are_refused_without_tls(secure: RunningHub) -> None:
    connection = http.client.HTTPConnection(urlsplit(secure.url).netloc, timeout=10)
    headers = {"Authorization": f"Bearer {secure.token}", "Host": "www.googleapis.com"}
    connection.request("GET", "/drive/v3/files", headers=headers)
    assert connection.getresponse().status == 403


def test_who_does_not_trust_the_authority_hears_nothing(secure: RunningHub) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        listed(secure, connected(secure, "www.googleapis.com", trusted=ssl.get_default_verify_paths().cafile))


def test_the_authority_is_good_for_no_other_name(tmp_path: Path) -> None:
    own = load_authority(tmp_path)
    permitted = (
        x509.load_pem_x509_certificate(own.certificate.read_bytes())
        .extensions.get_extension_for_class(x509.NameConstraints)
        .value.permitted_subtrees
    )
    assert permitted is not None
    assert [str(name.value) for name in permitted] == ["localhost", "googleapis.com", "127.0.0.1/32"]


def test_the_authority_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    first, second = load_authority(tmp_path), load_authority(tmp_path)
    assert first == second
    assert first.key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca-key.pem", "ca.pem"]
    before = first.certificate.read_bytes()
    first.server_context()
    assert first.certificate.read_bytes() == before


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_an_authority_of_which_half_is_lost_is_made_anew(tmp_path: Path, name: str) -> None:
    own = load_authority(tmp_path)
    getattr(own, name).write_text("broken")
    load_authority(tmp_path).server_context()


def test_an_authority_that_cannot_be_kept_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot store its certificate authority in"):
        load_authority(tmp_path / "file")
