"""Ends a session at its limit, one whose cell is hung, and one for a rehearsal: the guard beside a working kernel.

The end comes as a cloud machine's does: SIGKILL for everything that runs in the session, without a word before. A cell
is taken for hung when nothing was heard of it for a while: no output, and no training step. Nobody can tell a cell
that works silently from one that waits for ever, so there is such a limit only where the user sets one.
"""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path

from haversack.errors import JobError
from haversack.notebook.record.store import Options, Why
from haversack.notebook.sessions import processes
from haversack.notebook.sessions.execution import Execution
from haversack.notebook.sessions.rehearsal import Rehearsal
from haversack.training import clock
from haversack.training.runs import log, report

_EVERY = 0.1


class Guard:
    """Over one session of the job in `folder`; `trainings` is where trainings on this machine say that they live.
    `rehearsal`, where there is one, knows the moment to kill."""

    def __init__(
        self, running: Execution, folder: Path, options: Options, trainings: Path, rehearsal: Rehearsal | None
    ) -> None:
        self.ended: Why = ""
        self._running = running
        self._folder = folder
        self._options = options
        self._trainings = trainings
        self._rehearsal = rehearsal
        self._killed = ""
        self._pulses = self._look()
        self._beaten = -math.inf
        self._ends = time.monotonic() + options.session if options.session else None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Guard:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    def error(self, where: str) -> JobError:
        """Why the guard ended the session `where` ("in cell 3")."""
        if self.ended == "limit":
            assert self._options.session is not None
            return JobError(
                f"The session came to its limit of {clock.words(self._options.session)} {where}.",
                "Give longer sessions with --session, or train with haversack.fit, which goes on where it was.",
            )
        if self.ended == "rehearsal":
            return JobError(f"The session was killed {where} for the rehearsal{self._reached()}.")
        assert self._options.cell_timeout is not None
        return JobError(
            f"Nothing was heard for {clock.words(self._options.cell_timeout)} {where}, so it was taken for hung.",
            "See what that cell waits for, or give it longer with --cell-timeout.",
        )

    async def _watch(self) -> None:
        while not self.ended:
            await asyncio.sleep(_EVERY)
            if self._ends is not None and time.monotonic() >= self._ends:
                self.ended = "limit"
            elif self._rehearsal is not None and (training := self._rehearsal.found()):
                self.ended, self._killed = "rehearsal", training
            elif self._is_hung():
                self.ended = "hung"
        # At its limit a machine goes with all it runs; a hung kernel leaves the drive mounted, to be flushed.
        if self.ended in ("limit", "rehearsal"):
            await asyncio.to_thread(processes.kill, self._folder)
        await self._running.kill()

    def _reached(self) -> str:
        reached = report.read(self._trainings / self._killed).sessions[-1].reached
        return f", at {report.in_words(reached)} of {self._killed}" if reached else ""

    def _is_hung(self) -> bool:
        timeout, heard = self._options.cell_timeout, self._running.heard
        if timeout is None or heard is None or time.monotonic() - heard < timeout:
            return False
        pulses = self._look()
        if pulses != self._pulses:
            # When a pulse was seen to change is counted, not the time in it, since clocks jump.
            self._pulses, self._beaten = pulses, time.monotonic()
        return time.monotonic() - self._beaten >= timeout

    def _look(self) -> dict[str, log.Pulse | None]:
        return {file.parent.name: log.pulse(file.parent) for file in self._trainings.glob(f"*/{log.PULSE}")}
