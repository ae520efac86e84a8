"""What is known of the drive, so that it is not asked again: files by id, names that are there and that are not.

SQLite in the cache folder, one per drive, shared by processes (WAL). What was seen is believed for `trust` seconds,
then asked anew; what this machine writes is applied at once. The whole of it can be thrown away at any time, so it is
not synced to disk and a broken one is made anew.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from haversack.drive.api import File
from haversack.errors import DiskFull

_VERSION = 1
_SCHEMA = f"""
CREATE TABLE files (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, parent TEXT NOT NULL, mime_type TEXT NOT NULL, size INTEGER NOT NULL,
    md5 TEXT NOT NULL, modified REAL NOT NULL, version INTEGER NOT NULL, seen REAL NOT NULL
);
CREATE INDEX by_name ON files (parent, name);
CREATE TABLE absent (parent TEXT, name TEXT, seen REAL NOT NULL, PRIMARY KEY (parent, name)) WITHOUT ROWID;
CREATE TABLE listed (parent TEXT PRIMARY KEY, seen REAL NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""
_COLUMNS = "id, name, parent, mime_type, size, md5, modified, version"


class Index:
    """The index of one drive in `folder`. Safe to use from several threads and processes; raises `DiskFull`."""

    def __init__(self, folder: Path, trust: float = 5.0) -> None:
        self.trust = trust
        self._lock = threading.RLock()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _disk_full_said(folder):
            try:
                self._database = _opened(folder / "index.db")
            except sqlite3.DatabaseError:
                for file in folder.glob("index.db*"):
                    file.unlink(missing_ok=True)
                self._database = _opened(folder / "index.db")

    def lookup(self, parent: str, name: str) -> list[File] | None:
        """The files of that name, newest first; [] when there is known to be none, None when it has to be asked."""
        with self._lock:
            complete = self._is_listed(parent)
            rows = self._database.execute(
                f"SELECT {_COLUMNS}, seen FROM files WHERE parent = ? AND name = ? ORDER BY modified DESC, id",
                (parent, name),
            ).fetchall()
            if rows and (complete or all(self._is_fresh(row[-1]) for row in rows)):
                return [File(*row[:-1]) for row in rows]
            if not rows:
                gone = self._one("SELECT seen FROM absent WHERE parent = ? AND name = ?", (parent, name))
                if complete or (gone and self._is_fresh(gone[0])):
                    return []
        return None

    def get(self, file_id: str) -> File | None:
        """The file of that id as it was last seen, however long ago."""
        row = self._one(f"SELECT {_COLUMNS} FROM files WHERE id = ?", (file_id,))
        return File(*row) if row else None

    def listing(self, parent: str) -> list[File] | None:
        """Everything in a folder, by name; None when it has to be asked."""
        with self._lock:
            if not self._is_listed(parent):
                return None
            rows = self._database.execute(f"SELECT {_COLUMNS} FROM files WHERE parent = ? ORDER BY name", (parent,))
            return [File(*row) for row in rows]

    def put(self, *files: File) -> None:
        """These files are as they are here."""
        self._put(files, time.time())

    def put_lookup(self, parent: str, name: str, found: list[File]) -> None:
        """Exactly these are called `name` in `parent`."""
        now = time.time()
        with self._writing() as database:
            database.execute("DELETE FROM files WHERE parent = ? AND name = ?", (parent, name))
            if not found:
                database.execute("INSERT OR REPLACE INTO absent VALUES (?, ?, ?)", (parent, name, now))
            self._put(found, now)

    def end_listing(self, parent: str, started: float) -> None:
        """Everything in `parent` was put since `started`; what was not seen is gone."""
        with self._writing() as database:
            database.execute("DELETE FROM files WHERE parent = ? AND seen < ?", (parent, started))
            database.execute("DELETE FROM absent WHERE parent = ?", (parent,))
            database.execute("INSERT OR REPLACE INTO listed VALUES (?, ?)", (parent, time.time()))

    def forget(self, file_id: str) -> None:
        """That file is gone, and so is what was known inside it."""
        with self._writing() as database:
            database.execute("DELETE FROM files WHERE id = ? OR parent = ?", (file_id, file_id))
            database.execute("DELETE FROM listed WHERE parent = ?", (file_id,))

    def doubt(self, parent: str) -> None:
        """Ask again about everything in that folder."""
        with self._writing() as database:
            database.execute("UPDATE files SET seen = 0 WHERE parent = ?", (parent,))
            database.execute("DELETE FROM absent WHERE parent = ?", (parent,))
            database.execute("DELETE FROM listed WHERE parent = ?", (parent,))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with _disk_full_said(self._folder), self._lock, self._database as database:
            yield database

    def _put(self, files: Iterable[File], seen: float) -> None:
        with self._writing() as database:
            for file in files:
                database.execute("DELETE FROM absent WHERE parent = ? AND name = ?", (file.parent, file.name))
                database.execute(
                    f"INSERT OR REPLACE INTO files ({_COLUMNS}, seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*(getattr(file, name) for name in _COLUMNS.split(", ")), seen),
                )

    def _is_listed(self, parent: str) -> bool:
        row = self._one("SELECT seen FROM listed WHERE parent = ?", (parent,))
        return row is not None and self._is_fresh(row[0])

    def _is_fresh(self, seen: float) -> bool:
        # A time in the future is a clock that was set back.
        return -1 < time.time() - seen < self.trust

    def _one(self, query: str, values: tuple[str, ...] = ()) -> tuple | None:
        with self._lock:
            return self._database.execute(query, values).fetchone()


@contextmanager
def _disk_full_said(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise
        raise DiskFull(
            f"The disk of {folder} is full, or fails.", "Free space on it, or set HAVERSACK_CACHE."
        ) from error


def _opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=30, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, _VERSION):
        database.close()
        raise sqlite3.DatabaseError(f"version {version}")
    with database:
        # Two processes may open it first at the same moment.
        database.execute("BEGIN IMMEDIATE")
        if database.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
    return database
