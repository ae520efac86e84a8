"""The tables of the index and the rules for changing their rows, each rule in one place.

- A row is replaced only by a row of the same file with the same or a larger `version`.
- Every change that a reader of the index could notice is appended to the log `changed`, with the process that made it.
- If several files in a folder would be shown under one name, the oldest gets the name and the others get numbers,
  which they keep as long as the name is in use.

Tables:

| table | a row means |
|---|---|
| `files` | a file or folder that is not in the trash |
| `asked` | this name in this folder was looked up: `files` has the file, or there is none |
| `listed` | every file in this folder is in `files` |
| `listing` | a listing of this folder was started: its number, and the page token to continue with (NULL: first page) |
| `changed` | the log: file id, place (parent and shown name), version (NULL: the file is gone), `origin` |
| `facts` | a value about the index as a whole, such as the page token of the changes feed |

`files.nth` is the number in `name (1).ext`, 0 without one. `files.seen` is the number of the most recently started
listing when the row was last written: a listing that completes deletes the rows of its folders with a smaller one. A
negative `seen` marks a stale row.
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
COLUMNS_IN_FOLDER = COLUMNS.replace(" parent,", "")
RowInFolder = tuple[str, str, str, int, str, float, int, float, str, str]
"""A row of `files` with the columns `COLUMNS_IN_FOLDER`; the folder is given elsewhere."""
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
_LOAD = f"""
INSERT INTO files ({COLUMNS_IN_FOLDER}, parent, shown, nth, seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)
"""
_BELOW = (
    "WITH RECURSIVE below (id) AS (SELECT ? UNION SELECT files.id FROM files JOIN below ON files.parent = below.id)"
)
EVERYTHING = "*"
"""The file id of a log entry that invalidates every file."""
_LOG_LENGTH = 50_000


@dataclass(frozen=True)
class ListedFolder:
    """A folder's id and files, for a snapshot: `files` are all that are known of it, or a part of them.

    `listed` says that the index holds every file of the folder.
    """

    id: str
    listed: bool
    files: Iterable[RowInFolder]


class Rows:
    """The tables, changed over a connection that is inside a transaction. `origin` names this process in the log.

    A method with `own` logs changes as made by this process, or without it as another's: subscribers of this process
    are notified only of others' changes.
    """

    def __init__(self, database: sqlite3.Connection, origin: str) -> None:
        self.database = database
        self.origin = origin

    def fact(self, name: str) -> str | None:
        return fact_of(self.database, name)

    def set_facts(self, **facts: str | None) -> None:
        """Store each value in `facts` under its name; None deletes it."""
        for name, value in facts.items():
            if value is None:
                self.database.execute("DELETE FROM facts WHERE name = ?", (name,))
            else:
                self.database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def next_listing_number(self) -> int:
        """Increment and return the number of the most recently started listing."""
        number = int(self.fact("listings") or 0) + 1
        self.set_facts(listings=str(number))
        return number

    def changed_since(self, seq: int) -> set[str]:
        """Return the ids of the files in the log entries after `seq`; they may include `EVERYTHING`."""
        return {row[0] for row in self.fetch_all("SELECT id FROM changed WHERE seq > ?", seq)}

    def apply_changes(self, page: Changes, changed: set[str]) -> bool:
        """Apply a page of the changes feed; return False if a part was skipped because it may be older than the index.

        `changed` are the ids in the log since the page was requested. A change is skipped if its file is in `changed`
        and its version cannot decide: the feed says that the file is gone, or the file has no row any more. The other
        changes of the page are applied all the same.
        """
        ids = json.dumps([change.file_id for change in page.changes])
        condition = "WHERE id IN (SELECT value FROM json_each(?))"
        versions = dict(self.fetch_all(f"SELECT id, version FROM files {condition}", ids))
        complete, newer = True, []
        for change in page.changes:
            file, version = change.file, versions.get(change.file_id)
            if file is None or file.trashed:
                if version is not None and change.file_id in changed:
                    complete = False
                elif version is not None:
                    self.drop(change.file_id, own=False)
            elif version is None and change.file_id in changed:
                complete = False
            elif version is None or file.version > version:
                newer.append(file)
        self.store(self._relevant(newer, versions), changed=True)
        return complete

    def _relevant(self, files: list[File], known: dict[str, int]) -> list[File]:
        """Return those of `files` that the index must hold to stay correct.

        These have a row already (their id is in `known`), or their folder is listed or being listed, or their name was
        looked up. The others are stored when somebody asks for them.
        """
        parents = json.dumps(list({file.parent for file in files}))
        listed = {
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
            or file.parent in listed
            or self.database.execute(asked, (file.parent, names.shown_name(file))).fetchone()
        ]

    def store(self, files: Sequence[File], *, own: bool = False, changed: bool = False) -> None:
        """Insert or update the rows of `files` unless a row with a larger version exists; number duplicate names.

        Log each file that got a larger version: with its new place and, if it had a row, its old place. A file without
        a row is logged only with `own` or `changed`; with `own` a file is logged whatever its version. `own` marks the
        log entries as this process's.
        """
        if not files:
            return
        number = int(self.fact("listings") or 0)
        ids = json.dumps([file.id for file in files])
        condition = "WHERE id IN (SELECT value FROM json_each(?))"
        before = {
            row[0]: row
            for row in self.database.execute(f"SELECT id, parent, shown, version FROM files {condition}", (ids,))
        }
        self.insert(files, number)
        # Rows with a larger version are not replaced, but the listing has seen their files.
        older = [(number, file.id) for file in files if file.id in before and before[file.id][3] > file.version]
        self.database.executemany("UPDATE files SET seen = ? WHERE id = ?", older)
        clashes = self.database.execute(
            "SELECT DISTINCT one.parent, one.shown FROM files AS one JOIN files AS other"
            " ON other.parent = one.parent AND other.shown = one.shown AND other.rowid != one.rowid"
            " WHERE one.id IN (SELECT value FROM json_each(?))",
            (ids,),
        ).fetchall()
        for parent, shown in clashes:
            self.number_duplicates(parent, shown)
        for file in files if own or changed else [file for file in files if file.id in before]:
            old = before.get(file.id)
            if old is not None and file.version <= old[3] and not own:
                continue
            now = self.database.execute("SELECT parent, shown FROM files WHERE id = ?", (file.id,)).fetchone()
            for place in {now, old[1:3]} if old is not None else {now}:
                self.append_log(file.id, place, file.version, own=own)

    def insert(self, files: Sequence[File], number: int) -> None:
        """Insert or update the rows of `files` unless a row with a larger version exists.

        `number`, that of the most recently started listing, becomes their `seen`. Neither numbers duplicate names nor
        logs: `store` does.
        """
        self.database.executemany(_STORE, [(*row_of(file), names.shown_name(file), number) for file in files])

    def load(self, folders: Iterable[ListedFolder], except_for: set[str]) -> None:
        """Bulk insert of a snapshot's rows, except the ids in `except_for`; fast if the index is almost empty.

        A row that exists is replaced unless its version is larger. Duplicate names are numbered. Nothing is logged but
        the numbers. Raises `sqlite3.IntegrityError` if `folders` holds one file twice.
        """
        number, listed = int(self.fact("listings") or 0), set()
        known = {row[0] for row in self.fetch_all("SELECT id FROM files")}
        existing: list[File] = []

        def new_rows() -> Iterator[tuple[Any, ...]]:
            for folder in folders:
                if folder.listed:
                    listed.add(folder.id)
                for row in folder.files:
                    if row[0] not in known and row[0] not in except_for:
                        yield (*row, folder.id, names.shown_name_of(row[1], row[2]), number)
                    elif row[0] not in except_for:
                        existing.append(File(row[0], row[1], folder.id, *row[2:]))

        # Building each index once, after the rows, takes a fraction of the time of updating it for every row.
        for name in _INDEXES:
            self.database.execute(f"DROP INDEX {name}")
        self.database.executemany(_LOAD, new_rows())
        for index in _INDEXES.values():
            self.database.execute(index)
        self.insert(existing, number)
        self.database.executemany("INSERT OR IGNORE INTO listed VALUES (?)", [(one,) for one in listed])
        duplicates = "SELECT parent, shown FROM files GROUP BY parent, shown HAVING count(*) > 1"
        for parent, shown in self.fetch_all(duplicates):
            self.number_duplicates(parent, shown)

    def number_duplicates(self, parent: str, shown: str) -> None:
        """Of the files shown as `shown` in a folder, leave one under that name and give the others free numbers.

        The name stays with the oldest file that has no number. Each new name is logged as another process's change.
        """
        rows = self.fetch_all(
            f"SELECT {COLUMNS} FROM files WHERE parent = ? AND shown = ? ORDER BY nth, created, id",
            parent,
            shown,
        )
        for row in rows[1:]:
            file, nth = File(*row), 1
            while not self.is_free(parent, names.numbered(names.shown_name(file), nth)):
                nth += 1
            name = names.numbered(names.shown_name(file), nth)
            self.database.execute("UPDATE files SET shown = ?, nth = ? WHERE id = ?", (name, nth, file.id))
            self.append_log(file.id, (parent, name), file.version, own=False)

    def is_free(self, parent: str, shown: str) -> bool:
        """Whether no row of the folder `parent` is shown as `shown`."""
        found = self.database.execute("SELECT 1 FROM files WHERE parent = ? AND shown = ?", (parent, shown))
        return found.fetchone() is None

    def drop(self, file_id: str, *, own: bool) -> None:
        """Delete the rows of a file or folder and of everything below it, from all tables. Logs only `file_id`."""
        row = self.database.execute("SELECT parent, shown FROM files WHERE id = ?", (file_id,)).fetchone()
        self.append_log(file_id, row or ("", ""), None, own=own)
        below = [one for (one,) in self.fetch_all(f"{_BELOW} SELECT id FROM below", file_id)]
        self.database.executemany("DELETE FROM files WHERE id = ?", [(one,) for one in below])
        self.delete_folder_rows("listed", "listing", "asked", parents=below)

    def delete_folder_rows(self, *tables: str, parents: Sequence[str]) -> None:
        """Delete the rows of the folders `parents` from `tables`, each of which has a column `parent`."""
        ids = json.dumps(parents)
        for table in tables:
            self.database.execute(f"DELETE FROM {table} WHERE parent IN (SELECT value FROM json_each(?))", (ids,))

    def complete_listing(self, parents: Sequence[str], number: int) -> None:
        """Mark the folders as listed, and delete the rows in them that were last written before listing `number`.

        Their files are gone from the folders; they are logged as this process's changes.
        """
        gone = "SELECT id FROM files WHERE parent IN (SELECT value FROM json_each(?)) AND seen < ?"
        for (file_id,) in self.fetch_all(gone, json.dumps(parents), number):
            self.drop(file_id, own=True)
        self.delete_folder_rows("asked", "listing", parents=parents)
        self.database.executemany("INSERT OR IGNORE INTO listed VALUES (?)", [(parent,) for parent in parents])

    def append_log(self, file_id: str, place: tuple[str, str], version: int | None, *, own: bool) -> None:
        """Append an entry to the log.

        Args:
            file_id: The file.
            place: (Id of its folder, its shown name).
            version: The file's version on the drive; None if the file is gone.
            own: Whether this process made the change.
        """
        row = (file_id, *place, version, self.origin if own else "")
        self.database.execute("INSERT INTO changed (id, parent, shown, version, origin) VALUES (?, ?, ?, ?, ?)", row)

    def trim_log(self) -> None:
        """Delete all but the newest 50,000 log entries."""
        last = self.database.execute("SELECT max(seq) FROM changed").fetchone()[0] or 0
        self.database.execute("DELETE FROM changed WHERE seq <= ?", (last - _LOG_LENGTH,))

    def fetch_all(self, query: str, *values: Any) -> list[Any]:
        return self.database.execute(query, values).fetchall()


def connect(path: Path) -> sqlite3.Connection:
    """Open the database at `path`; create it with its tables if it does not exist.

    Only one process at a time may create it: the caller holds a file lock. Raises `sqlite3.DatabaseError` if the file
    is no database or has another schema version.
    """
    database = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -6000")
    database.execute(f"PRAGMA journal_size_limit = {32 << 20}")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, _VERSION):
        database.close()
        raise sqlite3.DatabaseError(f"The schema has version {version} instead of {_VERSION}.")
    if version == 0:
        with transaction(database):
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Run the block in a write transaction: commit at its end, roll back if it raises. Readers are not blocked."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def fact_of(database: sqlite3.Connection, name: str) -> str | None:
    """Return a value about the index as a whole from the table `facts`, or None if it has no `name`."""
    row = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def row_of(file: File) -> tuple[Any, ...]:
    """Return the values of `file` in the order of `COLUMNS`."""
    return (
        file.id, file.name, file.parent, file.mime_type, file.size, file.md5, file.modified, file.version,
        file.created, file.target, file.target_type,
    )  # fmt: skip
