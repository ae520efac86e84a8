"""Uploads and downloads of a notebook: `haversack.files`, which is also `google.colab.files`.

Runs in the kernel, or in any Python process outside a job. A job has no user who could pick a file, so its uploads are
the files given with `--upload`, or else those that the notebook's metadata names as `{"haversack": {"uploads": […]}}`.
`uploads` tells which of them a call receives; a single `upload()` receives all. Outside a job the user is asked for the
path of one file. Downloads are copied to the downloads folder: `downloads/` in the job's folder,
outside a job in the working directory.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from haversack import disk
from haversack.errors import DiskFull, InputError
from haversack.notebook import channel, ending, uploads

__all__ = ["download", "upload", "upload_file", "view"]

# Which of the job's uploads this kernel has received. Those of skipped `once` cells are in the record's `passed`.
_received: set[str] = set()
# The download targets written by this kernel. A file of the same name from an earlier session of the job is replaced.
_downloaded: set[Path] = set()


def upload(target_dir: str = "") -> dict[str, bytes]:
    """Copy this call's uploads into the folder `target_dir`, created if missing; return path → content.

    They are all that are left, unless more calls follow in the notebook (see `uploads`). An existing file is kept; the
    copy is called `name (1).ext`. Outside a job the user types the path of one file; an empty answer gives {}. Raises
    `InputError` if the job has no upload left, the typed path is not a file, or there is no terminal to ask at;
    `DiskFull`; and `OSError` if a file cannot be copied.
    """
    saved = {}
    for source in _next_uploads(_chosen):
        folder = Path(target_dir)
        folder.mkdir(parents=True, exist_ok=True)
        target = _free_name(folder / source.name)
        _copy(source, target)
        print(f"Saving {source.name} to {target}")
        saved[str(target)] = target.read_bytes()
    return saved


def upload_file(filename: str) -> str:
    """Copy an upload to the path `filename`, replacing any file there, and return `filename`.

    It is the upload of the same name, else the next one. Outside a job the user types the path of the file. Raises
    `InputError` if the job has no upload left, the typed path is not a file, or there is no terminal to ask at;
    `ValueError` if the user's answer is empty; `DiskFull`; and `OSError` if the file cannot be copied.
    """
    sources = _next_uploads(lambda left: [uploads.one(filename, left)])
    if not sources:
        raise ValueError("File has not been uploaded")
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


def _next_uploads(choose: Callable[[Sequence[str]], list[str]]) -> list[Path]:
    """Return the uploads that `choose` picks from those that are left, and note them as received.

    `choose` gets and returns paths below the job's `uploads/`, in the order of the job. Outside a job, ask for a path.
    Raises `InputError` if the job has none left.
    """
    folder = channel.job_folder()
    if folder is None:
        return list(_ask_for_path())
    record = json.loads((folder / "job.json").read_text())
    left = [name for name in record["uploads"] if name not in _received and name not in record["passed"]]
    if not left:
        raise InputError("The job has no upload left.", "Give the file on the command line: --upload FILE")
    names = choose(left)
    _received.update(names)
    channel.send("upload", names=names)
    return [folder / "uploads" / name for name in names]


def _chosen(left: Sequence[str]) -> list[str]:
    """Return those of the uploads `left` that the running call of `upload` receives, by the notebook's source."""
    folder = channel.job_folder()
    assert folder is not None
    cells = json.loads((folder / "notebook.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    cell = json.loads((folder / "job.json").read_text())["cell"]
    return uploads.chosen([source for source in sources if source.strip()], cell - 1, _calling_line(), left)


def _calling_line() -> int | None:
    """Return the line that the running cell executes, from 1; None if this thread, or this process, executes none."""
    if not ending.is_kernel():
        return None
    main = sys.modules["__main__"].__dict__
    frame: FrameType | None = sys._getframe()
    line = None
    while frame is not None:
        # The kernel's own main module has the same name in its globals, so compare the globals themselves.
        if frame.f_globals is main and frame.f_code.co_name.startswith(("<module>", "<cell")):
            line = frame.f_lineno
        frame = frame.f_back
    return line


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
