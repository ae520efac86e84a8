"""What moved in a session of a job: a cell, a training or a file of the job's. A job in which nothing moves is ended.

Runs in the process of `haversack run`. Output is no progress, since a loop that begins anew prints too. Nor is what
other jobs do: a checkpoint names the job that saved it, and each file that a job's mount wrote is listed in the job's
folder once it is uploaded (`drive.UPLOADED`). A file counts only if it has other content than
in all sessions before.

Where the embedded drive is mounted as a symbolic link, no process of ours sees the writes. There every file counts that
changed during the session, whoever changed it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from haversack.drive import UPLOADED
from haversack.notebook.record.store import JobSession


@dataclass(frozen=True)
class Moved:
    """What moved in one session.

    Attributes:
        cells: whether it finished a later cell than all sessions before.
        steps: whether a training of the job saved a later step.
        files: the names of the files of the job that have new content, each once.
    """

    cells: bool
    steps: bool
    files: list[str]

    @property
    def is_progress(self) -> bool:
        """Whether anything moved."""
        return self.cells or self.steps or bool(self.files)

    @property
    def is_files_only(self) -> bool:
        """Whether files are all that moved."""
        return bool(self.files) and not (self.cells or self.steps)


class JobProgress:
    """Compares each session of one job with all before it. Used by one thread at a time.

    Args:
        folder: the job's folder; its name is the job's name.
        runs: the folder of all runs on this machine.
        my_drive: the embedded drive's folder on this machine, for a drive that is mounted as a link.
    """

    def __init__(self, folder: Path, runs: Path, my_drive: Path) -> None:
        self._folder = folder
        self._runs = runs
        self._my_drive = my_drive
        self._furthest = 0
        self._steps = self._saved_steps()
        # (folder, name, MD5) of each file that was seen; the folder is an id on a drive, or a path.
        self._seen = set(self._uploaded())

    def of(self, session: JobSession, *, linked: bool) -> Moved:
        """Return what moved in `session`, which has ended and whose drive is unmounted, and remember it.

        `linked` says that the session had mounted the embedded drive as a symbolic link. Files that cannot be read are
        left out.
        """
        cells = session.cells > self._furthest
        self._furthest = max(self._furthest, session.cells)
        before, self._steps = self._steps, self._saved_steps()
        steps = any(step > before.get(run, -1) for run, step in self._steps.items())
        files = [*self._uploaded(), *_changed(self._folder / "downloads", session.began)]
        if linked:
            # Jobs and trainings have their own store there.
            files += _changed(self._my_drive, session.began, without="haversack")
        new = [file for file in files if file not in self._seen]
        self._seen.update(new)
        return Moved(cells, steps, list(dict.fromkeys(name for _, name, _ in new)))

    @property
    def has_training(self) -> bool:
        """Whether this job has committed a checkpoint on this machine."""
        return bool(self._saved_steps())

    def _saved_steps(self) -> dict[str, int]:
        """Return the step of the last checkpoint that this job committed on this machine, for each run, by run name."""
        if not self._runs.is_dir():
            return {}
        from haversack.training.checkpoints.checkpoints import Checkpoints

        steps = {}
        for run in self._runs.glob("[!.]*/checkpoints"):
            own = [
                one.step
                for one in Checkpoints(run.parent.name, self._runs).all()
                if one.session.job == self._folder.name
            ]
            if own:
                steps[run.parent.name] = max(own)
        return steps

    def _uploaded(self) -> Iterator[tuple[str, str, str]]:
        """Yield what the job's mounts have uploaded so far, all sessions together."""
        try:
            lines = (self._folder / UPLOADED).read_text().splitlines()
        except OSError:
            return
        for line in lines:
            try:
                file = json.loads(line)
                yield file["parent"], file["name"], file["md5"]
            except (ValueError, KeyError, TypeError):
                continue  # cut off by a kill


def _changed(folder: Path, since: float, without: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each file below `folder` that was modified at `since` (seconds since 1970) or later, with its MD5.

    Hidden files, and the folder `without` directly in `folder`, are left out.
    """
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and Path(path, name) != folder / without]
        for name in names:
            file = Path(path, name)
            try:
                if name[0] != "." and file.is_file() and file.stat().st_mtime >= since:
                    with open(file, "rb") as content:
                        yield path, name, hashlib.file_digest(content, _md5).hexdigest()
            except OSError:
                continue  # it was removed, or may not be read


def _md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)
