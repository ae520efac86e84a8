"""What is known of the drive, so that it is not asked again: files by id, the names in folders, and those that are not.

SQLite in the cache folder, one per drive, shared by all processes of this machine. It holds a token of the drive's list
of changes, and one sentence is true of it at any time: with what changed since that token applied, everything in it is
as it is on the drive. So what was learned once stays known, and no clock is asked how long to believe it.

Three rules keep the sentence true although calls overlap. Every change that is applied or made by this machine goes
into a log; what was asked before an entry of the log is not believed against it. A file's `version` only grows, so an
older state never takes the place of a newer one. And changes count only for the process whose token is still the one
in the database.

The whole of it can be thrown away at any time, so it is not synced to disk and a broken one is made anew.
"""

from __future__ import annotations

import itertools
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.drive import names
from haversack.drive.calls import FOLDER, Changes, File
from haversack.errors import DiskFull

_VERSION = 2
# `seen` is the number of the listing that was begun last when the row was written: what a listing that is complete has
# not seen is gone; below 0 the row is doubted. `nth` is the number in `name (1).ext`. In `changed` a version of NULL is
# a file that is gone.
_SCHEMA = f"""
CREATE TABLE files (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, parent TEXT NOT NULL, mime_type TEXT NOT NULL, size INTEGER NOT NULL,
    md5 TEXT NOT NULL, modified REAL NOT NULL, version INTEGER NOT NULL, created REAL NOT NULL, target TEXT NOT NULL,
    target_type TEXT NOT NULL, shown TEXT NOT NULL, nth INTEGER NOT NULL, seen INTEGER NOT NULL
);
CREATE INDEX by_shown ON files (parent, shown);
CREATE INDEX by_parent ON files (parent);
CREATE INDEX doubted ON files (parent) WHERE seen < 0;
CREATE INDEX by_nth ON files (nth) WHERE nth > 0;
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
_COLUMNS = "id, name, parent, mime_type, size, md5, modified, version, created, target, target_type"
_STORE = f"""
INSERT INTO files ({_COLUMNS}, shown, nth, seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)
ON CONFLICT (id) DO UPDATE SET
    shown = CASE WHEN name = excluded.name AND parent = excluded.parent THEN shown ELSE excluded.shown END,
    nth = CASE WHEN name = excluded.name AND parent = excluded.parent THEN nth ELSE 0 END,
    name = excluded.name, parent = excluded.parent, mime_type = excluded.mime_type, size = excluded.size,
    md5 = excluded.md5, modified = excluded.modified, version = excluded.version, created = excluded.created,
    target = excluded.target, target_type = excluded.target_type, seen = excluded.seen
