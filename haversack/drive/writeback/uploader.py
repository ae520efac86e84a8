"""Upload the drafts of a journal with many worker threads, within a limit of memory.

Every new file gets its id before its upload, so that one request creates it and can be retried; ids are fetched
hundreds at a time. A failed upload is retried with exponential backoff. A write to a draft supersedes its upload in
flight, so that a mixture of two versions is never completed on the drive.

After a crash, `journal` hands over the drafts of the dead process with their upload sessions, and `remote.upload` asks
the drive at which byte each upload resumes.

A draft that grows by appends is uploaded while it is written (`streaming`). Once it is committed, that streaming upload
becomes its upload.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from haversack import settings
from haversack.drive.remote.api import DriveApi
from haversack.drive.remote.calls import File
from haversack.drive.remote.upload import CHUNK, CHUNK_MULTIPLE, MULTIPART_LIMIT, ResumableUpload, UploadSuperseded
from haversack.drive.writeback.draft import Draft
from haversack.drive.writeback.streaming import StreamingUpload
from haversack.errors import ConnectionFailed, HaversackError, NotFound, QuotaExceeded
from haversack.http import wait

_log = logging.getLogger(__name__)

_MAX_WORKERS = 24
# A multipart upload holds the whole file in memory, a resumable one less than this.
_MAX_UPLOAD_MEMORY = MULTIPART_LIMIT
_MAX_MEMORY = 60 << 20
# A file of at least this many bytes is hashed while it is uploaded, a smaller one before.
_HASH_WHILE_UPLOADING = 32 << 20
_MAX_STREAMING = 8
_IDS_PER_CALL = 500
_MAX_RETRY_DELAY = 60.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Uploader:
    """The worker threads that upload one journal's drafts.

    `sent` counts the bytes that the drive has accepted. `refused` has the drafts whose last upload failed with
    `QuotaExceeded`. Unless noted otherwise, fields and methods are guarded by the journal's lock.

    Args:
        api: The drive.
        lock: The journal's lock.
        changed: A condition of that lock, notified whenever an upload has ended.
        on_upload_ended: Called with the lock held when an upload has ended, successfully or not.
        on_trashed: Called with the id of each file that was trashed because a draft replaces it.
    """

    def __init__(
        self,
        api: DriveApi,
        lock: threading.RLock,
        changed: threading.Condition,
        on_upload_ended: Callable[[Draft], None],
        on_trashed: Callable[[str], None],
    ) -> None:
        self.api = api
        self.sent = 0
        self.refused: set[Draft] = set()
        self._changed = changed
        self._on_upload_ended = on_upload_ended
        self._on_trashed = on_trashed
        # A condition of the journal's lock, notified when a worker should look at the queue again.
        self._queue_changed = threading.Condition(lock)
        # A heap of (due, tie-breaker, draft). An entry is obsolete if its draft has another `due`.
        self._queue: list[tuple[float, int, Draft]] = []
        # Drafts that were due while `Draft.is_blocked`; requeued when any upload ends.
        self._blocked: list[Draft] = []
        self._sequence = itertools.count()
        self._workers = self._idle = self._memory = 0
        self._closed = False
        # Unused file ids, guarded by `_ids_lock`.
        self._ids: list[str] = []
        self._ids_lock = threading.Lock()
        self._streaming_threshold = settings.load().ahead
        self._streaming_count = 0

    def schedule(self, draft: Draft, due: float) -> None:
        """Queue a draft's upload for the time `due`, in seconds of the monotonic clock (0.0: now).

        A draft that is queued already is uploaded at `due` instead. The caller holds the journal's lock.
        """
        draft.due = due
        heapq.heappush(self._queue, (due, next(self._sequence), draft))
        self._wake_worker()

    def close(self) -> None:
        """Start no more uploads; those in flight continue. The caller holds the journal's lock."""
        self._closed = True
        self._queue_changed.notify_all()

    def stream(self, draft: Draft) -> None:
        """Tell a draft's streaming upload how far the draft has grown; start one if it has none and has grown enough.

        Enough are as many bytes, appended since the last commit, as the setting `ahead` says. None is started while
        eight run or the drive is full. The caller holds `draft.lock`.
        """
        if draft.streaming is not None:
            draft.streaming.grow(draft.size)
        elif self._streaming_threshold and draft.appended >= self._streaming_threshold:
            self._start_streaming(draft)

    def trash(self, file_id: str) -> None:
        """Trash a file on the drive, if it exists, and report it to `on_trashed`. Needs no lock.

        Raises `ConnectionFailed`, `SignInError`, and `RemoteError`, such as `Forbidden`.
        """
        wait(self.api.trash(file_id))
        self._on_trashed(file_id)

    def _wake_worker(self) -> None:
        """Wake an idle worker, or start one if there is none and fewer than `_MAX_WORKERS` run."""
        if self._idle:
            self._queue_changed.notify()
        elif self._workers < _MAX_WORKERS and not self._closed:
            self._workers += 1
            threading.Thread(target=self._work, name="haversack-upload", daemon=True).start()

    def _work(self) -> None:
        """Run a worker: upload one draft after the other until the queue is empty."""
        while True:
            with self._changed:
                draft = self._next_due()
                if draft is None:
                    self._workers -= 1
                    return
                draft.uploading = True
                if self._queue:
                    self._wake_worker()  # this worker no longer waits for the rest of the queue
                cost = min(draft.size, _MAX_UPLOAD_MEMORY)
                self._memory += cost
            error: Exception | None = None
            try:
                self._upload(draft)
            except UploadSuperseded:
                pass  # the newer version is uploaded in its turn
            except Exception as raised:  # noqa: BLE001 - the worker must survive; the error is stored in the draft
                error = raised
            with self._changed:
                self._memory -= cost
                self._end_upload(draft, error)

    def _next_due(self) -> Draft | None:
        """Wait for a draft that is due and fits into memory, and take it off the queue.

        Returns None if the queue is empty or the uploader is closed. Releases the journal's lock while it waits.
        """
        while self._queue and not self._closed:
            due, _, draft = self._queue[0]
            if not draft.pending or draft.uploading or draft.dirty or due != draft.due:
                heapq.heappop(self._queue)  # obsolete: a commit or the end of the upload in flight queues it again
                continue
            now = time.monotonic()
            fits = not self._memory or self._memory + min(draft.size, _MAX_UPLOAD_MEMORY) <= _MAX_MEMORY
            if due <= now and fits:
                heapq.heappop(self._queue)
                if draft.is_blocked:
                    self._blocked.append(draft)
                    continue
                return draft
            self._idle += 1
            self._queue_changed.wait(min(due - now, 60.0) if due > now else 60.0)
            self._idle -= 1
        return None

    def _end_upload(self, draft: Draft, error: Exception | None) -> None:
        """Record the result of an upload; requeue the draft if it is still pending, and requeue all blocked drafts."""
        draft.uploading = False
        self.refused.discard(draft)
        if error is not None and not draft.removed:
            draft.error = error
            draft.failures += 1
            if isinstance(error, QuotaExceeded):
                self.refused.add(draft)
            if isinstance(error, NotFound) and draft.exists:
                # The file was deleted permanently, so the retry creates a new one.
                draft.file_id, draft.exists, draft.begun, draft.session = None, False, False, None
            level = logging.WARNING if isinstance(error, HaversackError) else logging.ERROR
            _log.log(
                level,
                "The upload of %s failed and will be retried: %s",
                draft.name,
                error,
                exc_info=level == logging.ERROR,
            )
        if draft.pending:
            delay = min(_MAX_RETRY_DELAY, 2.0 ** min(draft.failures, 10)) if error is not None else 0.0
            self.schedule(draft, time.monotonic() + delay)
        blocked, self._blocked = self._blocked, []
        for other in blocked:
            self.schedule(other, other.due)
        self._queue_changed.notify_all()
        self._on_upload_ended(draft)
        self._changed.notify_all()

    def _start_streaming(self, draft: Draft) -> None:
        """Start a streaming upload of a draft, unless the drive is full, too many run, or the draft is being uploaded.

        The caller holds `draft.lock`.
        """
        with self._changed:
            unsuitable = self._closed or self.refused or draft.uploading or draft.removed
            if unsuitable or self._streaming_count >= _MAX_STREAMING:
                return
            streaming = StreamingUpload(
                draft.data,
                draft.lock,
                draft.size,
                exists=draft.exists,
                parent=draft.parent,
                name=draft.name,
                modified=draft.modified,
                step=max(
                    CHUNK_MULTIPLE, min(CHUNK, self._streaming_threshold - self._streaming_threshold % CHUNK_MULTIPLE)
                ),
            )
            draft.streaming = streaming
            self._streaming_count += 1

        async def get_file_id() -> str:
            return await asyncio.to_thread(self._ensure_file_id, draft)

        def on_progress(position: int) -> None:
            self.sent += max(position - streaming.position, 0)
            streaming.position = position

        def on_end(result: Future[File]) -> None:
            with self._changed:
                self._streaming_count -= 1

        streaming.moved = on_progress
        streaming.start(self.api, get_file_id).add_done_callback(on_end)

    def _upload(self, draft: Draft) -> None:
        """Upload the current version of a draft, correct its name, folder and time, and trash the files it replaces.

        Then marks the draft as uploaded, unless it has changed. Raises `UploadSuperseded` if the draft changed before
        its bytes were uploaded, and the errors of `DriveApi`.
        """
        upload, generation = self._prepare(draft)
        try:
            file = upload.result() if isinstance(upload, StreamingUpload) else wait(self.api.upload(upload))
        except Exception as error:
            if draft.generation != generation:
                raise UploadSuperseded from None
            if not isinstance(upload, StreamingUpload) or isinstance(error, ConnectionFailed):
                raise
            # An ordinary upload does not depend on what made the streaming upload fail.
            _log.debug("The streaming upload of %s failed; starting an ordinary upload: %s", draft.name, error)
            draft.session = None
            self._upload(draft)
            return
        self.sent += upload.size - draft.moved
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
                    draft.uploaded, draft.file_id = file, file.id
                    draft.pending, draft.error, draft.failures, draft.moved = False, None, 0, 0
                    return
                if draft.is_blocked:
                    # It replaced another draft while both uploads were in flight. The other's file can be trashed only
                    # once its upload has ended.
                    self._changed.wait()
                    continue
                replaced = list(draft.replaces)
            for file_id in replaced:
                self.trash(file_id)
            if change:
                file = replace(wait(self.api.update(file, **change)), **change)
            with self._changed:
                draft.replaces = [file_id for file_id in draft.replaces if file_id not in replaced]

    def _prepare(self, draft: Draft) -> tuple[ResumableUpload, int]:
        """Return the upload of a draft's current version, streaming or ordinary, and that version's generation.

        Reserves the file's id and saves the record first. The MD5 is computed here, or by a new thread during the
        upload. Raises `UploadSuperseded` if the draft is removed, dirty or blocked, or changes in between.
        """
        self._ensure_file_id(draft)
        with self._changed:
            if draft.removed or draft.dirty or draft.is_blocked:
                raise UploadSuperseded
            generation = draft.generation
            draft.begun = True
            streaming = self._detach_streaming(draft)
            source, size = draft.data, draft.size
        # A session may only be resumed with the same bytes, so their MD5 is needed first; otherwise it can come later.
        digest: str | Future[str] = Future()
        if streaming is not None:
            digest = streaming.md5
        elif draft.session or size < _HASH_WHILE_UPLOADING:
            digest = _md5(source)
        try:
            with self._changed:
                if draft.generation != generation or draft.removed:
                    raise UploadSuperseded
                known = digest if isinstance(digest, str) else ""
                if draft.digest != known:
                    draft.digest, draft.session = known, None
                upload = streaming or self._ordinary_upload(draft, source, size)
                upload.md5 = digest
                self._track(upload, draft, generation)
                draft.session = draft.session or upload.session
                draft.save_if_room()
        except BaseException:
            if streaming is not None:
                streaming.cancel()
            raise
        hasher, hashed = streaming.finish(size) if streaming is not None else (hashlib.md5(usedforsecurity=False), 0)
        if isinstance(digest, Future):
            arguments = (draft, generation, digest, hasher, hashed)
            threading.Thread(target=self._compute_md5, args=arguments, daemon=True).start()
        return upload, generation

    def _detach_streaming(self, draft: Draft) -> StreamingUpload | None:
        """Detach a draft's streaming upload and return it if it can complete the file; otherwise cancel it.

        It can if it is running and is of the same data file and the same file on the drive. The caller holds the
        journal's lock.
        """
        streaming, draft.streaming = draft.streaming, None
        if streaming is None:
            return None
        expected = (draft.data, draft.file_id, draft.exists)
        if not streaming.is_usable or (streaming.source, streaming.file_id, streaming.exists) != expected:
            streaming.cancel()
            return None
        draft.session, draft.moved = None, streaming.position
        return streaming

    def _ordinary_upload(self, draft: Draft, source: Path, size: int) -> ResumableUpload:
        """Return a new upload of `source`, which resumes the draft's session if it has one."""
        assert draft.file_id is not None
        return ResumableUpload(
            source=source,
            size=size,
            md5="",
            file_id=draft.file_id,
            exists=draft.exists,
            parent=draft.parent,
            # A file that is to be replaced has the name until it is trashed, which waits for this upload.
            name=f".{draft.name}.{draft.key}" if draft.replaces else draft.name,
            modified=draft.modified,
            session=_reachable(draft.session, self.api.server.url),
        )

    def _track(self, upload: ResumableUpload, draft: Draft, generation: int) -> None:
        """Record the session and progress of an upload in its draft; stop it once the draft's generation changes."""

        def on_session(session: str | None) -> None:
            with self._changed:
                draft.session = session
                if draft.pending and draft.generation == generation:
                    draft.save_if_room()

        def on_progress(position: int) -> None:
            self.sent += max(position - draft.moved, 0)
            draft.moved = position

        upload.on_session, upload.moved = on_session, on_progress
        upload.is_wanted = lambda: draft.generation == generation

    def _compute_md5(
        self, draft: Draft, generation: int, result: Future[str], hasher: hashlib._Hash, hashed: int
    ) -> None:
        """Hash a draft's bytes after the first `hashed`, and set `result`.

        The MD5 is also saved in the record, so that another process can resume the upload.
        """
        try:
            digest = _md5(draft.data, hasher, hashed)
        except OSError as error:
            result.set_exception(error)
            return
        with self._changed:
            if draft.pending and draft.generation == generation:
                draft.digest = digest
                draft.save_if_room()
        result.set_result(digest)

    def _ensure_file_id(self, draft: Draft) -> str:
        """Return the id of a draft's file; reserve one if it has none. Raises the errors of `DriveApi.new_ids`."""
        new_id = self._next_id() if draft.file_id is None else ""
        with self._changed:
            draft.file_id = draft.file_id or new_id
            return draft.file_id

    def _next_id(self) -> str:
        with self._ids_lock:
            if not self._ids:
                self._ids = wait(self.api.new_ids(_IDS_PER_CALL))
            return self._ids.pop()


def _reachable(session: str | None, url: str) -> str | None:
    """Return a session's URI; if it is on a hub of this machine, with the address that the hub has now."""
    if session is None:
        return None
    old, new = urlsplit(session), urlsplit(url)
    if old.hostname in _LOOPBACK and new.hostname in _LOOPBACK:
        return old._replace(scheme=new.scheme, netloc=new.netloc).geturl()
    return session


def _md5(path: Path, hasher: hashlib._Hash | None = None, hashed: int = 0) -> str:
    """Return the MD5 of a file in hex; `hasher` has the first `hashed` bytes already. Raises `OSError`."""
    with open(path, "rb") as file:
        file.seek(hashed)
        return hashlib.file_digest(file, lambda: hasher or hashlib.md5(usedforsecurity=False)).hexdigest()
