"""The store of a job: everything that its next session needs, in the job's folder and, with a named hub, on the drive.

    notebook.ipynb   the notebook to execute, with its parameters set
    uploads/N/NAME   the files that `files.upload()` receives
    beside/          the modules, scripts and notebooks beside the notebook that it imports or runs
    lock/            what the notebook needs and the lock of its packages; missing with --no-install
    job.json         the record: options, sessions, finished `once` cells (`JobRecord`)
    executed.ipynb   the executed notebook so far; on the drive, and in a folder that was downloaded from there

Runs in the process of `haversack run`; the kernel only reads `job.json`. The folder is enough to resume the job on this
machine. With a named hub, a copy in `haversack/jobs/JOB/` on its drive is enough to resume it on any machine. The
notebook, the uploads, what lies beside it and the lock are uploaded once, before the first session of a `run` or
`resume`; the record then, before and after each session, and after each newly finished `once` cell; the executed
notebook after each session. The copy contains no secret: notebooks are masked, and a file that holds a secret is
left out. If an upload to the drive fails, the user is told once and the job continues. The embedded hub's drive is on
the same disk as the folder, so with it there is no copy.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from haversack.errors import HaversackError, InputError, NotFound
from haversack.notebook import streams
from haversack.notebook.kaggle.attachment import AttachedInput
from haversack.notebook.kaggle.dialect import Dialect
from haversack.notebook.record import beside, document
from haversack.notebook.secrets.masking import Secrets

NOTEBOOK, UPLOADS, RECORD, EXECUTED = "notebook.ipynb", "uploads", "job.json", "executed.ipynb"
NEEDED, LOCK = "lock/requirements.json", "lock/packages.lock"
# Key files are small, so larger uploads are not searched for secrets. In bytes.
_MAX_SEARCHED_SIZE = 1 << 20
# The errors of `JobRecord.decode`.
_UNREADABLE = (ValueError, TypeError, AttributeError, KeyError)

Why = Literal["", "done", "limit", "hung", "rehearsal", "memory", "died", "failed", "interrupted"]
"""Why a session ended. "" while it runs, and forever if the parent was killed. `JobSessions` describes the others."""


@dataclass(frozen=True)
class Options:
    """The options of `haversack run` that a resumed job keeps.

    Attributes:
        hub: a hub's URL, "google", "embedded", or None, as in `credentials.drive`.
        cores: number of simulated accelerator cores; None to simulate none.
        session: the longest a session may take, in seconds; None for no limit.
        cell_timeout: the longest a cell may show no output and no training step, in seconds; None for no limit.
        plain: whether `model.fit` is left unpatched.
        rehearse: whether the kernel is killed once, in the middle of a training's epoch.
        max_sessions: the most sessions that one `run` or `resume` executes.
        install: whether the kernel gets an environment with the packages that the notebook needs.
        as_of: the day after which no release of a package is used, such as "2026-07-31"; None for none.
        python: the version of Python, such as "3.12"; None for the notebook's own or haversack's.
        private_caches: whether the libraries' caches are the session's own (see `place.caches`).
        unseeded: whether no session begins with the random streams of an earlier one (see `notebook.streams`).
        gpus: number of GPUs that the job has to itself; 0 to hide all, None to see all and have none to itself.
        trusted: whether the notebook is the user's own, or trusted with `--trust`; see `job.untrusted`.
    """

    hub: str | None = None
    cores: int | None = None
    session: float | None = None
    cell_timeout: float | None = None
    plain: bool = False
    rehearse: bool = False
    max_sessions: int = 100
    install: bool = False
    as_of: str | None = None
    python: str | None = None
    private_caches: bool = False
    unseeded: bool = False
    gpus: int | None = None
    trusted: bool = True


@dataclass
class JobSession:
    """One session of a job: one life of its kernel. Owner: `JobSessions` in the parent, which alone assigns the fields.

    | field | type | meaning |
    |---|---|---|
    | `began` | float | when the session started, in seconds since 1970 |
    | `ended` | float or None | when it ended; None while it runs, and forever if the parent was killed |
    | `why` | `Why` | why it ended; "" as long as `ended` is None |
    | `said` | str | the masked error message of its end, one sentence; "" if `why` is "done" or after a second Ctrl-C |
    | `cells` | int | number of the last cell that this session finished or skipped, counted as in `JobRecord.cell` |
    | `resumed` | list of str | the masked lines that trainings printed when they resumed |
    """

    began: float
    ended: float | None = None
    why: Why = ""
    said: str = ""
    cells: int = 0
    resumed: list[str] = field(default_factory=list)


@dataclass
class JobRecord:
    """The contents of `job.json`: the state of a job. `JobSessions` has the table of its states and transitions.

    Only the parent writes it, holding the job's `FileLock` (`job.lock`). The kernel reads `uploads`, `passed` and
    `cell` from the file. Cells are numbered from 1; only code cells that are not empty count.

    | field | type | owner | meaning |
    |---|---|---|---|
    | `notebook` | str | `job.run` | absolute path of the given notebook, maybe on another machine; or its address |
    | `output` | str | `job.run`, `job.resume` | absolute path of the executed notebook |
    | `html` | str or None | `job.run`, `job.resume` | absolute path of the web page; None for none |
    | `options` | `Options` | `job.run`, `job.resume` | the options of the job |
    | `uploads` | list of str | `job.run` | paths below `uploads/`, in the order in which they were given |
    | `beside` | list of str | `job.run` | paths below `beside/` of the files that come along |
    | `written` | str | `job.run` | the month in which the notebook was last executed (`dated`); "" if unknown |
    | `inputs` | list of `AttachedInput` | `job.run` | the inputs below `/kaggle/input`, with their versions |
    | `dialect` | `Dialect` | `job.run` | whether the notebook speaks of Colab or Kaggle |
    | `sessions` | list of `JobSession` | `JobSessions` | all sessions, oldest first |
    | `once` | dict of int to list of str | `JobSessions` | finished `once` cells → the uploads that each received |
    | `once_failures` | list of dict | `JobSessions` | the shell commands that failed in `once` (see `ShellFailure`) |
    | `passed` | list of str | `JobSessions` | the uploads of the `once` cells that this session has skipped |
    | `cell` | int | `JobSessions` | the cell that is being executed, or was last; 0 while the kernel starts |
    | `done` | bool | `JobSessions` | whether the last session executed every cell |
    """

    notebook: str
    output: str
    html: str | None
    options: Options
    uploads: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    written: str = ""
    inputs: list[AttachedInput] = field(default_factory=list)
    dialect: Dialect = field(default_factory=Dialect)
    sessions: list[JobSession] = field(default_factory=list)
    once: dict[int, list[str]] = field(default_factory=dict)
    once_failures: list[dict[str, Any]] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    cell: int = 0
    done: bool = False

    @property
    def progress(self) -> tuple[bool, int, float]:
        """Sort key of two copies of one job's record: the larger one has continued further, on whichever machine.

        It is (done, number of sessions, start of the last session in seconds since 1970).
        """
        return self.done, len(self.sessions), self.sessions[-1].began if self.sessions else 0.0

    @property
    def address(self) -> str:
        """Where the notebook was fetched from; "" if it was a file of the machine that began the job."""
        return "" if os.path.isabs(self.notebook) else self.notebook

    def encode(self) -> str:
        """Return the record as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def decode(cls, text: str) -> JobRecord:
        """Return the record that `encode` wrote.

        Raises `ValueError`, `TypeError`, `AttributeError` or `KeyError` (`_UNREADABLE`) if `text` is not such a record.
        """
        values = json.loads(text)
        values["options"] = Options(**values["options"])
        values["inputs"] = [AttachedInput(**one) for one in values.get("inputs", [])]
        values["dialect"] = Dialect.decode(values.get("dialect", {}))
        values["sessions"] = [JobSession(**one) for one in values["sessions"]]
        values["once"] = {int(cell): list(received) for cell, received in values["once"].items()}
        return cls(**values)


