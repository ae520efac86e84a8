"""A rehearsed death: the moment at which killing the kernel shows whether a training goes on.

That is in the middle of an epoch, a while after a checkpoint that was itself taken in the middle of one, once
the training has a few epochs behind it. A moment is found from outside, in what the training writes of itself; the
kernel knows nothing of it and does nothing else than in any other job.

It needs a training long enough to be saved inside an epoch, which is some seconds, and one that is made durable: what
is trained plainly is never killed.
"""

from __future__ import annotations

import time
from pathlib import Path

from haversack.notebook.sessions import processes
from haversack.training.runs import log, report

# Epochs that are done before, and before the checkpoint, so that there is something to look at.
_EPOCHS_BEFORE, _EPOCHS_SAVED = 2, 1
# The part of all epochs after which an earlier checkpoint will do: on a slow machine there may be no second one.
_FAR = 0.3
# The part of an epoch after which its end, and not another step, might be what comes next.
_LATE = 0.6
# The part of all epochs after which the kill may fall anywhere in one: where epochs take as long as it is from pulse to
# pulse, each pulse can fall on the same step.
_URGENT = 0.5
# Seconds after the checkpoint, so that some work is lost and has to be repeated.
_LOST = 1.0
# A pulse older than this says nothing about now, in seconds.
_FRESH = 0.5


class Rehearsal:
    """Looks for the moment in the trainings of the job with the folder `job`, which are among those below `trainings`
    that beat since `began` (seconds since 1970)."""

    def __init__(self, job: Path, trainings: Path, began: float) -> None:
        self._job = job
        self._trainings = trainings
        self._began = began

    def found(self) -> str | None:
        """The training for which this is the moment."""
        for file in self._trainings.glob(f"[!.]*/{log.PULSE}"):
            folder = file.parent
            pulse = log.pulse(folder)
            if pulse is None or pulse.time < self._began or time.time() - pulse.time > _FRESH:
                continue
            if pulse.epoch >= _EPOCHS_BEFORE and self._is_worth_it(folder, pulse):
                return folder.name
        return None

    def _is_worth_it(self, folder: Path, pulse: log.Pulse) -> bool:
        try:
            run = report.read(folder)
        except FileNotFoundError:
            return False  # it was renamed just now, by a training that begins anew
        return _goes_on_inside_an_epoch(run, pulse) and run.sessions[-1].pid in processes.of(self._job)


def _goes_on_inside_an_epoch(run: report.Run, pulse: log.Pulse) -> bool:
    """Whether the next session would begin inside an epoch, and a kill at `pulse` be inside one, as far as can be."""
    from haversack.training.checkpoints.checkpoints import Checkpoints

    saved = run.sessions[-1].saved if run.sessions else None
    if saved is None or not saved.step or pulse.time < saved.time + _LOST:
        return False
    is_inside = pulse.step > 0 and (run.steps is None or pulse.step <= _LATE * run.steps)
    if not is_inside and pulse.epoch < _URGENT * run.epochs_asked:
        return False
    if saved.epoch < _EPOCHS_SAVED and pulse.epoch < _FAR * run.epochs_asked:
        return False
    return any(checkpoint.step == saved.total for checkpoint in Checkpoints(run.name).all())
