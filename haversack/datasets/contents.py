"""The files of a data set: the protocol `Contents`, and its implementations for a zip archive and a local folder.

The archive may be on this machine or remote (`blocks.ranges`, `stored`). If a member of a remote archive is damaged
when it is read or written to a file, its bytes are fetched again once. Other implementations: `stored.StoredFolder`,
`subset.Subset` and `joined.Joined`.
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
    """A remote file, cached on this machine in part or completely; a range is (start, stop) in bytes. Thread-safe.

    Methods that fetch raise `ConnectionFailed`, `SignInError` or `RemoteError`, `IntegrityError` if the remote file
    changed, and `DiskFull`. Implementations are `blocks.ranges.RemoteFile` and `stored.StoredFile`.
    """

    @property
    def path(self) -> Path:
        """The path of the file in the cache; it exists only once the file is complete."""
        ...

    @property
    def size(self) -> int: ...

    @property
    def tag(self) -> str:
        """A tag that identifies the content of the cached bytes; it changes if `complete` fetches newer content."""
        ...

    @property
    def present(self) -> int:
        """How many bytes are cached."""
        ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from `offset`; fetch those that are not cached."""
        ...

    def want(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Prefetch these ranges in the background, in this order, instead of those of an earlier call; return at once.

        The first error is logged and ends the prefetch.
        """
        ...

    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch these ranges; return when they are cached."""
        ...

    def complete(self, check: Callable[[Path], None]) -> Path:
        """Fetch the whole file, verify it, and return `path`.

        It is verified by the server's hash or by `check`, which raises `IntegrityError` if the file at its argument is
        damaged. Wrong bytes are deleted, and `IntegrityError` is raised.
        """
        ...

    def mend(self, start: int, stop: int) -> None:
        """Invalidate the cached blocks that overlap [start, stop), so that the next read fetches them again."""
        ...

    def close(self) -> None: ...


class DatasetFile(Protocol):
    """A file of a data set.

    Attributes:
        name: its path in the data set, with slashes.
        size: in bytes, uncompressed.
    """

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...


class Contents(Protocol):
    """The files of a data set, by name. Every name that is passed to a method must be in `files`.

    Methods that fetch raise `ConnectionFailed`, `SignInError` or `RemoteError` for a server that does not answer or
    refuses, `IntegrityError` for wrong bytes, and `DiskFull`. Methods that read raise `ArchiveInvalid` for a member of
    an archive that is encrypted or neither stored nor deflated.
    """

    @property
    def files(self) -> Mapping[str, DatasetFile]: ...

    @property
    def size(self) -> int:
        """The sum of all files' sizes in bytes, uncompressed."""
        ...

    @property
    def content(self) -> str:
        """16 hex digits that change with the files, judged by their sizes and times or the server's tags."""
        ...

    def read(self, name: str) -> bytes:
        """Return the file's bytes, fetched if needed.

        An archive's member is verified by its CRC-32, a file of a remote folder by its size, a local one not at all.
        """
        ...

    def open(self, name: str) -> BinaryIO:
        """Return the file as a seekable binary file object. An archive's member is verified when its end is read."""
        ...

    def path(self, name: str) -> Path:
        """Return a local path of the file, for reading only: its own, or that of a copy in the cache.

        If the copy does not exist yet, the file is fetched or extracted to it.
        """
        ...

    def write(self, name: str, target: Path) -> None:
        """Write the file to the path `target`, whose folder must exist, verified in the same way as by `read`.

        The write is not atomic: a failure may leave a part of the file.
        """
        ...

    def matches(self, name: str, path: Path) -> bool:
        """Return whether the local file `path` has the same size and bytes as the file `name`.

        For an archive's member the CRC-32 is compared; a file of a remote folder is fetched.
        """
        ...

    def prefetch(self, names: Iterable[str]) -> None:
        """Fetch these files in the background, in this order, instead of those of an earlier call; return at once.

        The first error is logged and ends the prefetch. Local files are ignored.
        """
        ...

    def fetch(self, names: Iterable[str]) -> None:
        """Fetch these files if they are not local; return when they are cached.

        An archive's members are not verified before they are read.
        """
        ...

    def complete(self) -> None:
        """Fetch all files if they are not local.

        A whole remote archive is verified by its hash or its members' CRCs.
        """
        ...

    def save(self, target: Path) -> None:
        """Write the whole data set to the path `target` as one zip archive; create the path's folder.

        An archive is copied; if `target` has the same bytes already, nothing is done. Anything else is packed. Raises
        `InputError` if a different file is at `target`, or, for a packed data set, any file.
        """
        ...

    def info(self) -> dict[str, object]:
        """Return where the files are and how many bytes of them are cached, for `Dataset.info`, which has the keys."""
        ...

    def close(self) -> None: ...


class ArchiveContents:
    """`Contents` of the zip archive in `file`, which `close` closes.

    The folder `cache` gets the index of the archive and the members that `path` extracts. `files` raises
    `ArchiveInvalid` if the archive is invalid.
    """

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
        """16 hex digits: a hash of the local archive's path, size and mtime, or of the remote one's tag and size."""
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
    """A `DatasetFile` that is only its name, with slashes, and its size in bytes."""

    name: str
    size: int


class FolderContents:
    """`Contents` of the local folder `folder`, by the files' paths in it.

    They are listed once, at the first access to `files`, which raises `InputError` for a link to a folder, a broken
    link or a special file.
    """

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
    """Return pairs of the name and the size in bytes of all files, in their order.

    Faster than `files.values()`, which creates an `ArchiveMember` for each file of an archive.
    """
    sizes = (
        files.columns["size"].tolist() if isinstance(files, ArchiveIndex) else [file.size for file in files.values()]
    )
    return zip(files, sizes, strict=True)


def target_exists(target: Path) -> InputError:
    """Return the error to raise if a file is at the path `target` that may not be overwritten."""
    return InputError(f"{target} exists and is a different file.", "Move it away, or choose another path.")


def _crc32(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_SIZE):
            crc = zlib.crc32(piece, crc)
    return crc
