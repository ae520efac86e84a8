"""When a job whose sessions end early is given up: what moves in them, and how many there may be.

Runs in the process of `haversack run`. Another session helps only if the one before got further, so a job is given up
after two sessions in a row without progress (`progress`), and after `--max-sessions` sessions. A job in which only its
own files change goes on, since a loop that the user wrote may resume from them, but the user is told once.
"""

from __future__ import annotations

from collections.abc import Callable

from haversack.errors import HaversackError
from haversack.notebook.sessions.progress import Moved

_MAX_WITHOUT_PROGRESS = 2
# The user is told once that so many sessions in a row changed files of the job and nothing else.
_WITH_FILES_ONLY = 3


class Patience:
    """Counts the sessions of one job that one call of `haversack run` executes.

    Args:
        job: the job's name.
        max_sessions: how many sessions there may be.
        notify: called with a masked sentence for the user and the report.
        mask: masks secrets.
    """

    def __init__(self, job: str, max_sessions: int, notify: Callable[[str], None], mask: Callable[[str], str]) -> None:
        self._job = job
        self._max_sessions = max_sessions
        self._notify = notify
        self._mask = mask
        self._executed = self._without_progress = self._with_files_only = 0
        self._is_notified = False

    def check(self, moved: Moved, error: HaversackError) -> None:
        """Count a session that ended early with `error`, in which `moved` moved.

        Raises an error of the same class if the job is to be given up.
        """
        self._executed += 1
        self._without_progress = 0 if moved.is_progress else self._without_progress + 1
        self._with_files_only = self._with_files_only + 1 if moved.is_files_only else 0
        if self._without_progress == _MAX_WITHOUT_PROGRESS:
            what = f"{error.what.rstrip('.')}, and two sessions in a row made no progress."
            raise type(error)(what, error.next_step)
        if self._executed == self._max_sessions:
            raise self._too_many(error)
        if self._with_files_only == _WITH_FILES_ONLY and not self._is_notified:
            self._is_notified = True
            self._notify_files_only(moved)

    def _too_many(self, error: HaversackError) -> HaversackError:
        """Return the error of a job that has had as many sessions as `--max-sessions` allows; `error` is the last's."""
        allowed = self._max_sessions
        count = "that was the one session" if allowed == 1 else f"those were the {allowed} sessions"
        what = f"{error.what.rstrip('.')}, and {count} that --max-sessions allows."
        return type(error)(what, f"Allow more: haversack run --resume {self._job} --max-sessions N")

    def _notify_files_only(self, moved: Moved) -> None:
        """Tell the user that nothing but the job's own files changes; `moved` is what moved in the last session."""
        name, more = self._mask(moved.files[-1]), len(moved.files) - 1
        files = f"{name} and {more} more" if more else name
        self._notify(
            f"In {_WITH_FILES_ONLY} sessions in a row only files of the job changed (now {files}): no further cell was "
            f"finished, and no training saved a step. The job continues as long as they change, for at most "
            f"{self._max_sessions} sessions (--max-sessions)."
        )
