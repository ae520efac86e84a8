"""A job: one notebook executed from its first cell to its last, in a place of its own, over one or more sessions.

What the job writes lies in one folder, `jobs/<name>-<time>/` in the user's data folder: the folders of its session
(`home/`, `env/`, `content/`), `downloads/`, `kernel.log`, and its store, from which a job that ended early is resumed.
The executed notebook is saved after every cell, so what was executed is kept however the job ends. Everything that is
wrong with what was given is said before anything starts.
"""

from __future__ import annotations

import glob
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from haversack import credentials, embedded, settings, signin
from haversack.errors import HaversackError, InputError, NotebookInvalid, SignInError
from haversack.notebook import plainfit
from haversack.notebook.job import summary
from haversack.notebook.job.jobs import LOCK
from haversack.notebook.place import content, kaggle_command
from haversack.notebook.record import document, store
from haversack.notebook.record import parameters as parameters_
from haversack.notebook.record.screen import Screen
from haversack.notebook.record.store import JobRecord, JobStore, Options
from haversack.notebook.secrets import file
from haversack.notebook.secrets.masking import Secrets
from haversack.notebook.sessions import kernel, processes
from haversack.notebook.sessions.sessions import JobSessions

parse_parameters = parameters_.parse

# How much of the notebook's name its job's folder gets, in characters.
_LONGEST_NAME = 50


@dataclass
class JobReport:
    """What came of a job. Paths are absolute, `seconds` wall-clock time; `drive` says where the drive's bytes are,
    `trainings` are the runs that were named by the job."""

    status: Literal["done", "failed"]
    notebook: str
    output: str
    job: str
    html: str | None = None
    sessions: int = 1
    cells: int = 0
    trainings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    content: str = ""
    downloads: list[str] = field(default_factory=list)
    drive: str | None = None
    notices: list[str] = field(default_factory=list)
    error: str | None = None
    failure: HaversackError | None = field(default=None, repr=False)

    def json(self) -> dict[str, Any]:
        """The report for programs: everything but the exception itself."""
        return {name: value for name, value in asdict(self).items() if name != "failure"}

    @property
    def summary(self) -> str:
        """The report for people."""
        cells = f"{self.cells} cell{'' if self.cells == 1 else 's'}"
        over = f", over {self.sessions} sessions" if self.sessions > 1 else ""
        lines = [f"{'Done' if self.status == 'done' else 'Failed'}: {cells} in {self.seconds:.0f} s{over}."]
        lines.append(f"  notebook   {self.output}")
        if self.html:
            lines.append(f"  web page   {self.html}")
        lines += [f"  download   {path}" for path in self.downloads]
        lines += [f"  training   {name}" for name in self.trainings]
        if self.drive:
            lines.append(f"  drive      {self.drive}")
        lines.append(f"  job        {self.job}")
        if self.status == "failed":
            lines.append(f"  go on      haversack run --resume {Path(self.job).name}")
        return "\n".join(lines)


def run(
    notebook: Path,
    output: Path | None = None,
    *,
    hub: str | None = None,
    uploads: Sequence[Path] = (),
    parameters: Mapping[str, Any] | None = None,
    cores: int | None = None,
    html: Path | None = None,
    session: float | None = None,
    cell_timeout: float | None = None,
    plain: bool = False,
    rehearse: bool = False,
) -> JobReport:
    """Execute `notebook` and write the executed one to `output` (default `<name>.executed.ipynb`, where the user is).

    `hub` is what `credentials.drive` takes; `uploads` are the files that `files.upload()` receives; `parameters` are
    values for the notebook's variables; `cores` simulates that many accelerator cores on the CPU; `html` names a web
    page to be written too. Sessions end after `session` seconds, a cell is taken for hung when nothing was heard of it
    for `cell_timeout` seconds, `plain` leaves `model.fit` as it is, and `rehearse` has the kernel killed once in the
    middle of an epoch, which is an error when it could not be. What goes wrong while cells run is in the
    report's `failure`; what is wrong with what was given raises `InputError`, and a hub that cannot be used
    `SignInError` or `ConnectionFailed`.
    """
    source = document.read(notebook)
    parameters_.apply(source, parameters or {})
    output = (output or _default_output(notebook)).absolute()
    for path in [output, html] if html else [output]:
        document.check_output(path, notebook)
    given = _uploads(uploads, source, notebook)
    chosen = settings.load()
    options = Options(hub or chosen.hub, cores, session, cell_timeout, plain, rehearse)
    _check(options)
    folder = _make_folder(chosen.data / "jobs", notebook.stem)
    record = JobRecord(str(notebook.absolute()), str(output), str(html.absolute()) if html else None, options)
    notices = _unmount_abandoned(chosen.data)
    with FileLock(folder / LOCK):
        job = Job(source, folder, record, chosen, notices)
        record.uploads = job.store.take_in(source, given)
        return job.execute()


