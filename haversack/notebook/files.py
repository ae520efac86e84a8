"""Files into and out of a notebook: `haversack.files`, which `google.colab.files` is too.

In a job nobody can pick a file, so uploads are those given with `--upload` (or named in the notebook's metadata as
`{"haversack": {"uploads": […]}}`), in order: `upload()` receives all that no earlier call received, `upload_file()` the
next one. Elsewhere the path is asked for. Downloads are copied into the job's `downloads/`; outside a job into
`downloads/` of the working directory.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from haversack import disk
from haversack.errors import DiskFull, InputError
from haversack.notebook import channel

__all__ = ["download", "upload", "upload_file", "view"]

# How many of the job's uploads earlier calls in this kernel have received, besides those of cells not repeated in it.
_received = 0
# What this kernel gave already: what an earlier session of the job gave under the same name is replaced.
_given: set[Path] = set()


def upload(target_dir: str = "") -> dict[str, bytes]:
    """Receive files into `target_dir`, which is made when missing; returns saved path → content.

    A name that is taken becomes `name (1).ext`. Raises `InputError` when a job has no file left to give.
    """
    saved = {}
    for source in _incoming(all_of_them=True):
        folder = Path(target_dir)
        folder.mkdir(parents=True, exist_ok=True)
        target = _free_name(folder / source.name)
        _copy(source, target)
        print(f"Saving {source.name} to {target}")
        saved[str(target)] = target.read_bytes()
    return saved


def upload_file(filename: str) -> str:
    """Receive one file, written exactly to `filename`; returns `filename`.

    Raises `InputError` when a job has no file left to give, `ValueError` when no file was named.
    """
    sources = _incoming(all_of_them=False)
    if not sources:
        raise ValueError("File has not been uploaded")
    if len(sources) > 1:
        raise ValueError("Multiple files received, please upload a single file")
    _copy(sources[0], Path(filename))
    print(f"Saving {sources[0].name} to {filename}")
    return filename


def download(filename: str | os.PathLike[str]) -> None:
    """Hand a file over to the user: a copy in the job's downloads, complete or absent.

    Raises `FileNotFoundError` when there is none, `DiskFull`.
    """
    source = Path(filename)
    if not source.is_file():
        raise FileNotFoundError(f"Cannot find file: {filename}")
    folder = (channel.job() or Path.cwd()) / "downloads"
    folder.mkdir(exist_ok=True)
    target = _free_name(folder / source.name, among=_given if channel.job() else None)
    _copy(source, target)
    _given.add(target)
    print(f"Downloaded {source.name} to {target}")
    channel.tell("download", path=str(target))


def view(filepath: str | os.PathLike[str]) -> None:
    """Show a file in the cell's output: text and pictures as they are, anything else by name and size.

    Raises `FileNotFoundError` when there is none.
    """
    path = Path(filepath)
    if not path.is_file():
        raise FileNotFoundError(f"Cannot find file: {filepath}")
    if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".gif"):
        from IPython.display import Image, display

        display(Image(filename=str(path)))
        return
    try:
        print(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        print(f"{path}: {path.stat().st_size} bytes, not text")


def _incoming(*, all_of_them: bool) -> list[Path]:
    folder = channel.job()
    if folder is None:
        return list(_asked())
    global _received
    record = json.loads((folder / "job.json").read_text())
    waiting = [folder / "uploads" / name for name in record["uploads"]][record["passed"] + _received :]
    if not waiting:
        raise InputError("Nobody can pick a file in a job.", "Give it on the command line: --upload FILE")
    taken = waiting if all_of_them else waiting[:1]
    _received += len(taken)
    channel.tell("upload", count=len(taken))
    return taken


def _asked() -> Iterator[Path]:
    """The path that the user types; none when the answer is empty."""
    if "ipykernel" not in sys.modules and not sys.stdin.isatty():
        raise InputError("There is no terminal to ask for a file.", "Run the notebook with --upload FILE")
    answer = input("Path: ").strip()
    if answer:
        path = Path(answer).expanduser()
        if not path.is_file():
            raise InputError(f"There is no file {path}.", "Check the path.")
        yield path


def _free_name(path: Path, among: set[Path] | None = None) -> Path:
    """`path`, or `name (1).ext` and so on where that is taken: on the disk, or, where it is given, `among` these."""
    candidate, number = path, 0
    while candidate in among if among is not None else candidate.exists() or candidate.is_symlink():
        number += 1
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return candidate


def _copy(source: Path, target: Path) -> None:
    try:
        with disk.replacing(target, durable=False) as temporary:
            shutil.copyfile(source, temporary)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"The disk is full, so {target} was not written.", "Free space, then try again.") from None
        raise
