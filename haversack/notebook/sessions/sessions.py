"""Execute a notebook over as many sessions as it takes.

Runs in the process of `haversack run`, on its event loop; work that blocks for long runs in threads. A session is one
life of the job's kernel on what looks like a fresh machine: HOME, `/content` and the Python environment are new, while
the job's store and its downloads stay. If a session ends before the notebook is done because of its time limit or
because its kernel died, hung or ran out of memory, another session starts at the first cell. There, trainings resume
from their checkpoints, and finished cells tagged `once` are skipped. `JobSessions` has the table of states.
"""

from __future__ import annotations

import asyncio
import glob
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from haversack import disk, embedded, google, settings
from haversack.drive import ROOT
from haversack.errors import CellFailed, HaversackError, Interrupted, JobError, KernelDied
from haversack.notebook import ending, plainfit
from haversack.notebook.clients import interpreter
from haversack.notebook.kaggle.folder import KaggleFolder
from haversack.notebook.place import content, environment, sandbox, system_packages
from haversack.notebook.place.caches import SharedCaches
from haversack.notebook.record import beside, document
from haversack.notebook.record.screen import Screen
from haversack.notebook.record.store import JobRecord, JobSession, JobStore, Why
from haversack.notebook.secrets.masking import Secrets
from haversack.notebook.sessions import execution, finished_runs, kept_streams, kernel, processes, rehearsal
from haversack.notebook.sessions.exit_cause import ExitCauseFinder
from haversack.notebook.sessions.interruption import handle_signals
from haversack.notebook.sessions.patience import Patience
from haversack.notebook.sessions.progress import JobProgress
from haversack.notebook.sessions.shell_failure import ShellFailure
from haversack.notebook.sessions.watchdog import Watchdog
from haversack.packages.drift import Drift
from haversack.training import clock

ONCE = "once"
# A line of progress shows the end of a cell's output; this many characters are enough for its last line.
_OUTPUT_TAIL = 4000
_FRESH_FOLDERS = ("home", "content", *environment.FOLDERS, "bin", "jupyter", "root", "own/tmp")
# How `haversack.fit` reports that a training resumes: the start of the line, and words in it.
_RESUMED_PREFIX, _RESUMED_WORDS = "haversack: ", "resumed at"


@dataclass(frozen=True)
class SessionOutcome:
    """How a session ended.

    Attributes:
        why: the reason, as in `JobSession.why`.
        error: the error to report; None if `why` is "done", or "interrupted" by a second signal.
        retry: whether another session should follow.
    """

    why: Why
    error: HaversackError | None = None
    retry: bool = False


