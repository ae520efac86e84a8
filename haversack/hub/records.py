"""The SQLite database beside the folder, for what a file system cannot store about a drive and data sets.

One connection writes, under one lock; every transaction is short, and slow work (file content, hashes) happens outside.
Searches can be slow, so they read concurrently through connections of their own. WAL mode keeps committed transactions
if the process is killed. If the database is deleted, My Drive's files stay and get new ids. Descriptions and
properties, the list of the trash, uploads in progress and the list of published data sets are lost.
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

# `modified`, `created`, `trashed_at`, `changed_at` are nanoseconds since 1970. `binned`: the file itself was put into
# the trash; `trashed`: it or a folder above it was. `revision` counts contents, `version` changes of any kind.
# `changed` is the number of the file's latest change, in one sequence for all files; 0 until a new file is in its
# place. `scanned` is the folder's ctime when its entries were last compared. `target` is the id that a shortcut points
# to.
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

# Migrates the schema from version 1 to version 2.
_MIGRATION_FROM_1 = """
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
    """The open database: SQL in, rows out. Thread-safe.

    `_lock` (reentrant) guards the writing connection and `_depth`, the nesting of transactions. `search` does not
    acquire it. A statement that fails raises `sqlite3.Error`.
    """

    def __init__(self, path: Path) -> None:
        """Open the database at `path`; create or migrate it. Raises `InputError` if that fails."""
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
            # Fewer checkpoints: half a million new rows are copied to the file in a few passes.
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            self._create_or_migrate(path)
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"The hub cannot read its database {path} ({error}).",
                "Move the file away; the hub then makes a new one.",
            ) from error

    def search(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return all rows of a query as tuples; it reads on a separate connection, concurrently with writes.

        It sees committed data only, and up to four searches run at a time. SQL can use `name_contains(folded, part)`,
        Drive's `contains` for names. Raises `OverflowError` for a value that SQLite cannot hold.
        """
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
        """Return the first row of a query, or None; it reads on the writing connection, under the lock.

        It sees the uncommitted writes of the caller's own transaction.
        """
        with self._lock:
            row: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
            return row

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Return all rows of a query; it reads on the writing connection, under the lock.

        It sees the uncommitted writes of the caller's own transaction.
        """
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def write(self, sql: str, *values: Any) -> int:
        """Execute one statement in a transaction of its own, or in the caller's; return the number of affected rows."""
        with self.transaction():
            return self._connection.execute(sql, values).rowcount

    def write_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Execute one statement for each row of values, all in one transaction (the caller's, if there is one)."""
        with self.transaction():
            self._connection.executemany(sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything inside, or roll it back on an exception. Can be nested: the outermost one commits.

        Other threads cannot write, or read with `row` and `rows`, until it ends.
        """
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
    def exclusive(self) -> Iterator[None]:
        """Hold the lock without a transaction: each write inside commits by itself."""
        with self._lock:
            yield

    def close(self) -> None:
        """Close all connections, after the searches in progress."""
        for _ in range(_READERS):
            reader = self._readers.get()
            if reader is not None:
                reader.close()
        with self._lock:
            self._connection.close()

    def _create_or_migrate(self, path: Path) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version == 1:
            self._connection.executescript(f"BEGIN; {_MIGRATION_FROM_1} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise InputError(
                f"{path} was written by another version of haversack.", "Use that version, or move the file away."
            )


def _name_contains(name: str, part: str) -> bool:
    """Drive's `contains` for names, both case-folded: whether `part` starts at the beginning of a word."""
    return re.search(rf"(?:^|[\W_]){re.escape(part)}", name) is not None
