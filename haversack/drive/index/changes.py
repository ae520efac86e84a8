"""The drive's list of changes, followed: what others do to the drive reaches the index by itself.

One question every few seconds keeps everything that is known true, however much it is. It is asked while somebody uses
the drive, less often while nobody does, and not at all by a process that has long stopped; the first look after a pause
asks once before it answers. Processes of one machine share the answers through the index. As long as the list cannot be
had, `current` says so, and the drive itself is asked about every name: nothing stale is believed for ever.

The time since the last answer is taken from a clock that nobody sets, and counts within one start of the machine only.
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
from haversack.drive.index.index import DriveIndex, Touched
from haversack.drive.index.rows import EVERYTHING
from haversack.drive.remote import calls
from haversack.drive.remote.api import Changes, DriveApi
from haversack.errors import ConnectionFailed, HaversackError, RemoteError
from haversack.http import wait

_log = logging.getLogger(__name__)

PACE = 5.0
"""Seconds between two questions while the drive is used."""
_IDLE_AFTER = 60.0
_IDLE_PACE = 2
_LONGEST_PAUSE = 4
_JUST_NOW = 1.0
_LONGEST_WAIT = 10.0
_REMEMBERED = 20_000
# Answers to a token that the drive does not take any more.
_TOKEN_REFUSED = (400, 404, 410)

Place = str | tuple[str, str]
"""A folder's id, or with it a name that is shown in the folder."""
Callback = Callable[[Sequence[Touched] | None], None]

_ending = threading.Event()
atexit.register(_ending.set)