class JobSessions:
    """The sessions of one job, executed one after the other. It moves the job between these states:

    | state | in `job.json` | event | next state |
    |---|---|---|---|
    | prepared | no session, or those before a resume | `execute` starts a session | session running |
    | session running | last session: `ended` null, `why` "" | it ends, see below | session ended |
    | session ended | `why` limit, hung, rehearsal, memory, died | progress in it or the one before | session running |
    | | the same | two sessions in a row without progress: `execute` raises the error | given up |
    | | the same | `--max-sessions` were executed by this call: `execute` raises the error | given up |
    | | `why` failed, interrupted | `execute` raises the error | given up |
    | | `why` done, `done` true | `execute` returns | done |
    | given up | `done` false | `haversack run --resume` | prepared |
    | done | `done` true | none | |

    A running session ends for one of these reasons:

    | `why` | cause | found by |
    |---|---|---|
    | done | every cell was executed or skipped, or the last one ended its kernel itself | `_run_session` |
    | limit | `--session` seconds passed; all processes of the job are killed | `Watchdog` |
    | hung | no output and no training step for `--cell-timeout` seconds; the kernel is killed | `Watchdog` |
    | rehearsal | `--rehearse` and a training is in the middle of an epoch; all processes are killed | `Watchdog` |
    | memory | the kernel died and the OOM kill count rose | `Execution`, `ExitCauseFinder` |
    | died | the kernel died for another or an unknown reason | `Execution`, `ExitCauseFinder` |
    | failed | a cell raised, the kernel did not start, or pending writes were not uploaded | `_run_session` |
    | interrupted | Ctrl-C or SIGTERM; a second one makes `execute` raise `KeyboardInterrupt` | `handle_signals` |

    If the parent is killed or raises an error that is no `HaversackError`, the session keeps `ended` null and `why` "".
    `--resume` treats such a job as given up. With `--rehearse`, `execute` raises `JobError` after "done" if no session
    ended with "rehearsal"; the job is done nevertheless.

    A session made progress if it finished a later cell than all sessions before, if a training of the job saved a later
    step, or if a file of the job's arrived on the drive with other content (`JobProgress`).

    The last cell may end its kernel itself, by `runtime.unassign()`, SIGKILL to its own process, `exit()`, `quit()` or
    `sys.exit(0)`: then it counts as executed. In an earlier cell such an end is that of the session ("died"), and
    `sys.exit(0)` an error of the cell.

    Attributes:
        notebook: the nbformat node whose cells are executed; it holds unmasked outputs.
        folder: the job's folder.
        output: where the executed notebook is saved: before the first cell, after each cell, and after each session.
        downloads: paths of downloads that the kernels reported, unmasked.
        drive: where the bytes of the last mounted drive are, for the report; None if none was mounted.
        shell_failures: the shell commands that failed, in cells of the last session and in those that it skipped.
        executed: the number of the last cell that the last session executed or, if it ended early, finished.
    """

    def __init__(
        self,
        notebook: Any,
        store: JobStore,
        record: JobRecord,
        chosen: settings.Settings,
        secrets: Secrets,
        screen: Screen,
        notify: Callable[[str], None],
    ) -> None:
        """Prepare the sessions.

        Args:
            notebook: the nbformat node to execute.
            store: the job's store.
            record: the job's record, whose `sessions`, `once`, `once_failures`, `passed`, `cell` and `done` this object
                updates.
            chosen: the user's settings.
            secrets: the secrets to mask; the kernels' are added.
            screen: the progress display.
            notify: called with a masked sentence for the user and the report.
        """
        self.notebook = notebook
        self.folder = store.folder
        self.output = Path(record.output)
        self.downloads: list[str] = []
        self.drive: str | None = None
        self.executed = 0
        self.shell_failures = [ShellFailure(**failure) for failure in record.once_failures]
        self._notify = notify
        self._record = record
        self._store = store
        self._settings = chosen
        self._secrets = secrets
        self._screen = screen
        # The end of the running cell's output, and the uploads that the cell has received.
        self._cell_output = ""
        self._cell_uploads: list[str] = []
        self._caches: SharedCaches | None = None
        self._locks: Sequence[int] = ()
        self._kaggle: KaggleFolder | None = None
        # When the last cell started that has not ended, in seconds since 1970; infinite if it has.
        self._cell_started = math.inf
        # Whether this session has mounted the embedded drive as a symbolic link.
        self._is_drive_linked = False
        self._tree: Path | None = None
        self._drift = Drift({})

    def execute(
        self,
        private: content.ContentFolder,
        variables: dict[str, str],
        *,
        tree: Path | None = None,
        caches: SharedCaches | None = None,
        drift: Drift | None = None,
        locks: Sequence[int] = (),
        kaggle: KaggleFolder | None = None,
    ) -> None:
        """Execute every cell, over as many sessions as it takes; return when the notebook is done.

        Args:
            private: the job's `/content`.
            variables: the environment variables that all kernels share.
            tree: the environment with the notebook's packages, of which each session gets a private view; None for the
                packages that haversack runs with.
            caches: the caches that jobs share; None if this one shares none.
            drift: judges whether a cell's error comes of a library's newer version; None for no judgement.
            locks: file descriptors of locks that the kernels inherit, as they may outlive this process.
            kaggle: the job's `/kaggle`, opened; None if it has none.

        If the job is given up, raises the `HaversackError` of the last session: `JobError` (`CellFailed`,
        `KernelDied`), `DiskFull` or `MountError`. Raises `OSError` if the session's folders cannot be written,
        `TimeoutError` if the checkpoints are not deleted within 60 s after the last cell, and `KeyboardInterrupt` for a
        second signal.
        """
        self._tree = tree
        self._caches = caches
        self._drift = drift or Drift({})
        self._locks = (*locks, caches.lock) if caches else locks
        self._kaggle = kaggle
        asyncio.run(self._run(private, variables))

    async def _run(self, private: content.ContentFolder, variables: dict[str, str]) -> None:
        upload = self._store.upload_all
        data = self._settings.data
        progress = await asyncio.to_thread(JobProgress, self.folder, data / "runs", data / "hub" / ROOT)
        patience = Patience(self._store.name, self._record.options.max_sessions, self._notify, self._secrets.mask)
        while True:
            session = self._start_session()
            await asyncio.to_thread(self._prepare_streams, progress)
            await asyncio.to_thread(upload, self._record)
            upload = self._store.upload_record
            try:
                outcome = await self._run_session(session, private, variables)
            except (KeyboardInterrupt, asyncio.CancelledError):
                # Outside `handle_signals`, asyncio's own handler cancels this task.
                self._end_session(session, SessionOutcome("interrupted"))
                raise
            except HaversackError as error:
                outcome = SessionOutcome("failed", error)  # its folders or its environment cannot be made
            self._end_session(session, outcome)
            if outcome.why != "done" and await asyncio.to_thread(lambda: progress.has_training):
                kept_streams.confirm(self.folder)
            await asyncio.to_thread(self._store.upload_record, self._record, self.output)
            if outcome.why == "done":
                return rehearsal.check(self._record)
            assert outcome.error is not None
            if not outcome.retry:
                raise outcome.error
            moved = await asyncio.to_thread(progress.of, session, linked=self._is_drive_linked)
            patience.check(moved, outcome.error)

    def _prepare_streams(self, progress: JobProgress) -> None:
        """Let the session begin with the random streams of the one before, if there is a training to go on with."""
        if progress.has_training:
            kept_streams.confirm(self.folder)  # the parent of the session before was killed
        if kept_streams.prepare(self.folder, unseeded=self._record.options.unseeded):
            self._notify(
                "Where a training goes on, the random streams of Python and its libraries begin as in the session "
                "before, so that data drawn without a seed is the same; --unseeded turns this off."
            )

    # A session's start and end

    def _start_session(self) -> JobSession:
        """Add a session to the record, save the record, and print what the user should know about the session."""
        sessions, limit = self._record.sessions, self._record.options.session
        number = len(sessions) + 1
        sentences = [f"Session {number} starts at the first cell."] if number > 1 else []
        if limit:
            at = time.strftime("%H:%M:%S", time.localtime(time.time() + limit))
            sentences.append(f"Session {number} ends at {at} at the latest.")
        if self._record.once:
            done = ", ".join(map(str, self._record.once))
            sentences.append(f"Skipped, because tagged `once` and finished: cell {done}.")
        if sentences:
            self._screen.print_line(" ".join(sentences))
        session = JobSession(time.time())
        sessions.append(session)
        self._store.save(self._record)
        return session

    def _end_session(self, session: JobSession, outcome: SessionOutcome) -> None:
        """Enter the outcome into the record, and save the record and the executed notebook."""
        session.ended, session.why = time.time(), outcome.why
        session.said = self._secrets.mask(outcome.error.what) if outcome.error else ""
        self._record.done = outcome.why == "done"
        if outcome.retry:
            number, duration = len(self._record.sessions), clock.words(session.ended - session.began)
            self._screen.print_line(f"Session {number} ended after {duration}: {session.said}")
        self._store.save(self._record)
        self.save_notebook()

    async def _run_session(
        self, session: JobSession, private: content.ContentFolder, variables: dict[str, str]
    ) -> SessionOutcome:
        """Run one kernel from its start to its end, and return how the session ended.

        However the session ends, the kernel is stopped and the drive unmounted first. Raises `KeyboardInterrupt` for a
        second signal.
        """
        self._make_fresh_folders()
        env, private, variables = self._prepare_environment(private, variables)
        log = kernel.KernelLog(self.folder / "kernel.log", self._secrets)
        sockets = kernel.socket_folder()
        if not self._record.options.trusted:
            private = sandbox.isolated(private, self.folder, env, self._tree, sockets)
        kernels = kernel.write_spec(self.folder / "jupyter", env, private)
        running = execution.Execution(
            self.notebook,
            kernel.manager(kernels, sockets),
            on_message=self._handle_message,
            on_output=self._handle_output,
            rewrite=private.rewrite,
            mask=self._secrets.mask,
            output_limit=self._settings.output,
            shell_failures=self.shell_failures,
            drift=self._drift,
            exit_cause=ExitCauseFinder(log.path),
        )
        watchdog = Watchdog(
            running, self.folder, self._record.options, self._settings.data / "runs", self._rehearsal(session)
        )
        outcome = SessionOutcome("interrupted")
        try:
            self._screen.show_activity("starting the kernel")
            self._record.cell, self._record.passed, self._cell_started = 0, [], math.inf
            self.shell_failures[:] = [failure for failure in self.shell_failures if failure.cell in self._record.once]
            self._is_drive_linked = False
            ending.clear(self.folder)
            with handle_signals(running):
                async with watchdog:
                    await running.start(
                        env=variables,
                        cwd=str(private.cwd),
                        stdout=log.pipe,
                        stderr=log.pipe,
                        pass_fds=tuple(self._locks),
                    )
                    await self._execute_cells(running, session)
            if error := await self._delete_checkpoints(running, variables):
                self._notify(f"The checkpoints of this job were not deleted: {self._secrets.mask(error)}")
            outcome = SessionOutcome("done")
        except HaversackError as error:
            outcome = self._outcome_of(error, watchdog, running)
        finally:
            self.executed = session.cells if outcome.retry else self._record.cell
            await running.stop()
            log.close()
            shutil.rmtree(sockets, ignore_errors=True)
            outcome = await asyncio.to_thread(self._clean_up, outcome)
        return outcome

    def _outcome_of(self, error: HaversackError, watchdog: Watchdog, running: execution.Execution) -> SessionOutcome:
        """Return the outcome of a session that `error` ended.

        An interrupt comes first, then the watchdog: both make the kernel die or the cell raise.
        """
        where = f"in cell {self._record.cell}" if self._record.cell else "while the kernel started"
        if running.interrupted:
            return SessionOutcome("interrupted", Interrupted(error.what, self._store.how_to_resume))
        if watchdog.ended:
            return SessionOutcome(watchdog.ended, watchdog.error(where), retry=True)
        if isinstance(error, KernelDied):
            return SessionOutcome(running.death, error, retry=True)
        return SessionOutcome("failed", error)

    def _clean_up(self, outcome: SessionOutcome) -> SessionOutcome:
        """Unmount the drive, which uploads pending writes, before a retry kill all processes of the job, delete the
        sign-in that `auth.authenticate_user()` left, and share what libraries have cached.

        The kernel has ended, so its files are closed. Return `outcome`, or "failed" if the session was done and the
        drive cannot be unmounted.
        """
        if not self._record.options.trusted:
            # It had neither a mount nor a sign-in, and its links must not lead this process to the user's files.
            processes.kill(self.folder)
            return outcome
        try:
            self._unmount()
        except HaversackError as error:
            if outcome.error is None:
                return SessionOutcome("failed", error)
            self._notify(str(error))
        if outcome.retry:
            processes.kill(self.folder)
        (self.folder / "home" / google.DEFAULT_FILE).unlink(missing_ok=True)
        self._adopt_caches()
        return outcome

    def _adopt_caches(self) -> None:
        """Share the files that libraries cached in the session's HOME, except those of a cell that did not end."""
        if self._caches is None:
            return
        try:
            self._caches.adopt(
                self.folder / "home", self._cell_started, lambda text: self._secrets.mask(text, cached=False)
            )
        except OSError as error:
            self._notify(f"What libraries cached in this session is not kept: {error}. Free disk space.")

    def _unmount(self) -> None:
        """Unmount everything that the job mounted. Raises `MountError` if a pending write cannot be uploaded."""
        if not (self._settings.data / "mounts").is_dir():
            return
        from haversack.drive.fuse.mount import unmount_job

        self._screen.show_activity("uploading pending writes to the drive")
        for mounted in unmount_job(self.folder):
            self.drive = mounted.where
            self._is_drive_linked = self._is_drive_linked or mounted.kind == "link"

    def _make_fresh_folders(self) -> None:
        """Replace the session's folders by empty ones. Raises `JobError` if something is mounted in an old one."""
        for name in _FRESH_FOLDERS:
            place = self.folder / name
            if mounts := content.mounted_below(place):
                raise JobError(
                    f"{mounts[0]} is still mounted, so the next session cannot start.",
                    f"Unmount it: haversack unmount {mounts[0]}",
                )
            if place.exists():
                disk.delete_tree(place)
        for name in ("home", "content"):
            (self.folder / name).mkdir()
        beside.place(self.folder, self._record.dialect.folder(self.folder))
        if self._kaggle:
            self._kaggle.begin_session()
        if self._caches:
            self._caches.link(self.folder / "home")

    def _prepare_environment(
        self, private: content.ContentFolder, variables: dict[str, str]
    ) -> tuple[environment.Environment, content.ContentFolder, dict[str, str]]:
        """Create the session's Python environment; return it, the `/content` with it, and the kernel's variables."""
        self._screen.show_activity("preparing the environment")
        # The user's own cache, also where the job's settings have another one that its kernels may write to.
        env, private = environment.provide(self.folder, self._tree, private, settings.load().cache, self._notify)
        trusted = self._record.options.trusted
        if env.copied:
            self._screen.print_line(f"environment: copied in {env.copied:.1f} s")
        environment.write_commands(self.folder / "bin", env, trusted=trusted)
        system_packages.write_commands(self.folder / "bin", env.python)
        variables = {**variables, **env.variables(self._settings.cache, trusted=trusted)}
        variables["PATH"] = env.search_path(self.folder / "bin", variables.get("PATH") or os.defpath)
        if limit := self._record.options.session:
            variables["HAVERSACK_SESSION_ENDS"] = str(self._record.sessions[-1].began + limit)
        return env, private, variables

    # Cells

    async def _execute_cells(self, running: execution.Execution, session: JobSession) -> None:
        """Execute all non-empty code cells in order, but skip finished cells tagged `once`.

        Raises the errors of `Execution.execute_one`.
        """
        cells = self.notebook.cells
        indices = [i for i, cell in enumerate(cells) if cell.cell_type == "code" and cell.source.strip()]
        self.save_notebook()
        for number, index in enumerate(indices, start=1):
            self._screen.start_cell(number, len(indices), self._secrets.mask(cells[index].source))
            self._record.cell = number
            is_once = ONCE in cells[index].metadata.get("tags", [])
            if is_once and number in self._record.once:
                self._record.passed += self._record.once[number]
                self._screen.finish_cell("–")
            else:
                await self._execute_cell(running, index, number, is_last=number == len(indices))
            session.cells = number
            if is_once and number not in self._record.once:
                self._record.once[number] = self._cell_uploads
                self._record.once_failures += [asdict(one) for one in self.shell_failures if one.cell == number]
                await asyncio.to_thread(self._store.upload_record, self._record)
        self._store.save(self._record)

    async def _execute_cell(self, running: execution.Execution, index: int, number: int, *, is_last: bool) -> None:
        """Execute one cell; save the record before it and the executed notebook after it, however it ends.

        If the last cell ended its kernel itself, it counts as executed.
        """
        self._cell_output, self._cell_uploads, self._cell_started = "", [], time.time()
        self._store.save(self._record)
        try:
            await running.execute_one(index, number)
        except HaversackError as error:
            if not is_last or running.interrupted or not self._is_ending(error, index, number):
                self._finish_cell(number, "✗")
                if isinstance(error, CellFailed):
                    self._print_traceback(self.notebook.cells[index].outputs)
                raise self._as_ended(error, number) from None
            self.notebook.cells[index].execution_count = number
        finally:
            self._learn_hub_secrets()
            self.save_notebook()
            for sentence in running.left_out:
                self._notify(f"Cell {number}: {sentence}")
        self._cell_started = math.inf
        self._finish_cell(number, "✓")

    def _finish_cell(self, number: int, mark: str) -> None:
        """Print the line of cell `number`, and below it the shell commands of the cell that failed."""
        failed = [failure for failure in self.shell_failures if failure.cell == number]
        self._screen.finish_cell("✗" if failed else mark)
        for failure in failed:
            self._screen.print_details(f"{failure.end}: {failure.name}")

    def _print_traceback(self, outputs: list[Any]) -> None:
        """Print the end of the traceback in a failed cell's outputs, without the advice, which the error repeats."""
        for output in outputs:
            if output.output_type == "error":
                lines = [line for line in output.traceback if not line.startswith("haversack: ")]
                self._screen.print_traceback(self._secrets.mask("\n".join(lines)))

    def _is_ending(self, error: HaversackError, index: int, number: int) -> bool:
        """Whether the cell at `index`, which has ended with `error`, did so on purpose and without failing."""
        if isinstance(error, KernelDied):
            return ending.of_cell(self.folder, number) in ("unassign", "kill")
        outputs = self.notebook.cells[index].outputs
        last = next((one for one in reversed(outputs) if one.output_type == "error"), None)
        is_exit = last is not None and last.ename == "SystemExit" and last.evalue in ("", "0", "None", "False")
        return isinstance(error, CellFailed) and is_exit

    def _as_ended(self, error: HaversackError, number: int) -> HaversackError:
        """Return `error`, the end of cell `number`; if the cell released its runtime, an error that says so."""
        if not isinstance(error, KernelDied) or ending.of_cell(self.folder, number) != "unassign":
            return error
        return KernelDied(
            f"Cell {number} ended the session with runtime.unassign(), before the notebook's last cell.",
            "Move that line to the last cell.",
        )

    async def _delete_checkpoints(self, running: execution.Execution, variables: dict[str, str]) -> str:
        """Delete the checkpoints of the trainings that the job named, after the last cell; return an error's message.

        The kernel does it, or another process if the clients are apart or the last cell ended the kernel. Raises
        `TimeoutError` if it takes longer than 60 s.
        """
        if not self._record.options.trusted:
            return ""  # they lie in the job's folder, in which its links must not lead this process elsewhere
        is_apart = interpreter.VARIABLE in variables
        if not is_apart and ending.of_cell(self.folder, self._record.cell) is None:
            return await running.execute_silently(plainfit.DELETE_CHECKPOINTS)
        if not any((self._settings.data / "runs").glob(f"{glob.escape(self.folder.name)}.cell-*/checkpoints")):
            return ""
        return await asyncio.to_thread(finished_runs.delete_checkpoints, variables)

    def _handle_message(self, message: dict[str, Any]) -> None:
        """Handle one message of the kernel's `channel`. Unknown messages are ignored."""
        match message:
            case {"kind": "secret", "values": [*values]}:
                self._secrets.add(*map(str, values))
            case {"kind": "download", "path": str(path)}:
                if path not in self.downloads:
                    self.downloads.append(path)
            case {"kind": "upload", "names": [*names]}:
                self._cell_uploads += map(str, names)
            case {"kind": "shell", "command": str(command), "status": int(status)}:
                self.shell_failures.append(ShellFailure(self._record.cell, self._secrets.mask(command), status))
            case {"kind": "mount", "where": str(where)}:
                self.drive = where

    def _handle_output(self, text: str) -> None:
        """Show the end of the cell's output, and record and print the lines of trainings that resume."""
        if self._screen.is_live:
            # Masked together with the output before it: a secret may be split between two pieces.
            self._cell_output = (self._cell_output + text)[-_OUTPUT_TAIL:]
            self._screen.show_output(self._secrets.mask(self._cell_output, cached=False))
        for line in text.splitlines():
            if line.startswith(_RESUMED_PREFIX) and _RESUMED_WORDS in line:
                resumed = self._secrets.mask(line.removeprefix(_RESUMED_PREFIX))
                self._record.sessions[-1].resumed.append(resumed)
                self._screen.print_line(resumed)

    def _learn_hub_secrets(self) -> None:
        # The cell may have started the embedded hub, whose token did not exist before.
        self._secrets.add(*embedded.secrets_of(self._settings.data))

    def save_notebook(self) -> None:
        """Save the executed notebook, masked, with its sessions in its metadata. Raises `DiskFull` and `JobError`."""
        metadata = self.notebook.metadata.setdefault("haversack", {})
        if self._record.address:
            metadata["source"] = self._record.address
        metadata["sessions"] = [
            {
                "start": _iso(session.began),
                "end": _iso(session.ended),
                "why": session.why,
                "said": session.said,
                "cells": session.cells,
                "resumed": session.resumed,
            }
            for session in self._record.sessions
        ]
        document.write(self._secrets.mask_json(self.notebook), self.output)

    # Trainings

    def _rehearsal(self, session: JobSession) -> rehearsal.Rehearsal | None:
        """Return the rehearsal for this session; None without `--rehearse` or after a rehearsed kill."""
        if not rehearsal.is_due(self._record):
            return None
        return rehearsal.Rehearsal(self.folder, self._settings.data / "runs", session.began)


def _iso(moment: float | None) -> str | None:
    """Return seconds since 1970 as ISO 8601 in UTC; None for None."""
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
