"""Ctrl-C in every phase of `haversack run`: status 130, and one sentence with the next step.

The signal goes to the whole process group, as a terminal sends it. A phase is held by what it waits for: an index that
does not answer, or a module whose import takes long.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.notebook import notebooks
from tests.packages.wheels import wheel

_TIMEOUT = 120.0  # seconds; only a failing test waits so long
HOLD = """
import os, sys, time
class Hold:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["HELD"]:
            open(os.environ["HELD_AT"], "w").close()
            time.sleep(600)
sys.meta_path.insert(0, Hold())
"""


class Index(ThreadingHTTPServer):
    """An index of one wheel that does not answer once it is asked for a path that ends with `held`; then `asked`."""

    daemon_threads = True

    def __init__(self, path: Path, held: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.wheel, self.held = path, held
        self.asked, self.released = Event(), Event()


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        if self.path.endswith(self.server.held):
            self.server.asked.set()
            self.server.released.wait(_TIMEOUT)
        elif self.path.endswith("/tinyslow/"):
            name, digest = self.server.wheel.name, hashlib.sha256(self.server.wheel.read_bytes()).hexdigest()
            self._send(f'<a href="/{name}#sha256={digest}" data-core-metadata="true">{name}</a>'.encode())
        elif self.path.endswith(".metadata"):
            self._send(b"Metadata-Version: 2.1\nName: tinyslow\nVersion: 1.0\n")
        else:
            self.send_error(404)

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def index(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Index]]:
    """`index("…")`: pip's configuration names such an index beside the machine's own."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path_factory.getbasetemp().parent / "uv"))
    servers: list[Index] = []

    def made(held: str) -> Index:
        server = Index(wheel(tmp_path / "wheels", "tinyslow"), held)
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"http://127.0.0.1:{server.server_address[1]}/simple")
        monkeypatch.delenv("HAVERSACK_INSTALL")
        servers.append(server)
        return server

    yield made
    for server in servers:
        server.released.set()
        server.shutdown()
        server.server_close()


def start(folder: Path, *cells: str) -> subprocess.Popen[str]:
    """The command in a process group of its own."""
    notebook = notebooks.write(folder / "nb.ipynb", *cells)
    command = [sys.executable, "-m", "haversack", "run", str(notebook), "-o", str(folder / "out.ipynb")]
    return subprocess.Popen(
        [*command, "--html", str(folder / "out.html")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Send Ctrl-C; what the command then printed on its standard output, and the last line of its standard error."""
    os.killpg(process.pid, signal.SIGINT)
    printed, told = process.communicate(timeout=_TIMEOUT)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    return printed, told.splitlines()[-1]


SLOW = '# /// script\n# dependencies = ["tinyslow"]\n# ///'


@pytest.mark.parametrize("held", ["/tinyslow/", ".whl"])
def test_while_packages_are_locked_and_installed(
    tmp_path: Path, index: Callable[[str], Index], own_folders: Path, held: str
) -> None:
    server = index(held)
    process = start(tmp_path, SLOW)
    assert server.asked.wait(_TIMEOUT)
    printed, told = interrupted(process)
    resume = r"haversack run --resume nb-\S+"
    assert re.fullmatch(
        rf"haversack: The job was interrupted before its first session\. Resume it with: {resume}", told
    )
    assert re.search(rf"  resume     {resume}\n", printed)
    assert not list((own_folders / "cache").rglob("about.json"))


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("ipykernel_launcher", r"The job was interrupted before its first cell\. Resume it with: .*"),
        ("nbconvert", r"Interrupted\."),
    ],
)
def test_while_the_kernel_starts_and_while_the_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, told: str
) -> None:
    (tmp_path / "hold").mkdir()
    (tmp_path / "hold" / "sitecustomize.py").write_text(HOLD)
    at = tmp_path / "held"
    for name, value in {"PYTHONPATH": str(tmp_path / "hold"), "HELD": module, "HELD_AT": str(at)}.items():
        monkeypatch.setenv(name, value)
    process = start(tmp_path, "print('executed')")
    end = time.monotonic() + _TIMEOUT
    while not at.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    _, last = interrupted(process)
    assert re.fullmatch(f"haversack: {told}", last), last
    assert notebooks.text(tmp_path / "out.ipynb", 0) == ("executed\n" if module == "nbconvert" else "")
