"""A package index and a file server on loopback that count what is asked of them.

The index (https://peps.python.org/pep-0503/) serves the wheels of a folder, below `/<folder>/`: each subfolder is one
index. So `torch` can have a CPU build in one and a CUDA build, with the large packages that it requires, in another.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

_CHUNK = 1 << 20


class Server(ThreadingHTTPServer):
    """Serves a folder; `asked` has the path of every file that was sent, in order."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        parts = [part for part in path.split("/") if part]
        found = self.server.folder.joinpath(*parts)
        if path.endswith("/") and len(parts) == 2 and (page := self._project(*parts)):
            self._send(page.encode(), "text/html")
        elif path.endswith(".whl.metadata") and found.with_suffix("").is_file() and ".." not in parts:
            self._send(_metadata(found.with_suffix("")), "application/octet-stream")
        elif found.is_file() and ".." not in parts:
            self.server.asked.append(path)
            self._send_file(found)
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.send_error(405)  # uv then reads a wheel's metadata out of the whole file

    def _project(self, index: str, project: str) -> str:
        """The page of a project: a link for each of its wheels."""
        wheels = sorted((self.server.folder / index).glob("*.whl"))
        mine = [wheel for wheel in wheels if _normal(wheel.name.split("-")[0]) == _normal(project)]
        links = {wheel.name: f"/{index}/{quote(wheel.name)}#sha256={_digest(wheel)}" for wheel in mine}
        return "\n".join(f'<a href="{url}" data-core-metadata="true">{name}</a><br>' for name, url in links.items())

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_file(self, path: Path) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                self.wfile.write(chunk)

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = (), megabytes: int = 0) -> Path:
    """Write a wheel with one module, `name`, that knows its version, and `megabytes` of zeros."""
    normal = _normal(name).replace("-", "_")
    path = folder / f"{normal}-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    info = f"{normal}-{version}.dist-info"
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {one}" for one in requires),
    ]
    files = {
        f"{normal}/__init__.py": f"__version__ = {version!r}\n".encode(),
        f"{normal}/data.bin": bytes(megabytes * 10**6),
        f"{info}/METADATA": "\n".join([*metadata, ""]).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{one},sha256={_hash(content)},{len(content)}" for one, content in files.items()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for one, content in files.items():
            archive.writestr(one, content)
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
    return path


def _metadata(wheel: Path) -> bytes:
    """A wheel's metadata, which an index serves beside it (https://peps.python.org/pep-0658/)."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [one for one in archive.namelist() if one.count("/") == 1 and one.endswith(".dist-info/METADATA")]
        return archive.read(name)


@functools.cache
def _digest(wheel: Path) -> str:
    """The SHA-256 of a wheel. An index names it; without it, uv downloads a wheel to make a lock."""
    with open(wheel, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
