"""What was written and is not on the drive yet.

A file opened for writing becomes a `Draft`: its bytes lie in a local file, shared by everyone who has it open. `commit`
(what `close()` does) puts bytes and a record on disk, synced, so they survive the death of the process. Workers upload,
several side by side, and `wait` (what `fsync` and unmount do) returns once the drive holds the bytes, their MD5
compared. A draft that is written again while it is uploaded ends that upload and is uploaded anew: no torn state is
ever completed on the drive.

Each process has a journal folder of its own and holds its lock for life; a folder whose owner is dead is taken over by
the next process that opens the drive, and resumable uploads go on from what the drive has of them. A record holds the
session's URI, which is a secret, so everything here is readable by this user only. What is pending is never removed but
by its upload or by the user's own `unlink`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from haversack.drive.api import DriveApi, File, Overtaken, Upload
from haversack.errors import HaversackError, NotFound, QuotaExceeded
from haversack.http import wait

_log = logging.getLogger(__name__)

_WORKERS = 4
# Programs write, rename and delete in bursts; what is settled within this many seconds costs no call.
_SETTLE = 0.3
_LONGEST_RETRY = 60.0
_KEPT = ("parent", "name", "modified", "file_id", "exists", "begun", "session", "digest", "replaces", "removed")


@dataclass(eq=False)
class Draft:
    """A file whose bytes on this machine are ahead of the drive's.

    `file_id` is its id on the drive, once it has one; `exists` says that the drive holds it, `begun` that it may.
    `replaces` are ids that go to the trash once this is on the drive. `session` is an upload under way, of the bytes
    with MD5 `digest`. The bytes are in `data`; those of the last commit in `committed`, another file after a fresh
    start, and `stale` as soon as newer ones are committed. It is uploaded `after` others whose place it took. `lock`
    guards the bytes and is taken before the journal's own lock, which guards the rest.
    """

    key: str
    folder: Path
    parent: str
    name: str
    modified: float
    file_id: str | None = None
    exists: bool = False
    begun: bool = False
    session: str | None = None
    digest: str = ""
    replaces: list[str] = field(default_factory=list)
    size: int = 0
    data: Path = field(default_factory=Path)
    committed: Path | None = None
    stale: list[Path] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    descriptor: int = -1
    holders: int = 0
    generation: int = 0
    dirty: bool = False
    pending: bool = False
    removed: bool = False
    uploading: bool = False
    after: list[Draft] = field(default_factory=list)
    due: float = 0.0
    failures: int = 0
    error: Exception | None = None
    uploaded: File | None = None
    moved: int = 0

    @property
    def record(self) -> Path:
        return self.folder / f"{self.key}.json"

    def as_file(self) -> File:
        """How the draft looks among the drive's files."""
        file_id = self.file_id if self.exists and self.file_id else f"draft:{self.key}"
        return File(file_id, self.name, self.parent, "application/octet-stream", self.size, "", self.modified, 0)


