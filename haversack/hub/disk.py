"""Comparing the records with the disk: the folder is the truth, and may be changed by hand at any time.

What is asked for is compared first: one name, the entries of a folder, or one file with the folders above it. What was
put there by hand gets a record and an id; what is gone loses its record; a file renamed by hand within its folder keeps
its id (it is known by its inode). Links and devices are not shown, and no path goes through a link, so nothing outside
the folder can be reached. A file moved by hand to another folder is a new file.

Entries are read anew only where the folder's ctime says so. What the hub itself does to a folder is no reason: it takes
the new ctime over (`own_change`). A ctime is trusted once it is older than the clock tick of any file system, so a
change by hand in the very tick of one of ours may stay unseen until the folder is read for another reason. Large
folders are compared in pieces, and other calls go on in between.
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
from haversack.hub.index import FOLDER, FoundOnDisk, HubFile, HubIndex, mime_of
from haversack.hub.refusal import Refusal, not_found

_PIECE = 2000
_SETTLED_NS = 100_000_000
_OF_SUFFIX = {suffix.encode(): mime for mime, suffix in documents.SUFFIXES.items()}
_SUFFIXES = tuple(_OF_SUFFIX)

Ways = dict[str, tuple["HubFile", Path]]
"""Folders that were compared in the course of one call, by id, and where they lie."""


class Disk:
    """`folder` is My Drive; `trash` holds what was put into the trash, by id. Set `closing`, and what is being compared
    is left as it is, to be gone on with in the hub's next life."""

    def __init__(self, index: HubIndex, folder: Path, trash: Path) -> None:
        self.index = index
        self.records = index.records
        self.folder = folder
        self.trash = trash
        self._turns: weakref.WeakValueDictionary[str, _Turn] = weakref.WeakValueDictionary()
        self._readings: list[_Reading] = []
        self._ours: dict[str, int] = {}
        self.closing = threading.Event()

    # One file

    def verified(self, file: HubFile, ways: Ways) -> tuple[HubFile, Path]:
        """The file as it is on disk now, after comparing it and the folders above it. Raises `Refusal` when gone.

        Folders in `ways` are not compared again, and those that are join them.
        """
        found, path = self._verified(file, ways)
        if found.folder:
            ways[found.id] = (found, path)
        return found, path

    def _verified(self, file: HubFile, ways: Ways) -> tuple[HubFile, Path]:
        for _ in range(3):
            if file.parent is None:
                self.folder.mkdir(exist_ok=True)
                return file, self.folder
            if file.binned:
                path = self.trash / file.id
            else:
                parent, folder = ways.get(file.parent) or self.verified(self.index.known(file.parent), ways)
                path = folder / os.fsdecode(file.disk)
            status = _status(path)
            if status is not None and _is_like(file, status):
                return (self.index.known(file.id) if self.observe(file, status) else file), path
            if file.binned:
                self.index.drop(file.id)
            else:
                self._read(parent, folder, again=True)
            file = self.index.known(file.id)
        raise not_found(file.id)

    def seen(self, files: Sequence[HubFile], ways: Ways) -> list[HubFile]:
        """The files as they are now, without those that are gone."""
        found: list[HubFile] = []
        folders: dict[str, int | None] = {}
        try:
            for file in files:
                parent = str(file.parent)
                if not file.binned and parent not in folders:
                    folders[parent] = self._opened(parent, ways)
                descriptor = None if file.binned else folders[parent]
                if descriptor is not None and not self._differs(file, descriptor):
                    found.append(file)
                else:
                    found += self._looked_at(file)
        finally:
            for descriptor in folders.values():
                if descriptor is not None:
                    os.close(descriptor)
        return found

    def observe(self, file: HubFile, status: os.stat_result) -> bool:
        """Take over size, time and inode from the disk; whether anything was different."""
        if file.folder:
            if (status.st_mtime_ns, status.st_ino) == (file.modified, file.inode):
                return False
            # A folder's time moves with every entry; that is no change of the folder itself.
            self.index.remember(file.id, modified=status.st_mtime_ns, inode=status.st_ino)
            return True
        if (status.st_size, status.st_mtime_ns, status.st_ino) == (file.size, file.modified, file.inode):
            return False
        self.index.update(
            file.id, size=status.st_size, modified=status.st_mtime_ns, inode=status.st_ino,
            md5=None, sha1=None, sha256=None, revision=file.revision + 1,
        )  # fmt: skip
        return True

    # One name

    def look_up(self, parent: HubFile, folder: Path, name: str) -> None:
        """Compare one name with the disk, whatever the folder's size."""
        for suffix in ("", *documents.SUFFIXES.values()):
            disk = names.on_disk(name + suffix)
            if names.from_disk(disk) == name + suffix and self.index.on_disk(parent.id, disk) is None:
                status = _status(folder / os.fsdecode(disk))
                # Perhaps renamed by hand: only a scan can tell a new file from one with a record under another name.
                if status is not None and self.index.has_inode(parent.id, status.st_ino):
                    self._read(parent, folder)
                elif status is not None:
                    self.index.discover(parent, [_found(folder, disk, status)])
        for file in self.index.named(parent.id, name):
            status = _status(folder / os.fsdecode(file.disk))
            if status is None or not _is_like(file, status):
                return self._read(parent, folder, again=True)
            self.observe(file, status)
        return None

    # One folder

    def scan(self, parent: HubFile, folder: Path, *, contents: bool = False) -> None:
        """Compare a folder's entries with the disk; a folder whose entries are the same is passed over.

        With `contents` also each file's state is compared, which its folder's ctime does not tell of. One at a time:
        who comes second finds everything compared. Not to be called with the records held.
        """
        with self.records.alone():
            turn = self._turns.get(parent.id) or _Turn()
            self._turns[parent.id] = turn
        with turn.lock:
            self._read(parent, folder, contents=contents)

    def _read(self, parent: HubFile, folder: Path, *, again: bool = False, contents: bool = False) -> None:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise not_found(parent.id) from None
        try:
            with self._reading(parent.id, descriptor) as reading:
                stored = self.index.known(parent.id)
                if again or stored.scanned != reading.changed_at:
                    settled = time.time_ns() - reading.changed_at > _SETTLED_NS
                    settled = settled or self._ours.get(parent.id) == reading.changed_at
                    self._compare(stored, folder, descriptor)
                    self._trust(descriptor, reading, settled)
            if contents:
                self._observe_all(stored, descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _reading(self, folder_id: str, descriptor: int) -> Iterator[_Reading]:
        with self.records.alone():
            reading = _Reading(folder_id, os.fstat(descriptor).st_ctime_ns)
            self._readings.append(reading)
        try:
            yield reading
        finally:
            with self.records.alone():
                self._readings.remove(reading)

    @contextmanager
    def own_change(self, parent: HubFile, folder: Path) -> Iterator[None]:
        """Around what the hub does to a folder's entries: their being known stays so."""
        before = _changed_at(folder)
        yield
        after = _changed_at(folder)
        self._ours[parent.id] = after
        for reading in self._readings:
            if (reading.folder_id, reading.changed_at) == (parent.id, before):
                reading.changed_at = after
        self.records.write("UPDATE files SET scanned = ? WHERE id = ? AND scanned = ?", after, parent.id, before)

    def walk(self, *, contents: bool) -> None:
        """Compare the whole tree."""
        waiting = [self.index.root]
        while waiting and not self.closing.is_set():
            folder_id = waiting.pop()
            try:
                with self.records.alone():
                    file, path = self.verified(self.index.known(folder_id), {})
                self.scan(file, path, contents=contents)
            except (Refusal, PermissionError):
                continue
            waiting += self.index.folders_in(folder_id)

    def _trust(self, descriptor: int, reading: _Reading, settled: bool) -> None:
        with self.records.alone():
            now = os.fstat(descriptor).st_ctime_ns
            whole = reading.changed_at == now and (settled or self._ours.get(reading.folder_id) == now)
            whole = whole and not self.closing.is_set()
            self.index.remember(reading.folder_id, scanned=now if whole else None)

    def _compare(self, parent: HubFile, folder: Path, descriptor: int) -> None:
        """Make the records of a folder's entries what lies in it."""
        here, folders = _entries(descriptor)
        new: list[bytes] = []
        gone: list[tuple[str, bytes, int, int, int]] = []
        place, after, more = 0, b"", True
        while more:
            piece = self.index.entries(parent.id, after, _PIECE)
            more = len(piece) == _PIECE
            after = piece[-1][0] if piece else after
            until = bisect_right(here, after) if more else len(here)
            known = {disk for disk, *_ in piece}
            present = set(here[place:until])
            new += (disk for disk in here[place:until] if disk not in known)
            for disk, file_id, is_folder, _, modified, inode in piece:
                if disk not in present or (disk in folders) != bool(is_folder):
                    gone.append((file_id, disk, inode, modified, is_folder))
                    if disk in present:
                        new.append(disk)
            place = until
        self._apply(parent, folder, descriptor, new, gone)

    def _apply(
        self,
        parent: HubFile,
        folder: Path,
        descriptor: int,
        new: list[bytes],
        gone: list[tuple[str, bytes, int, int, int]],
    ) -> None:
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
                    if file_id not in kept and not self._is_there(descriptor, disk, bool(is_folder)):
                        self._drop_from(parent, file_id, disk)
                self._rename(renamed)
        for start in range(0, len(new), _PIECE):
            if self.closing.is_set():
                return
            self._discover(parent, folder, descriptor, new[start : start + _PIECE])

    def _drop_from(self, parent: HubFile, file_id: str, disk: bytes) -> None:
        """Forget what is gone from a folder, unless the hub itself has taken it elsewhere meanwhile."""
        file = self.index.stored(file_id)
        if file is not None and not file.binned and (file.parent, file.disk) == (parent.id, disk):
            self.index.drop(file_id)

    def _rename(self, renamed: Sequence[tuple[str, bytes]]) -> None:
        for file_id, disk in renamed:
            # Aside first: two files may have swapped their names.
            self.index.remember(file_id, disk=b"/" + disk)
        for file_id, disk in renamed:
            name, _ = _name_and_mime(disk)
            self.index.update(file_id, disk=disk, name=name)

    def _discover(self, parent: HubFile, folder: Path, descriptor: int, new: Iterable[bytes]) -> None:
        found = [_found(folder, disk, status) for disk in new if (status := _status_in(descriptor, disk)) is not None]
        with self.records.transaction():
            if self.index.stored(parent.id) is not None:
                self.index.discover(parent, found)

    def _observe_all(self, parent: HubFile, descriptor: int) -> None:
        after, more = b"", True
        while more and not self.closing.is_set():
            piece = self.index.entries(parent.id, after, _PIECE)
            more = len(piece) == _PIECE
            after = piece[-1][0] if piece else after
            for disk, file_id, is_folder, size, modified, inode in piece:
                status = _status_in(descriptor, disk)
                if status is None or is_folder or (status.st_size, status.st_mtime_ns, status.st_ino) == (
                    size, modified, inode,
                ):  # fmt: skip
                    continue
                with self.records.alone():
                    file = self.index.stored(file_id)
                    status = _status_in(descriptor, disk)
                    if file is not None and file.disk == disk and status is not None and _is_like(file, status):
                        self.observe(file, status)

    def _opened(self, folder_id: str, ways: Ways) -> int | None:
        try:
            with self.records.alone():
                _, path = ways.get(folder_id) or self.verified(self.index.known(folder_id), ways)
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (Refusal, OSError):
            return None

    def _differs(self, file: HubFile, descriptor: int) -> bool:
        status = _status_in(descriptor, file.disk)
        return (
            status is None
            or not _is_like(file, status)
            or (status.st_mtime_ns, status.st_ino) != (file.modified, file.inode)
            or (not file.folder and status.st_size != file.size)
        )

    def _looked_at(self, file: HubFile) -> list[HubFile]:
        try:
            with self.records.alone():
                return [self.verified(self.index.known(file.id), {})[0]]
        except Refusal:
            return []

    def _is_there(self, descriptor: int, disk: bytes, is_folder: bool) -> bool:
        status = _status_in(descriptor, disk)
        return status is not None and stat.S_ISDIR(status.st_mode) == is_folder


class _Turn:
    """Who compares a folder."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


@dataclass(eq=False)
class _Reading:
    """A folder being compared; `changed_at` is its ctime as far as all that was done to it since is the hub's doing."""

    folder_id: str
    changed_at: int


def _entries(descriptor: int) -> tuple[list[bytes], set[bytes]]:
    """The sorted names of the files and folders in a folder, and which of them are folders."""
    here, folders = [], set()
    with os.scandir(descriptor) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder or entry.is_file(follow_symlinks=False):
                name = os.fsencode(entry.name)
                here.append(name)
                if is_folder:
                    folders.add(name)
    here.sort()
    return here, folders


def _found(folder: Path, disk: bytes, status: os.stat_result) -> FoundOnDisk:
    if stat.S_ISDIR(status.st_mode):
        return FoundOnDisk(names.from_disk(disk), disk, FOLDER, 0, status.st_mtime_ns, status.st_ino)
    name, mime = _name_and_mime(disk)
    target = documents.target_of(folder / os.fsdecode(disk)) if mime == documents.SHORTCUT else None
    return FoundOnDisk(name, disk, mime, status.st_size, status.st_mtime_ns, status.st_ino, target)


def _name_and_mime(disk: bytes) -> tuple[str, str]:
    """The name through the API of a file of this name on disk, and the type that it is taken for."""
    if disk.endswith(_SUFFIXES):
        stem, suffix = os.path.splitext(disk)
        if suffix in _OF_SUFFIX:
            return names.from_disk(stem), _OF_SUFFIX[suffix]
    name = names.from_disk(disk)
    return name, mime_of(name)


def _changed_at(folder: Path) -> int:
    return folder.lstat().st_ctime_ns


def _status(path: Path) -> os.stat_result | None:
    """The state of a file or folder; None when there is none of that name."""
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


def _is_like(file: HubFile, status: os.stat_result) -> bool:
    """Whether both are a folder, or both are none."""
    return stat.S_ISDIR(status.st_mode) == file.folder
