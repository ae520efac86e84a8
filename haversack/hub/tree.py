"""The folder with its records: Drive's files and folders over a plain tree that may be changed by hand at any time.

The folder is the truth. Each call compares what it concerns with the disk: a lookup one name, a listing one folder, a
search without a folder everything. What was put there by hand gets a record and an id; what is gone loses its record; a
file renamed by hand within its folder keeps its id (it is known by its inode). Links and devices are not shown, and no
path goes through a link, so nothing outside the folder can be reached.

Changes made through the API go to disk by one rename each, and `recover` finishes at the next start what a killed hub
had begun. What the trash holds lies in `.hub/trash/<id>`.

It does not watch the folder, and a file moved by hand to another folder is a new file.
"""

from __future__ import annotations

import json
import mimetypes
import os
import secrets
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.hub import names
from haversack.hub.content import Staged, digest, rename_new
from haversack.hub.query import Query
from haversack.hub.records import Records
from haversack.hub.refusal import Refusal, invalid, not_found

FOLDER = "application/vnd.google-apps.folder"
_DEEPEST = 100  # Drive's own limit of nesting
# A folder's ctime is trusted only once it is older than the clock tick of any file system.
_SETTLED_NS = 100_000_000


@dataclass(frozen=True)
class File:
    """A file or folder; times in nanoseconds since 1970, `size` in bytes (0 for a folder)."""

    seq: int
    id: str
    parent: str | None
    name: str
    disk: bytes
    mime: str
    folder: bool
    size: int
    modified: int
    inode: int
    md5: str | None
    created: int
    binned: bool
    trashed: bool
    trashed_at: int | None
    starred: bool
    description: str | None
    app_properties: dict[str, str]
    properties: dict[str, str]
    version: int
    scanned: int | None


@dataclass(frozen=True)
class Change:
    """`file` is None when it is gone for good."""

    seq: int
    file_id: str
    at: int
    file: File | None


