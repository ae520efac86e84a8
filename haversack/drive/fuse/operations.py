"""What the kernel asks of a mounted drive, answered from the tree.

The mount shows the folder `My Drive`, and `MyDrive` as a symbolic link to it, as Colab does. Operations run on many
threads, so one slow read never holds up another. Names and attributes are believed by the kernel for minutes, and taken
back as soon as others change them (`kernel`); the pages of a file as long as its content is the same. Modes and owners
are the mounting user's: a drive has none, and setting them is accepted and forgotten. Links and extended attributes are
refused. A shortcut is shown as a symbolic link.

A file that is deleted while it is open is gone from the drive at once. Those who have it open go on with it by itself
(`Orphan`): libfuse asks for that by renaming it to `.fuse_hidden…`, a name that never reaches the drive.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from haversack.drive import ALIAS, ROOT, tree
from haversack.drive.cache.content import Extent
from haversack.drive.fuse.attributes import BLOCK
from haversack.drive.fuse.handles import OpenFile, OpenFolder, Orphan
from haversack.drive.fuse.kernel import Kernel
from haversack.drive.fuse.libfuse import Arriving, mfusepy
from haversack.drive.remote.api import SHORTCUT, File
from haversack.drive.tree import TARGETS, Drive
from haversack.drive.writeback.journal import Draft
from haversack.errors import IntegrityError, IsAFolder, QuotaExceeded

# Where a drive has no limit, programs that look for room should find some.
_UNLIMITED = 1 << 50
_HIDDEN = ".fuse_hidden"
# So many names are known here without asking the tree.
_KNOWN = 20_000
_DOTS = 2
# No state that the mount is ever in.
_UNSURE = -1
_MY_DRIVE = f"/{ROOT}"
_BELOW = f"{_MY_DRIVE}/"


class Operations(mfusepy.Operations):
    """The operations of one mount. `ready` is set once the kernel has it, which is then `kernel`."""

    use_ns = True
    # The handle says it all; a path costs libfuse a walk up its tree.
    flag_nopath = True
    flag_nullpath_ok = True

    def __init__(self, drive: Drive, mountpoint: str, readonly: bool = False) -> None:
        self.drive = drive
        self.kernel = Kernel(mountpoint)
        self.ready = threading.Event()
        self._readonly = readonly
        self._happening = threading.Lock()
        self._state = 0
        self._known: dict[str, File] = {}
        # Folders by their paths, each with the state in which it was found there; one before `_moved` says nothing.
        self._folders: dict[str, tuple[int, File]] = {}
        self._moved = 0
        # The content whose pages the kernel may hold of each file.
        self._pages: dict[str, str] = {}
        self._handles: dict[int, OpenFile] = {}
        self._listings: dict[int, OpenFolder] = {}
        self._orphans: dict[str, Orphan] = {}
        self._targets: set[str] = set()
        self._numbers = itertools.count(1)
        self._root = replace(drive.root, modified=time.time())
        self._alias = replace(self._root, mime_type=SHORTCUT)

    def refuse_writes(self) -> None:
        """From now on nothing can be changed; what is open can still be read."""
        self._readonly = True

    def init_with_config(self, connection: Any, config: Any) -> None:
        self.kernel.connect(connection)
        self.ready.set()

    def changed(self, paths: Sequence[tree.Names] | None) -> None:
        """Others changed what stands at these paths below My Drive; None when it may be any. See `Drive.subscribe`."""
        self._happened(moved=True)
        self._known.clear()
        if paths is None:
            self.kernel.forget_all()
            return
        for path in paths:
            self.kernel.forget("/".join((_MY_DRIVE, *path[:-1])), path[-1])
        # The same files may have been reached through shortcuts.
        for target in list(self._targets):
            self.kernel.forget(f"/{TARGETS}", target)

    # Looking

    def getattr(self, path: str | None, fh: int | None = None) -> File:
        """What is there, as `Attributes` takes it."""
        handle = self._handles.get(fh) if fh is not None else None
        if handle is not None:
            self._look_again(handle)
            return handle.draft.as_file() if handle.draft is not None else handle.file
        if path is None:
            raise mfusepy.FuseOSError(errno.ESTALE)
        if _is_hidden(path):
            return self._orphaned(path)
        if path == f"/{ALIAS}":
            return self._alias
        names = _names(path)
        if not names:
            return self._root
        if names[0] == TARGETS:
            self.kernel.asked(f"/{TARGETS}")
            self._targets.update(names[1:2])
        else:
            self.kernel.asked(path.rpartition("/")[0])
        return self._find(path, names)

    def readlink(self, path: str) -> str:
        if path == f"/{ALIAS}":
            return ROOT
        file = self._find(path, self._below(path))
        if file.mime_type != SHORTCUT:
            raise mfusepy.FuseOSError(errno.EINVAL)
        return "../" * path.count("/", 1) + self.drive.link(file)

    def opendir(self, path: str) -> int:
        names = _names(path)
        folder = self._folder(path, names) if names is not None else self._root

        def begin() -> tuple[int, Iterator[tuple[str, File]]]:
            state = self._state
            # As long as names are still coming, a later one may take the place of an earlier one.
            is_whole = names is not None and self.drive.index.is_listed(folder.id)
            return state if is_whole else _UNSURE, self._entries(path, names, folder)

        number = next(self._numbers)
        self._listings[number] = OpenFolder(path, begin)
        return number

    def readdir_with_offset(self, path: str | None, offset: int, fh: int) -> Iterator[tuple[str, File, int, bool]]:
        """Name, file and position of each entry behind `offset`, and whether the file is sure to be so.

        It is not where something happened since the listing began, and while it is being written.
        """
        listing = self._listings[fh]
        for name, file, position in listing.after(offset):
            sure = position > _DOTS and listing.seen == self._state and file.version > 0
            if sure and file.is_folder:
                self._keep_folder(f"{listing.path}/{name}", listing.seen, file)
            yield name, file, position, sure

    def releasedir(self, path: str | None, fh: int) -> int:
        del self._listings[fh]
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        quota = self.drive.quota()
        total = quota.limit if quota.limit is not None else _UNLIMITED
        free = max(total - quota.used, 0) // BLOCK
        sizes = {"f_bsize": BLOCK, "f_frsize": BLOCK, "f_blocks": total // BLOCK, "f_bfree": free, "f_bavail": free}
        return sizes | {"f_files": 1 << 32, "f_ffree": 1 << 31, "f_favail": 1 << 31, "f_namemax": 255}

    # Files

    def open(self, path: str, flags: int) -> int:
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if not writes and (known := self._known.get(path)) is not None:
            return self._opened(OpenFile(path, known, None, False, False, self._state))
        state, names, appends = self._state, self._below(path), bool(flags & os.O_APPEND)
        if writes:
            self._check_writable()
            self._known.pop(path, None)
        if writes and flags & os.O_TRUNC:
            draft = self.drive.open_draft(names, truncate=True)
            self._happened()
            return self._opened(OpenFile(path, draft.as_file(), draft, True, appends, state))
        there = self.drive.draft_at(names, self._folder(path.rpartition("/")[0], names[:-1]) if names else None)
        file = there.as_file() if there is not None else self._find(path, names)
        if file.is_folder:
            raise IsAFolder(f"{path} is a folder.", "Open a file in it.")
        tree.check_has_bytes(file)
        if there is None and not writes and state == self._state:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[path] = file
        return self._opened(OpenFile(path, file, there, writes, appends, state))

    def create(self, path: str, mode: int, flags: int) -> int:
        self._check_writable()
        self._known.pop(path, None)
        draft = self.drive.open_draft(
            self._below(path), truncate=bool(flags & os.O_TRUNC), exclusive=bool(flags & os.O_EXCL)
        )
        self._happened()
        return self._opened(OpenFile(path, draft.as_file(), draft, True, bool(flags & os.O_APPEND), self._state))

    def has_pages(self, fh: int) -> bool:
        """Whether what the kernel may hold of a file's pages is what this opening of it shows."""
        handle = self._handles[fh]
        content = handle.draft.key if handle.draft is not None else handle.file.md5
        if self._pages.get(handle.path) == content:
            return True
        if len(self._pages) >= _KNOWN:
            self._pages.clear()
        self._pages[handle.path] = content
        return False

    def read_buf(self, path: str | None, buf: Any, size: int, offset: int, fh: int) -> bytes | Extent:
        """The bytes, or where they lie on this machine: there the kernel takes them without a copy being made."""
        handle = self._handles[fh]
        self._look_again(handle)
        if handle.draft is not None:
            return self.drive.journal.read(handle.draft, offset, size)
        try:
            found = self.drive.find_bytes(handle.file, offset, size)
        except IntegrityError:
            if handle.orphan is not None:
                raise
            self._pages.pop(handle.path, None)
            handle.file = self.drive.refreshed(handle.file)
            found = self.drive.find_bytes(handle.file, offset, size)
        if not isinstance(found, bytes):
            handle.holders.add(found.holder)
        return found

    def write_buf(self, path: str | None, buf: Arriving, offset: int, fh: int) -> int:
        """Written without a copy of the bytes being made here."""
        self._check_writable()
        handle = self._handles[fh]
        draft = handle.draft if handle.draft is not None else self._draft(handle)
        return self.drive.journal.take(draft, buf.size, None if handle.appends else offset, buf.put)

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        self._check_writable()
        handle = self._handles.get(fh) if fh is not None else None
        if handle is not None and handle.writes:
            self.drive.journal.truncate(self._draft(handle), length)
            return 0
        if path is None:
            raise mfusepy.FuseOSError(errno.ESTALE)
        self._touched(path)
        draft = self.drive.open_draft(self._below(path), truncate=length == 0)
        self._happened()
        try:
            self.drive.journal.truncate(draft, length)
        finally:
            self.drive.journal.release(draft)
        return 0

    def flush(self, path: str | None, fh: int) -> int:
        """What `close()` waits for: the bytes are safe on this machine. What keeps them from the drive is said."""
        draft = self._handles[fh].draft
        if draft is not None and self._handles[fh].writes and not draft.removed:
            self.drive.journal.commit(draft)
            if isinstance(draft.error, PermissionError):
                raise draft.error
            if self.drive.journal.is_full():
                raise QuotaExceeded("The drive is full.", "Free space on it; what was written waits on this machine.")
        return 0

    def fsync(self, path: str | None, datasync: int, fh: int) -> int:
        """Returns once the bytes are on the drive."""
        draft = self._handles[fh].draft
        if draft is not None:
            self.drive.journal.commit(draft)
            self.drive.journal.wait(draft)
        return 0

    def release(self, path: str | None, fh: int) -> int:
        handle = self._handles.pop(fh)
        if handle.orphan is not None:
            self._let_go(handle.orphan)
        if handle.draft is not None:
            self.drive.journal.release(handle.draft)
            self._happened()
        return 0

    # Names

    def mkdir(self, path: str, mode: int) -> int:
        self._check_writable()
        self.drive.make_folder(self._below(path))
        self._happened()
        return 0

    def unlink(self, path: str) -> int:
        if _is_hidden(path):
            self._orphans.pop(_last(path), None)
            return 0
        self._check_writable()
        with self._changing(path):
            self.drive.remove(self._below(path))
        return 0

    def rmdir(self, path: str) -> int:
        self._check_writable()
        with self._changing(path, moved=True):
            self.drive.remove_folder(self._below(path))
        return 0

    def rename(self, old: str, new: str) -> int:
        self._check_writable()
        with self._changing(old, new, moved=True):
            if _is_hidden(new):
                self._orphan(old, new)
            else:
                self.drive.rename(self._below(old), self._below(new))
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._check_writable()
        if not _is_hidden(path):
            # In whole milliseconds, as a drive keeps it: the time stays the same when the file gets there.
            milliseconds = (times[1] if times else time.time_ns()) // 1_000_000
            with self._changing(path):
                self.drive.set_modified(self._below(path), milliseconds / 1000)
        return 0

    def chmod(self, path: str | None, mode: int) -> int:
        return 0

    def chown(self, path: str | None, uid: int, gid: int) -> int:
        return 0

    def symlink(self, target: str, source: str) -> int:
        raise mfusepy.FuseOSError(errno.ENOTSUP)

    def link(self, target: str, source: str) -> int:
        raise mfusepy.FuseOSError(errno.ENOTSUP)

    def mknod(self, path: str, mode: int, dev: int) -> int:
        raise mfusepy.FuseOSError(errno.ENOTSUP)

    # The mount's own

    def _below(self, path: str) -> tree.Names:
        """The names below My Drive; what lies beside it is fixed."""
        names = _names(path)
        if names is None:
            raise mfusepy.FuseOSError(errno.EROFS if not self._readonly else errno.EACCES)
        return names

    def _find(self, path: str, names: tree.Names) -> File:
        """What stands there, a shortcut as itself; below a folder that was found before it is one step."""
        if path.startswith(_BELOW):
            return self.drive.find_in(self._folder(path.rpartition("/")[0], names[:-1]), names)
        return self.drive.find(names, follow=False)

    def _folder(self, path: str, names: tree.Names) -> File:
        found = self._folders.get(path)
        if found is not None and found[0] >= self._moved:
            return found[1]
        state = self._state
        folder = self.drive.folder(names)
        self._keep_folder(path, state, folder)
        return folder

    def _keep_folder(self, path: str, seen: int, folder: File) -> None:
        if len(self._folders) >= _KNOWN:
            self._folders.clear()
        self._folders[path] = seen, folder

    def _check_writable(self) -> None:
        if self._readonly:
            raise mfusepy.FuseOSError(errno.EROFS)

    def _touched(self, *paths: str) -> None:
        """What stands under these names is about to be another file, or another folder with all below it."""
        self._happened()
        for path in paths:
            self._pages.pop(path, None)
            if path not in self._known:
                self._known.clear()
            self._known.pop(path, None)

    def _happened(self, *, moved: bool = False) -> None:
        """Something is other than it was: who has a file open looks again, whether it is being written by now.

        With `moved` a folder may be elsewhere, or gone.
        """
        with self._happening:
            self._state += 1
            if moved:
                self._moved = self._state

    @contextmanager
    def _changing(self, *paths: str, moved: bool = False) -> Iterator[None]:
        """What is learned while these names are being changed is not believed behind that."""
        self._touched(*paths)
        try:
            yield
        finally:
            self._touched(*paths)
            self._happened(moved=moved)

    def _opened(self, handle: OpenFile) -> int:
        number = next(self._numbers)
        self._handles[number] = handle
        return number

    def _look_again(self, handle: OpenFile) -> None:
        """Where something happened since the file was opened: it may have changed, or be written by now."""
        if handle.draft is not None or handle.seen == self._state:
            return
        with handle.lock:
            handle.seen = self._state
            if handle.draft is not None:
                return
            if handle.orphan is not None:
                handle.draft = self._hold(handle.orphan)
                return
            before = handle.file.md5
            handle.file, handle.draft = self.drive.current(handle.file)
            if handle.draft is not None or handle.file.md5 != before:
                self._pages.pop(handle.path, None)

    def _draft(self, handle: OpenFile) -> Draft:
        """The draft that an open file is written to, begun with its present bytes at the first write."""
        with handle.lock:
            if handle.draft is None:
                if handle.orphan is None:
                    handle.draft = self.drive.draft_of(handle.file)
                else:
                    handle.draft = self._hold(handle.orphan) or self.drive.draft_apart(handle.orphan.file)
                    handle.orphan.draft = handle.draft
                self._known.pop(handle.path, None)
                self._happened()
            return handle.draft

    # Files deleted while they are open

    def _orphan(self, path: str, hidden: str) -> None:
        """Take a file that is open off the drive, and keep it for those who have it open."""
        names = self._below(path)
        draft = self.drive.draft_at(names)
        file = draft.as_file() if draft is not None else self.drive.find(names)
        orphan = Orphan(file, draft, 0)
        self._orphans[_last(hidden)] = orphan
        for handle in list(self._handles.values()):
            with handle.lock:
                if handle.draft is draft if handle.draft is not None else handle.file.id == file.id:
                    # As it is now, whatever it was when it was opened.
                    handle.file, handle.draft = file, handle.draft or self._hold(orphan)
                    handle.orphan = orphan
                    orphan.holders += 1
        try:
            self.drive.remove(names)
        finally:
            if draft is not None:
                self.drive.journal.release(draft)

    def _orphaned(self, path: str) -> File:
        orphan = self._orphans.get(_last(path))
        if orphan is None:
            raise mfusepy.FuseOSError(errno.ENOENT)
        return orphan.draft.as_file() if orphan.draft is not None else orphan.file

    def _hold(self, orphan: Orphan) -> Draft | None:
        if orphan.draft is not None:
            self.drive.journal.hold(orphan.draft)
        return orphan.draft

    def _let_go(self, orphan: Orphan) -> None:
        orphan.holders -= 1
        if orphan.holders == 0:
            for name in [name for name, one in self._orphans.items() if one is orphan]:
                del self._orphans[name]

    # What the kernel gets to see

    def _entries(self, path: str, names: tree.Names | None, folder: File) -> Iterator[tuple[str, File]]:
        yield ".", folder
        yield "..", folder
        if names is None:
            yield ROOT, self._root
            yield ALIAS, self._alias
            return
        if names[:1] != (TARGETS,):
            self.kernel.asked(path)
        for name, file in self.drive.entries(names, folder):
            if len(name) <= 63 or len(name.encode()) <= 255:  # the kernel refuses a whole folder for one longer name
                yield name, file


def _is_hidden(path: str) -> bool:
    """Whether libfuse made up that name, for a file that was deleted while it is open."""
    return _HIDDEN in path and _last(path).startswith(_HIDDEN)


def _last(path: str) -> str:
    """The last name of a path. libfuse makes up each but once, and the folder above may be renamed later."""
    return path.rpartition("/")[2]


def _names(path: str) -> tree.Names | None:
    """The names below My Drive, or beside it for what shortcuts lead to; None for the mount's own root."""
    if path == "/":
        return None
    first, *names = path[1:].split("/")
    if first == TARGETS:
        return (first, *names)
    if first != ROOT:
        raise mfusepy.FuseOSError(errno.ENOENT)
    return tuple(names)
