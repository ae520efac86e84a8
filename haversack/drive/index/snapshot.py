"""Snapshots: the index stored on the drive, so that the next machine need not list folders that this one has listed.

A snapshot is one gzip file of JSON lines in My Drive, marked as haversack's in `appProperties`. Its first line has the
id of My Drive and a page token of the changes feed; then comes each folder, followed by its files. A machine with an
empty index loads the newest snapshot before it lists anything, and applies the changes since its token in the same
transaction. A snapshot is saved only if the index holds more names than a few calls can list.

A snapshot is trusted for names and sizes only: bytes are read from the drive and compared with the drive's own hashes.
It is ignored if it is damaged, of another drive or of another format version, or if too much has changed since.

A new snapshot is complete on the drive before older ones are deleted for good. If two machines save at once, the newer
of the two snapshots stays.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import itertools
import logging
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import aiohttp
import msgspec
from filelock import FileLock, Timeout
from isal import igzip, isal_zlib

from haversack import disk
from haversack.drive.index.index import DriveIndex
from haversack.drive.index.rows import ListedFolder, RowInFolder
from haversack.drive.remote import calls
from haversack.drive.remote.api import Changes, DriveApi, File, ResumableUpload
from haversack.errors import HaversackError, IntegrityError
from haversack.http import wait

_log = logging.getLogger(__name__)

NAME = ".haversack-index.jsonl.gz"
KIND = "index"
_FORMAT = 1
_MIN_NAMES = 1000
# The share of the names that must have changed since the last snapshot.
_MIN_CHANGED = 0.05
_MAX_CHANGES_PAGES = 30
_MAX_LINE = 1 << 16
_ROWS_AT_ONCE = 1000
_CHUNK = 1 << 20
_COMPRESSION = 2
_DAMAGED = cast(type[Exception], isal_zlib.error)
_REBUILT = "The drive's folders are listed instead."


class _SnapshotLine(msgspec.Struct, omit_defaults=True):
    """A line that is no file: the head, a folder, or the end.

    The head has `haversack` (= `KIND`), `form` (the format version), `root` and `token`; a folder has `folder` (its id)
    and `listed`; the last line has `end`.
    """

    haversack: str = ""
    form: int = 0
    root: str = ""
    token: str = ""
    folder: str = ""
    listed: bool = False
    end: bool = False


_Id = Annotated[str, msgspec.Meta(min_length=1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Time = Annotated[float, msgspec.Meta(ge=-1e11, le=1e12)]
# `rows.RowInFolder` with the ranges that are accepted.
_Row = tuple[_Id, str, str, _Count, str, _Time, _Count, _Time, str, str]
_DECODER = msgspec.json.Decoder(_SnapshotLine | _Row)
_ENCODER = msgspec.json.Encoder()


def search(mark: str) -> calls.Call[calls.Page]:
    """Return the call that finds the snapshots on a drive, those in the trash excluded.

    They are the files whose `appProperties` have the key `mark` with the value `KIND`.
    """
    return calls.search(f"appProperties has {{ key='{mark}' and value='{KIND}' }} and trashed = false")


def newest(found: Sequence[File]) -> File | None:
    """Return the file that was created last among those in `found` with the snapshots' name; None if there is none."""
    return max((file for file in found if file.name == NAME), key=lambda file: (file.created, file.id), default=None)


