"""A notebook executed over as many sessions as it takes.

A session is one life of the job's kernel, on what looks like a fresh machine: HOME, `/content` and the environment
are new, the job's store and its downloads stay. A session that ends before the notebook does, because its time was up
or its kernel died, hung or ran out of memory, is followed by another, which runs from the first cell: trainings go on
where they were, and cells tagged `once` that are done are not repeated. Two sessions in a row that finish no further
cell and commit no further training step end the job, since a third would do the same.

A cell that raises ends the job, as does whoever interrupts it. Any training on this machine counts as progress: a
notebook may train in processes of its own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from haversack import embedded, settings
from haversack.errors import HaversackError, JobError, KernelDied
from haversack.notebook import plainfit
from haversack.notebook.place import content, environment
from haversack.notebook.record import document
from haversack.notebook.record.screen import Screen
from haversack.notebook.record.store import JobRecord, JobSession, JobStore, Why
from haversack.notebook.secrets.masking import Secrets
from haversack.notebook.sessions import execution, kernel, processes
from haversack.notebook.sessions.exit_cause import Witness
from haversack.notebook.sessions.interruption import interruptible
from haversack.notebook.sessions.rehearsal import Rehearsal
from haversack.notebook.sessions.watchdog import Guard
from haversack.training import clock

ONCE = "once"
# How much of what a cell wrote last is looked at for its last line, in characters.
_TAIL = 4000
_FRESH = ("home", "content", "env", "bin", "jupyter")
_MOST_IN_VAIN = 2
# What `haversack.fit` says when it goes on.
_RESUMED = ("haversack: ", "resumed at")


@dataclass(frozen=True)
class SessionOutcome:
    """How a session ended: `error` is None when the notebook is done; `again` says whether another session follows."""

    why: Why
    error: HaversackError | None = None
    again: bool = False


class JobSessions:
    """The execution of one job's notebook, and what its kernels tell of themselves meanwhile."""

    def __init__(
        self,
        notebook: Any,
        store: JobStore,
        record: JobRecord,
        chosen: settings.Settings,
        secrets: Secrets,
        screen: Screen,
        notice: Callable[[str], None],
    ) -> None:
        self.notebook = notebook
        self.folder = store.folder
        self.output = Path(record.output)
        self.downloads: list[str] = []
        self.drive: str | None = None
        self.executed = 0
        self._notice = notice
        self._record = record
        self._store = store
        self._settings = chosen
        self._secrets = secrets
        self._screen = screen
        self._written = ""
        self._received = 0

    def execute(self, private: content.ContentFolder, variables: dict[str, str]) -> None:
        """Run every cell. Raises `CellFailed`, or what ended the last of the sessions."""
        asyncio.run(self._run(private, variables))

    async def _run(self, private: content.ContentFolder, variables: dict[str, str]) -> None:
        carry = self._store.carry_all
        in_vain, furthest, committed = 0, 0, self._committed()
        while True:
            session = self._open()
            await asyncio.to_thread(carry, self._record)
            carry = self._store.carry
            try:
                end = await self._one(session, private, variables)
            except KeyboardInterrupt:
                self._close(session, SessionOutcome("interrupted"))
                raise
            self._close(session, end)
            await asyncio.to_thread(self._store.carry, self._record, self.output)
            if end.why == "done":
                return self._check_rehearsal()
            assert end.error is not None
            if not end.again:
                raise end.error
            before, committed = committed, self._committed()
            progress = session.cells > furthest or any(step > before.get(run, -1) for run, step in committed.items())
            furthest = max(furthest, session.cells)
            in_vain = 0 if progress else in_vain + 1
            if in_vain == _MOST_IN_VAIN:
                what = f"{end.error.what.rstrip('.')}, and two sessions in a row came no further."
                raise type(end.error)(what, end.error.next_step)

    # A session's beginning and end

    def _open(self) -> JobSession:
        sessions, limit = self._record.sessions, self._record.options.session
        number = len(sessions) + 1
        words = [f"Session {number} begins from the first cell."] if number > 1 else []
        if limit:
            at = time.strftime("%H:%M:%S", time.localtime(time.time() + limit))
            words.append(f"Session {number} ends at {at} at the latest.")
        if self._record.once:
            done = ", ".join(map(str, self._record.once))
            words.append(f"Done for good and not repeated: cell {done}.")
        if words:
            self._screen.say(" ".join(words))
        session = JobSession(time.time())
        sessions.append(session)
        self._store.save(self._record)
        return session

    def _close(self, session: JobSession, end: SessionOutcome) -> None:
        session.ended, session.why = time.time(), end.why
        session.said = self._secrets.clean(end.error.what) if end.error else ""
        self._record.done = end.why == "done"
        if end.again:
            number, lasted = len(self._record.sessions), clock.words(session.ended - session.began)
            self._screen.say(f"Session {number} is over after {lasted}: {session.said}")
        self._store.save(self._record)
        self._save()

    async def _one(
        self, session: JobSession, private: content.ContentFolder, variables: dict[str, str]
    ) -> SessionOutcome:
        self._make_fresh()
        kernels, variables = self._equip(private, variables)
        log = kernel.KernelLog(self.folder / "kernel.log", self._secrets)
        sockets = kernel.socket_folder()
        running = execution.Execution(
            self.notebook,
            kernel.manager(kernels, sockets),
            listen=self._listen,
            show=self._show,
            source=private.source,
            witness=Witness(log.path),
        )
        guard = Guard(
            running, self.folder, self._record.options, self._settings.data / "runs", self._rehearsal(session)
        )
        end = SessionOutcome("interrupted")
        try:
            self._screen.doing("starting the kernel")
            self._record.cell = self._record.passed = 0
            with interruptible(running):
                async with guard:
                    await running.start(env=variables, cwd=str(private.folder), stdout=log.pipe, stderr=log.pipe)
                    await self._execute_cells(running, session)
            if refused := await running.ask(plainfit.CLEAR):
                self._notice(f"Checkpoints of this job are still there: {self._secrets.clean(refused)}")
            end = SessionOutcome("done")
        except HaversackError as error:
            end = self._why(error, guard, running)
        finally:
            self.executed = session.cells if end.again else self._record.cell
            await running.stop()
            log.close()
            shutil.rmtree(sockets, ignore_errors=True)
            end = await asyncio.to_thread(self._leave, end)
        return end

    def _why(self, error: HaversackError, guard: Guard, running: execution.Execution) -> SessionOutcome:
        where = f"in cell {self._record.cell}" if self._record.cell else "while the kernel started"
        if running.interrupted:
            return SessionOutcome(
                "interrupted", type(error)(error.what, f"Go on with: haversack run --resume {self._store.name}")
            )
        if guard.ended:
            return SessionOutcome(guard.ended, guard.error(where), again=True)
        if isinstance(error, KernelDied):
            return SessionOutcome(running.why, error, again=True)
        return SessionOutcome("failed", error)

    def _leave(self, end: SessionOutcome) -> SessionOutcome:
        """Return once everything that was written is on the drive; the kernel is gone, so its files are closed."""
        try:
            self._unmount()
        except HaversackError as error:
            if end.error is None:
                return SessionOutcome("failed", error)
            self._notice(str(error))
        if end.again:
            processes.kill(self.folder)
        return end

    def _unmount(self) -> None:
        if not (self._settings.data / "mounts").is_dir():
            return
        from haversack.drive.fuse.mount import unmount_job

        self._screen.doing("putting what is written on the drive")
        for mounted in unmount_job(self.folder):
            self.drive = mounted.where

    def _make_fresh(self) -> None:
        """Give the session the folders of a fresh machine. Raises `JobError` when something is mounted in the old."""
        for name in _FRESH:
            place = self.folder / name
            if mounts := content.mounted_below(place):
                raise JobError(f"{mounts[0]} is still mounted, so the next session cannot begin.", "Unmount it.")
            if place.exists():
                shutil.rmtree(place)
        for name in ("home", "content"):
            (self.folder / name).mkdir()

    def _equip(self, private: content.ContentFolder, variables: dict[str, str]) -> tuple[Path, dict[str, str]]:
        """The session's kernelspec, and its environment variables."""
        env = environment.create(self.folder / "env")
        environment.write_kaggle(self.folder / "bin", env)
        variables = {**variables, **env.variables(self._settings.cache)}
        first = [self.folder / "bin", env.bin, Path(sys.executable).parent]
        variables["PATH"] = os.pathsep.join([*map(str, first), variables.get("PATH") or os.defpath])
        if limit := self._record.options.session:
            variables["HAVERSACK_SESSION_ENDS"] = str(self._record.sessions[-1].began + limit)
        return kernel.write_spec(self.folder / "jupyter", env, private), variables

    # Cells

    async def _execute_cells(self, running: execution.Execution, session: JobSession) -> None:
        cells = self.notebook.cells
        indices = [i for i, cell in enumerate(cells) if cell.cell_type == "code" and cell.source.strip()]
        self._save()
        for number, index in enumerate(indices, start=1):
            self._screen.start(number, len(indices), self._secrets.clean(cells[index].source))
            self._record.cell = number
            is_once = ONCE in cells[index].metadata.get("tags", [])
            if is_once and number in self._record.once:
                self._record.passed += self._record.once[number]
                self._screen.finish("–")
            else:
                await self._execute_cell(running, index, number)
            session.cells = number
            if is_once and number not in self._record.once:
                self._record.once[number] = self._received
                await asyncio.to_thread(self._store.carry, self._record)
        self._store.save(self._record)

    async def _execute_cell(self, running: execution.Execution, index: int, number: int) -> None:
        self._written, self._received = "", 0
        self._store.save(self._record)
        try:
            await running.execute_one(index, number)
        except HaversackError:
            self._screen.finish("✗")
            raise
        finally:
            self._learn_hub_secrets()
            self._save()
        self._screen.finish()

    def _listen(self, message: dict[str, Any]) -> None:
        match message:
            case {"kind": "secret", "values": [*values]}:
                self._secrets.add(*map(str, values))
            case {"kind": "download", "path": str(path)}:
                if path not in self.downloads:
                    self.downloads.append(path)
            case {"kind": "upload", "count": int(count)}:
                self._received += count
            case {"kind": "mount", "where": str(where)}:
                self.drive = where

    def _show(self, text: str) -> None:
        # A secret may come in two pieces.
        self._written = (self._written + text)[-_TAIL:]
        self._screen.output(self._secrets.clean(self._written))
        begin, resumed = _RESUMED
        for line in text.splitlines():
            if line.startswith(begin) and resumed in line:
                said = self._secrets.clean(line.removeprefix(begin))
                self._record.sessions[-1].resumed.append(said)
                self._screen.say(said)

    def _learn_hub_secrets(self) -> None:
        # The embedded hub may have been started by a cell.
        self._secrets.add(*embedded.secrets_of(self._settings.data))

    def _save(self) -> None:
        """Save the executed notebook, with the list of its sessions in its metadata."""
        kept = self.notebook.metadata.setdefault("haversack", {})
        kept["sessions"] = [
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
        document.write(self._secrets.clean_all(self.notebook), self.output)

    # Trainings

    def _rehearsal(self, session: JobSession) -> Rehearsal | None:
        if not self._record.options.rehearse or self._was_rehearsed:
            return None
        return Rehearsal(self.folder, self._settings.data / "runs", session.began)

    @property
    def _was_rehearsed(self) -> bool:
        return any(session.why == "rehearsal" for session in self._record.sessions)

    def _check_rehearsal(self) -> None:
        if self._record.options.rehearse and not self._was_rehearsed:
            raise JobError(
                "The notebook is done, and no training in it could be killed in the middle of an epoch.",
                "Rehearse with one that takes longer, such as --param epochs=50.",
            )

    def _committed(self) -> dict[str, int]:
        """The last committed step of every training on this machine."""
        folder = self._settings.data / "runs"
        if not folder.is_dir():
            return {}
        from haversack.training.checkpoints.checkpoints import Checkpoints

        steps = {}
        for run in folder.glob("[!.]*/checkpoints"):
            if every := Checkpoints(run.parent.name).all():
                steps[run.parent.name] = max(checkpoint.step for checkpoint in every)
        return steps


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