class JobStore:
    """Writes the store of one job, in its folder and on the drive. Only the parent uses it, one thread at a time.

    Args:
        folder: the job's folder; its name is the job's name.
        hub: the hub whose drive gets the copy: a URL or "google"; no copy with "embedded" and None.
        secrets: the secrets to mask in the copy.
        notify: called with a sentence for the user if the copy is incomplete, once per sentence.
    """

    def __init__(self, folder: Path, hub: str | None, secrets: Secrets, notify: Callable[[str], None]) -> None:
        self.folder = folder
        self.name = folder.name
        self._hub = hub if has_copy(hub) else None
        self._secrets = secrets
        self._notify = notify
        self._notified: set[str] = set()
        self._filesystem: Any = None

    @property
    def how_to_resume(self) -> str:
        """The sentence with the command that resumes the job."""
        return f"Resume it with: haversack run --resume {self.name}"

    def add_inputs(self, notebook: Any, uploads: Sequence[Path]) -> list[str]:
        """Write the notebook and copies of the uploads to the folder; return the copies' paths below `uploads/`.

        Raises `DiskFull` or `JobError` if the notebook cannot be written, and `OSError` if an upload cannot be copied.
        """
        document.write(notebook, self.folder / NOTEBOOK)
        names = []
        for number, upload in enumerate(uploads):
            place = self.folder / UPLOADS / str(number) / upload.name
            place.parent.mkdir(parents=True)
            shutil.copyfile(upload, place)
            names.append(f"{number}/{upload.name}")
        return names

    def save(self, record: JobRecord) -> None:
        """Write the record to the folder by atomic replace. Raises `DiskFull`, and `JobError` for any other failure."""
        document.write_text(record.encode(), self.folder / RECORD)

    def upload_all(self, record: JobRecord) -> None:
        """Upload the notebook, the uploads and the record, without secrets, to the drive.

        An error of the drive is not raised: the user is notified, and the notebook or upload stays missing from the
        copy. Does nothing if the job's hub gets no copy.
        """
        notebook = document.read(self.folder / NOTEBOOK)
        masked = self._secrets.mask_json(notebook)
        if masked != notebook and self._hub:
            self._notify_once(
                "The notebook contains a secret, which is masked in the copy on the drive: use userdata.get()."
            )
        self._upload(NOTEBOOK, document.as_json(masked).encode())
        for name in _inputs(record):
            path = self.folder / name
            if not self._holds_secret(path):
                self._upload(name, path)
            elif self._hub:
                self._notify_once(f"{path.name} holds a secret, so it is not stored on the drive.")
        for name in (NEEDED, LOCK):
            if (self.folder / name).exists():
                self._upload(name, self._secrets.mask((self.folder / name).read_text()).encode())
        self.upload_record(record)

    def upload_record(self, record: JobRecord, executed: Path | None = None) -> None:
        """Upload the record, masked, the kept streams, and the executed notebook in `executed`, already masked.

        An error of the drive is not raised: the user is notified once. Does nothing if the job's hub gets no copy.
        """
        if executed is not None and executed.exists():
            self._upload(EXECUTED, executed)
        if (self.folder / streams.FILE).exists():
            self._upload(streams.FILE, self.folder / streams.FILE)
        self._upload(RECORD, self._secrets.mask(record.encode()).encode())

    def _upload(self, name: str, content: bytes | Path) -> None:
        """Upload one file; if that fails, notify the user once. Does nothing without a named hub."""
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
            self._notify_once(f"The job's copy on the drive is not up to date: {what}")

    def _notify_once(self, text: str) -> None:
        if text not in self._notified:
            self._notified.add(text)
            self._notify(text)

    def _holds_secret(self, path: Path) -> bool:
        """Whether the file is a `kaggle.json`, or small and contains something that would be masked."""
        if path.name == "kaggle.json" or path.stat().st_size > _MAX_SEARCHED_SIZE:
            return path.name == "kaggle.json"
        text = path.read_bytes().decode(errors="replace")
        return self._secrets.mask(text) != text