class Snapshots:
    """Loads and saves snapshots of `index`. Thread-safe.

    Args:
        api: The drive.
        index: Its index.
        root: The id of the drive's root folder, which the snapshots are in.
        mark: The key in their `appProperties` by which they are found.
    """

    def __init__(self, api: DriveApi, index: DriveIndex, root: str, mark: str) -> None:
        self._api = api
        self._index = index
        self._root = root
        self._mark = mark
        self._loaded = threading.Event()
        self._loaded.set()

    # Loading

    def start_loading(self, file: File) -> None:
        """Load the snapshot `file` on a thread of its own; `wait` waits for it. A failure is only logged."""
        self._loaded.clear()
        threading.Thread(target=self._load, args=(file,), name="haversack-snapshot", daemon=True).start()

    def wait(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until the load that `start_loading` began, if any, has succeeded or failed."""
        self._loaded.wait(timeout)

    def _load(self, file: File) -> None:
        try:
            self.load(file)
        except (HaversackError, OSError) as error:
            _log.warning("The snapshot of the drive's index is not used: %s", error)
        finally:
            self._loaded.set()

    def load(self, file: File) -> None:
        """Add the snapshot `file`, and the changes since it was made, to the index; all of it or nothing.

        Raises `IntegrityError` if the snapshot cannot be used, `ConnectionFailed`, `SignInError`, `RemoteError`,
        `DiskFull`, and `OSError` if the temporary copy cannot be written.
        """
        path = self._temporary_path()
        try:
            with open(path, "xb") as target:
                wait(self._download(file, target))
            token = _read_head(path, self._root)
            changes = wait(self._changes_since(token))
            self._index.restore(_read_folders(path), changes, token)
        finally:
            path.unlink(missing_ok=True)
        self._record_extent()

    async def _download(self, file: File, target: BinaryIO) -> None:
        """Write the bytes of `file` to `target`. Raises `IntegrityError` if they break off or their MD5 differs."""
        digest = hashlib.md5(usedforsecurity=False)
        try:
            async with self._api.download(file.id, 0, file.size) as response:
                async for chunk in response.content.iter_chunked(_CHUNK):
                    digest.update(chunk)
                    await asyncio.to_thread(target.write, chunk)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise IntegrityError(f"The snapshot's download failed ({error}).", _REBUILT) from error
        if digest.hexdigest() != file.md5:
            raise IntegrityError("The snapshot's MD5 is not the one that the drive has for it.", _REBUILT)

    async def _changes_since(self, token: str) -> list[Changes]:
        """Return all pages of the changes feed after `token`. Raises `IntegrityError` if they are too many."""
        pages: list[Changes] = []
        async for page in self._api.changes(token):
            pages.append(page)
            if len(pages) >= _MAX_CHANGES_PAGES and not page.last:
                raise IntegrityError("Too much has changed on the drive since the snapshot was made.", _REBUILT)
        return pages

    # Saving

    def is_worth_saving(self) -> bool:
        """Whether the index holds at least 1,000 names and has changed enough since the last snapshot.

        Enough: the difference in the number of names plus the number of log entries, since this machine last loaded or
        saved a snapshot, is more than 5 % of the names.
        """
        count, _ = self._index.count()
        if count < _MIN_NAMES:
            return False
        names, mark = (int(one) for one in (self._index.fact("snapshot") or "0 0").split())
        changed = abs(count - names) + self._index.mark() - mark
        return changed > _MIN_CHANGED * count

    def save(self) -> File | None:
        """Upload a snapshot of the index, then delete all but the newest snapshot on the drive for good.

        Returns the uploaded file; None, without an upload, while another process of this machine saves one. Raises
        `ConnectionFailed`, `SignInError`, `RemoteError`, `QuotaExceeded`, `IntegrityError`, `DiskFull`, and `OSError`
        if the temporary copy cannot be written.
        """
        path = self._temporary_path()
        lock = FileLock(self._index.folder / "snapshot.lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        with lock:
            try:
                self._write(path)
                uploaded = self._upload(path)
            finally:
                path.unlink(missing_ok=True)
            self._record_extent()
            return uploaded

    def _write(self, path: Path) -> None:
        """Write a snapshot of the index to the new file `path`."""
        with open(path, "xb") as raw, igzip.open(raw, "wb", compresslevel=_COMPRESSION) as file:
            with self._index.frozen() as (token, folders):
                head = _SnapshotLine(haversack=KIND, form=_FORMAT, root=self._root, token=token)
                file.write(_ENCODER.encode_lines([head]))
                for folder in folders:
                    files = iter(folder.files)
                    lines: list[_SnapshotLine | RowInFolder] = [_SnapshotLine(folder=folder.id, listed=folder.listed)]
                    while lines:
                        file.write(_ENCODER.encode_lines(lines))
                        lines = list(itertools.islice(files, _ROWS_AT_ONCE))
            file.write(_ENCODER.encode_lines([_SnapshotLine(end=True)]))

    def _upload(self, path: Path) -> File:
        """Upload the snapshot at `path`, delete the older ones, and return the uploaded file."""
        status = path.stat()
        digest = disk.md5(path)
        upload = ResumableUpload(
            source=path,
            size=status.st_size,
            md5=digest,
            file_id=wait(self._api.new_id()),
            exists=False,
            parent=self._root,
            name=NAME,
            modified=status.st_mtime,
            marks={self._mark: KIND},
            exclusive=True,
        )
        uploaded = wait(self._api.upload(upload))
        found = [file for file in wait(self._api.send(search(self._mark))).files if file.name == NAME]
        latest = newest([*found, uploaded]) or uploaded
        for file in found:
            if file.id != latest.id:
                wait(self._api.delete(file.id))
                self._index.forget(file.id)
        # After the older ones are gone from the index: it is shown under their name, without a number.
        if uploaded.id == latest.id:
            self._index.put(uploaded)
        return uploaded

    def _record_extent(self) -> None:
        """Record how many names the index holds, and its log position, for `is_worth_saving`."""
        self._index.set_facts(snapshot=f"{self._index.count()[0]} {self._index.mark()}")

    def _temporary_path(self) -> Path:
        return self._index.folder / f"snapshot-{os.getpid()}-{secrets.token_hex(4)}"


def _read_head(path: Path, root: str) -> str:
    """Return the page token in the head of the snapshot at `path`.

    Raises `IntegrityError` if the head is missing, of another format version, or of a drive whose root is not `root`.
    """
    head = next(_read_lines(path), [None])[0]
    if not isinstance(head, _SnapshotLine) or (head.haversack, head.form) != (KIND, _FORMAT):
        raise IntegrityError("The snapshot has another format version.", _REBUILT)
    if head.root != root or not head.token:
        raise IntegrityError("The snapshot is of another drive.", _REBUILT)
    return head.token


def _read_folders(path: Path) -> Iterator[ListedFolder]:
    """Yield the folders of the snapshot at `path`, a large one in several parts.

    Raises `IntegrityError`, also after some were yielded, if the snapshot is damaged.
    """
    lines = itertools.chain.from_iterable(_read_lines(path))
    next(lines)
    folder, files, ended = _SnapshotLine(), [], False
    for line in lines:
        if ended:
            raise IntegrityError("The snapshot has lines after its end.", _REBUILT)
        if not isinstance(line, _SnapshotLine):
            files.append(line)
            if len(files) < _ROWS_AT_ONCE:
                continue
        if folder.folder:
            yield ListedFolder(folder.folder, folder.listed, files)
        elif files:
            raise IntegrityError("The snapshot has files before its first folder.", _REBUILT)
        files = []
        if isinstance(line, _SnapshotLine):
            folder, ended = line, line.end
            if not ended and not folder.folder:
                raise IntegrityError("The snapshot has a folder without an id.", _REBUILT)
    if not ended:
        raise IntegrityError("The snapshot has no end.", _REBUILT)


def _read_lines(path: Path) -> Iterator[list[_SnapshotLine | _Row]]:
    """Yield the decoded lines of the snapshot at `path`, many at a time, their types checked.

    Raises `IntegrityError`, also after some were yielded, if the file is no gzip file or a line is malformed.
    """
    rest = b""
    try:
        with igzip.open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                whole, newline, rest = (rest + chunk).rpartition(b"\n")
                if len(rest) > _MAX_LINE:
                    raise IntegrityError("The snapshot has a line that is too long.", _REBUILT)
                yield _DECODER.decode_lines(whole + newline)
            if rest:
                raise IntegrityError("The snapshot has no end.", _REBUILT)
    except (EOFError, ValueError, _DAMAGED, gzip.BadGzipFile, RecursionError) as error:
        raise IntegrityError(f"The snapshot cannot be read ({error}).", _REBUILT) from error
