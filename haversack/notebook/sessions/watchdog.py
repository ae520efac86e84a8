"""End a session although its kernel works: at the session's time limit, when its cell hangs, and for a rehearsal.

Runs in the process of `haversack run`, as a task beside the execution of the cells. At the limit and for a rehearsal,
all processes of the session get SIGKILL without warning, as on a cloud machine. A cell counts as hung if for
`--cell-timeout` it sent no message and no training of the job made a step; then only the kernel is killed. A cell that
computes silently cannot be told from one that waits forever, so there is no such timeout unless the user sets one.
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

_INTERVAL = 0.1  # seconds between two checks


class Watchdog:
    """An async context manager that watches one session and ends it if necessary. All code runs on the event loop.

    `ended` is "" as long as the watchdog has not ended the session, then "limit", "hung" or "rehearsal".
    """

    def __init__(
        self, running: Execution, folder: Path, options: Options, runs: Path, rehearsal: Rehearsal | None
    ) -> None:
        """Prepare to watch; the time limit starts now.

        Args:
            running: the session's execution, whose kernel is killed.
            folder: the job's folder.
            options: `session` is the time limit, `cell_timeout` the timeout of a cell, both in seconds or None.
            runs: the folder of all runs on this machine; the pulses of this job's trainings count as signs of life.
            rehearsal: chooses the moment of a rehearsed kill; None for no rehearsal.
        """
        self.ended: Why = ""
        self._running = running
        self._folder = folder
        self._options = options
        self._runs = runs
        self._rehearsal = rehearsal
        self._killed_run = ""
        self._pulses = self._read_pulses()
        self._pulse_changed_at = -math.inf
        self._ends_at = time.monotonic() + options.session if options.session else None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watchdog:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    def error(self, where: str) -> JobError:
        """Return the error that says why the watchdog ended the session; call it only after `ended` is set.

        `where` is where the session ended, such as "in cell 3".
        """
        if self.ended == "limit":
            assert self._options.session is not None
            return JobError(
                f"The session reached its limit of {clock.words(self._options.session)} {where}.",
                "Allow longer sessions with --session, or train with haversack.fit, which resumes.",
            )
        if self.ended == "rehearsal":
            return JobError(f"The session was killed {where} for the rehearsal{self._where_killed()}.")
        assert self._options.cell_timeout is not None
        timeout = clock.words(self._options.cell_timeout)
        return JobError(
            f"There was no output and no training step for {timeout} {where}, so the session was ended as hung.",
            "Find out what that cell waits for, or allow a longer time with --cell-timeout.",
        )

    async def _watch(self) -> None:
        """Check periodically until the session has to end, then end it."""
        while not self.ended:
            await asyncio.sleep(_INTERVAL)
            if self._ends_at is not None and time.monotonic() >= self._ends_at:
                self.ended = "limit"
            elif self._rehearsal is not None and (run := self._rehearsal.run_to_kill()):
                self.ended, self._killed_run = "rehearsal", run
            elif self._is_hung():
                self.ended = "hung"
        # For a hung cell only the kernel is killed, so that the process that serves the mount can upload pending
        # writes.
        if self.ended in ("limit", "rehearsal"):
            await asyncio.to_thread(processes.kill, self._folder)
        await self._running.kill()

    def _where_killed(self) -> str:
        """Return ", at EPOCH AND STEP of RUN" for the killed run; "" if its last step is unknown."""
        reached = report.read(self._runs / self._killed_run).sessions[-1].reached
        return f", at {report.in_words(reached)} of {self._killed_run}" if reached else ""

    def _is_hung(self) -> bool:
        """Whether, for `cell_timeout` seconds, the running cell sent no message and no pulse changed."""
        timeout, last_message_at = self._options.cell_timeout, self._running.last_message_at
        if timeout is None or last_message_at is None or time.monotonic() - last_message_at < timeout:
            return False
        pulses = self._read_pulses()
        if pulses != self._pulses:
            # A pulse's own time is wall-clock time, which may jump, so the time when its change was seen counts.
            self._pulses, self._pulse_changed_at = pulses, time.monotonic()
        return time.monotonic() - self._pulse_changed_at >= timeout

    def _read_pulses(self) -> dict[str, log.Pulse]:
        """Return the last pulse of each run on this machine that a process of this job wrote, by run name."""
        pulses = {file.parent.name: log.pulse(file.parent) for file in self._runs.glob(f"*/{log.PULSE}")}
        return {run: pulse for run, pulse in pulses.items() if pulse is not None and pulse.job == self._folder.name}
