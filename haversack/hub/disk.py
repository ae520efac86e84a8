"""Reconciles the table of files with the disk: the folder is the truth, and users may change it at any time.

What a call is about is compared first: one name, the entries of a folder, or one file with the folders above it. A new
entry gets a row and an id; a missing one loses its row; a file renamed within its folder keeps its id, recognized by
its inode and mtime. A file moved to another folder is a new file. Symbolic links and devices get no row, and no path
follows a link, so nothing outside of the folder can be reached.

A scan compares a folder's entries with its rows. A folder is scanned again only if its ctime changed. Changes by the
hub itself do not count: `own_change` records the ctime that they cause. A ctime is trusted once it is older than the
clock tick of any file system; a change by hand in the same tick as one of the hub's own can go unnoticed until the
folder is read for another reason. Large folders are compared in batches, and other calls run in between.
"""

from __future__ import annotations

import os
import stat
import threading
import time
import weakref
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from haversack.hub import documents, names
from haversack.hub.index import FOLDER, FoundOnDisk, HubFile, HubIndex, guess_mime
from haversack.hub.refusal import Refusal, not_found

_BATCH = 2000
_SETTLED_NS = 100_000_000
_MIME_BY_SUFFIX = {suffix.encode(): mime for mime, suffix in documents.SUFFIXES.items()}
_SUFFIXES = tuple(_MIME_BY_SUFFIX)

ComparedFolders = dict[str, tuple["HubFile", Path]]
"""Folders that were compared in the course of one call: by id, the row and the path."""


