"""The rows of the index, as they are changed inside a transaction: each rule about them in one place.

A row gives way only to one of the same file that is as new or newer. Every change of a row that somebody could rely on
goes into the log `changed`, with whose change it was. Of several files that would be shown under one name the first
made keeps it, and the others get numbers, which they keep as long as the name is taken.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.drive.index import names
from haversack.drive.remote.calls import Changes, File

_VERSION = 3
# `seen` is the number of the listing that was begun last when the row was written: what a listing that is complete has
# not seen is gone; below 0 the row is doubted. `nth` is the number in `name (1).ext`. In `changed` a version of NULL is
# a file that is gone.
_INDEXES = {
    "by_id": "CREATE UNIQUE INDEX by_id ON files (id)",
    "by_shown": "CREATE INDEX by_shown ON files (parent, shown)",
    "by_parent": "CREATE INDEX by_parent ON files (parent)",
    "doubted": "CREATE INDEX doubted ON files (parent) WHERE seen < 0",
    "by_nth": "CREATE INDEX by_nth ON files (nth) WHERE nth > 0",
}
_SCHEMA = f"""
CREATE TABLE files (
    id TEXT NOT NULL, name TEXT NOT NULL, parent TEXT NOT NULL, mime_type TEXT NOT NULL, size INTEGER NOT NULL,
    md5 TEXT NOT NULL, modified REAL NOT NULL, version INTEGER NOT NULL, created REAL NOT NULL, target TEXT NOT NULL,
    target_type TEXT NOT NULL, shown TEXT NOT NULL, nth INTEGER NOT NULL, seen INTEGER NOT NULL
);
{"; ".join(_INDEXES.values())};
CREATE TABLE asked (parent TEXT, shown TEXT, PRIMARY KEY (parent, shown)) WITHOUT ROWID;
CREATE TABLE listed (parent TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE listing (parent TEXT PRIMARY KEY, number INTEGER NOT NULL, page TEXT) WITHOUT ROWID;
CREATE TABLE changed (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, parent TEXT NOT NULL, shown TEXT NOT NULL, version INTEGER,
    origin TEXT NOT NULL
);
CREATE INDEX changed_by_id ON changed (id);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""
COLUMNS = "id, name, parent, mime_type, size, md5, modified, version, created, target, target_type"
INSIDE = COLUMNS.replace(" parent,", "")
Inside = tuple[str, str, str, int, str, float, int, float, str, str]
"""A file of a folder that goes without saying: `INSIDE`."""
_STORE = f"""
INSERT INTO files ({COLUMNS}, shown, nth, seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)
ON CONFLICT (id) DO UPDATE SET
    shown = CASE WHEN name = excluded.name AND parent = excluded.parent THEN shown ELSE excluded.shown END,
    nth = CASE WHEN name = excluded.name AND parent = excluded.parent THEN nth ELSE 0 END,
    name = excluded.name, parent = excluded.parent, mime_type = excluded.mime_type, size = excluded.size,
    md5 = excluded.md5, modified = excluded.modified, version = excluded.version, created = excluded.created,
    target = excluded.target, target_type = excluded.target_type, seen = excluded.seen
WHERE excluded.version >= version
"""
_LOAD = f"INSERT INTO files ({INSIDE}, parent, shown, nth, seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)"
_BELOW = (
    "WITH RECURSIVE below (id) AS (SELECT ? UNION SELECT files.id FROM files JOIN below ON files.parent = below.id)"
)
EVERYTHING = "*"
"""Stands in the log for every file there is."""
_LOGGED = 50_000


@dataclass(frozen=True)
class ListedFolder:
    """What is known in a folder, or a part of it; `listed` says that all of it is known."""

    id: str
    listed: bool
    files: Iterable[Inside]


class Rows:
    """The rows behind `database`, a connection inside a transaction; `origin` names this process in the log."""

    def __init__(self, database: sqlite3.Connection, origin: str) -> None:
        self.database = database
        self.origin = origin

    def fact(self, name: str) -> str | None:
        return fact_of(self.database, name)

    def note(self, **facts: str | None) -> None:
        """None forgets a fact."""
        for name, value in facts.items():
            if value is None:
                self.database.execute("DELETE FROM facts WHERE name = ?", (name,))
            else:
                self.database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def next_number(self) -> int:
        """The number of a listing that begins."""
        number = int(self.fact("listings") or 0) + 1
        self.note(listings=str(number))
        return number

    def touched(self, since: int) -> set[str]:
        """The ids of the files to which something happened behind `since`."""
        return {row[0] for row in self.all("SELECT id FROM changed WHERE seq > ?", since)}

    def take_over(self, page: Changes, touched: set[str]) -> bool:
        """Apply a page of changes; False when one meets what happened here meanwhile."""
        ids = json.dumps([change.file_id for change in page.changes])
        within = "WHERE id IN (SELECT value FROM json_each(?))"
        known = dict(self.all(f"SELECT id, version FROM files {within}", ids))
        whole, there = True, []
        for change in page.changes:
            file, version = change.file, known.get(change.file_id)
            if file is None or file.trashed:
                if version is not None and change.file_id in touched:
                    whole = False
                elif version is not None:
                    self.drop(change.file_id, own=False)
            elif version is None and change.file_id in touched:
                whole = False
            elif version is None or file.version > version:
                there.append(file)
        self.store(self._wanted(there, known), changed=True)
        return whole

    def _wanted(self, files: list[File], known: dict[str, int]) -> list[File]:
        """Those of changed files that belong to what is known: other folders are learned when they are asked for."""
        parents = json.dumps(list({file.parent for file in files}))
        watched = {
            row[0]
            for table in ("listed", "listing")
            for row in self.database.execute(
                f"SELECT parent FROM {table} WHERE parent IN (SELECT value FROM json_each(?))", (parents,)
            )
        }
        asked = "SELECT 1 FROM asked WHERE parent = ? AND shown = ?"
        return [
            file
            for file in files
            if file.id in known
            or file.parent in watched
            or self.database.execute(asked, (file.parent, names.shown(file))).fetchone()
        ]

    def store(self, files: Sequence[File], *, own: bool = False, changed: bool = False) -> None:
        """Write rows, each unless a newer one stands there, and log those that were changed or that changed."""
        if not files:
            return
        number = int(self.fact("listings") or 0)
        ids = json.dumps([file.id for file in files])
        within = "WHERE id IN (SELECT value FROM json_each(?))"
        before = {
            row[0]: row
            for row in self.database.execute(f"SELECT id, parent, shown, version FROM files {within}", (ids,))
        }
        self.insert(files, number)
        older = [(number, file.id) for file in files if file.id in before and before[file.id][3] > file.version]
        self.database.executemany("UPDATE files SET seen = ? WHERE id = ?", older)
        clashes = self.database.execute(
            "SELECT DISTINCT one.parent, one.shown FROM files AS one JOIN files AS other"
            " ON other.parent = one.parent AND other.shown = one.shown AND other.rowid != one.rowid"
            " WHERE one.id IN (SELECT value FROM json_each(?))",
            (ids,),
        ).fetchall()
        for parent, shown in clashes:
            self.separate(parent, shown)
        for file in files if own or changed else [file for file in files if file.id in before]:
            old = before.get(file.id)
            if old is not None and file.version <= old[3] and not own:
                continue
            now = self.database.execute("SELECT parent, shown FROM files WHERE id = ?", (file.id,)).fetchone()
            for place in {now, old[1:3]} if old is not None else {now}:
                self.log(file.id, place, file.version, own=own)

    def insert(self, files: Sequence[File], number: int) -> None:
        """Write rows under the number of a listing, each unless a newer one stands there."""
        self.database.executemany(_STORE, [(*row_of(file), names.shown(file), number) for file in files])

    def load(self, folders: Iterable[ListedFolder], except_for: set[str]) -> None:
        """Write very many rows at once, each unless a newer one stands there; not those of the ids in `except_for`.

        Raises `sqlite3.IntegrityError` when two are of one file. It is for an index in which little is known.
        """
        number, listed = int(self.fact("listings") or 0), set()
        known = {row[0] for row in self.all("SELECT id FROM files")}
        met: list[File] = []

        def unknown() -> Iterator[tuple[Any, ...]]:
            for folder in folders:
                if folder.listed:
                    listed.add(folder.id)
                for row in folder.files:
                    if row[0] not in known and row[0] not in except_for:
                        yield (*row, folder.id, names.shown_as(row[1], row[2]), number)
                    elif row[0] not in except_for:
                        met.append(File(row[0], row[1], folder.id, *row[2:]))

        # Sorting all of it once takes a fraction of finding the place of each row in every one of them.
        for name in _INDEXES:
            self.database.execute(f"DROP INDEX {name}")
        self.database.executemany(_LOAD, unknown())
        for index in _INDEXES.values():
            self.database.execute(index)
        self.insert(met, number)
        self.database.executemany("INSERT OR IGNORE INTO listed VALUES (?)", [(one,) for one in listed])
        twice = "SELECT parent, shown FROM files GROUP BY parent, shown HAVING count(*) > 1"
        for parent, shown in self.all(twice):
            self.separate(parent, shown)

    def separate(self, parent: str, shown: str) -> None:
        """Of several files shown under one name the first made keeps it; the others get numbers."""
        rows = self.all(
            f"SELECT {COLUMNS} FROM files WHERE parent = ? AND shown = ? ORDER BY nth, created, id",
            parent,
            shown,
        )
        for row in rows[1:]:
            file, nth = File(*row), 1
            while not self.is_free(parent, names.numbered(names.shown(file), nth)):
                nth += 1
            name = names.numbered(names.shown(file), nth)
            self.database.execute("UPDATE files SET shown = ?, nth = ? WHERE id = ?", (name, nth, file.id))
            self.log(file.id, (parent, name), file.version, own=False)

    def is_free(self, parent: str, shown: str) -> bool:
        found = self.database.execute("SELECT 1 FROM files WHERE parent = ? AND shown = ?", (parent, shown))
        return found.fetchone() is None

    def drop(self, file_id: str, *, own: bool) -> None:
        """Delete a row and all that is known below it."""
        row = self.database.execute("SELECT parent, shown FROM files WHERE id = ?", (file_id,)).fetchone()
        self.log(file_id, row or ("", ""), None, own=own)
        below = [one for (one,) in self.all(f"{_BELOW} SELECT id FROM below", file_id)]
        self.database.executemany("DELETE FROM files WHERE id = ?", [(one,) for one in below])
        self.drop_knowledge("listed", "listing", "asked", parents=below)

    def drop_knowledge(self, *tables: str, parents: Sequence[str]) -> None:
        """Delete from `tables` what is said there of folders as such."""
        ids = json.dumps(parents)
        for table in tables:
            self.database.execute(f"DELETE FROM {table} WHERE parent IN (SELECT value FROM json_each(?))", (ids,))

    def end_listing(self, parents: Sequence[str], number: int) -> None:
        """The listing of that number is complete; what it has not seen is gone."""
        gone = "SELECT id FROM files WHERE parent IN (SELECT value FROM json_each(?)) AND seen < ?"
        for (file_id,) in self.all(gone, json.dumps(parents), number):
            self.drop(file_id, own=True)
        self.drop_knowledge("asked", "listing", parents=parents)
        self.database.executemany("INSERT OR IGNORE INTO listed VALUES (?)", [(parent,) for parent in parents])

    def log(self, file_id: str, place: tuple[str, str], version: int | None, *, own: bool) -> None:
        row = (file_id, *place, version, self.origin if own else "")
        self.database.execute("INSERT INTO changed (id, parent, shown, version, origin) VALUES (?, ?, ?, ?, ?)", row)

    def shorten_log(self) -> None:
        last = self.database.execute("SELECT max(seq) FROM changed").fetchone()[0] or 0
        self.database.execute("DELETE FROM changed WHERE seq <= ?", (last - _LOGGED,))

    def all(self, query: str, *values: Any) -> list[Any]:
        return self.database.execute(query, values).fetchall()


def opened(path: Path) -> sqlite3.Connection:
    """A connection to an index, made where there is none: by one process at a time.

    Raises `sqlite3.DatabaseError` for what is no index.
    """
    database = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -6000")
    database.execute(f"PRAGMA journal_size_limit = {32 << 20}")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, _VERSION):
        database.close()
        raise sqlite3.DatabaseError(f"version {version}")
    if version == 0:
        with transaction(database):
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of the block or nothing; others may read meanwhile, and not write."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def fact_of(database: sqlite3.Connection, name: str) -> str | None:
    row = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def row_of(file: File) -> tuple[Any, ...]:
    return (
        file.id, file.name, file.parent, file.mime_type, file.size, file.md5, file.modified, file.version,
        file.created, file.target, file.target_type,
    )  # fmt: skip
