"""The drive as an fsspec file system, `drive://`, and copying between the drive and this machine.

The root is My Drive. `drive://My Drive/a.txt` and `drive://MyDrive/a.txt`, as paths read in a mount, are the same file
as `drive://a.txt`. `close()` of a written file returns when the file is on the drive and its MD5 has been compared.
fsspec's own cache of listings is switched off: the drive's index knows what is current.

fsspec's interface: https://filesystem-spec.readthedocs.io/en/latest/api.html
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
from haversack.drive.index import names as drive_names
from haversack.drive.remote.api import File
from haversack.drive.resolve import Names
from haversack.drive.tree import Drive
from haversack.drive.writeback.draft import Draft
from haversack.errors import AlreadyExists, DiskFull, InputError, IntegrityError, IsAFolder, NotAFolder, NotFound

_CHUNK = 4 << 20
# `store` copies no further file into the journal while more files, or more bytes, than this wait for their upload.
_MAX_PENDING_FILES, _MAX_PENDING_BYTES = 100, 256 << 20


def _ignore_missing(error: Exception) -> None:
    """The default `on_error` of a walk: ignore a folder that does not exist, raise any other error."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


@dataclass
class _FindWalk:
    """The state of one walk, so that no path is resolved twice.

    `walk` passes it to each call of `ls`. `folders` maps the path of each folder still to be read to the list of
    folders from My Drive down to it.
    """

    drive: Drive
    folders: dict[str, list[File]] = field(default_factory=dict)


class DriveFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """An fsspec file system over a drive, with paths below My Drive.

    Args:
        hub: The drive: a hub's URL, "google", "embedded", or None for the default of `credentials.drive`.
        auto_mkdir: Create missing parent folders when a file is opened for writing, as fsspec's local file system does.
        **options: fsspec's own options, such as `skip_instance_cache`.

    Any call may raise `ConnectionFailed`, `SignInError`, `RemoteError`, `QuotaExceeded` and `DiskFull`, and for its
    paths `NotFound`, `IsAFolder`, `NotAFolder`, `AlreadyExists`, `FolderNotEmpty` and `Forbidden`. Each is also the
    built-in exception that fsspec's users expect (`FileNotFoundError` and so on; see `haversack.errors`).
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
        """The drive, connected at the first use in each process; so the file system can be pickled and forked.

        Raises `SignInError` if no sign-in is found or it is refused, `InputError` for an invalid `hub`,
        `ConnectionFailed`, and `RemoteError`.
        """
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
        """List a folder, sorted by name, shortcuts followed; a file as a list of itself.

        Returns dictionaries as from `info`, or paths with `detail=False`. `walk` is used by the method `walk` only.
        Raises `NotFound`, `NotAFolder`.
        """
        path, walk = self._strip_protocol(path), walk or _FindWalk(self.drive)
        names, folders = tree.split(path), walk.folders.pop(path, None)
        file = folders[-1] if folders is not None else walk.drive.find(names)
        if not file.is_folder:
            found = [_info(path, file)]
        else:
            folders, prefix = folders or walk.drive.folders_to(names), f"{path}/" if path else ""
            inside = walk.drive.listing(names, folders)
            found = [_info(prefix + name, one) for name, one in inside.items()]
            walk.folders.update({prefix + name: [*folders, one] for name, one in inside.items() if one.is_folder})
        return found if detail else [entry["name"] for entry in found]

    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: Any = _ignore_missing,
        **options: Any,
    ) -> Iterator[Any]:
        """Yield (path, folders, files) for `path` and each folder below it; no path is resolved twice.

        Arguments and results are those of fsspec's `walk`, which its `find`, `glob`, `du` and recursive `get` call.
        Unlike there, an error other than a missing folder is raised and not read as an empty folder, unless `on_error`
        ("omit", "raise" or a function of the exception) says otherwise.
        """
        if "walk" not in options:
            options["walk"] = _FindWalk(self.drive)
        yield from super().walk(path, maxdepth, topdown, on_error, **options)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """Describe a file or folder, shortcuts followed. Raises `NotFound`, `NotAFolder`.

        Returns `name` (the path), `type` ("file" or "directory"), `size` in bytes (0 for a folder), `id`, `md5` in hex
        ("" for a folder, a Google document, or a draft, which is not uploaded yet) and `mtime` (seconds since 1970).
        """
        path = self._strip_protocol(path)
        return _info(path, self.drive.find(tree.split(path)))

    def exists(self, path: str, **options: Any) -> bool:
        return self.drive.exists(tree.split(self._strip_protocol(path)))

    def isdir(self, path: str) -> bool:
        return self.exists(path) and self.info(path)["type"] == "directory"

    def isfile(self, path: str) -> bool:
        return self.exists(path) and self.info(path)["type"] == "file"

    def modified(self, path: str) -> datetime:
        """Return the modification time, in UTC. `created` returns the same. Raises `NotFound`, `NotAFolder`."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    created = modified

    def checksum(self, path: str) -> str:
        """Return the MD5 of a file's bytes in hex; "" for a folder, a Google document, or a draft.

        A draft is a file that was written on this machine and is not uploaded yet. Raises `NotFound`, `NotAFolder`.
        """
        return str(self.info(path)["md5"])

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        """Create a folder and, with `create_parents`, its missing parents.

        Raises `AlreadyExists` if there is something at `path`, `NotAFolder` if a file is in the way, and `NotFound` if
        the parent is missing and `create_parents` is False.
        """
        names = tree.split(self._strip_protocol(path))
        if create_parents and len(names) > 1:
            self.makedirs("/".join(names[:-1]), exist_ok=True)
        self.drive.make_folder(names)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Create a folder and its missing parents.

        Several processes that create one folder at the same time end up with the same folder. Raises `AlreadyExists`
        without `exist_ok`, and `NotAFolder` if a file is in the way.
        """
        names = tree.split(self._strip_protocol(path))
        for depth in range(1, len(names) + 1):
            try:
                self.drive.make_folder(names[:depth], only=True)
            except AlreadyExists:
                if depth == len(names) and not exist_ok:
                    raise
        self.drive.folder(names)

    def rmdir(self, path: str) -> None:
        """Move an empty folder to the trash.

        Raises `FolderNotEmpty`, `NotAFolder` for a file, `NotFound`, and `Forbidden` for My Drive itself.
        """
        self.drive.remove_folder(tree.split(self._strip_protocol(path)))

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Move files and, with `recursive`, folders to the trash.

        `path` is one path or a list, never a pattern: `[1]` is part of a name. Of a shortcut, the shortcut itself is
        trashed. `maxdepth` is ignored. Raises `IsAFolder` for a folder without `recursive`, and `NotFound`; paths
        earlier in the list are trashed then.
        """
        for one in path if isinstance(path, list) else [path]:
            names = tree.split(self._strip_protocol(one))
            if not self.drive.find(names).is_folder:
                self.drive.remove(names)
            elif recursive:
                self.drive.remove_folder(names, recursive=True)
            else:
                raise IsAFolder(f"{one} on the drive is a folder.", "Use recursive to remove it with everything in it.")

    def rm_file(self, path: str) -> None:
        """Move one file to the trash. Raises `IsAFolder` for a folder, and `NotFound`."""
        self.drive.remove(tree.split(self._strip_protocol(path)))

    _rm = rm_file

    def mv(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **options: Any) -> None:
        """Rename or move a file or folder on the drive; into `path2` if that is a folder.

        A file at `path2` is replaced and moved to the trash. `recursive` and `maxdepth` are ignored: a folder is always
        moved with everything in it. Raises `NotFound` for `path1` or the parent of `path2`, `NotAFolder` for a folder
        that would replace a file, and `Forbidden` for My Drive itself or a folder moved into itself.
        """
        old, new = (tree.split(self._strip_protocol(one)) for one in (path1, path2))
        if self.drive.exists(new) and self.drive.find(new).is_folder:
            new = (*new, old[-1])
        self.drive.rename(old, new)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        """Copy a file on the drive itself, without a download; for a folder at `path1`, create the folder `path2`.

        Missing parents of `path2` are created; a file at `path2` is replaced and moved to the trash. Raises `NotFound`
        for `path1`, and `IsAFolder` if a file would replace a folder.
        """
        old, new = (tree.split(self._strip_protocol(one)) for one in (path1, path2))
        if self.drive.find(old).is_folder:
            self.makedirs("/".join(new), exist_ok=True)
            return
        self.makedirs("/".join(new[:-1]), exist_ok=True)
        self.drive.copy(old, new)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """Return the bytes of a file from `start` to before `end`; negative numbers count from the end of the file.

        Raises `NotFound`, `IsAFolder`, and `Forbidden` for a Google document.
        """
        with self.open(path, "rb") as file:
            size = file.size
            first = min(start + size if start is not None and start < 0 else start or 0, size)
            last = size if end is None else min(end + size if end < 0 else end, size)
            file.seek(max(first, 0))
            data: bytes = file.read(max(last - first, 0))
            return data

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Write `value` as the whole content of a file; return when it is on the drive.

        The mode "overwrite" replaces the content of an existing file; "create" raises `AlreadyExists` instead.
        """
        with self.open(path, "xb" if mode == "create" else "wb") as file:
            file.write(value)

    def put_file(self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **options: Any) -> None:
        """Upload a local file and keep its modification time; for a local folder, create the folder `rpath`.

        Missing parents of `rpath` are created. Returns when the file is on the drive. `callback`, an
        `fsspec.callbacks.Callback`, is told the size and each number of bytes copied. The mode "overwrite" replaces the
        content of an existing file; "create" raises `AlreadyExists` instead. Raises `FileNotFoundError` for `lpath`.
        """
        names = tree.split(self._strip_protocol(rpath))
        if Path(lpath).is_dir():
            self.makedirs("/".join(names), exist_ok=True)
            return
        self.makedirs("/".join(names[:-1]), exist_ok=True)
        if callback is not None:
            callback.set_size(Path(lpath).stat().st_size)
        upload(self.drive, Path(lpath), names, callback.relative_update if callback else lambda amount: None, mode)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Mark what is cached of the names in a folder (by default My Drive) as stale: the next use asks the drive.

        Folders below are not affected. A path that does not exist is ignored.
        """
        try:
            folder = self.drive.find(tree.split(self._strip_protocol(path or "")))
        except (NotFound, NotAFolder):
            return
        self.drive.index.invalidate(folder.id)

    def reserve(self) -> str:
        """Return an unused file id from the drive, for `deliver`. Nothing is created on the drive."""
        return http.wait(self.drive.api.new_id())

    def deliver(self, source: str | Path, path: str, *, mark: str, file_id: str | None = None) -> None:
        """Upload a local file as a new file, marked as haversack's, so that `purge` may delete it.

        Args:
            source: The local file.
            path: Its path on the drive.
            mark: Stored in the file's `appProperties`, under the key that marks haversack's own files.
            file_id: An id from `reserve`; None for a new one. If several processes use one id, only the first upload
                succeeds.

        Raises `AlreadyExists` if the id or the path is in use; `NotFound` or `NotAFolder` for the parent of `path`;
        `IntegrityError` if the drive stored other bytes; and `OSError` if `source` cannot be read.
        """
        self.drive.deliver(Path(source), tree.split(self._strip_protocol(path)), mark, file_id)

    def purge(self, path: str) -> None:
        """Delete a file that `deliver` made, for good, not into the trash.

        Raises `Forbidden` for any other file or folder, `NotFound`, and `NotAFolder`.
        """
        self.drive.purge(tree.split(self._strip_protocol(path)))

    def touch(self, path: str, truncate: bool = True, **options: Any) -> None:
        """Create an empty file, or empty the one at `path`; with `truncate=False` an existing file stays as it is."""
        with self.open(path, "wb" if truncate or not self.exists(path) else "ab"):
            pass

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open a file with the mode "r", "w", "x" or "a", as bytes ("b") or text; return a file object.

        `close()` of a written file returns when it is on the drive, and raises what keeps it from getting there.
        `options` are fsspec's: `compression`, and for text `encoding`, `errors` and `newline`; `block_size` is ignored.
        Raises `InputError` for another mode, `NotFound` for a file to read or the parent of one to write (unless
        `auto_mkdir` is set), `IsAFolder`, `AlreadyExists` with "x", and `Forbidden` for a Google document.
        """
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
        raise InputError(f"Files on the drive cannot be opened with the mode {mode!r}.", "Use rb, wb, ab or xb.")


class DriveFile(io.BufferedReader):
    """A file on the drive, opened for reading as bytes, with a buffer of 1 MiB."""

    raw: _DriveReader

    @property
    def size(self) -> int:
        """The size of the file in bytes; it changes if a new version of the file is read."""
        return self.raw.size


class _DriveReader(io.RawIOBase):
    """Reads a file on the drive; if a file that is not uploaded yet (a draft) is at its path, reads that.

    If the file changes on the drive, the next read that needs bytes from there continues at the same position in the
    new version. Not thread-safe. The constructor raises `NotFound`, `IsAFolder`, and `Forbidden` for a Google document.
    """

    def __init__(self, drive: Drive, path: Names) -> None:
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
            raise OSError(errno.EINVAL, "The position is before the start of the file.")
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
    """Appends to a draft, the local copy of a file to upload; `close` returns when the draft is on the drive.

    `close` releases the draft, and raises the error of an upload that fails; the journal retries that upload.
    """

    def __init__(self, drive: Drive, draft: Draft) -> None:
        self._drive = drive
        self._draft = draft
        self.name = draft.name

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._draft.size

    def write(self, data: Any) -> int:
        with _raising_disk_full():
            return self._drive.journal.write(self._draft, data, None)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        _upload_and_release(self._drive, self._draft)


def contents(path: str, hub: str | None = None, *, recursive: bool = False) -> Iterator[tuple[str, File]]:
    """Yield (path below My Drive, file) for everything in a folder, shortcuts followed; a file as itself.

    With `recursive`, everything below the folder, each folder before its files. `hub` names the drive (see
    `DriveFileSystem`). Raises `NotFound`, `NotAFolder`, `InputError` for an invalid `hub`, `SignInError`,
    `ConnectionFailed` and `RemoteError`; the last three also after some were yielded.
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
    """Download a file, or a folder with everything in it, with modification times of files.

    `to` is the target's path; if it is an existing folder, the target is created in it under the name on the drive.
    Each file is complete or absent, also after a crash. `hub` names the drive (see `DriveFileSystem`). Returns the
    target's path. Raises `NotFound` for `path` or the target's parent, `AlreadyExists` if the target exists,
    `Forbidden` for a Google document, `DiskFull`, `IntegrityError` for a file that keeps changing, `InputError` for an
    invalid `hub`, `SignInError`, `ConnectionFailed` and `RemoteError`. Files that were downloaded before an error stay.
    """
    filesystem = DriveFileSystem(hub)
    drive, names = filesystem.drive, tree.split(filesystem._strip_protocol(path))
    file = drive.find(names)
    target = Path(to) / drive_names.sanitize(file.name) if Path(to).is_dir() else Path(to)
    if target.exists():
        raise AlreadyExists(f"{target} exists already.", "Choose another path, or remove it first.")
    if not target.parent.is_dir():
        raise NotFound(f"There is no folder {target.parent}.", "Create it first.")
    copies = [(names, file, target)]
    if file.is_folder:
        below = drive.below(names)
        copies += [(place, one, target.joinpath(*place[len(names) :])) for place, one in below]
    with progress.bar(f"Fetching {file.name}", sum(one.size for _, one, _ in copies)) as advance:
        for source, one, place in copies:
            if one.is_folder:
                place.mkdir(exist_ok=True)
            else:
                _download(drive, source, place, advance)
    return target


