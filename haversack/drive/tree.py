"""The drive as one tree of paths: what is on it, what was written and is not on it yet, and what is kept of it here.

The file system for Python and the mount both stand on this. A path is walked by looking each name up, never by
listing. What is known is kept true by the drive's list of changes (`index`, `changes`), so a name is asked for once;
how it is shown stands in `names`.

A shortcut is followed, like a symbolic link: what is read or written is the file it leads to, what is renamed or
removed is the shortcut. Every file can also be reached by its id, below `TARGETS`, where Colab has them.

Deleting means the trash. Folders are made, moved and trashed on the drive at once; a file's bytes go through the
journal.
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
from haversack.drive.index.index import DriveIndex, Touched
from haversack.drive.index.listing import FolderListings
from haversack.drive.index.names import shown_name
from haversack.drive.index.snapshot import Snapshots
from haversack.drive.remote.api import SHORTCUT, DriveApi, File, Quota, ResumableUpload
from haversack.drive.resolve import TARGETS as TARGETS
from haversack.drive.resolve import Names as Names
from haversack.drive.resolve import PathResolver
from haversack.drive.writeback.journal import Draft, Journal
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

_QUOTA_TRUST = 60.0
# Who lists waits so long for what an earlier session knew; listing itself takes longer where that is much.
_SNAPSHOT_WAIT = 1.0
_connected: dict[tuple[int, Server, Settings], Drive] = {}
_connecting = threading.Lock()


def connect(hub: str | None = None) -> Drive:
    """The drive that `hub` names (see `credentials.drive`); one object for each drive in a process.

    Raises `SignInError`, `InputError`, and `ConnectionFailed` when the drive does not answer.
    """
    server, chosen = credentials.drive(hub), settings.load()
    with _connecting:
        key = (os.getpid(), server, chosen)
        if key not in _connected:
            _connected[key] = Drive(server, chosen.data, chosen.cache, chosen.follow)
        return _connected[key]


@dataclass(frozen=True)
class Known:
    """What is known of a drive: names, folders of which everything is known, and how it is kept true.

    `age` is how many seconds ago the drive last said what changed; None when it has not since this machine started.
    `trouble` says why it cannot be had, "" when it can.
    """

    names: int
    folders: int
    age: float | None
    trouble: str


class Drive:
    """One drive. Every method takes paths as tuples of names and may be called from any thread.

    All raise `ConnectionFailed` and `RemoteError` when the drive does not answer as it should.
    """

    def __init__(self, server: Server, data: Path, cache: Path, pace: float = changes.PACE) -> None:
        self.server = server
        # The first contact tells soon whether there is a drive at all; later calls are patient.
        contacted = now()
        root, token, found, quota = wait(bootstrap(server))
        # The id of My Drive tells drives and accounts apart, and stays when a hub comes back at another address.
        key = hashlib.sha256(root.id.encode()).hexdigest()[:16]
        self.api = DriveApi(server)
        self.index = DriveIndex(cache / "drives" / key)
        self.snapshots = Snapshots(self.api, self.index, root.id, MARK)
        if self.index.fact("token") is None:
            self.index.begin(token, polled=stamp(contacted))
            if found is not None:
                self.snapshots.begin_to_load(found)
        self.following = ChangesFollower(self.api, self.index, pace)
        self.listings = FolderListings(self.api, self.index, self.following)
        self.content = ContentCache(cache / "drives" / key / "content", self.api)
        self.journal = Journal(data / "drives" / key, self.api, self.index.put, self.index.forget, self.content.adopt)
        self.root = replace(root, name=ROOT, parent="")
        self.ways = PathResolver(self.root, self.api, self.index, self.following, self.listings, self.journal)
        self._quota = (time.monotonic(), quota)

    # Looking

    def find(self, path: Names, *, follow: bool = True) -> File:
        """The file or folder there, what a shortcut leads to unless `follow` is False.

        Raises `NotFound`, and `NotAFolder` when a file stands in the way.
        """
        return self.ways.to(path, follow)[-1]

    def exists(self, path: Names) -> bool:
        try:
            self.find(path)
        except (NotFound, NotAFolder):
            return False
        return True

    def folder(self, path: Names) -> File:
        """The folder there. Raises as `find`, and `NotAFolder` for a file."""
        found = self.find(path)
        if not found.is_folder:
            raise NotAFolder(f"{_said(path)} on the drive is a file.", "Name a folder.")
        return found

    def find_in(self, folder: File, path: Names) -> File:
        """What is at a path of which `folder` is the one above, a shortcut as itself. Raises `NotFound`."""
        return self.ways.step(folder, path)

    def entries(self, path: Names, folder: File | None = None) -> Iterator[tuple[str, File]]:
        """What is in a folder, by the name it is shown under, in no order, the first before the last is known.

        `folder` is the one at `path`, where that is known. A shortcut is given as itself. Raises as `folder`, in the
        middle too when the drive does not answer.
        """
        folder = folder or self.folder(path)
        if path[:1] == (TARGETS,) and len(path) < 3:
            if len(path) == 2:
                target = self.ways.target(path[1])
                yield names.shown(target), target
            return
        # Drafts first: one that gets to the drive meanwhile is then seen as a draft rather than never.
        drafts, hidden = self.journal.within(folder.id), self.journal.owned()
        written = {shown_name(draft.name): draft.as_file() for draft in drafts}
        yield from written.items()
        self.snapshots.wait(_SNAPSHOT_WAIT)
        for name, file in self.listings.entries(folder.id):
            if file.id not in hidden and name not in written:
                yield name, file

    def way(self, path: Names) -> list[File]:
        """The folders from My Drive down to the one at `path`. Raises as `folder`."""
        way = self.ways.to(path, True)
        if not way[-1].is_folder:
            raise NotAFolder(f"{_said(path)} on the drive is a file.", "Name a folder.")
        return way

    def listing(self, path: Names, way: Sequence[File] | None = None) -> dict[str, File]:
        """What is in a folder, shortcuts followed, sorted by the name it is shown under. Raises as `folder`.

        `way` are the folders from My Drive down to `path`, where they are known.
        """
        way = way or self.way(path)
        found = dict(sorted(self.entries(path, way[-1]), key=itemgetter(0)))
        shortcuts = [(name, file) for name, file in found.items() if file.mime_type == SHORTCUT]
        self.ways.learn_targets([file.target for _, file in shortcuts])
        found |= {name: self.ways.followed(file) for name, file in shortcuts}
        # A shortcut to a folder that leads here would go round and round.
        passed = {folder.id for folder in way}
        return {name: file for name, file in found.items() if file.id not in passed}

    def below(self, path: Names, way: Sequence[File] | None = None) -> Iterator[tuple[Names, File]]:
        """All that lies below a folder, each folder before what is in it; else as `listing`."""
        way = way or self.way(path)
        for name, file in self.listing(path, way).items():
            yield (*path, name), file
            if file.is_folder:
                yield from self.below((*path, name), [*way, file])

    def link(self, shortcut: File) -> str:
        """Where a shortcut leads, as a path from My Drive's own folder in a mount. Raises `NotFound`."""
        target = self.ways.target(shortcut.target)
        return f"{TARGETS}/{target.id}/{names.shown(target)}"

    def refreshed(self, file: File) -> File:
        """That file as it is on the drive now."""
        return self.ways.fresh(file.id)

    def current(self, file: File) -> tuple[File, Draft | None]:
        """An open file as it is known to be by now, and what is being written in its place, with one holder more."""
        draft = self.journal.hold_of(file.id)
        return (draft.as_file(), draft) if draft is not None else (self.index.get(file.id) or file, None)

    def known(self) -> Known:
        """Figures for who wants to know how much is known, and how sure it is."""
        count, folders = self.index.count()
        return Known(count, folders, self.following.age(), self.index.fact("trouble") or "")

    def subscribe(self, callback: Callable[[Sequence[Names] | None], None]) -> Callable[[], None]:
        """Have `callback` called with the paths whose file others changed, made or took away; returns its end.

        With None it may be any. It is called on a thread of its own and may block. A path names the place as it is
        shown, whether there is a file by now or not; what this process does itself is not told.
        """

        def told(touched: Sequence[Touched] | None) -> None:
            if touched is None:
                callback(None)
                return
            folders = {one.parent: self.index.way_to(one.parent, self.root.id) for one in touched if one.parent}
            paths = {(*way, one.shown) for one in touched if (way := folders.get(one.parent)) is not None}
            if paths:
                callback(sorted(paths))

        return self.following.subscribe(told)

    def save_snapshot(self) -> None:
        """Keep what is known for the next machine, where that is worth it; what hinders it is only logged."""
        try:
            if self.snapshots.is_worth_saving():
                self.snapshots.save()
        except HaversackError as error:
            _log.warning("What is known of the drive is not kept for the next session: %s", error)

    def quota(self) -> Quota:
        now = time.monotonic()
        if now - self._quota[0] > _QUOTA_TRUST:
            self._quota = (now, wait(self.api.about()))
        return self._quota[1]

    # Bytes

    def read(self, file: File, offset: int, size: int) -> bytes:
        """Bytes of a file that is on the drive. Raises `IntegrityError` when it changed: look at it again."""
        check_has_bytes(file)
        return self.content.read(file, offset, size)

    def find_bytes(self, file: File, offset: int, size: int) -> bytes | Extent:
        """As `read`, or where on this machine those bytes lie."""
        check_has_bytes(file)
        return self.content.find(file, offset, size)

    def draft_at(self, path: Names, folder: File | None = None) -> Draft | None:
        """What is being written there, with one holder more, so that it stays; the caller releases it.

        `folder` is the one above it, where that is known.
        """
        if not path:
            return None
        parent = (folder or self.folder(path[:-1])).id
        for name in names.meant(path[-1]):
            if (draft := self.journal.hold_at(parent, name)) is not None:
                return draft
        return None

    def open_draft(self, path: Names, *, truncate: bool, exclusive: bool = False) -> Draft:
        """Begin to write a file: its present bytes, or none with `truncate`; a new file when there is none.

        The caller releases the draft. Raises `AlreadyExists` with `exclusive`, `IsAFolder`, and as `folder`.
        """
        if not path:
            raise IsAFolder("My Drive is a folder.", "Name a file in it.")
        parent = self.folder(path[:-1])
        while True:
            if (draft := self.draft_at(path)) is not None:
                if exclusive:
                    self.journal.release(draft)
                    raise _taken(path)
                if truncate:
                    self.journal.truncate(draft, 0)
                return draft
            there = self._child(parent.id, path[-1])
            if there is None:
                return self.journal.open(parent.id, path[-1], None, None)
            # What is shown under a number gets that name on the drive too, so that it keeps it.
            name = there.name if names.shown(there) == path[-1] else path[-1]
            if there.mime_type == SHORTCUT:
                there = self.ways.target(there.target)
                name = there.name
            if there.id.startswith("draft:"):
                continue  # begun by somebody else just now
            if there.is_folder:
                raise IsAFolder(f"{_said(path)} on the drive is a folder.", "Name a file.")
            if exclusive:
                raise _taken(path)
            check_has_bytes(there)
            return self.journal.open(there.parent, name, there, None if truncate else self._filler(there))

    def draft_of(self, file: File) -> Draft:
        """Begin to write a file that is open, whatever it is called by now. The caller releases the draft."""
        file, draft = self.current(file)
        return draft or self.journal.open(file.parent, file.name, file, self._filler(file))

    def draft_apart(self, file: File) -> Draft:
        """Begin to write a file that was deleted while it is open (see `Journal.apart`). The caller releases it."""
        return self.journal.apart(file, self._filler(file))

    # Changing

    def make_folder(self, path: Names, *, only: bool = False) -> File:
        """Raises `AlreadyExists`, and as `folder` for where it would stand.

        A drive takes two folders of one name. With `only` one that was made at the same moment and is not the oldest
        goes again, for a call more, so that those who made them all go on in one.
        """
        if not path:
            raise _taken(path)
        parent = self.folder(path[:-1])
        if self._child(parent.id, path[-1]) is not None:
            raise _taken(path)
        made = wait(self.api.create_folder(parent.id, path[-1]))
        if only:
            there = [file for file in wait(self.api.lookup(parent.id, path[-1])) if file.is_folder]
            if min([made, *there], key=lambda file: (file.created, file.id)).id != made.id:
                wait(self.api.trash(made.id))
                self.index.doubt(parent.id)
                raise _taken(path)
        self.index.put_empty(made)
        return made

    def remove(self, path: Names) -> None:
        """Put a file into the trash, written to the drive or not. Raises `IsAFolder`, and as `find`."""
        if (draft := self.draft_at(path)) is not None:
            gone = self.journal.remove(draft)
            self.journal.release(draft)
            for file_id in gone:
                self._trash(file_id)
            return
        file = self.find(path, follow=False)
        if file.is_folder:
            raise IsAFolder(f"{_said(path)} on the drive is a folder.", "Remove it as a folder.")
        self._trash(file.id)

    def remove_folder(self, path: Names, *, recursive: bool = False) -> None:
        """Trash a folder; only an empty one unless `recursive`. Raises `FolderNotEmpty`, and as `folder`."""
        if not path:
            raise Forbidden("My Drive itself cannot be removed.", "Name something in it.")
        folder = self.find(path, follow=False)
        if recursive and folder.mime_type == SHORTCUT:
            self._trash(folder.id)
            return
        if not folder.is_folder:
            raise NotAFolder(f"{_said(path)} on the drive is a file.", "Name a folder.")
        if not recursive:
            self.following.refresh()
            if self._holds_something(path):
                raise FolderNotEmpty(f"{_said(path)} on the drive is not empty.", "Remove what is in it first.")
        for draft in self.journal.within(folder.id):
            self.journal.remove(draft)
        self._trash(folder.id)

    def rename(self, old: Names, new: Names) -> None:
        """Rename or move. A file takes the place of a file, a folder that of an empty one; those go to the trash."""
        if not old or not new:
            raise Forbidden("My Drive itself cannot be renamed.", "Name something in it.")
        source, parent = self.find(old, follow=False), self.folder(new[:-1])
        if old == new:
            return
        if new[: len(old)] == old:
            raise Forbidden(f"{_said(old)} cannot be moved into itself.", "Choose another place.")
        over = self._replaceable(source, new)
        if (draft := self.draft_at(old)) is not None:
            self._rename_draft(draft, parent, new, over)
            return
        for file_id in self._cleared(self.draft_at(new), over):
            self._trash(file_id)
        self.index.put(wait(self.api.update(source, name=_name_for(source, over, new), parent=parent.id)))

    def copy(self, old: Names, new: Names) -> None:
        """Copy one file on the drive itself. Raises `IsAFolder`, and as `find` and `folder`."""
        source, parent = self.find(old), self.folder(new[:-1])
        if source.is_folder:
            raise IsAFolder(f"{_said(old)} on the drive is a folder.", "Copy its files.")
        over = self._replaceable(source, new)
        if (draft := self.draft_at(old)) is not None:
            try:
                self.journal.commit(draft)
                self.journal.wait(draft)
            finally:
                self.journal.release(draft)
            source = self.find(old)
        copied = wait(self.api.copy(source, parent.id, names.kept(source, new[-1])))
        for file_id in self._cleared(self.draft_at(new), over):
            self._trash(file_id)
        self.index.put(copied)

    def set_modified(self, path: Names, modified: float) -> None:
        """`modified` in seconds since 1970."""
        if (draft := self.draft_at(path)) is not None:
            waits = self.journal.set_modified(draft, modified)
            self.journal.release(draft)
            if waits:
                return
        file = self.find(path)
        if path:
            self.index.put(wait(self.api.update(file, modified=modified)))

    # Files of our own

    def deliver(self, source: Path, path: Names, mark: str, file_id: str | None = None) -> File:
        """A new file on the drive with a local file's bytes, without a stop in the journal, marked as haversack's.

        With `file_id`, an id from `api.new_id` that several may have been told, only the first to use it succeeds.
        Raises `AlreadyExists` when the id or the name is taken, and as `folder` for where the file would lie.
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
            # A drive takes two files of one name; of two that make one at once, whoever sees the other yields.
            wait(self.api.delete(made.id))
            raise _taken(path)
        self.index.put(made)
        return made

    def purge(self, path: Names) -> None:
        """Delete a file for good that `deliver` made. Raises `Forbidden` for any other, and as `find`."""
        file = self.find(path, follow=False)
        if file.is_folder or MARK not in wait(self.api.marks(file.id)):
            raise Forbidden(f"{_said(path)} on the drive was not made by haversack.", "Move it to the trash instead.")
        wait(self.api.delete(file.id))
        self.index.forget(file.id)

    # The tree's own

    def _child(self, parent: str, shown: str) -> File | None:
        return self.ways.child(parent, shown)

    def _holds_something(self, path: Names) -> bool:
        return next(self.entries(path), None) is not None

    def _filler(self, file: File) -> Callable[[int], None]:
        def fill(descriptor: int) -> None:
            try:
                self.content.copy_to(file, descriptor)
            except IntegrityError:
                fresh = self.refreshed(file)
                os.ftruncate(descriptor, 0)
                self.content.copy_to(fresh, descriptor)

        return fill

    def _replaceable(self, source: File, new: Names) -> File | None:
        """What stands at `new` and may be replaced by `source`."""
        try:
            over = self.find(new, follow=False)
        except NotFound:
            return None
        if over.is_folder and not source.is_folder:
            raise IsAFolder(f"{_said(new)} on the drive is a folder.", "Name a file.")
        if source.is_folder and not over.is_folder:
            raise NotAFolder(f"{_said(new)} on the drive is a file.", "Name a folder.")
        if over.is_folder and self._holds_something(new):
            raise FolderNotEmpty(f"{_said(new)} on the drive is not empty.", "Remove what is in it first.")
        return over

    def _rename_draft(self, draft: Draft, parent: File, new: Names, over: File | None) -> None:
        """A file that is on the drive is renamed there at once; one that is not gets there under its new name."""
        name = _name_for(draft.as_file(), over, new)
        try:
            if draft.exists and draft.file_id is not None:
                for file_id in self._cleared(self.draft_at(new), over):
                    self._trash(file_id)
                over = None
                present = draft.uploaded or wait(self.api.get(draft.file_id))
                draft.uploaded = wait(self.api.update(present, name=name, parent=parent.id))
                self.index.put(draft.uploaded)
            if over is not None and over.id.startswith("draft:"):
                over = None
            if over is not None and not _has_bytes(over):
                self._trash(over.id)
                over = None
            self.journal.move(draft, parent.id, name, over)
        finally:
            self.journal.release(draft)

    def _cleared(self, there: Draft | None, over: File | None) -> list[str]:
        """The ids to be trashed where something else has taken a name."""
        gone = [over.id] if over is not None and not over.id.startswith("draft:") else []
        if there is not None:
            gone += self.journal.remove(there)
            self.journal.release(there)
        return sorted(set(gone))

    def _trash(self, file_id: str) -> None:
        wait(self.api.trash(file_id))
        self.index.forget(file_id)


def split(path: str) -> Names:
    """`a/b//c/` as names; `.` and `..` lead where they do in any path, but never above My Drive."""
    names: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del names[-1:]
        elif part not in ("", "."):
            names.append(part)
    return tuple(names)


def _has_bytes(file: File) -> bool:
    return not names.is_document(file) and file.mime_type != SHORTCUT


def check_has_bytes(file: File) -> None:
    """Raise `Forbidden` for what has no bytes to read, such as Google's own documents and shortcuts."""
    if names.is_document(file):
        raise Forbidden(f"{file.name} is a Google document without bytes of its own.", "Export it in the browser.")
    if file.mime_type == SHORTCUT:
        raise Forbidden(f"What the shortcut {file.name} leads to is gone, or not for you.", "Remove the shortcut.")


def _name_for(source: File, over: File | None, new: Names) -> str:
    """What `source` is to be called on the drive so that it is shown at `new`, in the place of `over`."""
    if over is not None and names.shown(over) == new[-1] and not names.is_document(over):
        return over.name
    return names.kept(source, new[-1])


def _said(path: Names) -> str:
    return "/".join(path) or ROOT


def _taken(path: Names) -> AlreadyExists:
    return AlreadyExists(f"{_said(path)} is on the drive already.", "Choose another name.", status=409)
