"""The drive's files and folders: reads and changes by file id, over a plain folder that users may change at any time.

    index     the table of files                disk      reconciles it with the disk, which is the truth
    rescan    the same for the whole tree       tree      reads and changes

Each change through the API reaches the disk by one rename. `recover` completes at the next start what a killed hub left
unfinished. Files in the trash are at `.hub/trash/<id>`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from haversack.hub import names
from haversack.hub.content import Digests, Staged, digests, rename_exclusive
from haversack.hub.disk import ComparedFolders, Disk
from haversack.hub.documents import SUFFIXES
from haversack.hub.index import COLUMNS, HubChange, HubFile, HubIndex, file_from_row, new_id
from haversack.hub.query import Query
from haversack.hub.records import Records
from haversack.hub.refusal import Refusal, invalid, not_found
from haversack.hub.rescan import Rescan

_MAX_DEPTH = 100  # Drive's own limit of nested folders


class Tree:
    """The drive's files and folders; the root folder, My Drive, is `folder` on disk. Thread-safe.

    Files that users changed by hand are compared with the disk before a method uses them. A "row" is a `HubFile`.

    Args:
        folder: My Drive on disk.
        hub: the folder for the trash and for files that are being deleted.
        records: the database.
        quota: the limit for the files' total size in bytes, the trash included; None for no limit but the disk.
    """

    def __init__(self, folder: Path, hub: Path, records: Records, quota: int | None = None) -> None:
        self.folder = folder
        self.records = records
        self.quota = quota
        self._trash = hub / "trash"
        self._doomed = hub / "doomed"
        for made in (folder, self._trash, self._doomed):
            made.mkdir(parents=True, exist_ok=True)
        self.index = HubIndex(records)
        self.disk = Disk(self.index, folder, self._trash)
        self.watch = Rescan(self.disk)
        self.root = self.index.root
        self.recover()

    # Reading

    def get(self, file_id: str) -> HubFile:
        """Return a file's row, compared with the disk. Raises `Refusal` (404) if the file does not exist."""
        return self.locate(file_id)[0]

    def locate(self, file_id: str) -> tuple[HubFile, Path]:
        """Return a file's row, compared with the disk, and its path. Raises `Refusal` (404) if it does not exist."""
        with self.records.exclusive():
            return self.disk.verify(self.index.require(file_id), {})

    def search(
        self, query: Query, order: str, after: str, values: tuple[Any, ...], limit: int
    ) -> tuple[list[HubFile], HubFile | None]:
        """Return a page of the rows that match `query`, and the row to continue after, or None if the page is the last.

        Args:
            query: the parsed search.
            order: an SQL ORDER BY list.
            after: an SQL condition for the rows that follow the previous page.
            values: the parameters of `after`.
            limit: the length of the page; files that were deleted by hand can make it shorter.

        Raises `Refusal`: 404 if no folder that the query names as a parent exists, 400 for a number that SQLite cannot
        hold.
        """
        compared = self._refresh(query)
        # The subquery sorts row numbers only, not whole rows.
        found = f"SELECT seq FROM files WHERE {query.sql} AND {after} AND parent IS NOT NULL ORDER BY {order} LIMIT ?"
        sql = f"SELECT {COLUMNS} FROM files WHERE seq IN ({found}) ORDER BY {order}"
        try:
            rows = self.records.search(sql, *query.values, *values, limit + 1)
        except OverflowError:
            raise invalid("A number in the query is too large.", "q") from None
        files = [file_from_row(row) for row in rows[:limit]]
        return self.disk.verify_all(files, compared), files[-1] if len(rows) > limit else None

    def changes(self, since: int, limit: int) -> list[HubChange]:
        """Return up to `limit` changes with numbers of at least `since`, oldest first; of each file only the latest.

        Waits up to a quarter of a second for changes by hand to be found; later ones appear in a later call.
        """
        self.watch.refresh()
        return self.index.changes(since, limit)

    def next_change(self) -> int:
        """Return the start page token of the changes feed: a number above that of every change so far.

        Waits up to a quarter of a second for changes by hand to be found.
        """
        self.watch.refresh()
        return self.index.last_change() + 1

    def with_digests(self, file: HubFile, *, sha: bool) -> HubFile:
        """Return a file's row with its MD5, with `sha` also its SHA-1 and SHA-256; compute and store unknown ones.

        A hash stays None if the content cannot be read, or changes while it is hashed.
        """
        if file.folder or (file.md5 and (file.sha256 or not sha)):
            return file
        try:
            file, path = self.locate(file.id)
            if not (file.md5 and (file.sha256 or not sha)):
                found = digests(path, sha=sha)
                now = path.lstat()
                if (now.st_size, now.st_mtime_ns, now.st_ino) == (file.size, file.modified, file.inode):
                    self._save_digests(file, found)
        except (Refusal, FileNotFoundError, PermissionError):
            return file
        return self.index.find(file.id) or file

    def usage(self) -> tuple[int, int]:
        """Return the total size in bytes of all files, those in the trash included, and of those in the trash alone."""
        return self.index.usage()

    # Changing

    def check_unused(self, file_id: str) -> None:
        """Raise `Refusal` (409) if a file has this id, or had it before it was deleted; ids are never reused."""
        self.index.check_unused(file_id)

    def check_quota(self, more: int) -> None:
        """Raise `Refusal` (403) if the files' total size and `more` additional bytes exceed the quota."""
        if self.quota is not None and more > 0 and self.usage()[0] + more > self.quota:
            raise Refusal(403, "storageQuotaExceeded", "The user's Drive storage quota has been exceeded.")

    def add(self, parent_id: str, name: str, mime: str, staged: Staged | None, metadata: Mapping[str, Any]) -> HubFile:
        """Create a file from staged content, or a folder if `staged` is None; after a crash it is complete or absent.

        Args:
            parent_id: the id of its folder.
            name: its name; another file may have the same.
            mime: its MIME type.
            staged: the content; its temporary file is renamed into the folder.
            metadata: optional `id`, `created` and `modified` (ns since 1970), `target` (the id that a shortcut points
                to), `starred`, `description`, `properties` and `app_properties`.

        Returns its row. Raises `Refusal`: 404 if the parent does not exist, 403 if the parent is not a folder or is
        nested deeper than 100, or the quota is exceeded, 409 for an id in use.
        """
        with self.records.exclusive():
            parent, folder = self._open_folder(parent_id)
            file_id = str(metadata.get("id") or new_id())
            self.check_unused(file_id)
            self.check_quota(staged.size if staged else 0)
            disk = self._free_name(parent, folder, name, mime)
            now = time.time_ns()
            self.index.insert(
                id=file_id, parent=parent.id, name=name, disk=disk, mime=mime, folder=staged is None,
                size=staged.size if staged else 0, modified=metadata.get("modified") or now, inode=0,
                md5=staged.md5 if staged else None, created=metadata.get("created") or now, trashed=parent.trashed,
                starred=metadata.get("starred", False), description=metadata.get("description"),
                target=metadata.get("target"),
                app_properties=_merge_properties({}, metadata.get("app_properties")),
                properties=_merge_properties({}, metadata.get("properties")),
            )  # fmt: skip
            try:
                with self.disk.own_change(parent, folder):
                    self._place(staged, folder, disk, metadata.get("modified"))
            except BaseException:
                self.records.write("DELETE FROM files WHERE id = ?", file_id)
                raise
            status = (folder / os.fsdecode(disk)).lstat()
            self.index.commit_new(file_id, status.st_mtime_ns, status.st_ino)
            return self.index.require(file_id)

    def replace(self, file_id: str, staged: Staged, mime: str | None, modified: int | None) -> HubFile:
        """Replace a file's content atomically, and return its row; readers see the old content or the new one.

        Args:
            file_id: the file.
            staged: the new content; its temporary file is renamed over the old one.
            mime: the new MIME type; None keeps the old one.
            modified: the new mtime in nanoseconds since 1970; None for the time at which the content was received.

        Raises `Refusal`: 404 if the file does not exist, 400 if it is a folder, 403 if the quota is exceeded.
        """
        with self.records.exclusive():
            file, path = self.locate(file_id)
            if file.folder:
                raise invalid("A folder has no content.", "fileId")
            self.check_quota(staged.size - file.size)
            if modified is not None:
                os.utime(staged.path, ns=(modified, modified))
            shutil.copymode(path, staged.path)
            with self._own_change_around(file, path):
                os.replace(staged.path, path)
            status = path.lstat()
            self.index.update(
                file.id, size=staged.size, md5=staged.md5, sha1=None, sha256=None, modified=status.st_mtime_ns,
                inode=status.st_ino, mime=mime or file.mime, revision=file.revision + 1,
            )  # fmt: skip
            return self.index.require(file.id)

    def revise(self, file_id: str, metadata: Mapping[str, Any], parent_id: str | None = None) -> HubFile:
        """Change a file's metadata, move it to the folder `parent_id`, trash it or restore it; return its row.

        `metadata` can hold `name`, `mime`, `modified` (ns since 1970), `starred`, `description`, `trashed`,
        `properties` and `app_properties`; a property with the value None is removed. A file is restored to its folder,
        or to My Drive if that is gone. Raises `Refusal`: 404 if the file or folder does not exist, 403 for a rename,
        move or removal of My Drive itself, a new parent that is not a folder or is nested deeper than 100, or a move of
        a folder into itself.
        """
        with self.records.exclusive():
            file, path = self.locate(file_id)
            self._protect_root(file, metadata, parent_id)
            if "name" in metadata or (parent_id is not None and parent_id != file.parent):
                file, path = self._move(file, path, str(metadata.get("name", file.name)), parent_id or str(file.parent))
            if metadata.get("modified") is not None:
                os.utime(path, ns=(metadata["modified"], metadata["modified"]))
            self.index.update(file.id, **_metadata_columns(file, metadata), modified=path.lstat().st_mtime_ns)
            if "trashed" in metadata and metadata["trashed"] != file.binned:
                self._bin(file, path) if metadata["trashed"] else self._unbin(file)
            return self.index.require(file.id)

    def delete(self, file_id: str) -> None:
        """Delete a file, or a folder with everything in it, permanently.

        Raises `Refusal`: 404 if the file does not exist, 403 for My Drive itself.
        """
        with self.records.exclusive():
            file, path = self.locate(file_id)
            self._protect_root(file, {"delete": True}, None)
            doomed = self._doomed / file.id
            with self._own_change_around(file, path):
                os.rename(path, doomed)
            self.index.remove(file.id)
        _delete_from_disk(doomed)

    def empty_trash(self) -> None:
        """Delete every file in the trash permanently."""
        for file in self.index.all_binned():
            try:
                self.delete(file.id)
            except Refusal as refusal:
                if refusal.status != 404:
                    raise

    def recover(self) -> None:
        """Complete the moves to the trash and the deletions that a killed hub left unfinished.

        Rows of files that it did not finish creating are deleted. The constructor calls this.
        """
        with self.records.exclusive():
            self.index.delete_uncommitted()
            for entry in self._trash.iterdir():
                file = self.index.find(entry.name)
                if file is not None and not file.binned:
                    with self.records.transaction():
                        self._mark_binned(file)
            for file in self.index.all_binned():
                if not os.path.lexists(self._trash / file.id):
                    self._complete_binning(file)
            for entry in self._doomed.iterdir():
                if self.index.find(entry.name) is not None:
                    self.index.remove(entry.name)
                _delete_from_disk(entry)

    def close(self) -> None:
        """Stop the background rescan and wait for it."""
        self.watch.close()

    def _refresh(self, query: Query) -> ComparedFolders:
        """Compare the rows that a query can match with the disk; return the folders compared."""
        compared: ComparedFolders = {}
        if query.parents is None:
            self.watch.refresh()
            return compared
        known = [file for parent in query.parents if (file := self.index.find(parent)) is not None]
        if not known:
            raise not_found(".")
        for parent in known:
            try:
                with self.records.exclusive():
                    file, path = self.disk.verify(parent, compared)
                    if query.name is not None and file.folder:
                        self.disk.compare_name(file, path, query.name)
                if query.name is None and file.folder:
                    self.disk.scan(file, path, contents=query.uses_times)
            except Refusal:
                if len(known) == 1:
                    raise
        return compared

    def _save_digests(self, file: HubFile, found: Digests) -> None:
        """Store computed hashes, unless the file changed while they were computed."""
        known = {
            name: value for name, value in (("md5", found.md5), ("sha1", found.sha1), ("sha256", found.sha256)) if value
        }
        with self.records.exclusive():
            now = self.index.find(file.id)
            if now is not None and (now.modified, now.inode, now.size) == (file.modified, file.inode, file.size):
                self.index.set_unversioned(file.id, **known)

    def _open_folder(self, folder_id: str) -> tuple[HubFile, Path]:
        """Return a folder for new entries, and its path. Raises `Refusal` if it is not a folder or nested too deep."""
        file, path = self.locate(folder_id)
        if not file.folder:
            raise Refusal(403, "parentNotAFolder", "The specified parent is not a folder.", where="parents")
        depth, above = 1, file
        while above.parent is not None:
            depth, above = depth + 1, self.index.require(above.parent)
        if depth > _MAX_DEPTH:
            raise Refusal(
                403, "myDriveHierarchyDepthLimitExceeded", f"Folders can be nested at most {_MAX_DEPTH} deep."
            )
        return file, path

    def _own_change_around(self, file: HubFile, path: Path) -> AbstractContextManager[None]:
        """Wrap a change to a file's directory entry in `own_change`.

        A file in the trash needs none, because the trash folder is never scanned.
        """
        return nullcontext() if file.binned else self.disk.own_change(self.index.require(str(file.parent)), path.parent)

    def _free_name(self, parent: HubFile, folder: Path, name: str, mime: str) -> bytes:
        def is_taken(disk: bytes) -> bool:
            return os.path.lexists(folder / os.fsdecode(disk)) or self.index.find_on_disk(parent.id, disk) is not None

        return names.free_name(name + SUFFIXES.get(mime, ""), is_taken)

    def _place(self, staged: Staged | None, folder: Path, disk: bytes, modified: int | None) -> None:
        """Create the folder, or rename the staged content to its place; never replace an existing entry."""
        target = folder / os.fsdecode(disk)
        if staged is None:
            target.mkdir()
        if modified is not None:
            os.utime(target if staged is None else staged.path, ns=(modified, modified))
        if staged is not None:
            rename_exclusive(staged.path, target)

    def _move(self, file: HubFile, path: Path, name: str, parent_id: str) -> tuple[HubFile, Path]:
        """Rename a file, move it, or both; return it and its new path."""
        parent, folder = self._open_folder(parent_id)
        above: HubFile | None = parent
        while above is not None:
            if above.id == file.id:
                raise Refusal(403, "cannotMoveIntoDescendant", "A folder cannot be moved into itself.")
            above = self.index.require(above.parent) if above.parent is not None else None
        with self.records.transaction():
            disk, suffix = file.disk, SUFFIXES.get(file.mime, "")
            if (
                file.binned
                or parent.id != file.parent
                or names.to_disk(name + suffix) != names.to_disk(file.name + suffix)
            ):
                # Not for an unchanged name in the same folder, which would count as taken.
                disk = self._free_name(parent, folder, name, file.mime)
            self.index.update(file.id, name=name, parent=parent.id, disk=disk)
            if not file.binned:
                target = folder / os.fsdecode(disk)
                if target != path:
                    with self._own_change_around(file, path), self.disk.own_change(parent, folder):
                        os.rename(path, target)
                path = target
                if parent.trashed != file.trashed:
                    self.index.set_trashed(file.id, parent.trashed)
        return self.index.require(file.id), path

    def _bin(self, file: HubFile, path: Path) -> None:
        """Move a file to the trash."""
        with self.records.transaction():
            self._mark_binned(file)
            with self._own_change_around(file, path):
                os.rename(path, self._trash / file.id)

    def _mark_binned(self, file: HubFile) -> None:
        self.index.update(file.id, binned=True, trashed_at=time.time_ns())
        self.index.set_trashed(file.id, True)

    def _complete_binning(self, file: HubFile) -> None:
        """Move a file that is marked as trashed into the trash folder; remove its row if it is not on disk."""
        try:
            parent, folder = self._open_folder(str(file.parent))
        except Refusal:
            return self.index.remove(file.id)
        if self.index.find_on_disk(parent.id, file.disk) is None and os.path.lexists(folder / os.fsdecode(file.disk)):
            os.rename(folder / os.fsdecode(file.disk), self._trash / file.id)
            return None
        return self.index.remove(file.id)

    def _unbin(self, file: HubFile) -> None:
        """Restore a file from the trash to its folder; to My Drive if that folder is gone."""
        try:
            parent, folder = self._open_folder(str(file.parent))
        except Refusal:
            parent, folder = self._open_folder(self.root)
        with self.records.transaction():
            disk = self._free_name(parent, folder, file.name, file.mime)
            self.index.update(file.id, binned=False, trashed_at=None, parent=parent.id, disk=disk)
            self.index.set_trashed(file.id, parent.trashed)
            with self.disk.own_change(parent, folder):
                os.rename(self._trash / file.id, folder / os.fsdecode(disk))

    def _protect_root(self, file: HubFile, metadata: Mapping[str, Any], parent_id: str | None) -> None:
        """Raise `Refusal` (403) for a change that My Drive itself does not allow."""
        if file.id == self.root and (parent_id or set(metadata) & {"name", "trashed", "delete", "mime"}):
            raise Refusal(403, "insufficientFilePermissions", "My Drive itself cannot be renamed, moved or removed.")


def _metadata_columns(file: HubFile, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that `metadata` sets without access to the disk."""
    columns = {key: metadata[key] for key in ("mime", "starred", "description") if key in metadata}
    if "app_properties" in metadata:
        columns["app_properties"] = _merge_properties(file.app_properties, metadata["app_properties"])
    if "properties" in metadata:
        columns["properties"] = _merge_properties(file.properties, metadata["properties"])
    return columns


def _merge_properties(before: Mapping[str, str], given: Mapping[str, str | None] | None) -> str:
    """Return merged properties as JSON; a value of None removes the property."""
    return json.dumps({key: value for key, value in {**before, **(given or {})}.items() if value is not None})


def _delete_from_disk(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
