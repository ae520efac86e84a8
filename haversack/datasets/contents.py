"""The files of a data set: `Contents`, with an implementation for a zip archive and one for a local folder.

The archive may be on this machine or remote (`blocks.ranges`, `stored`). A member of a remote archive whose fetched
bytes turn out to be damaged is fetched again once.
"""

from __future__ import annotations

import filecmp
import hashlib
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from haversack import disk
from haversack.archive.directory import DEFLATED, STORED
from haversack.archive.index import ArchiveIndex, ArchiveMember
from haversack.archive.reader import Archive, LocalFile
from haversack.archive.writer import folder_files, pack
from haversack.blocks.sparse import require_space
from haversack.errors import InputError, IntegrityError

_PIECE_SIZE = 1 << 20

T = TypeVar("T")


class RemoteBytes(Protocol):
    """A remote file, cached in part or completely; a range is (start, stop) in bytes. Thread-safe.

    Implementations are `blocks.ranges.RemoteFile` and `stored.StoredFile`.
    """

    @property
    def path(self) -> Path:
        """Where the complete file is in the cache, once it is complete."""
        ...

    @property
    def size(self) -> int: ...

    @property
    def tag(self) -> str:
        """A tag of the file's content; `complete` may change it if the remote file has changed."""
        ...

    @property
    def present(self) -> int:
        """How many bytes are cached."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from `offset`; fetch those that are not cached."""
        ...

    def want(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Prefetch these ranges in the background, in this order, instead of those of an earlier call."""
        ...

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch these ranges; return when they are cached."""
        ...

    def complete(self, check: Callable[[Path], None]) -> Path:
        """Fetch and verify the whole file and return `path`; `check` verifies it if the server names no hash."""
        ...

    def mend(self, start: int, stop: int) -> None:
        """Invalidate the cached range, so that the next read fetches it again."""
        ...

    def close(self) -> None: ...


class DatasetFile(Protocol):
    """A file of a data set: its name with slashes, and its size in bytes."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...


class Contents(Protocol):
    """The files of a data set. Every name that is passed to a method must be in `files`.

    Methods that fetch raise `ConnectionFailed`, `RemoteError` or another error of `haversack.errors` for a server's
    answer, `IntegrityError` for wrong bytes, and `DiskFull`.
    """

    @property
    def files(self) -> Mapping[str, DatasetFile]: ...

    @property
    def size(self) -> int:
        """The sum of all files' sizes in bytes."""
        ...

    @property
    def content(self) -> str:
        """A tag that changes with the files' bytes."""
        ...

    def read(self, name: str) -> bytes:
        """Return the file's bytes; an archive's member is verified by its CRC-32, a remote file by its size."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Return the file as a seekable binary file object."""
        ...

    def path(self, name: str) -> Path:
        """Return the path of this one file on the local disk; if it is not there yet, fetch or extract it."""
        ...

    def write(self, name: str, target: Path) -> None:
        """Write the file to `target`, verified as by `read`, not atomically: a failure may leave a part of it."""
        ...

    def matches(self, name: str, path: Path) -> bool:
        """Whether the local file `path` has the same size and bytes (for an archive: the same CRC-32)."""
        ...

    def prefetch(self, names: Iterable[str]) -> None:
        """Fetch these files in the background, in this order, instead of those of an earlier call; return at once."""
        ...

    def fetch(self, names: Iterable[str]) -> None:
        """Fetch these files; return when they are cached. An archive's members are verified when they are read."""
        ...

    def complete(self) -> None:
        """Fetch everything; an archive is verified as a whole."""
        ...

    def save(self, target: Path) -> None:
        """Write the whole data set to `target` as one archive. Raises `InputError` if a different file is there."""
        ...

    def info(self) -> dict[str, object]:
        """Return where the files are and how much of them is cached, for `Dataset.info`."""
        ...

    def close(self) -> None: ...


class ArchiveContents:
    """`Contents` of a zip archive. The folder `cache` has its index and the members that `path` has extracted."""

    def __init__(self, file: LocalFile | RemoteBytes, cache: Path) -> None:
        self._file = file
        self._cache = cache
        self._archive = self._open_archive()

    @property
    def files(self) -> ArchiveIndex:
        return self._archive.members

    @property
    def size(self) -> int:
        return self.files.size

    def read(self, name: str) -> bytes:
        return self._retry_damaged(name, self._archive.read)

    def open(self, name: str) -> BinaryIO:
        return self._archive.open(self.files[name])

    def path(self, name: str) -> Path:
        target = self._cache / "files" / self.content / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            require_space(target.parent, self.files[name].size)
            with disk.replacing(target) as temporary:
                self.write(name, temporary)
        return target

    def write(self, name: str, target: Path) -> None:
        def write_pieces(member: ArchiveMember) -> None:
            with open(target, "wb") as file:
                for piece in self._archive.pieces(member):
                    file.write(piece)

        self._retry_damaged(name, write_pieces)

    def matches(self, name: str, path: Path) -> bool:
        member = self.files[name]
        return path.stat().st_size == member.size and _crc32(path) == member.crc

    def prefetch(self, names: Iterable[str]) -> None:
        if not isinstance(self._file, LocalFile):
            files = self.files
            members = (files[name] for name in names)
            self._file.want((member.offset, member.end) for member in members)

    def fetch(self, names: Iterable[str]) -> None:
        if not isinstance(self._file, LocalFile):
            files = self.files
            members = (files[name] for name in names)
            self._file.fetch((member.offset, member.end) for member in members)

    def complete(self) -> None:
        if not isinstance(self._file, LocalFile):
            before = self._file.tag
            self._file.complete(_check_members)
            if self._file.tag != before:
                self._archive = self._open_archive()

    def save(self, target: Path) -> None:
        if target.exists() and target.stat().st_size != self._file.size:
            raise target_exists(target)
        self.complete()
        if target.exists():
            if not filecmp.cmp(self._file.path, target, shallow=False):
                raise target_exists(target)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        require_space(target.parent, self._file.size)
        with disk.replacing(target) as temporary:
            shutil.copyfile(self._file.path, temporary)

    def info(self) -> dict[str, object]:
        here = self._file.size if isinstance(self._file, LocalFile) else self._file.present
        return {"archive": str(self._file.path), "archive_size": self._file.size, "archive_here": here}

    def close(self) -> None:
        self._file.close()

    def _open_archive(self) -> Archive:
        return Archive(self._file, self._cache / f"{self.content}.index", self.content)

    @property
    def content(self) -> str:
        """A tag of the archive's content, from its path, size and mtime, or from the remote file's tag and size."""
        if isinstance(self._file, LocalFile):
            about = self._file.path.stat()
            known = f"{self._file.path} {about.st_size} {about.st_mtime_ns}"
        else:
            known = f"{self._file.tag} {self._file.size}"
        return hashlib.sha256(known.encode()).hexdigest()[:16]

    def _retry_damaged(self, name: str, use: Callable[[ArchiveMember], T]) -> T:
        """Return `use(member)`. If a remote archive raises `IntegrityError`, refetch the member and retry once."""
        member = self.files[name]
        try:
            return use(member)
        except IntegrityError:
            if isinstance(self._file, LocalFile):
                raise
            self._file.mend(member.offset, member.end)
            return use(member)


@dataclass(frozen=True, slots=True)
class PlainFile:
    """A `DatasetFile` without further data."""

    name: str
    size: int


class FolderContents:
    """`Contents` of a folder on this machine. Its files are listed once, at the first access to `files`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def files(self) -> Mapping[str, DatasetFile]:
        return {name: PlainFile(name, path.stat().st_size) for name, path in folder_files(self._folder).items()}

    @cached_property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())

    @cached_property
    def content(self) -> str:
        about = ((name, (self._folder / name).stat()) for name in self.files)
        known = hashlib.sha256(str(self._folder).encode())
        for name, status in about:
            known.update(f"\n{name} {status.st_size} {status.st_mtime_ns}".encode())
        return known.hexdigest()[:16]

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        return open(self.path(name), "rb")

    def path(self, name: str) -> Path:
        return self._folder / name

    def write(self, name: str, target: Path) -> None:
        shutil.copyfile(self.path(name), target)

    def matches(self, name: str, path: Path) -> bool:
        return filecmp.cmp(self.path(name), path, shallow=False)

    def prefetch(self, names: Iterable[str]) -> None:
        """Do nothing: the files are local."""

    def fetch(self, names: Iterable[str]) -> None:
        """Do nothing: the files are local."""

    def complete(self) -> None:
        """Do nothing: the files are local."""

    def save(self, target: Path) -> None:
        if target.exists():
            raise target_exists(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        pack(self._folder, target)

    def info(self) -> dict[str, object]:
        return {"folder": str(self._folder)}

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _check_members(path: Path) -> None:
    """Verify the CRC of every supported member of the archive `path`, for servers that name no hash of the file.

    Raises `IntegrityError` for a wrong member, `ArchiveInvalid` for an invalid archive.
    """
    file = LocalFile(path)
    try:
        archive = Archive(file)
        for member in archive.members.values():
            if member.method in (STORED, DEFLATED) and not member.encrypted:
                for _ in archive.pieces(member):
                    continue
    finally:
        file.close()


def sizes_of(files: Mapping[str, DatasetFile]) -> Iterable[tuple[str, int]]:
    """Return (name, size in bytes) of all files, without creating an `ArchiveMember` for each."""
    sizes = (
        files.columns["size"].tolist() if isinstance(files, ArchiveIndex) else [file.size for file in files.values()]
    )
    return zip(files, sizes, strict=True)


def target_exists(target: Path) -> InputError:
    """Return the error for a `target` that a different file occupies."""
    return InputError(f"{target} exists and is a different file.", "Move it away, or choose another path.")


def _crc32(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_SIZE):
            crc = zlib.crc32(piece, crc)
    return crc