WHERE excluded.version >= version
"""
_BELOW = (
    "WITH RECURSIVE below (id) AS (SELECT ? UNION SELECT files.id FROM files JOIN below ON files.parent = below.id)"
)
EVERYTHING = "*"
"""Stands in the log for every file there is."""
_LOGGED = 50_000
_WARM = 4096
_DEEPEST = 200


@dataclass(frozen=True)
class Touched:
    """A place whose file was changed, made or taken away: `seq` numbers what happened, `shown` is the name there."""

    seq: int
    id: str
    parent: str
    shown: str


@dataclass(frozen=True)
class Folder:
    """What is known in a folder, or a part of it; `listed` says that all of it is known."""

    id: str
    listed: bool
    files: Iterable[File]


class Index:
    """The index of one drive in `folder`. Safe to use from several threads and processes; raises `DiskFull`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "index.db"
        self._origin = secrets.token_hex(4)
        self._reading = threading.RLock()
        self._changing = threading.RLock()
        self._state = 0
        self._counted: tuple[int, int] | None = None
        self._warm: dict[tuple[str, str], tuple[bool, File | None]] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _disk_full_said(folder):
            try:
                self._writer = opened(self.path)
            except sqlite3.DatabaseError:
                for file in folder.glob("index.db*"):
                    file.unlink(missing_ok=True)
                self._writer = opened(self.path)
            # Looking never waits for somebody who writes: in WAL the two do not meet.
            self._reader = opened(self.path)

    # Looking

    def lookup(self, parent: str, shown: str) -> tuple[bool, File | None]:
        """Whether it is known what is shown under that name in a folder, and the file; None when there is none."""
        with self._reading:
            self._forget_what_changed()
            answer = self._warm.get((parent, shown))
            if answer is None:
                row = self._one(f"SELECT {_COLUMNS} FROM files WHERE parent = ? AND shown = ?", parent, shown)
                known = self._one(
                    "SELECT 1 FROM listed WHERE parent = ?1 UNION ALL"
                    " SELECT 1 FROM asked WHERE parent = ?1 AND shown = ?2",
                    parent,
                    shown,
                )
                answer = known is not None, _file(row) if row else None
                if len(self._warm) >= _WARM:
                    self._warm.clear()
                self._warm[parent, shown] = answer
        return answer

    def get(self, file_id: str) -> File | None:
        """The file of that id, when it is known."""
        row = self._one(f"SELECT {_COLUMNS} FROM files WHERE id = ?", file_id)
        return _file(row) if row else None

    def is_listed(self, parent: str) -> bool:
        """Whether everything in that folder is known."""
        return self._one("SELECT 1 FROM listed WHERE parent = ?", parent) is not None

    def is_doubted(self, parent: str) -> bool:
        """Whether some of what is held of that folder may not be true."""
        return self._one("SELECT 1 FROM files WHERE parent = ? AND seen < 0", parent) is not None

    def page(self, parent: str, after: int = 0, count: int = 1000) -> list[tuple[int, str, File]]:
        """Some of what is known in a folder: a number to go on behind, the shown name, and the file of each."""
        query = f"SELECT {_COLUMNS}, shown, rowid FROM files WHERE parent = ? AND rowid > ? ORDER BY rowid LIMIT ?"
        return [(row[-1], row[-2], _file(row)) for row in self._all(query, parent, after, count)]

    def unlisted(self, parents: Iterable[str]) -> list[str]:
        """The folders in those folders that are not listed yet, the last seen first."""
        found = self._all(
            "SELECT id FROM files WHERE parent IN (SELECT value FROM json_each(?)) AND mime_type = ?"
            " AND id NOT IN (SELECT parent FROM listed) ORDER BY rowid DESC",
            json.dumps(list(parents)),
            FOLDER,
        )
        return [row[0] for row in found]

    def small_folder(self) -> str | None:
        """A folder that is known to hold something, but not much."""
        for (parent,) in self._all("SELECT parent FROM listed LIMIT 200"):
            if 0 < self._one("SELECT count(*) FROM (SELECT 1 FROM files WHERE parent = ? LIMIT 21)", parent)[0] <= 20:
                return str(parent)
        return None

    def way_to(self, file_id: str, root: str) -> tuple[str, ...] | None:
        """The shown names that lead from the folder `root` to a file; None when they are not all known."""
        way: list[str] = []
        while file_id != root:
            row = self._one("SELECT parent, shown FROM files WHERE id = ?", file_id)
            if row is None or len(way) > _DEEPEST:
                return None
            file_id = row[0]
            way.append(row[1])
        return tuple(reversed(way))

    def count(self) -> tuple[int, int]:
        """How many names are known, and how many folders with all they hold."""
        with self._reading:
            self._forget_what_changed()
            if self._counted is None:
                self._counted = (
                    self._one("SELECT count(*) FROM files")[0],
                    self._one("SELECT count(*) FROM listed")[0],
                )
            return self._counted

    # Learning what the drive answers

    def mark(self) -> int:
        """Where the log ends now. Take it before asking the drive, and give it back with what was learned."""
        row = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'changed'")
        return row[0] if row else 0

    def learn_lookup(self, parent: str, shown: Sequence[str], found: Sequence[File], since: int) -> None:
        """`found` are the files in `parent` that have any of the names `shown`, as the drive answered."""
        with self._writing() as database:
            if self._touched(since) & {EVERYTHING, *(file.id for file in found)} or self._all_of(
                database, "SELECT 1 FROM changed WHERE seq > ? AND parent = ?", since, parent
            ):
                return  # somebody changed something here meanwhile: ask again next time
            ids = [file.id for file in found]
            gone = "parent = ? AND shown IN (SELECT value FROM json_each(?))"
            gone += " AND id NOT IN (SELECT value FROM json_each(?))"
            for (file_id,) in self._all_of(
                database, f"SELECT id FROM files WHERE {gone}", parent, json.dumps(list(shown)), json.dumps(ids)
            ):
                self._drop(database, file_id, self._origin)
            self._store(database, found)
            database.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?)", [(parent, one) for one in shown])

    def begin_listing(self, parent: str) -> tuple[int, str | None]:
        """The number of a listing of a folder and, where one broke off, the page token to go on with."""
        with self._writing() as database:
            row = database.execute("SELECT number, page FROM listing WHERE parent = ?", (parent,)).fetchone()
            if row is None:
                row = (self._next_number(database), None)
                database.execute("INSERT INTO listing VALUES (?, ?, NULL)", (parent, row[0]))
            return int(row[0]), row[1]

    def begin_listings(self, parents: Sequence[str]) -> int:
        """The number of a listing of several folders, from their beginning."""
        with self._writing() as database:
            number = self._next_number(database)
            rows = [(parent, number) for parent in parents]
            database.executemany("INSERT OR REPLACE INTO listing VALUES (?, ?, NULL)", rows)
            return number

    def learn_page(self, parent: str | None, files: Sequence[File], since: int, page: str | None) -> bool:
        """A page of a listing, of `parent` alone if that is given, and the token of the next page.

        False when everything was forgotten meanwhile: the listing is to begin anew.
        """
        with self._writing() as database:
            touched = self._touched(since)
            if EVERYTHING in touched:
                return False
            self._store(database, [file for file in files if file.id not in touched] if touched else files)
            if parent is not None:
                database.execute("UPDATE listing SET page = ? WHERE parent = ?", (page, parent))
            return True

    def end_listing(self, parents: Sequence[str], number: int) -> None:
        """The listing of that number is complete; what it has not seen is gone."""
        with self._writing() as database:
            for parent in parents:
                gone = "SELECT id FROM files WHERE parent = ? AND seen < ?"
                for (file_id,) in self._all_of(database, gone, parent, number):
                    self._drop(database, file_id, self._origin)
            places = [(parent,) for parent in parents]
            database.executemany("DELETE FROM asked WHERE parent = ?", places)
            database.executemany("DELETE FROM listing WHERE parent = ?", places)
            database.executemany("INSERT OR IGNORE INTO listed VALUES (?)", places)

    def drop_listing(self, parent: str) -> None:
        """Begin the listing of a folder anew the next time: the drive does not know its page token any more."""
        with self._writing() as database:
            database.execute("DELETE FROM listing WHERE parent = ?", (parent,))

    def doubt(self, parent: str) -> None:
        """Ask again about everything in that folder."""
        with self._writing() as database:
            for table in ("listed", "listing", "asked"):
                database.execute(f"DELETE FROM {table} WHERE parent = ?", (parent,))
            database.execute("UPDATE files SET seen = -1 WHERE parent = ?", (parent,))

    # What this machine writes

    def put(self, *files: File) -> None:
        """This machine made or changed these files, and the drive answered that they are so."""
        with self._writing() as database:
            self._store(database, files, own=True)

    def put_empty(self, folder: File) -> None:
        """This machine made a folder, with nothing in it."""
        with self._writing() as database:
            self._store(database, [folder], own=True)
            database.execute("INSERT OR IGNORE INTO listed VALUES (?)", (folder.id,))

    def forget(self, file_id: str) -> None:
        """This machine took that file away, and with it what was known inside it."""
        with self._writing() as database:
            self._drop(database, file_id, self._origin)

    # Changes

    def fact(self, name: str) -> str | None:
        """Something noted about the index as a whole."""
        row = self._one("SELECT value FROM facts WHERE name = ?", name)
        return row[0] if row else None

    def note(self, **facts: str | None) -> None:
        """Note facts about the index as a whole; None forgets one."""
        with self._writing() as database:
            _note(database, facts)

    def begin(self, token: str, polled: str) -> None:
        """Keep what is learned from now on true from `token`, got at `polled`, where there is no token yet."""
        with self._writing() as database:
            if _fact(database, "token") is None:
                _note(database, {"token": token, "polled": polled})

    def apply(self, token: str, page: Changes, since: int, **facts: str) -> bool:
        """Take over a page of what changed since `token`; whether the index has come as far as the page.

        It has not when this machine itself did something to one of the files meanwhile, so that it is not clear which
        came first: the page is then to be asked for again. `facts` are noted with it.
        """
        with self._writing() as database:
            if _fact(database, "token") != token:
                return True  # another process was first
            whole = self._take_over(database, page, self._touched(since))
            _note(database, {**facts, "token": page.token if whole else token})
            last = database.execute("SELECT max(seq) FROM changed").fetchone()[0] or 0
            database.execute("DELETE FROM changed WHERE seq <= ?", (last - _LOGGED,))
            return whole

    def restore(self, folders: Iterable[Folder], changes: Sequence[Changes], token: str) -> None:
        """Know also what was known at `token`, with what `changes` since, all of it or nothing.

        What is known already stands. Raises what `folders` raises.
        """
        with self._writing() as database:
            touched, number = self._touched(0), int(_fact(database, "listings") or 0)
            listed = set()
            for folder in folders:
                rows = [(*_row(file), names.shown(file), number) for file in folder.files if file.id not in touched]
                database.executemany(_STORE, rows)
                if folder.listed:
                    listed.add(folder.id)
            database.executemany("INSERT OR IGNORE INTO listed VALUES (?)", [(one,) for one in listed])
            twice = "SELECT parent, shown FROM files GROUP BY parent, shown HAVING count(*) > 1"
            for parent, shown in self._all_of(database, twice):
                self._separate(database, parent, shown)
            # What this machine did meanwhile may have come before or after: then the changes are asked for again.
            taken = [self._take_over(database, page, touched) for page in changes]
            _note(database, {"token": changes[-1].token if changes and all(taken) else token})

    @contextmanager
    def frozen(self) -> Iterator[tuple[str, Iterator[Folder]]]:
        """Everything that is known at one moment, with its token, folder by folder: one at a time, in order."""
        database = opened(self.path)
        try:
            database.execute("BEGIN")
            yield _fact(database, "token") or "", _folders(database)
        finally:
            database.close()

    def touched_since(self, seq: int) -> list[Touched]:
        """The places where something happened behind `seq` that this process did not do itself."""
        rows = self._all(
            "SELECT seq, id, parent, shown FROM changed WHERE seq > ? AND origin != ? ORDER BY seq", seq, self._origin
        )
        return [Touched(*row) for row in rows]

    def settle_names(self) -> None:
        """Give `name (1).ext` the plain name back where the file that had it is gone."""
        if not self._all("SELECT 1 FROM files WHERE nth > 0 LIMIT 1"):
            return
        with self._writing() as database:
            rows = self._all_of(database, f"SELECT {_COLUMNS}, shown FROM files WHERE nth > 0 ORDER BY nth")
            for row in rows:
                file, before = _file(row), row[-1]
                plain = names.shown(file)
                if self._free(database, file.parent, plain):
                    database.execute("UPDATE files SET shown = ?, nth = 0 WHERE id = ?", (plain, file.id))
                    for shown in (before, plain):
                        self._log(database, file.id, (file.parent, shown), file.version, "")

    def clear(self) -> None:
        """Know nothing any more: what is here cannot be brought up to date."""
        with self._writing() as database:
            for table in ("files", "asked", "listed", "listing"):
                database.execute(f"DELETE FROM {table}")
            database.execute("DELETE FROM facts WHERE name != 'listings'")
            self._log(database, EVERYTHING, ("", ""), None, "")

    # The index's own

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with _disk_full_said(self.folder), self._changing, transaction(self._writer) as database:
            yield database

    def _forget_what_changed(self) -> None:
        """What is kept in memory is of one state of the database; any commit, of any process, ends that."""
        (state,) = self._reader.execute("PRAGMA data_version").fetchone()
        if state != self._state:
            self._state, self._counted = state, None
            self._warm.clear()

    def _one(self, query: str, *values: Any) -> Any:
        with self._reading:
            return self._reader.execute(query, values).fetchone()

    def _all(self, query: str, *values: Any) -> list[Any]:
        with self._reading:
            return self._reader.execute(query, values).fetchall()

    @staticmethod
    def _all_of(database: sqlite3.Connection, query: str, *values: Any) -> list[Any]:
        return database.execute(query, values).fetchall()

    def _next_number(self, database: sqlite3.Connection) -> int:
        number = int(_fact(database, "listings") or 0) + 1
        _note(database, {"listings": str(number)})
        return number

    def _touched(self, since: int) -> set[str]:
        rows = self._writer.execute("SELECT id FROM changed WHERE seq > ?", (since,))
        return {row[0] for row in rows}

    def _take_over(self, database: sqlite3.Connection, page: Changes, touched: set[str]) -> bool:
        """Apply a page of changes; False when one meets what happened here meanwhile."""
        ids = json.dumps([change.file_id for change in page.changes])
        within = "WHERE id IN (SELECT value FROM json_each(?))"
        known = dict(self._all_of(database, f"SELECT id, version FROM files {within}", ids))
        whole, there = True, []
        for change in page.changes:
            file, version = change.file, known.get(change.file_id)
            if file is None or file.trashed:
                if version is not None and change.file_id in touched:
                    whole = False
                elif version is not None:
                    self._drop(database, change.file_id, "")
            elif version is None and change.file_id in touched:
                whole = False
            elif version is None or file.version > version:
                there.append(file)
        self._store(database, self._wanted(database, there, known), changed=True)
        return whole

    def _wanted(self, database: sqlite3.Connection, files: list[File], known: dict[str, int]) -> list[File]:
        """Those of changed files that belong to what is known: other folders are learned when they are asked for."""
        parents = json.dumps(list({file.parent for file in files}))
        watched = {
            row[0]
            for table in ("listed", "listing")
            for row in database.execute(
                f"SELECT parent FROM {table} WHERE parent IN (SELECT value FROM json_each(?))", (parents,)
            )
        }
        asked = "SELECT 1 FROM asked WHERE parent = ? AND shown = ?"
        return [
            file
            for file in files
            if file.id in known
            or file.parent in watched
            or database.execute(asked, (file.parent, names.shown(file))).fetchone()
        ]

    def _store(
        self, database: sqlite3.Connection, files: Sequence[File], *, own: bool = False, changed: bool = False
    ) -> None:
        """Write rows, each unless a newer one stands there, and log those that were changed or that changed."""
        if not files:
            return
        number = int(_fact(database, "listings") or 0)
        ids = json.dumps([file.id for file in files])
        within = "WHERE id IN (SELECT value FROM json_each(?))"
        before = {
            row[0]: row for row in database.execute(f"SELECT id, parent, shown, version FROM files {within}", (ids,))
        }
        database.executemany(_STORE, [(*_row(file), names.shown(file), number) for file in files])
        older = [(number, file.id) for file in files if file.id in before and before[file.id][3] > file.version]
        database.executemany("UPDATE files SET seen = ? WHERE id = ?", older)
        clashes = database.execute(
            "SELECT DISTINCT one.parent, one.shown FROM files AS one JOIN files AS other"
            " ON other.parent = one.parent AND other.shown = one.shown AND other.rowid != one.rowid"
            " WHERE one.id IN (SELECT value FROM json_each(?))",
            (ids,),
        ).fetchall()
        for parent, shown in clashes:
            self._separate(database, parent, shown)
        origin = self._origin if own else ""
        for file in files if own or changed else [file for file in files if file.id in before]:
            old = before.get(file.id)
            if old is not None and file.version <= old[3] and not own:
                continue
            now = database.execute("SELECT parent, shown FROM files WHERE id = ?", (file.id,)).fetchone()
            for place in {now, old[1:3]} if old is not None else {now}:
                self._log(database, file.id, place, file.version, origin)

    def _separate(self, database: sqlite3.Connection, parent: str, shown: str) -> None:
        """Of several files shown under one name the first made keeps it; the others get numbers."""
        rows = self._all_of(
            database,
            f"SELECT {_COLUMNS} FROM files WHERE parent = ? AND shown = ? ORDER BY nth, created, id",
            parent,
            shown,
        )
        for row in rows[1:]:
            file, nth = _file(row), 1
            while not self._free(database, parent, names.numbered(names.shown(file), nth)):
                nth += 1
            name = names.numbered(names.shown(file), nth)
            database.execute("UPDATE files SET shown = ?, nth = ? WHERE id = ?", (name, nth, file.id))
            self._log(database, file.id, (parent, name), file.version, "")

    def _free(self, database: sqlite3.Connection, parent: str, shown: str) -> bool:
        found = database.execute("SELECT 1 FROM files WHERE parent = ? AND shown = ?", (parent, shown))
        return found.fetchone() is None

    def _drop(self, database: sqlite3.Connection, file_id: str, origin: str) -> None:
        """Delete a row and all that is known below it."""
        row = database.execute("SELECT parent, shown FROM files WHERE id = ?", (file_id,)).fetchone()
        self._log(database, file_id, row or ("", ""), None, origin)
        below = [(one,) for (one,) in self._all_of(database, f"{_BELOW} SELECT id FROM below", file_id)]
        database.executemany("DELETE FROM files WHERE id = ?", below)
        for table in ("listed", "listing", "asked"):
            database.executemany(f"DELETE FROM {table} WHERE parent = ?", below)

    def _log(
        self, database: sqlite3.Connection, file_id: str, place: tuple[str, str], version: int | None, origin: str
    ) -> None:
        row = (file_id, *place, version, origin)
        database.execute("INSERT INTO changed (id, parent, shown, version, origin) VALUES (?, ?, ?, ?, ?)", row)