def resume(
    name: str,
    output: Path | None = None,
    *,
    hub: str | None = None,
    html: Path | None = None,
    session: float | None = None,
    cell_timeout: float | None = None,
) -> JobReport:
    """Go on with the job `name`, which ended before its notebook did: here, or on another machine by the drive's copy.

    What is not given is as it was; the executed notebook goes where it went, if that folder is on this machine. Raises
    like `run`, and `InputError` for a job that is unknown, done, or being executed.
    """
    chosen = settings.load()
    jobs = chosen.data / "jobs"
    was_here = (jobs / Path(name).name / store.RECORD).exists()
    folder = store.find(jobs, name, hub or chosen.hub)
    notices = _unmount_abandoned(chosen.data)
    with _locked(folder):
        record = store.open_record(folder, hub or chosen.hub)
        if record.done:
            raise InputError(f"The job {folder.name} is done: {record.output}.", "Run its notebook anew.")
        record.options = replace(
            record.options,
            hub=hub or chosen.hub or record.options.hub,
            session=session or record.options.session,
            cell_timeout=cell_timeout or record.options.cell_timeout,
        )
        if output is None:
            usual = Path(record.output)
            output = usual if usual.parent.is_dir() else _default_output(Path(record.notebook))
        record.output, record.html = str(output.absolute()), str(html.absolute()) if html else record.html
        document.check_output(output, folder / store.NOTEBOOK)
        store.check_uploads(folder, record)
        _check(record.options)
        # A job that was killed may have left what cells started.
        processes.kill(folder)
        source = document.read(folder / store.NOTEBOOK)
        executed = [path for path in (output, folder / store.EXECUTED) if path.exists()]
        document.copy_outputs(max(executed, key=lambda path: path.stat().st_mtime, default=None), source)
        return Job(source, folder, record, chosen, [_going_on(folder.name, record, was_here), *notices]).execute()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        lock = FileLock(folder / LOCK).acquire(blocking=False)
    except Timeout:
        raise InputError(f"The job {folder.name} is being executed.", "Wait for it, or interrupt it first.") from None
    with lock:
        yield


def _going_on(name: str, record: JobRecord, was_here: bool) -> str:
    """What a resumed job says first."""
    words = [f"Going on with {name}."]
    if not was_here:
        count = len(record.uploads)
        words.append(f"Its notebook and {count} upload{'' if count == 1 else 's'} came from the drive.")
    if record.sessions:
        said = record.sessions[-1].said
        where = f" in cell {record.cell}" if record.cell else ""
        words.append(f"Session {len(record.sessions)} {f'ended: {said}' if said else f'was cut off{where}.'}")
    return " ".join(words)


