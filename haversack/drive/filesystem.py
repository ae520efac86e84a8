"""The drive for Python: an fsspec file system, `drive://`, and copying between it and this machine.

Its root is My Drive; `drive://My Drive/a.txt`, as the path reads in a mount, is `drive://a.txt`. A written file is on
the drive, verified, when `close()` returns. `tree` knows what may be believed, so fsspec's own listings cache is off.
"""

from __future__ import annotations

import errno
import io
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.spec import AbstractFileSystem

from haversack import disk, http, progress
from haversack.drive import ALIAS, ROOT, tree
from haversack.drive.care.folders import make_folders
from haversack.drive.remote.api import File
from haversack.drive.tree import Drive
from haversack.drive.writeback.journal import Draft
from haversack.errors import AlreadyExists, DiskFull, InputError, IntegrityError, IsAFolder, NotAFolder, NotFound

_PIECE = 4 << 20
# So many files, and so many bytes, wait here for the drive before the next one is copied to the journal.
_SIDE_BY_SIDE, _AHEAD = 100, 256 << 20


def _unless_gone(error: Exception) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


@dataclass
class _FindWalk:
    """What a walk knows: the drive, and for each folder to come, by its path, the folders that lead down to it."""

    drive: Drive
    ways: dict[str, list[File]] = field(default_factory=dict)


