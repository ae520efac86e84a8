"""Run or resume a job: execute one notebook from its first cell to its last, over one or more sessions.

Runs in the process of `haversack run`, not in the kernel. A job has one folder, `jobs/<name>-<time>/` in the user's
data folder. It holds the folders of the current session (`home/`, `env/`, `content/`, …), `downloads/`, `kernel.log`,
`uploaded.jsonl` (what the job's mounts have uploaded), `ending/` (how a cell ended its kernel), `streams.json` (where
its random streams began), the lock, and the store from which an unfinished job is resumed; of somebody else's notebook
also `own/`, its data, cache and `/tmp`.
The executed notebook is saved after every cell, so finished cells keep their outputs however the job ends. All
arguments are checked before the job's folder is created.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from haversack import embedded, settings, signin
from haversack.errors import ConnectionFailed, DiskFull, HaversackError, InputError, Interrupted
from haversack.gpus import taken
from haversack.notebook.job import arguments, kernel_variables, packages, summary, untrusted
from haversack.notebook.job import inputs as inputs_
from haversack.notebook.job.jobs import LOCK
from haversack.notebook.job.report import JobReport
from haversack.notebook.kaggle.folder import KaggleFolder
from haversack.notebook.place import caches, content
from haversack.notebook.record import beside, dated, document, store
from haversack.notebook.record import parameters as parameters_
from haversack.notebook.record.screen import Screen
from haversack.notebook.record.store import JobRecord, JobStore, Options
from haversack.notebook.secrets import file
from haversack.notebook.secrets.masking import Secrets
from haversack.notebook.secrets.variables import secret_values
from haversack.notebook.sessions import kept_streams, processes
from haversack.notebook.sessions.sessions import JobSessions
from haversack.packages import keras_backend
from haversack.packages.drift import Drift
from haversack.packages.pip_settings import uv_settings

parse_parameters = parameters_.parse

# The longest part of a job's name that comes from its notebook's name, in characters.
_MAX_STEM_LENGTH = 50


def run(
    notebook: Path,
    output: Path | None = None,
    *,
    hub: str | None = None,
    uploads: Sequence[Path] = (),
    inputs: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    cores: int | None = None,
    gpus: int | None = None,
    html: Path | None = None,
    session: float | None = None,
    cell_timeout: float | None = None,
    max_sessions: int | None = None,
    plain: bool = False,
    rehearse: bool = False,
    install: bool | None = None,
    as_of: str | None = None,
    python: str | None = None,
    page: Path | None = None,
    private_caches: bool = False,
    unseeded: bool = False,
    random_streams: Path | None = None,
    address: str = "",
    trusted: bool = True,
) -> JobReport:
    """Execute a notebook as a new job, over as many sessions as it takes, and return its report.

    An error while the job runs is in the report's `failure`. Raises, before anything is executed, `InputError` or one
    of its subclasses (`NotebookInvalid`, `ParameterUnknown`) for an unusable argument or setting; `SignInError`,
    `ConnectionFailed` or `RemoteError` for an unusable hub; what `inputs.attached` raises for an input that cannot be
    opened; `SignInError` if the stored sign-ins are unreadable; and `DiskFull`, `JobError` or `OSError` if the job's
    folder cannot be written. A Ctrl-C while the job runs is `Interrupted` in the report.

    Args:
        notebook: the notebook to execute; it is not changed.
        output: where the executed notebook is written; by default `<name>.executed.ipynb` in the working directory.
        hub: the server of the notebook's drive and Kaggle calls: a hub's URL, "google" or "embedded"; None for the
            user's setting.
        uploads: the files that `files.upload()` receives (see `notebook.uploads`); if empty, those named in the
            notebook's metadata.
        inputs: what the cells see below `/kaggle/input`; `notebook.kaggle.inputs` has the forms.
        parameters: variable name → JSON value, set in the notebook before it is executed.
        cores: simulate this number of accelerator cores on the CPU; None to simulate none.
        gpus: have this number of GPUs for the job alone, and wait until so many are free; 0 to hide all from it, None
            to let it see all.
        html: also write the executed notebook to this path as a web page.
        session: end each session after this many seconds, then start the next one; None for no limit.
        cell_timeout: end a session if a cell shows no output and no training step for this many seconds; None for
            never.
        max_sessions: give the job up after this many sessions; None for 100.
        plain: leave `model.fit` unpatched, so that trainings do not resume.
        rehearse: end a session once by SIGKILL, in the middle of an epoch, to show that the training resumes. If no
            training could be killed so, the report's status is "failed". Not with `plain`.
        install: whether the kernel gets an environment with the packages that the notebook needs, rather than those
            that are installed beside haversack; None for the user's setting.
        as_of: a day or a month, such as "2026-07", after which no release of a package is used.
        python: the version of Python, such as "3.12"; None for the notebook's own or haversack's.
        page: the environment page: a notebook that is run before the first cell; None for none.
        private_caches: share no models and data sets that libraries cache in HOME with other jobs and sessions.
        unseeded: let Python's and the libraries' random streams begin anew in each session, also in those that have a
            training to go on with.
        random_streams: the kept streams of another job, with which this one begins; None to begin anew.
        address: where the notebook was fetched from; "" for a file of this machine.
        trusted: run it like the user's own; otherwise isolated, see `untrusted`.
    """
    source = document.read(notebook, address)
    parameters_.apply(source, parameters or {})
    pages = beside.insert_page(source, page) if page else {}
    chosen_output, output_notice = arguments.free_output(notebook, address)
    output = (output or chosen_output).absolute()
    for path in [output, html] if html else [output]:
        document.check_output(path, notebook)
    given = arguments.uploads_of(uploads, source, notebook)
    chosen = settings.load()
    options = Options(hub or chosen.hub, cores, session, cell_timeout, plain, rehearse, trusted=trusted)
    options = replace(options, private_caches=private_caches or not trusted, gpus=gpus, unseeded=unseeded)
    options = replace(
        options, **arguments.package_options(chosen.install if install is None else install, as_of, python)
    )
    if max_sessions is not None:
        options = replace(options, max_sessions=max_sessions)
    needed = packages.needed_by(source, notebook.absolute().parent, pages)
    if options.install:
        packages.check(needed, python, trusted=trusted)
    files_beside = beside.find(needed.files)
    arguments.check_options(options)
    attached = inputs_.attached(inputs, options.hub)
    folder = _make_folder(chosen.data / "jobs", notebook.stem)
    given_as = address or str(notebook.absolute())
    record = JobRecord(given_as, str(output), str(html.absolute()) if html else None, options)
    record.written = dated.month_of(notebook)
    record.inputs, record.dialect = attached, inputs_.dialect(source, attached)
    notices = [*_unmount_abandoned(chosen.data), beside.outside_notice(needed.files), inputs_.proposed(source, record)]
    notices += [
        output_notice if output.name == chosen_output.name else "",
        "" if trusted else untrusted.notice(given_as),
    ]
    with FileLock(folder / LOCK):
        job = Job(source, folder, record, chosen, notices)
        record.uploads = job.store.add_inputs(source, given)
        record.beside = beside.keep(files_beside, folder)
        if options.install:
            packages.keep_needed(folder, needed)
        if random_streams is not None:
            kept_streams.adopt(folder, random_streams)
        return job.execute()


def resume(
    name: str,
    output: Path | None = None,
    *,
    hub: str | None = None,
    gpus: int | None = None,
    html: Path | None = None,
    session: float | None = None,
    cell_timeout: float | None = None,
    max_sessions: int | None = None,
) -> JobReport:
    """Resume a job whose notebook is not done, in a new session, and return its report.

    A job that is missing on this machine, or that another machine has continued, is downloaded from the hub's drive. An
    error while the job runs is in the report's `failure`. Raises, before anything is executed, `InputError` or
    `NotebookInvalid` if the job is unknown, done, being executed or lacks a file that came with it, or an argument is
    unusable, and `SignInError`, `ConnectionFailed` or `RemoteError` for an unusable hub.

    Args:
        name: the job's name, or a path that ends with it.
        output: where the executed notebook is written; by default where it was written before or, if that folder
            does not exist on this machine, `<name>.executed.ipynb` in the working directory.
        hub: a hub's URL, "google" or "embedded"; None for the user's setting or, without one, the job's own hub.
        gpus: as in `run`; None for the job's own number.
        html: also write the executed notebook to this path as a web page; None for the job's own choice.
        session: end each session after this many seconds; None for the job's own limit.
        cell_timeout: end a session if a cell shows no output and no training step for this many seconds; None for
            the job's own timeout.
        max_sessions: give the job up after this many sessions more; None for the job's own number.
    """
    chosen = settings.load()
    jobs = chosen.data / "jobs"
    was_local = (jobs / Path(name).name / store.RECORD).exists()
    folder = store.find_folder(jobs, name, hub or chosen.hub)
    notices = _unmount_abandoned(chosen.data)
    with _locked(folder):
        record = store.latest_record(folder, hub or chosen.hub)
        if record.done:
            raise InputError(f"The job {folder.name} is done: {record.output}.", "Run its notebook as a new job.")
        record.options = replace(
            record.options,
            hub=hub or chosen.hub or record.options.hub,
            session=session or record.options.session,
            cell_timeout=cell_timeout or record.options.cell_timeout,
            max_sessions=record.options.max_sessions if max_sessions is None else max_sessions,
            gpus=record.options.gpus if gpus is None else gpus,
        )
        if output is None:
            usual = Path(record.output)
            here = usual.name if record.address else arguments.default_output(Path(record.notebook))
            output = usual if usual.parent.is_dir() else Path(here)
        record.output, record.html = str(output.absolute()), str(html.absolute()) if html else record.html
        document.check_output(output, folder / store.NOTEBOOK)
        store.check_inputs(folder, record)
        arguments.check_options(record.options)
        # If the parent was killed, processes that cells started may have survived.
        processes.kill(folder)
        source = document.read(folder / store.NOTEBOOK)
        executed = [path for path in (output, folder / store.EXECUTED) if path.exists()]
        document.copy_outputs(max(executed, key=lambda path: path.stat().st_mtime, default=None), source)
        return Job(source, folder, record, chosen, [_resume_notice(folder.name, record, was_local), *notices]).execute()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the job in `folder`. Raises `InputError` if another process holds it."""
    try:
        lock = FileLock(folder / LOCK).acquire(blocking=False)
    except Timeout:
        raise InputError(f"The job {folder.name} is being executed.", "Wait for its end, or interrupt it.") from None
    with lock:
        yield


