"""Who may come in."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from haversack.hub.signin import KAGGLE_USERNAME, SignIn
from tests.conftest import RunningHub, start_hub
from tests.processes import command_lines

from .conftest import send


@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong", "Basic aGF2ZXJzYWNrOng=", "Bearer café"])
def test_without_the_token_nobody_comes_in(hub: RunningHub, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.encode().decode("latin-1")}
    reply = send(hub, "GET", "/drive/v3/files", headers=headers, signed_in=False)
    assert reply.status == 401
    assert reply.json()["error"]["errors"][0]["reason"] == "authError"


@pytest.mark.parametrize("target", ["/haversack/lease", "/batch/drive/v3", "/upload/drive/v3/files?uploadType=media"])
def test_every_other_door_needs_the_token_too(hub: RunningHub, target: str) -> None:
    method = "GET" if target.endswith("lease") else "POST"
    assert send(hub, method, target, signed_in=False).status == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "", "["])
def test_a_foreign_host_is_refused(hub: RunningHub, host: str) -> None:
    assert send(hub, "GET", "/drive/v3/files", headers={"Host": host}).status == 403


@pytest.mark.parametrize("host", ["localhost:99", "127.0.0.1", "[::1]:99"])
def test_every_name_of_this_machine_is_answered(hub: RunningHub, host: str) -> None:
    assert send(hub, "GET", "/drive/v3/files", headers={"Host": host}).status == 200


def test_a_foreign_page_is_refused(hub: RunningHub) -> None:
    assert send(hub, "GET", "/drive/v3/files", headers={"Origin": "http://evil.example"}).status == 403
    assert send(hub, "GET", "/drive/v3/files", headers={"Origin": "null"}).status == 403
    assert send(hub, "GET", "/drive/v3/files", headers={"Origin": hub.url}).status == 200


def test_no_other_origin_is_ever_allowed(hub: RunningHub) -> None:
    assert send(hub, "GET", "/drive/v3/files").headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize(
    ("line", "host", "status"),
    [
        ("http://localhost/drive/v3/files", "localhost", 200),
        ("http://evil.example/drive/v3/files", "localhost", 403),
        ("http://localhost/drive/v3/files", "evil.example", 403),
    ],
)
def test_requests_in_absolute_form(hub: RunningHub, line: str, host: str, status: int) -> None:
    assert send(hub, "GET", line, headers={"Host": host}).status == status


def test_the_hub_listens_on_loopback_only(hub: RunningHub) -> None:
    port = urlsplit(hub.url).port
    table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = [fields[1] for line in table.splitlines() if (fields := line.split())[3] == "0A"]
    assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_the_kaggle_key_opens_kaggle_but_not_the_drive(hub: RunningHub) -> None:
    login = f"{KAGGLE_USERNAME}:{SignIn(hub.token).kaggle_key}"
    headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    target = "/api/v1/datasets.DatasetApiService/ListDatasets"
    assert send(hub, "POST", target, "{}", headers, signed_in=False).status == 200
    assert send(hub, "GET", "/drive/v3/files", headers=headers, signed_in=False).status == 401
    assert send(hub, "POST", target, "{}", {"Authorization": "Basic !"}, signed_in=False).status == 401


def test_the_hub_hands_out_the_key_file_of_kaggles_clients(hub: RunningHub) -> None:
    assert send(hub, "GET", "/haversack/kaggle.json", signed_in=False).status == 401
    login = send(hub, "GET", "/haversack/kaggle.json").json()
    assert login == {"username": "haversack", "key": SignIn(hub.token).kaggle_key}


def test_the_kaggle_key_is_not_the_token_and_stays_the_same() -> None:
    key = SignIn("token").kaggle_key
    assert key == SignIn("token").kaggle_key != SignIn("other").kaggle_key
    assert len(bytes.fromhex(key)) == 16


def test_nothing_shows_the_token(tmp_path: Path) -> None:
    root = tmp_path / "root"
    hub = start_hub(root, "a-very-secret-token")
    try:
        listed = "\n".join(command_lines().values())
        assert str(root) in listed
        assert "a-very-secret-token" not in listed
        state = tmp_path / "root.json"
        assert json.loads(state.read_text())["token"] == "a-very-secret-token"
        assert state.stat().st_mode & 0o777 == 0o600
        assert "secret" not in repr(SignIn("a-very-secret-token"))
        kept = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
        assert not any(b"a-very-secret-token" in content for content in kept)
    finally:
        hub.process.terminate()
        hub.process.wait(60)


def test_noise_is_answered_and_does_no_harm(hub: RunningHub) -> None:
    address = urlsplit(hub.url)
    for noise in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9\r\n\r\n", b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n"):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            assert b" 200 " not in connection.recv(100)
    assert send(hub, "GET", "/drive/v3/files").status == 200
