"""The index on the drive, so that the next machine does not begin with nothing.

A snapshot is one gzip file of JSON lines on the drive, ours by its mark in `appProperties`: a head with the id of My
Drive and the token of the list of changes, then folders, each followed by what lies in it. A machine that knows nothing
loads the newest before anything is listed, takes over what changed since its token in the same transaction, and from
then on knows what the other one knew. It is only worth it for more names than a few calls can list.

Nothing in it is believed beyond names and sizes: bytes are checked against the drive's own answers when they are read.
What is broken, of another drive, of another form, or older than the drive's list of changes is passed over. A new one
is complete before the older ones are deleted, for good and by their mark; two machines that save at once both keep the
newer of the two.
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
from haversack.drive.index.rows import Inside, ListedFolder
from haversack.drive.remote import calls
from haversack.drive.remote.api import Changes, DriveApi, File, ResumableUpload
from haversack.errors import HaversackError, IntegrityError
from haversack.http import wait

_log = logging.getLogger(__name__)

NAME = ".haversack-index.jsonl.gz"
KIND = "index"
_FORM = 1
_FEWEST_NAMES = 1000
# As much of the names must have changed before another snapshot is worth its upload.
_WORTH = 0.05
_MOST_PAGES = 30
_LONGEST_LINE = 1 << 16
_ROWS_AT_ONCE = 1000
_PIECE = 1 << 20
_COMPRESSION = 2
_DAMAGE = cast(type[Exception], isal_zlib.error)


class _SnapshotLine(msgspec.Struct, omit_defaults=True):
    """What is no file: the head, a folder, which the files behind it lie in, or the end."""

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
# As `rows.Inside`.
_Row = tuple[_Id, str, str, _Count, str, _Time, _Count, _Time, str, str]
_DECODER = msgspec.json.Decoder(_SnapshotLine | _Row)
_ENCODER = msgspec.json.Encoder()


def search(mark: str) -> calls.Call[calls.Page]:
    """The call that finds the snapshots on a drive, which carry `mark`."""
    return calls.search(f"appProperties has {{ key='{mark}' and value='{KIND}' }} and trashed = false")


def newest(found: Sequence[File]) -> File | None:
    """The one of several snapshots that counts."""
    return max((file for file in found if file.name == NAME), key=lambda file: (file.created, file.id), default=None)


class Snapshots:
    """Snapshots of `index`, kept on the drive in the folder `root` under `mark`. Safe to use from any thread."""

    def __init__(self, api: DriveApi, index: DriveIndex, root: str, mark: str) -> None:
        self._api = api
        self._index = index
        self._root = root
        self._mark = mark
        self._loaded = threading.Event()
        self._loaded.set()

    # Loading

    def begin_to_load(self, file: File) -> None:
        """Load a snapshot beside everything else; `wait` says when that is done, whether or not it was any good."""
        self._loaded.clear()
        threading.Thread(target=self._load, args=(file,), name="haversack-snapshot", daemon=True).start()

    def wait(self, longest: float) -> None:
        """Wait at most so many seconds for a snapshot that is being loaded."""
        self._loaded.wait(longest)

    def _load(self, file: File) -> None:
        try:
            self.load(file)
        except (HaversackError, OSError) as error:
            _log.warning("What an earlier session knew of the drive is not used: %s", error)
        finally:
            self._loaded.set()

    def load(self, file: File) -> None:
        """Know what the snapshot `file` knew, and what changed since.

        Raises `IntegrityError` for one that cannot be used, `ConnectionFailed` and `RemoteError`.
        """
        path = self._aside()
        try:
            with open(path, "xb") as target:
                wait(self._fetch(file, target))
            token = _head(path, self._root)
            changes = wait(self._changes(token))
            self._index.restore(_folders(path), changes, token)
        finally:
            path.unlink(missing_ok=True)
        self._note()

    async def _fetch(self, file: File, target: BinaryIO) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        try:
            async with self._api.download(file.id, 0, file.size) as response:
                async for piece in response.content.iter_chunked(_PIECE):
                    digest.update(piece)
                    await asyncio.to_thread(target.write, piece)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise IntegrityError(f"The snapshot could not be fetched: {error}.") from error
        if digest.hexdigest() != file.md5:
            raise IntegrityError("The snapshot came with other bytes than the drive promised.")

    async def _changes(self, token: str) -> list[Changes]:
        pages: list[Changes] = []
        async for page in self._api.changes(token):
            pages.append(page)
            if len(pages) >= _MOST_PAGES and not page.last:
                raise IntegrityError("The snapshot is so old that too much changed since.")
        return pages

    # Saving

    def is_worth_saving(self) -> bool:
        """Whether enough is known, and enough of it is not in the last snapshot."""
        count, _ = self._index.count()
        if count < _FEWEST_NAMES:
            return False
        names, mark = (int(one) for one in (self._index.fact("snapshot") or "0 0").split())
        changed = abs(count - names) + self._index.mark() - mark
        return changed > _WORTH * count

    def save(self) -> File | None:
        """Put a snapshot on the drive and delete the older ones; None when another process does so just now.

        Raises `ConnectionFailed`, `RemoteError`, `QuotaExceeded`, `DiskFull`.
        """
        path = self._aside()
        lock = FileLock(self._index.folder / "snapshot.lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        with lock:
            try:
                self._write(path)
                made = self._store(path)
            finally:
                path.unlink(missing_ok=True)
            self._note()
            return made

    def _write(self, path: Path) -> None:
        with open(path, "xb") as raw, igzip.open(raw, "wb", compresslevel=_COMPRESSION) as file:
            with self._index.frozen() as (token, folders):
                file.write(
                    _ENCODER.encode_lines([_SnapshotLine(haversack=KIND, form=_FORM, root=self._root, token=token)])
                )
                for folder in folders:
                    files = iter(folder.files)
                    part: list[_SnapshotLine | Inside] = [_SnapshotLine(folder=folder.id, listed=folder.listed)]
                    while part:
                        file.write(_ENCODER.encode_lines(part))
                        part = list(itertools.islice(files, _ROWS_AT_ONCE))
            file.write(_ENCODER.encode_lines([_SnapshotLine(end=True)]))

    def _store(self, path: Path) -> File:
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
        made = wait(self._api.upload(upload))
        found = [file for file in wait(self._api.do(search(self._mark))).files if file.name == NAME]
        kept = newest([*found, made]) or made
        for file in found:
            if file.id != kept.id:
                wait(self._api.delete(file.id))
                self._index.forget(file.id)
        # Only now, so that it gets the name of the older one and no number.
        if made.id == kept.id:
            self._index.put(made)
        return made

    def _note(self) -> None:
        self._index.note(snapshot=f"{self._index.count()[0]} {self._index.mark()}")

    def _aside(self) -> Path:
        return self._index.folder / f"snapshot-{os.getpid()}-{secrets.token_hex(4)}"


def _head(path: Path, root: str) -> str:
    """The token of a snapshot of the drive with that root."""
    head = next(_lines(path), [None])[0]
    if not isinstance(head, _SnapshotLine) or (head.haversack, head.form) != (KIND, _FORM):
        raise IntegrityError("The snapshot has a form of another version.")
    if head.root != root or not head.token:
        raise IntegrityError("The snapshot is one of another drive.")
    return head.token


def _folders(path: Path) -> Iterator[ListedFolder]:
    """The folders of a snapshot, a large one in several parts. Raises `IntegrityError` for what is none."""
    lines = itertools.chain.from_iterable(_lines(path))
    next(lines)
    folder, files, ended = _SnapshotLine(), [], False
    for line in lines:
        if ended:
            raise IntegrityError("The snapshot goes on behind its end.")
        if not isinstance(line, _SnapshotLine):
            files.append(line)
            if len(files) < _ROWS_AT_ONCE:
                continue
        if folder.folder:
            yield ListedFolder(folder.folder, folder.listed, files)
        elif files:
            raise IntegrityError("The snapshot names no folder for its files.")
        files = []
        if isinstance(line, _SnapshotLine):
            folder, ended = line, line.end
            if not ended and not folder.folder:
                raise IntegrityError("The snapshot names no folder.")
    if not ended:
        raise IntegrityError("The snapshot breaks off.")


def _lines(path: Path) -> Iterator[list[_SnapshotLine | _Row]]:
    """The lines of a snapshot, many at a time, each of the types it should be."""
    rest = b""
    try:
        with igzip.open(path, "rb") as file:
            while piece := file.read(_PIECE):
                whole, newline, rest = (rest + piece).rpartition(b"\n")
                if len(rest) > _LONGEST_LINE:
                    raise IntegrityError("The snapshot has a line without an end.")
                yield _DECODER.decode_lines(whole + newline)
            if rest:
                raise IntegrityError("The snapshot breaks off.")
    except (EOFError, ValueError, _DAMAGE, gzip.BadGzipFile, RecursionError) as error:
        raise IntegrityError(f"The snapshot cannot be read ({error}).") from error