def _resume_notice(name: str, record: JobRecord, was_local: bool) -> str:
    """Return the first notice of a resumed job: where it comes from, and how its last session ended."""
    sentences = [f"Resuming {name}."]
    if not was_local:
        count = len(record.uploads)
        sentences.append(f"Its notebook and {count} upload{'' if count == 1 else 's'} were downloaded from the drive.")
    if record.sessions:
        error = record.sessions[-1].said
        where = f" in cell {record.cell}" if record.cell else ""
        sentences.append(f"Session {len(record.sessions)} {f'ended: {error}' if error else f'was killed{where}.'}")
    return " ".join(sentences)


class Job:
    """One job that this process runs. The caller holds the job's lock.

    Attributes:
        folder: the job's folder.
        record: the contents of the job's `job.json`, which `sessions` updates.
        settings: the user's settings.
        notices: the sentences shown to the user so far, masked, for the report.
        secrets: the secrets to mask.
        screen: the progress display.
        store: writes the job's folder and its copy on the drive.
        sessions: executes the notebook.
    """

    def __init__(
        self, notebook: Any, folder: Path, record: JobRecord, chosen: settings.Settings, notices: Sequence[str]
    ) -> None:
        """Prepare the job.

        Args:
            notebook: the nbformat node to execute, with its parameters set.
            folder: the job's folder.
            record: the job's record.
            chosen: the user's settings.
            notices: sentences to show when the job starts.
        """
        self.folder = folder
        self.record = record
        self.settings = chosen
        self.notices: list[str] = []
        self._initial_notices = notices
        self.secrets = _known_secrets(chosen)
        self.screen = Screen()
        self.store = JobStore(folder, record.options.hub, self.secrets, self._notify)
        # Its kernels may write to their folders of data and cache, so these are never the user's.
        own = chosen if record.options.trusted else untrusted.settings_of(chosen, folder)
        self._own_settings = own
        self.sessions = JobSessions(notebook, self.store, record, own, self.secrets, self.screen, self._notify)

    def execute(self) -> JobReport:
        """Execute the notebook, write the web page if there is one, and return the report.

        A `HaversackError` while cells run or while the page is written is in the report, `Interrupted` among them.
        Raises `JobError` or `InputError` if `/content` cannot be provided as `HAVERSACK_CONTENT` asks, `OSError` if the
        job's folder cannot be written, and `KeyboardInterrupt` for a Ctrl-C before the first or after the last session.
        """
        started = time.monotonic()
        failure: HaversackError | None = None
        self.store.save(self.record)
        variables = kernel_variables.of_job(self._own_settings, self.folder, self.record.options)
        self.secrets.add(variables.get("KAGGLE_KEY"))
        for name in ("home", "content", "downloads"):
            (self.folder / name).mkdir(exist_ok=True)
        installed: packages.Packages | None = None
        held: taken.TakenGpus | None = None
        shared = self._open_caches()
        if shared is not None:
            variables = {name: str(self.folder / "home" / path) for name, path in caches.VARIABLES.items()} | variables
        variables |= self.record.dialect.variables(os.environ)
        kaggle = inputs_.folder_of(self.folder, self.record, self._notify)
        private = content.prepare(
            self.folder / "content",
            self.folder / "home",
            kaggle.path if kaggle else None,
            works_in_kaggle=self.record.dialect.works_in_kaggle,
        )
        try:
            with self.screen:
                for notice in [*self._initial_notices, private.notice]:
                    self._notify(notice)
                if kaggle is not None:
                    self.screen.show_activity("attaching the inputs")
                    kaggle.open()
                installed = self._install()
                if installed is not None:
                    variables |= installed.variables
                available = keras_backend.importable() if installed is None else installed.frameworks
                variables |= kernel_variables.of_keras(self.sessions.notebook, self.record.options.cores, available)
                tree = None if installed is None else installed.tree
                held = self._take_gpus()
                variables |= held.variables if held else {}
                locks = held.locks if held else ()
                self.sessions.execute(
                    private,
                    variables,
                    tree=tree,
                    caches=shared,
                    kaggle=kaggle,
                    locks=locks,
                    drift=self._drift(installed),
                )
        except HaversackError as error:
            failure = type(error)(self.secrets.mask(error.what), self.secrets.mask(error.next_step))
            if not self.record.sessions:
                self.sessions.save_notebook()
        except KeyboardInterrupt:
            failure = Interrupted(self._interrupted, self.store.how_to_resume)
        finally:
            private.release()
            if held is not None:
                held.release()
            if kaggle is not None:
                kaggle.close()
            if installed is not None:
                installed.release()
            self._notify(shared.close() if shared else "")
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
            seconds=round(time.monotonic() - started, 2),
            environment=None if installed is None else installed.json(),
            content=private.kind,
            downloads=self.secrets.mask_json(self.sessions.downloads),
            inputs=self.secrets.mask_json([{"name": one.name, "source": one.source} for one in self.record.inputs]),
            outputs=self._outputs(kaggle),
            drive=self.sessions.drive,
            trusted=self.record.options.trusted,
            shell_failures=[asdict(failure) for failure in self.sessions.shell_failures],
            notices=self.notices,
            resumable=self._is_resumable(failure),
            error=str(failure) if failure else None,
            failure=failure,
        )

    @property
    def _interrupted(self) -> str:
        """The sentence for an interrupt that ends the job at once: while no cell runs, or the second one."""
        if not self.record.sessions:
            return "The job was interrupted before its first session."
        return (
            f"The job was interrupted {f'in cell {self.record.cell}' if self.record.cell else 'before its first cell'}."
        )

    def _install(self) -> packages.Packages | None:
        """Return the environment with the notebook's packages, held, and print its summary; None with --no-install.

        Raises what `packages.provide` raises.
        """
        options = self.record.options
        if not options.install:
            return None
        self.secrets.add(*packages.secrets_of(uv_settings().variables), *packages.secrets_of(os.environ))
        installed = packages.provide(self.folder, options, self.settings, self.screen, self._notify)
        self.screen.print_line(installed.summary)
        return installed

    def _drift(self, installed: packages.Packages | None) -> Drift:
        """Return what judges whether a cell's error comes of a library's newer version."""
        locked = installed.lock.packages if installed is not None else {}
        return Drift(locked, self.record.notebook, self.record.written, self.record.options.as_of or "")

    def _take_gpus(self) -> taken.TakenGpus | None:
        """Take the GPUs that the job asks for, which it keeps over its sessions; None if it asks for none.

        Waits until they are free. Raises what `taken.take` raises.
        """
        if self.record.options.gpus is None:
            return None
        held = taken.take(self.record.options.gpus, self.folder.name, self._notify)
        if held.gpus:
            self.screen.print_line(f"GPUs of this job: {held}")
        return held

    def _outputs(self, kaggle: KaggleFolder | None) -> list[dict[str, Any]]:
        """Return the files in `/kaggle/working` for the report, masked."""
        found = kaggle.outputs(self.record.beside) if kaggle else []
        return list(self.secrets.mask_json([asdict(one) for one in found]))

    def _open_caches(self) -> caches.SharedCaches | None:
        """Open the caches that jobs share; None if this job shares none. Raises `OSError`."""
        if self.record.options.private_caches or self.settings.caches == 0:
            return None
        return caches.SharedCaches.open(self.settings.cache / "libraries", self.settings.caches)

    def _notify(self, text: str) -> None:
        """Print a sentence, and add it to the report. Does nothing for "" and for a sentence shown before."""
        if text and text not in self.notices:
            self.notices.append(text)
            self.screen.print_line(text)

    def _is_resumable(self, failure: HaversackError | None) -> bool:
        """Whether the job, which ended with `failure`, can get further when it is resumed.

        Before its first session, it can if what stopped it may change without the notebook: the network, the disk, the
        user.
        """
        may_change = isinstance(failure, ConnectionFailed | DiskFull | Interrupted)
        return failure is not None and not self.record.done and (bool(self.record.sessions) or may_change)

    def _trainings(self) -> list[str]:
        """Return the names of the runs that this job named and that have a log, sorted."""
        folders = (self.settings.data / "runs").glob(f"{glob.escape(self.folder.name)}.cell-*")
        return sorted(folder.name for folder in folders if (folder / "log.jsonl").exists())

    def _save_page(self) -> str:
        """Write the web page and return its path. Raises `JobError` and `DiskFull`."""
        assert self.record.html is not None
        executed = self.secrets.mask_json(self.sessions.notebook)
        plotted = self._trainings() if self.record.options.trusted else []  # the user's runs are elsewhere
        page = summary.with_summary(executed, self.record.sessions, plotted)
        # The page's scripts could send what it holds.
        document.write_page(page, Path(self.record.html), local_images=self.record.options.trusted)
        return self.record.html


