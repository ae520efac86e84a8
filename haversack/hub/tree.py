"""The drive's files and folders: what calls find and do, over a plain tree that may be changed by hand at any time.

    index     the records                       disk      comparing them with the disk, which is the truth
    watch     the same for the whole tree       tree      finding and changing

Changes made through the API go to disk by one rename each, and `recover` finishes at the next start what a killed hub
had begun. What the trash holds lies in `.hub/trash/<id>`.
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
from haversack.hub.content import Digests, Staged, digests, rename_new
from haversack.hub.disk import Disk, Ways
from haversack.hub.documents import SUFFIXES
from haversack.hub.index import COLUMNS, FOLDER, HubChange, HubFile, HubIndex, as_file, mime_of, new_id
from haversack.hub.query import Query
from haversack.hub.records import Records
from haversack.hub.refusal import Refusal, invalid, not_found
from haversack.hub.watch import Rescan

__all__ = ["FOLDER", "HubChange", "HubFile", "Tree", "mime_of", "new_id"]

_DEEPEST = 100  # Drive's own limit of nesting


class Tree:
    """Files and folders below `folder`; `hub` is the folder for trash and files on their way in or out.

    `quota` is how many bytes they may have together, the trash included; None where only the disk limits them.
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

    # Finding

    def get(self, file_id: str) -> HubFile:
        """The file as it is now. Raises `Refusal` when there is none."""
        return self.locate(file_id)[0]

    def locate(self, file_id: str) -> tuple[HubFile, Path]:
        """The file as it is now, and where it lies."""
        with self.records.alone():
            return self.disk.verified(self.index.known(file_id), {})

    def search(
        self, query: Query, order: str, after: str, values: tuple[Any, ...], limit: int
    ) -> tuple[list[HubFile], HubFile | None]:
        """Up to `limit` files that match, in the SQL order `order`, behind the row that the SQL `after` says.

        Also returns the last file that was looked at, None when there are no more behind it.
        """
        ways = self._refreshed(query)
        # What has to be sorted is the numbers of the rows, not all that they hold.
        found = f"SELECT seq FROM files WHERE {query.sql} AND {after} AND parent IS NOT NULL ORDER BY {order} LIMIT ?"
        sql = f"SELECT {COLUMNS} FROM files WHERE seq IN ({found}) ORDER BY {order}"
        try:
            rows = self.records.search(sql, *query.values, *values, limit + 1)
        except OverflowError:
            raise invalid("A number in the query is too large.", "q") from None
        files = [as_file(row) for row in rows[:limit]]
        return self.disk.seen(files, ways), files[-1] if len(rows) > limit else None

    def changes(self, since: int, limit: int) -> list[HubChange]:
        """Up to `limit` changes from number `since` on, oldest first; one per file, its newest."""
        self.watch.look()
        return self.index.changes(since, limit)

    def next_change(self) -> int:
        """The number that the next change will have at the least."""
        self.watch.look()
        return self.index.last_change() + 1

    def hashed(self, file: HubFile, *, sha: bool) -> HubFile:
        """The file with its MD5, and with `sha` its SHA-1 and SHA-256, computed where they are not known yet.

        They stay None where the content cannot be read.
        """
        if file.folder or (file.md5 and (file.sha256 or not sha)):
            return file
        try:
            file, path = self.locate(file.id)
            if not (file.md5 and (file.sha256 or not sha)):
                found = digests(path, sha=sha)
                now = path.lstat()
                if (now.st_size, now.st_mtime_ns, now.st_ino) == (file.size, file.modified, file.inode):
                    self._keep(file, found)
        except (Refusal, FileNotFoundError, PermissionError):
            return file
        return self.index.stored(file.id) or file

    def used(self) -> tuple[int, int]:
        """Bytes of all files, and of those in the trash."""
        return self.index.used()

    # Changing

    def check_unused(self, file_id: str) -> None:
        """Refuse an id that a file has or had; ids are never given twice."""
        self.index.check_unused(file_id)

    def check_quota(self, more: int) -> None:
        """Refuse `more` bytes that the quota does not leave room for."""
        if self.quota is not None and more > 0 and self.used()[0] + more > self.quota:
            raise Refusal(403, "storageQuotaExceeded", "The user's Drive storage quota has been exceeded.")

    def add(self, parent_id: str, name: str, mime: str, staged: Staged | None, about: Mapping[str, Any]) -> HubFile:
        """A new file with the staged bytes, or a new folder where there are none; complete, or not there at all.

        `about` may hold `id`, `created`, `modified`, `target` and what `revise` takes. Raises `Refusal`.
        """
        with self.records.alone():
            parent, folder = self._open_folder(parent_id)
            file_id = str(about.get("id") or new_id())
            self.check_unused(file_id)
            self.check_quota(staged.size if staged else 0)
            disk = self._free_name(parent, folder, name, mime)
            now = time.time_ns()
            self.index.insert(
                id=file_id, parent=parent.id, name=name, disk=disk, mime=mime, folder=staged is None,
                size=staged.size if staged else 0, modified=about.get("modified") or now, inode=0,
                md5=staged.md5 if staged else None, created=about.get("created") or now, trashed=parent.trashed,
                starred=about.get("starred", False), description=about.get("description"), target=about.get("target"),
                app_properties=_merged({}, about.get("app_properties")),
                properties=_merged({}, about.get("properties")),
            )  # fmt: skip
            try:
                with self.disk.own_change(parent, folder):
                    self._place(staged, folder, disk, about.get("modified"))
            except BaseException:
                self.records.write("DELETE FROM files WHERE id = ?", file_id)
                raise
            status = (folder / os.fsdecode(disk)).lstat()
            self.index.announce(file_id, status.st_mtime_ns, status.st_ino)
            return self.index.known(file_id)

    def replace(self, file_id: str, staged: Staged, mime: str | None, modified: int | None) -> HubFile:
        """The same file with other bytes; readers see the old or the new ones, never a mixture."""
        with self.records.alone():
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
            return self.index.known(file.id)

    def revise(self, file_id: str, about: Mapping[str, Any], parent_id: str | None = None) -> HubFile:
        """Change what is said of a file: name, mime, modified, starred, description, properties, trashed, its parent.

        Keys that are not in `about` stay as they are; a property of value None is removed.
        """
        with self.records.alone():
            file, path = self.locate(file_id)
            self._forbid_root(file, about, parent_id)
            if "name" in about or (parent_id is not None and parent_id != file.parent):
                file, path = self._move(file, path, str(about.get("name", file.name)), parent_id or str(file.parent))
            if about.get("modified") is not None:
                os.utime(path, ns=(about["modified"], about["modified"]))
            self.index.update(file.id, **_said(file, about), modified=path.lstat().st_mtime_ns)
            if "trashed" in about and about["trashed"] != file.binned:
                self._bin(file, path) if about["trashed"] else self._unbin(file)
            return self.index.known(file.id)

    def delete(self, file_id: str) -> None:
        """Remove a file, or a folder with all that is in it, for good."""
        with self.records.alone():
            file, path = self.locate(file_id)
            self._forbid_root(file, {"delete": True}, None)
            doomed = self._doomed / file.id
            with self._own_change_around(file, path):
                os.rename(path, doomed)
            self.index.drop(file.id)
        _remove(doomed)

    def empty_trash(self) -> None:
        for file in self.index.binned():
            try:
                self.delete(file.id)
            except Refusal as refusal:
                if refusal.status != 404:
                    raise

    def recover(self) -> None:
        """Finish what a killed hub had begun: moves to the trash and deletions."""
        with self.records.alone():
            self.index.forget_unannounced()
            for entry in self._trash.iterdir():
                file = self.index.stored(entry.name)
                if file is not None and not file.binned:
                    with self.records.transaction():
                        self._mark_binned(file)
            for file in self.index.binned():
                if not os.path.lexists(self._trash / file.id):
                    self._finish_binning(file)
            for entry in self._doomed.iterdir():
                if self.index.stored(entry.name) is not None:
                    self.index.drop(entry.name)
                _remove(entry)

    def close(self) -> None:
        self.watch.close()

    def _refreshed(self, query: Query) -> Ways:
        """Bring up to date the records that a query can be about."""
        ways: Ways = {}
        if query.parents is None:
            self.watch.look()
            return ways
        known = [file for parent in query.parents if (file := self.index.stored(parent)) is not None]
        if not known:
            raise not_found(".")
        for parent in known:
            try:
                with self.records.alone():
                    file, path = self.disk.verified(parent, ways)
                    if query.name is not None and file.folder:
                        self.disk.look_up(file, path, query.name)
                if query.name is None and file.folder:
                    self.disk.scan(file, path, contents=query.about_times)
            except Refusal:
                if len(known) == 1:
                    raise
        return ways

    def _keep(self, file: HubFile, found: Digests) -> None:
        known = {
            name: value for name, value in (("md5", found.md5), ("sha1", found.sha1), ("sha256", found.sha256)) if value
        }
        with self.records.alone():
            now = self.index.stored(file.id)
            if now is not None and (now.modified, now.inode, now.size) == (file.modified, file.inode, file.size):
                self.index.remember(file.id, **known)

    def _open_folder(self, folder_id: str) -> tuple[HubFile, Path]:
        """A folder that takes new entries."""
        file, path = self.locate(folder_id)
        if not file.folder:
            raise Refusal(403, "parentNotAFolder", "The specified parent is not a folder.", where="parents")
        depth, above = 1, file
        while above.parent is not None:
            depth, above = depth + 1, self.index.known(above.parent)
        if depth > _DEEPEST:
            raise Refusal(403, "myDriveHierarchyDepthLimitExceeded", f"Folders nest at most {_DEEPEST} deep.")
        return file, path

    def _own_change_around(self, file: HubFile, path: Path) -> AbstractContextManager[None]:
        """Around what is done to the entry of a file in its folder; nobody reads the trash's own entries."""
        return nullcontext() if file.binned else self.disk.own_change(self.index.known(str(file.parent)), path.parent)

    def _free_name(self, parent: HubFile, folder: Path, name: str, mime: str) -> bytes:
        def is_taken(disk: bytes) -> bool:
            return os.path.lexists(folder / os.fsdecode(disk)) or self.index.on_disk(parent.id, disk) is not None

        return names.free(name + SUFFIXES.get(mime, ""), is_taken)

    def _place(self, staged: Staged | None, folder: Path, disk: bytes, modified: int | None) -> None:
        """Put staged bytes, or a new folder, to its place; never over something that is there."""
        target = folder / os.fsdecode(disk)
        if staged is None:
            target.mkdir()
        if modified is not None:
            os.utime(target if staged is None else staged.path, ns=(modified, modified))
        if staged is not None:
            rename_new(staged.path, target)

    def _move(self, file: HubFile, path: Path, name: str, parent_id: str) -> tuple[HubFile, Path]:
        """Another name, another folder, or both."""
        parent, folder = self._open_folder(parent_id)
        above: HubFile | None = parent
        while above is not None:
            if above.id == file.id:
                raise Refusal(403, "cannotMoveIntoDescendant", "A folder cannot be moved into itself.")
            above = self.index.known(above.parent) if above.parent is not None else None
        with self.records.transaction():
            disk, suffix = file.disk, SUFFIXES.get(file.mime, "")
            if (
                file.binned
                or parent.id != file.parent
                or names.on_disk(name + suffix) != names.on_disk(file.name + suffix)
            ):
                # Its own present name counts as free when it stays in its folder.
                disk = self._free_name(parent, folder, name, file.mime)
            self.index.update(file.id, name=name, parent=parent.id, disk=disk)
            if not file.binned:
                target = folder / os.fsdecode(disk)
                if target != path:
                    with self._own_change_around(file, path), self.disk.own_change(parent, folder):
                        os.rename(path, target)
                path = target
                if parent.trashed != file.trashed:
                    self.index.trash_below(file.id, parent.trashed)
        return self.index.known(file.id), path

    def _bin(self, file: HubFile, path: Path) -> None:
        """Into the trash."""
        with self.records.transaction():
            self._mark_binned(file)
            with self._own_change_around(file, path):
                os.rename(path, self._trash / file.id)

    def _mark_binned(self, file: HubFile) -> None:
        self.index.update(file.id, binned=True, trashed_at=time.time_ns())
        self.index.trash_below(file.id, True)

    def _finish_binning(self, file: HubFile) -> None:
        try:
            parent, folder = self._open_folder(str(file.parent))
        except Refusal:
            return self.index.drop(file.id)
        if self.index.on_disk(parent.id, file.disk) is None and os.path.lexists(folder / os.fsdecode(file.disk)):
            os.rename(folder / os.fsdecode(file.disk), self._trash / file.id)
            return None
        return self.index.drop(file.id)

    def _unbin(self, file: HubFile) -> None:
        """Out of the trash, to where it was; to the top when that folder is gone."""
        try:
            parent, folder = self._open_folder(str(file.parent))
        except Refusal:
            parent, folder = self._open_folder(self.root)
        with self.records.transaction():
            disk = self._free_name(parent, folder, file.name, file.mime)
            self.index.update(file.id, binned=False, trashed_at=None, parent=parent.id, disk=disk)
            self.index.trash_below(file.id, parent.trashed)
            with self.disk.own_change(parent, folder):
                os.rename(self._trash / file.id, folder / os.fsdecode(disk))

    def _forbid_root(self, file: HubFile, about: Mapping[str, Any], parent_id: str | None) -> None:
        if file.id == self.root and (parent_id or set(about) & {"name", "trashed", "delete", "mime"}):
            raise Refusal(403, "insufficientFilePermissions", "My Drive itself cannot be renamed, moved or removed.")


def _said(file: HubFile, about: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that `about` sets, but for the ones that need the disk."""
    said = {key: about[key] for key in ("mime", "starred", "description") if key in about}
    if "app_properties" in about:
        said["app_properties"] = _merged(file.app_properties, about["app_properties"])
    if "properties" in about:
        said["properties"] = _merged(file.properties, about["properties"])
    return said


def _merged(before: Mapping[str, str], given: Mapping[str, str | None] | None) -> str:
    return json.dumps({key: value for key, value in {**before, **(given or {})}.items() if value is not None})


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
