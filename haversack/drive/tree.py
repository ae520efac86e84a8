"""The drive as one tree of paths: what is on it, what was written and is not on it yet, and what is kept of it here.

The file system for Python and the mount both stand on this. A path is walked by looking each name up, never by
listing. Drive allows two files of one name in a folder, and names that no file system allows: of several the newest is
meant, and `/` is shown as `／` and `.` and `..` as `．` and `．．`, so that no name leaves its folder.

Deleting means the trash. Folders are made, moved and trashed on the drive at once; a file's bytes go through the
journal.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from haversack import credentials, settings
from haversack.credentials import Server
from haversack.drive.api import FOLDER, DriveApi, File, Quota, Upload
from haversack.drive.content import Content
from haversack.drive.index import Index
from haversack.drive.journal import Draft, Journal
from haversack.errors import AlreadyExists, FolderNotEmpty, Forbidden, IntegrityError, IsAFolder, NotAFolder, NotFound
from haversack.http import Http, wait
from haversack.settings import Settings

Names = tuple[str, ...]
"""The names from My Drive down; () is My Drive itself."""
ROOT, ALIAS = "My Drive", "MyDrive"
"""What Colab calls My Drive in a mount: the folder, and the link to it without a space."""

MARK = "haversack"
"""The key in `appProperties` of files that haversack made for itself, and may delete for good."""

_QUOTA_TRUST = 60.0
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
            _connected[key] = Drive(server, chosen.data, chosen.cache)
        return _connected[key]


class Drive:
    """One drive. Every method takes paths as tuples of names and may be called from any thread.

    All raise `ConnectionFailed` and `RemoteError` when the drive does not answer as it should.
    """

    def __init__(self, server: Server, data: Path, cache: Path) -> None:
        self.server = server
        # The first contact tells soon whether there is a drive at all; later calls are patient.
        root = wait(_root(server))
        # The id of My Drive tells drives and accounts apart, and stays when a hub comes back at another address.
        key = hashlib.sha256(root.id.encode()).hexdigest()[:16]
        self.api = DriveApi(server)
        self.index = Index(cache / "drives" / key)
        self.content = Content(cache / "drives" / key / "content", self.api)
        self.journal = Journal(data / "drives" / key, self.api, self.index.put, self.content.adopt)
        self.root = replace(root, name=ROOT, parent="")
        self._quota: tuple[float, Quota] | None = None

    # Looking

    def find(self, path: Names) -> File:
        """The file or folder there. Raises `NotFound`, and `NotAFolder` when a file stands in the way."""
        at = self.root
        for depth, name in enumerate(path):
            if not at.is_folder:
                raise NotAFolder(f"{_said(path[:depth])} on the drive is a file.", "Give a path through folders.")
            found = self._child(at.id, name)
            if found is None:
                raise NotFound(f"There is no {_said(path[: depth + 1])} on the drive.", "Check the name.", status=404)
            at = found
        return at

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

    def listing(self, path: Names) -> dict[str, File]:
        """What is in a folder, by the name it is shown under. Raises as `folder`."""
        folder = self.folder(path)
        # Drafts first: one that gets to the drive meanwhile is then seen twice rather than never.
        drafts, hidden = self.journal.within(folder.id), self.journal.owned()
        files = self.index.listing(folder.id)
        if files is None:
            files = wait(self._listed(folder.id))
        shown: dict[str, File] = {}
        for file in sorted(files, key=lambda file: (file.modified, file.id)):
            if file.id not in hidden:
                shown[shown_name(file.name)] = file
        for draft in drafts:
            shown[shown_name(draft.name)] = draft.as_file()
        return dict(sorted(shown.items()))

    def refreshed(self, file: File) -> File:
        """That file as it is on the drive now."""
        fresh = wait(self.api.get(file.id))
        self.index.put(fresh)
        return fresh

    def current(self, file: File) -> tuple[File, Draft | None]:
        """An open file as it is known to be by now, and what is being written in its place, with one holder more."""
        draft = self.journal.hold_of(file.id)
        return (draft.as_file(), draft) if draft is not None else (self.index.get(file.id) or file, None)

    def quota(self) -> Quota:
        now = time.monotonic()
        if self._quota is None or now - self._quota[0] > _QUOTA_TRUST:
            self._quota = (now, wait(self.api.about()))
        return self._quota[1]

    # Bytes

    def read(self, file: File, offset: int, size: int) -> bytes:
        """Bytes of a file that is on the drive. Raises `IntegrityError` when it changed: look at it again."""
        check_has_bytes(file)
        return self.content.read(file, offset, size)

    def draft_at(self, path: Names) -> Draft | None:
        """What is being written there, with one holder more, so that it stays; the caller releases it."""
        if not path:
            return None
        parent = self.folder(path[:-1]).id
        for name in _candidates(path[-1]):
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
            if there.id.startswith("draft:"):
                continue  # begun by somebody else just now
            if there.is_folder:
                raise IsAFolder(f"{_said(path)} on the drive is a folder.", "Name a file.")
            if exclusive:
                raise _taken(path)
            check_has_bytes(there)
            return self.journal.open(parent.id, there.name, there, None if truncate else self._filler(there))

    def draft_of(self, file: File) -> Draft:
        """Begin to write a file that is open, whatever it is called by now. The caller releases the draft."""
        file, draft = self.current(file)
        return draft or self.journal.open(file.parent, file.name, file, self._filler(file))

    # Changing

    def make_folder(self, path: Names) -> File:
        """Raises `AlreadyExists`, and as `folder` for where it would stand."""
        if not path:
            raise _taken(path)
        parent = self.folder(path[:-1])
        if self._child(parent.id, path[-1]) is not None:
            raise _taken(path)
        made = wait(self.api.create_folder(parent.id, path[-1]))
        self.index.put(made)
        self.index.end_listing(made.id, time.time())
        return made

    def remove(self, path: Names) -> None:
        """Put a file into the trash, written to the drive or not. Raises `IsAFolder`, and as `find`."""
        if (draft := self.draft_at(path)) is not None:
            gone = self.journal.remove(draft)
            self.journal.release(draft)
            for file_id in gone:
                self._trash(file_id)
            return
        file = self.find(path)
        if file.is_folder:
            raise IsAFolder(f"{_said(path)} on the drive is a folder.", "Remove it as a folder.")
        self._trash(file.id)

    def remove_folder(self, path: Names, *, recursive: bool = False) -> None:
        """Trash a folder; only an empty one unless `recursive`. Raises `FolderNotEmpty`, and as `folder`."""
        folder = self.folder(path)
        if not path:
            raise Forbidden("My Drive itself cannot be removed.", "Name something in it.")
        if not recursive:
            self.index.doubt(folder.id)
            if self.listing(path):
                raise FolderNotEmpty(f"{_said(path)} on the drive is not empty.", "Remove what is in it first.")
        for draft in self.journal.within(folder.id):
            self.journal.remove(draft)
        self._trash(folder.id)

    def rename(self, old: Names, new: Names) -> None:
        """Rename or move. A file takes the place of a file, a folder that of an empty one; those go to the trash."""
        if not old or not new:
            raise Forbidden("My Drive itself cannot be renamed.", "Name something in it.")
        source, parent = self.find(old), self.folder(new[:-1])
        if old == new:
            return
        if new[: len(old)] == old:
            raise Forbidden(f"{_said(old)} cannot be moved into itself.", "Choose another place.")
        over = self._replaceable(source, new)
        name = over.name if over is not None else new[-1]
        if (draft := self.draft_at(old)) is not None:
            self._rename_draft(draft, parent, name, over)
            return
        for file_id in self._cleared(self.draft_at(new), over):
            self._trash(file_id)
        self.index.put(wait(self.api.update(source, name=name, parent=parent.id)))

    def copy(self, old: Names, new: Names) -> None:
        """Copy one file on the drive itself. Raises `IsAFolder`, and as `find` and `folder`."""
        source, parent = self.find(old), self.folder(new[:-1])
        if source.is_folder:
            raise IsAFolder(f"{_said(old)} on the drive is a folder.", "Copy its files.")
        over = self._replaceable(source, new)
        if (draft := self.draft_at(old)) is not None:
            self.journal.commit(draft)
            self.journal.wait(draft)
            self.journal.release(draft)
            source = self.find(old)
        there = self.draft_at(new)
        copied = wait(self.api.copy(source, parent.id, new[-1]))
        self.index.put(copied)
        for file_id in self._cleared(there, over):
            self._trash(file_id)

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
        with open(source, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        status = source.stat()
        upload = Upload(
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
        file = self.find(path)
        if file.is_folder or MARK not in wait(self.api.marks(file.id)):
            raise Forbidden(f"{_said(path)} on the drive was not made by haversack.", "Move it to the trash instead.")
        wait(self.api.delete(file.id))
        self.index.forget(file.id)

    # The tree's own

    def _child(self, parent: str, shown: str) -> File | None:
        for name in _candidates(shown):
            if (draft := self.journal.at(parent, name)) is not None:
                return draft.as_file()
            found = self.index.lookup(parent, name)
            if found is None:
                found = wait(self.api.lookup(parent, name))
                self.index.put_lookup(parent, name, found)
            hidden = self.journal.owned()
            for file in found:
                if file.id not in hidden:
                    return file
        return None

    async def _listed(self, parent: str) -> list[File]:
        started = time.time()
        files, page = [], []
        async for file in self.api.list(parent):
            files.append(file)
            page.append(file)
            if len(page) == 1000:
                self.index.put(*page)
                page = []
        self.index.put(*page)
        self.index.end_listing(parent, started)
        return files

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
            over = self.find(new)
        except NotFound:
            return None
        if over.is_folder and not source.is_folder:
            raise IsAFolder(f"{_said(new)} on the drive is a folder.", "Name a file.")
        if source.is_folder and not over.is_folder:
            raise NotAFolder(f"{_said(new)} on the drive is a file.", "Name a folder.")
        if over.is_folder and self.listing(new):
            raise FolderNotEmpty(f"{_said(new)} on the drive is not empty.", "Remove what is in it first.")
        return over

    def _rename_draft(self, draft: Draft, parent: File, name: str, over: File | None) -> None:
        """A file that is on the drive is renamed there at once; one that is not gets there under its new name."""
        if over is not None and over.id.startswith("draft:"):
            over = None
        if draft.exists and draft.file_id is not None:
            if over is not None:
                self._trash(over.id)
                over = None
            present = draft.uploaded or wait(self.api.get(draft.file_id))
            draft.uploaded = wait(self.api.update(present, name=name, parent=parent.id))
            self.index.put(draft.uploaded)
        self.journal.move(draft, parent.id, name, over)
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
    """`a/b//c/` as names."""
    return tuple(part for part in path.split("/") if part)


def shown_name(name: str) -> str:
    """A name as a file system can carry it."""
    if name in (".", ".."):
        return name.replace(".", "．")
    return name.replace("/", "／").replace("\0", "␀") or "␣"


def check_has_bytes(file: File) -> None:
    """Raise `Forbidden` for what has no bytes to read, such as Google's own documents and shortcuts."""
    if file.mime_type.startswith("application/vnd.google-apps.") and file.mime_type != FOLDER:
        raise Forbidden(f"{file.name} is a Google document without bytes of its own.", "Export it in the browser.")


def _candidates(shown: str) -> list[str]:
    """The names on the drive that are shown like this, the likeliest first."""
    names = [shown]
    if shown in ("．", "．．"):
        names.append(shown.replace("．", "."))
    if "／" in shown:
        names.append(shown.replace("／", "/"))
    return names


def _said(path: Names) -> str:
    return "/".join(path) or ROOT


def _taken(path: Names) -> AlreadyExists:
    return AlreadyExists(f"{_said(path)} is on the drive already.", "Choose another name.", status=409)


def check(server: Server) -> None:
    """Raise `SignInError`, `ConnectionFailed` or `RemoteError` when no drive answers there."""
    wait(_root(server))


async def _root(server: Server) -> File:
    http = Http(server, attempts=3)
    try:
        return await DriveApi(server, http).get("root")
    finally:
        await http.close()