def find_folder(jobs: Path, name: str, hub: str | None) -> Path:
    """Return the folder of the job `name` below `jobs`; if it is missing, download the job from the hub's drive first.

    `hub` is a hub's URL, "google", "embedded" or None; only the first two have copies of jobs. Raises `InputError` if
    there is no such job or its record on the drive is invalid; `SignInError`, `ConnectionFailed` or `RemoteError` if
    the drive cannot be read; `DiskFull`, `JobError` or `OSError` if the folder cannot be written.
    """
    name = Path(name).name
    folder = jobs / name
    if not (folder / RECORD).exists():
        if not has_copy(hub):
            raise InputError(f"There is no job {name} in {jobs}.", "Name the hub that it ran with: --hub URL")
        assert hub is not None
        record = _record_on_drive(name, hub)
        if record is None:
            raise InputError(
                f"There is no job {name} on this machine or on the drive.",
                "Use the name that `haversack run` printed.",
            )
        _download(folder, record, hub)
    return folder


def latest_record(folder: Path, hub: str | None) -> JobRecord:
    """Return the record of the job in `folder`; if the drive's copy has continued further, download that copy first.

    `hub` overrides the hub of the record. Raises `InputError` if a record is invalid; `SignInError`, `ConnectionFailed`
    or `RemoteError` if the drive cannot be read; `DiskFull`, `JobError` or `OSError` if the folder cannot be written.
    """
    try:
        here = JobRecord.decode((folder / RECORD).read_text())
    except _UNREADABLE as error:
        raise InputError(f"{folder / RECORD} is not a job's record.", "Run the notebook again.") from error
    hub = hub or here.options.hub
    if not has_copy(hub):
        return here
    assert hub is not None
    there = _record_on_drive(folder.name, hub)
    if there is None or there.progress <= here.progress:
        return here
    _download(folder, there, hub)
    return there


