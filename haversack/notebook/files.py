"""Uploads and downloads of a notebook: `haversack.files`, which is also `google.colab.files`.

Runs in the kernel, or in any Python process outside a job. A job has no user who could pick a file, so its uploads are
the files given with `--upload`, or else those that the notebook's metadata names as `{"haversack": {"uploads": […]}}`.
They are received in order: `upload()` receives all that are left, `upload_file()` the next one. Outside a job the user
is asked for the path of one file. Downloads are copied to the downloads folder: `downloads/` in the job's folder,
outside a job in the working directory.
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

# How many of the job's uploads this kernel has received. Uploads of skipped `once` cells are in the record's `passed`.
_received = 0
# The download targets written by this kernel. A file of the same name from an earlier session of the job is replaced.
_downloaded: set[Path] = set()


def upload(target_dir: str = "") -> dict[str, bytes]:
    """Copy all uploads that are left into the folder `target_dir`, created if missing; return path → content.

    An existing file is kept; the copy is called `name (1).ext`. Outside a job the user types the path of one file; an
    empty answer gives {}. Raises `InputError` if the job has no upload left, the typed path is not a file, or there is
    no terminal to ask at; `DiskFull`; and `OSError` if a file cannot be copied.
    """
    saved = {}
    for source in _next_uploads(limit=None):
        folder = Path(target_dir)
        folder.mkdir(parents=True, exist_ok=True)
        target = _free_name(folder / source.name)
        _copy(source, target)
        print(f"Saving {source.name} to {target}")
        saved[str(target)] = target.read_bytes()
    return saved


def upload_file(filename: str) -> str:
    """Copy the next upload to the path `filename`, replacing any file there, and return `filename`.

    Outside a job the user types the path of the file. Raises `InputError` if the job has no upload left, the typed path
    is not a file, or there is no terminal to ask at; `ValueError` if the user's answer is empty; `DiskFull`; and
    `OSError` if the file cannot be copied.
    """
    sources = _next_uploads(limit=1)
    if not sources:
        raise ValueError("File has not been uploaded")
    if len(sources) > 1:
        raise ValueError("Multiple files received, please upload a single file")
    _copy(sources[0], Path(filename))
    print(f"Saving {sources[0].name} to {filename}")
    return filename


def download(filename: str | os.PathLike[str]) -> None:
    """Copy a file to the downloads folder by atomic replace, and print the copy's path; a job's report lists it.

    In a job a download of the same name from an earlier session is replaced; otherwise an existing file is kept and the
    copy is called `name (1).ext`. Raises `FileNotFoundError` if `filename` is not a file, `DiskFull`, and `OSError` if
    it cannot be copied.
    """
    source = Path(filename)
    if not source.is_file():
        raise FileNotFoundError(f"Cannot find file: {filename}")
    folder = (channel.job_folder() or Path.cwd()) / "downloads"
    folder.mkdir(exist_ok=True)
    target = _free_name(folder / source.name, taken=_downloaded if channel.job_folder() else None)
    _copy(source, target)
    _downloaded.add(target)
    print(f"Downloaded {source.name} to {target}")
    channel.send("download", path=str(target))


def view(filepath: str | os.PathLike[str]) -> None:
    """Show a file in the cell's output: PNG, JPEG and GIF as images, UTF-8 as text, anything else by name and size.

    Images are recognized by the suffix. Raises `FileNotFoundError` if `filepath` is not a file, and `OSError` if it
    cannot be read.
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


def _next_uploads(*, limit: int | None) -> list[Path]:
    """Return up to `limit` of the uploads that are left, and count them as received; outside a job, ask for a path.

    Raises `InputError` if the job has none left.
    """
    folder = channel.job_folder()
    if folder is None:
        return list(_ask_for_path())
    global _received
    record = json.loads((folder / "job.json").read_text())
    remaining = [folder / "uploads" / name for name in record["uploads"]][record["passed"] + _received :]
    if not remaining:
        raise InputError("The job has no upload left.", "Give the file on the command line: --upload FILE")
    chosen = remaining[:limit]
    _received += len(chosen)
    channel.send("upload", count=len(chosen))
    return chosen


def _ask_for_path() -> Iterator[Path]:
    """Yield the path that the user types; nothing for an empty answer. Raises `InputError` for a path of no file."""
    if "ipykernel" not in sys.modules and not sys.stdin.isatty():
        raise InputError("There is no terminal to ask for a file.", "Run the notebook with --upload FILE")
    answer = input("Path: ").strip()
    if answer:
        path = Path(answer).expanduser()
        if not path.is_file():
            raise InputError(f"There is no file {path}.", "Check the path.")
        yield path


def _free_name(path: Path, taken: set[Path] | None = None) -> Path:
    """Return `path`, or the first of `name (1).ext`, `name (2).ext`, … that is not taken.

    A path is taken if it is in `taken`; if `taken` is None, if it exists on the disk.
    """
    candidate, number = path, 0
    while candidate in taken if taken is not None else candidate.exists() or candidate.is_symlink():
        number += 1
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return candidate


def _copy(source: Path, target: Path) -> None:
    """Copy a file by atomic replace, without fsync. Raises `DiskFull`, and `OSError` for any other failure."""
    try:
        with disk.replacing(target, durable=False) as temporary:
            shutil.copyfile(source, temporary)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"The disk is full, so {target} was not written.", "Free space, then retry.") from None
        raise
