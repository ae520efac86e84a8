"""Files beside a notebook that come along in its job: modules and packages that it imports, scripts and pages it runs.

Runs in the process of `haversack run`. The job keeps copies, and each session gets them in its `/content`, where the
cells look for them. So a cell that writes to one changes neither the user's file nor a later session's. A notebook or
script outside the notebook's folder, such as `%run ../setup.ipynb`, is not copied: it has no place in `/content`.

An environment page (`haversack run --env PAGE`) is such a notebook too: the job's notebook runs it in a cell of its
own before all others.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from haversack.errors import InputError
from haversack.notebook.record import document
from haversack.notebook.record.schema import nbformat

FOLDER = "beside"
"""The folder of the copies, in the job's folder."""
_MAX_BYTES = 100 << 20
_LEFT_OUT = ("__pycache__", "node_modules")


def insert_page(notebook: Any, page: Path) -> dict[str, Path]:
    """Insert a first cell that runs the environment page `page`; return {its name: its path}.

    Raises `NotebookInvalid` if the page cannot be read.
    """
    document.read(page)
    name = f'"{page.name}"' if " " in page.name else page.name
    cell = nbformat.v4.new_code_cell(f"%run {name}", metadata={"tags": ["environment"]})
    if nbformat.reader.get_version(notebook) < (4, 5):
        del cell["id"]
    notebook.cells.insert(0, cell)
    return {page.name: page.absolute()}


def find(used: Mapping[str, str]) -> dict[str, Path]:
    """Return the files that come along, path below `FOLDER` → path, of the files and folders `used`, name → path.

    What is outside the notebook's folder does not. Raises `InputError` if they are too large to come along.
    """
    inside = {name: path for name, path in sorted(used.items()) if not _is_outside(name)}
    found = {name: path for top, place in inside.items() for name, path in _files(top, Path(place))}
    total = sum(path.stat().st_size for path in found.values())
    if total > _MAX_BYTES:
        raise InputError(
            f"{', '.join(inside)} beside the notebook have {total >> 20} MB, too much to come along with a job.",
            "Put their data on the drive, and read it there.",
        )
    return found


def outside_notice(used: Iterable[str]) -> str:
    """Return a sentence for the user about those of `used` that `find` leaves out, "" if there are none."""
    names = ", ".join(name for name in used if _is_outside(name))
    return f"Not copied into the job, because it is outside the notebook's folder: {names}." if names else ""


def keep(files: Mapping[str, Path], job: Path) -> list[str]:
    """Copy `files`, which `find` found, into the job's folder; return their paths below `FOLDER`.

    Raises `OSError` if one cannot be copied.
    """
    for name, path in files.items():
        target = job / FOLDER / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return list(files)


def place(job: Path, content: Path) -> None:
    """Copy what `keep` kept into the session's new `content`. Raises `OSError` if it cannot be written."""
    if (job / FOLDER).is_dir():
        shutil.copytree(job / FOLDER, content, dirs_exist_ok=True)


def _is_outside(name: str) -> bool:
    """Whether `name`, a path in a cell, may lead out of the notebook's folder: it is absolute or has `..`."""
    return PurePath(name).is_absolute() or ".." in PurePath(name).parts


def _files(top: str, place: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files at `place`, a file or a folder named `top`, as (path relative to where `top` is, path)."""
    if place.is_file():
        yield top, place
        return
    for path in sorted(place.rglob("*")):
        parts = path.relative_to(place).parts
        if path.is_file() and not any(part.startswith(".") or part in _LEFT_OUT for part in parts):
            yield f"{top}/{'/'.join(parts)}", path
