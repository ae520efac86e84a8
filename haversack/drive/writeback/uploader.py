"""Bringing drafts onto the drive: many side by side, as far as memory goes.

Every new file gets its id beforehand, hundreds to a call, so one call creates it and may be repeated. What fails is
tried again, later and later. A draft that is written again while it is on its way ends that upload: no torn state is
ever completed on the drive.

A draft that grows and grows by appends goes up while it is written (`growing`); once it is committed, its upload is
that one.
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
from haversack.drive.remote.api import DriveApi, File, Overtaken, ResumableUpload
from haversack.drive.remote.upload import CHUNK, MULTIPART_LIMIT, UNIT
from haversack.drive.writeback.draft import Draft
from haversack.drive.writeback.streaming import StreamingUpload
from haversack.errors import ConnectionFailed, HaversackError, NotFound, QuotaExceeded
from haversack.http import wait

_log = logging.getLogger(__name__)

_WORKERS = 24
# An upload holds a small file in memory, and of a large one less than that.
_PIECE = MULTIPART_LIMIT
# Files of at least so many bytes are hashed while they go up.
_HASHED_FIRST = 32 << 20
_MEMORY = 60 << 20
# So many files go up while they are written.
_GROWING = 8
_IDS = 500
_LONGEST_RETRY = 60.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Uploader:
    """The workers that upload one journal's drafts. `changed`, of the journal's `lock`, is told when a draft changed.

    `ended` is called, with the lock held, when an upload ended, well or not; `trashed` with each id that went into the
    trash because a draft took its place. `sent` counts the bytes that the drive has taken; `refused` are the drafts for
    which it had no room when they were tried last.
    """

    def __init__(
        self,
        api: DriveApi,
        lock: threading.RLock,
        changed: threading.Condition,
        ended: Callable[[Draft], None],
        trashed: Callable[[str], None],
    ) -> None:
        self.api = api
        self.sent = 0
        self.refused: set[Draft] = set()
        self._changed = changed
        self._ended_one = ended
        self._trashed = trashed
        self._due = threading.Condition(lock)
        self._queue: list[tuple[float, int, Draft]] = []
        self._blocked: list[Draft] = []
        self._count = itertools.count()
        self._workers = self._idle = self._memory = 0
        self._closed = False
        self._ids: list[str] = []
        self._taking = threading.Lock()
        self._ahead = settings.load().ahead
        self._growing = 0

    def put(self, draft: Draft, due: float) -> None:
        """Have a draft uploaded at `due`, in seconds of the monotonic clock. The journal's lock is held."""
        draft.due = due
        heapq.heappush(self._queue, (due, next(self._count), draft))
        self._call_worker()

    def close(self) -> None:
        """Begin no more uploads. The journal's lock is held."""
        self._closed = True
        self._due.notify_all()

    def follow(self, draft: Draft) -> None:
        """Have what was appended to a draft go up while more is written. `draft.lock` is held."""
        if draft.ahead is not None:
            draft.ahead.grew(draft.size)
        elif self._ahead and draft.appended >= self._ahead:
            self._begin_ahead(draft)

    def trash(self, file_id: str) -> None:
        wait(self.api.trash(file_id))
        self._trashed(file_id)

    def _call_worker(self) -> None:
        """See to it that somebody waits for what is queued."""
        if self._idle:
            self._due.notify()
        elif self._workers < _WORKERS and not self._closed:
            self._workers += 1
            threading.Thread(target=self._work, name="haversack-upload", daemon=True).start()

    def _work(self) -> None:
        """Upload what is due until nothing is left."""
        while True:
            with self._changed:
                draft = self._next()
                if draft is None:
                    self._workers -= 1
                    return
                draft.uploading = True
                if self._queue:
                    self._call_worker()  # one that waited for this one alone no longer waits for the others
                cost = min(draft.size, _PIECE)
                self._memory += cost
            error: Exception | None = None
            try:
                self._upload(draft)
            except Overtaken:
                pass  # what overtook it is uploaded in its turn
            except Exception as raised:  # noqa: BLE001 - a worker lives on; who waits for the draft gets the error
                error = raised
            with self._changed:
                self._memory -= cost
                self._ended(draft, error)

    def _next(self) -> Draft | None:
        """Wait for a draft that is due; None when there is none to wait for."""
        while self._queue and not self._closed:
            due, _, draft = self._queue[0]
            if not draft.pending or draft.uploading or draft.dirty or due != draft.due:
                heapq.heappop(self._queue)  # it is queued anew by what happens to it
                continue
            now = time.monotonic()
            fits = not self._memory or self._memory + min(draft.size, _PIECE) <= _MEMORY
            if due <= now and fits:
                heapq.heappop(self._queue)
                if draft.is_held_up:
                    self._blocked.append(draft)
                    continue
                return draft
            self._idle += 1
            self._due.wait(min(due - now, 60.0) if due > now else 60.0)
            self._idle -= 1
        return None

    def _ended(self, draft: Draft, error: Exception | None) -> None:
        draft.uploading = False
        self.refused.discard(draft)
        if error is not None and not draft.removed:
            draft.error = error
            draft.failures += 1
            if isinstance(error, QuotaExceeded):
                self.refused.add(draft)
            if isinstance(error, NotFound) and draft.exists:
                # Somebody deleted it for good meanwhile: what was written becomes a file of its own.
                draft.file_id, draft.exists, draft.begun, draft.session = None, False, False, None
            level = logging.WARNING if isinstance(error, HaversackError) else logging.ERROR
            _log.log(level, "%s is not on the drive yet: %s", draft.name, error, exc_info=level == logging.ERROR)
        if draft.pending:
            pause = min(_LONGEST_RETRY, 2.0 ** min(draft.failures, 10)) if error is not None else 0.0
            self.put(draft, time.monotonic() + pause)
        blocked, self._blocked = self._blocked, []
        for other in blocked:
            self.put(other, other.due)
        self._due.notify_all()
        self._ended_one(draft)
        self._changed.notify_all()

    def _begin_ahead(self, draft: Draft) -> None:
        with self._changed:
            hindered = self._closed or self.refused or draft.uploading or draft.removed
            if hindered or self._growing >= _GROWING:
                return
            ahead = StreamingUpload(
                draft.data,
                draft.lock,
                draft.size,
                exists=draft.exists,
                parent=draft.parent,
                name=draft.name,
                modified=draft.modified,
                step=max(UNIT, min(CHUNK, self._ahead - self._ahead % UNIT)),
            )
            draft.ahead = ahead
            self._growing += 1

        async def identified() -> str:
            return await asyncio.to_thread(self._identified, draft)

        def moved(position: int) -> None:
            self.sent += max(position - ahead.position, 0)
            ahead.position = position

        def ended(result: Future[File]) -> None:
            with self._changed:
                self._growing -= 1

        ahead.moved = moved
        ahead.begin(self.api, identified).add_done_callback(ended)

    def _upload(self, draft: Draft) -> None:
        """Bring one state of a draft onto the drive."""
        upload, generation = self._prepare(draft)
        try:
            file = upload.result() if isinstance(upload, StreamingUpload) else wait(self.api.upload(upload))
        except Exception as error:
            if draft.generation != generation:
                raise Overtaken from None
            if not isinstance(upload, StreamingUpload) or isinstance(error, ConnectionFailed):
                raise
            # Whatever the drive has against what went ahead, it is asked again without.
            _log.debug("What went ahead of %s did not become it: %s", draft.name, error)
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
                if draft.is_held_up:
                    # It took the other's place while both were on their way; what has not arrived cannot be trashed.
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
        """The upload of a draft as it is now: the one that went ahead where it can be, and which generation that is."""
        self._identified(draft)
        with self._changed:
            if draft.removed or draft.dirty or draft.is_held_up:
                raise Overtaken
            generation = draft.generation
            draft.begun = True
            ahead = self._went_ahead(draft)
            source, size = draft.data, draft.size
        # A session that is there goes on only with the bytes it began with; else the hash may come while they go.
        digest: str | Future[str] = Future()
        if ahead is not None:
            digest = ahead.md5
        elif draft.session or size < _HASHED_FIRST:
            digest = _md5(source)
        try:
            with self._changed:
                if draft.generation != generation or draft.removed:
                    raise Overtaken
                known = digest if isinstance(digest, str) else ""
                if draft.digest != known:
                    draft.digest, draft.session = known, None
                upload = ahead or self._whole(draft, source, size)
                upload.md5 = digest
                self._watch(upload, draft, generation)
                draft.session = draft.session or upload.session
                draft.note()
        except BaseException:
            if ahead is not None:
                ahead.end()
            raise
        hashed = ahead.finish(size) if ahead is not None else (hashlib.md5(usedforsecurity=False), 0)
        if isinstance(digest, Future):
            threading.Thread(target=self._hash, args=(draft, generation, digest, *hashed), daemon=True).start()
        return upload, generation

    def _went_ahead(self, draft: Draft) -> StreamingUpload | None:
        """The upload that followed the writer, where what it sent is what the draft is by now."""
        ahead, draft.ahead = draft.ahead, None
        if ahead is None:
            return None
        meant = (draft.data, draft.file_id, draft.exists)
        if not ahead.is_good or (ahead.source, ahead.file_id, ahead.exists) != meant:
            ahead.end()
            return None
        draft.session, draft.moved = None, ahead.position
        return ahead

    def _whole(self, draft: Draft, source: Path, size: int) -> ResumableUpload:
        assert draft.file_id is not None
        return ResumableUpload(
            source=source,
            size=size,
            md5="",
            file_id=draft.file_id,
            exists=draft.exists,
            parent=draft.parent,
            # The name is free only once what has it is in the trash, and that waits for these bytes.
            name=f".{draft.name}.{draft.key}" if draft.replaces else draft.name,
            modified=draft.modified,
            session=_reachable(draft.session, self.api.server.url),
        )

    def _watch(self, upload: ResumableUpload, draft: Draft, generation: int) -> None:
        """Note in a draft how far the upload of that generation of it gets."""

        def on_session(session: str | None) -> None:
            with self._changed:
                draft.session = session
                if draft.pending and draft.generation == generation:
                    draft.note()

        def moved(position: int) -> None:
            self.sent += max(position - draft.moved, 0)
            draft.moved = position

        upload.on_session, upload.moved = on_session, moved
        upload.is_wanted = lambda: draft.generation == generation

    def _hash(self, draft: Draft, generation: int, hashed: Future[str], hasher: Any, start: int) -> None:
        """Hash a draft's bytes from `start` and write that down, so that its upload can go on in another process."""
        try:
            digest = _md5(draft.data, hasher, start)
        except OSError as error:
            hashed.set_exception(error)
            return
        with self._changed:
            if draft.pending and draft.generation == generation:
                draft.digest = digest
                draft.note()
        hashed.set_result(digest)

    def _identified(self, draft: Draft) -> str:
        """The id of a draft's file, made up where it has none."""
        new_id = self._take_id() if draft.file_id is None else ""
        with self._changed:
            draft.file_id = draft.file_id or new_id
            return draft.file_id

    def _take_id(self) -> str:
        with self._taking:
            if not self._ids:
                self._ids = wait(self.api.new_ids(_IDS))
            return self._ids.pop()


def _reachable(session: str | None, url: str) -> str | None:
    """The URI of an upload under way at a hub of this machine that has come back at another port."""
    if session is None:
        return None
    old, new = urlsplit(session), urlsplit(url)
    if old.hostname in _LOOPBACK and new.hostname in _LOOPBACK:
        return old._replace(scheme=new.scheme, netloc=new.netloc).geturl()
    return session


def _md5(path: Path, hasher: Any = None, start: int = 0) -> str:
    """The MD5 of a file, of whose first `start` bytes `hasher` is."""
    with open(path, "rb") as file:
        file.seek(start)
        return hashlib.file_digest(file, lambda: hasher or hashlib.md5(usedforsecurity=False)).hexdigest()
