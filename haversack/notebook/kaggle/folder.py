"""A job's `/kaggle`: the inputs, the outputs, and the folders for temporary files.

    kaggle/input      the inputs: mounted by FUSE, or extracted and linked where that cannot be
    kaggle/working    the job's output, and where Kaggle's notebooks start; it survives the job's sessions
    kaggle/temp, tmp  empty in each session

Runs in the process of `haversack run`. The folder is in the job's own; `place.content` shows it to the cells as
`/kaggle`. Extracted files are not read-only, but they are the job's own copy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from haversack import disk, progress
from haversack.drive.fuse.mountpoint import clear_stale, detach
from haversack.errors import MountError
from haversack.notebook.kaggle.attachment import AttachedInput
from haversack.notebook.kaggle.mount import InputMount

NAME = "kaggle"
_SUBMISSION = "submission.csv"
_END_TIMEOUT = 20.0
_TEMPORARY = ("temp", "tmp")
# Jupyter writes these beside a notebook; no notebook means them as its output.
_NO_OUTPUTS = {".ipynb_checkpoints", "__pycache__", ".virtual_documents"}


@dataclass(frozen=True)
class OutputFile:
    """A file that a job left in `/kaggle/working`.

    Attributes:
        name: its path below `/kaggle/working`.
        path: its absolute path on this machine.
        size: in bytes.
    """

    name: str
    path: str
    size: int

    def __str__(self) -> str:
        return f"{self.name}, {progress.size(self.size)}"


class KaggleFolder:
    """The folder `kaggle` of the job in the folder `job`. Owner: `Job`.

    | state | `_mount` | event | next state |
    |---|---|---|---|
    | closed | None | `open` mounts the inputs | mounted |
    | closed | None | `open` extracts them, or there are none | open |
    | mounted | the mount | `begin_session` finds its process dead, and mounts anew | mounted |
    | mounted, open | | `close` | closed |

    Args:
        job: the job's folder.
        attached: the job's inputs.
        hub: the job's hub, as in `haversack.dataset`.
        newer: whether the notebook uses Kaggle's newer paths (see `tree`).
        notify: gets sentences for the user.
    """

    def __init__(
        self,
        job: Path,
        attached: Sequence[AttachedInput],
        hub: str | None,
        newer: bool,
        notify: Callable[[str], None],
    ) -> None:
        self.path = job / NAME
        self._inputs = attached
        self._hub = hub
        self._newer = newer
        self._notify = notify
        self._log = job / "inputs.log"
        self._mount: InputMount | None = None

    def make(self) -> None:
        """Make the folders. Raises `OSError`."""
        self._clear_mount()
        for name in ("input", "working", *_TEMPORARY):
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def open(self) -> None:
        """Provide the inputs in the folders. Raises what `inputs.reopen` raises, `DiskFull` and `OSError`."""
        if self._inputs:
            self._provide()

    def begin_session(self) -> None:
        """Empty the folders for temporary files, and mount the inputs anew if their process has died."""
        for name in _TEMPORARY:
            if (self.path / name).exists():
                disk.delete_tree(self.path / name)
            (self.path / name).mkdir()
        if self._mount is not None and not self._mount.is_alive:
            self._mount.close()
            self._mount = self._mounted()

    def close(self) -> None:
        """Unmount the inputs. The other folders stay."""
        if self._mount is not None:
            self._mount.close()
            self._mount = None

    def outputs(self, brought: Collection[str] = ()) -> list[OutputFile]:
        """Return the files in `/kaggle/working`, `submission.csv` first, the others by name.

        Left out are Jupyter's own folders, links to files elsewhere, and the files named in `brought`, which came with
        the notebook.
        """
        working, found = (self.path / "working").resolve(), list[OutputFile]()
        for parent, folders, names in os.walk(working):
            folders[:] = sorted(name for name in folders if name not in _NO_OUTPUTS)
            for path in (Path(parent, name) for name in names):
                name = path.relative_to(working).as_posix()
                if name not in brought and path.is_file() and path.resolve().is_relative_to(working):
                    found.append(OutputFile(name, str(path), path.stat().st_size))
        return sorted(found, key=lambda one: (one.name != _SUBMISSION, one.name))

    def _clear_mount(self) -> None:
        """Wait for the mount of a parent that was killed to end with its process, and detach what is left of it."""
        clear_stale(self._input)
        end = time.monotonic() + _END_TIMEOUT
        while os.path.ismount(self._input) and time.monotonic() < end:
            time.sleep(0.05)
        if os.path.ismount(self._input):
            detach(self._input)

    @property
    def _input(self) -> Path:
        return self.path / "input"

    def _provide(self) -> None:
        """Mount the inputs; where FUSE cannot be used, extract them and say so."""
        from haversack.drive.fuse.mount import why_no_fuse

        reason = why_no_fuse()
        if not reason:
            try:
                self._mount = self._mounted()
                return
            except MountError as error:
                reason = error.what
        self._extract()
        self._notify(f"{reason} So the inputs were extracted to {self._input}, and are not read-only.")

    def _mounted(self) -> InputMount:
        return InputMount(self._inputs, self._input, self._hub, self._newer, self._log)

    def _extract(self) -> None:
        """Extract each input below `input`; a local folder is linked. What is there already is kept."""
        from haversack.notebook.kaggle import inputs

        for one in self._inputs:
            files, target = inputs.reopen(one, self._hub), self._input / one.name
            try:
                if Path(one.source).is_dir():
                    _link(target, Path(one.source))
                else:
                    files.extract(target)
            finally:
                files.close()
            if self._newer and (names := one.newer_path):
                _link(self._input.joinpath(*names), target)


def _link(path: Path, target: Path) -> None:
    """Make `path` a symbolic link to the folder `target`, unless something is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(path):
        path.symlink_to(target)
