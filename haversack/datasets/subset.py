"""A part of a data set as a data set: the files below one folder, by their names relative to it, or a single file."""

from __future__ import annotations

import difflib
import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from haversack.archive.writer import pack
from haversack.datasets.contents import Contents, DatasetFile, PlainFile, sizes_of, target_exists
from haversack.errors import NotFound


class Subset:
    """`Contents` of a folder of the data set `whole`, or of a single file in it; nothing else of it is fetched.

    `folder` is the path of the folder or file, with slashes. A single file has its file name. `close` closes `whole`.
    `source` names the whole data set in messages. Raises `NotFound` if `whole` has no such folder or file.
    """

    def __init__(self, whole: Contents, folder: str, source: str) -> None:
        self._whole = whole
        self._source = source
        self._folder = folder
        names = whole.files
        self._prefix = f"{folder.rpartition('/')[0]}/".lstrip("/") if folder in names else f"{folder}/"
        self._files = {
            name[len(self._prefix) :]: PlainFile(name[len(self._prefix) :], size)
            for name, size in sizes_of(names)
            if name == folder or name.startswith(f"{folder}/")
        }
        if not self._files:
            raise NotFound(
                f"There is no folder or file {folder!r} in {source}.", _suggestion(folder, names), status=404
            )

    @property
    def files(self) -> Mapping[str, DatasetFile]:
        return self._files

    @property
    def size(self) -> int:
        return sum(file.size for file in self._files.values())

    @property
    def content(self) -> str:
        return hashlib.sha256(f"{self._whole.content} {self._folder}".encode()).hexdigest()[:16]

    def read(self, name: str) -> bytes:
        return self._whole.read(self._prefix + name)

    def open(self, name: str) -> BinaryIO:
        return self._whole.open(self._prefix + name)

    def path(self, name: str) -> Path:
        return self._whole.path(self._prefix + name)

    def write(self, name: str, target: Path) -> None:
        self._whole.write(self._prefix + name, target)

    def matches(self, name: str, path: Path) -> bool:
        return self._whole.matches(self._prefix + name, path)

    def prefetch(self, names: Iterable[str]) -> None:
        self._whole.prefetch(self._prefix + name for name in names)

    def fetch(self, names: Iterable[str]) -> None:
        self._whole.fetch(self._prefix + name for name in names)

    def complete(self) -> None:
        self.fetch(self._files)

    def save(self, target: Path) -> None:
        save_packed(self, target, self._source)

    def info(self) -> dict[str, object]:
        return {**self._whole.info(), "folder": self._folder}

    def close(self) -> None:
        self._whole.close()


def save_packed(contents: Contents, target: Path, source: str) -> None:
    """Fetch all files of `contents` and pack them into the new zip archive `target`; create its folder.

    The files are extracted to a temporary folder beside it, so twice their size is needed. `source` names the data set
    in messages. Raises `InputError` if `target` exists, or a name is both a file and a folder; `DiskFull`;
    `ArchiveInvalid` for a member that is encrypted or neither stored nor deflated; `IntegrityError` for wrong bytes;
    `ConnectionFailed`, `SignInError` or `RemoteError` if a server does not answer or refuses.
    """
    from haversack.datasets.extraction import extract

    if target.exists():
        raise target_exists(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".haversack-", dir=target.parent) as temporary:
        pack(extract(contents, Path(temporary) / "files", source), target)


def _suggestion(folder: str, names: Iterable[str]) -> str:
    """Return a sentence that names up to three folders similar to `folder`, or else the first three."""
    folders = dict.fromkeys(name.rpartition("/")[0] for name in names if "/" in name)
    near = difflib.get_close_matches(folder, list(folders)[:1000], 3, 0.5) or list(folders)[:3]
    return f"Similar folders: {', '.join(near)}." if near else "The data set has no folders."
