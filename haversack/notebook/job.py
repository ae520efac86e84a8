"""A job: one notebook executed from its first cell to its last, in a place of its own.

What the job writes lies in one folder, `jobs/<name>-<time>/` in the user's data folder: `home/`, `env/`, `content/`,
`downloads/` and `kernel.log`. The executed notebook is saved after every cell, so what was executed is kept however the
job ends. Everything that is wrong with what was given is said before anything starts.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from haversack import credentials, embedded, settings
from haversack.errors import HaversackError, InputError, NotebookInvalid, SignInError
from haversack.notebook import content, document, environment, execution, kaggle, kernel, secretfile
from haversack.notebook import parameters as parameters_
from haversack.notebook.screen import Screen
from haversack.notebook.secrets import Secrets

parse_parameters = parameters_.parse

# How much of what a cell wrote last is looked at for its last line, in characters.
_TAIL = 4000
# How much of the notebook's name its job's folder gets, in characters.
_LONGEST_NAME = 50
_LOCK = "job.lock"


@dataclass
class Report:
    """What came of a job. Paths are absolute, `seconds` wall-clock time; `drive` says where the drive's bytes are."""

    status: Literal["done", "failed"]
    notebook: str
    output: str
    job: str
    html: str | None = None
    sessions: int = 1
    cells: int = 0
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
        lines = [f"{'Done' if self.status == 'done' else 'Failed'}: {cells} in {self.seconds:.0f} s."]
        lines.append(f"  notebook   {self.output}")
        if self.html:
            lines.append(f"  web page   {self.html}")
        lines += [f"  download   {path}" for path in self.downloads]
        if self.drive:
            lines.append(f"  drive      {self.drive}")
        lines.append(f"  job        {self.job}")
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
) -> Report:
    """Execute `notebook` and write the executed one to `output` (default `<name>.executed.ipynb`, where the user is).

    `hub` is what `credentials.drive` takes; `uploads` are the files that `files.upload()` receives; `parameters` are
    values for the notebook's variables; `cores` simulates that many accelerator cores on the CPU; `html` names a web
    page to be written too. What goes wrong while cells run is in the report's `failure`; what is wrong with what was
    given raises `InputError`, and a hub that cannot be used `SignInError` or `ConnectionFailed`.
    """
    source = document.read(notebook)
    parameters_.apply(source, parameters or {})
    output = (output or Path(f"{notebook.stem}.executed.ipynb")).absolute()
    for path in [output, html] if html else [output]:
        document.check_output(path, notebook)
    if cores is not None and cores < 1:
        raise InputError(f"{cores} cores cannot be simulated.", "Give --cores a number from 1 on.")
    given = _uploads(uploads, source, notebook)
    chosen = settings.load()
    secrets = _known_secrets(chosen)
    _check_hub(hub or chosen.hub)
    folder = _make_folder(chosen.data / "jobs", notebook.stem)
    job = Job(source, folder, output, html.absolute() if html else None, chosen, secrets)
    job.notices += _unmount_abandoned(chosen.data)
    variables = _variables(chosen, folder, hub or chosen.hub, cores)
    secrets.add(variables.get("KAGGLE_KEY"))
    (folder / "job.json").write_text(json.dumps({"uploads": [str(path) for path in given]}))
    with FileLock(folder / _LOCK):
        return job.execute(notebook, variables)


class Job:
    """One execution: the notebook, its folder, and what the kernel tells of itself meanwhile."""

    def __init__(
        self, notebook: Any, folder: Path, output: Path, html: Path | None, chosen: settings.Settings, secrets: Secrets
    ) -> None:
        self.notebook = notebook
        self.folder = folder
        self.output = output
        self.html = html
        self.settings = chosen
        self.secrets = secrets
        self.downloads: list[str] = []
        self.drive: str | None = None
        self.notices: list[str] = []
        self.executed = 0
        self._written = ""
        self.screen = Screen()

    def execute(self, notebook: Path, variables: dict[str, str]) -> Report:
        """Run every cell; the report says how it went."""
        began = time.monotonic()
        failure: HaversackError | None = None
        private = content.prepare(self.folder / "content", self.folder / "home")
        try:
            with self.screen:
                self.notices += [private.notice] if private.notice else []
                for notice in self.notices:
                    self.screen.say(notice)
                asyncio.run(self._run(private, variables))
        except HaversackError as error:
            failure = type(error)(self.secrets.clean(error.what), self.secrets.clean(error.next_step))
        finally:
            private.release()
        page = None
        try:
            page = self._save_page() if self.html else None
        except HaversackError as error:
            failure = failure or error
        return Report(
            status="failed" if failure else "done",
            notebook=str(notebook.absolute()),
            output=str(self.output),
            job=str(self.folder),
            html=page,
            cells=self.executed,
            seconds=round(time.monotonic() - began, 2),
            content=private.kind,
            downloads=self.secrets.clean_all(self.downloads),
            drive=self.drive,
            notices=self.notices,
            error=str(failure) if failure else None,
            failure=failure,
        )

    async def _run(self, private: content.Content, variables: dict[str, str]) -> None:
        env = environment.create(self.folder / "env")
        environment.write_kaggle(self.folder / "bin", env)
        variables = {**variables, **env.variables(self.settings.cache)}
        variables["PATH"] = _path(
            [self.folder / "bin", env.bin, Path(sys.executable).parent], variables.get("PATH", "")
        )
        kernels = kernel.write_spec(self.folder / "jupyter", env, private)
        log = kernel.Log(self.folder / "kernel.log", self.secrets)
        sockets = kernel.socket_folder()
        running = execution.Execution(
            self.notebook,
            kernel.manager(kernels, sockets),
            listen=self._listen,
            show=self._show,
            source=private.source,
        )
        try:
            self.screen.doing("starting the kernel")
            with _interruptible(running):
                await running.start(env=variables, cwd=str(private.folder), stdout=log.pipe, stderr=log.pipe)
                await self._execute_cells(running)
        finally:
            self.executed = running.executed
            await running.stop()
            log.close()
            shutil.rmtree(sockets, ignore_errors=True)
            await asyncio.to_thread(self._unmount)

    async def _execute_cells(self, running: execution.Execution) -> None:
        indices = [i for i, cell in enumerate(self.notebook.cells) if cell.cell_type == "code" and cell.source.strip()]
        self._save()
        for number, index in enumerate(indices, start=1):
            self._written = ""
            self.screen.start(number, len(indices), self.secrets.clean(self.notebook.cells[index].source))
            try:
                await running.execute_one(index, number)
            except HaversackError:
                self.screen.finish("✗")
                raise
            finally:
                self._learn_hub_secrets()
                self._save()
            self.screen.finish()

    def _unmount(self) -> None:
        """Return once everything that the job wrote is on the drive; the kernel is gone, so its files are closed."""
        if not (self.settings.data / "mounts").is_dir():
            return
        from haversack.drive.mount import unmount_job

        self.screen.doing("putting what is written on the drive")
        for mounted in unmount_job(self.folder):
            self.drive = mounted.where

    def _listen(self, message: dict[str, Any]) -> None:
        match message:
            case {"kind": "secret", "values": [*values]}:
                self.secrets.add(*map(str, values))
            case {"kind": "download", "path": str(path)}:
                self.downloads.append(path)
            case {"kind": "mount", "where": str(where)}:
                self.drive = where

    def _show(self, text: str) -> None:
        # A secret may come in two pieces.
        self._written = (self._written + text)[-_TAIL:]
        self.screen.output(self.secrets.clean(self._written))

    def _learn_hub_secrets(self) -> None:
        # The embedded hub may have been started by a cell.
        self.secrets.add(*embedded.secrets_of(self.settings.data))

    def _save(self) -> None:
        document.write(self.secrets.clean_all(self.notebook), self.output)

    def _save_page(self) -> str | None:
        assert self.html is not None
        document.write_page(self.secrets.clean_all(self.notebook), self.html)
        return str(self.html)


