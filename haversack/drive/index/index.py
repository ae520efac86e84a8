"""The index of a drive: files by id, the names in folders, and names that were looked up and do not exist.

The index is an SQLite database in the cache folder, one per drive, shared by all processes of this machine. It holds a
page token of the changes feed, and one invariant: with the changes after that token applied, everything in the index is
as it is on the drive. So entries never expire.

Calls to the drive overlap with each other and with local writes. Three rules keep the invariant:

1. Every change that is applied, and every local write, is appended to a log. An answer is requested at a position of
   the log (`mark`) and is not stored where the log has newer entries about the same files.
2. A file's `version` only grows: a row never replaces one with a larger version.
3. A page of changes is applied only if the token that it was requested with is still the one in the database.

The index can be rebuilt from the drive at any time. So it is not synced to disk, and a damaged database is deleted.
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
from operator import itemgetter
from pathlib import Path
from typing import Any

from filelock import FileLock

from haversack.drive.index import names
from haversack.drive.index.rows import (
    COLUMNS,
    COLUMNS_IN_FOLDER,
    EVERYTHING,
    ListedFolder,
    Rows,
    connect,
    fact_of,
    transaction,
)
from haversack.drive.remote.calls import FOLDER, Changes, File
from haversack.errors import DiskFull, IntegrityError

_LOOKUP = f"""
SELECT EXISTS (SELECT 1 FROM listed WHERE parent = ?1) OR EXISTS (SELECT 1 FROM asked WHERE parent = ?1 AND shown = ?2),
    {COLUMNS}