def store(source: Path, path: str, hub: str | None = None) -> str:
    """Upload a file, or a folder with everything in it, with modification times of files.

    `path` is the target's path; if it is an existing folder, or ends with "/", the target is created in it under the
    name of `source`. Files that exist get the new bytes; other files in a target folder stay. Missing folders are
    created. `hub` names the drive (see `DriveFileSystem`). Returns the target's path below My Drive when every file is
    on the drive.

    Raises, before anything is uploaded, `NotFound` for `source`, and `InputError` for an invalid `hub`, links to
    folders, broken links, sockets and other special files. Raises `IsAFolder`, `NotAFolder`, `Forbidden`, `DiskFull`,
    `QuotaExceeded`, `SignInError`, `ConnectionFailed` and other `RemoteError`s; then files that were copied to the
    journal are uploaded later all the same.
    """
    source = Path(source)
    if not source.exists():
        raise NotFound(f"There is no {source} on this machine.", "Check the name.")
    filesystem = DriveFileSystem(hub)
    drive, names = filesystem.drive, tree.split(filesystem._strip_protocol(path))
    if not names or path.endswith("/") or (drive.exists(names) and drive.find(names).is_folder):
        names = (*names, source.resolve().name)
    copies = [(source, names)]
    if source.is_dir():
        for one in sorted(source.rglob("*")):
            if not one.is_file() and (one.is_symlink() or not one.is_dir()):
                raise InputError(f"{one} is neither a file nor a folder.", "Remove it, or copy in what it points to.")
            copies.append((one, (*names, *one.relative_to(source).parts)))
    files = [(one, place) for one, place in copies if not one.is_dir()]
    pending: deque[Draft] = deque()
    with progress.bar(f"Storing {names[-1]}", sum(one.stat().st_size for one, _ in files)) as advance:
        make_folders(drive, [names[:-1], *(place for one, place in copies if one.is_dir())])
        try:
            for one, place in files:
                pending.append(_commit_copy(drive, one, place, advance))
                while len(pending) > _MAX_PENDING_FILES or sum(draft.size for draft in pending) > _MAX_PENDING_BYTES:
                    drive.journal.wait(pending[0])
                    drive.journal.release(pending.popleft())
            for draft in pending:
                drive.journal.wait(draft)
        finally:
            for draft in pending:
                drive.journal.release(draft)
    return "/".join(names)