class Journal:
    """The drafts of one drive, in `folder`.

    `on_drive` is called with each file as it is after its upload, `on_trashed` with the id of each that it put into
    the trash, `on_retired` with a file and the local one that holds its bytes when the journal needs them no more.
    """

    def __init__(
        self,
        folder: Path,
        api: DriveApi,
        on_drive: Callable[[File], None],
        on_trashed: Callable[[str], None],
        on_retired: Callable[[File, Path], None],
    ) -> None:
        self.api = api
        self._on_drive = on_drive
        self._on_trashed = on_trashed
        self._on_retired = on_retired
        self._closed = False
        self._changed = threading.Condition(threading.RLock())
        self._drafts: dict[tuple[str, str], Draft] = {}
        self._leaving: set[Draft] = set()
        self._workers: list[threading.Thread] = []
        self._locks: list[FileLock] = []
        self._folder = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._gate = FileLock(folder / "journals.lock")
        with self._gate:
            self._folder.mkdir(mode=0o700)
            self._hold(self._folder)
            for other in sorted(folder.iterdir()):
                if other.is_dir() and other != self._folder and self._hold(other):
                    self._take_over(other)
        self._wake()

    # Finding

    def at(self, parent: str, name: str) -> Draft | None:
        with self._changed:
            return self._drafts.get((parent, name))

    def hold_at(self, parent: str, name: str) -> Draft | None:
        """The draft there with one holder more."""
        with self._changed:
            draft = self._drafts.get((parent, name))
            if draft is not None:
                self.hold(draft)
            return draft

    def hold_of(self, file_id: str) -> Draft | None:
        """The draft that rewrites that file, with one holder more."""
        with self._changed:
            for draft in self._drafts.values():
                if draft.file_id == file_id:
                    self.hold(draft)
                    return draft
        return None

    def owned(self) -> set[str]:
        """The ids on the drive that drafts are, or are becoming, or take the place of."""
        with self._changed:
            drafts = (*self._drafts.values(), *self._leaving)
            return {file_id for draft in drafts for file_id in (draft.file_id, *draft.replaces) if file_id}

    def within(self, parent: str) -> list[Draft]:
        with self._changed:
            return [draft for draft in self._drafts.values() if draft.parent == parent]

    def pending(self) -> list[Draft]:
        """What is committed and not on the drive."""
        with self._changed:
            return [draft for draft in self._drafts.values() if draft.pending]

    # Writing

    def open(self, parent: str, name: str, base: File | None, fill: Callable[[int], None] | None) -> Draft:
        """The draft of a file, for one more holder; made when there is none.

        `base` is the file on the drive that it rewrites. `fill` writes its present bytes into a descriptor; None
        starts empty, and then also empties a draft that is there.
        """
        with self._changed:
            draft = self._drafts.get((parent, name))
            if draft is not None:
                self.hold(draft)
        if draft is not None:
            if fill is None:
                self.truncate(draft, 0)
            return draft
        # Filling may take long, so it is done outside the lock; who comes second drops its copy.
        draft = Draft(secrets.token_hex(8), self._folder, parent, name, time.time(), holders=1)
        if base is not None:
            draft.file_id, draft.exists, draft.begun = base.id, True, True
            draft.modified, draft.uploaded = base.modified, base
        draft.data, draft.descriptor = self._new_data(draft)
        try:
            if fill is not None:
                fill(draft.descriptor)
                draft.size = os.fstat(draft.descriptor).st_size
            else:
                draft.dirty, draft.modified = True, time.time()
        except BaseException:
            self._drop_data(draft)
            raise
        with self._changed:
            if (parent, name) not in self._drafts:
                self._drafts[parent, name] = draft
                return draft
        self._drop_data(draft)
        return self.open(parent, name, base, fill)

    def hold(self, draft: Draft) -> None:
        """One holder more."""
        with self._changed:
            draft.holders += 1
            if draft.descriptor < 0:
                draft.descriptor = os.open(draft.data, os.O_RDWR)

    def read(self, draft: Draft, offset: int, size: int) -> bytes:
        with draft.lock:
            return os.pread(draft.descriptor, size, offset)

    def write(self, draft: Draft, data: bytes, offset: int | None) -> int:
        """Write all of `data` at `offset`, or at the end with None. Raises `OSError` when the local disk is full."""
        with draft.lock:
            self._touch(draft)
            position = draft.size if offset is None else offset
            rest = memoryview(data)
            try:
                while rest:
                    written = os.pwrite(draft.descriptor, rest, position)
                    position, rest = position + written, rest[written:]
            finally:
                draft.size = max(draft.size, position)
            return len(data)

    def truncate(self, draft: Draft, size: int) -> None:
        with draft.lock:
            if size == 0:
                self._start_empty(draft)
            elif size != draft.size:
                self._touch(draft)
                os.ftruncate(draft.descriptor, size)
                draft.size = size

    def set_modified(self, draft: Draft, modified: float) -> bool:
        """Set the time that goes up with the bytes. False when they are on the drive already, and it has to be told."""
        with self._changed:
            draft.modified = modified
            if draft.pending:
                self._write_record(draft)
            return draft.pending or draft.dirty

    def commit(self, draft: Draft) -> None:
        """Make the bytes as they are now survive this process, and have them uploaded. Nothing to do when unchanged."""
        with draft.lock:
            if not draft.dirty or draft.removed:
                return
            os.fsync(draft.descriptor)
            with self._changed:
                draft.committed = draft.data
                self._write_record(draft)
                draft.dirty, draft.pending, draft.failures, draft.error = False, True, 0, None
                draft.due = time.monotonic() + _SETTLE
                self._wake()

    def release(self, draft: Draft) -> None:
        """One holder less; the last one's leaving commits what is not, and lets an uploaded draft go."""
        try:
            self.commit(draft)
        finally:
            with self._changed:
                draft.holders -= 1
                self._retire(draft)

    def abandon(self, draft: Draft) -> None:
        """Release a draft without what was written since its last commit, unless others hold it too."""
        with draft.lock, self._changed:
            if draft.holders == 1 and draft.dirty:
                if draft.data != draft.committed:
                    draft.data.unlink(missing_ok=True)
                draft.dirty = False
                os.close(draft.descriptor)
                draft.descriptor = -1
                if draft.pending and draft.committed is not None:
                    draft.data, draft.size = draft.committed, draft.committed.stat().st_size
                else:
                    draft.uploaded = None  # the local bytes are those of no file
        self.release(draft)

    # Names

    def move(self, draft: Draft, parent: str, name: str, over: File | None) -> None:
        """Give a draft another name, in place of `over`, a file on the drive, and of any draft there."""
        with self._changed:
            there = self._drafts.get((parent, name))
            if there is not None and there is not draft:
                self._discard(there)
                draft.after += [one for one in (there, *there.after) if one.uploading]
                draft.replaces += there.replaces
                if there.begun and there.file_id and (over is None or over.id != there.file_id):
                    draft.replaces.append(there.file_id)
            del self._drafts[draft.parent, draft.name]
            draft.parent, draft.name = parent, name
            self._drafts[parent, name] = draft
            if over is not None and over.id != draft.file_id:
                if draft.begun:
                    draft.replaces.append(over.id)
                else:
                    # The file that stands there keeps its id, its links and its history, and gets the new bytes.
                    draft.file_id, draft.exists, draft.begun, draft.uploaded = over.id, True, True, over
            if draft.pending:
                self._write_record(draft)

    def remove(self, draft: Draft) -> list[str]:
        """Forget a draft and its bytes. Returns the ids that the drive holds of it, to be put into the trash.

        What is on its way there just now is put into the trash once it has arrived, by this process or the next.
        """
        with self._changed:
            self._discard(draft)
            if not draft.uploading:
                return _ids_of(draft)
            self._leaving.add(draft)
            self._write_record(draft)
            return []

    # Uploading

    def wait(self, draft: Draft) -> None:
        """Return once what was committed of `draft` is on the drive; raise why it is not after a try that failed."""
        with self._changed:
            failures = draft.failures
            draft.due = 0.0
            self._wake()
            while draft.pending and not draft.removed:
                if draft.failures > failures and draft.error is not None:
                    raise draft.error
                self._changed.wait()

    def drain(self, progress: Callable[[int, int], None] = lambda files, size: None) -> dict[Draft, Exception]:
        """Commit what is open and upload everything, trying each once more; returns what failed and why.

        `progress` is called now and then with the files and bytes still to go.
        """
        failed: dict[Draft, Exception] = {}
        with self._changed:
            drafts = list(self._drafts.values())
        for draft in drafts:
            try:
                self.commit(draft)
            except OSError as error:
                failed[draft] = error
        with self._changed:
            waiting = {draft: draft.failures for draft in self.pending()}
            for draft in waiting:
                draft.due = 0.0
            self._wake()
            while True:
                for draft, failures in waiting.items():
                    if draft.pending and draft.failures > failures and draft.error is not None:
                        failed[draft] = draft.error
                left = [draft for draft in waiting if draft.pending and draft not in failed]
                progress(len(left), sum(max(draft.size - draft.moved, 0) for draft in left))
                if not left and not self._leaving:
                    return failed
                self._changed.wait(0.5)

    def is_full(self) -> bool:
        """Whether the drive refused the last try of something for want of room."""
        return any(isinstance(draft.error, QuotaExceeded) for draft in self.pending())

    def close(self) -> None:
        """Let go of the journal; what is pending waits on disk for the next process."""
        with self._changed:
            self._closed = True
            for draft in self._drafts.values():
                draft.generation += 1
            self._changed.notify_all()
            while self._leaving or any(draft.uploading for draft in self._drafts.values()):
                self._changed.wait()
            if not self._drafts:
                self._clear(self._folder)
            for lock in self._locks:
                lock.release()
            self._locks.clear()

    # The journal's own

    def _hold(self, folder: Path) -> bool:
        lock = FileLock(folder / "owner.lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        self._locks.append(lock)
        return True

    def _take_over(self, folder: Path) -> None:
        """Load the pending drafts of a dead process, and clear away what it had not committed.

        Where a record cannot be read, nothing is cleared away: the bytes that it names may be any.
        """
        kept, all_read = set(), True
        for record in sorted(folder.glob("*.json")):
            try:
                values = json.loads(record.read_text())
                data = folder / Path(values.pop("data")).name
                draft = Draft(record.stem, folder, **values, data=data, committed=data, pending=True)
                if draft.removed:
                    self._leaving.add(draft)
                    threading.Thread(target=self._bury, args=(draft,), daemon=True).start()
                    continue
                draft.size = data.stat().st_size
            except (OSError, ValueError, TypeError, KeyError) as error:
                _log.error("The journal record %s cannot be read (%r); it is left as it is.", record, error)
                all_read = False
                continue
            kept.add(data)
            while (draft.parent, draft.name) in self._drafts:
                draft.name += " (1)"
            self._drafts[draft.parent, draft.name] = draft
        for data in folder.glob("*.data") if all_read else ():
            if data not in kept:
                data.unlink()
        if not kept and not any(draft.folder == folder for draft in self._leaving):
            self._clear(folder)

    def _clear(self, folder: Path) -> None:
        """Remove a journal folder in which nothing is left, and its lock. What has a record is left to be done."""
        if any(folder.glob("*.json")):
            return
        with self._gate:
            for lock in [lock for lock in self._locks if Path(lock.lock_file).parent == folder]:
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()
                lock.release()
                self._locks.remove(lock)

    def _new_data(self, draft: Draft) -> tuple[Path, int]:
        path = draft.folder / f"{draft.key}.{secrets.token_hex(3)}.data"
        return path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def _drop_data(self, draft: Draft) -> None:
        if draft.descriptor >= 0:
            os.close(draft.descriptor)
            draft.descriptor = -1
        draft.data.unlink(missing_ok=True)

    def _touch(self, draft: Draft) -> None:
        """The bytes are about to change: what is being uploaded of them is overtaken."""
        with self._changed:
            draft.dirty = True
            draft.generation += 1
            draft.modified = time.time()
            draft.session = None

    def _start_empty(self, draft: Draft) -> None:
        """Empty a draft, leaving the committed bytes where they are until new ones are committed."""
        data, descriptor = self._new_data(draft)
        self._touch(draft)
        os.close(draft.descriptor)
        if draft.data == draft.committed and draft.pending:
            draft.stale.append(draft.data)
        else:
            draft.data.unlink(missing_ok=True)
        draft.data, draft.descriptor, draft.size = data, descriptor, 0

    def _write_record(self, draft: Draft) -> None:
        """The record is complete or absent; bytes that it no longer names go after it is safe."""
        assert draft.committed is not None
        values = {name: getattr(draft, name) for name in _KEPT} | {"data": draft.committed.name}
        aside = draft.record.with_suffix(".new")
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(values, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(draft.record)
        _sync_folder(draft.folder)
        for data in [data for data in draft.stale if data != draft.committed]:
            data.unlink()
            draft.stale.remove(data)

    def _discard(self, draft: Draft) -> None:
        draft.removed = True
        draft.generation += 1
        draft.pending = draft.dirty = False
        if self._drafts.get((draft.parent, draft.name)) is draft:
            del self._drafts[draft.parent, draft.name]
        draft.record.unlink(missing_ok=True)
        self._retire(draft)
        self._changed.notify_all()

    def _bury(self, draft: Draft) -> None:
        """Put into the trash what of a removed draft has reached the drive."""
        try:
            for file_id in _ids_of(draft):
                self._trash(file_id)
            draft.record.unlink(missing_ok=True)
        except HaversackError as error:
            _log.warning("%s is still to be put into the trash, with the next mount: %s", draft.name, error)
        with self._changed:
            self._leaving.discard(draft)
            self._retire(draft)
            self._changed.notify_all()

    def _trash(self, file_id: str) -> None:
        wait(self.api.trash(file_id))
        self._on_trashed(file_id)

    def _retire(self, draft: Draft) -> None:
        """Let a draft go that nobody holds and that the drive has, or that was removed."""
        if draft.holders > 0 or draft.pending or draft.dirty or draft.uploading:
            return
        if self._drafts.get((draft.parent, draft.name)) is draft:
            del self._drafts[draft.parent, draft.name]
        if draft.descriptor >= 0:
            os.close(draft.descriptor)
            draft.descriptor = -1
        if draft.uploaded is not None and not draft.removed and draft.data.exists():
            self._on_retired(draft.uploaded, draft.data)
        for data in (draft.data, *draft.stale):
            data.unlink(missing_ok=True)
        others = (*self._drafts.values(), *self._leaving)
        if draft.folder != self._folder and not any(other.folder == draft.folder for other in others):
            self._clear(draft.folder)

    def _wake(self) -> None:
        """See that workers run when there is something for them."""
        with self._changed:
            self._changed.notify_all()
            self._workers = [worker for worker in self._workers if worker.is_alive()]
            waiting = sum(draft.pending and not draft.uploading for draft in self._drafts.values())
            for _ in range(min(waiting, _WORKERS) - len(self._workers)):
                worker = threading.Thread(target=self._work, name="haversack-upload", daemon=True)
                self._workers.append(worker)
                worker.start()

    def _work(self) -> None:
        """Upload what is due until nothing is pending."""
        while True:
            with self._changed:
                draft = self._next()
                if draft is None:
                    self._workers.remove(threading.current_thread())
                    return
                draft.uploading = True
            try:
                self._upload(draft)
            except Overtaken:
                self._ended(draft, None)
            except Exception as error:  # noqa: BLE001 - a worker lives on; who waits for the draft gets the error
                self._ended(draft, error)
            else:
                self._ended(draft, None)

    def _next(self) -> Draft | None:
        """Wait for a draft that is due; None when there is none to wait for."""
        while True:
            ready = [draft for draft in self._drafts.values() if draft.pending and not draft.uploading]
            if not ready or self._closed:
                return None
            usable = [one for one in ready if not one.dirty and not any(other.uploading for other in one.after)]
            draft = min(usable, key=lambda one: one.due, default=None)
            now = time.monotonic()
            if draft is not None and draft.due <= now:
                return draft
            self._changed.wait(min(draft.due - now, 60.0) if draft is not None else 60.0)

    def _ended(self, draft: Draft, error: Exception | None) -> None:
        with self._changed:
            draft.uploading = False
            if error is not None and not draft.removed:
                draft.error = error
                draft.failures += 1
                if isinstance(error, NotFound) and draft.exists:
                    # Somebody deleted it for good meanwhile: what was written becomes a file of its own.
                    draft.file_id, draft.exists, draft.begun, draft.session = None, False, False, None
                draft.due = time.monotonic() + min(_LONGEST_RETRY, 2.0**draft.failures)
                level = logging.WARNING if isinstance(error, HaversackError) else logging.ERROR
                _log.log(level, "%s is not on the drive yet: %s", draft.name, error, exc_info=level == logging.ERROR)
            self._retire(draft)
            self._changed.notify_all()
            leaving = draft in self._leaving
        if leaving:
            self._bury(draft)

    def _upload(self, draft: Draft) -> None:
        """Bring one state of a draft onto the drive."""
        upload, generation = self._prepare(draft)
        try:
            file = wait(self.api.upload(upload))
        except Exception:
            if draft.generation != generation:
                raise Overtaken from None
            raise
        while True:
            with self._changed:
                draft.exists, draft.session = True, None
                if draft.generation != generation or draft.removed:
                    return
                change: dict[str, Any] = {}
                if file.name != draft.name or file.parent != draft.parent:
                    change = {"name": draft.name, "parent": draft.parent}
                if abs(file.modified - draft.modified) >= 0.002:
                    change["modified"] = draft.modified
                if not change and not draft.replaces:
                    self._finish(draft, file)
                    return
                replaced = list(draft.replaces)
            for file_id in replaced:
                self._trash(file_id)
            if change:
                file = replace(wait(self.api.update(file, **change)), **change)
            with self._changed:
                draft.replaces = [file_id for file_id in draft.replaces if file_id not in replaced]

    def _prepare(self, draft: Draft) -> tuple[Upload, int]:
        if draft.file_id is None:
            new_id = wait(self.api.new_id())
            with self._changed:
                draft.file_id = draft.file_id or new_id
        with self._changed:
            if draft.removed or draft.dirty:
                raise Overtaken
            generation = draft.generation
            draft.begun = True
            assert draft.file_id is not None
            source, size = draft.data, draft.size
        digest = _md5(source)
        with self._changed:
            if draft.generation != generation:
                raise Overtaken
            if draft.digest != digest:
                # A session goes on only with the bytes it began with.
                draft.digest, draft.session = digest, None
            self._write_record(draft)
            upload = Upload(
                source=source,
                size=size,
                md5=digest,
                file_id=draft.file_id,
                exists=draft.exists,
                parent=draft.parent,
                # The name is free only once what has it is in the trash, and that waits for these bytes.
                name=f".{draft.name}.{draft.key}" if draft.replaces else draft.name,
                modified=draft.modified,
                session=draft.session,
            )

        def on_session(session: str | None) -> None:
            with self._changed:
                draft.session = session
                if draft.pending and draft.generation == generation:
                    self._write_record(draft)

        def moved(position: int) -> None:
            draft.moved = position

        upload.on_session, upload.moved = on_session, moved
        upload.is_wanted = lambda: draft.generation == generation
        return upload, generation

    def _finish(self, draft: Draft, file: File) -> None:
        draft.uploaded, draft.file_id = file, file.id
        draft.pending, draft.error, draft.failures, draft.moved = False, None, 0, 0
        self._on_drive(file)
        draft.record.unlink(missing_ok=True)


def _ids_of(draft: Draft) -> list[str]:
    """The ids that the drive may hold of a draft."""
    return ([draft.file_id] if draft.begun and draft.file_id else []) + draft.replaces


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