def opened(path: Path) -> sqlite3.Connection:
    """A connection to an index, made where there is none. Raises `sqlite3.DatabaseError` for what is no index."""
    database = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -6000")
    database.execute(f"PRAGMA journal_size_limit = {32 << 20}")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, _VERSION):
        database.close()
        raise sqlite3.DatabaseError(f"version {version}")
    # Two processes may open it first at the same moment.
    with transaction(database):
        if database.execute("PRAGMA user_version").fetchone()[0] == 0:
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


def _folders(database: sqlite3.Connection) -> Iterator[Folder]:
    """Every folder of which something is known, the ones known to be empty too."""
    listed = {row[0] for row in database.execute("SELECT parent FROM listed")}
    rows = database.execute(f"SELECT {_COLUMNS} FROM files WHERE seen >= 0 ORDER BY parent")
    filled = set()
    for parent, inside in itertools.groupby(rows, key=lambda row: row[2]):
        filled.add(parent)
        yield Folder(parent, parent in listed, map(_file, inside))
    for parent in listed - filled:
        yield Folder(parent, True, ())


def _fact(database: sqlite3.Connection, name: str) -> str | None:
    row = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def _note(database: sqlite3.Connection, facts: dict[str, str | None] | dict[str, str]) -> None:
    for name, value in facts.items():
        if value is None:
            database.execute("DELETE FROM facts WHERE name = ?", (name,))
        else:
            database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _file(row: Sequence[Any]) -> File:
    file_id, name, parent, mime_type, size, md5, modified, version, created, target, target_type = row[:11]
    return File(
        file_id, name, parent, mime_type, size, md5, modified, version, created, target=target, target_type=target_type
    )


def _row(file: File) -> tuple[Any, ...]:
    return (
        file.id, file.name, file.parent, file.mime_type, file.size, file.md5, file.modified, file.version,
        file.created, file.target, file.target_type,
    )  # fmt: skip
