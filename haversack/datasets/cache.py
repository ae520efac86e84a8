"""The cache of data sets on this machine: its folders, what is in it, and deletion.

A data set has a folder below the cache's `datasets` for fetched files, and one below `pixels` for each form that its
images were decoded to. A file `.source` in each folder names the data set. Everything in the cache can be fetched or
decoded again. The cache is the folder `cache` of the settings.
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

_SOURCE_FILE = ".source"


@dataclass(frozen=True)
class CachedDataset:
    """What the cache has of one data set.

    Attributes:
        source: the source that opens the data set, with its version.
        files: bytes on the disk of fetched files, extracted files and indexes.
        pixels: bytes on the disk of decoded images.
        folders: the cache folders that have them.
    """

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
    """Return the cache folder for the fetched files of the data set `source`; create it if it is missing.

    Its path below the cache's `datasets` is `parts`, or, without them, `named` and a hash of `source`. Its file
    `.source` names the data set, so that `list_cached` finds it.
    """
    below = parts or ("named", hashlib.sha256(os.fsencode(source)).hexdigest()[:16])
    folder = settings.load().cache.joinpath("datasets", *below)
    record_source(folder, source)
    return folder


def record_source(folder: Path, source: str) -> None:
    """Create `folder` and its file `.source`, which says that it caches the data set `source`, if they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _SOURCE_FILE).exists():
        disk.write(folder / _SOURCE_FILE, source, durable=False)


def list_cached(source: str | None = None) -> list[CachedDataset]:
    """Return the data sets in the cache, sorted by source.

    With `source`, in the form that `source.normalize_source` returns, only that data set, its versions, folders in it,
    and, if it is a pattern such as folder/*.zip, the archives that match it.
    """
    cache = settings.load().cache
    found: dict[str, tuple[int, int, list[Path]]] = {}
    for kind in ("datasets", "pixels"):
        for folder in _dataset_folders(cache / kind):
            name = (folder / _SOURCE_FILE).read_text("utf-8", "surrogateescape")
            if source is None or _belongs_to(name, source):
                files, pixels, folders = found.get(name, (0, 0, []))
                size = _allocated(folder)
                is_pixels = kind == "pixels"
                found[name] = files + size * (not is_pixels), pixels + size * is_pixels, [*folders, folder]
    return [
        CachedDataset(name, files, pixels, tuple(folders)) for name, (files, pixels, folders) in sorted(found.items())
    ]


def remove(datasets: list[CachedDataset]) -> None:
    """Delete the `folders` of `datasets` from the cache; folders that are gone already are ignored.

    Processes that have files in them open can still read those; when a data set is opened again, its files are fetched
    again. Raises `OSError` if a file cannot be deleted.
    """
    for folder in [folder for one in datasets for folder in one.folders]:
        # Rename before deletion, so that no process finds an archive without its journal.
        doomed = folder.with_name(f".going-{secrets.token_hex(6)}")
        with suppress(FileNotFoundError):  # another process may delete the same folder
            folder.rename(doomed)
            shutil.rmtree(doomed)


def _belongs_to(cached: str, source: str) -> bool:
    """Whether the cached source is `source`, a version of it, a folder in it, or matches it as a pattern."""
    part = cached.startswith((f"{source}@", f"{source.rstrip('/')}/"))
    return cached == source or part or ("*" in source and fnmatch.fnmatchcase(cached, source))


def _dataset_folders(folder: Path) -> Iterator[Path]:
    """Yield the outermost folders with a source file; names below them are those of the data set's own files."""
    for at, folders, files in os.walk(folder):
        if _SOURCE_FILE in files:
            folders.clear()
            yield Path(at)


def _allocated(folder: Path) -> int:
    """Return the bytes allocated on the disk for the files below `folder`; holes in sparse files do not count."""
    total = 0
    for at, _, files in os.walk(folder):
        for name in files:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(at, name)).st_blocks * 512
    return total