class Job:
    """One job: its notebook, its folder, and where what comes of it goes."""

    def __init__(
        self, notebook: Any, folder: Path, record: JobRecord, chosen: settings.Settings, notices: Sequence[str]
    ) -> None:
        self.folder = folder
        self.record = record
        self.settings = chosen
        self.notices: list[str] = []
        self._before = notices
        self.secrets = _known_secrets(chosen)
        self.screen = Screen()
        self.store = JobStore(folder, record.options.hub, self.secrets, self._notice)
        self.sessions = JobSessions(notebook, self.store, record, chosen, self.secrets, self.screen, self._notice)

    def execute(self) -> JobReport:
        """Run every cell, over as many sessions as it takes; the report says how it went."""
        began = time.monotonic()
        failure: HaversackError | None = None
        variables = _variables(self.settings, self.folder, self.record.options)
        self.secrets.add(variables.get("KAGGLE_KEY"))
        for name in ("home", "content", "downloads"):
            (self.folder / name).mkdir(exist_ok=True)
        private = content.prepare(self.folder / "content", self.folder / "home")
        try:
            with self.screen:
                for notice in [*self._before, private.notice]:
                    self._notice(notice)
                self.sessions.execute(private, variables)
        except HaversackError as error:
            failure = type(error)(self.secrets.clean(error.what), self.secrets.clean(error.next_step))
        finally:
            private.release()
        page = None
        try:
            page = self._save_page() if self.record.html else None
        except HaversackError as error:
            failure = failure or error
        return JobReport(
            status="failed" if failure else "done",
            notebook=self.record.notebook,
            output=self.record.output,
            job=str(self.folder),
            html=page,
            sessions=len(self.record.sessions),
            cells=self.sessions.executed,
            trainings=self._trainings(),
            seconds=round(time.monotonic() - began, 2),
            content=private.kind,
            downloads=self.secrets.clean_all(self.sessions.downloads),
            drive=self.sessions.drive,
            notices=self.notices,
            error=str(failure) if failure else None,
            failure=failure,
        )

    def _notice(self, text: str) -> None:
        """Say it now, and again in the report."""
        if text and text not in self.notices:
            self.notices.append(text)
            self.screen.say(text)

    def _trainings(self) -> list[str]:
        folders = (self.settings.data / "runs").glob(f"{glob.escape(self.folder.name)}.cell-*")
        return sorted(folder.name for folder in folders if (folder / "log.jsonl").exists())

    def _save_page(self) -> str:
        assert self.record.html is not None
        executed = self.secrets.clean_all(self.sessions.notebook)
        page = summary.added(executed, self.record.sessions, self._trainings())
        document.write_page(page, Path(self.record.html))
        return self.record.html


def _check(options: Options) -> None:
    """Raise `InputError` for options that make no sense, and what a hub raises that cannot be used."""
    if options.cores is not None and options.cores < 1:
        raise InputError(f"{options.cores} cores cannot be simulated.", "Give --cores a number from 1 on.")
    if options.rehearse and options.plain:
        raise InputError("A training that --plain leaves as it is cannot go on.", "Give --rehearse without --plain.")
    _check_hub(options.hub)


def _default_output(notebook: Path) -> Path:
    return Path(f"{notebook.stem}.executed.ipynb")


def _uploads(given: Sequence[Path], source: Any, notebook: Path) -> list[Path]:
    """The files for `files.upload()`: those given, or else those that the notebook names beside itself."""
    own = [] if given else _own_uploads(source, notebook)
    folder = notebook.absolute().parent
    paths = [path.absolute() for path in given] or [folder / name for name in own]
    for path in paths:
        if own and not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"The notebook names an upload outside its folder: {path}.", "Give it with --upload.")
        if not path.is_file():
            raise InputError(f"There is no file {path} to upload.", "Check the path after --upload.")
    return paths