def _known_secrets(chosen: settings.Settings) -> Secrets:
    """Return the secrets that are known before the job starts: sign-ins, tokens, the user's variables and secrets file.

    Raises `InputError` if the secrets file is unusable.
    """
    secrets = Secrets()
    names = ("HAVERSACK_TOKEN", "KAGGLE_KEY", "KAGGLE_API_TOKEN")
    secrets.add(*(os.environ.get(name) for name in names), *embedded.secrets_of(chosen.data))
    secrets.add(*signin.load().secrets(), *secret_values(os.environ))
    # A variable may hold the path of a file with the secret rather than the secret; this sign-in has read the file.
    if (kaggle := kernel_variables.user_kaggle()) is not None:
        secrets.add(*kaggle.secrets)
    try:
        secrets.add(*file.known())
    except PermissionError as error:
        raise InputError(str(error)) from None
    return secrets


def _unmount_abandoned(data: Path) -> list[str]:
    """Unmount the drives of jobs whose parent was killed; return one sentence for each that could not be unmounted.

    `data` is the user's data folder.
    """
    if not (data / "mounts").is_dir():
        return []
    from haversack.drive.fuse.mount import jobs, unmount_job

    notices = []
    for folder in jobs():
        try:
            # The parent of a running job holds the lock; if it can be acquired, the parent is gone.
            with FileLock(folder / LOCK, blocking=False) if folder.is_dir() else nullcontext():
                unmount_job(folder)
        except Timeout:
            continue
        except HaversackError as error:
            notices.append(f"The killed job {folder.name} left the drive mounted: {error}")
    return notices


def _make_folder(jobs: Path, stem: str) -> Path:
    """Create the folder of a new job below `jobs`, named by the notebook's `stem` and the time.

    Raises `InputError` if 999 such folders exist for this second, and `OSError`.
    """
    # The name occurs in PATH, in shell scripts and in names of runs, so it has no colon, space or slash.
    stem = re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:_MAX_STEM_LENGTH] or "notebook"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    jobs.mkdir(parents=True, exist_ok=True, mode=0o700)
    for attempt in range(1, 1000):
        folder = jobs / (f"{stem}-{stamp}" if attempt == 1 else f"{stem}-{stamp}-{attempt}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue  # another job of this name started in the same second
        return folder
    raise InputError(f"{jobs} has too many jobs named {stem}-{stamp}.", "Retry in a second.")
