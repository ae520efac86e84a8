"""The jobs of this machine: what each came to, how large what is kept of it is, and their removal.

Nothing is removed by itself: a job's `/content` may hold what no cell has put anywhere else. What is removed is the
job's folder and the trainings that were named by it; a copy of the job on a drive stays there, as do trainings with
names of their own.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from haversack import settings
from haversack.errors import InputError, NotFound
from haversack.notebook.place import content
from haversack.notebook.record import store

LOCK = "job.lock"


@dataclass(frozen=True)
class StoredJob:
    """A job's folder. `state` is "" where no record of the job can be read; `began` in seconds since 1970, `size` in
    bytes on the disk; `said` is why its last session ended."""

    name: str
    folder: Path
    state: Literal["done", "running", "can go on", ""]
    notebook: str
    sessions: int
    began: float
    said: str
    size: int

    def json(self) -> dict[str, Any]:
        """All of it, for scripts."""
        return {**asdict(self), "folder": str(self.folder)}

    def __str__(self) -> str:
        began = datetime.fromtimestamp(self.began, UTC).astimezone()
        sessions = f"{self.sessions} session{'' if self.sessions == 1 else 's'}"
        said = f"  {self.said}" if self.said else ""
        megabytes = round(self.size / 1e6)
        return f"{self.name}  {self.state or 'no record'}, {sessions}, {megabytes} MB, {began:%Y-%m-%d %H:%M}{said}"


def every() -> list[StoredJob]:
    """Every job of this machine, the oldest first."""
    folders = _jobs().iterdir() if _jobs().is_dir() else []
    return sorted((_kept(folder) for folder in folders if folder.is_dir()), key=lambda job: job.began)


def remove(names: Iterable[str]) -> list[StoredJob]:
    """Remove these jobs and the trainings named by them; returns what they were.

    Raises `NotFound` for one that is not there, and `InputError` for one that is being executed or has something
    mounted; none is removed then.
    """
    found = []
    there = {job.name: job for job in every()}
    for name in names:
        # Looked up, never joined: "." and ".." are folders too.
        if (job := there.get(name)) is None:
            raise NotFound(f"There is no job {name} in {_jobs()}.", "See which there are with: haversack jobs")
        if job.state == "running":
            raise InputError(f"The job {job.name} is being executed.", "Wait for it, or interrupt it first.")
        if mounts := content.mounted_below(job.folder):
            raise InputError(f"{mounts[0]} is still mounted.", f"Unmount it: haversack unmount {mounts[0]}")
        found.append(job)
    for job in found:
        for run in (settings.load().data / "runs").glob(f"{glob.escape(job.name)}.cell-*"):
            shutil.rmtree(run)
        shutil.rmtree(job.folder)
    return found


def _kept(folder: Path) -> StoredJob:
    record = store.known(folder)
    last = record.sessions[-1] if record and record.sessions else None
    return StoredJob(
        name=folder.name,
        folder=folder,
        state="running" if _is_locked(folder) else "" if record is None else "done" if record.done else "can go on",
        notebook=record.notebook if record else "",
        sessions=len(record.sessions) if record else 0,
        began=record.sessions[0].began if record and record.sessions else folder.stat().st_mtime,
        said="" if last is None else last.said,
        size=_size(folder),
    )


def _is_locked(folder: Path) -> bool:
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, blocking=False):
            return False
    except Timeout:
        return True


def _size(folder: Path) -> int:
    total = 0
    for parent, folders, files in os.walk(folder):
        # What is mounted is not the job's.
        folders[:] = [name for name in folders if not os.path.ismount(os.path.join(parent, name))]
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # a job that runs removes files
    return total


def _jobs() -> Path:
    return settings.load().data / "jobs"
