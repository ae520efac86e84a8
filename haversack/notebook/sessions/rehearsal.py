"""`--rehearse`: find the moment at which killing the kernel shows whether a training resumes inside an epoch.

Runs in the process of `haversack run`. The moment is in the middle of an epoch, at least a second after a checkpoint
that was itself taken in the middle of an epoch, and after a few complete epochs. It is found in the log and the pulse
of each run, a small file in which the training keeps its present epoch and step; the kernel behaves as in any other
job. A training must take some seconds, so that a checkpoint falls inside an epoch, and must be a run: a training
without checkpoints is never killed.
"""

from __future__ import annotations

import time
from pathlib import Path

from haversack.errors import JobError
from haversack.notebook.record.store import JobRecord
from haversack.training.runs import log, report

# Complete epochs before the kill, and before the checkpoint, so that the log and the plot show some before the kill.
_MIN_EPOCHS, _MIN_SAVED_EPOCHS = 2, 1
# After this fraction of all epochs, a checkpoint of the first epoch is accepted too: a slow machine may write no other.
_ANY_CHECKPOINT_AFTER = 0.3
# A pulse after this fraction of an epoch is too late: the epoch might end before the kill.
_LATEST_IN_EPOCH = 0.6
# After this fraction of all epochs, a pulse at any step is accepted: if an epoch takes as long as the interval of
# pulses, all pulses may fall on the same step.
_ANY_STEP_AFTER = 0.5
# Seconds between the checkpoint and the kill, so that some work is lost and has to be repeated.
_MIN_LOST = 1.0
# An older pulse does not show where the training is now. In seconds.
_MAX_PULSE_AGE = 0.5


def is_due(record: JobRecord) -> bool:
    """Whether a rehearsal was asked for and no session of the job was killed for it."""
    return record.options.rehearse and not any(session.why == "rehearsal" for session in record.sessions)


def check(record: JobRecord) -> None:
    """Raise `JobError` if the job is done and its rehearsal is still due."""
    if is_due(record):
        raise JobError(
            "The notebook is done, and no training in it could be killed in the middle of an epoch.",
            "Rehearse with a longer training, for example with --param epochs=50.",
        )


class Rehearsal:
    """Looks for a training of one session that should be killed now.

    Args:
        job: the job's folder.
        runs: the folder of all runs on this machine.
        began: when the session started, in seconds since 1970; trainings that wrote nothing since are ignored.
    """

    def __init__(self, job: Path, runs: Path, began: float) -> None:
        self._job = job
        self._runs = runs
        self._began = began

    def run_to_kill(self) -> str | None:
        """Return the name of a run of this job that should be killed now; None if there is none. Nothing is killed."""
        for file in self._runs.glob(f"[!.]*/{log.PULSE}"):
            folder = file.parent
            pulse = log.pulse(folder)
            if pulse is None or pulse.time < self._began or time.time() - pulse.time > _MAX_PULSE_AGE:
                continue
            if pulse.epoch >= _MIN_EPOCHS and self._should_kill(folder, pulse):
                return folder.name
        return None

    def _should_kill(self, folder: Path, pulse: log.Pulse) -> bool:
        """Whether a kill now is in the middle of an epoch, and the run in `folder` is trained by this job.

        The pulse names the job. A process id would not tell: in a sandbox processes have other ones.
        """
        if pulse.job != self._job.name:
            return False
        try:
            run = report.read(folder)
        except FileNotFoundError:
            return False  # race: a restarted training renamed the folder after the pulse was read
        return _is_inside_epoch(run, pulse)


def _is_inside_epoch(run: report.Run, pulse: log.Pulse) -> bool:
    """Whether a kill at `pulse` is inside an epoch, and the next session would resume inside one.

    Late in the training, weaker conditions suffice (see the constants), so that the kill happens at all.
    """
    from haversack.training.checkpoints.checkpoints import Checkpoints

    saved = run.sessions[-1].saved if run.sessions else None
    if saved is None or not saved.step or pulse.time < saved.time + _MIN_LOST:
        return False
    is_inside = pulse.step > 0 and (run.steps is None or pulse.step <= _LATEST_IN_EPOCH * run.steps)
    if not is_inside and pulse.epoch < _ANY_STEP_AFTER * run.epochs_asked:
        return False
    if saved.epoch < _MIN_SAVED_EPOCHS and pulse.epoch < _ANY_CHECKPOINT_AFTER * run.epochs_asked:
        return False
    return any(checkpoint.step == saved.total for checkpoint in Checkpoints(run.name, run.folder.parent).all())
