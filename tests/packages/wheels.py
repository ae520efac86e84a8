"""Tiny wheels and projects, and indexes of them: a folder (`file://`) or a server on loopback that counts requests."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

JSON_PAGE = "application/vnd.pypi.simple.v1+json"
# A project that is built without a network: its build backend is a file of its own, which packs the wheel by hand.
_BACKEND = """
import zipfile
{first}
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{{folder}}/{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr({content!r}, {source!r})
        info = "{name}-{version}.dist-info"
        archive.writestr(f"{{info}}/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        archive.writestr(f"{{info}}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{{info}}/RECORD", "")
    return "{name}-{version}-py3-none-any.whl"
"""
_EDITABLE = """
def build_editable(folder, config_settings=None, metadata_directory=None):
    return build_wheel(folder)
"""


def wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    needs: Sequence[str] = (),
    source: str = "",
    files: Mapping[str, bytes] | None = None,
    tag: str = "py3-none-any",
    module: str = "",
) -> Path:
    """Write a wheel of one module, with a valid RECORD, into `folder`, created if missing, and return its path.

    `needs` are its requirements, `files` more files by their paths, `tag` its platform. The module has `__version__`,
    then `source`, and the project's name, unless `module`, with slashes, names another.
    """
    project = name.replace("-", "_")
    info = f"{project}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in needs)
    content = {
        f"{module or project}/__init__.py": f"__version__ = {version!r}\n{source}".encode(),
        **(files or {}),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    record = "".join(f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{project}-{version}-{tag}.whl"
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


def dated_index(folder: Path, project: str, wheels: Mapping[Path, str]) -> None:
    """Write an index of one project's wheels, path → day, that tells when each was uploaded (PEP 700); see `served`."""
    place = folder / project
    place.mkdir(parents=True)
    files = []
    for path, day in wheels.items():
        (place / path.name).write_bytes(path.read_bytes())
        hashes = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        size, uploaded = path.stat().st_size, f"{day}T00:00:00Z"
        files.append({"filename": path.name, "url": path.name, "hashes": hashes, "size": size, "upload-time": uploaded})
    versions = [path.name.split("-")[1] for path in wheels]
    page = {"meta": {"api-version": "1.1"}, "name": project, "versions": versions, "files": files}
    (place / "index.html").write_text(json.dumps(page))


def project(folder: Path, name: str, version: str, source: str = "", needs: str = "") -> Path:
    """Write a project of one module, or with `source` "" an editable one, that needs the module `needs` to be built."""
    folder.mkdir(parents=True)
    backend = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\nversion = "{version}"\n{backend}')
    first = f"import {needs}" if needs else ""
    if source:
        content, text, editable = f"{name}.py", source, ""
    else:
        content, text, editable = f"{name}.pth", str(folder), _EDITABLE
        (folder / f"{name}.py").write_text("")
    code = _BACKEND.format(first=first, name=name, version=version, content=content, source=text)
    (folder / "backend.py").write_text(code + editable)
    return folder


class _Handler(SimpleHTTPRequestHandler):
    requests: list[str]

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=0")  # else uv asks again after ten minutes only
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        self.requests.append(self.path)


@contextmanager
def served(folder: Path, page: str = "text/html") -> Iterator[tuple[str, list[str]]]:
    """Serve `folder` on loopback; yield its address and the growing list of the paths that were asked for.

    `page` is the kind of its `index.html`s: `JSON_PAGE` for a `dated_index`.
    """
    asked: list[str] = []
    kinds = {**SimpleHTTPRequestHandler.extensions_map, ".html": page}
    handler = type("_Counting", (_Handler,), {"requests": asked, "extensions_map": kinds})
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