def upload(drive: Drive, source: Path, path: Names, advance: progress.Advance, mode: str = "overwrite") -> None:
    """Upload one local file and its modification time to `path`; return when it is on the drive, its MD5 compared.

    The bytes are first copied to the journal; `advance` is called with the number of bytes in each piece. The mode
    "overwrite" replaces the content of an existing file; "create" raises `AlreadyExists` instead. Raises `NotFound` and
    `NotAFolder` for the parent, `IsAFolder`, `Forbidden` for a Google document, `DiskFull`, and the error of an upload
    that fails (`QuotaExceeded`, `ConnectionFailed`, …), which the journal then retries.
    """
    _upload_and_release(drive, _commit_copy(drive, source, path, advance, mode))


def _commit_copy(drive: Drive, source: Path, path: Names, advance: progress.Advance, mode: str = "overwrite") -> Draft:
    """Copy a local file's bytes and modification time into the draft at `path`, and commit it; its upload is pending.

    If that fails, the draft is abandoned. The caller must release the draft.
    """
    with open(source, "rb") as file:
        draft = drive.open_draft(path, truncate=True, exclusive=mode == "create")
        try:
            with _raising_disk_full():
                while data := file.read(_CHUNK):
                    drive.journal.write(draft, data, None)
                    advance(len(data))
                drive.journal.set_modified(draft, source.stat().st_mtime)
                drive.journal.commit(draft)
        except BaseException:
            drive.journal.abandon(draft)
            raise
    return draft