class Tree:
    """Files and folders below `folder`; `hub` is the folder for trash and files on their way in or out."""

    def __init__(self, folder: Path, hub: Path, records: Records) -> None:
        self.folder = folder
        self.records = records
        self._trash = hub / "trash"
        self._doomed = hub / "doomed"
        for made in (folder, self._trash, self._doomed):
            made.mkdir(parents=True, exist_ok=True)
        self._walked_until = 0.0
        self.root = self._root()
        self.recover()

    # Finding

    def get(self, file_id: str) -> File:
        """The file as it is now. Raises `Refusal` when there is none."""
        with self.records.alone():
            return self._verified(self._known(file_id))[0]

    def locate(self, file_id: str) -> tuple[File, Path]:
        """The file as it is now, and where it lies."""
        with self.records.alone():
            file, path, _ = self._verified(self._known(file_id))
            return file, path

    def search(
        self, query: Query, order: str, after: str, values: tuple[Any, ...], limit: int
    ) -> tuple[list[File], File | None]:
        """Up to `limit` files that match, in the SQL order `order`, behind the row that the SQL `after` says.

        Also returns the last file that was looked at, None when there are no more behind it.
        """
        self._refresh(query)
        sql = f"SELECT * FROM files WHERE parent IS NOT NULL AND {query.sql} AND {after} ORDER BY {order} LIMIT ?"
        with self.records.alone():
            try:
                rows = self.records.rows(sql, *query.values, *values, limit + 1)
            except OverflowError:
                raise invalid("A number in the query is too large.", "q") from None
            last = _file(rows[limit - 1]) if len(rows) > limit else None
            return list(self._seen(rows[:limit])), last

    def changes(self, since: int, limit: int) -> list[Change]:
        """Up to `limit` changes from number `since` on, oldest first; one per file, its newest."""
        self._walk()
        with self.records.transaction():
            rows = self.records.rows("SELECT * FROM changes WHERE seq >= ? ORDER BY seq LIMIT ?", since, limit)
            return [
                Change(row["seq"], row["file"], row["at"], None if row["removed"] else self._stored(row["file"]))
                for row in rows
            ]

    def next_change(self) -> int:
        """The number that the next change will have at the least."""
        self._walk()
        row = self.records.row("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
        return (row["seq"] if row else 0) + 1

    def md5(self, file: File) -> str | None:
        """The content's MD5 as hex digits, computed where it is not known yet; None where it cannot be read."""
        if file.md5 or file.folder:
            return file.md5
        try:
            file, path = self.locate(file.id)
            if file.md5:
                return file.md5
            value = digest(path)
            now = path.lstat()
        except (Refusal, FileNotFoundError, PermissionError):
            return None
        if (now.st_size, now.st_mtime_ns, now.st_ino) != (file.size, file.modified, file.inode):
            return None
        self.records.write("UPDATE files SET md5 = ? WHERE id = ? AND modified = ?", value, file.id, file.modified)
        return value

    def used(self) -> tuple[int, int]:
        """Bytes of all files, and of those in the trash."""
        row = self.records.row("SELECT coalesce(sum(size), 0), coalesce(sum(size * trashed), 0) FROM files")
        assert row is not None
        return row[0], row[1]

    # Changing

    def check_unused(self, file_id: str) -> None:
        """Refuse an id that a file has or had; ids are never given twice."""
        known = self.records.row("SELECT 1 FROM changes WHERE file = ?", file_id)
        if known is not None or self._row(file_id) is not None:
            raise Refusal(409, "fileIdInUse", "A file already exists with the provided ID.", where="id")

    def add(self, parent_id: str, name: str, mime: str, staged: Staged | None, about: Mapping[str, Any]) -> File:
        """A new file with the staged bytes, or a new folder where there are none; complete, or not there at all.

        `about` may hold `id`, `created`, `modified` and what `revise` takes. Raises `Refusal`.
        """
        with self.records.alone():
            parent, folder = self._open_folder(parent_id)
            file_id = str(about.get("id") or new_id())
            self.check_unused(file_id)
            disk = self._free_name(parent, folder, name)
            now = time.time_ns()
            self._insert(file_id, parent, name, disk, mime, staged, about, now)
            try:
                self._place(staged, folder, disk, about.get("modified"))
            except BaseException:
                self.records.write("DELETE FROM files WHERE id = ?", file_id)
                raise
            status = (folder / os.fsdecode(disk)).lstat()
            with self.records.transaction():
                self._note(file_id)
                self.records.write(
                    "UPDATE files SET modified = ?, inode = ? WHERE id = ?",
                    status.st_mtime_ns, status.st_ino, file_id,
                )  # fmt: skip
            return self._known(file_id)

    def replace(self, file_id: str, staged: Staged, mime: str | None, modified: int | None) -> File:
        """The same file with other bytes; readers see the old or the new ones, never a mixture."""
        with self.records.alone():
            file, path, _ = self._verified(self._known(file_id))
            if file.folder:
                raise invalid("A folder has no content.", "fileId")
            if modified is not None:
                os.utime(staged.path, ns=(modified, modified))
            shutil.copymode(path, staged.path)
            os.replace(staged.path, path)
            status = path.lstat()
            with self.records.transaction():
                self._update(
                    file_id, size=staged.size, md5=staged.md5, modified=status.st_mtime_ns, inode=status.st_ino,
                    mime=mime or file.mime,
                )  # fmt: skip
            return self._known(file_id)

    def revise(self, file_id: str, about: Mapping[str, Any], parent_id: str | None = None) -> File:
        """Change what is said of a file: name, mime, modified, starred, description, properties, trashed, its parent.

        Keys that are not in `about` stay as they are; a property of value None is removed.
        """
        with self.records.alone():
            file, path, _ = self._verified(self._known(file_id))
            self._forbid_root(file, about, parent_id)
            if "name" in about or (parent_id is not None and parent_id != file.parent):
                file, path = self._move(file, path, str(about.get("name", file.name)), parent_id or str(file.parent))
            if about.get("modified") is not None:
                os.utime(path, ns=(about["modified"], about["modified"]))
            changed = self._said(file, about)
            changed["modified"] = path.lstat().st_mtime_ns
            with self.records.transaction():
                self._update(file.id, **changed)
            if "trashed" in about and about["trashed"] != file.binned:
                self._bin(self._known(file.id), path) if about["trashed"] else self._unbin(self._known(file.id))
            return self._known(file.id)

    def delete(self, file_id: str) -> None:
        """Remove a file, or a folder with all that is in it, for good."""
        with self.records.alone():
            file, path, _ = self._verified(self._known(file_id))
            self._forbid_root(file, {"delete": True}, None)
            doomed = self._doomed / file.id
            os.rename(path, doomed)
            self._drop(file.id)
        _remove(doomed)

    def empty_trash(self) -> None:
        for row in self.records.rows("SELECT id FROM files WHERE binned"):
            try:
                self.delete(row["id"])
            except Refusal as refusal:
                if refusal.status != 404:
                    raise

    def recover(self) -> None:
        """Finish what a killed hub had begun: moves to the trash and deletions."""
        with self.records.alone():
            self.records.write("DELETE FROM files WHERE parent IS NOT NULL AND id NOT IN (SELECT file FROM changes)")
            for entry in self._trash.iterdir():
                file = self._stored(entry.name)
                if file is not None and not file.binned:
                    with self.records.transaction():
                        self._mark_binned(file)
            for row in self.records.rows("SELECT * FROM files WHERE binned"):
                file = _file(row)
                if not os.path.lexists(self._trash / file.id):
                    self._finish_binning(file)
            for entry in self._doomed.iterdir():
                if self._row(entry.name) is not None:
                    self._drop(entry.name)
                _remove(entry)

    # Comparing records with the disk

    def _refresh(self, query: Query) -> None:
        """Bring up to date the records that a query can be about."""
        if query.parents is None:
            self._walk()
            return
        known = [parent for parent in query.parents if self._row(parent) is not None]
        if not known:
            raise not_found(".")
        for parent in known:
            with self.records.alone():
                try:
                    file, path, _ = self._verified(self._known(parent))
                except Refusal:
                    if len(known) == 1:
                        raise
                    continue
                if not file.folder:
                    continue
                if query.name is not None:
                    self._look_up(file, path, query.name)
                else:
                    self._scan(file, path, whole=query.about_times)

    def _look_up(self, parent: File, folder: Path, name: str) -> None:
        """Compare one name with the disk, whatever the folder's size."""
        disk = names.on_disk(name)
        if names.from_disk(disk) == name and self._on_disk(parent.id, disk) is None:
            status = _status(folder / os.fsdecode(disk))
            if status is not None:
                # Perhaps renamed by hand: only a scan can tell a new file from one with a record under another name.
                known = self.records.row(
                    "SELECT 1 FROM files WHERE parent = ? AND inode = ? AND NOT binned", parent.id, status.st_ino
                )
                self._scan(parent, folder) if known else self._discover(parent, [(disk, status)])
        for row in self.records.rows(
            "SELECT * FROM files WHERE parent = ? AND folded = ? AND NOT binned", parent.id, name.casefold()
        ):
            file = _file(row)
            status = _status(folder / os.fsdecode(file.disk))
            if status is None or not _is_like(file, status):
                self._scan(parent, folder, whole=True)
                return
            self._observe(file, status)

    def _scan(self, parent: File, folder: Path, *, whole: bool = False) -> None:
        """Compare a folder's entries with the disk. Unless `whole`, a folder whose entries are the same is skipped."""
        try:
            changed_at = folder.lstat().st_ctime_ns
            if parent.scanned == changed_at and not whole:
                return
            started = time.time_ns()
            found = dict(_entries(folder))
        except (FileNotFoundError, NotADirectoryError):
            raise not_found(parent.id) from None
        with self.records.transaction():
            self._compare(parent, found)
            settled = changed_at if started - changed_at > _SETTLED_NS else None
            self.records.write("UPDATE files SET scanned = ? WHERE id = ?", settled, parent.id)

    def _compare(self, parent: File, found: Mapping[bytes, os.stat_result]) -> None:
        """Make the records of a folder's entries what was `found` on disk."""
        known = {
            row["disk"]: row
            for row in self.records.rows(
                "SELECT id, disk, folder, size, modified, inode FROM files WHERE parent = ? AND NOT binned", parent.id
            )
        }
        here = set()
        for disk, row in known.items():
            status = found.get(disk)
            if status is not None and stat.S_ISDIR(status.st_mode) == row["folder"]:
                here.add(disk)
                seen = (row["size"] if row["folder"] else status.st_size, status.st_mtime_ns, status.st_ino)
                if seen != (row["size"], row["modified"], row["inode"]):
                    self._observe(self._known(row["id"]), status)
        gone = {row["id"] for disk, row in known.items() if disk not in here}
        by_inode = {
            (row["inode"], row["modified"], bool(row["folder"])): row["id"]
            for row in known.values()
            if row["id"] in gone
        }
        renamed, new = [], []
        for disk, status in found.items():
            key = (status.st_ino, status.st_mtime_ns, stat.S_ISDIR(status.st_mode))
            if disk not in here:
                renamed.append((by_inode.pop(key), disk)) if key in by_inode else new.append((disk, status))
        for file_id in gone.difference(file_id for file_id, _ in renamed):
            self._drop(file_id)
        for file_id, disk in renamed:
            # Aside first: two files may have swapped their names.
            self.records.write("UPDATE files SET disk = ? WHERE id = ?", b"/" + disk, file_id)
        for file_id, disk in renamed:
            name = names.from_disk(disk)
            self._update(file_id, disk=disk, name=name, folded=name.casefold())
        self._discover(parent, new)

    def _walk(self) -> None:
        """Compare the whole tree with the disk; takes no more than a tenth of the time."""
        started = time.monotonic()
        if started < self._walked_until:
            return
        waiting = [(self.root, 0)]
        while waiting:
            folder_id, depth = waiting.pop()
            with self.records.alone():
                row = self._row(folder_id)
                if row is None:
                    continue
                try:
                    file, path, _ = self._verified(_file(row))
                    self._scan(file, path, whole=True)
                except (Refusal, PermissionError):
                    continue
                below = self.records.rows("SELECT id FROM files WHERE parent = ? AND folder AND NOT binned", folder_id)
            if depth < _DEEPEST:
                waiting += [(row["id"], depth + 1) for row in below]
        ended = time.monotonic()
        self._walked_until = ended + 9 * (ended - started)

    def _seen(self, rows: list[sqlite3.Row]) -> Iterator[File]:
        """The files of `rows` as they are now, without those that are gone."""
        folders: dict[str, Path] = {}
        for row in rows:
            file = _file(row)
            try:
                if file.binned:
                    yield self._verified(file)[0]
                    continue
                parent = str(file.parent)
                if parent not in folders:
                    folders[parent] = self._verified(self._known(parent))[1]
                status = _status(folders[parent] / os.fsdecode(file.disk))
                if status is None or not _is_like(file, status):
                    yield self._verified(file)[0]
                else:
                    yield self._known(file.id) if self._observe(file, status) else file
            except Refusal:
                continue

    def _verified(self, file: File) -> tuple[File, Path, os.stat_result]:
        """The file as it is on disk now, after comparing it and the folders above it. Raises `Refusal` when gone."""
        for _ in range(3):
            if file.parent is None:
                self.folder.mkdir(exist_ok=True)
                return file, self.folder, self.folder.lstat()
            if file.binned:
                path = self._trash / file.id
            else:
                above = self._verified(self._known(file.parent))
                path = above[1] / os.fsdecode(file.disk)
            status = _status(path)
            if status is not None and _is_like(file, status):
                return (self._known(file.id) if self._observe(file, status) else file), path, status
            if file.binned:
                self._drop(file.id)
            else:
                self._scan(above[0], above[1], whole=True)
            file = self._known(file.id)
        raise not_found(file.id)

    def _observe(self, file: File, status: os.stat_result) -> bool:
        """Take over size, time and inode from the disk; whether anything was different."""
        if file.folder:
            if (status.st_mtime_ns, status.st_ino) == (file.modified, file.inode):
                return False
            # A folder's time moves with every entry; that is no change of the folder itself.
            self.records.write(
                "UPDATE files SET modified = ?, inode = ? WHERE id = ?", status.st_mtime_ns, status.st_ino, file.id
            )
            return True
        if (status.st_size, status.st_mtime_ns, status.st_ino) == (file.size, file.modified, file.inode):
            return False
        self._update(file.id, size=status.st_size, modified=status.st_mtime_ns, inode=status.st_ino, md5=None)
        return True

    def _discover(self, parent: File, found: Sequence[tuple[bytes, os.stat_result]]) -> None:
        """Records for what was put into a folder by hand."""
        now = time.time_ns()
        rows = []
        for disk, status in found:
            name, folder = names.from_disk(disk), stat.S_ISDIR(status.st_mode)
            mime, size = (FOLDER, 0) if folder else (mime_of(name), status.st_size)
            modified = status.st_mtime_ns
            rows.append(
                (new_id(), parent.id, name, name.casefold(), disk, mime, folder, size, modified, status.st_ino,
                 modified, parent.trashed)
            )  # fmt: skip
        with self.records.transaction():
            self.records.write_all(
                "INSERT INTO files"
                " (id, parent, name, folded, disk, mime, folder, size, modified, inode, created, trashed)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            self.records.write_all(
                "INSERT INTO changes (file, removed, at) VALUES (?, 0, ?)", [(row[0], now) for row in rows]
            )

    # Records

    def _root(self) -> str:
        row = self.records.row("SELECT id FROM files WHERE parent IS NULL")
        if row is not None:
            return str(row["id"])
        root = "0A" + secrets.token_urlsafe(12)[:15] + "PVA"
        now = time.time_ns()
        self.records.write(
            "INSERT INTO files (id, name, folded, disk, mime, folder, size, modified, inode, created)"
            " VALUES (?, 'My Drive', 'my drive', ?, ?, 1, 0, ?, 0, ?)",
            root, b"My Drive", FOLDER, now, now,
        )  # fmt: skip
        return root

    def _row(self, file_id: str) -> sqlite3.Row | None:
        return self.records.row("SELECT * FROM files WHERE id = ?", self.root if file_id == "root" else file_id)

    def _stored(self, file_id: str) -> File | None:
        row = self._row(file_id)
        return None if row is None else _file(row)

    def _known(self, file_id: str) -> File:
        row = self._row(file_id)
        if row is None:
            raise not_found(file_id)
        return _file(row)

    def _on_disk(self, parent: str, disk: bytes) -> sqlite3.Row | None:
        return self.records.row("SELECT * FROM files WHERE parent = ? AND disk = ? AND NOT binned", parent, disk)

    def _insert(
        self, file_id: str, parent: File, name: str, disk: bytes, mime: str, staged: Staged | None,
        about: Mapping[str, Any], now: int,
    ) -> None:  # fmt: skip
        self.records.write(
            "INSERT INTO files (id, parent, name, folded, disk, mime, folder, size, modified, inode, md5, created,"
            " trashed, starred, description, app_properties, properties)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
            file_id, parent.id, name, name.casefold(), disk, mime, staged is None, staged.size if staged else 0,
            about.get("modified") or now, staged.md5 if staged else None, about.get("created") or now, parent.trashed,
            about.get("starred", False), about.get("description"),
            json.dumps(_merged({}, about.get("app_properties"))), json.dumps(_merged({}, about.get("properties"))),
        )  # fmt: skip

    def _update(self, file_id: str, **values: Any) -> None:
        columns = "".join(f"{column} = ?, " for column in values)
        self.records.write(f"UPDATE files SET {columns} version = version + 1 WHERE id = ?", *values.values(), file_id)
        self._note(file_id)

    def _said(self, file: File, about: Mapping[str, Any]) -> dict[str, Any]:
        """The columns that `about` sets, but for the ones that need the disk."""
        said = {key: about[key] for key in ("mime", "starred", "description") if key in about}
        if "app_properties" in about:
            said["app_properties"] = json.dumps(_merged(file.app_properties, about["app_properties"]))
        if "properties" in about:
            said["properties"] = json.dumps(_merged(file.properties, about["properties"]))
        return said

    def _note(self, file_id: str) -> None:
        self.records.write(
            "INSERT OR REPLACE INTO changes (file, removed, at) VALUES (?, 0, ?)", file_id, time.time_ns()
        )

    def _note_below(self, file_id: str, *, removed: bool) -> None:
        self.records.write(
            f"{_BELOW} INSERT OR REPLACE INTO changes (file, removed, at) SELECT id, ?, ? FROM below",
            file_id, removed, time.time_ns(),
        )  # fmt: skip

    def _drop(self, file_id: str) -> None:
        """Forget a file and all below it; what was put into the trash by itself stays there."""
        with self.records.transaction():
            self.records.write(
                f"{_BELOW} UPDATE files SET parent = ? WHERE binned AND parent IN (SELECT id FROM below)",
                file_id, self.root,
            )  # fmt: skip
            self._note_below(file_id, removed=True)
            self.records.write(f"{_BELOW} DELETE FROM files WHERE id IN (SELECT id FROM below)", file_id)

    # The disk

    def _open_folder(self, folder_id: str) -> tuple[File, Path]:
        """A folder that takes new entries."""
        file, path, _ = self._verified(self._known(folder_id))
        if not file.folder:
            raise Refusal(403, "parentNotAFolder", "The specified parent is not a folder.", where="parents")
        depth, above = 1, file
        while above.parent is not None:
            depth, above = depth + 1, self._known(above.parent)
        if depth > _DEEPEST:
            raise Refusal(403, "myDriveHierarchyDepthLimitExceeded", f"Folders nest at most {_DEEPEST} deep.")
        return file, path

    def _free_name(self, parent: File, folder: Path, name: str) -> bytes:
        def is_taken(disk: bytes) -> bool:
            return os.path.lexists(folder / os.fsdecode(disk)) or self._on_disk(parent.id, disk) is not None

        return names.free(name, is_taken)

    def _place(self, staged: Staged | None, folder: Path, disk: bytes, modified: int | None) -> None:
        """Put staged bytes, or a new folder, to its place; never over something that is there."""
        target = folder / os.fsdecode(disk)
        if staged is None:
            target.mkdir()
        if modified is not None:
            os.utime(target if staged is None else staged.path, ns=(modified, modified))
        if staged is not None:
            rename_new(staged.path, target)

    def _move(self, file: File, path: Path, name: str, parent_id: str) -> tuple[File, Path]:
        """Another name, another folder, or both."""
        parent, folder = self._open_folder(parent_id)
        above: File | None = parent
        while above is not None:
            if above.id == file.id:
                raise Refusal(403, "cannotMoveIntoDescendant", "A folder cannot be moved into itself.")
            above = self._known(above.parent) if above.parent is not None else None
        with self.records.transaction():
            disk = file.disk
            if file.binned or parent.id != file.parent or names.on_disk(name) != names.on_disk(file.name):
                # Its own present name counts as free when it stays in its folder.
                disk = self._free_name(parent, folder, name)
            self._update(file.id, name=name, folded=name.casefold(), parent=parent.id, disk=disk)
            if not file.binned:
                target = folder / os.fsdecode(disk)
                if target != path:
                    os.rename(path, target)
                path = target
                if parent.trashed != file.trashed:
                    self._spread_trashed(file.id, parent.trashed)
        return self._known(file.id), path

    def _bin(self, file: File, path: Path) -> None:
        """Into the trash."""
        with self.records.transaction():
            self._mark_binned(file)
            os.rename(path, self._trash / file.id)

    def _mark_binned(self, file: File) -> None:
        self._update(file.id, binned=True, trashed_at=time.time_ns())
        self._spread_trashed(file.id, True)

    def _finish_binning(self, file: File) -> None:
        try:
            parent, folder = self._open_folder(str(file.parent))
        except Refusal:
            return self._drop(file.id)
        if self._on_disk(parent.id, file.disk) is None and os.path.lexists(folder / os.fsdecode(file.disk)):
            os.rename(folder / os.fsdecode(file.disk), self._trash / file.id)
            return None
        return self._drop(file.id)

    def _unbin(self, file: File) -> None:
        """Out of the trash, to where it was; to the top when that folder is gone."""
        try:
            parent, folder = self._open_folder(str(file.parent))
        except Refusal:
            parent, folder = self._open_folder(self.root)
        with self.records.transaction():
            disk = self._free_name(parent, folder, file.name)
            self._update(file.id, binned=False, trashed_at=None, parent=parent.id, disk=disk)
            self._spread_trashed(file.id, parent.trashed)
            os.rename(self._trash / file.id, folder / os.fsdecode(disk))

    def _spread_trashed(self, file_id: str, trashed: bool) -> None:
        """Whether a file and what lies below it counts as trashed; what was binned by itself stays in the trash."""
        self.records.write(
            f"{_BELOW} UPDATE files SET trashed = ? WHERE id IN (SELECT id FROM below)", file_id, trashed
        )
        self._note_below(file_id, removed=False)

    def _forbid_root(self, file: File, about: Mapping[str, Any], parent_id: str | None) -> None:
        if file.id == self.root and (parent_id or set(about) & {"name", "trashed", "delete", "mime"}):
            raise Refusal(403, "insufficientFilePermissions", "My Drive itself cannot be renamed, moved or removed.")


_BELOW = (
    "WITH RECURSIVE below(id) AS (SELECT ? UNION ALL"
    " SELECT files.id FROM files JOIN below ON files.parent = below.id WHERE NOT files.binned)"
)


def new_id() -> str:
    """An id of the form that Drive's have: 33 letters, digits, `-` and `_`, the first one a 1."""
    return "1" + secrets.token_urlsafe(24)


def mime_of(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _file(row: sqlite3.Row) -> File:
    values = dict(row)
    values.pop("folded")
    for flag in ("folder", "binned", "trashed", "starred"):
        values[flag] = bool(values[flag])
    for column in ("app_properties", "properties"):
        values[column] = json.loads(values[column])
    return File(**values)


def _merged(before: Mapping[str, str], given: Mapping[str, str | None] | None) -> dict[str, str]:
    return {key: value for key, value in {**before, **(given or {})}.items() if value is not None}


def _entries(folder: Path) -> Iterator[tuple[bytes, os.stat_result]]:
    """Names and states of the files and folders in `folder`; links and devices are left out."""
    with os.scandir(os.fsencode(folder)) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                yield entry.name, status


def _status(path: Path) -> os.stat_result | None:
    """The state of a file or folder; None when there is none of that name."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) else None


def _is_like(file: File, status: os.stat_result) -> bool:
    """Whether both are a folder, or both are none."""
    return stat.S_ISDIR(status.st_mode) == file.folder


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
