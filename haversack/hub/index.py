"""The table of files and folders: metadata, parent, and the number of each one's latest change.

Changes have numbers in one sequence for all files, for the changes feed. An operation on many rows, such as numbering
their changes, is a single statement, so its cost per row does not grow with the size of a folder. This module does not
access the folder: `disk` reconciles table and disk, `tree` carries out calls.
"""

from __future__ import annotations

import json
import mimetypes
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from haversack.hub.records import Records
from haversack.hub.refusal import Refusal, not_found

FOLDER = "application/vnd.google-apps.folder"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A row of the table: a file or folder. Times are nanoseconds since 1970.

    Attributes:
        seq: the row number, in order of creation.
        id: Drive's file id.
        parent: the id of its folder; None for My Drive. A file in the trash keeps it, to be restored there.
        name: its name in the API.
        disk: its name on disk.
        mime: its MIME type.
        folder: whether it is a folder.
        size: in bytes; 0 for a folder.
        modified: its mtime.
        inode: its inode number; 0 if it is not known yet.
        md5: the content's MD5 in hexadecimal; None until it is computed.
        sha1: the same for SHA-1.
        sha256: the same for SHA-256.
        created: when it was created, or its mtime if a user put it into the folder.
        binned: whether it was put into the trash itself.
        trashed: whether it or a folder above it was put into the trash.
        trashed_at: when it was put into the trash itself; else None.
        app_properties: Drive's `appProperties`.
        version: counts changes of any kind.
        revision: counts contents.
        target: the file id that a shortcut points to.
        scanned: a folder's ctime when its entries were last compared with the disk; None if they have to be compared.
    """

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
    sha1: str | None
    sha256: str | None
    created: int
    binned: bool
    trashed: bool
    trashed_at: int | None
    starred: bool
    description: str | None
    app_properties: Mapping[str, str]
    properties: Mapping[str, str]
    version: int
    revision: int
    target: str | None
    scanned: int | None


@dataclass(frozen=True)
class HubChange:
    """An entry of the changes feed.

    Attributes:
        number: its place in the sequence of all changes; larger is newer.
        file_id: the file that changed.
        at: when it changed, in nanoseconds since 1970.
        file: the file's current row; None if it was deleted permanently.
    """

    number: int
    file_id: str
    at: int
    file: HubFile | None


@dataclass(frozen=True, slots=True)
class FoundOnDisk:
    """A file or folder found on disk that has no row yet.

    Attributes:
        name: its name in the API.
        disk: its name on disk.
        mime: its MIME type.
        size: in bytes; 0 for a folder.
        modified: its mtime in nanoseconds.
        inode: its inode number.
        target: the file id that a shortcut points to.
    """

    name: str
    disk: bytes
    mime: str
    size: int
    modified: int
    inode: int
    target: str | None = None


COLUMNS = ", ".join(field.name for field in fields(HubFile))
_APP_PROPERTIES, _PROPERTIES = (
    [field.name for field in fields(HubFile)].index(name) for name in ("app_properties", "properties")
)
_FLAGS = tuple(index for index, field in enumerate(fields(HubFile)) if field.type == "bool")
_SUBTREE = (
    "WITH RECURSIVE below(id) AS (SELECT ? UNION ALL"
    " SELECT files.id FROM files JOIN below ON files.parent = below.id WHERE NOT files.binned)"
)
_NUMBERED = "(SELECT id, row_number() OVER () AS place FROM below)"


class HubIndex:
    """The table of files. Thread-safe; guarded by the lock of `Records`.

    Lookups by folder leave out files that were put into the trash themselves. A change "is numbered" if it appears in
    the changes feed.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self.root = self._find_or_create_root()

    # Reading

    def find(self, file_id: str) -> HubFile | None:
        """Return the row of the file with this id ("root" is an alias of My Drive's id), or None."""
        return self._one("id = ?", self.root if file_id == "root" else file_id)

    def require(self, file_id: str) -> HubFile:
        """Return the row of the file with this id ("root" is My Drive). Raises `Refusal` (404) if there is none."""
        file = self.find(file_id)
        if file is None:
            raise not_found(file_id)
        return file

    def find_on_disk(self, parent: str, disk: bytes) -> HubFile | None:
        """Return the file whose name on disk in the folder `parent` is `disk`, or None."""
        return self._one("parent = ? AND disk = ? AND NOT binned", parent, disk)

    def find_by_name(self, parent: str, name: str) -> list[HubFile]:
        """Return the files in the folder `parent` whose name in the API is `name`; case is ignored."""
        return self._all("parent = ? AND folded = ? AND NOT binned", parent, name.casefold())

    def all_binned(self) -> list[HubFile]:
        """Return the files that were themselves put into the trash."""
        return self._all("binned")

    def folders_in(self, parent: str) -> list[str]:
        """Return the ids of the direct subfolders of the folder `parent`."""
        sql = "SELECT id FROM files WHERE parent = ? AND folder AND NOT binned"
        return [row[0] for row in self.records.search(sql, parent)]

    def has_inode(self, parent: str, inode: int) -> bool:
        """Whether a file or folder in the folder `parent` has a row with this inode number."""
        sql = "SELECT 1 FROM files WHERE inode = ? AND parent = ? AND NOT binned"
        return self.records.row(sql, inode, parent) is not None

    def entries(self, parent: str, after: bytes, limit: int) -> list[tuple[bytes, str, int, int, int, int]]:
        """Return up to `limit` entries of the folder `parent` whose names on disk sort after `after`, in that order.

        Each is (name on disk, id, whether it is a folder, size in bytes, mtime in ns, inode).
        """
        rows = self.records.rows(
            "SELECT disk, id, folder, size, modified, inode FROM files"
            " WHERE parent = ? AND disk > ? AND NOT binned ORDER BY disk LIMIT ?",
            parent, after, limit,
        )  # fmt: skip
        return [tuple(row) for row in rows]

    def changes(self, since: int, limit: int) -> list[HubChange]:
        """Return up to `limit` changes from number `since` on, oldest first; of each file only the latest."""
        with self.records.transaction():
            changed = self.records.rows(
                f"SELECT changed, changed_at, {COLUMNS} FROM files WHERE changed >= ? AND parent IS NOT NULL"
                " ORDER BY changed LIMIT ?",
                since, limit,
            )  # fmt: skip
            gone = self.records.rows(
                "SELECT number, at, file FROM removals WHERE number >= ? ORDER BY number LIMIT ?", since, limit
            )
        changes = [HubChange(row[0], row["id"], row[1], file_from_row(tuple(row)[2:])) for row in changed]
        changes += [HubChange(row["number"], row["file"], row["at"], None) for row in gone]
        return sorted(changes, key=lambda change: change.number)[:limit]

    def last_change(self) -> int:
        """Return the number of the latest change of any file; 0 if there is none."""
        row = self.records.row(
            "SELECT max((SELECT coalesce(max(changed), 0) FROM files), (SELECT coalesce(max(number), 0) FROM removals))"
        )
        assert row is not None
        return int(row[0])

    def usage(self) -> tuple[int, int]:
        """Return the total size in bytes of all files, those in the trash included, and of those in the trash alone."""
        rows = self.records.search("SELECT coalesce(sum(size), 0), coalesce(sum(size * trashed), 0) FROM files")
        return rows[0][0], rows[0][1]

    def check_unused(self, file_id: str) -> None:
        """Raise `Refusal` (409) if a file has this id, or had it before it was deleted; ids are never reused."""
        gone = self.records.row("SELECT 1 FROM removals WHERE file = ?", file_id)
        if gone is not None or self.find(file_id) is not None:
            raise Refusal(409, "fileIdInUse", "A file already exists with the provided ID.", where="id")

    # Writing

    def insert(self, **values: Any) -> None:
        """Insert a row for a file that is about to be created; `values` are columns, `name` among them.

        Its change number is 0, so it is in no changes feed, and a crash removes it, until `commit_new` completes it.
        """
        columns = {**values, "folded": values["name"].casefold()}
        marks = ", ".join("?" * len(columns))
        self.records.write(f"INSERT INTO files ({', '.join(columns)}) VALUES ({marks})", *columns.values())

    def commit_new(self, file_id: str, modified: int, inode: int) -> None:
        """Mark the row of `insert` as complete: its file is in its place on disk, with this mtime (ns) and inode.

        It is numbered as a change.
        """
        self.records.write(
            "UPDATE files SET modified = ?, inode = ?, changed = ?, changed_at = ? WHERE id = ?",
            modified, inode, self.last_change() + 1, time.time_ns(), file_id,
        )  # fmt: skip

    def update(self, file_id: str, **values: Any) -> None:
        """Set columns of a file (`values`), increment its version, and number that as a change."""
        if "name" in values:
            values["folded"] = values["name"].casefold()
        columns = "".join(f"{column} = ?, " for column in values)
        with self.records.transaction():
            self.records.write(
                f"UPDATE files SET {columns} version = version + 1, changed = ?, changed_at = ? WHERE id = ?",
                *values.values(), self.last_change() + 1, time.time_ns(), file_id,
            )  # fmt: skip

    def set_unversioned(self, file_id: str, **values: Any) -> None:
        """Set columns of a file (`values`); its version stays, and no change is numbered."""
        columns = ", ".join(f"{column} = ?" for column in values)
        self.records.write(f"UPDATE files SET {columns} WHERE id = ?", *values.values(), file_id)

    def insert_found(self, parent: HubFile, found: Iterable[FoundOnDisk]) -> None:
        """Insert rows, numbered as changes, for the entries `found` in a folder; skip names that have a row already.

        The rows get new ids.
        """
        now = time.time_ns()
        with self.records.transaction():
            number = self.last_change()
            self.records.write_many(
                "INSERT OR IGNORE INTO files"
                " (id, parent, name, folded, disk, mime, folder, size, modified, inode, created, trashed, target,"
                " changed, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (new_id(), parent.id, one.name, one.name.casefold(), one.disk, one.mime, one.mime == FOLDER,
                     one.size, one.modified, one.inode, one.modified, parent.trashed, one.target, number + place, now)
                    for place, one in enumerate(found, 1)
                ),
            )  # fmt: skip

    def set_trashed(self, file_id: str, trashed: bool) -> None:
        """Set the column `trashed` of a file and of everything below it, each numbered as a change.

        A file below it that was put into the trash itself is left unchanged. The column `binned` and the disk do not
        change.
        """
        with self.records.transaction():
            self.records.write(
                f"{_SUBTREE} UPDATE files SET trashed = ?, changed = ? + numbered.place, changed_at = ?"
                f" FROM {_NUMBERED} AS numbered WHERE files.id = numbered.id",
                file_id, trashed, self.last_change(), time.time_ns(),
            )  # fmt: skip

    def remove(self, file_id: str) -> None:
        """Delete the rows of a file and of everything below it, each numbered as a change; the ids are not reused.

        A file below it that was put into the trash itself is kept in the trash and would be restored to My Drive.
        """
        with self.records.transaction():
            self.records.write(
                f"{_SUBTREE} UPDATE files SET parent = ? WHERE binned AND parent IN (SELECT id FROM below)",
                file_id, self.root,
            )  # fmt: skip
            self.records.write(
                f"{_SUBTREE} INSERT OR REPLACE INTO removals SELECT id, ? + place, ? FROM {_NUMBERED}",
                file_id, self.last_change(), time.time_ns(),
            )  # fmt: skip
            self.records.write(f"{_SUBTREE} DELETE FROM files WHERE id IN (SELECT id FROM below)", file_id)

    def delete_uncommitted(self) -> None:
        """Delete the rows that `insert` made and `commit_new` did not complete because the hub was killed."""
        self.records.write("DELETE FROM files WHERE changed = 0 AND parent IS NOT NULL")

    def _one(self, condition: str, *values: Any) -> HubFile | None:
        row = self.records.row(f"SELECT {COLUMNS} FROM files WHERE {condition}", *values)
        return None if row is None else file_from_row(tuple(row))

    def _all(self, condition: str, *values: Any) -> list[HubFile]:
        return [
            file_from_row(tuple(row))
            for row in self.records.rows(f"SELECT {COLUMNS} FROM files WHERE {condition}", *values)
        ]

    def _find_or_create_root(self) -> str:
        row = self.records.row("SELECT id FROM files WHERE parent IS NULL")
        if row is not None:
            return str(row["id"])
        root = "0A" + secrets.token_urlsafe(12)[:15] + "PVA"
        now = time.time_ns()
        self.insert(
            id=root, name="My Drive", disk=b"My Drive", mime=FOLDER, folder=True, size=0, modified=now, inode=0,
            created=now,
        )  # fmt: skip
        return root


def file_from_row(row: tuple[Any, ...]) -> HubFile:
    """Convert a row, selected with the columns `COLUMNS` in that order, to a `HubFile`."""
    values = list(row)
    for place in _FLAGS:
        values[place] = values[place] != 0
    for place in (_APP_PROPERTIES, _PROPERTIES):
        values[place] = {} if values[place] == "{}" else json.loads(values[place])
    return HubFile(*values)


def new_id() -> str:
    """Return a random id in Drive's format: 33 letters, digits, `-` and `_`, the first of them a 1."""
    return "1" + secrets.token_urlsafe(24)


def guess_mime(name: str) -> str:
    """Return the MIME type that the suffix of `name` suggests, or application/octet-stream."""
    stem, last = os.path.splitext(name)
    return _guess_mime(os.path.splitext(stem)[1] + last)


@lru_cache(maxsize=1000)
def _guess_mime(suffixes: str) -> str:
    return mimetypes.guess_type(f"file{suffixes}")[0] or "application/octet-stream"
