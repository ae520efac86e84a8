"""A run that this session owns and trains, whatever the framework: when it is saved, what is logged, how it ends.

The session of a framework knows how to read and write the state of its training. `OwnedRun` does the rest: it saves
when a save is due or a signal is held, keeps the run's log and pulse, reports where the run resumed, waits for the
store at the end and releases the run. It calls `capture` for the state and nothing else of its session; it restores
nothing.

Saving overlaps with training: a save blocks the training only while it copies the state, or while the save before it is
still being written. A save that fails is printed and retried, since a full disk must not stop a training.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haversack.errors import (
    ConnectionFailed,
    HaversackError,
    InputError,
    RateLimited,
    RunLost,
    RunTaken,
)
from haversack.training import clock, location
from haversack.training.checkpoints.checkpoints import Checkpoints, Restored
from haversack.training.console import print_line
from haversack.training.interrupts import Interrupts
from haversack.training.rhythm import Rhythm, SaveTimer
from haversack.training.runs.log import RunLog

STORE_TIMEOUT = 600.0
"""How long a finished training waits for a store that does not answer, in seconds."""
_STORE_RETRY_INTERVAL = 5.0


@dataclass(frozen=True)
class Position:
    """How far a run is: `step` batches of epoch `epoch` (from 0) are done; `total` are done of all epochs together."""

    epoch: int
    step: int
    total: int


@dataclass(frozen=True)
class Captured:
    """The state of a training between two steps.

    Attributes:
        tree: what `Checkpoints.save` saves. Its arrays may be the training's own: they are copied before the next step.
        best: whether it is the best state so far, which retention keeps.
        diverged: whether it is no state to go on from with other settings; retention keeps the last one that is.
        broken: what is wrong with it, so that it must not take the place of an older state; "" if nothing is. Such a
            state is not saved at all, for a training that cannot know whether its settings have changed since.
    """

    tree: dict[str, Any]
    best: bool = False
    diverged: bool = False
    broken: str = ""


Capture = Callable[[bool], Captured]
"""Returns the state of a training; the argument is whether the training has ended."""


class OwnedRun:
    """A run while one session trains it.

    The session calls `begin` once, `reach` whenever its position changes, `beat` and `save_if_due` between steps, `end`
    with the outcome, and `close` at the end. All of these belong to the thread that trains; `next_save_text` is
    thread-safe. No lock guards the fields, which this object alone assigns:

    ================  ======================  ====================================================================
    field             type                    meaning
    ================  ======================  ====================================================================
    position          Position                how far the run is
    log               RunLog                  the run's log and pulse
    checkpoints       Checkpoints             the checkpoints; they have their own threads
    _facts            dict                    recorded in checkpoints; the session may fill it before the first
    _framework        str                     what trains, for the log
    _capture          Capture                 the session's state
    _interrupts       Interrupts              the held signal; its handler runs in the main thread
    _timer            SaveTimer               when the next save is due
    _resumed          bool                    whether the run resumes from a checkpoint
    _first_total      int                     `position.total` at which this session began
    _saved_total      int                     `position.total` of the last save; -1 before a new run's first
    _prepared         bool                    whether memory for the saves was asked for
    is_broken         bool                    whether a state was not saved because it is broken
    _trained_before   float                   seconds of training in earlier sessions
    _started_at       float                   monotonic time at which the session began
    ================  ======================  ====================================================================
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        interrupts: Interrupts,
        capture: Capture,
        *,
        facts: dict[str, Any],
        rhythm: Rhythm,
        framework: str = "keras",
        resumed_at: Position | None = None,
        trained: float = 0.0,
    ) -> None:
        """Begin a session of the run now.

        Args:
            checkpoints: the run's checkpoints; for a run that is trained, they are claimed.
            interrupts: must be entered.
            capture: called between two steps, in the thread that trains.
            facts: JSON for each checkpoint.
            rhythm: when to save.
            framework: what trains, for the log: "keras", "torch", "jax", "python" or "lightning".
            resumed_at: the position of the checkpoint that the session resumes from; None for a new run.
            trained: seconds of training in all sessions at that checkpoint.
        """
        self.checkpoints = checkpoints
        self.position = resumed_at or Position(0, 0, 0)
        self.log = RunLog(checkpoints.folder)
        self._interrupts = interrupts
        self._capture = capture
        self._facts = facts
        self._framework = framework
        self._timer = SaveTimer(rhythm)
        self._resumed = resumed_at is not None
        self._first_total = self.position.total
        self._saved_total = self.position.total if self._resumed else -1
        self._prepared = False
        self.is_broken = False
        self._trained_before = trained
        self._started_at = time.monotonic()

    @property
    def name(self) -> str:
        return self.checkpoints.name

    @property
    def trained(self) -> float:
        """Seconds of training in all sessions."""
        return self._trained_before + time.monotonic() - self._started_at

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal is held."""
        return self._interrupts.received is not None

    def begin(self, epochs: int, steps: int | None) -> None:
        """Log the begin of the session; if it resumes the run, print where.

        `epochs` is the number of epochs that was asked for, `steps` that of steps in an epoch, None if unknown.
        """
        pulse = self.log.last_pulse()
        repeated = max(0.0, pulse - self._trained_before) if self._resumed and pulse is not None else None
        resumed = (self.position.epoch, self.position.step) if self._resumed else None
        self.log.begin(epochs, resumed, repeated, steps=steps, framework=self._framework)
        if self._resumed:
            lost = "the steps after it are repeated" if repeated is None else f"{repeated:.0f} s repeated"
            waiting = _uploads(self.checkpoints.pending) or "nothing"
            print_line(
                f"{self.name}: resumed at epoch {self.position.epoch + 1}, step {self.position.step}; {lost}; "
                f"{waiting} pending"
            )

    def reach(self, position: Position) -> None:
        """Set how far the run is."""
        self.position = position

    def beat(self) -> None:
        """Write the run's pulse, at most five times a second."""
        self.log.beat(self.trained, epoch=self.position.epoch, step=self.position.step)

    def save_if_due(self) -> None:
        """Save if a save is due and none is in progress; for a held signal, save, release the run and deliver it.

        Raises `RunTaken` and `RunLost` if the save does.
        """
        if self.is_interrupted:
            self.save()
            self._release()
            self.interrupt()
        elif self.checkpoints.saving:
            return
        elif not self._prepared and self.position.total > self._first_total:
            # Not before a step is done, because some optimizers create their state in it.
            self._prepared = True
            self._prepare()
        elif self._timer.is_due:
            self.save()

    def save_if_affordable(self) -> None:
        """Save also before a save is due, unless saves would then block more than a twentieth of the time.

        Raises `RunTaken` and `RunLost` if the save does.
        """
        if self._timer.is_affordable:
            self.save()

    def save(self, ended: bool = False) -> bool:
        """Save the state between two steps, unless it is saved already or broken; return False if that failed.

        A full disk or an unreachable drive does not stop the training: the error is printed, and the save is retried
        when it is next due. Raises `RunTaken` and `RunLost`.
        """
        if self.position.total == self._saved_total and not ended:
            return True
        cost = None
        try:
            captured = self._capture(ended)
            if captured.broken:
                self._report_broken(captured.broken)
                return True
            kinds = {"best": captured.best, "diverged": captured.diverged}
            self.checkpoints.save(self.position.total, captured.tree, facts=self._facts, **kinds)
            cost = self.checkpoints.copy_seconds
        except (RunTaken, RunLost):
            raise
        except HaversackError as error:
            print_line(f"{self.name}: {error} The training continues, and the save is retried.")
            return False
        finally:
            self._timer.restart(cost)
        self._saved_total = self.position.total
        self.log.write("save", epoch=self.position.epoch, step=self.position.step, total=self.position.total)
        return True

    def save_last(self) -> None:
        """Save the state of a training that has ended. Raises `RunTaken` and `RunLost`."""
        if not self.save(ended=True):
            self.save(ended=True)  # the error may have been that of the save before

    def interrupt(self) -> None:
        """Log the outcome "interrupted" and deliver the held signal."""
        self.end("interrupted")
        self._interrupts.deliver()

    def end(self, outcome: str, digest: str = "") -> None:
        """Log the end of the session: "finished", "interrupted" or "failed"; `digest` is a hash of a finished state."""
        self.log.write("end", outcome=outcome, **({"digest": digest} if digest else {}))

    def close(self, succeeded: bool) -> None:
        """Release the run.

        After a training that succeeded, this waits until the last checkpoint is committed on this machine and in the
        store: up to 10 minutes (`STORE_TIMEOUT`) for a store that does not answer, or until a signal comes. Errors are
        printed, except `RunLost`, which is raised if the training succeeded.
        """
        try:
            if succeeded:
                self._wait_for_store()
            self._release()
        except RunLost:
            if succeeded:
                raise

    def next_save_text(self) -> str:
        """When the next save is, for a progress bar, and how many uploads are pending. Thread-safe."""
        left = "now" if self.checkpoints.saving else f"{self._timer.remaining:.0f}s"
        waiting = _uploads(self.checkpoints.pending)
        return f"{left}, {waiting} pending" if waiting else left

    def _report_broken(self, what: str) -> None:
        """Print once that the run is saved no more."""
        if not self.is_broken:
            at = self.position
            print_line(
                f"{self.name}: {what} at epoch {at.epoch + 1}, step {at.step}. Such a state is not saved: the next "
                "session goes on from the last checkpoint; change what diverged, such as the learning rate"
            )
        self.is_broken = True

    def _prepare(self) -> None:
        """Ask for the memory that the saves need, so that the first one need not wait for it."""
        try:
            self.checkpoints.prepare(self._capture(False).tree)
        except InputError:
            return  # the save reports it

    def _wait_for_store(self) -> None:
        """Wait until the last checkpoint is in the store; give up at `STORE_TIMEOUT` or a signal.

        SIGINT while the store does not answer ends only the wait: it is not delivered. An error other than
        `ConnectionFailed` and `RateLimited` is printed and ends the wait. Raises `RunLost`.
        """
        begun, reported = time.monotonic(), False
        while not self.is_interrupted and time.monotonic() - begun < STORE_TIMEOUT:
            try:
                return self.checkpoints.wait()
            except (ConnectionFailed, RateLimited) as error:
                if not reported:
                    print_line(
                        f"{self.name}: {error.what} The last checkpoint is on this machine; waiting up to "
                        f"{clock.words(STORE_TIMEOUT)} to replicate it. Interrupt to stop waiting."
                    )
                reported = True
                time.sleep(_STORE_RETRY_INTERVAL)
                if self._interrupts.received == signal.SIGINT:
                    self._interrupts.drop()
                    return None
            except RunLost:
                raise
            except HaversackError as error:
                return self._print_save_error(error)
        return None

    def _release(self) -> None:
        """Close the checkpoints, so that another session may own the run. Prints errors; raises `RunLost`."""
        try:
            self.checkpoints.close()
        except RunLost:
            raise
        except (ConnectionFailed, RateLimited) as error:
            print_line(
                f"{self.name}: {error.what} The last checkpoint is on this machine only, in "
                f"{self.checkpoints.folder}. Run the training again to replicate it."
            )
        except HaversackError as error:
            self._print_save_error(error)

    def _print_save_error(self, error: HaversackError) -> None:
        print_line(f"{self.name}: the last save failed: {error}")


def rename_old_run(name: str, where: str | Path | None, take_over: bool, restarted_by: str | None) -> None:
    """Rename the run `name`, so that a new one can begin; do nothing if it has no checkpoint.

    `restarted_by` identifies the call in its job. If the same call has restarted the run in an earlier session of the
    job, the run is this call's own and keeps its name. Raises `RunTaken` if another session owns the run.
    """
    with Checkpoints(name, where, take_over=take_over) as before:
        latest = before.latest
        if latest is None or (restarted_by and latest.facts.get("restarted by") == restarted_by):
            return
        before.claim()
    location.rename_run(name, where)


def has_newer(checkpoints: Checkpoints, restored: Restored | None) -> bool:
    """Whether there is a newer checkpoint than `restored`, apart from those that the restore found damaged.

    After a claim by taking over, True means that the former owner committed one more after the restore.
    """
    damaged = {one.where for one in restored.passed_over} if restored else set()
    newest = next((one for one in reversed(checkpoints.all()) if one.where not in damaged), None)
    return newest is not None and (restored is None or newest.id != restored.checkpoint.id)


def _uploads(count: int) -> str:
    return f"{count} upload{'' if count == 1 else 's'}" if count else ""
