"""The embedded default: a hub of the user's own, started when it is first needed and gone with its last user.

Every process that uses it holds a lease, an open connection that the hub counts; the system closes it when the process
dies, however it dies, so nothing has to be cleaned up. The hub runs as `python -m haversack hub` on a free port of the
loopback interface, over the folder `hub/` in the user's data folder. What it tells of itself stands beside that folder,
readable by this user alone. This module starts and finds the hub, and never imports it.
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
    """A running hub: its address, what signs in to it, and the plain folder it serves as My Drive."""

    url: str
    token: str
    kaggle_username: str
    kaggle_key: str
    my_drive: Path

    def __repr__(self) -> str:
        return f"Embedded(url={self.url!r}, my_drive={str(self.my_drive)!r})"


def attach(data: Path) -> Embedded:
    """The embedded hub over `data/hub`, started if it does not run; it stays at least as long as this process.

    Raises `ConnectionFailed` when it does not come up; its log, named in the error, says why.
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
    """The key that the embedded hub gives to Kaggle's clients, without starting it; None before its first start."""
    known = secrets_of(data)
    return known[1] if known else None


def secrets_of(data: Path) -> tuple[str, ...]:
    """What must never be shown of the embedded hub over `data`: its token and its key; none before its first start."""
    try:
        state = json.loads((data / "embedded" / "hub.json").read_text())
        return str(state["token"]), str(state["kaggle_key"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        return ()


def detach() -> None:
    """Let go of every embedded hub this process uses."""
    for pid, _, lease in _leases.values():
        if pid == os.getpid():
            lease.close()
    _leases.clear()


atexit.register(detach)


def _lease(folder: Path) -> tuple[Embedded, socket.socket] | None:
    """A lease on the hub that `folder` tells of, or None when that one is gone."""
    try:
        state = json.loads((folder / "hub.json").read_text())
        hub = Embedded(**{**state, "my_drive": Path(state["my_drive"])})
        address = urlsplit(hub.url)
        connection = socket.create_connection((address.hostname, address.port), timeout=5)
    except (FileNotFoundError, ConnectionError, TimeoutError):
        return None
    except (json.JSONDecodeError, KeyError, TypeError):
        return None  # written by another version of haversack: this one's hub takes its place
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
    # It belongs to no job, also when a job's kernel starts it: it outlives that kernel.
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
    """Whether the hub still holds the other end."""
    try:
        while data := lease.recv(4096):
            del data
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