def _own_uploads(source: Any, notebook: Path) -> list[str]:
    ours = source.metadata.get("haversack", {})
    names = ours.get("uploads", []) if isinstance(ours, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NotebookInvalid(
            f"{notebook} has metadata of haversack's that cannot be read.",
            'Write {"haversack": {"uploads": ["a.png"]}}.',
        )
    return names


def _known_secrets(chosen: settings.Settings) -> Secrets:
    secrets = Secrets()
    names = ("HAVERSACK_TOKEN", "KAGGLE_KEY", "KAGGLE_API_TOKEN")
    secrets.add(*(os.environ.get(name) for name in names), *embedded.secrets_of(chosen.data))
    # The variables may name a file that has the secret.
    secrets.add(*signin.load().secrets())
    if (kaggles := _own_kaggle()) is not None:
        secrets.add(*kaggles.secrets)
    try:
        secrets.add(*file.known())
    except PermissionError as error:
        raise InputError(str(error)) from None
    return secrets


def _check_hub(hub: str | None) -> None:
    """Raise now, not in the middle of the notebook, when the named hub is away or refuses the token."""
    if not hub or hub == "embedded":
        return
    from haversack.http import Http, wait

    server = credentials.drive(hub)

    async def ask() -> None:
        http = Http(server, attempts=2)
        try:
            await http.request("GET", "/drive/v3/about", params={"fields": "user"})
        finally:
            await http.close()

    wait(ask())


def _unmount_abandoned(data: Path) -> list[str]:
    """Unmount what jobs that were killed left mounted; returns what there is to say about it."""
    if not (data / "mounts").is_dir():
        return []
    from haversack.drive.fuse.mount import jobs, unmount_job

    notices = []
    for folder in jobs():
        try:
            # A job holds its lock as long as it lives.
            with FileLock(folder / LOCK, blocking=False) if folder.is_dir() else nullcontext():
                unmount_job(folder)
        except Timeout:
            continue
        except HaversackError as error:
            notices.append(f"A job that was killed, {folder.name}, left the drive mounted: {error}")
    return notices


def _make_folder(jobs: Path, stem: str) -> Path:
    # It stands in PATH, in shell scripts and in the names of runs, where a colon, a space or a slash would mean more.
    stem = re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:_LONGEST_NAME] or "notebook"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    jobs.mkdir(parents=True, exist_ok=True, mode=0o700)
    for attempt in range(1, 1000):
        folder = jobs / (f"{stem}-{stamp}" if attempt == 1 else f"{stem}-{stamp}-{attempt}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue  # another job of this name began in the same second
        return folder
    raise InputError(f"{jobs} is crowded with jobs of this name.", "Remove old ones.")


def _variables(chosen: settings.Settings, folder: Path, options: Options) -> dict[str, str]:
    """The environment variables of the job's kernels, but for those of one session and its Python environment."""
    hub, cores = options.hub, options.cores
    variables = kernel.variables(os.environ, folder / "home")
    variables |= {
        "HAVERSACK_JOB": str(folder),
        "HAVERSACK_DATA": str(chosen.data),
        "HAVERSACK_CACHE": str(chosen.cache),
        "HAVERSACK_PYTHON": sys.executable,
        "HAVERSACK_SECRETS": str(file.path()),
        # Building matplotlib's list of fonts takes seconds, so jobs share it.
        "MPLCONFIGDIR": variables.get("MPLCONFIGDIR", str(chosen.cache / "matplotlib")),
    }
    variables.setdefault("KERAS_BACKEND", "jax")
    variables.pop(plainfit.PLAIN, None)
    if options.plain:
        variables[plainfit.PLAIN] = "1"
    if hub:
        variables["HAVERSACK_HUB"] = hub
    variables |= _kaggle_login(hub)
    if cores is not None:
        kept = [
            flag for flag in variables.get("XLA_FLAGS", "").split() if "force_host_platform_device_count" not in flag
        ]
        flags = [*kept, f"--xla_force_host_platform_device_count={cores}"]
        variables |= {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax"}
    return variables


def _kaggle_login(hub: str | None) -> dict[str, str]:
    """The user's own sign-in to Kaggle, which the job does not see in its HOME; no hub gets it."""
    given = os.environ.get("KAGGLE_KEY") or os.environ.get("KAGGLE_API_TOKEN")
    if (hub and hub not in ("embedded", "google")) or given:
        return {}
    found = _own_kaggle()
    if found is None:
        return {}
    if found.kaggle_login is None:
        return {"KAGGLE_API_TOKEN": found.secrets[0], kaggle_command.HANDED_ON: "1"}
    user, key = found.kaggle_login
    return {"KAGGLE_USERNAME": user, "KAGGLE_KEY": key, kaggle_command.HANDED_ON: "1"}


def _own_kaggle() -> credentials.Server | None:
    try:
        return credentials.own_kaggle()
    except SignInError:
        return None  # many notebooks never ask Kaggle; for those that do, its command says what is missing
