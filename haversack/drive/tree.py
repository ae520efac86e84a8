"""The drive as one tree of paths: the files on it, with the drafts in the journal that are not on it yet.

The fsspec file system and the mount are both built on this. A path is resolved by looking up each of its names, never
by listing a folder. Names come from an index that the drive's changes feed keeps current (`drive.index`), so each is
requested once.

A shortcut is followed like a symbolic link: reads and writes go to its target; renaming and removing affect the
shortcut itself. Every file can also be reached by its id, at `TARGETS/<id>/<name>`, as on Colab.

Removing a file or folder moves it to the drive's trash. Folders are created, moved and trashed on the drive at once;
the bytes of files go through the journal.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

from haversack import credentials, disk, settings
from haversack.credentials import Server
from haversack.drive import ALIAS as ALIAS
from haversack.drive import MARK as MARK
from haversack.drive import ROOT as ROOT
from haversack.drive.cache.content import ContentCache, Extent
from haversack.drive.index import changes, names
from haversack.drive.index.bootstrap import bootstrap
from haversack.drive.index.changes import ChangesFollower, now, stamp
from haversack.drive.index.index import DriveIndex, LogEntry
from haversack.drive.index.listing import FolderListings
from haversack.drive.index.snapshot import Snapshots
from haversack.drive.remote.api import SHORTCUT, DriveApi, File, Quota, ResumableUpload
from haversack.drive.resolve import TARGETS as TARGETS
from haversack.drive.resolve import Names as Names
from haversack.drive.resolve import PathResolver
from haversack.drive.writeback.draft import Draft
from haversack.drive.writeback.journal import Journal
from haversack.errors import (
    AlreadyExists,
    FolderNotEmpty,
    Forbidden,
    HaversackError,
    IntegrityError,
    IsAFolder,
    NotAFolder,
    NotFound,
)
from haversack.http import wait
from haversack.settings import Settings

_log = logging.getLogger(__name__)

# Seconds for which the quota is cached.
_QUOTA_MAX_AGE = 60.0
# Seconds that a listing waits for a snapshot to load: less than listing a drive takes if the snapshot is large.
_SNAPSHOT_TIMEOUT = 1.0
_drives: dict[tuple[int, Server, Settings], Drive] = {}
_drives_lock = threading.Lock()


def connect(hub: str | None = None) -> Drive:
    """Return the drive `hub`: a hub's URL, "google", "embedded", or None for the default of `credentials.drive`.

    The first call in a process connects to the drive; later ones with the same settings return the same object. Raises
    `SignInError` if no sign-in is found or it is refused, `InputError` for an invalid `hub`, `ConnectionFailed` if the
    drive does not answer, and `RemoteError` if it answers with an error.
    """
    server, chosen = credentials.drive(hub), settings.load()
    with _drives_lock:
        key = (os.getpid(), server, chosen)
        if key not in _drives:
            _drives[key] = Drive(server, chosen.data, chosen.cache, chosen.follow)
        return _drives[key]


@dataclass(frozen=True)
class IndexStatus:
    """How much the index of a drive holds, and how current it is.

    `names` counts files and folders, `folders` those of which every file is known. `age` is the number of seconds since
    the changes feed was last read, None if not since the last boot. `trouble` is the error of the last poll of the
    feed, "" if it succeeded.
    """

    names: int
    folders: int
    age: float | None
    trouble: str


class Drive:
    """One drive. Thread-safe.

    Paths are tuples of shown names below My Drive (`Names`): those under which a mount shows files. A draft is a file
    that was written on this machine and is not uploaded yet. A method that returns a draft has incremented its
    reference count, and the caller must pass it to `journal.release`.

    Every method raises `ConnectionFailed`, `SignInError` or a `RemoteError` if a call to the drive fails, and
    `DiskFull` if the local disk is full, beside the errors that it names.
    """

    def __init__(self, server: Server, data: Path, cache: Path, pace: float = changes.PACE) -> None:
        """Connect to a drive.

        Args:
            server: The drive's server and sign-in.
            data: The folder for journals, which must outlive the process.
            cache: The folder for the index and for bytes that were read.
            pace: Seconds between two polls of the changes feed.
        """
        self.server = server
        # `bootstrap` gives up after a few attempts, so that a missing drive is reported soon; later calls retry longer.
        requested = now()
        root, token, snapshot, quota = wait(bootstrap(server))
        # The id of My Drive differs between drives and accounts, and stays the same if a hub moves to another address.
        key = hashlib.sha256(root.id.encode()).hexdigest()[:16]
        self.api = DriveApi(server)
        self.index = DriveIndex(cache / "drives" / key)
        self.snapshots = Snapshots(self.api, self.index, root.id, MARK)
        if self.index.fact("token") is None:
            self.index.set_first_token(token, polled=stamp(requested))
            if snapshot is not None:
                self.snapshots.start_loading(snapshot)
        self.follower = ChangesFollower(self.api, self.index, pace)
        self.listings = FolderListings(self.api, self.index, self.follower)
        self.content = ContentCache(cache / "drives" / key / "content", self.api)
        self.journal = Journal(data / "drives" / key, self.api, self.index.put, self.index.forget, self.content.adopt)
        self.root = replace(root, name=ROOT, parent="")
        self.resolver = PathResolver(self.root, self.api, self.index, self.follower, self.listings, self.journal)
        self._quota = (time.monotonic(), quota)

    # Looking up

    def find(self, path: Names, *, follow: bool = True) -> File:
        """Return the metadata of the file or folder at `path`; that of a draft is made from its local bytes.

        If `path` is a shortcut, return its target; with `follow=False`, or if the target is gone, the shortcut. Raises
        `NotFound`, and `NotAFolder` if a file is where `path` needs a folder.
        """
        return self.resolver.resolve(path, follow=follow)[-1]

    def exists(self, path: Names) -> bool:
        """Whether there is a file, folder or shortcut at `path`; False too if a file is where it needs a folder."""
        try:
            self.find(path)
        except (NotFound, NotAFolder):
            return False
        return True

    def folder(self, path: Names) -> File:
        """Return the folder at `path`. Raises `NotFound`, and `NotAFolder` if it, or a name above it, is a file."""
        found = self.find(path)
        if not found.is_folder:
            raise NotAFolder(f"{_display(path)} on the drive is a file.", "Name a folder.")
        return found

    def find_in(self, folder: File, path: Names) -> File:
        """Return what is at `path`, whose parent is `folder`, with one lookup; a shortcut as itself.

        Raises `NotFound`.
        """
        return self.resolver.resolve_in(folder, path)

    def entries(self, path: Names, folder: File | None = None) -> Iterator[tuple[str, File]]:
        """Yield (shown name, file) for everything in a folder, in no particular order; shortcuts as themselves.

        The first are yielded before the last are known. `folder` is the folder at `path`, if the caller knows it.
        Raises `NotFound` and `NotAFolder`. `ConnectionFailed`, `SignInError` and `RemoteError` may be raised also after
        some were yielded.
        """
        folder = folder or self.folder(path)
        if path[:1] == (TARGETS,) and len(path) < 3:
            if len(path) == 2:
                target = self.resolver.target(path[1])
                yield names.shown_name(target), target
            return
        # Drafts are read first: one that is uploaded during the listing is then seen as a draft rather than not at all.
        drafts, hidden = self.journal.within(folder.id), self.journal.claimed_ids()
        written = {names.sanitize(draft.name): draft.as_file() for draft in drafts}
        yield from written.items()
        self.snapshots.wait(_SNAPSHOT_TIMEOUT)
        for name, file in self.listings.entries(folder.id):
            if file.id not in hidden and name not in written:
                yield name, file

    def folders_to(self, path: Names) -> list[File]:
        """Return the folders from My Drive down to the one at `path`, both included, shortcuts followed.

        Raises `NotFound`, and `NotAFolder` if `path`, or a name above it, is a file.
        """
        folders = self.resolver.resolve(path, follow=True)
        if not folders[-1].is_folder:
            raise NotAFolder(f"{_display(path)} on the drive is a file.", "Name a folder.")
        return folders

    def listing(self, path: Names, folders: Sequence[File] | None = None) -> dict[str, File]:
        """Return everything in the folder at `path` by shown name, sorted, shortcuts replaced by their targets.

        Shortcuts to one of the folders above are left out, so that a walk ends. `folders` is `folders_to(path)`, if the
        caller knows it. Raises `NotFound`, `NotAFolder`.
        """
        folders = folders or self.folders_to(path)
        found = dict(sorted(self.entries(path, folders[-1]), key=itemgetter(0)))
        shortcuts = [(name, file) for name, file in found.items() if file.mime_type == SHORTCUT]
        self.resolver.prefetch_targets([file.target for _, file in shortcuts])
        found |= {name: self.resolver.follow(file) for name, file in shortcuts}
        above = {folder.id for folder in folders}
        return {name: file for name, file in found.items() if file.id not in above}

    def below(self, path: Names, folders: Sequence[File] | None = None) -> Iterator[tuple[Names, File]]:
        """Yield (path, file) for everything below the folder at `path`, each folder before its files.

        Shortcuts are replaced by their targets, except that those to one of the folders above are left out. `folders`
        is `folders_to(path)`, if the caller knows it. Raises `NotFound`, `NotAFolder`.
        """
        folders = folders or self.folders_to(path)
        for name, file in self.listing(path, folders).items():
            yield (*path, name), file
            if file.is_folder:
                yield from self.below((*path, name), [*folders, file])

    def link(self, shortcut: File) -> str:
        """Return the target of `shortcut` as a path relative to the mount's root: `TARGETS/<id>/<name>`.

        Raises `NotFound` if the target is gone or in the trash.
        """
        target = self.resolver.target(shortcut.target)
        return f"{TARGETS}/{target.id}/{names.shown_name(target)}"

    def refreshed(self, file: File) -> File:
        """Request `file` from the drive by its id, store it in the index, and return it. Raises `NotFound`."""
        return self.resolver.fetch(file.id)

    def current(self, file: File) -> tuple[File, Draft | None]:
        """Return (the latest metadata of `file` known here, the draft with new bytes for it or None).

        Makes no call to the drive. The caller must release the draft.
        """
        draft = self.journal.acquire_by_id(file.id)
        return (draft.as_file(), draft) if draft is not None else (self.index.get(file.id) or file, None)

    def known(self) -> IndexStatus:
        """Return how much the index holds and how current it is, without a call to the drive."""
        count, folders = self.index.count()
        return IndexStatus(count, folders, self.follower.age(), self.index.fact("trouble") or "")

    def subscribe(self, callback: Callable[[Sequence[Names] | None], None]) -> Callable[[], None]:
        """Call `callback` with the paths at which other processes and machines created, changed or removed files.

        The paths are sorted, and a path that has no file any more is among them. None instead of paths means that any
        path may have changed. `callback` runs on the background thread that polls the changes feed, which waits for it.
        Local writes of this process are not reported. Call the returned function once to unsubscribe.
        """

        def notify(entries: Sequence[LogEntry] | None) -> None:
            if entries is None:
                callback(None)
                return
            folders = {one.parent: self.index.path_of(one.parent, self.root.id) for one in entries if one.parent}
            paths = {(*above, one.shown) for one in entries if (above := folders.get(one.parent)) is not None}
            if paths:
                callback(sorted(paths))

        return self.follower.subscribe(notify)

    def save_snapshot(self) -> None:
        """Save a snapshot of the index on the drive, for the next machine that connects to it.

        Does nothing if the index is small or has hardly changed since the last snapshot. A `HaversackError` is only
        logged; a local `OSError` is raised.
        """
        try:
            if self.snapshots.is_worth_saving():
                self.snapshots.save()
        except HaversackError as error:
            _log.warning("No snapshot of the drive's index was saved; the next machine lists folders anew. %s", error)

    def quota(self) -> Quota:
        """Return the drive's used space and limit in bytes, at most 60 seconds old."""
        checked = time.monotonic()
        if checked - self._quota[0] > _QUOTA_MAX_AGE:
            self._quota = (checked, wait(self.api.quota()))
        return self._quota[1]

    # Bytes

    def read(self, file: File, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of a file on the drive from `offset`; fewer only at its end.

        Raises `Forbidden` for a Google document or a shortcut, and `IntegrityError` if the bytes on the drive are no
        longer those of the version `file`: call `refreshed` and read again.
        """
        check_has_bytes(file)
        return self.content.read(file, offset, size)

    def find_bytes(self, file: File, offset: int, size: int) -> bytes | Extent:
        """Fetch the bytes that `read` returns; return their place on the local disk (`Extent`) or the bytes.

        It returns the bytes of a small file, and bytes that the disk has no room for. Raises `Forbidden` and
        `IntegrityError` in the same cases as `read`.
        """
        check_has_bytes(file)
        return self.content.find(file, offset, size)

    def draft_at(self, path: Names, folder: File | None = None) -> Draft | None:
        """Return the draft at `path`, its reference count incremented (the caller must release it); None without one.

        `folder` is the parent of `path`, if the caller knows it. Raises `NotFound` and `NotAFolder` for the parent.
        """
        if not path:
            return None
        parent = (folder or self.folder(path[:-1])).id
        for name in names.meant(path[-1]):
            if (draft := self.journal.acquire_at(parent, name)) is not None:
                return draft
        return None

    def open_draft(self, path: Names, *, truncate: bool, exclusive: bool = False) -> Draft:
        """Return the draft at `path`; start one if there is none. The caller must release it.

        A new draft has the bytes of the file at `path`, which are copied from the drive; none with `truncate`, or if
        there is no file. `truncate` also empties an existing draft. With `exclusive`, raises `AlreadyExists` if there
        is a file or draft. Raises `IsAFolder`, `Forbidden` for a Google document, `NotFound` and `NotAFolder` for the
        parent, `NotFound` for a shortcut without a target, `IntegrityError` if the file changes again and again while
        it is copied, and `OSError` if the local disk fails.
        """
        if not path:
            raise IsAFolder("My Drive is a folder.", "Name a file in it.")
        parent = self.folder(path[:-1])
        while True:
            if (draft := self.draft_at(path)) is not None:
                if exclusive:
                    self.journal.release(draft)
                    raise _already_exists(path)
                if truncate:
                    self.journal.truncate(draft, 0)
                return draft
            there = self.resolver.child(parent.id, path[-1])
            if there is None:
                return self.journal.open(parent.id, path[-1], None, None)
            # A file that is shown under a number gets the numbered name on the drive too, so that it keeps it.
            name = there.name if names.shown_name(there) == path[-1] else path[-1]
            if there.mime_type == SHORTCUT:
                there = self.resolver.target(there.target)
                name = there.name
            if there.id.startswith("draft:"):
                continue  # a race: another thread started a draft since `draft_at`
            if there.is_folder:
                raise IsAFolder(f"{_display(path)} on the drive is a folder.", "Name a file.")
            if exclusive:
                raise _already_exists(path)
            check_has_bytes(there)
            return self.journal.open(there.parent, name, there, None if truncate else self._copier(there))

    def open_draft_of(self, file: File) -> Draft:
        """Return the draft with new bytes for `file`, an open file; start one with its present bytes if there is none.

        The file is found by its id, whatever its path is now. The caller must release the draft. Raises `NotFound` if
        it is gone, `IntegrityError` if it keeps changing while it is copied, and `OSError` if the local disk fails.
        """
        file, draft = self.current(file)
        return draft or self.journal.open(file.parent, file.name, file, self._copier(file))

    def open_detached_draft(self, file: File) -> Draft:
        """Return a new draft with the bytes of `file`, an orphan (deleted while open): it is never uploaded.

        The caller must release the draft. Raises `NotFound` if the bytes cannot be had from the drive any more,
        `IntegrityError` if they keep changing, and `OSError` if the local disk fails.
        """
        return self.journal.open_detached(file, self._copier(file))

    # Changing

    def make_folder(self, path: Names, *, only: bool = False) -> File:
        """Create the folder at `path` on the drive and return it.

        A drive accepts two folders with one name. With `only`, one more call looks for another folder that was created
        at the same time; if it is older, the new folder is trashed again. Raises `AlreadyExists` then, and if there is
        something at `path` before; `NotFound` and `NotAFolder` for its parent.
        """
        if not path:
            raise _already_exists(path)
        parent = self.folder(path[:-1])
        if self.resolver.child(parent.id, path[-1]) is not None:
            raise _already_exists(path)
        made = wait(self.api.create_folder(parent.id, path[-1]))
        if only:
            same_name = [file for file in wait(self.api.lookup(parent.id, path[-1])) if file.is_folder]
            if min([made, *same_name], key=lambda file: (file.created, file.id)).id != made.id:
                wait(self.api.trash(made.id))
                self.index.invalidate(parent.id)
                raise _already_exists(path)
        self.index.put_empty(made)
        return made

    def remove(self, path: Names) -> None:
        """Move the file at `path` to the trash; a shortcut itself, not its target. A draft is discarded.

        Raises `NotFound`, `NotAFolder`, and `IsAFolder` for a folder.
        """
        if (draft := self.draft_at(path)) is not None:
            on_drive = self.journal.remove(draft)
            self.journal.release(draft)
            for file_id in on_drive:
                self._trash(file_id)
            return
        file = self.find(path, follow=False)
        if file.is_folder:
            raise IsAFolder(f"{_display(path)} on the drive is a folder.", "Remove it as a folder.")
        self._trash(file.id)

    def remove_folder(self, path: Names, *, recursive: bool = False) -> None:
        """Move the folder at `path` to the trash; with `recursive` together with everything in it.

        With `recursive`, a shortcut is trashed itself. Raises `FolderNotEmpty` without `recursive`, `Forbidden` for My
        Drive itself, `NotFound`, and `NotAFolder`.
        """
        if not path:
            raise Forbidden("My Drive itself cannot be removed.", "Name something in it.")
        folder = self.find(path, follow=False)
        if recursive and folder.mime_type == SHORTCUT:
            self._trash(folder.id)
            return
        if not folder.is_folder:
            raise NotAFolder(f"{_display(path)} on the drive is a file.", "Name a folder.")
        if not recursive:
            self.follower.refresh()
            if self._has_entries(path):
                raise FolderNotEmpty(f"{_display(path)} on the drive is not empty.", "Remove what is in it first.")
        for draft in self.journal.within(folder.id):
            self.journal.remove(draft)
        self._trash(folder.id)

    def rename(self, old: Names, new: Names) -> None:
        """Rename or move a file, folder or shortcut; what is at `new` is replaced and moved to the trash.

        A file replaces a file, a folder only an empty folder. A draft is renamed in the journal, and on the drive too
        if it is there. Raises `NotFound` for `old` or the parent of `new`; `Forbidden` for My Drive itself and for a
        folder moved into itself; `IsAFolder` or `NotAFolder` if a file would replace a folder or a folder a file; and
        `FolderNotEmpty`.
        """
        if not old or not new:
            raise Forbidden("My Drive itself cannot be renamed.", "Name something in it.")
        source, parent = self.find(old, follow=False), self.folder(new[:-1])
        if old == new:
            return
        if new[: len(old)] == old:
            raise Forbidden(f"{_display(old)} cannot be moved into itself.", "Choose another place.")
        replaced = self._find_replaceable(source, new)
        if (draft := self.draft_at(old)) is not None:
            self._rename_draft(draft, parent, new, replaced)
            return
        for file_id in self._discard_draft(self.draft_at(new), replaced):
            self._trash(file_id)
        name = _drive_name_at(new, source, replaced)
        self.index.put(wait(self.api.update(source, name=name, parent=parent.id)))

    def copy(self, old: Names, new: Names) -> None:
        """Copy one file on the drive itself, without a download; what is at `new` is replaced and moved to the trash.

        If there is a draft at `old`, it is committed and uploaded first, and an error of that upload is raised. Raises
        `NotFound` and `NotAFolder` for `old` or the parent of `new`, and `IsAFolder` for a folder at `old` or `new`.
        """
        source, parent = self.find(old), self.folder(new[:-1])
        if source.is_folder:
            raise IsAFolder(f"{_display(old)} on the drive is a folder.", "Copy its files.")
        replaced = self._find_replaceable(source, new)
        if (draft := self.draft_at(old)) is not None:
            try:
                self.journal.commit(draft)
                self.journal.wait(draft)
            finally:
                self.journal.release(draft)
            source = self.find(old)
        copied = wait(self.api.copy(source, parent.id, names.drive_name(source, new[-1])))
        for file_id in self._discard_draft(self.draft_at(new), replaced):
            self._trash(file_id)
        self.index.put(copied)

    def set_modified(self, path: Names, modified: float) -> None:
        """Set the modification time of the file at `path` (of a shortcut's target), in seconds since 1970.

        For My Drive itself does nothing. The time of a draft that is not uploaded yet is uploaded with its bytes.
        Raises `NotFound`, `NotAFolder`.
        """
        if (draft := self.draft_at(path)) is not None:
            with_bytes = self.journal.set_modified(draft, modified)
            self.journal.release(draft)
            if with_bytes:
                return
        file = self.find(path)
        if path:
            self.index.put(wait(self.api.update(file, modified=modified)))

    # haversack's own files

    def deliver(self, source: Path, path: Names, mark: str, file_id: str | None = None) -> File:
        """Upload a local file as a new file at `path`, without the journal, and mark it as haversack's. Return it.

        Args:
            source: The local file.
            path: Its path on the drive.
            mark: The value of `appProperties` under the key `MARK`, which marks haversack's own files.
            file_id: An unused id from `api.new_id`. If several processes use one id, only the first upload succeeds.

        Raises `AlreadyExists` if the id is used or a file at `path` appears to exist after the upload (which is then
        deleted again), `NotFound` and `NotAFolder` for the parent, `IntegrityError`, and `OSError` for `source`.
        """
        parent = self.folder(path[:-1])
        digest = disk.md5(source)
        status = source.stat()
        upload = ResumableUpload(
            source=source,
            size=status.st_size,
            md5=digest,
            file_id=file_id or wait(self.api.new_id()),
            exists=False,
            parent=parent.id,
            name=path[-1],
            modified=status.st_mtime,
            marks={MARK: mark},
            exclusive=True,
        )
        made = wait(self.api.upload(upload))
        if any(file.id != made.id for file in wait(self.api.lookup(parent.id, path[-1]))):
            # A drive accepts two files with one name. In a race, each creator that sees the other's file withdraws.
            wait(self.api.delete(made.id))
            raise _already_exists(path)
        self.index.put(made)
        return made

    def purge(self, path: Names) -> None:
        """Delete a file that `deliver` made, for good and not into the trash.

        Raises `Forbidden` for any other file or folder, `NotFound`, and `NotAFolder`.
        """
        file = self.find(path, follow=False)
        if file.is_folder or MARK not in wait(self.api.app_properties(file.id)):
            raise Forbidden(
                f"{_display(path)} on the drive was not made by haversack.", "Move it to the trash instead."
            )
        wait(self.api.delete(file.id))
        self.index.forget(file.id)

    # Internal

    def _has_entries(self, path: Names) -> bool:
        return next(self.entries(path), None) is not None

    def _copier(self, file: File) -> Callable[[int], None]:
        """Return a function that writes the bytes of `file` to a file descriptor.

        If the file has changed on the drive, it starts again, once, with the new bytes.
        """

        def copy(descriptor: int) -> None:
            try:
                self.content.copy_to(file, descriptor)
            except IntegrityError:
                fresh = self.refreshed(file)
                os.ftruncate(descriptor, 0)
                self.content.copy_to(fresh, descriptor)

        return copy

    def _find_replaceable(self, source: File, new: Names) -> File | None:
        """Return what is at `new`, which `source` is about to replace; None if there is nothing.

        Raises `IsAFolder`, `NotAFolder` or `FolderNotEmpty` if `source` must not replace it.
        """
        try:
            replaced = self.find(new, follow=False)
        except NotFound:
            return None
        if replaced.is_folder and not source.is_folder:
            raise IsAFolder(f"{_display(new)} on the drive is a folder.", "Name a file.")
        if source.is_folder and not replaced.is_folder:
            raise NotAFolder(f"{_display(new)} on the drive is a file.", "Name a folder.")
        if replaced.is_folder and self._has_entries(new):
            raise FolderNotEmpty(f"{_display(new)} on the drive is not empty.", "Remove what is in it first.")
        return replaced

    def _rename_draft(self, draft: Draft, parent: File, new: Names, replaced: File | None) -> None:
        """Rename a draft, and its file on the drive if it has one, to `new`; release the draft.

        `replaced` is what is at `new`. If the draft's file is on the drive, `replaced` is trashed at once. Otherwise
        the journal uploads the draft in place of `replaced`; what has no bytes is trashed at once.
        """
        name = _drive_name_at(new, draft.as_file(), replaced)
        try:
            if draft.exists and draft.file_id is not None:
                for file_id in self._discard_draft(self.draft_at(new), replaced):
                    self._trash(file_id)
                replaced = None
                present = draft.uploaded or wait(self.api.get(draft.file_id))
                draft.uploaded = wait(self.api.update(present, name=name, parent=parent.id))
                self.index.put(draft.uploaded)
            if replaced is not None and replaced.id.startswith("draft:"):
                replaced = None
            if replaced is not None and not _has_bytes(replaced):
                self._trash(replaced.id)
                replaced = None
            self.journal.move(draft, parent.id, name, replaced)
        finally:
            self.journal.release(draft)

    def _discard_draft(self, draft: Draft | None, replaced: File | None) -> list[str]:
        """Remove and release `draft`, the draft at a path that is being replaced.

        Returns the ids on the drive to trash: those of the draft, and that of `replaced`, the file at the path.
        """
        on_drive = [replaced.id] if replaced is not None and not replaced.id.startswith("draft:") else []
        if draft is not None:
            on_drive += self.journal.remove(draft)
            self.journal.release(draft)
        return sorted(set(on_drive))

    def _trash(self, file_id: str) -> None:
        wait(self.api.trash(file_id))
        self.index.forget(file_id)


def split(path: str) -> Names:
    """Split a path into names: `a/b//c/` into ("a", "b", "c"). `..` never leads above My Drive."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


def _has_bytes(file: File) -> bool:
    return not names.is_document(file) and file.mime_type != SHORTCUT


def check_has_bytes(file: File) -> None:
    """Raise `Forbidden` if `file` has no bytes to read: a Google document, or a shortcut without a target."""
    if names.is_document(file):
        raise Forbidden(f"{file.name} is a Google document without bytes of its own.", "Export it in the browser.")
    if file.mime_type == SHORTCUT:
        raise Forbidden(
            f"The target of the shortcut {file.name} is gone, or you may not read it.", "Remove the shortcut."
        )


def _drive_name_at(path: Names, source: File, replaced: File | None) -> str:
    """Return the drive name that `source` must get to be shown at `path`.

    It is the name of `replaced`, the file at `path`, if that is shown under it; otherwise derived from `path`.
    """
    if replaced is not None and names.shown_name(replaced) == path[-1] and not names.is_document(replaced):
        return replaced.name
    return names.drive_name(source, path[-1])


def _display(path: Names) -> str:
    """Return a path for messages."""
    return "/".join(path) or ROOT


def _already_exists(path: Names) -> AlreadyExists:
    return AlreadyExists(f"{_display(path)} is on the drive already.", "Choose another name.", status=409)