def local_record(folder: Path) -> JobRecord | None:
    """Return the record in `folder`; None if it is missing or unreadable."""
    try:
        return JobRecord.decode((folder / RECORD).read_text())
    except (OSError, *_UNREADABLE):
        return None


def check_inputs(folder: Path, record: JobRecord) -> None:
    """Raise `InputError` if an input that the record names is missing in `folder`.

    That happens on another machine: a file that holds a secret is never stored on the drive, and an upload may fail.
    """
    for name in _inputs(record):
        if not (folder / name).is_file():
            raise InputError(
                f"{Path(name).name} was not stored on the drive, because it holds a secret or its upload failed.",
                f"Copy it to {folder / name}, then resume again.",
            )


def _inputs(record: JobRecord) -> list[str]:
    """The paths, in the job's folder, of the files that came with the notebook."""
    return [f"{UPLOADS}/{name}" for name in record.uploads] + [f"{beside.FOLDER}/{name}" for name in record.beside]


def has_copy(hub: str | None) -> bool:
    """Whether a job with this hub has a copy on its drive: for a hub's URL and "google", not "embedded" or None."""
    return bool(hub) and hub != "embedded"


def _record_on_drive(job: str, hub: str) -> JobRecord | None:
    """Return the record in the drive's copy of the job `job`; None if there is none.

    Raises `InputError` if it is unreadable, and `SignInError`, `ConnectionFailed` or `RemoteError` if the drive cannot
    be read.
    """
    try:
        return JobRecord.decode(_drive(hub).cat_file(f"{_folder_of(job)}/{RECORD}").decode())
    except NotFound:
        return None
    except _UNREADABLE as error:
        raise InputError(f"The record of {job} on the drive cannot be read.", "Run the notebook again.") from error


def _download(folder: Path, record: JobRecord, hub: str) -> None:
    """Download the drive's copy of a job to `folder`, whose record becomes `record`.

    The record is written last, because a folder counts as a job once it has one. The notebook and the files that came
    with it never change, and the local ones are not masked, so those that exist are kept; a local lock is of this
    machine's kind. Raises `InputError` if the record names a file outside its folder.
    """
    filesystem = _drive(hub)
    for name in [NOTEBOOK, EXECUTED, NEEDED, LOCK, streams.FILE, *_inputs(record)]:
        target = _path_below(folder, name)
        if name not in (EXECUTED, streams.FILE) and target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            target.write_bytes(filesystem.cat_file(f"{_folder_of(folder.name)}/{name}"))
        except NotFound:
            # No session has ended yet, the job has no lock, or a file holds a secret (`check_inputs` reports it).
            continue
    document.write_text(record.encode(), folder / RECORD)


def _path_below(folder: Path, name: str) -> Path:
    """Return `folder / name`. Raises `InputError` if `name` has `..` or leaves `folder`: the record may be forged."""
    target = folder / name
    if ".." in Path(name).parts or not target.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"The job on the drive names a file outside its folder: {name}.", "Run the notebook again.")
    return target


def _folder_of(job: str) -> str:
    return f"haversack/jobs/{job}"


def _drive(hub: str) -> Any:
    from haversack.drive.filesystem import DriveFileSystem

    return DriveFileSystem(hub=hub)