class Disk:
    """Compares the rows of `index` with `folder` (My Drive) and `trash` (the files in the trash, named by their ids).

    Where they differ, the rows are corrected; the disk is only read, but a missing My Drive is created. Set `closing`
    to stop scans early; a scan that was stopped is repeated at the next start. Thread-safe, with the locks that the
    methods name. A folder's scan lock is acquired before the lock of `Records`, which guards `_scan_locks`,
    `_active_scans` and `_own_ctimes` (by folder id: the ctime that the hub's own last change caused).
    """

    def __init__(self, index: HubIndex, folder: Path, trash: Path) -> None:
        self.index = index
        self.records = index.records
        self.folder = folder
        self.trash = trash
        self._scan_locks: weakref.WeakValueDictionary[str, _ScanLock] = weakref.WeakValueDictionary()
        self._active_scans: list[_ActiveScan] = []
        self._own_ctimes: dict[str, int] = {}
        self.closing = threading.Event()

    # One file

    def verify(self, file: HubFile, compared: ComparedFolders) -> tuple[HubFile, Path]:
        """Compare a file and the folders above it with the disk, correct the rows; return the file's row and path.

        `compared` holds the folders that were compared in the same call, by id: these are trusted, and others that are
        compared are added. The caller holds the lock of `Records`. Raises `Refusal` (404) if the file or a folder above
        it does not exist any more.
        """
        found, path = self._verify(file, compared)
        if found.folder:
            compared[found.id] = (found, path)
        return found, path

    def _verify(self, file: HubFile, compared: ComparedFolders) -> tuple[HubFile, Path]:
        for _ in range(3):
            if file.parent is None:
                self.folder.mkdir(exist_ok=True)
                return file, self.folder
            if file.binned:
                path = self.trash / file.id
            else:
                parent, folder = compared.get(file.parent) or self.verify(self.index.require(file.parent), compared)
                path = folder / os.fsdecode(file.disk)
            status = _status(path)
            if status is not None and _same_kind(file, status):
                return (self.index.require(file.id) if self.update_from_stat(file, status) else file), path
            if file.binned:
                self.index.remove(file.id)
            else:
                self._scan(parent, folder, force=True)
            file = self.index.require(file.id)
        raise not_found(file.id)

    def verify_all(self, files: Sequence[HubFile], compared: ComparedFolders) -> list[HubFile]:
        """Compare files with the disk, correct their rows, and return these, without files that do not exist any more.

        `compared` holds the folders that were compared in the same call, by id: these are trusted, and others that are
        compared are added. The caller must not hold the lock of `Records`.
        """
        found: list[HubFile] = []
        folders: dict[str, int | None] = {}
        try:
            for file in files:
                parent = str(file.parent)
                if not file.binned and parent not in folders:
                    folders[parent] = self._open_folder(parent, compared)
                descriptor = None if file.binned else folders[parent]
                if descriptor is not None and not self._differs(file, descriptor):
                    found.append(file)
                else:
                    found += self._verify_one(file)
        finally:
            for descriptor in folders.values():
                if descriptor is not None:
                    os.close(descriptor)
        return found

    def update_from_stat(self, file: HubFile, status: os.stat_result) -> bool:
        """Set the size, mtime and inode in a file's row from `status`; return whether any of them was different.

        A file that differs becomes a new revision without hashes, numbered as a change. A folder has no content, so its
        row is updated without that.
        """
        if file.folder:
            if (status.st_mtime_ns, status.st_ino) == (file.modified, file.inode):
                return False
            # A folder's mtime changes with its entries; that is not a change of the folder itself.
            self.index.set_unversioned(file.id, modified=status.st_mtime_ns, inode=status.st_ino)
            return True
        if (status.st_size, status.st_mtime_ns, status.st_ino) == (file.size, file.modified, file.inode):
            return False
        self.index.update(
            file.id, size=status.st_size, modified=status.st_mtime_ns, inode=status.st_ino,
            md5=None, sha1=None, sha256=None, revision=file.revision + 1,
        )  # fmt: skip
        return True

    # One name

    def compare_name(self, parent: HubFile, folder: Path, name: str) -> None:
        """Correct the rows of the files called `name` in a folder, without reading the other entries.

        The whole folder is scanned only if a file of that name seems to have been renamed or removed by hand.

        Args:
            parent: the folder's row.
            folder: the folder's path on disk.
            name: the file's name in the API; case is ignored among the rows, not on disk.

        The caller holds the lock of `Records`. Raises `Refusal` (404) if the folder has to be scanned and is gone.
        """
        for suffix in ("", *documents.SUFFIXES.values()):
            disk = names.to_disk(name + suffix)
            if names.from_disk(disk) == name + suffix and self.index.find_on_disk(parent.id, disk) is None:
                status = _status(folder / os.fsdecode(disk))
                # Perhaps renamed by hand: only a scan can tell a new file from one that has a row under its old name.
                if status is not None and self.index.has_inode(parent.id, status.st_ino):
                    self._scan(parent, folder)
                elif status is not None:
                    self.index.insert_found(parent, [_describe(folder, disk, status)])
        for file in self.index.find_by_name(parent.id, name):
            status = _status(folder / os.fsdecode(file.disk))
            if status is None or not _same_kind(file, status):
                return self._scan(parent, folder, force=True)
            self.update_from_stat(file, status)
        return None

    # One folder

    def scan(self, parent: HubFile, folder: Path, *, contents: bool = False) -> None:
        """Correct the rows of the entries of `parent`, at the path `folder`, if the folder's ctime has changed.

        `contents` also compares each file's size, mtime and inode, which the folder's ctime does not cover. Scans of
        one folder run one at a time. The caller must not hold the lock of `Records`. Raises `Refusal` (404) if the
        folder does not exist, `PermissionError` if it cannot be read.
        """
        with self.records.exclusive():
            scan_lock = self._scan_locks.get(parent.id) or _ScanLock()
            self._scan_locks[parent.id] = scan_lock
        with scan_lock.lock:
            self._scan(parent, folder, contents=contents)

    def _scan(self, parent: HubFile, folder: Path, *, force: bool = False, contents: bool = False) -> None:
        """Do the same as `scan`, without the scan lock; `force` compares the entries even if the ctime is unchanged."""
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise not_found(parent.id) from None
        try:
            with self._track_scan(parent.id, descriptor) as scan:
                stored = self.index.require(parent.id)
                if force or stored.scanned != scan.ctime:
                    settled = time.time_ns() - scan.ctime > _SETTLED_NS
                    settled = settled or self._own_ctimes.get(parent.id) == scan.ctime
                    self._compare_entries(stored, folder, descriptor)
                    self._record_scan(descriptor, scan, settled)
            if contents:
                self._update_contents(stored, descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _track_scan(self, folder_id: str, descriptor: int) -> Iterator[_ActiveScan]:
        """Register a scan, so that `own_change` can update the ctime that the scan started from."""
        with self.records.exclusive():
            scan = _ActiveScan(folder_id, os.fstat(descriptor).st_ctime_ns)
            self._active_scans.append(scan)
        try:
            yield scan
        finally:
            with self.records.exclusive():
                self._active_scans.remove(scan)

    @contextmanager
    def own_change(self, parent: HubFile, folder: Path) -> Iterator[None]:
        """Wrap a change by the hub to the entries of `parent` at the path `folder`, so that it causes no new scan.

        A folder whose rows were current before the change counts as current afterwards. The caller holds the lock of
        `Records`.
        """
        before = _ctime(folder)
        yield
        after = _ctime(folder)
        self._own_ctimes[parent.id] = after
        for scan in self._active_scans:
            if (scan.folder_id, scan.ctime) == (parent.id, before):
                scan.ctime = after
        self.records.write("UPDATE files SET scanned = ? WHERE id = ? AND scanned = ?", after, parent.id, before)

    def scan_tree(self, *, contents: bool) -> None:
        """Scan My Drive and every folder below it until `closing` is set; folders that cannot be read are skipped.

        `contents` also compares each file's size, mtime and inode, which a folder's ctime does not cover.
        """
        pending = [self.index.root]
        while pending and not self.closing.is_set():
            folder_id = pending.pop()
            try:
                with self.records.exclusive():
                    file, path = self.verify(self.index.require(folder_id), {})
                self.scan(file, path, contents=contents)
            except (Refusal, PermissionError):
                continue
            pending += self.index.folders_in(folder_id)

    def _record_scan(self, descriptor: int, scan: _ActiveScan, settled: bool) -> None:
        """Record the folder's current ctime as compared.

        It is recorded as not compared if it changed during the scan, or if its ctime is too recent to trust.
        """
        with self.records.exclusive():
            now = os.fstat(descriptor).st_ctime_ns
            complete = scan.ctime == now and (settled or self._own_ctimes.get(scan.folder_id) == now)
            complete = complete and not self.closing.is_set()
            self.index.set_unversioned(scan.folder_id, scanned=now if complete else None)

    def _compare_entries(self, parent: HubFile, folder: Path, descriptor: int) -> None:
        """Merge the sorted names on disk with the folder's rows, batch by batch, and apply the differences."""
        on_disk, folders = _entries(descriptor)
        new: list[bytes] = []
        gone: list[tuple[str, bytes, int, int, int]] = []
        place, last_name, more = 0, b"", True
        while more:
            batch = self.index.entries(parent.id, last_name, _BATCH)
            more = len(batch) == _BATCH
            last_name = batch[-1][0] if batch else last_name
            until = bisect_right(on_disk, last_name) if more else len(on_disk)
            known = {disk for disk, *_ in batch}
            present = set(on_disk[place:until])
            new += (disk for disk in on_disk[place:until] if disk not in known)
            for disk, file_id, is_folder, _, modified, inode in batch:
                if disk not in present or (disk in folders) != bool(is_folder):
                    gone.append((file_id, disk, inode, modified, is_folder))
                    if disk in present:
                        new.append(disk)
            place = until
        self._apply_differences(parent, folder, descriptor, new, gone)

    def _apply_differences(
        self,
        parent: HubFile,
        folder: Path,
        descriptor: int,
        new: list[bytes],
        gone: list[tuple[str, bytes, int, int, int]],
    ) -> None:
        """Update the rows of a folder: `new` are names without a row, `gone` rows without an entry.

        A `gone` row with the inode, mtime and kind of a `new` entry was renamed and keeps its id.
        """
        moved_from = {(inode, modified, bool(is_folder)): file_id for file_id, _, inode, modified, is_folder in gone}
        renamed: list[tuple[str, bytes]] = []
        if gone:
            with self.records.transaction():
                rest = []
                for disk in new:
                    status = _status_in(descriptor, disk)
                    key = status and (status.st_ino, status.st_mtime_ns, stat.S_ISDIR(status.st_mode))
                    if key in moved_from:
                        renamed.append((moved_from.pop(key), disk))
                    else:
                        rest.append(disk)
                new = rest
                kept = {file_id for file_id, _ in renamed}
                for file_id, disk, *_, is_folder in gone:
                    if file_id not in kept and not self._exists(descriptor, disk, bool(is_folder)):
                        self._remove_missing(parent, file_id, disk)
                self._rename_entries(renamed)
        for start in range(0, len(new), _BATCH):
            if self.closing.is_set():
                return
            self._insert_new(parent, folder, descriptor, new[start : start + _BATCH])

    def _remove_missing(self, parent: HubFile, file_id: str, disk: bytes) -> None:
        """Remove the row of a file that is gone from a folder, unless the hub moved the file during the scan."""
        file = self.index.find(file_id)
        if file is not None and not file.binned and (file.parent, file.disk) == (parent.id, disk):
            self.index.remove(file_id)

    def _rename_entries(self, renamed: Sequence[tuple[str, bytes]]) -> None:
        for file_id, disk in renamed:
            # A temporary name first: two files may have swapped their names, and names are unique.
            self.index.set_unversioned(file_id, disk=b"/" + disk)
        for file_id, disk in renamed:
            name, _ = _name_and_mime(disk)
            self.index.update(file_id, disk=disk, name=name)

    def _insert_new(self, parent: HubFile, folder: Path, descriptor: int, new: Iterable[bytes]) -> None:
        found = [
            _describe(folder, disk, status) for disk in new if (status := _status_in(descriptor, disk)) is not None
        ]
        with self.records.transaction():
            if self.index.find(parent.id) is not None:
                self.index.insert_found(parent, found)

    def _update_contents(self, parent: HubFile, descriptor: int) -> None:
        """Compare size, mtime and inode of every file in a folder with its row."""
        last_name, more = b"", True
        while more and not self.closing.is_set():
            batch = self.index.entries(parent.id, last_name, _BATCH)
            more = len(batch) == _BATCH
            last_name = batch[-1][0] if batch else last_name
            for disk, file_id, is_folder, size, modified, inode in batch:
                status = _status_in(descriptor, disk)
                if status is None or is_folder or (status.st_size, status.st_mtime_ns, status.st_ino) == (
                    size, modified, inode,
                ):  # fmt: skip
                    continue
                with self.records.exclusive():
                    file = self.index.find(file_id)
                    status = _status_in(descriptor, disk)
                    if file is not None and file.disk == disk and status is not None and _same_kind(file, status):
                        self.update_from_stat(file, status)

    def _open_folder(self, folder_id: str, compared: ComparedFolders) -> int | None:
        """Open a folder, after comparing it with the disk; None if it does not exist or cannot be opened."""
        try:
            with self.records.exclusive():
                _, path = compared.get(folder_id) or self.verify(self.index.require(folder_id), compared)
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (Refusal, OSError):
            return None

    def _differs(self, file: HubFile, descriptor: int) -> bool:
        status = _status_in(descriptor, file.disk)
        return (
            status is None
            or not _same_kind(file, status)
            or (status.st_mtime_ns, status.st_ino) != (file.modified, file.inode)
            or (not file.folder and status.st_size != file.size)
        )

    def _verify_one(self, file: HubFile) -> list[HubFile]:
        """Return a file's current row in a list, or an empty list if it does not exist any more."""
        try:
            with self.records.exclusive():
                return [self.verify(self.index.require(file.id), {})[0]]
        except Refusal:
            return []

    def _exists(self, descriptor: int, disk: bytes, is_folder: bool) -> bool:
        status = _status_in(descriptor, disk)
        return status is not None and stat.S_ISDIR(status.st_mode) == is_folder


class _ScanLock:
    """A lock in an object of its own, so that `_scan_locks` can refer to it weakly."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


@dataclass(eq=False)
class _ActiveScan:
    """A scan in progress of the folder `folder_id`.

    `ctime` is the folder's ctime in nanoseconds at the start of the scan; each of the hub's own changes sets it to the
    ctime that the change caused. If the folder's ctime is different at the end, a user changed the folder during the
    scan.
    """

    folder_id: str
    ctime: int


def _entries(descriptor: int) -> tuple[list[bytes], set[bytes]]:
    """Return the sorted names of the files and folders in a folder, and which of them are folders."""
    on_disk, folders = [], set()
    with os.scandir(descriptor) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder or entry.is_file(follow_symlinks=False):
                name = os.fsencode(entry.name)
                on_disk.append(name)
                if is_folder:
                    folders.add(name)
    on_disk.sort()
    return on_disk, folders


def _describe(folder: Path, disk: bytes, status: os.stat_result) -> FoundOnDisk:
    """Return what a new row needs to know of an entry."""
    if stat.S_ISDIR(status.st_mode):
        return FoundOnDisk(names.from_disk(disk), disk, FOLDER, 0, status.st_mtime_ns, status.st_ino)
    name, mime = _name_and_mime(disk)
    target = documents.read_target(folder / os.fsdecode(disk)) if mime == documents.SHORTCUT else None
    return FoundOnDisk(name, disk, mime, status.st_size, status.st_mtime_ns, status.st_ino, target)


def _name_and_mime(disk: bytes) -> tuple[str, str]:
    """Return the name in the API and the MIME type of a file with this name on disk."""
    if disk.endswith(_SUFFIXES):
        stem, suffix = os.path.splitext(disk)
        if suffix in _MIME_BY_SUFFIX:
            return names.from_disk(stem), _MIME_BY_SUFFIX[suffix]
    name = names.from_disk(disk)
    return name, guess_mime(name)


def _ctime(folder: Path) -> int:
    return folder.lstat().st_ctime_ns


def _status(path: Path) -> os.stat_result | None:
    """Return the `lstat` of a file or folder; None if it does not exist or is neither."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) else None


def _status_in(descriptor: int, disk: bytes) -> os.stat_result | None:
    try:
        status = os.stat(disk, dir_fd=descriptor, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) else None


def _same_kind(file: HubFile, status: os.stat_result) -> bool:
    """Whether both are folders or both are files."""
    return stat.S_ISDIR(status.st_mode) == file.folder
