"""Follows the drive's changes feed (`changes.list`), so that the index sees what others do to the drive.

Protocol: https://developers.google.com/workspace/drive/api/guides/manage-changes. One request every few seconds keeps
the whole index current, whatever its size. The feed is polled every `pace` seconds while the drive is used, half as
often after a minute without use, and not at all by a process that neither uses the drive nor has subscribers. The first
use after a pause polls once before it is answered. Processes of one machine share the index, and so the polls.

While the feed cannot be read, `is_current` returns False and the caller asks the drive itself about each name: the
index is never trusted without a recent poll.

The time of the last poll is stored with the boot id, by a clock that is never set; it is valid until the next boot.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from haversack import disk
from haversack.drive.index.index import DriveIndex, LogEntry
from haversack.drive.index.rows import EVERYTHING
from haversack.drive.remote import calls
from haversack.drive.remote.api import Changes, DriveApi
from haversack.errors import ConnectionFailed, HaversackError, RemoteError
from haversack.http import wait

_log = logging.getLogger(__name__)

PACE = 5.0
"""Seconds between two polls while the drive is used."""
_IDLE_AFTER = 60.0
_IDLE_FACTOR = 2
_MAX_BACKOFF_FACTOR = 4
_FIRST_POLL_MAX_AGE = 1.0
_POLL_TIMEOUT = 10.0
# For a caller who must know the present state and has no other way to learn it.
_REFRESH_TIMEOUT = 60.0
_ANSWERS_KEPT = 20_000
# The drive's statuses for a page token that it does not know any more.
_TOKEN_REFUSED = (400, 404, 410)

Place = str | tuple[str, str]
"""A folder's id, which stands for its listing; or (folder's id, shown name), which stands for one lookup."""
Callback = Callable[[Sequence[LogEntry] | None], None]

_exiting = threading.Event()
atexit.register(_exiting.set)


class ChangesFollower:
    """Applies the changes feed of `api` to `index`, about every `pace` seconds. Thread-safe.

    A *place* is what the drive can be asked about: a folder's id stands for its listing, and a pair (folder's id, name)
    for the lookup of one name.

    `trouble` is the message of the error that the last poll failed with; "" after a success. All times are of `now`.

    | field | meaning | written by |
    |---|---|---|
    | `_last_used` | the last call of `is_current` | any thread |
    | `_fresh_until` | the index is current until then without a look at the last poll | any thread |
    | `_answered_at` | when the drive was asked about a place that it answered | the event loop's thread |
    | `_notified_up_to` | log position up to which subscribers were notified | the follower's thread |
    | `_all_changed` | the next notification must say that any place may have changed | any thread |
    | `_has_polled` | this process has read the feed to its end | holder of `_poll_lock` |
    | `_thread` | the follower's thread, None while it does not run | holder of `_start_lock`; the thread at its end |
    """

    def __init__(self, api: DriveApi, index: DriveIndex, pace: float = PACE) -> None:
        self.pace = pace
        self.trouble = ""
        self._api = api
        self._index = index
        self._callbacks: list[Callback] = []
        self._notified_up_to = index.mark()
        self._all_changed = False
        self._fresh_until = 0.0
        self._answered_at: dict[Place, float] = {}
        self._has_polled = False
        self._last_used = now()
        self._plain_names_restored = now()
        self._poll_lock = threading.Lock()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def is_current(self, *places: Place) -> bool:
        """Whether the index, at least about one of `places`, is at most about 2 × `pace` seconds behind the drive.

        True if a process of this machine has polled the feed within that time, or the drive was asked about one of
        `places` within it. Otherwise poll once and return whether that succeeded. Return False at once while the
        background polls fail: the caller must ask the drive itself. Starts the follower's thread if it does not run.
        """
        self._last_used = now()
        if self._thread is None:
            self._start()
        if self._last_used < self._fresh_until or self._was_polled_recently():
            return True
        if any(self._last_used < self._answered_at.get(place, -math.inf) + 2 * self.pace for place in places):
            return True
        if self.trouble:
            return False  # the follower's thread retries
        try:
            self._poll(unless_recent=True)
        except HaversackError:
            return False
        return True

    def add_answer(self, places: Iterable[Place], asked: float) -> None:
        """Record that the index holds the drive's answer about `places`, which was requested at `asked` (of `now`).

        `is_current` then counts them as current for 2 × `pace` seconds after `asked`. Call it on the event loop's
        thread only.
        """
        for place in places:
            self._answered_at.pop(place, None)
            self._answered_at[place] = asked
        while len(self._answered_at) > _ANSWERS_KEPT:
            del self._answered_at[next(iter(self._answered_at))]

    def refresh(self) -> None:
        """Poll now and apply all changes up to now.

        Raises `ConnectionFailed`, `SignInError`, `RemoteError`, and `DiskFull` if the index cannot be written.
        """
        self._poll(within=_REFRESH_TIMEOUT)

    def age(self) -> float | None:
        """Return the seconds since a process of this machine read the feed to its end or took its start page token.

        None if that has not happened since the last boot.
        """
        boot, _, when = (self._index.fact("polled") or "").partition(" ")
        return now() - float(when) if when and boot == disk.boot_id() else None

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Call `callback` with the index's log entries of changes by other processes and machines, oldest first.

        It gets None instead if any file may have changed. It runs on the follower's thread: while it blocks,
        background polls wait. What it raises is logged. Call the returned function once to unsubscribe.
        """
        self._callbacks.append(callback)
        if self._thread is None:
            self._start()
        return lambda: self._callbacks.remove(callback)

    # Polling

    def _poll(self, *, unless_recent: bool = False, within: float = _POLL_TIMEOUT) -> None:
        """Apply all changes up to now; only one thread polls at a time.

        With `unless_recent`, return at once if another thread or process polled while this one waited for the lock.
        `within` is the time for each page, in seconds. On a failure, set `trouble` in this object and the index, log
        the first one of a series, and raise it.
        """
        with self._poll_lock:
            if unless_recent and self._was_polled_recently():
                return
            try:
                self._apply_pages(within)
            except HaversackError as error:
                self._fresh_until = 0.0
                if not self.trouble and not _exiting.is_set():
                    _log.warning("Changes by others are seen late: the drive's changes feed failed. %s", error)
                    self._all_changed = True
                self.trouble = str(error)
                self._index.set_facts(trouble=self.trouble)
                raise
            self.trouble, self._has_polled = "", True
            if self._index.fact("trouble"):
                self._index.set_facts(trouble=None)

    def _apply_pages(self, within: float) -> None:
        """Fetch and apply pages up to the last one, each within that many seconds.

        Reset the index if the drive refuses its page token. Stop at a page that conflicts with a local write: the next
        poll requests it again.
        """
        was_reset = False
        while True:
            token, since, started = self._index.fact("token"), self._index.mark(), now()
            try:
                page = wait(self._fetch_page(token, within)) if token is not None else None
            except RemoteError as error:
                if was_reset or error.status not in _TOKEN_REFUSED:
                    raise
                _log.warning("The drive refused the page token of its changes feed; the index is rebuilt.")
                page = None
            if page is None:
                self._reset_index()
                was_reset = True
                continue
            facts = {"polled": stamp(started)} if page.last else {}
            complete = self._index.apply(str(token), page, since, **facts)
            if page.last or not complete:
                self._fresh_until = started + 2 * self.pace
                return

    async def _fetch_page(self, token: str, within: float) -> Changes:
        try:
            return await asyncio.wait_for(self._api.send(calls.changes(token)), within)
        except TimeoutError as error:
            raise ConnectionFailed(
                f"The drive's changes feed did not answer within {within:.0f} seconds.", "Try again later."
            ) from error

    def _reset_index(self) -> None:
        """Clear the index and set a new start page token."""
        started = now()
        token = wait(self._api.changes_token())
        self._index.clear()
        self._index.set_first_token(token, stamp(started))
        self._all_changed = True

    def _was_polled_recently(self, within: float | None = None) -> bool:
        """Whether any process of this machine has polled within the last `within` seconds and there is no trouble.

        Without `within`: 2 × `pace`; at most one second before the first poll of this process, so that a new process
        sees what was done just before it started. If True, extends `_fresh_until`.
        """
        age = self.age()
        if within is None:
            within = 2 * self.pace if self._has_polled else min(self.pace, _FIRST_POLL_MAX_AGE)
        if age is None or self.trouble or not 0 <= age < within:
            return False
        self._fresh_until = now() - age + 2 * self.pace
        return True

    # The follower's thread

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="haversack-changes", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        """Poll until the process exits, or the drive is idle and has no subscribers; after failures with backoff."""
        failures = 0
        while not _exiting.is_set():
            idle = now() - self._last_used > _IDLE_AFTER
            if idle and not self._callbacks:
                self._thread = None
                return
            pace = self.pace * (_IDLE_FACTOR if idle else 1)
            _exiting.wait(self.pace * min(2**failures, _MAX_BACKOFF_FACTOR) if failures else pace)
            try:
                self._poll_and_notify(pace)
                failures = 0
            except HaversackError:
                failures += 1
            except Exception:  # noqa: BLE001 - the thread must survive; nobody waits for its exceptions
                failures += 1
                if not _exiting.is_set():
                    _log.exception("The drive's changes could not be applied to the index; retrying")

    def _poll_and_notify(self, pace: float) -> None:
        """Poll unless another process just did; restore plain names once a minute; notify subscribers in any case."""
        try:
            if not self._was_polled_recently(pace * 0.9):
                self._poll()
            if now() - self._plain_names_restored > _IDLE_AFTER:
                self._plain_names_restored = now()
                self._index.restore_plain_names()
        finally:
            self._notify()

    def _notify(self) -> None:
        """Call the subscribers with the log entries since the last notification.

        Only the follower's thread does this, so no caller of `is_current` or `refresh` waits for a subscriber.
        """
        if not self._callbacks:
            return
        entries = self._index.changes_by_others(self._notified_up_to)
        if entries:
            self._notified_up_to = entries[-1].seq
        if self._all_changed or any(one.id == EVERYTHING for one in entries):
            self._all_changed = False
            self._call_subscribers(None)
        elif entries:
            self._call_subscribers(entries)

    def _call_subscribers(self, entries: Sequence[LogEntry] | None) -> None:
        for callback in list(self._callbacks):
            try:
                callback(entries)
            except Exception:  # noqa: BLE001 - one subscriber's failure must not keep the others from being notified
                _log.exception("A subscriber to the drive's changes failed")


def now() -> float:
    """Return seconds on a clock that all processes share, that is never set, and that runs during suspend (Linux)."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(clock) if clock is not None else time.monotonic()


def stamp(when: float) -> str:
    """Return a time of `now` with the boot id, as `ChangesFollower.age` reads it: "<boot id> <seconds>"."""
    return f"{disk.boot_id()} {when}"