class ChangesFollower:
    """Keeps `index` true by what `api` lists as changed, every `pace` seconds. Safe to use from any thread."""

    def __init__(self, api: DriveApi, index: DriveIndex, pace: float = PACE) -> None:
        self.pace = pace
        self.trouble = ""
        self._api = api
        self._index = index
        self._callbacks: list[Callback] = []
        self._told = index.mark()
        self._any = False
        self._believed_until = 0.0
        self._answered: dict[Place, float] = {}
        self._has_asked = False
        self._asked = now()
        self._settled = now()
        self._asking = threading.Lock()
        self._starting = threading.Lock()
        self._follower: threading.Thread | None = None

    def current(self, *places: Place) -> bool:
        """Whether what the index holds is as it is on the drive, give or take a few seconds; asks once when in doubt.

        So is what was `answered` of any of `places` so few seconds ago, however late the list of changes comes. False
        means that the list cannot be had: ask the drive itself.
        """
        self._asked = now()
        if self._follower is None:
            self._start()
        if self._asked < self._believed_until or self._is_fresh():
            return True
        if any(self._asked < self._answered.get(place, -math.inf) + 2 * self.pace for place in places):
            return True
        if self.trouble:
            return False  # the follower goes on trying
        try:
            self._ask(unless_fresh=True)
        except HaversackError:
            return False
        return True

    def answered(self, places: Iterable[Place], asked: float) -> None:
        """The drive, asked at that time of `now`, answered what there is in these places. From one thread only."""
        for place in places:
            self._answered.pop(place, None)
            self._answered[place] = asked
        while len(self._answered) > _REMEMBERED:
            del self._answered[next(iter(self._answered))]

    def refresh(self) -> None:
        """Take over everything that changed up to now. Raises `ConnectionFailed` or `RemoteError`."""
        self._ask()

    def age(self) -> float | None:
        """Seconds since the drive last said what changed; None when that was in another life of this machine."""
        life, _, when = (self._index.fact("polled") or "").partition(" ")
        return now() - float(when) if when and life == disk.boot_id() else None

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Have `callback` called with the places that others touched, None when it may be any; returns its end.

        It is called on a thread of its own and may block; what this process does itself is not told.
        """
        self._callbacks.append(callback)
        if self._follower is None:
            self._start()
        return lambda: self._callbacks.remove(callback)

    # Asking

    def _ask(self, *, unless_fresh: bool = False) -> None:
        """Take over what changed; with `unless_fresh` only if nobody else did while this thread waited its turn."""
        with self._asking:
            if unless_fresh and self._is_fresh():
                return
            try:
                self._take_over()
            except HaversackError as error:
                self._believed_until = 0.0
                if not self.trouble and not _ending.is_set():
                    _log.warning("What others change on the drive is not seen at once: %s", error)
                    self._any = True
                self.trouble = str(error)
                self._index.note(trouble=self.trouble)
                raise
            self.trouble, self._has_asked = "", True
            if self._index.fact("trouble"):
                self._index.note(trouble=None)

    def _take_over(self) -> None:
        begun = False
        while True:
            token, since, started = self._index.fact("token"), self._index.mark(), now()
            try:
                page = wait(self._page(token)) if token is not None else None
            except RemoteError as error:
                if begun or error.status not in _TOKEN_REFUSED:
                    raise
                _log.warning("The drive forgot where it was in its list of changes; everything is asked anew.")
                page = None
            if page is None:
                self._begin_anew()
                begun = True
                continue
            facts = {"polled": stamp(started)} if page.last else {}
            whole = self._index.apply(str(token), page, since, **facts)
            if page.last or not whole:
                self._believed_until = started + 2 * self.pace
                return

    async def _page(self, token: str) -> Changes:
        try:
            return await asyncio.wait_for(self._api.do(calls.changes(token)), _LONGEST_WAIT)
        except TimeoutError as error:
            raise ConnectionFailed("The drive does not say what changed on it.", "Try again later.") from error

    def _begin_anew(self) -> None:
        """Forget everything, and know from now on what changes."""
        started = now()
        token = wait(self._api.changes_token())
        self._index.clear()
        self._index.begin(token, stamp(started))
        self._any = True

    def _is_fresh(self, within: float | None = None) -> bool:
        """Whether this process or another asked not long ago."""
        age = self.age()
        if within is None:
            # A process that begins wants to see what was done just before it.
            within = 2 * self.pace if self._has_asked else min(self.pace, _JUST_NOW)
        if age is None or self.trouble or not 0 <= age < within:
            return False
        self._believed_until = now() - age + 2 * self.pace
        return True

    # Following

    def _start(self) -> None:
        with self._starting:
            if self._follower is None:
                self._follower = threading.Thread(target=self._follow, name="haversack-changes", daemon=True)
                self._follower.start()

    def _follow(self) -> None:
        """Ask again and again, until nobody is there who could want to know."""
        failures = 0
        while not _ending.is_set():
            idle = now() - self._asked > _IDLE_AFTER
            if idle and not self._callbacks:
                self._follower = None
                return
            pace = self.pace * (_IDLE_PACE if idle else 1)
            _ending.wait(self.pace * min(2**failures, _LONGEST_PAUSE) if failures else pace)
            try:
                self._turn(pace)
                failures = 0
            except HaversackError:
                failures += 1
            except Exception:  # noqa: BLE001 - who follows goes on; nobody waits for what it raises
                failures += 1
                if not _ending.is_set():
                    _log.exception("What changed on the drive could not be taken over")

    def _turn(self, pace: float) -> None:
        try:
            if not self._is_fresh(pace * 0.9):
                self._ask()
            if now() - self._settled > _IDLE_AFTER:
                self._settled = now()
                self._index.settle_names()
        finally:
            self._tell()

    def _tell(self) -> None:
        """Tell the subscribers what happened since they were told last, while nobody waits for this thread."""
        if not self._callbacks:
            return
        touched = self._index.touched_since(self._told)
        if touched:
            self._told = touched[-1].seq
        if self._any or any(one.id == EVERYTHING for one in touched):
            self._any = False
            self._call(None)
        elif touched:
            self._call(touched)

    def _call(self, touched: Sequence[Touched] | None) -> None:
        for callback in list(self._callbacks):
            try:
                callback(touched)
            except Exception:  # noqa: BLE001 - one that fails must not keep it from the others
                _log.exception("Somebody could not be told what changed on the drive")


def now() -> float:
    """Seconds on a clock that is the same in all processes, is never set, and runs while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(clock) if clock is not None else time.monotonic()


def stamp(when: float) -> str:
    """A time of `now` as other processes, also after a restart of the machine, understand it."""
    return f"{disk.boot_id()} {when}"
