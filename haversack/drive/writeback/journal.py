"""What was written and is not on the drive yet.

A file opened for writing becomes a `Draft`: its bytes lie in a local file, shared by everyone who has it open. `commit`
(what `close()` does) puts a record beside them, and then they survive the death of the process. `uploading` brings them
up, and `wait` (what `fsync` and unmount do) returns once the drive holds them, their MD5 compared.

Each process has a journal folder of its own and holds its lock for life; a folder whose owner is dead is taken over by
the next process that opens the drive, and resumable uploads go on from what the drive has of them. What is pending is
never removed but by its upload or by the user's own `unlink`.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Set
from pathlib import Path

from filelock import FileLock, Timeout

from haversack.drive.remote.api import DriveApi, File
from haversack.drive.writeback.draft import Draft, load
from haversack.drive.writeback.uploader import Uploader
from haversack.errors import DiskFull, HaversackError

_log = logging.getLogger(__name__)

# Programs write, rename and delete in bursts; what is settled within this many seconds costs no call.
_SETTLE = 0.3


class Journal:
    """The drafts of one drive; `home` is the folder of its journals, that of this process among them.

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
        self.home = folder
        self._on_drive = on_drive
        self._on_retired = on_retired
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self.uploading = Uploader(api, self._lock, self._changed, self._ended, on_trashed)
        self._drafts: dict[tuple[str, str], Draft] = {}
        self._leaving: set[Draft] = set()
        self._owned: dict[str, Draft] = {}
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
            draft = self._owned.get(file_id)
            if draft is None or draft.file_id != file_id or draft.removed:
                return None
            self.hold(draft)
            return draft

    def owned(self) -> Set[str]:
        """The ids on the drive that drafts are, or are becoming, or take the place of; it changes as they do."""
        return self._owned.keys()

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
        draft = Draft(secrets.token_hex(8), self._folder, parent, name, _now(), holders=1)
        if base is not None:
            draft.file_id, draft.exists, draft.begun = base.id, True, True
            draft.modified, draft.uploaded = base.modified, base
        draft.data, draft.descriptor = draft.new_data()
        try:
            if fill is not None:
                fill(draft.descriptor)
                draft.size = os.fstat(draft.descriptor).st_size
            else:
                draft.dirty, draft.modified = True, _now()
        except BaseException:
            draft.drop_data()
            raise
        with self._changed:
            if (parent, name) not in self._drafts:
                self._drafts[parent, name] = draft
                self._claim(draft)
                return draft
        draft.drop_data()
        return self.open(parent, name, base, fill)

    def apart(self, base: File, fill: Callable[[int], None]) -> Draft:
        """A draft of a file that was deleted while it is open: it stays off the drive, and goes with its holders."""
        draft = Draft(
            secrets.token_hex(8), self._folder, base.parent, base.name, base.modified, holders=1, removed=True
        )
        draft.data, draft.descriptor = draft.new_data()
        try:
            fill(draft.descriptor)
        except BaseException:
            draft.drop_data()
            raise
        draft.size = os.fstat(draft.descriptor).st_size
        return draft

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
        rest = memoryview(data)

        def put(descriptor: int, position: int) -> int:
            nonlocal rest
            written = os.pwrite(descriptor, rest, position)
            rest = rest[written:]
            return written

        return self.take(draft, len(data), offset, put)

    def take(self, draft: Draft, size: int, offset: int | None, put: Callable[[int, int], int]) -> int:
        """As `write`, of `size` bytes from elsewhere: `put` puts the next of them into an open file at a position."""
        with draft.lock:
            self._touch(draft)
            start = position = draft.size if offset is None else offset
            if draft.ahead is not None and start < draft.ahead.taken:
                draft.ahead.end()
            draft.appended = draft.appended + size if start == draft.size else 0
            try:
                while position < start + size:
                    position += put(draft.descriptor, position)
            finally:
                draft.size = max(draft.size, position)
            self.uploading.follow(draft)
            return size

    def truncate(self, draft: Draft, size: int) -> None:
        with draft.lock:
            if size == 0:
                self._start_empty(draft)
            elif size != draft.size:
                self._touch(draft)
                draft.end_ahead()
                os.ftruncate(draft.descriptor, size)
                draft.size = size

    def set_modified(self, draft: Draft, modified: float) -> bool:
        """Set the time that goes up with the bytes. False when they are on the drive already, and it has to be told."""
        with self._changed:
            draft.modified = modified
            if draft.pending:
                draft.save()
            return draft.pending or draft.dirty

    def commit(self, draft: Draft) -> None:
        """Make the bytes as they are now survive this process, and have them uploaded. Nothing to do when unchanged."""
        with draft.lock:
            if not draft.dirty or draft.removed:
                return
            with self._changed:
                draft.committed = draft.data
                draft.save()
                # Why the drive did not take the bytes before stays known: `close()` says it again.
                draft.dirty, draft.pending, draft.failures, draft.appended = False, True, 0, 0
                self.uploading.put(draft, time.monotonic() + _SETTLE)

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
                draft.end_ahead()
                draft.close()
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
            if self._drafts.get((draft.parent, draft.name)) is draft:
                del self._drafts[draft.parent, draft.name]
            draft.parent, draft.name = parent, name
            self._drafts[parent, name] = draft
            if over is not None and over.id != draft.file_id:
                if draft.begun:
                    draft.replaces.append(over.id)
                else:
                    # The file that stands there keeps its id, its links and its history, and gets the new bytes.
                    draft.file_id, draft.exists, draft.begun, draft.uploaded = over.id, True, True, over
                    draft.end_ahead()
            self._claim(draft)
            if draft.pending:
                draft.save()

    def remove(self, draft: Draft) -> list[str]:
        """Forget a draft and its bytes. Returns the ids that the drive holds of it, to be put into the trash.

        What is on its way there just now, of it or of what it took the place of, is put into the trash once it has
        arrived, by this process or the next.
        """
        with self._changed:
            self._discard(draft)
            if not draft.uploading and not draft.is_held_up:
                return draft.ids
            self._leaving.add(draft)
            self._claim(draft)
            draft.note()
            return []

    # Uploading

    def wait(self, draft: Draft) -> None:
        """Return once what was committed of `draft` is on the drive; raise why it is not after a try that failed."""
        with self._changed:
            failures = draft.failures
            if draft.pending:
                self.uploading.put(draft, 0.0)
            while draft.pending and not draft.removed:
                if draft.failures > failures and draft.error is not None:
                    raise draft.error
                self._changed.wait()

    def drain(self, progress: Callable[[int, int], None] = lambda files, size: None) -> dict[Draft, Exception]:
        """Commit what is open and upload everything, trying each once more; returns what failed and why.

        `progress` is called now and then with the files and bytes still to go.
        """
        uncommitted = self._commit_all()
        failed = self._bring_all(progress)
        if uncommitted:
            # On a full disk there is room for a record once others have gone up.
            uncommitted = self._commit_all()
            failed = self._bring_all(progress)
        return failed | uncommitted

    def is_full(self) -> bool:
        """Whether the drive refused the last try of something for want of room."""
        with self._changed:
            return any(draft.pending for draft in self.uploading.refused)

    def close(self) -> None:
        """Let go of the journal; what is pending waits on disk for the next process."""
        with self._changed:
            self.uploading.close()
            for draft in self._drafts.values():
                draft.generation += 1
                draft.end_ahead()
            self._changed.notify_all()
            while self._leaving or any(draft.uploading for draft in self._drafts.values()):
                self._changed.wait()
            if not self._drafts:
                self._clear(self._folder)
            for lock in self._locks:
                lock.release()
            self._locks.clear()

    # The journal's own

    def _commit_all(self) -> dict[Draft, Exception]:
        """Commit what is open; returns what cannot be, and why."""
        failed: dict[Draft, Exception] = {}
        with self._changed:
            drafts = list(self._drafts.values())
        for draft in drafts:
            try:
                self.commit(draft)
            except OSError as error:
                failed[draft] = error
        return failed

    def _bring_all(self, progress: Callable[[int, int], None]) -> dict[Draft, Exception]:
        """Upload what is pending, trying each once more; returns what failed and why."""
        failed: dict[Draft, Exception] = {}
        with self._changed:
            # A try that is under way began before, perhaps when the drive was still full: it is not the one more.
            waiting = {draft: draft.failures + draft.uploading for draft in self.pending()}
            while True:
                for draft, failures in waiting.items():
                    if draft.pending and draft.failures > failures and draft.error is not None:
                        failed[draft] = draft.error
                left = [draft for draft in waiting if draft.pending and draft not in failed]
                for draft in left:
                    if draft.due and not draft.uploading:
                        self.uploading.put(draft, 0.0)
                progress(len(left), sum(max(draft.size - draft.moved, 0) for draft in left))
                if not left and not self._leaving:
                    return failed
                self._changed.wait(0.5)

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
                draft = load(record)
            except (OSError, ValueError, TypeError, KeyError) as error:
                _log.error("The journal record %s cannot be read (%r); it is left as it is.", record, error)
                all_read = False
                continue
            if draft.removed:
                self._leaving.add(draft)
                self._claim(draft)
                threading.Thread(target=self._bury, args=(draft,), daemon=True).start()
                continue
            kept.add(draft.data)
            while (draft.parent, draft.name) in self._drafts:
                draft.name += " (1)"
            self._drafts[draft.parent, draft.name] = draft
            self._claim(draft)
            with self._lock:
                self.uploading.put(draft, 0.0)
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

    def _claim(self, draft: Draft) -> None:
        """Note which of the drive's files a draft stands for by now."""
        for file_id in draft.claimed:
            if self._owned.get(file_id) is draft:
                del self._owned[file_id]
        there = self._drafts.get((draft.parent, draft.name)) is draft or draft in self._leaving
        draft.claimed = frozenset(filter(None, (draft.file_id, *draft.replaces))) if there else frozenset()
        self._owned |= dict.fromkeys(draft.claimed, draft)

    def _touch(self, draft: Draft) -> None:
        """The bytes are about to change: what is being uploaded of them is overtaken."""
        with self._changed:
            draft.dirty = True
            draft.generation += 1
            draft.modified = _now()
            draft.session = None

    def _start_empty(self, draft: Draft) -> None:
        """Empty a draft, leaving the committed bytes where they are until new ones are committed."""
        data, descriptor = draft.new_data()
        self._touch(draft)
        draft.end_ahead()
        draft.ahead = None
        os.close(draft.descriptor)
        if draft.data == draft.committed and draft.pending:
            draft.stale.append(draft.data)
        else:
            draft.data.unlink(missing_ok=True)
        draft.data, draft.descriptor, draft.size = data, descriptor, 0

    def _discard(self, draft: Draft) -> None:
        draft.removed = True
        draft.generation += 1
        draft.end_ahead()
        draft.pending = draft.dirty = False
        if self._drafts.get((draft.parent, draft.name)) is draft:
            del self._drafts[draft.parent, draft.name]
        self._claim(draft)
        draft.record.unlink(missing_ok=True)
        self._retire(draft)
        self._changed.notify_all()

    def _bury(self, draft: Draft) -> None:
        """Put into the trash what of a removed draft has reached the drive."""
        try:
            for file_id in draft.ids:
                self.uploading.trash(file_id)
            draft.record.unlink(missing_ok=True)
        except HaversackError as error:
            _log.warning("%s is still to be put into the trash, with the next mount: %s", draft.name, error)
        with self._changed:
            self._leaving.discard(draft)
            self._claim(draft)
            self._retire(draft)
            self._changed.notify_all()

    def _ended(self, draft: Draft) -> None:
        """An upload ended. What is on the drive by now becomes one of its files, in the same moment for everyone."""
        for one in self._leaving:
            if (one is draft or draft in one.after) and not one.uploading and not one.is_held_up:
                threading.Thread(target=self._bury, args=(one,), daemon=True).start()
        if draft in self._leaving:
            return
        if draft.uploaded is not None and draft.exists and not (draft.pending or draft.removed):
            try:
                self._on_drive(draft.uploaded)
            except DiskFull as error:
                # It is on the drive all the same, whose list of changes tells of it once there is room here.
                _log.warning("%s is on the drive, which cannot be noted here: %s", draft.name, error)
            draft.record.unlink(missing_ok=True)
        self._claim(draft)
        self._retire(draft)

    def _retire(self, draft: Draft) -> None:
        """Let a draft go that nobody holds and that the drive has, or that was removed."""
        if draft.holders > 0 or draft.pending or draft.dirty or draft.uploading:
            return
        if self._drafts.get((draft.parent, draft.name)) is draft:
            del self._drafts[draft.parent, draft.name]
            self._claim(draft)
        draft.close()
        if draft.uploaded is not None and not draft.removed and draft.data.exists():
            self._on_retired(draft.uploaded, draft.data)
        draft.drop_data()
        others = (*self._drafts.values(), *self._leaving)
        if draft.folder != self._folder and not any(other.folder == draft.folder for other in others):
            self._clear(draft.folder)


def _now() -> float:
    """The time as a drive keeps it, in whole milliseconds: a file's time stays the same when it gets there."""
    return time.time_ns() // 1_000_000 / 1000
