"""What of data sets is kept on this machine, and how to be rid of it.

Each data set has a folder of its own in the cache, and so have the pixels that were decoded from it; a note in the
folder says which data set it is of. All of it can be fetched and decoded again.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack import disk, progress, settings

_NOTE = ".source"


@dataclass(frozen=True)
class CachedDataset:
    """What is kept of one data set, in bytes on the disk: fetched files, and decoded `pixels`."""

    source: str
    files: int
    pixels: int
    folders: tuple[Path, ...]

    @property
    def size(self) -> int:
        return self.files + self.pixels

    def json(self) -> dict[str, Any]:
        return {"source": self.source, "files": self.files, "pixels": self.pixels}

    def __str__(self) -> str:
        decoded = f", {progress.size(self.pixels)} of it decoded pixels" if self.pixels else ""
        return f"{progress.size(self.size):>10}  {self.source}{decoded}"


def folder_for(source: str, *parts: str) -> Path:
    """The folder of a data set in the cache, made with its note; named by `parts`, or by a hash of the source."""
    named = parts or ("named", hashlib.sha256(os.fsencode(source)).hexdigest()[:16])
    folder = settings.load().cache.joinpath("datasets", *named)
    note(folder, source)
    return folder


def note(folder: Path, source: str) -> None:
    """Write down that what is in `folder`, which is made if need be, is of the data set `source`."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _NOTE).exists():
        disk.write(folder / _NOTE, source, durable=False)


def kept(source: str | None = None) -> list[CachedDataset]:
    """What is kept of the data set `source`, of each of its versions and folders; of every one where None is given."""
    cache = settings.load().cache
    found: dict[str, tuple[int, int, list[Path]]] = {}
    for kind in ("datasets", "pixels"):
        for folder in _noted(cache / kind):
            of = (folder / _NOTE).read_text("utf-8", "surrogateescape")
            if source is None or _is_of(of, source):
                files, pixels, folders = found.get(of, (0, 0, []))
                size = _size(folder)
                is_pixels = kind == "pixels"
                found[of] = files + size * (not is_pixels), pixels + size * is_pixels, [*folders, folder]
    return [CachedDataset(of, files, pixels, tuple(folders)) for of, (files, pixels, folders) in sorted(found.items())]


def remove(found: list[CachedDataset]) -> None:
    """Remove it all. Who has some of it open reads on in it; who opens it again fetches it again."""
    for folder in [folder for one in found for folder in one.folders]:
        # By one rename: an archive is never here without its journal.
        going = folder.with_name(f".going-{secrets.token_hex(6)}")
        with suppress(FileNotFoundError):  # another process may remove the same
            folder.rename(going)
            shutil.rmtree(going)


def _is_of(kept: str, source: str) -> bool:
    """Whether what is kept is of the data set, of a version or folder of it, or of one of its archives."""
    part = kept.startswith((f"{source}@", f"{source.rstrip('/')}/"))
    return kept == source or part or ("*" in source and fnmatch.fnmatchcase(kept, source))


def _noted(folder: Path) -> Iterator[Path]:
    """The folders with a note, the outermost only: below them names are the data set's own."""
    for at, folders, files in os.walk(folder):
        if _NOTE in files:
            folders.clear()
            yield Path(at)


def _size(folder: Path) -> int:
    """The bytes that the files take on the disk; those that are not here yet take none."""
    total = 0
    for at, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(at, name)).st_blocks * 512
    return total
