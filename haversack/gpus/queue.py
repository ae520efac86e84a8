"""The queue of jobs that wait for GPUs: a locked file for each, in `gpus/queue/` in the data folder.

The file's name begins with the time at which the job began to wait. A file that nobody has locked is that of a job that
was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from haversack.gpus import locks
from haversack.gpus.nvidia_smi import Gpu


class QueuePlace:
    """A job's place in the queue, a context manager."""

    def __init__(self, job: str, wanted: Sequence[Gpu]) -> None:
        """Prepare the place of the job named `job`, which waits for some of the GPUs `wanted`."""
        self._folder = locks.folder() / "queue"
        self._file = self._folder / f"{time.time_ns():020}-{os.getpid()}"
        self._wanted = [gpu.uuid for gpu in wanted]
        self._job = job
        self._lock = -1

    def __enter__(self) -> QueuePlace:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        hidden = self._file.with_name(f".{self._file.name}")
        self._lock = os.open(hidden, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.write(self._lock, json.dumps({"job": self._job, "wanted": self._wanted}).encode())
        # Others see it locked and complete, or not at all.
        hidden.rename(self._file)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.unlink(missing_ok=True)
        os.close(self._lock)

    def before(self) -> list[str]:
        """Return the names of the jobs that have waited longer for some of the same GPUs; delete files of dead jobs."""
        older = (file for file in sorted(self._folder.glob("[0-9]*")) if file.name < self._file.name)
        return [name for file in older if (name := self._competitor(file))]

    def _competitor(self, file: Path) -> str | None:
        """The name of the job that waits by `file`; None if it is dead, has ended, or waits for other GPUs."""
        try:
            with open(file, "rb") as opened:
                if locks.try_lock(opened.fileno(), fcntl.LOCK_SH):
                    file.unlink(missing_ok=True)
                    return None
                waiting: dict[str, Any] = json.loads(opened.read())
        except FileNotFoundError:
            return None
        return str(waiting["job"]) if set(waiting["wanted"]) & set(self._wanted) else None
