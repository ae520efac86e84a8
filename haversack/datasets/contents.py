"""What a data set holds, in the two forms there are: the members of an archive, and the files of a folder.

An archive may be on this machine or elsewhere (`blocks.ranges`); a member that turns out to be damaged in what was
fetched is fetched again once, from its own range.
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
from haversack.archive.index import DEFLATED, STORED, ArchiveIndex, ArchiveMember
from haversack.archive.reader import Archive, LocalFile
from haversack.archive.writer import folder_files, pack
from haversack.blocks.sparse import require_space
from haversack.errors import InputError, IntegrityError

_PIECE = 1 << 20

T = TypeVar("T")


class Elsewhere(Protocol):
    """A file that is not on this machine, or not whole; `blocks.ranges.RemoteFile` tells what each method does."""

    @property
    def path(self) -> Path: ...
    @property
    def size(self) -> int: ...
    @property
    def tag(self) -> str: ...
    @property
    def present(self) -> int: ...
    def read_at(self, offset: int, size: int) -> bytes: ...
    def want(self, ranges: Iterable[tuple[int, int]]) -> None: ...
    def fetch(self, ranges: Iterable[tuple[int, int]]) -> None: ...
    def complete(self, check: Callable[[Path], None]) -> Path: ...
    def mend(self, start: int, stop: int) -> None: ...
    def close(self) -> None: ...


class DatasetFile(Protocol):
    """A file of a data set: its name with slashes, and its size in bytes."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...


class Contents(Protocol):
    """The files of a data set. Names given to its methods are in `files`."""

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

    def read(self, name: str) -> bytes: ...
    def open(self, name: str) -> BinaryIO: ...
    def path(self, name: str) -> Path:
        """The one file on this machine's disk; it is complete or absent."""
        ...

    def write(self, name: str, target: Path) -> None:
        """Put the verified file at `target`, which nobody looks at before this returns."""
        ...

    def is_at(self, name: str, path: Path) -> bool:
        """Whether `path` has the same bytes."""
        ...

    def want(self, names: Iterable[str]) -> None:
        """Begin to fetch these files, in this order, because they will be read next."""
        ...

    def fetch(self, names: Iterable[str]) -> None:
        """Have these files' bytes on this machine; they are verified when they are read."""
        ...

    def complete(self) -> None:
        """Have everything on this machine, verified."""
        ...

    def save(self, target: Path) -> None:
        """Put the whole data set at `target` as one archive; raises `InputError` where another file is."""
        ...

    def info(self) -> dict[str, object]: ...
    def close(self) -> None: ...


class Archived:
    """The members of a zip archive. `cache` is a folder for its index, and for members that are wanted as files."""

    def __init__(self, file: LocalFile | Elsewhere, cache: Path) -> None:
        self._file = file
        self._cache = cache
        self._archive = self._opened()

    @property
    def files(self) -> ArchiveIndex:
        return self._archive.members

    @property
    def size(self) -> int:
        return self.files.size

    def read(self, name: str) -> bytes:
        return self._mending(name, self._archive.read)

    def open(self, name: str) -> BinaryIO:
        return self._archive.open(self.files[name])

    def path(self, name: str) -> Path:
        target = self._cache / "files" / self.content / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            require_space(target.parent, self.files[name].size)
            put_whole(target, lambda aside: self.write(name, aside))
        return target

    def write(self, name: str, target: Path) -> None:
        def write_pieces(member: ArchiveMember) -> None:
            with open(target, "wb") as file:
                for piece in self._archive.pieces(member):
                    file.write(piece)

        self._mending(name, write_pieces)

    def is_at(self, name: str, path: Path) -> bool:
        member = self.files[name]
        return path.stat().st_size == member.size and _crc_of(path) == member.crc

    def want(self, names: Iterable[str]) -> None:
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
                self._archive = self._opened()

    def save(self, target: Path) -> None:
        if target.exists() and target.stat().st_size != self._file.size:
            raise occupied(target)
        self.complete()
        if target.exists():
            if not filecmp.cmp(self._file.path, target, shallow=False):
                raise occupied(target)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        require_space(target.parent, self._file.size)
        put_whole(target, lambda aside: shutil.copyfile(self._file.path, aside))

    def info(self) -> dict[str, object]:
        here = self._file.size if isinstance(self._file, LocalFile) else self._file.present
        return {"archive": str(self._file.path), "archive_size": self._file.size, "archive_here": here}

    def close(self) -> None:
        self._file.close()

    def _opened(self) -> Archive:
        return Archive(self._file, self._cache / f"{self.content}.index", self.content)

    @property
    def content(self) -> str:
        """A name for the archive as it is now, so that files of an earlier one are not taken for its own."""
        if isinstance(self._file, LocalFile):
            about = self._file.path.stat()
            known = f"{self._file.path} {about.st_size} {about.st_mtime_ns}"
        else:
            known = f"{self._file.tag} {self._file.size}"
        return hashlib.sha256(known.encode()).hexdigest()[:16]

    def _mending(self, name: str, use: Callable[[ArchiveMember], T]) -> T:
        """What `use` returns for the member; where its bytes are damaged, they are fetched again once."""
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
    """A `File` that is nothing more."""

    name: str
    size: int


class FolderContents:
    """The files of a folder on this machine, as they are."""

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

    def is_at(self, name: str, path: Path) -> bool:
        return filecmp.cmp(self.path(name), path, shallow=False)

    def want(self, names: Iterable[str]) -> None:
        """They are all here."""

    def fetch(self, names: Iterable[str]) -> None:
        """They are all here."""

    def complete(self) -> None:
        """It is all here."""

    def save(self, target: Path) -> None:
        if target.exists():
            raise occupied(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        pack(self._folder, target)

    def info(self) -> dict[str, object]:
        return {"folder": str(self._folder)}

    def close(self) -> None:
        """Nothing is held open."""


def _check_members(path: Path) -> None:
    """Read every member that can be read, for archives whose hash nobody told. Raises `IntegrityError`."""
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
    """Names and sizes, without making a record for each member of an archive."""
    sizes = (
        files.columns["size"].tolist() if isinstance(files, ArchiveIndex) else [file.size for file in files.values()]
    )
    return zip(files, sizes, strict=True)


def occupied(target: Path) -> InputError:
    return InputError(f"{target} is there and is another file.", "Move it away, or name another place.")


def put_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file beside `target`, then give it its name."""
    with disk.replacing(target) as temporary:
        write(temporary)


def _crc_of(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            crc = zlib.crc32(piece, crc)
    return crc