FROM (SELECT 1) LEFT JOIN files ON parent = ?1 AND shown = ?2
"""
_LOOKUPS_CACHED = 4096
_MAX_DEPTH = 200


@dataclass(frozen=True)
class LogEntry:
    """An entry of the index's log: a file was created, changed or removed.

    Attributes:
        seq: The sequence number in the log.
        id: The file's id; `EVERYTHING` if the whole index was cleared.
        parent: The id of the folder in which it happened.
        shown: The name under which the file is or was shown in that folder.
    """

    seq: int
    id: str
    parent: str
    shown: str


@dataclass(frozen=True)
class ListingPage:
    """A page of a listing, as the drive answered a query for the files in one or more folders.

    Args:
        files: The files on the page.
        since: `DriveIndex.mark` when the page was requested.
        parent: The folder that is listed; None if the query named several.
        token: The page token of the next page; None on the last page. It is stored only with a `parent`.
        completed: The folders whose listing is complete with this page.
        number: The listing number, from `begin_listing` or `begin_listings`; used only with `completed`.
    """

    files: Sequence[File]
    since: int
    parent: str | None = None
    token: str | None = None
    completed: Sequence[str] = ()
    number: int = 0


class DriveIndex:
    """The index of one drive, in `folder`. Safe for concurrent use by threads and processes.

    - A *shown name* is the name under which a file is shown in a file system (`names`).
    - A folder is *listed* if the index holds every file in it. A *listing* that fetches them page by page has a number;
      larger is newer.
    - A file is *stale* once its folder was invalidated, until an answer of the drive has it again.
    - The *log* has an entry for each change of a file (`LogEntry`), with a sequence number.

    Every method that writes raises `DiskFull` if SQLite cannot write. A database that is damaged or has another schema
    version is deleted and created anew. Two connections: `_reader`, guarded by `_reader_lock`, never waits for a write
    transaction (WAL mode); `_writer` is guarded by `_writer_lock`.

    `_lookups` and `_counts` cache answers in memory until any process commits (`PRAGMA data_version` changes).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "index.db"
        self._origin = secrets.token_hex(4)
        self._reader_lock = threading.RLock()
        self._writer_lock = threading.RLock()
        self._data_version = 0
        self._counts: tuple[int, int] | None = None
        self._lookups: dict[tuple[str, str], tuple[bool, File | None]] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite lets only one process at a time set WAL mode on a new database.
        with _raising_disk_full(folder), FileLock(folder / "index.lock"):
            try:
                self._writer = connect(self.path)
            except sqlite3.OperationalError:
                raise  # busy, or the disk is full: the database itself may be sound
            except sqlite3.DatabaseError:
                for file in folder.glob("index.db*"):
                    file.unlink(missing_ok=True)
                self._writer = connect(self.path)
            self._reader = connect(self.path)

    # Reading

    def lookup(self, parent: str, shown: str) -> tuple[bool, File | None]:
        """Return (whether the answer is known, the file shown as `shown` in the folder `parent`).

        (True, None) means that there is no such file. The answer may be stale for as long as the changes feed lags.
        """
        with self._reader_lock:
            self._invalidate_caches()
            answer = self._lookups.get((parent, shown))
            if answer is None:
                known, *row = self._fetch_one(_LOOKUP, parent, shown)
                answer = bool(known), File(*row) if row[0] is not None else None
                if len(self._lookups) >= _LOOKUPS_CACHED:
                    self._lookups.clear()
                self._lookups[parent, shown] = answer
        return answer

    def get(self, file_id: str) -> File | None:
        """Return the file with this id; None if the index does not have it."""
        row = self._fetch_one(f"SELECT {COLUMNS} FROM files WHERE id = ?", file_id)
        return File(*row) if row else None

    def is_listed(self, parent: str) -> bool:
        """Whether the index holds every file of the folder `parent`."""
        return self._fetch_one("SELECT 1 FROM listed WHERE parent = ?", parent) is not None

    def has_stale_rows(self, parent: str) -> bool:
        """Whether some files of the folder are stale: invalidated, and in no answer of the drive since."""
        return self._fetch_one("SELECT 1 FROM files WHERE parent = ? AND seen < 0", parent) is not None

    def page(self, parent: str, after: int = 0, count: int = 1000) -> list[tuple[int, str, File]]:
        """Return up to `count` files of a folder as (position, shown name, file), in the order of their positions.

        `after` is the position of the last file of the previous page. Stale rows are included.
        """
        query = f"SELECT {COLUMNS}, shown, rowid FROM files WHERE parent = ? AND rowid > ? ORDER BY rowid LIMIT ?"
        return [(row[-1], row[-2], File(*row[:-2])) for row in self._fetch_all(query, parent, after, count)]

    def unlisted_subfolders(self, parents: Iterable[str]) -> list[str]:
        """Return the ids of the folders whose parent is in `parents` that the index holds and that are not listed.

        The most recently inserted come first.
        """
        found = self._fetch_all(
            "SELECT id FROM files WHERE parent IN (SELECT value FROM json_each(?)) AND mime_type = ?"
            " AND id NOT IN (SELECT parent FROM listed) ORDER BY rowid DESC",
            json.dumps(list(parents)),
            FOLDER,
        )
        return [row[0] for row in found]

    def without_listed(self, folders: Sequence[str]) -> list[str]:
        """Return those of the folder ids `folders` that are not listed, in the same order."""
        query = "SELECT parent FROM listed WHERE parent IN (SELECT value FROM json_each(?))"
        listed = {row[0] for row in self._fetch_all(query, json.dumps(folders))}
        return [folder for folder in folders if folder not in listed]

    def small_listed_folder(self) -> str | None:
        """Return the id of a folder that is completely known and has 1 to 20 files; None if none is found.

        Only 200 folders are looked at, in no particular order.
        """
        for (parent,) in self._fetch_all("SELECT parent FROM listed LIMIT 200"):
            count = "SELECT count(*) FROM (SELECT 1 FROM files WHERE parent = ? LIMIT 21)"
            if 0 < self._fetch_one(count, parent)[0] <= 20:
                return str(parent)
        return None

    def path_of(self, file_id: str, root: str) -> tuple[str, ...] | None:
        """Return the path of a file below the folder `root`, as names that the mount shows; () for `root` itself.

        None if a folder on the path is not in the index.
        """
        path: list[str] = []
        while file_id != root:
            row = self._fetch_one("SELECT parent, shown FROM files WHERE id = ?", file_id)
            if row is None or len(path) > _MAX_DEPTH:
                return None
            file_id = row[0]
            path.append(row[1])
        return tuple(reversed(path))

    def count(self) -> tuple[int, int]:
        """Return (number of files and folders in the index, number of listed folders)."""
        with self._reader_lock:
            self._invalidate_caches()
            if self._counts is None:
                self._counts = (
                    self._fetch_one("SELECT count(*) FROM files")[0],
                    self._fetch_one("SELECT count(*) FROM listed")[0],
                )
            return self._counts

    # Storing the drive's answers

    def mark(self) -> int:
        """Return the sequence number of the newest entry in the log of changes, 0 if there is none.

        Callers read it before a request to the drive and pass it as `since` to the `learn_…` methods, which reject an
        answer about files that changed after it.
        """
        row = self._fetch_one("SELECT seq FROM sqlite_sequence WHERE name = 'changed'")
        return row[0] if row else 0

    def learn_lookup(self, parent: str, shown: Sequence[str], found: Sequence[File], since: int) -> bool:
        """Store the answer to a lookup of the names `shown` in the folder `parent`.

        Args:
            parent: The folder's id.
            shown: The shown names that were looked up; each is now known, to exist or not.
            found: All files in the folder that have any of these names on the drive.
            since: `mark` from before the request.

        Files that are shown under one of the names and not in `found` are deleted. Returns True; False, and stores
        nothing, if the log has an entry after `since` about the folder or one of the files: the answer may be stale.
        """
        with self._writing() as rows:
            if rows.changed_since(since) & {EVERYTHING, *(file.id for file in found)} or rows.fetch_all(
                "SELECT 1 FROM changed WHERE seq > ? AND parent = ?", since, parent
            ):
                return False
            ids = [file.id for file in found]
            gone = "parent = ? AND shown IN (SELECT value FROM json_each(?))"
            gone += " AND id NOT IN (SELECT value FROM json_each(?))"
            for (file_id,) in rows.fetch_all(
                f"SELECT id FROM files WHERE {gone}", parent, json.dumps(list(shown)), json.dumps(ids)
            ):
                rows.drop(file_id, own=True)
            rows.store(found)
            rows.database.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?)", [(parent, one) for one in shown])
            return True

    def learn(self, files: Sequence[File], since: int) -> None:
        """Store files that the drive returned by id, except trashed ones and those with a log entry after `since`.

        `since` is `mark` from before the request. Nothing is stored if the index was cleared after it.
        """
        with self._writing() as rows:
            changed = rows.changed_since(since)
            if EVERYTHING not in changed:
                rows.store([file for file in files if not file.trashed and file.id not in changed])

    def begin_listing(self, parent: str) -> tuple[int, str | None]:
        """Start or resume the listing of a folder.

        Returns (listing number, page token to continue with). The token is None for the first page. A listing that was
        interrupted, also by the end of its process, keeps its number and its token.
        """
        with self._writing() as rows:
            row = rows.database.execute("SELECT number, page FROM listing WHERE parent = ?", (parent,)).fetchone()
            if row is None:
                row = (rows.next_listing_number(), None)
                rows.database.execute("INSERT INTO listing VALUES (?, ?, NULL)", (parent, row[0]))
            return int(row[0]), row[1]

    def begin_listings(self, parents: Sequence[str]) -> int:
        """Start the listing of several folders by one query, from its first page. Returns the listing number."""
        with self._writing() as rows:
            number = rows.next_listing_number()
            started = [(parent, number) for parent in parents]
            rows.database.executemany("INSERT OR REPLACE INTO listing VALUES (?, ?, NULL)", started)
            return number

    def learn_pages(self, pages: Sequence[ListingPage]) -> list[bool]:
        """Store pages of listings in one transaction. Returns for each whether it was stored.

        A page is refused if the index was cleared after the page was requested: restart its listing. Files with a log
        entry after the request are left out; the log's state of them is newer.
        """
        with self._writing() as rows:
            return [_store_page(rows, page) for page in pages]

    def drop_listing(self, parent: str) -> None:
        """Discard the number and the page token of an incomplete listing, so that the next one starts anew."""
        with self._writing() as rows:
            rows.database.execute("DELETE FROM listing WHERE parent = ?", (parent,))

    def invalidate(self, parent: str) -> None:
        """Mark everything in a folder as stale, and the folder as not listed: the next use asks the drive about it."""
        with self._writing() as rows:
            for table in ("listed", "listing", "asked"):
                rows.database.execute(f"DELETE FROM {table} WHERE parent = ?", (parent,))
            rows.database.execute("UPDATE files SET seen = -1 WHERE parent = ?", (parent,))

    # Local writes

    def put(self, *files: File) -> None:
        """Store files that this process created or changed on the drive, with the metadata that the drive returned.

        They are logged as local writes, also if the index has a newer version.
        """
        with self._writing() as rows:
            rows.store(files, own=True)

    def put_empty(self, folder: File) -> None:
        """Store a folder that this process created on the drive, and mark it as listed, for it is empty."""
        with self._writing() as rows:
            rows.store([folder], own=True)
            rows.database.execute("INSERT OR IGNORE INTO listed VALUES (?)", (folder.id,))

    def forget(self, file_id: str) -> None:
        """Delete from the index a file or folder that this process trashed or deleted, and everything below it."""
        with self._writing() as rows:
            rows.drop(file_id, own=True)

    # The changes feed

    def fact(self, name: str) -> str | None:
        """Return a value about the index as a whole, such as `token`, the changes feed's page token; None if unset."""
        row = self._fetch_one("SELECT value FROM facts WHERE name = ?", name)
        return row[0] if row else None

    def set_facts(self, **facts: str | None) -> None:
        """Store values about the index as a whole; None deletes one."""
        with self._writing() as rows:
            rows.set_facts(**facts)

    def set_first_token(self, token: str, polled: str) -> None:
        """Set the page token of the changes feed if there is none.

        `polled` is the time of its request, from `changes.stamp`.
        """
        with self._writing() as rows:
            if rows.fact("token") is None:
                rows.set_facts(token=token, polled=polled)

    def apply(self, token: str, page: Changes, since: int, **facts: str) -> bool:
        """Apply a page of the changes feed and store its token for the next page.

        Args:
            token: The page token that the page was requested with.
            page: The page.
            since: `mark` from before the request.
            **facts: Facts to store in the same transaction.

        Returns False if a change of the page conflicts with a log entry after `since` and was skipped; the token stays,
        so that the page is requested again. Returns True without applying anything if `token` is not the index's token
        any more: another process has applied the page.
        """
        with self._writing() as rows:
            if rows.fact("token") != token:
                return True
            complete = rows.apply_changes(page, rows.changed_since(since))
            rows.set_facts(**facts, token=page.token if complete else token)
            rows.trim_log()
            return complete

    def restore(self, folders: Iterable[ListedFolder], changes: Sequence[Changes], token: str) -> None:
        """Add the folders of a snapshot and the changes since, in one transaction.

        Args:
            folders: The snapshot's folders. Rows that are in the index stay unless theirs are newer, and files in
                the log are left out. An exception from the iterator rolls everything back.
            changes: All pages of the changes feed after `token`.
            token: The page token of the snapshot. It becomes the index's token if a change conflicts with the log, so
                that the changes are requested again; otherwise that of the last page does.

        Raises `IntegrityError` if `folders` holds one file twice.
        """
        with self._writing() as rows:
            changed = rows.changed_since(0)
            try:
                rows.load(folders, changed)
            except sqlite3.IntegrityError as error:
                raise IntegrityError(f"The snapshot holds a file twice ({error}).") from error
            applied = [rows.apply_changes(page, changed) for page in changes]
            rows.set_facts(token=changes[-1].token if changes and all(applied) else token)

    @contextmanager
    def frozen(self) -> Iterator[tuple[str, Iterator[ListedFolder]]]:
        """Yield (page token of the changes feed, folders with their files), read in one transaction.

        So later writes are not seen; the transaction ends with the block. Stale files are left out. Consume each
        folder's files before the next folder.
        """
        database = connect(self.path)
        try:
            database.execute("BEGIN")
            yield fact_of(database, "token") or "", _all_folders(database)
        finally:
            database.close()

    def changes_by_others(self, since: int) -> list[LogEntry]:
        """Return the log entries after `since` that are not local writes of this process, oldest first."""
        rows = self._fetch_all(
            "SELECT seq, id, parent, shown FROM changed WHERE seq > ? AND origin != ? ORDER BY seq", since, self._origin
        )
        return [LogEntry(*row) for row in rows]

    def restore_plain_names(self) -> None:
        """Show files without their number, `name.ext` for `name (1).ext`, where the plain name is free."""
        if not self._fetch_all("SELECT 1 FROM files WHERE nth > 0 LIMIT 1"):
            return
        with self._writing() as rows:
            for row in rows.fetch_all(f"SELECT {COLUMNS}, shown FROM files WHERE nth > 0 ORDER BY nth"):
                file, before = File(*row[:-1]), row[-1]
                plain = names.shown_name(file)
                if rows.is_free(file.parent, plain):
                    rows.database.execute("UPDATE files SET shown = ?, nth = 0 WHERE id = ?", (plain, file.id))
                    for shown in (before, plain):
                        rows.append_log(file.id, (file.parent, shown), file.version, own=False)

    def clear(self) -> None:
        """Delete all files, listings and facts; only the counter of listings and the log stay.

        The log gets an entry `EVERYTHING`, so that answers to requests made before are refused.
        """
        with self._writing() as rows:
            for table in ("files", "asked", "listed", "listing"):
                rows.database.execute(f"DELETE FROM {table}")
            rows.database.execute("DELETE FROM facts WHERE name != 'listings'")
            rows.append_log(EVERYTHING, ("", ""), None, own=False)

    # Internal

    @contextmanager
    def _writing(self) -> Iterator[Rows]:
        """Run the block in a write transaction. Raises `DiskFull`."""
        with _raising_disk_full(self.folder), self._writer_lock, transaction(self._writer) as database:
            yield Rows(database, self._origin)

    def _invalidate_caches(self) -> None:
        """Clear the caches in memory if any connection, of any process, has committed since they were filled."""
        (version,) = self._reader.execute("PRAGMA data_version").fetchone()
        if version != self._data_version:
            self._data_version, self._counts = version, None
            self._lookups.clear()

    def _fetch_one(self, query: str, *values: Any) -> Any:
        with self._reader_lock:
            return self._reader.execute(query, values).fetchone()

    def _fetch_all(self, query: str, *values: Any) -> list[Any]:
        with self._reader_lock:
            return self._reader.execute(query, values).fetchall()


