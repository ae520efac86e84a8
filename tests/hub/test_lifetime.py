"""How a hub starts and ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import RunningHub

HOLDER = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
request = "GET /haversack/lease HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nAuthorization: Bearer "
request += sys.argv[2] + "\\r\\n\\r\\n"
connection.sendall(request.encode())
assert connection.recv(64).startswith(b"HTTP/1.1 200")
print("held", flush=True)
sys.stdin.read()
"""


def command(root: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "haversack", "hub", "--root", str(root), *more]


def start(root: Path, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "HAVERSACK_TOKEN": "token"}
    return subprocess.Popen(
        command(root, *more), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    (url,) = [word for word in process.stdout.readline().split() if word.startswith("http://")]
    port = urlsplit(url.rstrip(":")).port
    assert port is not None
    return port


def hold(port: int, token: str = "token") -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(port), token], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_the_hub_ends_when_its_last_user_was_killed(tmp_path: Path) -> None:
    hub = start(tmp_path / "root", "--port", "0", "--until-unused")
    port = port_of(hub)
    first, second = hold(port), hold(port)
    kill(first)
    time.sleep(3)
    assert hub.poll() is None, "it ended although one still holds a lease"
    kill(second)
    assert hub.wait(60) == 0
    hub.communicate()


def test_the_hub_stays_without_users_unless_told(hub: RunningHub) -> None:
    port = urlsplit(hub.url).port
    assert port is not None
    kill(hold(port, hub.token))
    time.sleep(3)
    assert hub.process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_hub_ends_at_once_when_asked(tmp_path: Path, number: signal.Signals) -> None:
    hub = start(tmp_path / "root", "--port", "0")
    holder = hold(port_of(hub))
    hub.send_signal(number)
    assert hub.wait(60) == 0
    kill(holder)
    hub.communicate()


def test_the_hub_does_not_wait_for_what_nobody_waits_for(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "My Drive").mkdir(parents=True)
    with open(root / "My Drive" / "huge", "wb") as file:
        file.truncate(200 << 30)  # its hash takes minutes
    hub = start(root, "--port", "0")
    asking = http.client.HTTPConnection("127.0.0.1", port_of(hub))
    asking.request("GET", "/drive/v3/files?fields=files/md5Checksum", headers={"Authorization": "Bearer token"})
    time.sleep(1)
    hub.terminate()
    assert hub.wait(60) == 0
    asking.close()
    hub.communicate()


def test_one_line_says_what_is_served(tmp_path: Path) -> None:
    hub = start(tmp_path / "root", "--port", "0")
    assert hub.stdout is not None
    line = hub.stdout.readline()
    assert str(tmp_path / "root") in line
    assert "token" not in line
    hub.terminate()
    assert hub.communicate() == ("", "")


def test_a_taken_port_is_said_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        hub = start(tmp_path / "root", "--port", str(port))
        _, said = hub.communicate(timeout=60)
    assert hub.returncode == 2
    assert said == f"haversack: Port {port} of 127.0.0.1 is in use. Choose another, or 0 for a free one.\n"


def test_a_folder_that_is_a_file_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    hub = start(tmp_path / "file", "--port", "0")
    _, said = hub.communicate(timeout=60)
    assert hub.returncode == 2
    assert said.startswith(f"haversack: The hub cannot use the folder {tmp_path / 'file'}")
    assert "Traceback" not in said


def test_two_hubs_never_serve_one_folder(own_hub: RunningHub) -> None:
    second = start(own_hub.root, "--port", "0")
    _, said = second.communicate(timeout=60)
    assert second.returncode == 2
    assert said.startswith("haversack: Another hub serves")


def test_without_a_token_no_hub_starts(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path / "root"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("haversack: A hub needs a token.")