class DriveFileSystem(AbstractFileSystem):
    """Files of the drive that `hub` names (a URL, "embedded", or None for what the settings say).

    With `auto_mkdir`, as in fsspec's local file system, opening a file for writing makes the folders it lies in.

    Raises from every call what `drive.tree.Drive` raises: `NotFound`, `IsAFolder`, `NotAFolder`, `AlreadyExists`,
    `FolderNotEmpty`, `Forbidden`, `QuotaExceeded`, `ConnectionFailed`, `SignInError`.
    """

    protocol = "drive"
    root_marker = ""

    def __init__(self, hub: str | None = None, auto_mkdir: bool = False, **options: Any) -> None:
        options["use_listings_cache"] = False
        super().__init__(**options)
        self.hub = hub
        self.auto_mkdir = auto_mkdir

    @property
    def drive(self) -> Drive:
        # Found for each use: a pickled file system, and one in a forked process, find their own.
        return tree.connect(self.hub)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        bare = os.fspath(path).removeprefix("drive://").removeprefix("drive:").strip("/")
        for root in (ROOT, ALIAS):
            if bare == root or bare.startswith(root + "/"):
                return bare[len(root) :].lstrip("/")
        return bare

    def ls(self, path: str, detail: bool = True, walk: _FindWalk | None = None, **options: Any) -> list[Any]:
        """`walk` is what a walk has come to know on its way."""
        path, walk = self._strip_protocol(path), walk or _FindWalk(self.drive)
        names, way = tree.split(path), walk.ways.pop(path, None)
        file = way[-1] if way is not None else walk.drive.find(names)
        if not file.is_folder:
            found = [_info(path, file)]
        else:
            way, beginning = way or walk.drive.way(names), f"{path}/" if path else ""
            inside = walk.drive.listing(names, way)
            found = [_info(beginning + name, one) for name, one in inside.items()]
            walk.ways.update({beginning + name: [*way, one] for name, one in inside.items() if one.is_folder})
        return found if detail else [entry["name"] for entry in found]

    def walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True, on_error: Any = _unless_gone, **options: Any
    ) -> Iterator[Any]:
        """As fsspec's, whose `find`, `glob` and `get` go this way; but a folder that the drive could not list is no
        empty folder: the error is raised, unless `on_error` says otherwise. The drive, and each folder on the way, is
        found once for all of it."""
        if "walk" not in options:
            options["walk"] = _FindWalk(self.drive)
        yield from super().walk(path, maxdepth, topdown, on_error, **options)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        return _info(path, self.drive.find(tree.split(path)))

    def exists(self, path: str, **options: Any) -> bool:
        return self.drive.exists(tree.split(self._strip_protocol(path)))

    def isdir(self, path: str) -> bool:
        return self.exists(path) and self.info(path)["type"] == "directory"

    def isfile(self, path: str) -> bool:
        return self.exists(path) and self.info(path)["type"] == "file"

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    created = modified

    def checksum(self, path: str) -> str:
        return str(self.info(path)["md5"])

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        names = tree.split(self._strip_protocol(path))
        if create_parents and len(names) > 1:
            self.makedirs("/".join(names[:-1]), exist_ok=True)
        self.drive.make_folder(names)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        names = tree.split(self._strip_protocol(path))
        for depth in range(1, len(names) + 1):
            try:
                self.drive.make_folder(names[:depth], only=True)
            except AlreadyExists:
                if depth == len(names) and not exist_ok:
                    raise
        self.drive.folder(names)

    def rmdir(self, path: str) -> None:
        self.drive.remove_folder(tree.split(self._strip_protocol(path)))

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Move files and, with `recursive`, folders to the trash. A path is no pattern: `[1]` is part of a name."""
        for one in path if isinstance(path, list) else [path]:
            names = tree.split(self._strip_protocol(one))
            if not self.drive.find(names).is_folder:
                self.drive.remove(names)
            elif recursive:
                self.drive.remove_folder(names, recursive=True)
            else:
                raise IsAFolder(f"{one} on the drive is a folder.", "Say that it goes with all it holds: recursive.")

    def rm_file(self, path: str) -> None:
        self.drive.remove(tree.split(self._strip_protocol(path)))

    _rm = rm_file

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **options: Any) -> None:
        """Rename or move on the drive itself; into `path2` when that is a folder."""
        old, new = (tree.split(self._strip_protocol(one)) for one in (path1, path2))
        if self.drive.exists(new) and self.drive.find(new).is_folder:
            new = (*new, old[-1])
        self.drive.rename(old, new)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        old, new = (tree.split(self._strip_protocol(one)) for one in (path1, path2))
        if self.drive.find(old).is_folder:
            self.makedirs("/".join(new), exist_ok=True)
            return
        self.makedirs("/".join(new[:-1]), exist_ok=True)
        self.drive.copy(old, new)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        with self.open(path, "rb") as file:
            size = file.size
            first = min(start + size if start is not None and start < 0 else start or 0, size)
            last = size if end is None else min(end + size if end < 0 else end, size)
            file.seek(max(first, 0))
            return file.read(max(last - first, 0))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        with self.open(path, "xb" if mode == "create" else "wb") as file:
            file.write(value)

    def put_file(self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **options: Any) -> None:
        names = tree.split(self._strip_protocol(rpath))
        if Path(lpath).is_dir():
            self.makedirs("/".join(names), exist_ok=True)
            return
        self.makedirs("/".join(names[:-1]), exist_ok=True)
        if callback is not None:
            callback.set_size(Path(lpath).stat().st_size)
        upload(self.drive, Path(lpath), names, callback.relative_update if callback else lambda amount: None, mode)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Ask the drive again about what is in a folder, or about My Drive."""
        try:
            folder = self.drive.find(tree.split(self._strip_protocol(path or "")))
        except (NotFound, NotAFolder):
            return
        self.drive.index.doubt(folder.id)

    def reserve(self) -> str:
        """An id that a file may be made with by `deliver`, once."""
        return http.wait(self.drive.api.new_id())

    def deliver(self, source: Path, path: str, *, mark: str, file_id: str | None = None) -> None:
        """Bring a local file to the drive as a new one that `purge` may delete; see `drive.tree.Drive.deliver`."""
        self.drive.deliver(source, tree.split(self._strip_protocol(path)), mark, file_id)

    def purge(self, path: str) -> None:
        """Delete for good what `deliver` made; nothing else. Raises `Forbidden`, `NotFound`."""
        self.drive.purge(tree.split(self._strip_protocol(path)))

    def touch(self, path: str, truncate: bool = True, **options: Any) -> None:
        with self.open(path, "wb" if truncate or not self.exists(path) else "ab"):
            pass

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        options.pop("block_size", None)
        if "b" not in mode or options.get("compression"):
            return super().open(path, mode, **options)
        return self._open(self._strip_protocol(path), mode)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        names = tree.split(self._strip_protocol(path))
        kind = mode.replace("b", "")
        if kind == "r":
            return DriveFile(_DriveReader(self.drive, names), buffer_size=1 << 20)
        if kind in ("w", "x", "a"):
            if self.auto_mkdir:
                self.makedirs("/".join(names[:-1]), exist_ok=True)
            draft = self.drive.open_draft(names, truncate=kind in "wx", exclusive=kind == "x")
            return io.BufferedWriter(_Writer(self.drive, draft), buffer_size=1 << 20)
        raise InputError(f"A file of the drive cannot be opened with mode {mode!r}.", "Use rb, wb, ab or xb.")