@contextmanager
def _interruptible(running: execution.Execution) -> Iterator[None]:
    """Ctrl-C and SIGTERM interrupt the running cell; a second one ends the job at once."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def stop() -> None:
        if running.interrupted or running.kc is None:
            task.cancel()
        else:
            running.interrupt()

    handled = (signal.SIGINT, signal.SIGTERM)
    for number in handled:
        loop.add_signal_handler(number, stop)
    try:
        yield
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


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
    if (kaggles := _own_kaggle()) is not None:
        secrets.add(*kaggles.secrets)
    try:
        secrets.add(*secretfile.known())
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
    from haversack.drive.mount import jobs, unmount_job

    notices = []
    for folder in jobs():
        try:
            # A job holds its lock as long as it lives.
            with FileLock(folder / _LOCK, blocking=False) if folder.is_dir() else nullcontext():
                unmount_job(folder)
        except Timeout:
            continue
        except HaversackError as error:
            notices.append(f"A job that was killed, {folder.name}, left the drive mounted: {error}")
    return notices


def _make_folder(jobs: Path, stem: str) -> Path:
    # It stands in PATH and in shell scripts, where a colon, a space or a dollar sign would mean something else.
    stem = re.sub(r"[^\w.-]+", "-", stem).strip("-.")[:_LONGEST_NAME] or "notebook"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    jobs.mkdir(parents=True, exist_ok=True, mode=0o700)
    for attempt in range(1, 1000):
        folder = jobs / (f"{stem}-{stamp}" if attempt == 1 else f"{stem}-{stamp}-{attempt}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue  # another job of this name began in the same second
        for name in ("home", "content", "downloads"):
            (folder / name).mkdir()
        return folder
    raise InputError(f"{jobs} is crowded with jobs of this name.", "Remove old ones.")


def _variables(chosen: settings.Settings, folder: Path, hub: str | None, cores: int | None) -> dict[str, str]:
    """The environment variables of the job's kernel, but for those of its Python environment."""
    variables = kernel.variables(os.environ, folder / "home")
    variables |= {
        "HAVERSACK_JOB": str(folder),
        "HAVERSACK_DATA": str(chosen.data),
        "HAVERSACK_CACHE": str(chosen.cache),
        "HAVERSACK_PYTHON": sys.executable,
        "HAVERSACK_SECRETS": str(secretfile.path()),
        # Building matplotlib's list of fonts takes seconds, so jobs share it.
        "MPLCONFIGDIR": variables.get("MPLCONFIGDIR", str(chosen.cache / "matplotlib")),
    }
    variables.setdefault("KERAS_BACKEND", "jax")
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
    """The user's own sign-in to Kaggle, from the key file in the HOME that the job does not see; no hub gets it."""
    if (hub and hub != "embedded") or os.environ.get("KAGGLE_KEY"):
        return {}
    found = _own_kaggle()
    if found is None or found.kaggle_login is None:
        return {}
    user, key = found.kaggle_login
    return {"KAGGLE_USERNAME": user, "KAGGLE_KEY": key, kaggle.HANDED_ON: "1"}


def _own_kaggle() -> credentials.Server | None:
    try:
        return credentials.own_kaggle()
    except SignInError:
        return None  # many notebooks never ask Kaggle; for those that do, its command says what is missing


def _path(first: list[Path], rest: str) -> str:
    return os.pathsep.join([*map(str, first), rest or os.defpath])
