"""Tiny wheels, made by hand, and indexes of them: a folder (`file://`) or a server on loopback that counts requests."""

from __future__ import annotations

import base64
import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    needs: Sequence[str] = (),
    source: str | None = None,
    files: Mapping[str, bytes] | None = None,
    tag: str = "py3-none-any",
    python: str = "",
) -> Path:
    """A wheel of one module `name` whose `__init__.py` is `source`, with a valid RECORD; returns its path.

    `needs` are its requirements, `files` more files by their paths, `tag` its platform, `python` its Requires-Python.
    """
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Python: {python}\n" if python else ""
    metadata += "".join(f"Requires-Dist: {one}\n" for one in needs)
    content = {
        f"{module}/__init__.py": (f"version = {version!r}\n" if source is None else source).encode(),
        **(files or {}),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_, data in content.items():
            archive.writestr(name_, data)
    return path


def index(folder: Path, *wheels: Path) -> str:
    """Write a PEP 503 index of these wheels below `folder`, with hashes, and return its `file://` address."""
    links: dict[str, list[str]] = {}
    for path in wheels:
        project = path.name.partition("-")[0].replace("_", "-").lower()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        place = folder / project / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
        links.setdefault(project, []).append(f'<a href="{path.name}#sha256={digest}">{path.name}</a>')
    for project, lines in links.items():
        (folder / project / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(lines)}</body></html>")
    return folder.as_uri()


class _Handler(SimpleHTTPRequestHandler):
    requests: list[str]

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=0")  # else uv asks again after ten minutes only
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        self.requests.append(self.path)


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve `folder` on loopback; yield its address and the growing list of the paths that were asked for."""
    asked: list[str] = []
    handler = type("_Counting", (_Handler,), {"requests": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
