"""The jobs stored on this machine: list them with their state and size, and remove them.

No job is removed automatically, because its `/content` may hold files that exist nowhere else. Removing a job deletes
its folder and those of its trainings that the notebook gave no name (see `plainfit`). A copy of the job on a drive
stays there, and so do the runs that the notebook named.
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

from haversack import disk, settings
from haversack.errors import InputError, NotFound
from haversack.notebook.place import content
from haversack.notebook.record import store

LOCK = "job.lock"
"""The lock file in a job's folder. The parent process of a running job holds it."""


@dataclass(frozen=True)
class StoredJob:
    """A job stored on this machine.

    Attributes:
        name: the job's name, which is its folder's.
        folder: the job's folder.
        state: "running" while a process executes it, "done" if every cell was executed, "can go on" if it can be
            resumed, "" if its record is missing or unreadable.
        notebook: path of the given notebook, or the address that it was fetched from; "" without a record.
        sessions: number of sessions.
        began: when its first session started, in seconds since 1970; without one, when its folder was last changed.
        said: the error message of its last session; "" if there is none.
        size: bytes that the folder takes on the disk, without mounts.
    """

    name: str
    folder: Path
    state: Literal["done", "running", "can go on", ""]
    notebook: str
    sessions: int
    began: float
    said: str
    size: int

    def json(self) -> dict[str, Any]:
        """Return all fields as a JSON object."""
        return {**asdict(self), "folder": str(self.folder)}

    def __str__(self) -> str:
        began = datetime.fromtimestamp(self.began, UTC).astimezone()
        sessions = f"{self.sessions} session{'' if self.sessions == 1 else 's'}"
        said = f"  {self.said}" if self.said else ""
        megabytes = round(self.size / 1e6)
        source = "" if self.notebook[:1] in ("", "/") else f"  from {self.notebook}"
        known = f"{self.name}  {self.state or 'no record'}, {sessions}, {megabytes} MB, {began:%Y-%m-%d %H:%M}"
        return f"{known}{source}{said}"


def all_jobs() -> list[StoredJob]:
    """Return all jobs of this machine, oldest first."""
    folders = _jobs_folder().iterdir() if _jobs_folder().is_dir() else []
    return sorted((_read(folder) for folder in folders if folder.is_dir()), key=lambda job: job.began)


def remove(names: Iterable[str]) -> list[StoredJob]:
    """Delete the jobs called `names`, with their trainings that the notebook gave no name; return them as they were.

    All are checked first, and none is deleted if this raises `NotFound`, because a job does not exist, or `InputError`,
    because a job is running or something is mounted in its folder. Raises `OSError` if a file cannot be deleted.
    """
    found = []
    stored = {job.name: job for job in all_jobs()}
    for name in names:
        # Looked up rather than joined to a path: "." and ".." would name other folders.
        if (job := stored.get(name)) is None:
            raise NotFound(f"There is no job {name} in {_jobs_folder()}.", "List the jobs with: haversack jobs")
        if job.state == "running":
            raise InputError(f"The job {job.name} is being executed.", "Wait for its end, or interrupt it first.")
        if mounts := content.mounted_below(job.folder):
            raise InputError(f"{mounts[0]} is still mounted.", f"Unmount it: haversack unmount {mounts[0]}")
        found.append(job)
    for job in found:
        for run in (settings.load().data / "runs").glob(f"{glob.escape(job.name)}.cell-*"):
            shutil.rmtree(run)
        disk.delete_tree(job.folder)
    return found


def _read(folder: Path) -> StoredJob:
    record = store.local_record(folder)
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
    """Whether a process is executing the job."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, blocking=False):
            return False
    except Timeout:
        return True


def _size(folder: Path) -> int:
    """Return how many bytes the folder takes on the disk."""
    total = 0
    for parent, folders, files in os.walk(folder):
        # Files of a mounted drive do not belong to the job.
        folders[:] = [name for name in folders if not os.path.ismount(os.path.join(parent, name))]
        for name in files:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # race: a running job deleted it after it was listed
    return total


def _jobs_folder() -> Path:
    return settings.load().data / "jobs"
