"""What the kernel asks of a mounted drive, answered from the tree.

The mount shows the folder `My Drive`, and `MyDrive` as a symbolic link to it, as Colab does. Operations run on many
threads, so one slow read never holds up another. Names and attributes are believed by the kernel for minutes, and taken
back as soon as others change them (`kernel`); the pages of a file as long as its content is the same. Modes and owners
are the mounting user's: a drive has none, and setting them is accepted and forgotten. Links and extended attributes are
refused. A shortcut is shown as a symbolic link.

A file that is deleted while it is open is gone from the drive at once. Those who have it open go on with it by itself
(`_Orphan`): libfuse asks for that by renaming it to `.fuse_hidden…`, a name that never reaches the drive.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from haversack.drive import ALIAS, ROOT, tree
from haversack.drive.api import FOLDER, SHORTCUT, File
from haversack.drive.content import Extent
from haversack.drive.filling import Filling, Kept
from haversack.drive.journal import Draft
from haversack.drive.kernel import Kernel
from haversack.drive.libfuse import Arriving, mfusepy
from haversack.drive.tree import TARGETS, Drive
from haversack.errors import IntegrityError, IsAFolder, QuotaExceeded

_BLOCK = 4096
# Where a drive has no limit, programs that look for room should find some.
_UNLIMITED = 1 << 50
_HIDDEN = ".fuse_hidden"
# So many names are known here without asking the tree.
_KNOWN = 20_000
_KINDS = {FOLDER: stat.S_IFDIR, SHORTCUT: stat.S_IFLNK}


@dataclass
class _Orphan:
    """A file that was deleted while it was open: as it was, or as it is written on, for those who have it open."""

    file: File
    draft: Draft | None
    holders: int


@dataclass(slots=True)
class _Open:
    """An open file: of the drive as it was, until something is written into it or it is being written already.

    `seen` is the state of the mount in which `file` and `draft` were looked up last.
    """

    path: str
    file: File
    draft: Draft | None
    writes: bool
    appends: bool
    seen: int
    orphan: _Orphan | None = None
    # What holds the bytes that the kernel is reading from disk by itself.
    holders: set[Kept | Filling] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Listing:
    """An open folder. The kernel fetches it in parts, and asks again for the entry that had no room in the last one."""

    def __init__(self, begin: Callable[[], Iterator[tuple[str, int]]]) -> None:
        self._begin = begin
        self._entries = begin()
        self._position = 0
        self._last: tuple[str, int] = ("", 0)

    def after(self, position: int) -> Iterator[tuple[str, int, int]]:
        """Name, mode and position of each entry behind `position`."""
        if position == self._position - 1:
            yield (*self._last, self._position)
        elif position != self._position:
            self._entries, self._position = self._begin(), 0
            while self._position < position and self._next():
                pass
        while self._next():
            yield (*self._last, self._position)

    def _next(self) -> bool:
        entry = next(self._entries, None)
        if entry is None:
            return False
        self._last, self._position = entry, self._position + 1
        return True


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
        self._states = itertools.count(1)
        self._state = 0
        self._known: dict[str, File] = {}
        # The content whose pages the kernel may hold of each file.
        self._pages: dict[str, str] = {}
        self._handles: dict[int, _Open] = {}
        self._listings: dict[int, _Listing] = {}
        self._orphans: dict[str, _Orphan] = {}
        self._targets: set[str] = set()
        self._numbers = itertools.count(1)
        self._owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        self._started = time.time_ns()

    def refuse_writes(self) -> None:
        """From now on nothing can be changed; what is open can still be read."""
        self._readonly = True

    def init_with_config(self, connection: Any, config: Any) -> None:
        self.kernel.connect(connection)
        self.ready.set()

    def changed(self, paths: Sequence[tree.Names] | None) -> None:
        """Others changed what stands at these paths below My Drive; None when it may be any. See `Drive.subscribe`."""
        self._happened()
        self._known.clear()
        if paths is None:
            self.kernel.forget_all()
            return
        for path in paths:
            self.kernel.forget((ROOT, *path[:-1]), path[-1])
        # The same files may have been reached through shortcuts.
        for target in list(self._targets):
            self.kernel.forget((TARGETS,), target)

    # Looking

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, Any]:
        handle = self._handles.get(fh) if fh is not None else None
        if handle is not None:
            self._look_again(handle)
            return self._attributes(handle.draft.as_file() if handle.draft is not None else handle.file)
        if path is None:
            raise mfusepy.FuseOSError(errno.ESTALE)
        if _is_hidden(path):
            return self._attributes(self._orphaned(path))
        if path == f"/{ALIAS}":
            return self._link()
        names = _names(path)
        if names is None:
            return self._attributes(self.drive.root)
        if names[:1] == (TARGETS,):
            self.kernel.asked((TARGETS,))
            self._targets.update(names[1:2])
        else:
            self.kernel.asked((ROOT, *names[:-1]))
        file = self.drive.find(names, follow=False)
        return self._link() if file.mime_type == SHORTCUT else self._attributes(file)

    def readlink(self, path: str) -> str:
        if path == f"/{ALIAS}":
            return ROOT
        names = self._below(path)
        file = self.drive.find(names, follow=False)
        if file.mime_type != SHORTCUT:
            raise mfusepy.FuseOSError(errno.EINVAL)
        return "../" * path.count("/", 1) + self.drive.link(file)

    def opendir(self, path: str) -> int:
        names = _names(path)
        if names is not None:
            self.drive.folder(names)
        number = next(self._numbers)
        self._listings[number] = _Listing(lambda: self._entries(names))
        return number

    def readdir_with_offset(self, path: str | None, offset: int, fh: int) -> Iterator[tuple[str, int, int]]:
        return self._listings[fh].after(offset)

    def releasedir(self, path: str | None, fh: int) -> int:
        del self._listings[fh]
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        quota = self.drive.quota()
        total = quota.limit if quota.limit is not None else _UNLIMITED
        free = max(total - quota.used, 0) // _BLOCK
        sizes = {"f_bsize": _BLOCK, "f_frsize": _BLOCK, "f_blocks": total // _BLOCK, "f_bfree": free, "f_bavail": free}
        return sizes | {"f_files": 1 << 32, "f_ffree": 1 << 31, "f_favail": 1 << 31, "f_namemax": 255}

    # Files

    def open(self, path: str, flags: int) -> int:
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if not writes and (known := self._known.get(path)) is not None:
            return self._opened(_Open(path, known, None, False, False, self._state))
        state, names, appends = self._state, self._below(path), bool(flags & os.O_APPEND)
        if writes:
            self._check_writable()
            self._known.pop(path, None)
        if writes and flags & os.O_TRUNC:
            draft = self.drive.open_draft(names, truncate=True)
            self._happened()
            return self._opened(_Open(path, draft.as_file(), draft, True, appends, state))
        there = self.drive.draft_at(names)
        file = there.as_file() if there is not None else self.drive.find(names)
        if file.is_folder:
            raise IsAFolder(f"{path} is a folder.", "Open a file in it.")
        tree.check_has_bytes(file)
        if there is None and not writes and state == self._state:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[path] = file
        return self._opened(_Open(path, file, there, writes, appends, state))

    def create(self, path: str, mode: int, flags: int) -> int:
        self._check_writable()
        self._known.pop(path, None)
        draft = self.drive.open_draft(
            self._below(path), truncate=bool(flags & os.O_TRUNC), exclusive=bool(flags & os.O_EXCL)
        )
        self._happened()
        return self._opened(_Open(path, draft.as_file(), draft, True, bool(flags & os.O_APPEND), self._state))

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
        return 0

    def unlink(self, path: str) -> int:
        if _is_hidden(path):
            self._orphans.pop(_last(path), None)
            return 0
        self._check_writable()
        self._touched(path)
        self.drive.remove(self._below(path))
        return 0

    def rmdir(self, path: str) -> int:
        self._check_writable()
        self.drive.remove_folder(self._below(path))
        return 0

    def rename(self, old: str, new: str) -> int:
        self._check_writable()
        self._touched(old, new)
        if _is_hidden(new):
            self._orphan(old, new)
        else:
            self.drive.rename(self._below(old), self._below(new))
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._check_writable()
        if not _is_hidden(path):
            self._touched(path)
            # In whole milliseconds, as a drive keeps it: the time stays the same when the file gets there.
            milliseconds = (times[1] if times else time.time_ns()) // 1_000_000
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

    def _happened(self) -> None:
        """Something is other than it was: who has a file open looks again, whether it is being written by now."""
        self._state = next(self._states)

    def _opened(self, handle: _Open) -> int:
        number = next(self._numbers)
        self._handles[number] = handle
        return number

    def _look_again(self, handle: _Open) -> None:
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

    def _draft(self, handle: _Open) -> Draft:
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
        orphan = _Orphan(file, draft, 0)
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

    def _hold(self, orphan: _Orphan) -> Draft | None:
        if orphan.draft is not None:
            self.drive.journal.hold(orphan.draft)
        return orphan.draft

    def _let_go(self, orphan: _Orphan) -> None:
        orphan.holders -= 1
        if orphan.holders == 0:
            for name in [name for name, one in self._orphans.items() if one is orphan]:
                del self._orphans[name]

    # What the kernel gets to see

    def _entries(self, names: tree.Names | None) -> Iterator[tuple[str, int]]:
        yield ".", stat.S_IFDIR
        yield "..", stat.S_IFDIR
        if names is None:
            yield ROOT, stat.S_IFDIR
            yield ALIAS, stat.S_IFLNK
            return
        self.kernel.asked((ROOT, *names))
        for name, file in self.drive.entries(names):
            if len(name.encode()) <= 255:  # the kernel refuses a whole folder for one longer name
                yield name, _KINDS.get(file.mime_type, stat.S_IFREG)

    def _attributes(self, file: File) -> dict[str, Any]:
        modified = round(file.modified * 1000) * 1_000_000 if file is not self.drive.root else self._started
        times = {"st_mtime": modified, "st_ctime": modified, "st_atime": modified}
        if file.is_folder:
            return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2, "st_size": _BLOCK, **times, **self._owner}
        blocks = {"st_size": file.size, "st_blocks": -(-file.size // 512)}
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, **blocks, **times, **self._owner}

    def _link(self) -> dict[str, Any]:
        times = {"st_mtime": self._started, "st_ctime": self._started, "st_atime": self._started}
        return {"st_mode": stat.S_IFLNK | 0o777, "st_nlink": 1, "st_size": len(ROOT), **times, **self._owner}


def _is_hidden(path: str) -> bool:
    """Whether libfuse made up that name, for a file that was deleted while it is open."""
    return _last(path).startswith(_HIDDEN)


def _last(path: str) -> str:
    """The last name of a path. libfuse makes up each but once, and the folder above may be renamed later."""
    return path.rpartition("/")[2]


def _names(path: str) -> tree.Names | None:
    """The names below My Drive, or beside it for what shortcuts lead to; None for the mount's own root."""
    names = tree.split(path)
    if not names:
        return None
    if names[0] == TARGETS:
        return names
    if names[0] != ROOT:
        raise mfusepy.FuseOSError(errno.ENOENT)
    return names[1:]
