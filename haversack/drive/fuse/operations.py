"""FUSE operations on a drive, answered from its tree of paths (`Drive`).

The mount's root holds the folder `My Drive` and, as on Colab, `MyDrive`, a symbolic link to it. What shortcuts point to
is reachable below `.shortcut-targets-by-id`, which is not listed; a shortcut is shown as a symbolic link into it.

Operations run on many threads, so a slow read never delays another. The kernel caches names and attributes for minutes;
they are invalidated when others change them (`kernel_cache`). It caches a file's pages for as long as the content is
the same. A drive has no modes and owners: setting them succeeds and changes nothing. New links and extended attributes
are refused.

A file that is deleted while open disappears from the drive at once, and its open handles share an `Orphan`. libfuse
starts this by renaming the file to `.fuse_hidden…`, a name that never reaches the drive.
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
from haversack.drive.fuse.kernel_cache import KernelCache
from haversack.drive.fuse.libfuse import BaseOperations, FuseOSError, WriteBuffer
from haversack.drive.remote.calls import SHORTCUT, File
from haversack.drive.resolve import TARGETS, Names
from haversack.drive.tree import Drive
from haversack.drive.writeback.draft import Draft
from haversack.errors import IntegrityError, IsAFolder, QuotaExceeded

# The size to report for a drive without a limit, so that programs that check for free space find some.
_UNLIMITED = 1 << 50
_HIDDEN = ".fuse_hidden"
# Entries at which a cache by path is emptied.
_MAX_CACHED = 20_000
_DOT_ENTRIES = 2
# A version that the mount never has: entries of such a listing are not cacheable.
_NO_VERSION = -1
_MY_DRIVE = f"/{ROOT}"
_BELOW_MY_DRIVE = f"{_MY_DRIVE}/"


class Operations(BaseOperations):  # type: ignore[misc, valid-type]
    """The operations of one mount, called by libfuse on many threads. Paths are those of the mount, from `/`.

    An operation's `OSError`, which most of haversack's errors are, ends the system call with its errno; any other error
    ends it with `EIO`. An operation that changes the drive raises `EROFS` if the mount is read-only. An operation that
    asks the drive may raise `ConnectionFailed`, `SignInError` and `RemoteError`, and `DiskFull` for the local disk.

    The mount has a *version*, a counter that is bumped when a name changes, when a draft is opened or released, and
    when others change the drive, but not by each write. An open file without a draft that was looked up at an older
    version is looked up again at its next read or `fstat`; the kernel may not cache the attributes of entries whose
    listing started at an older version. A lookup reads the version first, so one that races with a change counts as
    old.

    | field | type | assigned by | guarded by |
    |---|---|---|---|
    | `drive`, `kernel_cache` | Drive, KernelCache | the constructor | thread-safe themselves |
    | `ready` | Event | set by `init_with_config` once the kernel has mounted | itself |
    | `_readonly` | bool | the constructor; `refuse_writes`, on the thread that calls `serve` | none needed |
    | `_version` | int | `_bump_version` | `_version_lock`; read without it |
    | `_folders_changed` | int: the version at which a folder last moved or went | `_bump_version` | the same |
    | `_files` | path → File that was opened for reading and has no draft | `open` | none |
    | `_folders` | path → (version, folder); invalid before `_folders_changed` | `_cache_folder` | none |
    | `_page_contents` | path → MD5 or draft key whose pages the kernel may cache | `can_keep_cache` | none |
    | `_open_files` | handle → OpenFile | `open` and `create` add, `release` removes | none |
    | `_open_folders` | handle → OpenFolder | `opendir` adds, `releasedir` removes | none |
    | `_orphans` | hidden name → Orphan | `rename` adds; `unlink` and `release` remove | none |
    | `_shortcut_targets` | set of ids below `.shortcut-targets-by-id` that were looked up | `getattr` | none |
    | `_handles` | counter | the constructor | none |
    | `_root`, `_alias` | File | the constructor | none needed |

    Fields without a lock are dicts, sets and a counter, changed by single operations that are atomic in CPython. The
    fields of an `OpenFile` are guarded by its own lock, which is acquired before those of a draft, of the journal, and
    `_version_lock`.
    """

    use_ns = True
    # Operations on a handle need no path, which libfuse would have to build by walking up its tree.
    flag_nopath = True
    flag_nullpath_ok = True

    def __init__(self, drive: Drive, mountpoint: str, readonly: bool = False) -> None:
        self.drive = drive
        self.kernel_cache = KernelCache(mountpoint)
        self.ready = threading.Event()
        self._readonly = readonly
        self._version_lock = threading.Lock()
        self._version = 0
        self._folders_changed = 0
        self._files: dict[str, File] = {}
        self._folders: dict[str, tuple[int, File]] = {}
        self._page_contents: dict[str, str] = {}
        self._open_files: dict[int, OpenFile] = {}
        self._open_folders: dict[int, OpenFolder] = {}
        self._orphans: dict[str, Orphan] = {}
        self._shortcut_targets: set[str] = set()
        self._handles = itertools.count(1)
        self._root = replace(drive.root, modified=time.time())
        self._alias = replace(self._root, mime_type=SHORTCUT)

    def refuse_writes(self) -> None:
        """Answer `EROFS` to every operation that would change the drive, from now on; open files stay readable."""
        self._readonly = True

    def init_with_config(self, connection: Any, config: Any) -> None:
        self.kernel_cache.connect(connection)
        self.ready.set()

    def invalidate(self, paths: Sequence[Names] | None) -> None:
        """Drop what is cached of `paths` here and in the kernel: tuples of names below My Drive; None means every path.

        Call it, on a thread of its own, when others have changed the drive (see `Drive.subscribe`).
        """
        self._bump_version(moved=True)
        self._files.clear()
        if paths is None:
            self.kernel_cache.invalidate_all()
            return
        for path in paths:
            self.kernel_cache.invalidate("/".join((_MY_DRIVE, *path[:-1])), path[-1])
        # The kernel may have reached the same files through shortcuts.
        for target in list(self._shortcut_targets):
            self.kernel_cache.invalidate(f"/{TARGETS}", target)

    # Names and attributes

    def getattr(self, path: str | None, fh: int | None = None) -> File:
        """Return the file at `path`, or the one that `fh` has open, for `Attributes`; a shortcut is not followed.

        Raises `NotFound`, `NotAFolder` if a file is where the path needs a folder, `ENOENT` for a name that the mount's
        root does not have, and `ESTALE` for a folder that was removed while open.
        """
        handle = self._open_files.get(fh) if fh is not None else None
        if handle is not None:
            self._refresh(handle)
            return handle.draft.as_file() if handle.draft is not None else handle.file
        if path is None:
            raise FuseOSError(errno.ESTALE)
        if _is_hidden(path):
            return self._orphan_file(path)
        if path == f"/{ALIAS}":
            return self._alias
        names = _names(path)
        if not names:
            return self._root
        if names[0] == TARGETS:
            self.kernel_cache.record_lookup(f"/{TARGETS}")
            self._shortcut_targets.update(names[1:2])
        else:
            self.kernel_cache.record_lookup(path.rpartition("/")[0])
        return self._find(path, names)

    def readlink(self, path: str) -> str:
        """Return the relative target of a shortcut, or of `MyDrive`.

        Raises `EINVAL` for any other file, and `NotFound` if there is no file or the shortcut's target is gone.
        """
        if path == f"/{ALIAS}":
            return ROOT
        file = self._find(path, self._drive_names(path))
        if file.mime_type != SHORTCUT:
            raise FuseOSError(errno.EINVAL)
        return "../" * path.count("/", 1) + self.drive.link(file)

    def opendir(self, path: str) -> int:
        names = _names(path)
        folder = self._folder(path, names) if names is not None else self._root

        def start() -> tuple[int, Iterator[tuple[str, File]]]:
            version = self._version
            # While a listing is incomplete, a file that comes later may get the name of an earlier one.
            is_whole = names is not None and self.drive.index.is_listed(folder.id)
            return version if is_whole else _NO_VERSION, self._entries(path, names, folder)

        number = next(self._handles)
        self._open_folders[number] = OpenFolder(path, start)
        return number

    def readdir_with_offset(self, path: str | None, offset: int, fh: int) -> Iterator[tuple[str, File, int, bool]]:
        """Yield (name, file, position, cacheable) of each entry of the open folder `fh` after the position `offset`.

        `cacheable` says that the kernel may cache the file's attributes: the folder's listing is complete, nothing in
        the mount has changed since it started, and the file is not being written.
        """
        listing = self._open_folders[fh]
        for name, file, position in listing.after(offset):
            cacheable = position > _DOT_ENTRIES and listing.version == self._version and file.version > 0
            if cacheable and file.is_folder:
                self._cache_folder(f"{listing.path}/{name}", listing.version, file)
            yield name, file, position, cacheable

    def releasedir(self, path: str | None, fh: int) -> int:
        del self._open_folders[fh]
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        """Return the drive's quota as the size of the file system; a drive without a limit has 2**50 bytes."""
        quota = self.drive.quota()
        total = quota.limit if quota.limit is not None else _UNLIMITED
        free = max(total - quota.used, 0) // BLOCK
        sizes = {"f_bsize": BLOCK, "f_frsize": BLOCK, "f_blocks": total // BLOCK, "f_bfree": free, "f_bavail": free}
        return sizes | {"f_files": 1 << 32, "f_ffree": 1 << 31, "f_favail": 1 << 31, "f_namemax": 255}

    # Bytes

    def open(self, path: str, flags: int) -> int:
        """Open an existing file and return its handle, a number. `O_TRUNC` empties it, and creates it if it is gone.

        Raises `IsAFolder`, `NotFound`, `NotAFolder`, `Forbidden` for a Google document or a broken shortcut, and
        `EROFS` for writing.
        """
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if not writes and (cached := self._files.get(path)) is not None:
            return self._add_handle(OpenFile(path, cached, None, False, False, self._version))
        version, names, appends = self._version, self._drive_names(path), bool(flags & os.O_APPEND)
        if writes:
            self._check_writable()
            self._files.pop(path, None)
        if writes and flags & os.O_TRUNC:
            draft = self.drive.open_draft(names, truncate=True)
            self._bump_version()
            return self._add_handle(OpenFile(path, draft.as_file(), draft, True, appends, version))
        written = self.drive.draft_at(names, self._folder(path.rpartition("/")[0], names[:-1]) if names else None)
        file = written.as_file() if written is not None else self._find(path, names)
        if file.is_folder:
            raise IsAFolder(f"{path} is a folder.", "Open a file in it.")
        tree.check_has_bytes(file)
        if written is None and not writes and version == self._version:
            if len(self._files) >= _MAX_CACHED:
                self._files.clear()
            self._files[path] = file
        return self._add_handle(OpenFile(path, file, written, writes, appends, version))

    def create(self, path: str, mode: int, flags: int) -> int:
        """Open a file for writing, creating it if it is missing, and return its handle; `mode` is ignored.

        It becomes a draft, so the drive has no new file before its upload. Raises `AlreadyExists` with `O_EXCL`,
        `IsAFolder`, `NotFound` and `NotAFolder` for the parent, `Forbidden` for a Google document, and `EROFS`.
        """
        self._check_writable()
        self._files.pop(path, None)
        draft = self.drive.open_draft(
            self._drive_names(path), truncate=bool(flags & os.O_TRUNC), exclusive=bool(flags & os.O_EXCL)
        )
        self._bump_version()
        return self._add_handle(OpenFile(path, draft.as_file(), draft, True, bool(flags & os.O_APPEND), self._version))

    def can_keep_cache(self, fh: int) -> bool:
        """Whether the kernel may keep the pages of the handle's path when the handle is opened.

        True if they are known to be of the content that the handle reads (the same MD5 or draft). Otherwise the kernel
        must drop them, and this records that its pages are of the handle's content from now on.
        """
        handle = self._open_files[fh]
        content = handle.draft.key if handle.draft is not None else handle.file.md5
        if self._page_contents.get(handle.path) == content:
            return True
        if len(self._page_contents) >= _MAX_CACHED:
            self._page_contents.clear()
        self._page_contents[handle.path] = content
        return False

    def read_buf(self, path: str | None, buf: Any, size: int, offset: int, fh: int) -> bytes | Extent:
        """Return up to `size` bytes from `offset`, or the local file that holds them, for libfuse to splice from.

        A local file stays open at least until the handle is released. If the file changed on the drive since it was
        opened, its new version is read. `path` and `buf` are ignored. Raises `IntegrityError` if the file was deleted
        while open and changed on the drive, or if the new version changes too; and `NotFound` if it is gone.
        """
        handle = self._open_files[fh]
        self._refresh(handle)
        if handle.draft is not None:
            return self.drive.journal.read(handle.draft, offset, size)
        try:
            found = self.drive.find_bytes(handle.file, offset, size)
        except IntegrityError:
            if handle.orphan is not None:
                raise
            self._page_contents.pop(handle.path, None)
            handle.file = self.drive.refreshed(handle.file)
            found = self.drive.find_bytes(handle.file, offset, size)
        if not isinstance(found, bytes):
            handle.pinned.add(found.holder)
        return found

    def write_buf(self, path: str | None, buf: WriteBuffer, offset: int, fh: int) -> int:
        """Write all of `buf` into the handle's draft at `offset`, or at its end with `O_APPEND`; return its size.

        The bytes go from the kernel's pipe into the draft's file without a copy in this process.
        """
        self._check_writable()
        handle = self._open_files[fh]
        draft = handle.draft if handle.draft is not None else self._open_draft(handle)
        return self.drive.journal.write_from(draft, buf.size, None if handle.appends else offset, buf.copy_to)

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        """Set the size of the file that `fh` has open for writing, else of the one at `path`, to `length` bytes.

        The file becomes a draft. Raises `NotFound` and `NotAFolder` for the parent, `IsAFolder`, `Forbidden` for a
        Google document, `EROFS`, and `ESTALE` if there is no such handle and `path` is None.
        """
        self._check_writable()
        handle = self._open_files.get(fh) if fh is not None else None
        if handle is not None and handle.writes:
            self.drive.journal.truncate(self._open_draft(handle), length)
            return 0
        if path is None:
            raise FuseOSError(errno.ESTALE)
        self._invalidate(path)
        draft = self.drive.open_draft(self._drive_names(path), truncate=length == 0)
        self._bump_version()
        try:
            self.drive.journal.truncate(draft, length)
        finally:
            self.drive.journal.release(draft)
        return 0

    def flush(self, path: str | None, fh: int) -> int:
        """Commit the handle's draft, for `close()`: its bytes then survive the death of this process; return 0.

        The upload is not awaited. If the last upload of this draft was not permitted, raises its error (`Forbidden` or
        `SignInError`); if that of any pending draft found the drive full, raises `QuotaExceeded`. The draft is
        committed and stays pending all the same. Raises `OSError` if the record cannot be written.
        """
        draft = self._open_files[fh].draft
        if draft is not None and self._open_files[fh].writes and not draft.removed:
            self.drive.journal.commit(draft)
            if isinstance(draft.error, PermissionError):
                raise draft.error
            if self.drive.journal.is_full():
                raise QuotaExceeded(
                    "The drive is full.", "Free space on it; written files stay on this machine until it has room."
                )
        return 0

    def fsync(self, path: str | None, datasync: int, fh: int) -> int:
        """Commit the handle's draft and wait until it is uploaded; return 0.

        Raises the error of the first upload that fails meanwhile, such as `QuotaExceeded`; the journal retries it.
        """
        draft = self._open_files[fh].draft
        if draft is not None:
            self.drive.journal.commit(draft)
            self.drive.journal.wait(draft)
        return 0

    def release(self, path: str | None, fh: int) -> int:
        handle = self._open_files.pop(fh)
        if handle.orphan is not None:
            self._release_orphan(handle.orphan)
        if handle.draft is not None:
            self.drive.journal.release(handle.draft)
            self._bump_version()
        return 0

    # Changes of names

    def mkdir(self, path: str, mode: int) -> int:
        self._check_writable()
        self.drive.make_folder(self._drive_names(path))
        self._bump_version()
        return 0

    def unlink(self, path: str) -> int:
        if _is_hidden(path):
            self._orphans.pop(_basename(path), None)
            return 0
        self._check_writable()
        with self._invalidating(path):
            self.drive.remove(self._drive_names(path))
        return 0

    def rmdir(self, path: str) -> int:
        self._check_writable()
        with self._invalidating(path, moved=True):
            self.drive.remove_folder(self._drive_names(path))
        return 0

    def rename(self, old: str, new: str) -> int:
        """Rename or move a file, folder or shortcut; what is at `new` is replaced.

        A rename to libfuse's hidden name `.fuse_hidden…` deletes the file and makes it an orphan. Raises `NotFound`,
        `IsAFolder`, `NotAFolder`, `FolderNotEmpty`, `Forbidden` for My Drive or a folder moved into itself, and
        `EROFS`.
        """
        self._check_writable()
        with self._invalidating(old, new, moved=True):
            if _is_hidden(new):
                self._make_orphan(old, new)
            else:
                self.drive.rename(self._drive_names(old), self._drive_names(new))
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        """Set the modification time: `times[1]` in nanoseconds since 1970, or now. The access time is ignored."""
        self._check_writable()
        if not _is_hidden(path):
            # A drive keeps whole milliseconds, so the time does not change again with the upload.
            milliseconds = (times[1] if times else time.time_ns()) // 1_000_000
            with self._invalidating(path):
                self.drive.set_modified(self._drive_names(path), milliseconds / 1000)
        return 0

    def chmod(self, path: str | None, mode: int) -> int:
        return 0

    def chown(self, path: str | None, uid: int, gid: int) -> int:
        return 0

    def symlink(self, target: str, source: str) -> int:
        raise FuseOSError(errno.ENOTSUP)

    def link(self, target: str, source: str) -> int:
        raise FuseOSError(errno.ENOTSUP)

    def mknod(self, path: str, mode: int, dev: int) -> int:
        raise FuseOSError(errno.ENOTSUP)

    # Lookups and invalidation

    def _drive_names(self, path: str) -> Names:
        """Return the names of `path` on the drive, as `_names`.

        The mount's root is not on the drive: for it, raises `EROFS`, or `EACCES` if the mount is read-only.
        """
        names = _names(path)
        if names is None:
            raise FuseOSError(errno.EROFS if not self._readonly else errno.EACCES)
        return names

    def _find(self, path: str, names: Names) -> File:
        """Return the file at `path`; a shortcut is not followed. Below a cached folder this is a single lookup."""
        if path.startswith(_BELOW_MY_DRIVE):
            return self.drive.find_in(self._folder(path.rpartition("/")[0], names[:-1]), names)
        return self.drive.find(names, follow=False)

    def _folder(self, path: str, names: Names) -> File:
        """Return the folder at `path`, from the cache if no folder has moved since it was cached."""
        found = self._folders.get(path)
        if found is not None and found[0] >= self._folders_changed:
            return found[1]
        version = self._version
        folder = self.drive.folder(names)
        self._cache_folder(path, version, folder)
        return folder

    def _cache_folder(self, path: str, version: int, folder: File) -> None:
        if len(self._folders) >= _MAX_CACHED:
            self._folders.clear()
        self._folders[path] = version, folder

    def _check_writable(self) -> None:
        """Raise `EROFS` if the mount is read-only or being unmounted."""
        if self._readonly:
            raise FuseOSError(errno.EROFS)

    def _invalidate(self, *paths: str) -> None:
        """Bump the version and drop the cached files and page contents of `paths`.

        A path that is not a cached file may be a folder, so all cached files are dropped, those below it included.
        """
        self._bump_version()
        for path in paths:
            self._page_contents.pop(path, None)
            if path not in self._files:
                self._files.clear()
            self._files.pop(path, None)

    def _bump_version(self, *, moved: bool = False) -> None:
        """Bump the mount's version: open handles without a draft look up their file again at the next read or `fstat`.

        `moved` says that a folder may have moved or be gone; it also invalidates all cached folders.
        """
        with self._version_lock:
            self._version += 1
            if moved:
                self._folders_changed = self._version

    @contextmanager
    def _invalidating(self, *paths: str, moved: bool = False) -> Iterator[None]:
        """Invalidate `paths` before and after the block, so that no lookup that raced with it stays cached."""
        self._invalidate(*paths)
        try:
            yield
        finally:
            self._invalidate(*paths)
            self._bump_version(moved=moved)

    def _add_handle(self, handle: OpenFile) -> int:
        number = next(self._handles)
        self._open_files[number] = handle
        return number

    def _refresh(self, handle: OpenFile) -> None:
        """Look up the handle's file and draft again if the version was bumped since the last time.

        Then another handle may be writing the file, or others may have changed it; if so, its cached pages are no
        longer kept. A handle that has a draft is never refreshed.
        """
        if handle.draft is not None or handle.checked_version == self._version:
            return
        with handle.lock:
            handle.checked_version = self._version
            if handle.draft is not None:
                return
            if handle.orphan is not None:
                handle.draft = self._acquire_draft(handle.orphan)
                return
            before = handle.file.md5
            handle.file, handle.draft = self.drive.current(handle.file)
            if handle.draft is not None or handle.file.md5 != before:
                self._page_contents.pop(handle.path, None)

    def _open_draft(self, handle: OpenFile) -> Draft:
        """Return the draft that the handle writes to; the first write opens it, filled with the file's bytes."""
        with handle.lock:
            if handle.draft is None:
                if handle.orphan is None:
                    handle.draft = self.drive.open_draft_of(handle.file)
                else:
                    handle.draft = self._acquire_draft(handle.orphan) or self.drive.open_detached_draft(
                        handle.orphan.file
                    )
                    handle.orphan.draft = handle.draft
                self._files.pop(handle.path, None)
                self._bump_version()
            return handle.draft

    # Files deleted while open

    def _make_orphan(self, path: str, hidden: str) -> None:
        """Remove the open file at `path` and attach its open handles to an `Orphan`, named `hidden` by libfuse."""
        names = self._drive_names(path)
        draft = self.drive.draft_at(names)
        file = draft.as_file() if draft is not None else self.drive.find(names)
        orphan = Orphan(file, draft, 0)
        self._orphans[_basename(hidden)] = orphan
        for handle in list(self._open_files.values()):
            with handle.lock:
                if handle.draft is draft if handle.draft is not None else handle.file.id == file.id:
                    # All handles continue with the file as it is now, not as it was when they opened it.
                    handle.file, handle.draft = file, handle.draft or self._acquire_draft(orphan)
                    handle.orphan = orphan
                    orphan.references += 1
        try:
            self.drive.remove(names)
        finally:
            if draft is not None:
                self.drive.journal.release(draft)

    def _orphan_file(self, path: str) -> File:
        orphan = self._orphans.get(_basename(path))
        if orphan is None:
            raise FuseOSError(errno.ENOENT)
        return orphan.draft.as_file() if orphan.draft is not None else orphan.file

    def _acquire_draft(self, orphan: Orphan) -> Draft | None:
        """Return the orphan's draft with its reference count incremented; None if nothing was written."""
        if orphan.draft is not None:
            self.drive.journal.acquire(orphan.draft)
        return orphan.draft

    def _release_orphan(self, orphan: Orphan) -> None:
        orphan.references -= 1
        if orphan.references == 0:
            for name in [name for name, one in self._orphans.items() if one is orphan]:
                del self._orphans[name]

    # Listings

    def _entries(self, path: str, names: Names | None, folder: File) -> Iterator[tuple[str, File]]:
        """Yield the name and file of each entry, `.` and `..` first; `names` is None for the mount's root."""
        yield ".", folder
        yield "..", folder
        if names is None:
            yield ROOT, self._root
            yield ALIAS, self._alias
            return
        if names[:1] != (TARGETS,):
            self.kernel_cache.record_lookup(path)
        for name, file in self.drive.entries(names, folder):
            if len(name) <= 63 or len(name.encode()) <= 255:  # one longer name makes the kernel fail the whole listing
                yield name, file


def _is_hidden(path: str) -> bool:
    """Whether libfuse made up the name, for a file that was deleted while open."""
    return _HIDDEN in path and _basename(path).startswith(_HIDDEN)


def _basename(path: str) -> str:
    """The last name of a path. A hidden name identifies an orphan alone: it is unique, and its folder may move."""
    return path.rpartition("/")[2]


def _names(path: str) -> Names | None:
    """Return the names below My Drive, or the names from `.shortcut-targets-by-id` on; None for the mount's root.

    Raises `ENOENT` for any other name in the root.
    """
    if path == "/":
        return None
    first, *names = path[1:].split("/")
    if first == TARGETS:
        return (first, *names)
    if first != ROOT:
        raise FuseOSError(errno.ENOENT)
    return tuple(names)
