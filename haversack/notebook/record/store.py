"""A job's store: what its next session needs, in the job's folder, and on the drive where that is another machine's.

    notebook.ipynb   the notebook as it is executed, its parameters set
    uploads/N/NAME   the files that files.upload() receives
    job.json         the options, the cells that are done for good, the sessions
    executed.ipynb   on the drive only: what was executed so far

The folder is enough to go on here. The copy, `haversack/jobs/JOB/` on a named hub's drive, is enough to go on anywhere
else: it is made when the job begins and brought up to date after each session. No secret goes there: a notebook is
masked, and a file that holds a secret stays here. A drive that is away is said once, and tried again the next time.
The embedded hub's drive lies on the same disk as the folder, so it gets no copy.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import nbformat

from haversack.errors import HaversackError, InputError, NotFound
from haversack.notebook.record import document
from haversack.notebook.secrets.masking import Secrets

NOTEBOOK, UPLOADS, RECORD, EXECUTED = "notebook.ipynb", "uploads", "job.json", "executed.ipynb"
# Larger files are not looked into for secrets; key files are small.
_LARGEST_KEY = 1 << 20
# What `Record.decode` raises.
_UNREADABLE = (ValueError, TypeError, AttributeError, KeyError)

Why = Literal["", "done", "limit", "hung", "rehearsal", "memory", "died", "failed", "interrupted"]


@dataclass(frozen=True)
class Options:
    """How a job is executed. `session` and `cell_timeout` are in seconds, None for no limit; `rehearse` has the kernel
    killed once, in the middle of a training's epoch."""

    hub: str | None = None
    cores: int | None = None
    session: float | None = None
    cell_timeout: float | None = None
    plain: bool = False
    rehearse: bool = False


@dataclass
class JobSession:
    """One life of the job's kernel, from `began` to `ended` (seconds since 1970; None while it runs, or when everything
    was killed). `why` it ended, in one word, and `said` in a sentence; `cells` is how many are done, `resumed` what
    trainings said when they went on."""

    began: float
    ended: float | None = None
    why: Why = ""
    said: str = ""
    cells: int = 0
    resumed: list[str] = field(default_factory=list)