@contextmanager
def _raising_disk_full(folder: Path) -> Iterator[None]:
    """Turn SQLite's errors for a full or failing disk into `DiskFull`."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise
        raise DiskFull(
            f"The index in {folder} cannot be written: its disk is full or fails.",
            "Free space on it, or set HAVERSACK_CACHE to a folder on another disk.",
        ) from error


def _store_page(rows: Rows, page: ListingPage) -> bool:
    """Store one page of a listing; False if the index was cleared after it was requested."""
    changed = rows.changed_since(page.since)
    if EVERYTHING in changed:
        return False
    rows.store([file for file in page.files if file.id not in changed] if changed else page.files)
    if page.completed:
        rows.complete_listing(page.completed, page.number)
    elif page.parent is not None:
        rows.database.execute("UPDATE listing SET page = ? WHERE parent = ?", (page.token, page.parent))
    return True


def _all_folders(database: sqlite3.Connection) -> Iterator[ListedFolder]:
    """Yield every folder that has rows which are not stale, then the folders that are known to be empty."""
    listed = {row[0] for row in database.execute("SELECT parent FROM listed")}
    rows = database.execute(f"SELECT parent, {COLUMNS_IN_FOLDER} FROM files WHERE seen >= 0 ORDER BY parent")
    with_files = set()
    for parent, files in itertools.groupby(rows, key=itemgetter(0)):
        with_files.add(parent)
        yield ListedFolder(parent, parent in listed, (row[1:] for row in files))
    for parent in listed - with_files:
        yield ListedFolder(parent, True, ())