class DriveFile(io.BufferedReader):
    """A file of the drive opened for reading."""

    raw: _DriveReader

    @property
    def size(self) -> int:
        return self.raw.size


class _DriveReader(io.RawIOBase):
    """One file of the drive, or what is being written in its place, opened for reading."""

    def __init__(self, drive: Drive, path: tree.Names) -> None:
        self._drive = drive
        self._draft: Draft | None = drive.draft_at(path)
        self._file = self._draft.as_file() if self._draft else drive.find(path)
        if self._file.is_folder:
            raise IsAFolder(f"{'/'.join(path) or 'My Drive'} on the drive is a folder.", "Name a file.")
        tree.check_has_bytes(self._file)
        self._position = 0
        self.size = self._file.size
        self.name = self._file.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self.size)[whence]
        if self._position < 0:
            raise OSError(errno.EINVAL, "before the start of the file")
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, size: int) -> bytes:
        if self._draft is not None:
            return self._drive.journal.read(self._draft, self._position, size)
        try:
            return self._drive.read(self._file, self._position, size)
        except IntegrityError:
            self._file = self._drive.refreshed(self._file)
            self.size = self._file.size
            return self._drive.read(self._file, self._position, size)

    def close(self) -> None:
        if not self.closed and self._draft is not None:
            self._drive.journal.release(self._draft)
        super().close()


class _Writer(io.RawIOBase):
    """A draft opened for writing; `close` returns once it is on the drive."""

    def __init__(self, drive: Drive, draft: Draft) -> None:
        self._drive = drive
        self._draft = draft
        self.name = draft.name

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._draft.size

    def write(self, data: Any) -> int:
        with _disk_full_said():
            return self._drive.journal.write(self._draft, data, None)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        _finish(self._drive, self._draft)


def contents(path: str, hub: str | None = None, *, recursive: bool = False) -> Iterator[tuple[str, File]]:
    """What is in a folder, or with `recursive` all that lies below it, by path below My Drive; a file as itself.

    Shortcuts are followed, and each folder comes before what is in it. Raises `NotFound`, `NotAFolder`, and in the
    middle too when the drive does not answer.
    """
    filesystem = DriveFileSystem(hub)
    drive, names = filesystem.drive, tree.split(filesystem._strip_protocol(path))
    file = drive.find(names)
    if not file.is_folder:
        yield "/".join(names), file
    elif recursive:
        yield from (("/".join(place), one) for place, one in drive.below(names))
    else:
        yield from (("/".join((*names, name)), one) for name, one in drive.listing(names).items())


def fetch(path: str, to: Path, hub: str | None = None) -> Path:
    """Copy a file or a folder with all it holds from the drive to this machine.

    `to` is the place it gets, or a folder that is there and gets it under its own name. A file is complete or absent.
    Returns where it is. Raises `NotFound`, and `AlreadyExists` when something is there.
    """
    filesystem = DriveFileSystem(hub)
    drive, names = filesystem.drive, tree.split(filesystem._strip_protocol(path))
    file = drive.find(names)
    target = Path(to) / tree.shown_name(file.name) if Path(to).is_dir() else Path(to)
    if target.exists():
        raise AlreadyExists(f"{target} is there already.", "Choose another place, or remove it first.")
    if not target.parent.is_dir():
        raise NotFound(f"There is no folder {target.parent}.", "Make it first.")
    wanted = [(names, file, target)]
    if file.is_folder:
        below = drive.below(names)
        wanted += [(place, one, target.joinpath(*place[len(names) :])) for place, one in below]
    with progress.bar(f"Fetching {file.name}", sum(one.size for _, one, _ in wanted)) as advance:
        for names_of, one, place in wanted:
            if one.is_folder:
                place.mkdir(exist_ok=True)
            else:
                _save(drive, names_of, place, advance)
    return target


