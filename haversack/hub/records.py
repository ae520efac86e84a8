"""The SQLite file beside the folder: what a file system cannot keep of a drive and of data sets.

One connection writes, under one lock: every transaction is a few rows, and whatever takes long (bytes, hashes) happens
outside. Searches, which may take long too, read beside it through connections of their own. WAL keeps what was
committed when the process is killed. The file can be deleted; then ids, trash and descriptions are lost, never a file
in the folder.
"""

from __future__ import annotations

import queue
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from haversack.errors import InputError

_VERSION = 2
_READERS = 4
_CACHE_KB = 32_000
_CHECKPOINT_PAGES = 8_000

# `modified`, `created`, `trashed_at`, `changed_at` are nanoseconds since 1970. `binned` was put into the trash itself,
# `trashed` also lies below such a folder. `revision` counts contents, `version` changes of any kind, `changed` is the
# number of its newest change among those of all files; it is 0 while a new file is on its way to its place. `scanned`
# is the folder's ctime when all its entries were last read. `target` is the id that a shortcut leads to.
_SCHEMA = """
CREATE TABLE files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    parent TEXT,
    name TEXT NOT NULL,
    folded TEXT NOT NULL,
    disk BLOB NOT NULL,
    mime TEXT NOT NULL,
    folder INTEGER NOT NULL,
    size INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    md5 TEXT,
    sha1 TEXT,
    sha256 TEXT,
    created INTEGER NOT NULL,
    binned INTEGER NOT NULL DEFAULT 0,
    trashed INTEGER NOT NULL DEFAULT 0,
    trashed_at INTEGER,
    starred INTEGER NOT NULL DEFAULT 0,
    description TEXT,
    app_properties TEXT NOT NULL DEFAULT '{}',
    properties TEXT NOT NULL DEFAULT '{}',
    version INTEGER NOT NULL DEFAULT 1,
    revision INTEGER NOT NULL DEFAULT 1,
    target TEXT,
    changed INTEGER NOT NULL DEFAULT 0,
    changed_at INTEGER NOT NULL DEFAULT 0,
    scanned INTEGER
);
CREATE UNIQUE INDEX files_on_disk ON files (parent, disk) WHERE NOT binned;
CREATE INDEX files_in ON files (parent);
CREATE INDEX files_by_name ON files (parent, folded);
CREATE INDEX files_by_inode ON files (inode);
CREATE INDEX files_by_change ON files (changed);
CREATE INDEX files_binned ON files (id) WHERE binned;
CREATE TABLE removals (
    file TEXT PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,
    at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE uploads (
    id TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    details TEXT NOT NULL,
    total INTEGER,
    started INTEGER NOT NULL,
    result TEXT
);
CREATE TABLE sets (
    owner TEXT NOT NULL,
    slug TEXT NOT NULL,
    details TEXT NOT NULL,
    private INTEGER NOT NULL,
    PRIMARY KEY (owner, slug)
);
CREATE TABLE versions (
    owner TEXT NOT NULL,
    slug TEXT NOT NULL,
    number INTEGER NOT NULL,
    notes TEXT NOT NULL,
    created INTEGER NOT NULL,
    archive TEXT,
    PRIMARY KEY (owner, slug, number)
);
"""

# Records of version 1 become those of version 2.
_FROM_1 = """
ALTER TABLE files ADD COLUMN sha1 TEXT;
ALTER TABLE files ADD COLUMN sha256 TEXT;
ALTER TABLE files ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE files ADD COLUMN target TEXT;
ALTER TABLE files ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE files ADD COLUMN changed_at INTEGER NOT NULL DEFAULT 0;
UPDATE files SET (changed, changed_at) = (SELECT seq, at FROM changes WHERE file = files.id)
 WHERE id IN (SELECT file FROM changes);
CREATE TABLE removals (file TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, at INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO removals SELECT file, seq, at FROM changes WHERE removed;
DROP TABLE changes;
CREATE INDEX files_in ON files (parent);
CREATE INDEX files_by_change ON files (changed);
CREATE INDEX files_binned ON files (id) WHERE binned;
"""


class Records:
    """The open file. Every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._depth = 0
        self._readers: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for _ in range(_READERS):
            self._readers.put(None)
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
            # Half a million new records go to the file in a few passes over it.
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            self._prepare(path)
        except sqlite3.DatabaseError as error:
            raise InputError(f"The hub's records {path} cannot be read ({error}).", "Move them away.") from error

    def search(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows as tuples, read beside whoever writes: what was committed before is seen."""
        connection = self._readers.get()
        try:
            if connection is None:
                connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
                connection.execute("PRAGMA query_only = ON")
                connection.create_function("name_contains", 2, _name_contains, deterministic=True)
            return connection.execute(sql, values).fetchall()
        finally:
            self._readers.put(connection)

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        with self._lock:
            row: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
            return row

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def write(self, sql: str, *values: Any) -> int:
        """Carry out one statement; returns how many rows it concerned."""
        with self.transaction():
            return self._connection.execute(sql, values).rowcount

    def write_all(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Carry out one statement for each row of values."""
        with self.transaction():
            self._connection.executemany(sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is kept, or nothing; nobody else reads or writes meanwhile. One may lie within another."""
        with self._lock:
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._connection.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("COMMIT")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else reads or writes meanwhile, and each write inside is kept at once."""
        with self._lock:
            yield

    def close(self) -> None:
        for _ in range(_READERS):
            reader = self._readers.get()
            if reader is not None:
                reader.close()
        with self._lock:
            self._connection.close()

    def _prepare(self, path: Path) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version == 1:
            self._connection.executescript(f"BEGIN; {_FROM_1} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise InputError(f"{path} was written by another version of haversack.", "Use that version, or move it.")


def _name_contains(name: str, part: str) -> bool:
    """Drive's `contains` on names, both without case: `part` stands where a word begins."""
    return re.search(rf"(?:^|[\W_]){re.escape(part)}", name) is not None
