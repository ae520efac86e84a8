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
from operator import itemgetter
from pathlib import Path
from typing import Any

from filelock import FileLock

from haversack.drive.index import names
from haversack.drive.index.rows import COLUMNS, EVERYTHING, INSIDE, ListedFolder, Rows, fact_of, opened, transaction
from haversack.drive.remote.calls import FOLDER, Changes, File
from haversack.errors import DiskFull, IntegrityError

_LOOKUP = f"""
SELECT EXISTS (SELECT 1 FROM listed WHERE parent = ?1) OR EXISTS (SELECT 1 FROM asked WHERE parent = ?1 AND shown = ?2),
    {COLUMNS}
FROM (SELECT 1) LEFT JOIN files ON parent = ?1 AND shown = ?2
"""
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
class Answered:
    """A page of a listing as the drive answered it, asked for at the mark `since`.

    `token` leads to the next page, which is kept where the listing is of `parent` alone. `ended` are the folders whose
    listing of that `number` is complete with this page.
    """

    files: Sequence[File]
    since: int
    parent: str | None = None
    token: str | None = None
    ended: Sequence[str] = ()
    number: int = 0


class DriveIndex:
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
        # Several processes may open it first at the same moment, and SQLite lets only one of them choose WAL.
        with _disk_full_said(folder), FileLock(folder / "index.lock"):
            try:
                self._writer = opened(self.path)
            except sqlite3.OperationalError:
                raise  # which says nothing against what is in it
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
                known, *row = self._one(_LOOKUP, parent, shown)
                answer = bool(known), File(*row) if row[0] is not None else None
                if len(self._warm) >= _WARM:
                    self._warm.clear()
                self._warm[parent, shown] = answer
        return answer

    def get(self, file_id: str) -> File | None:
        """The file of that id, when it is known."""
        row = self._one(f"SELECT {COLUMNS} FROM files WHERE id = ?", file_id)
        return File(*row) if row else None

    def is_listed(self, parent: str) -> bool:
        """Whether everything in that folder is known."""
        return self._one("SELECT 1 FROM listed WHERE parent = ?", parent) is not None

    def is_doubted(self, parent: str) -> bool:
        """Whether some of what is held of that folder may not be true."""
        return self._one("SELECT 1 FROM files WHERE parent = ? AND seen < 0", parent) is not None

    def page(self, parent: str, after: int = 0, count: int = 1000) -> list[tuple[int, str, File]]:
        """Some of what is known in a folder: a number to go on behind, the shown name, and the file of each."""
        query = f"SELECT {COLUMNS}, shown, rowid FROM files WHERE parent = ? AND rowid > ? ORDER BY rowid LIMIT ?"
        return [(row[-1], row[-2], File(*row[:-2])) for row in self._all(query, parent, after, count)]

    def unlisted(self, parents: Iterable[str]) -> list[str]:
        """The folders in those folders that are not listed yet, the last seen first."""
        found = self._all(
            "SELECT id FROM files WHERE parent IN (SELECT value FROM json_each(?)) AND mime_type = ?"
            " AND id NOT IN (SELECT parent FROM listed) ORDER BY rowid DESC",
            json.dumps(list(parents)),
            FOLDER,
        )
        return [row[0] for row in found]

    def not_listed(self, parents: Sequence[str]) -> list[str]:
        """Those of some folders of which not everything is known, in their order."""
        query = "SELECT parent FROM listed WHERE parent IN (SELECT value FROM json_each(?))"
        listed = {row[0] for row in self._all(query, json.dumps(parents))}
        return [parent for parent in parents if parent not in listed]

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

    def learn_lookup(self, parent: str, shown: Sequence[str], found: Sequence[File], since: int) -> bool:
        """`found` are the files in `parent` that have any of the names `shown`, as the drive answered.

        False when somebody changed something there meanwhile: ask again the next time.
        """
        with self._writing() as rows:
            if rows.touched(since) & {EVERYTHING, *(file.id for file in found)} or rows.all(
                "SELECT 1 FROM changed WHERE seq > ? AND parent = ?", since, parent
            ):
                return False
            ids = [file.id for file in found]
            gone = "parent = ? AND shown IN (SELECT value FROM json_each(?))"
            gone += " AND id NOT IN (SELECT value FROM json_each(?))"
            for (file_id,) in rows.all(
                f"SELECT id FROM files WHERE {gone}", parent, json.dumps(list(shown)), json.dumps(ids)
            ):
                rows.drop(file_id, own=True)
            rows.store(found)
            rows.database.executemany("INSERT OR IGNORE INTO asked VALUES (?, ?)", [(parent, one) for one in shown])
            return True

    def learn(self, files: Sequence[File], since: int) -> None:
        """The drive answered that these files are so."""
        with self._writing() as rows:
            touched = rows.touched(since)
            if EVERYTHING not in touched:
                rows.store([file for file in files if not file.trashed and file.id not in touched])

    def begin_listing(self, parent: str) -> tuple[int, str | None]:
        """The number of a listing of a folder and, where one broke off, the page token to go on with."""
        with self._writing() as rows:
            row = rows.database.execute("SELECT number, page FROM listing WHERE parent = ?", (parent,)).fetchone()
            if row is None:
                row = (rows.next_number(), None)
                rows.database.execute("INSERT INTO listing VALUES (?, ?, NULL)", (parent, row[0]))
            return int(row[0]), row[1]

    def begin_listings(self, parents: Sequence[str]) -> int:
        """The number of a listing of several folders, from their beginning."""
        with self._writing() as rows:
            number = rows.next_number()
            begun = [(parent, number) for parent in parents]
            rows.database.executemany("INSERT OR REPLACE INTO listing VALUES (?, ?, NULL)", begun)
            return number

    def learn_pages(self, pages: Sequence[Answered]) -> list[bool]:
        """Pages of listings, kept all at once; True for each that was.

        False when everything was forgotten since it was asked for: the listing is to begin anew.
        """
        with self._writing() as rows:
            return [_learn_page(rows, page) for page in pages]

    def drop_listing(self, parent: str) -> None:
        """Begin the listing of a folder anew the next time: the drive does not know its page token any more."""
        with self._writing() as rows:
            rows.database.execute("DELETE FROM listing WHERE parent = ?", (parent,))

    def doubt(self, parent: str) -> None:
        """Ask again about everything in that folder."""
        with self._writing() as rows:
            for table in ("listed", "listing", "asked"):
                rows.database.execute(f"DELETE FROM {table} WHERE parent = ?", (parent,))
            rows.database.execute("UPDATE files SET seen = -1 WHERE parent = ?", (parent,))

    # What this machine writes

    def put(self, *files: File) -> None:
        """This machine made or changed these files, and the drive answered that they are so."""
        with self._writing() as rows:
            rows.store(files, own=True)

    def put_empty(self, folder: File) -> None:
        """This machine made a folder, with nothing in it."""
        with self._writing() as rows:
            rows.store([folder], own=True)
            rows.database.execute("INSERT OR IGNORE INTO listed VALUES (?)", (folder.id,))

    def forget(self, file_id: str) -> None:
        """This machine took that file away, and with it what was known inside it."""
        with self._writing() as rows:
            rows.drop(file_id, own=True)

    # Changes

    def fact(self, name: str) -> str | None:
        """Something noted about the index as a whole."""
        row = self._one("SELECT value FROM facts WHERE name = ?", name)
        return row[0] if row else None

    def note(self, **facts: str | None) -> None:
        """Note facts about the index as a whole; None forgets one."""
        with self._writing() as rows:
            rows.note(**facts)

    def begin(self, token: str, polled: str) -> None:
        """Keep what is learned from now on true from `token`, got at `polled`, where there is no token yet."""
        with self._writing() as rows:
            if rows.fact("token") is None:
                rows.note(token=token, polled=polled)

    def apply(self, token: str, page: Changes, since: int, **facts: str) -> bool:
        """Take over a page of what changed since `token`; whether the index has come as far as the page.

        It has not when this machine itself did something to one of the files meanwhile, so that it is not clear which
        came first: the page is then to be asked for again. `facts` are noted with it.
        """
        with self._writing() as rows:
            if rows.fact("token") != token:
                return True  # another process was first
            whole = rows.take_over(page, rows.touched(since))
            rows.note(**facts, token=page.token if whole else token)
            rows.shorten_log()
            return whole

    def restore(self, folders: Iterable[ListedFolder], changes: Sequence[Changes], token: str) -> None:
        """Know also what was known at `token`, with what `changes` since, all of it or nothing.

        What is known already stands. Raises what `folders` raises, and `IntegrityError` when a file is there twice.
        """
        with self._writing() as rows:
            touched = rows.touched(0)
            try:
                rows.load(folders, touched)
            except sqlite3.IntegrityError as error:
                raise IntegrityError(f"What was known of the drive contradicts itself ({error}).") from error
            # What this machine did meanwhile may have come before or after: then the changes are asked for again.
            taken = [rows.take_over(page, touched) for page in changes]
            rows.note(token=changes[-1].token if changes and all(taken) else token)

    @contextmanager
    def frozen(self) -> Iterator[tuple[str, Iterator[ListedFolder]]]:
        """Everything that is known at one moment, with its token, folder by folder: one at a time, in order."""
        database = opened(self.path)
        try:
            database.execute("BEGIN")
            yield fact_of(database, "token") or "", _folders(database)
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
        with self._writing() as rows:
            for row in rows.all(f"SELECT {COLUMNS}, shown FROM files WHERE nth > 0 ORDER BY nth"):
                file, before = File(*row[:-1]), row[-1]
                plain = names.shown(file)
                if rows.is_free(file.parent, plain):
                    rows.database.execute("UPDATE files SET shown = ?, nth = 0 WHERE id = ?", (plain, file.id))
                    for shown in (before, plain):
                        rows.log(file.id, (file.parent, shown), file.version, own=False)

    def clear(self) -> None:
        """Know nothing any more: what is here cannot be brought up to date."""
        with self._writing() as rows:
            for table in ("files", "asked", "listed", "listing"):
                rows.database.execute(f"DELETE FROM {table}")
            rows.database.execute("DELETE FROM facts WHERE name != 'listings'")
            rows.log(EVERYTHING, ("", ""), None, own=False)

    # The index's own

    @contextmanager
    def _writing(self) -> Iterator[Rows]:
        with _disk_full_said(self.folder), self._changing, transaction(self._writer) as database:
            yield Rows(database, self._origin)

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


def _learn_page(rows: Rows, page: Answered) -> bool:
    touched = rows.touched(page.since)
    if EVERYTHING in touched:
        return False
    rows.store([file for file in page.files if file.id not in touched] if touched else page.files)
    if page.ended:
        rows.end_listing(page.ended, page.number)
    elif page.parent is not None:
        rows.database.execute("UPDATE listing SET page = ? WHERE parent = ?", (page.token, page.parent))
    return True


def _folders(database: sqlite3.Connection) -> Iterator[ListedFolder]:
    """Every folder of which something is known, the ones known to be empty too."""
    listed = {row[0] for row in database.execute("SELECT parent FROM listed")}
    rows = database.execute(f"SELECT parent, {INSIDE} FROM files WHERE seen >= 0 ORDER BY parent")
    filled = set()
    for parent, inside in itertools.groupby(rows, key=itemgetter(0)):
        filled.add(parent)
        yield ListedFolder(parent, parent in listed, (row[1:] for row in inside))
    for parent in listed - filled:
        yield ListedFolder(parent, True, ())
