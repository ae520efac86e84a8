"""The embedded hub: the user's own hub on this machine, started when it is first needed; it exits after its last user.

Every process that uses it holds a lease: an open connection, which the hub counts. The system closes it however the
process dies, so nothing has to be cleaned up. The hub runs as `python -m haversack hub` on a free loopback port, over
the folder `hub/` in the data folder. It writes its address and its secrets to `embedded/hub.json` there, readable by
this user only. This module starts and finds the hub, and never imports it.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from haversack import disk, place
from haversack.errors import ConnectionFailed

_START_TIMEOUT = 30.0
_leases: dict[Path, tuple[int, Embedded, socket.socket]] = {}


@dataclass(frozen=True)
class Embedded:
    """A running embedded hub.

    Attributes:
        url: its base URL, on a loopback port.
        token: the token for its drive.
        kaggle_username, kaggle_key: the user name and key that it gives to Kaggle's clients.
        my_drive: the folder on this machine that it serves as My Drive.
    """

    url: str
    token: str
    kaggle_username: str
    kaggle_key: str
    my_drive: Path

    def __repr__(self) -> str:
        return f"Embedded(url={self.url!r}, my_drive={str(self.my_drive)!r})"


def attach(data: Path) -> Embedded:
    """Return the embedded hub over `data/hub`, started if necessary; it then runs as long as this process.

    This process takes a lease on it, or uses the one that it holds. Raises `ConnectionFailed` if the hub does not start
    within 30 s; the error names its log, `data/embedded/hub.log`.
    """
    held = _leases.get(data)
    if held and held[0] == os.getpid() and _is_open(held[2]):
        return held[1]
    from filelock import FileLock

    folder = data / "embedded"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(folder / "start.lock"):
        found = _lease(folder)
        if found is None:
            _start(data / "hub", folder)
            found = _wait_for_lease(folder)
    hub, lease = found
    _leases[data] = (os.getpid(), hub, lease)
    return hub


def known_kaggle_key(data: Path) -> str | None:
    """The key that the embedded hub over `data/hub` gives to Kaggle's clients; None before its first start.

    It is read from a file; the hub is not started.
    """
    known = secrets_of(data)
    return known[1] if known else None


def secrets_of(data: Path) -> tuple[str, ...]:
    """(token, Kaggle key) of the embedded hub over `data/hub`, to be masked; () before its first start.

    They are read from a file; the hub is not started.
    """
    try:
        state = json.loads((data / "embedded" / "hub.json").read_text())
        return str(state["token"]), str(state["kaggle_key"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        return ()


def detach() -> None:
    """Release all leases of this process; a hub without leases exits."""
    for pid, _, lease in _leases.values():
        if pid == os.getpid():
            lease.close()
    _leases.clear()


atexit.register(detach)


def _lease(folder: Path) -> tuple[Embedded, socket.socket] | None:
    """Take a lease on the hub that wrote `folder/hub.json`; None if it does not run."""
    try:
        state = json.loads((folder / "hub.json").read_text())
        hub = Embedded(**{**state, "my_drive": Path(state["my_drive"])})
        address = urlsplit(hub.url)
        connection = socket.create_connection((address.hostname, address.port), timeout=5)
    except (FileNotFoundError, ConnectionError, TimeoutError):
        return None
    except (json.JSONDecodeError, KeyError, TypeError):
        return None  # written by another version of haversack, whose hub is replaced
    request = f"GET /haversack/lease HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {hub.token}\r\n\r\n"
    try:
        connection.sendall(request.encode())
        answer = connection.recv(64)
    except OSError:
        answer = b""
    if not answer.startswith(b"HTTP/1.1 200"):
        connection.close()
        return None
    connection.setblocking(False)
    return hub, connection


def _start(root: Path, folder: Path) -> None:
    token = folder / "token"
    if not token.exists():
        disk.write(token, secrets.token_urlsafe(32), durable=False, private=True)
    command = [place.interpreter(), "-m", "haversack", "hub", "--root", str(root), "--port", "0"]
    command += ["--token-file", str(token), "--state", str(folder / "hub.json"), "--until-unused"]
    # The hub belongs to no job: it must outlive a job's kernel that starts it.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("HAVERSACK_TOKEN", "HAVERSACK_JOB")
    }
    with open(folder / "hub.log", "ab") as log:
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd="/", start_new_session=True
        )


def _wait_for_lease(folder: Path) -> tuple[Embedded, socket.socket]:
    end = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < end:
        if found := _lease(folder):
            return found
        time.sleep(0.05)
    raise ConnectionFailed(
        f"The embedded hub did not start in {_START_TIMEOUT:.0f} s.", f"See {folder / 'hub.log'} for the reason."
    )


def _is_open(lease: socket.socket) -> bool:
    """Whether the hub has not closed the connection."""
    try:
        while data := lease.recv(4096):
            del data
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