@dataclass
class JobRecord:
    """What `job.json` holds. `cell` is the one being executed, counted as people count; `once` maps the numbers of the
    cells tagged so that are done to how many uploads each received; `uploads` are paths below `uploads/`, and `passed`
    is how many of them went to cells that this session does not repeat."""

    notebook: str
    output: str
    html: str | None
    options: Options
    uploads: list[str] = field(default_factory=list)
    sessions: list[JobSession] = field(default_factory=list)
    once: dict[int, int] = field(default_factory=dict)
    passed: int = 0
    cell: int = 0
    done: bool = False

    @property
    def progress(self) -> tuple[bool, int, float]:
        """Grows as the job goes on, whichever machine takes it further."""
        return self.done, len(self.sessions), self.sessions[-1].began if self.sessions else 0.0

    def encode(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def decode(cls, text: str) -> JobRecord:
        """Raises one of `_UNREADABLE` for what is no record."""
        values = json.loads(text)
        values["options"] = Options(**values["options"])
        values["sessions"] = [JobSession(**one) for one in values["sessions"]]
        values["once"] = {int(cell): received for cell, received in values["once"].items()}
        return cls(**values)


class JobStore:
    """The store of the job in `folder`. `say` tells the user what the drive refuses."""

    def __init__(self, folder: Path, hub: str | None, secrets: Secrets, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.name = folder.name
        self._hub = hub if has_copy(hub) else None
        self._secrets = secrets
        self._say = say
        self._said: set[str] = set()
        self._filesystem: Any = None

    def take_in(self, notebook: Any, uploads: Sequence[Path]) -> list[str]:
        """Keep the notebook and the uploads here; returns the uploads' paths below `uploads/`."""
        document.write(notebook, self.folder / NOTEBOOK)
        kept = []
        for number, upload in enumerate(uploads):
            place = self.folder / UPLOADS / str(number) / upload.name
            place.parent.mkdir(parents=True)
            shutil.copyfile(upload, place)
            kept.append(f"{number}/{upload.name}")
        return kept

    def save(self, record: JobRecord) -> None:
        """Write the record here, complete or not at all."""
        document.write_text(record.encode(), self.folder / RECORD)

    def carry_all(self, record: JobRecord) -> None:
        """Bring everything to the drive, for a job that begins."""
        notebook = document.read(self.folder / NOTEBOOK)
        masked = self._secrets.clean_all(notebook)
        if masked != notebook and self._hub:
            self._tell("The notebook has a secret in it, which is masked in the copy on the drive: use userdata.get().")
        self._carry(NOTEBOOK, nbformat.writes(masked, version=4).encode())
        for name in record.uploads:
            path = self.folder / UPLOADS / name
            if not self._holds_secret(path):
                self._carry(f"{UPLOADS}/{name}", path)
            elif self._hub:
                self._tell(f"{path.name} holds a secret, so it is not kept on the drive.")
        self.carry(record)

    def carry(self, record: JobRecord, executed: Path | None = None) -> None:
        """Bring the record to the drive, and what was executed, which is masked already."""
        if executed is not None and executed.exists():
            self._carry(EXECUTED, executed)
        self._carry(RECORD, self._secrets.clean(record.encode()).encode())

    def _carry(self, name: str, content: bytes | Path) -> None:
        if self._hub is None:
            return
        path = f"{_folder_of(self.name)}/{name}"
        try:
            if self._filesystem is None:
                self._filesystem = _drive(self._hub)
            if isinstance(content, bytes):
                self._filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._filesystem.pipe_file(path, content)
            else:
                self._filesystem.put_file(str(content), path)
        except (HaversackError, OSError) as error:
            what = error.what if isinstance(error, HaversackError) else error
            self._tell(f"The job's copy on the drive is not up to date: {what}")

    def _tell(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def _holds_secret(self, path: Path) -> bool:
        if path.name == "kaggle.json" or path.stat().st_size > _LARGEST_KEY:
            return path.name == "kaggle.json"
        text = path.read_bytes().decode(errors="replace")
        return self._secrets.clean(text) != text


def find(jobs: Path, name: str, hub: str | None) -> Path:
    """The folder of the job `name`, brought here from the drive when it is not below `jobs`.

    Raises `InputError` when there is no such job; like the drive when that does not answer.
    """
    name = Path(name).name
    folder = jobs / name
    if not (folder / RECORD).exists():
        if not has_copy(hub):
            raise InputError(f"There is no job {name} in {jobs}.", "Name the hub that it ran with: --hub URL")
        assert hub is not None
        record = _on_drive(name, hub)
        if record is None:
            raise InputError(
                f"There is no job {name}, neither here nor on the drive.", "Use the name that `haversack run` printed."
            )
        _fetch(folder, record, hub)
    return folder


def open_record(folder: Path, hub: str | None) -> JobRecord:
    """The record of the job in `folder`. Where another machine took the job further, its copy is brought here first.

    Raises `InputError` for what cannot be read; like the drive when that does not answer.
    """
    try:
        here = JobRecord.decode((folder / RECORD).read_text())
    except _UNREADABLE as error:
        raise InputError(f"{folder / RECORD} is not the record of a job that can go on.", "Run it anew.") from error
    hub = hub or here.options.hub
    if not has_copy(hub):
        return here
    assert hub is not None
    there = _on_drive(folder.name, hub)
    if there is None or there.progress <= here.progress:
        return here
    _fetch(folder, there, hub)
    return there


def known(folder: Path) -> JobRecord | None:
    """The record of the job in `folder` as it stands there; None where none can be read."""
    try:
        return JobRecord.decode((folder / RECORD).read_text())
    except (OSError, *_UNREADABLE):
        return None


def check_uploads(folder: Path, record: JobRecord) -> None:
    """Raise `InputError` when an upload is not in the store, because it held a secret and another machine had it."""
    for name in record.uploads:
        if not (folder / UPLOADS / name).is_file():
            raise InputError(
                f"{Path(name).name} was not kept on the drive, since it holds a secret.",
                f"Put it at {folder / UPLOADS / name}, and resume again.",
            )


def has_copy(hub: str | None) -> bool:
    """Whether jobs with this hub are kept on its drive too."""
    return bool(hub) and hub != "embedded"


def _on_drive(job: str, hub: str) -> JobRecord | None:
    try:
        return JobRecord.decode(_drive(hub).cat_file(f"{_folder_of(job)}/{RECORD}").decode())
    except NotFound:
        return None
    except _UNREADABLE as error:
        raise InputError(f"The record of {job} on the drive cannot be read.", "Run it anew.") from error


def _fetch(folder: Path, record: JobRecord, hub: str) -> None:
    """Bring a job from the drive into `folder`; the record last, since it makes the job be there.

    The notebook and the uploads never change, and those that are here have no secret masked.
    """
    filesystem = _drive(hub)
    for name in [NOTEBOOK, EXECUTED, *(f"{UPLOADS}/{upload}" for upload in record.uploads)]:
        target = _below(folder, name)
        if name != EXECUTED and target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            target.write_bytes(filesystem.cat_file(f"{_folder_of(folder.name)}/{name}"))
        except NotFound:
            continue  # nothing was executed yet, or the file held a secret; `check_uploads` says so
    document.write_text(record.encode(), folder / RECORD)


def _below(folder: Path, name: str) -> Path:
    target = folder / name
    if not target.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"The job on the drive names a file outside its folder: {name}.", "Run the notebook anew.")
    return target


def _folder_of(job: str) -> str:
    return f"haversack/jobs/{job}"


def _drive(hub: str) -> Any:
    from haversack.drive.filesystem import DriveFileSystem

    return DriveFileSystem(hub=hub)
