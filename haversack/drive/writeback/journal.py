"""The journal of one drive: files that were written here and are not uploaded yet.

A file that is opened for writing becomes a `Draft`, whose bytes are in a local file that all its open handles share.
`commit` (called by `close()`) saves a record next to it; from then on the file survives the death of the process.
`Uploader` uploads committed drafts, and `wait` (called by `fsync` and unmount) returns once the drive has the bytes and
their MD5 was compared.

Each process has its own journal folder and holds the folder's lock for its lifetime. The folder of a dead process is
taken over by the next process that opens the drive, which resumes its uploads. A pending draft is deleted only after
its upload, or when the user deletes or replaces the file.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Set
from pathlib import Path

from filelock import FileLock, Timeout

from haversack.drive import UPLOADED
from haversack.drive.remote.api import DriveApi
from haversack.drive.remote.calls import File
from haversack.drive.writeback.draft import Draft, load
from haversack.drive.writeback.uploader import Uploader
from haversack.errors import DiskFull, HaversackError

_log = logging.getLogger(__name__)

# Seconds between a commit and its upload: programs often write, rename and delete a file in quick succession.
_UPLOAD_DELAY = 0.3


class Journal:
    """The drafts of one drive, in this process. Thread-safe; not to be used on the event loop's thread.

    A draft is *dirty* once its bytes change, *committed* once its record is on disk, and then *pending* until its bytes
    are on the drive. A caller that *acquires* a draft increments its reference count, and must call `release` in the
    end; only a draft that the caller has acquired may be read, written and truncated.

    `home` is the folder with the journal folders of all processes. The constructor takes over the folders of dead
    processes and starts to upload what they left. It raises `OSError` if it cannot create its own.

    The journal's lock guards everything here and most of a `Draft`. `Draft.lock` is acquired before it.

    Attributes:
        job: The folder of the notebook job that new drafts belong to, "" for none. The process that serves a mount of
            the job sets it, before the first draft. Uploads of a job's drafts are listed in its `UPLOADED`, whichever
            process uploads them.

    Args:
        folder: The `home` folder, created if it is missing.
        api: The drive.
        on_drive: Called after each upload with the file's new metadata, while the journal's lock is held.
        on_trashed: Called with the id of each file that the journal trashed.
        on_retired: Called with an uploaded file and the local file of its bytes, which the callee may move away; if it
            does not, the journal deletes it.
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
        self.job = ""
        self._on_drive = on_drive
        self._on_retired = on_retired
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self.uploader = Uploader(api, self._lock, self._changed, self._on_upload_ended, on_trashed)
        # By folder id and name.
        self._drafts: dict[tuple[str, str], Draft] = {}
        # Removed drafts whose files on the drive are still to be trashed.
        self._to_trash: set[Draft] = set()
        # By the ids in `Draft.claimed_ids`.
        self._by_id: dict[str, Draft] = {}
        # The owner locks of this process's folder and of those it took over.
        self._locks: list[FileLock] = []
        self._folder = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Held while journal folders are created, taken over or deleted.
        self._folders_lock = FileLock(folder / "journals.lock")
        with self._folders_lock:
            self._folder.mkdir(mode=0o700)
            self._try_own(self._folder)
            for other in sorted(folder.iterdir()):
                if other.is_dir() and other != self._folder and self._try_own(other):
                    self._take_over(other)

    # Look-up

    def at(self, parent: str, name: str) -> Draft | None:
        """Return the draft of that name in the folder `parent`, or None; the reference count stays as it is."""
        with self._changed:
            return self._drafts.get((parent, name))

    def acquire_at(self, parent: str, name: str) -> Draft | None:
        """Return the draft of that name in the folder `parent`, or None. The caller must release it."""
        with self._changed:
            draft = self._drafts.get((parent, name))
            if draft is not None:
                self.acquire(draft)
            return draft

    def acquire_by_id(self, file_id: str) -> Draft | None:
        """Return the draft that holds new bytes for the file with that id, or None. The caller must release it."""
        with self._changed:
            draft = self._by_id.get(file_id)
            if draft is None or draft.file_id != file_id or draft.removed:
                return None
            self.acquire(draft)
            return draft

    def claimed_ids(self) -> Set[str]:
        """Return the ids of all files on the drive that a draft has new bytes for, replaces, or is about to trash.

        A listing of the drive must not show these files. The set is a view, which follows later changes.
        """
        return self._by_id.keys()

    def within(self, parent: str) -> list[Draft]:
        """Return the drafts in the folder with the id `parent`, without those in its subfolders.

        Their reference counts stay as they are.
        """
        with self._changed:
            return [draft for draft in self._drafts.values() if draft.parent == parent]

    def pending(self) -> list[Draft]:
        """Return the drafts that are committed and not uploaded; their reference counts stay as they are."""
        with self._changed:
            return [draft for draft in self._drafts.values() if draft.pending]

    # Writing

    def open(self, parent: str, name: str, base: File | None, fill: Callable[[int], None] | None) -> Draft:
        """Return the draft of that name in the folder `parent`, created if there is none. The caller must release it.

        Raises what `fill` raises, and `OSError` if the data file cannot be created.

        Args:
            parent: The id of the folder.
            name: The file's name in it.
            base: The file on the drive that the draft gets new bytes for; None for a new file.
            fill: Writes the file's present bytes into a file descriptor. None makes the draft empty, also if it exists.
        """
        with self._changed:
            draft = self._drafts.get((parent, name))
            if draft is not None:
                self.acquire(draft)
        if draft is not None:
            if fill is None:
                self.truncate(draft, 0)
            return draft
        # Filling may take long, so it is done without the lock. If two threads do it, the second deletes its copy.
        draft = Draft(secrets.token_hex(8), self._folder, parent, name, _now(), references=1, job=self.job)
        if base is not None:
            draft.file_id, draft.exists, draft.begun = base.id, True, True
            draft.modified, draft.uploaded = base.modified, base
        draft.data, draft.descriptor = draft.create_data_file()
        try:
            if fill is not None:
                fill(draft.descriptor)
                draft.size = os.fstat(draft.descriptor).st_size
            else:
                draft.dirty, draft.modified = True, _now()
        except BaseException:
            draft.delete_data()
            raise
        with self._changed:
            if (parent, name) not in self._drafts:
                self._drafts[parent, name] = draft
                self._update_claims(draft)
                return draft
        draft.delete_data()
        return self.open(parent, name, base, fill)

    def open_detached(self, base: File, fill: Callable[[int], None]) -> Draft:
        """Return a draft of an orphan, a file that was deleted while it is open. The caller must release it.

        It is never uploaded, and deleted when its reference count drops to 0. `fill` writes the bytes of `base`, the
        deleted file, into a file descriptor. Raises what `fill` raises, and `OSError` if the data file cannot be
        created.
        """
        draft = Draft(
            secrets.token_hex(8), self._folder, base.parent, base.name, base.modified, references=1, removed=True
        )
        draft.data, draft.descriptor = draft.create_data_file()
        try:
            fill(draft.descriptor)
        except BaseException:
            draft.delete_data()
            raise
        draft.size = os.fstat(draft.descriptor).st_size
        return draft

    def acquire(self, draft: Draft) -> None:
        """Increment a draft's reference count, and open its data file if it is closed. Raises `OSError`."""
        with self._changed:
            draft.references += 1
            if draft.descriptor < 0:
                draft.descriptor = os.open(draft.data, os.O_RDWR)

    def read(self, draft: Draft, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of a draft at `offset`, fewer only at its end. Raises `OSError`."""
        with draft.lock:
            return os.pread(draft.descriptor, size, offset)

    def write(self, draft: Draft, data: bytes, offset: int | None) -> int:
        """Write all of `data` at `offset`, or at the end if that is None; return its size. Raises `OSError`."""
        rest = memoryview(data)

        def write_next(descriptor: int, position: int) -> int:
            nonlocal rest
            written = os.pwrite(descriptor, rest, position)
            rest = rest[written:]
            return written

        return self.write_from(draft, len(data), offset, write_next)

    def write_from(self, draft: Draft, size: int, offset: int | None, put: Callable[[int, int], int]) -> int:
        """Write `size` bytes from any source; return `size`. Raises `OSError`.

        Args:
            draft: The draft to write to; the caller has acquired it.
            size: How many bytes to write.
            offset: Where to write them; None appends.
            put: Called with a file descriptor and a position until all bytes are written. It writes the next bytes of
                the source there and returns how many.
        """
        with draft.lock:
            self._mark_dirty(draft)
            start = position = draft.size if offset is None else offset
            if draft.streaming is not None and start < draft.streaming.read_until:
                draft.streaming.cancel()
            draft.appended = draft.appended + size if start == draft.size else 0
            try:
                while position < start + size:
                    position += put(draft.descriptor, position)
            finally:
                draft.size = max(draft.size, position)
            self.uploader.stream(draft)
            return size

    def truncate(self, draft: Draft, size: int) -> None:
        """Set the size of a draft in bytes; a longer one is filled with zeros. Raises `OSError`."""
        with draft.lock:
            if size == 0:
                self._replace_data(draft)
            elif size != draft.size:
                self._mark_dirty(draft)
                draft.cancel_streaming()
                os.ftruncate(draft.descriptor, size)
                draft.size = size

    def set_modified(self, draft: Draft, modified: float) -> bool:
        """Set a draft's modification time, in seconds since 1970. Raises `OSError` if the record cannot be written.

        Returns whether the upload will set the time on the drive. If it is False, the bytes are uploaded already, and
        the caller must set the time there.
        """
        with self._changed:
            draft.modified = modified
            if draft.pending:
                draft.save()
            return draft.pending or draft.dirty

    def commit(self, draft: Draft) -> None:
        """Save the record of a draft's current bytes, and schedule their upload. Raises `OSError`.

        From then on the bytes survive the process. Does nothing if the draft is not dirty, or removed.
        """
        with draft.lock:
            if not draft.dirty or draft.removed:
                return
            with self._changed:
                draft.committed = draft.data
                draft.save()
                # `error` stays set: `close()` reports why the previous upload failed.
                draft.dirty, draft.pending, draft.failures, draft.appended = False, True, 0, 0
                self.uploader.schedule(draft, time.monotonic() + _UPLOAD_DELAY)

    def release(self, draft: Draft) -> None:
        """Commit a draft, decrement its reference count, and retire the draft if nothing needs it any more.

        Raises `OSError` if the commit fails; the reference count is decremented nevertheless.
        """
        try:
            self.commit(draft)
        finally:
            with self._changed:
                draft.references -= 1
                self._retire(draft)

    def abandon(self, draft: Draft) -> None:
        """Release a draft and, if nobody else has acquired it, discard what was written since its last commit.

        Only writes after a truncation to 0 can be discarded; bytes that were overwritten in place are not restored. If
        others have acquired the draft, it is committed as by `release`. Raises `OSError`.
        """
        with draft.lock, self._changed:
            if draft.references == 1 and draft.dirty:
                if draft.data != draft.committed:
                    draft.data.unlink(missing_ok=True)
                draft.dirty = False
                draft.cancel_streaming()
                draft.close()
                if draft.pending and draft.committed is not None:
                    draft.data, draft.size = draft.committed, draft.committed.stat().st_size
                else:
                    draft.uploaded = None  # `data` does not have the bytes of that file
        self.release(draft)

    # Renaming and removing

    def move(self, draft: Draft, parent: str, name: str, over: File | None) -> None:
        """Move a draft to `name` in the folder `parent`, where it replaces `over` and any other draft.

        `over` is the file of that name on the drive, if there is one. A draft that has no file on the drive yet gets
        the id of `over` and thus overwrites it; otherwise `over` is trashed after the draft's upload. Raises `OSError`
        if the record cannot be written.
        """
        with self._changed:
            other = self._drafts.get((parent, name))
            if other is not None and other is not draft:
                self._discard(other)
                draft.waits_for += [one for one in (other, *other.waits_for) if one.uploading]
                draft.replaces += other.replaces
                if other.begun and other.file_id and (over is None or over.id != other.file_id):
                    draft.replaces.append(other.file_id)
            if self._drafts.get((draft.parent, draft.name)) is draft:
                del self._drafts[draft.parent, draft.name]
            draft.parent, draft.name = parent, name
            self._drafts[parent, name] = draft
            if over is not None and over.id != draft.file_id:
                if draft.begun:
                    draft.replaces.append(over.id)
                else:
                    # The file on the drive keeps its id, its links and its revisions, and gets the new bytes.
                    draft.file_id, draft.exists, draft.begun, draft.uploaded = over.id, True, True, over
                    draft.cancel_streaming()
            self._update_claims(draft)
            if draft.pending:
                draft.save()

    def remove(self, draft: Draft) -> list[str]:
        """Remove a draft, which is then never uploaded; return the ids of its files on the drive.

        The caller must trash these, and release the draft if it has acquired it. If an upload of this draft, or of one
        that it replaced, is in flight, nothing is returned: the journal trashes the files when that upload ends. The
        record stays on disk until then, so the next process can do it.
        """
        with self._changed:
            self._discard(draft)
            if not draft.uploading and not draft.is_blocked:
                return draft.remote_ids
            self._to_trash.add(draft)
            self._update_claims(draft)
            draft.save_if_room()
            return []

    # Uploading

    def wait(self, draft: Draft) -> None:
        """Upload a draft now and block until it is on the drive, or removed. Returns at once if it is not pending.

        Raises the error of the first upload of the draft that fails during the call: a `HaversackError` such as
        `QuotaExceeded`, `Forbidden` or `ConnectionFailed`, or `OSError`. The draft stays pending and is retried.
        """
        with self._changed:
            failures = draft.failures
            if draft.pending:
                self.uploader.schedule(draft, 0.0)
            while draft.pending and not draft.removed:
                if draft.failures > failures and draft.error is not None:
                    raise draft.error
                self._changed.wait()

    def drain(self, progress: Callable[[int, int], None] = lambda files, size: None) -> dict[Draft, Exception]:
        """Commit all drafts and upload them now, once each; return the drafts that failed, with their errors.

        Blocks until every upload has ended, and every removed draft's files are trashed. `progress` is called at least
        twice a second, with the numbers of files and bytes that are left, while the journal's lock is held.
        """
        uncommitted = self._commit_all()
        failed = self._upload_all(progress)
        if uncommitted:
            # The disk may have been too full for their records, and the uploads have freed space.
            uncommitted = self._commit_all()
            failed = self._upload_all(progress)
        return failed | uncommitted

    def is_full(self) -> bool:
        """Whether the last upload of a pending draft failed because the drive is full."""
        with self._changed:
            return any(draft.pending for draft in self.uploader.refused)

    def close(self) -> None:
        """Stop uploading, and release the journal folders; the next process uploads the drafts that are pending.

        Supersedes the uploads in flight and blocks until they have ended. The journal must not be used afterwards.
        """
        with self._changed:
            self.uploader.close()
            for draft in self._drafts.values():
                draft.generation += 1
                draft.cancel_streaming()
            self._changed.notify_all()
            while self._to_trash or any(draft.uploading for draft in self._drafts.values()):
                self._changed.wait()
            if not self._drafts:
                self._delete_folder(self._folder)
            for lock in self._locks:
                lock.release()
            self._locks.clear()

    def _commit_all(self) -> dict[Draft, Exception]:
        """Commit all drafts; return those whose records cannot be written, with their errors."""
        failed: dict[Draft, Exception] = {}
        with self._changed:
            drafts = list(self._drafts.values())
        for draft in drafts:
            try:
                self.commit(draft)
            except OSError as error:
                failed[draft] = error
        return failed

    def _upload_all(self, progress: Callable[[int, int], None]) -> dict[Draft, Exception]:
        """Upload all pending drafts, once each; return those that failed, with their errors."""
        failed: dict[Draft, Exception] = {}
        with self._changed:
            # An upload in flight does not count: it may fail because the drive was full when it started.
            waiting = {draft: draft.failures + draft.uploading for draft in self.pending()}
            while True:
                for draft, failures in waiting.items():
                    if draft.pending and draft.failures > failures and draft.error is not None:
                        failed[draft] = draft.error
                left = [draft for draft in waiting if draft.pending and draft not in failed]
                for draft in left:
                    if draft.due and not draft.uploading:
                        self.uploader.schedule(draft, 0.0)
                progress(len(left), sum(max(draft.size - draft.moved, 0) for draft in left))
                if not left and not self._to_trash:
                    return failed
                self._changed.wait(0.5)

    def _try_own(self, folder: Path) -> bool:
        """Acquire the owner lock of a journal folder. Returns False if another process, or this one, holds it."""
        lock = FileLock(folder / "owner.lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        self._locks.append(lock)
        return True

    def _take_over(self, folder: Path) -> None:
        """Load the drafts from the folder of a dead process, schedule their uploads, and delete uncommitted data files.

        If a record cannot be read, no data file is deleted, because any of them may be the one that it names.
        """
        committed, all_read = set(), True
        for record in sorted(folder.glob("*.json")):
            try:
                draft = load(record)
            except (OSError, ValueError, TypeError, KeyError) as error:
                _log.error(
                    "Cannot read the journal record %s (%r): its file is not uploaded, and stays there.", record, error
                )
                all_read = False
                continue
            if draft.removed:
                self._to_trash.add(draft)
                self._update_claims(draft)
                threading.Thread(target=self._trash_files, args=(draft,), daemon=True).start()
                continue
            committed.add(draft.data)
            while (draft.parent, draft.name) in self._drafts:
                draft.name += " (1)"
            self._drafts[draft.parent, draft.name] = draft
            self._update_claims(draft)
            with self._lock:
                self.uploader.schedule(draft, 0.0)
        for data in folder.glob("*.data") if all_read else ():
            if data not in committed:
                data.unlink()
        if not committed and not any(draft.folder == folder for draft in self._to_trash):
            self._delete_folder(folder)

    def _delete_folder(self, folder: Path) -> None:
        """Delete a journal folder that this process owns, unless it has records, and release its lock."""
        if any(folder.glob("*.json")):
            return
        with self._folders_lock:
            for lock in [lock for lock in self._locks if Path(lock.lock_file).parent == folder]:
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()
                lock.release()
                self._locks.remove(lock)

    def _update_claims(self, draft: Draft) -> None:
        """Recompute `draft.claimed_ids` and its entries in `_by_id`. The caller holds the journal's lock."""
        for file_id in draft.claimed_ids:
            if self._by_id.get(file_id) is draft:
                del self._by_id[file_id]
        claims = self._drafts.get((draft.parent, draft.name)) is draft or draft in self._to_trash
        draft.claimed_ids = frozenset(filter(None, (draft.file_id, *draft.replaces))) if claims else frozenset()
        self._by_id |= dict.fromkeys(draft.claimed_ids, draft)

    def _mark_dirty(self, draft: Draft) -> None:
        """Mark a draft as dirty and modified now, before its bytes change; supersede its upload in flight."""
        with self._changed:
            draft.dirty = True
            draft.generation += 1
            draft.modified = _now()
            draft.session = None

    def _replace_data(self, draft: Draft) -> None:
        """Give a draft a new, empty data file; keep the old one until the next commit if its bytes are pending."""
        data, descriptor = draft.create_data_file()
        self._mark_dirty(draft)
        draft.cancel_streaming()
        draft.streaming = None
        os.close(draft.descriptor)
        if draft.data == draft.committed and draft.pending:
            draft.stale.append(draft.data)
        else:
            draft.data.unlink(missing_ok=True)
        draft.data, draft.descriptor, draft.size = data, descriptor, 0

    def _discard(self, draft: Draft) -> None:
        """Mark a draft as removed, supersede its upload, and delete its record. The caller holds the journal's lock."""
        draft.removed = True
        draft.generation += 1
        draft.cancel_streaming()
        draft.pending = draft.dirty = False
        if self._drafts.get((draft.parent, draft.name)) is draft:
            del self._drafts[draft.parent, draft.name]
        self._update_claims(draft)
        draft.record.unlink(missing_ok=True)
        self._retire(draft)
        self._changed.notify_all()

    def _trash_files(self, draft: Draft) -> None:
        """Trash the files on the drive of a removed draft, and delete its record.

        If trashing fails, the record stays, and the next process retries.
        """
        try:
            for file_id in draft.remote_ids:
                self.uploader.trash(file_id)
            draft.record.unlink(missing_ok=True)
        except HaversackError as error:
            _log.warning("Cannot trash the deleted file %s; the next mount retries: %s", draft.name, error)
        with self._changed:
            self._to_trash.discard(draft)
            self._update_claims(draft)
            self._retire(draft)
            self._changed.notify_all()

    def _on_upload_ended(self, draft: Draft) -> None:
        """Handle the end of an upload, with the journal's lock held.

        Reports a file that was uploaded and deletes its record, retires a draft that is not used any more, and trashes
        the files of removed drafts that waited for this upload.
        """
        for removed in self._to_trash:
            if (removed is draft or draft in removed.waits_for) and not removed.uploading and not removed.is_blocked:
                threading.Thread(target=self._trash_files, args=(removed,), daemon=True).start()
        if draft in self._to_trash:
            return
        if draft.uploaded is not None and draft.exists and not (draft.pending or draft.removed):
            try:
                self._on_drive(draft.uploaded)
            except DiskFull as error:
                # The upload succeeded; the changes feed will report the file once the disk has room.
                _log.warning("%s is uploaded, but the index cannot be updated: %s", draft.name, error)
            _list_for_job(draft)
            draft.record.unlink(missing_ok=True)
        self._update_claims(draft)
        self._retire(draft)

    def _retire(self, draft: Draft) -> None:
        """Retire a draft that is neither referenced, pending, dirty nor in flight, and hand its bytes to `on_retired`.

        Deletes its data files, and its journal folder if that belonged to another process and is now empty.
        """
        if draft.references > 0 or draft.pending or draft.dirty or draft.uploading:
            return
        if self._drafts.get((draft.parent, draft.name)) is draft:
            del self._drafts[draft.parent, draft.name]
            self._update_claims(draft)
        draft.close()
        if draft.uploaded is not None and not draft.removed and draft.data.exists():
            self._on_retired(draft.uploaded, draft.data)
        draft.delete_data()
        others = (*self._drafts.values(), *self._to_trash)
        if draft.folder != self._folder and not any(other.folder == draft.folder for other in others):
            self._delete_folder(draft.folder)


def _list_for_job(draft: Draft) -> None:
    """Add an uploaded draft to the list of its notebook job, if it has one whose folder exists; only log an error."""
    if not draft.job or draft.uploaded is None or not Path(draft.job).is_dir():
        return
    line = json.dumps({"parent": draft.parent, "name": draft.name, "md5": draft.uploaded.md5}) + "\n"
    try:
        with open(Path(draft.job, UPLOADED), "a") as listed:
            listed.write(line)
    except OSError as error:
        _log.warning("%s is uploaded, but the job cannot be told: %s", draft.name, error)


def _now() -> float:
    """Return the time in seconds since 1970, in whole milliseconds, as a drive stores it."""
    return time.time_ns() // 1_000_000 / 1000
