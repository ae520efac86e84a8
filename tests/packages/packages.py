"""Tiny wheels, projects and package indexes, made by the tests that install them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

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
    version: str,
    source: str = "",
    requires: Sequence[str] = (),
    module: str = "",
    tag: str = "py3-none-any",
) -> Path:
    """Write a wheel of one module into `folder`, created if missing, and return its path.

    The module has the project's name, unless `module`, with slashes, names another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-{tag}.whl"
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {one}" for one in requires),
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{module or name}/__init__.py", f"__version__ = {version!r}\n{source}")
        archive.writestr(f"{info}/METADATA", "\n".join([*metadata, ""]))
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def index(folder: Path) -> str:
    """Write the pages of a simple index (PEP 503) for the wheels in `folder`, and return its address."""
    pages: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.whl")):
        project = re.sub(r"[-_.]+", "-", path.name.partition("-")[0]).lower()
        pages.setdefault(project, []).append(f'<a href="../../{path.name}">{path.name}</a>')
    for project, links in pages.items():
        page = folder / "simple" / project / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("<!DOCTYPE html>\n" + "\n".join(links))
    return (folder / "simple").as_uri()


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
