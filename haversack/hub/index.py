"""The records of files and folders: what each is, what it lies in, and the number of its newest change.

Every row of the table is a `File`. What concerns more than one row, numbering the changes among it, is done in one
statement, so that a folder of half a million files is no other matter than one of five. This module knows nothing of
the disk; `disk` compares, and `tree` carries out calls.
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
    """`file` is None when it is gone for good."""

    number: int
    file_id: str
    at: int
    file: HubFile | None


@dataclass(frozen=True, slots=True)
class FoundOnDisk:
    """What lies in a folder and has no record yet."""

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
_BELOW = (
    "WITH RECURSIVE below(id) AS (SELECT ? UNION ALL"
    " SELECT files.id FROM files JOIN below ON files.parent = below.id WHERE NOT files.binned)"
)
_NUMBERED = "(SELECT id, row_number() OVER () AS place FROM below)"


class HubIndex:
    """The table of files. Every method may be called from any thread."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.root = self._root()

    # Reading

    def stored(self, file_id: str) -> HubFile | None:
        return self._one("id = ?", self.root if file_id == "root" else file_id)

    def known(self, file_id: str) -> HubFile:
        """Raises `Refusal` (404) where there is none."""
        file = self.stored(file_id)
        if file is None:
            raise not_found(file_id)
        return file

    def on_disk(self, parent: str, disk: bytes) -> HubFile | None:
        return self._one("parent = ? AND disk = ? AND NOT binned", parent, disk)

    def named(self, parent: str, name: str) -> list[HubFile]:
        """The files of a folder that have this name, upper and lower case alike."""
        return self._all("parent = ? AND folded = ? AND NOT binned", parent, name.casefold())

    def binned(self) -> list[HubFile]:
        return self._all("binned")

    def folders_in(self, parent: str) -> list[str]:
        sql = "SELECT id FROM files WHERE parent = ? AND folder AND NOT binned"
        return [row[0] for row in self.records.search(sql, parent)]

    def has_inode(self, parent: str, inode: int) -> bool:
        sql = "SELECT 1 FROM files WHERE inode = ? AND parent = ? AND NOT binned"
        return self.records.row(sql, inode, parent) is not None

    def entries(self, parent: str, after: bytes, limit: int) -> list[tuple[bytes, str, int, int, int, int]]:
        """A folder's entries behind the name `after`, by name on disk: that, id, folder, size, modified, inode."""
        rows = self.records.rows(
            "SELECT disk, id, folder, size, modified, inode FROM files"
            " WHERE parent = ? AND disk > ? AND NOT binned ORDER BY disk LIMIT ?",
            parent, after, limit,
        )  # fmt: skip
        return [tuple(row) for row in rows]

    def changes(self, since: int, limit: int) -> list[HubChange]:
        """Up to `limit` changes from number `since` on, oldest first; one per file, its newest."""
        with self.records.transaction():
            made = self.records.rows(
                f"SELECT changed, changed_at, {COLUMNS} FROM files WHERE changed >= ? AND parent IS NOT NULL"
                " ORDER BY changed LIMIT ?",
                since, limit,
            )  # fmt: skip
            gone = self.records.rows(
                "SELECT number, at, file FROM removals WHERE number >= ? ORDER BY number LIMIT ?", since, limit
            )
        changes = [HubChange(row[0], row["id"], row[1], as_file(tuple(row)[2:])) for row in made]
        changes += [HubChange(row["number"], row["file"], row["at"], None) for row in gone]
        return sorted(changes, key=lambda change: change.number)[:limit]

    def last_change(self) -> int:
        row = self.records.row(
            "SELECT max((SELECT coalesce(max(changed), 0) FROM files), (SELECT coalesce(max(number), 0) FROM removals))"
        )
        assert row is not None
        return int(row[0])

    def used(self) -> tuple[int, int]:
        """Bytes of all files, and of those in the trash."""
        rows = self.records.search("SELECT coalesce(sum(size), 0), coalesce(sum(size * trashed), 0) FROM files")
        return rows[0][0], rows[0][1]

    def check_unused(self, file_id: str) -> None:
        """Refuse an id that a file has or had; ids are never given twice."""
        gone = self.records.row("SELECT 1 FROM removals WHERE file = ?", file_id)
        if gone is not None or self.stored(file_id) is not None:
            raise Refusal(409, "fileIdInUse", "A file already exists with the provided ID.", where="id")

    # Writing

    def insert(self, **values: Any) -> None:
        """A new file, not announced as a change yet; `announce` does that once it is in its place."""
        columns = {**values, "folded": values["name"].casefold()}
        marks = ", ".join("?" * len(columns))
        self.records.write(f"INSERT INTO files ({', '.join(columns)}) VALUES ({marks})", *columns.values())

    def announce(self, file_id: str, modified: int, inode: int) -> None:
        self.records.write(
            "UPDATE files SET modified = ?, inode = ?, changed = ?, changed_at = ? WHERE id = ?",
            modified, inode, self.last_change() + 1, time.time_ns(), file_id,
        )  # fmt: skip

    def update(self, file_id: str, **values: Any) -> None:
        """Change a file, as its next version."""
        if "name" in values:
            values["folded"] = values["name"].casefold()
        columns = "".join(f"{column} = ?, " for column in values)
        with self.records.transaction():
            self.records.write(
                f"UPDATE files SET {columns} version = version + 1, changed = ?, changed_at = ? WHERE id = ?",
                *values.values(), self.last_change() + 1, time.time_ns(), file_id,
            )  # fmt: skip

    def remember(self, file_id: str, **values: Any) -> None:
        """Keep what is no change of the file itself."""
        columns = ", ".join(f"{column} = ?" for column in values)
        self.records.write(f"UPDATE files SET {columns} WHERE id = ?", *values.values(), file_id)

    def discover(self, parent: HubFile, found: Iterable[FoundOnDisk]) -> None:
        """Records for what was put into a folder by hand, but for what has one by now."""
        now = time.time_ns()
        with self.records.transaction():
            number = self.last_change()
            self.records.write_all(
                "INSERT OR IGNORE INTO files"
                " (id, parent, name, folded, disk, mime, folder, size, modified, inode, created, trashed, target,"
                " changed, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (new_id(), parent.id, one.name, one.name.casefold(), one.disk, one.mime, one.mime == FOLDER,
                     one.size, one.modified, one.inode, one.modified, parent.trashed, one.target, number + place, now)
                    for place, one in enumerate(found, 1)
                ),
            )  # fmt: skip

    def trash_below(self, file_id: str, trashed: bool) -> None:
        """Whether a file and what lies below it counts as trashed; what was binned by itself stays in the trash."""
        with self.records.transaction():
            self.records.write(
                f"{_BELOW} UPDATE files SET trashed = ?, changed = ? + numbered.place, changed_at = ?"
                f" FROM {_NUMBERED} AS numbered WHERE files.id = numbered.id",
                file_id, trashed, self.last_change(), time.time_ns(),
            )  # fmt: skip

    def drop(self, file_id: str) -> None:
        """Forget a file and all below it; what was put into the trash by itself stays there."""
        with self.records.transaction():
            self.records.write(
                f"{_BELOW} UPDATE files SET parent = ? WHERE binned AND parent IN (SELECT id FROM below)",
                file_id, self.root,
            )  # fmt: skip
            self.records.write(
                f"{_BELOW} INSERT OR REPLACE INTO removals SELECT id, ? + place, ? FROM {_NUMBERED}",
                file_id, self.last_change(), time.time_ns(),
            )  # fmt: skip
            self.records.write(f"{_BELOW} DELETE FROM files WHERE id IN (SELECT id FROM below)", file_id)

    def forget_unannounced(self) -> None:
        """Remove the records of files that never came to their place."""
        self.records.write("DELETE FROM files WHERE changed = 0 AND parent IS NOT NULL")

    def _one(self, condition: str, *values: Any) -> HubFile | None:
        row = self.records.row(f"SELECT {COLUMNS} FROM files WHERE {condition}", *values)
        return None if row is None else as_file(tuple(row))

    def _all(self, condition: str, *values: Any) -> list[HubFile]:
        return [
            as_file(tuple(row)) for row in self.records.rows(f"SELECT {COLUMNS} FROM files WHERE {condition}", *values)
        ]

    def _root(self) -> str:
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


def as_file(row: tuple[Any, ...]) -> HubFile:
    """A row of `COLUMNS`."""
    values = list(row)
    for place in _FLAGS:
        values[place] = values[place] != 0
    for place in (_APP_PROPERTIES, _PROPERTIES):
        values[place] = {} if values[place] == "{}" else json.loads(values[place])
    return HubFile(*values)


def new_id() -> str:
    """An id of the form that Drive's have: 33 letters, digits, `-` and `_`, the first one a 1."""
    return "1" + secrets.token_urlsafe(24)


def mime_of(name: str) -> str:
    """The type that a file of this name is taken for."""
    stem, last = os.path.splitext(name)
    return _mime_of(os.path.splitext(stem)[1] + last)


@lru_cache(maxsize=1000)
def _mime_of(suffixes: str) -> str:
    return mimetypes.guess_type(f"file{suffixes}")[0] or "application/octet-stream"