def store(source: Path, path: str, hub: str | None = None) -> str:
    """Copy a file or a folder with all it holds from this machine to the drive.

    `path` is the place it gets, or a folder that is there and gets it under its own name. A file that is there gets the
    new bytes. Returns its path below My Drive once everything is on the drive. Raises `NotFound`, `IsAFolder`, and
    `InputError`, before anything is sent, for what a drive cannot keep: links to folders or to nowhere, sockets.
    """
    source = Path(source)
    if not source.exists():
        raise NotFound(f"There is no {source} on this machine.", "Check the name.")
    filesystem = DriveFileSystem(hub)
    drive, names = filesystem.drive, tree.split(filesystem._strip_protocol(path))
    if not names or path.endswith("/") or (drive.exists(names) and drive.find(names).is_folder):
        names = (*names, source.resolve().name)
    wanted = [(source, names)]
    if source.is_dir():
        for one in sorted(source.rglob("*")):
            if not one.is_file() and (one.is_symlink() or not one.is_dir()):
                raise InputError(f"{one} is neither a file nor a folder.", "Remove it, or copy in what it points to.")
            wanted.append((one, (*names, *one.relative_to(source).parts)))
    files = [(one, place) for one, place in wanted if not one.is_dir()]
    going: deque[Draft] = deque()
    with progress.bar(f"Storing {names[-1]}", sum(one.stat().st_size for one, _ in files)) as advance:
        make_folders(drive, [names[:-1], *(place for one, place in wanted if one.is_dir())])
        try:
            for one, place in files:
                going.append(_written(drive, one, place, advance))
                while len(going) > _SIDE_BY_SIDE or sum(draft.size for draft in going) > _AHEAD:
                    drive.journal.wait(going[0])
                    drive.journal.release(going.popleft())
            for draft in going:
                drive.journal.wait(draft)
        finally:
            for draft in going:
                drive.journal.release(draft)
    return "/".join(names)


def upload(drive: Drive, source: Path, path: tree.Names, advance: progress.Advance, mode: str = "overwrite") -> None:
    """Copy one local file to the drive; returns once it is there, whole."""
    _finish(drive, _written(drive, source, path, advance, mode))


def _written(drive: Drive, source: Path, path: tree.Names, advance: progress.Advance, mode: str = "overwrite") -> Draft:
    """A draft with a local file's bytes and time, on its way to the drive. The caller releases it."""
    with open(source, "rb") as file:
        draft = drive.open_draft(path, truncate=True, exclusive=mode == "create")
        try:
            with _disk_full_said():
                while data := file.read(_PIECE):
                    drive.journal.write(draft, data, None)
                    advance(len(data))
                drive.journal.set_modified(draft, source.stat().st_mtime)
                drive.journal.commit(draft)
        except BaseException:
            drive.journal.abandon(draft)
            raise
    return draft


def _finish(drive: Drive, draft: Draft) -> None:
    """Release a draft once what was written is on the drive."""
    try:
        with _disk_full_said():
            drive.journal.commit(draft)
        drive.journal.wait(draft)
    finally:
        drive.journal.release(draft)


def _save(drive: Drive, path: tree.Names, target: Path, advance: progress.Advance) -> None:
    with disk.replacing(target) as temporary:
        with _disk_full_said(), _DriveReader(drive, path) as source, open(temporary, "wb") as file:
            while data := source.read(_PIECE):
                file.write(data)
                advance(len(data))
        modified = drive.find(path).modified
        os.utime(temporary, (modified, modified))


@contextmanager
def _disk_full_said() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC or isinstance(error, DiskFull):
            raise
        raise DiskFull("The local disk is full.", "Free space on it; what was written before is kept.") from error


def _info(path: str, file: File) -> dict[str, Any]:
    return {
        "name": path,
        "type": "directory" if file.is_folder else "file",
        "size": 0 if file.is_folder else file.size,
        "id": file.id,
        "md5": file.md5,
        "mtime": file.modified,
    }