def _upload_and_release(drive: Drive, draft: Draft) -> None:
    """Commit a draft, wait until it is uploaded, and release it; released too if that fails, and the error raised."""
    try:
        with _raising_disk_full():
            drive.journal.commit(draft)
        drive.journal.wait(draft)
    finally:
        drive.journal.release(draft)


def _download(drive: Drive, path: Names, target: Path, advance: progress.Advance) -> None:
    """Write a file of the drive to `target` by atomic replace, with its modification time."""
    with disk.replacing(target) as temporary:
        with _raising_disk_full(), _DriveReader(drive, path) as source, open(temporary, "wb") as file:
            while data := source.read(_CHUNK):
                file.write(data)
                advance(len(data))
        modified = drive.find(path).modified
        os.utime(temporary, (modified, modified))


@contextmanager
def _raising_disk_full() -> Iterator[None]:
    """Turn an `OSError` for a full local disk into `DiskFull`."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC or isinstance(error, DiskFull):
            raise
        raise DiskFull("The local disk is full.", "Free space on it; what was committed before is kept.") from error


def _info(path: str, file: File) -> dict[str, Any]:
    """Return a file as `DriveFileSystem.info` does."""
    return {
        "name": path,
        "type": "directory" if file.is_folder else "file",
        "size": 0 if file.is_folder else file.size,
        "id": file.id,
        "md5": file.md5,
        "mtime": file.modified,
    }
