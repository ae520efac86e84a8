"""The trainings that were given a name, `haversack.runs`: list them, show one, check, plot and export it.

haversack.runs.every()               # the runs of this machine
haversack.runs.show("rsna")          # sessions and epochs of one
haversack.runs.plot("rsna")          # its loss, in a notebook; .save("rsna.png") elsewhere
haversack.runs.export("rsna", "rsna.keras", checkpoint="best")
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haversack.errors import IntegrityError, NotFound
from haversack.training import location
from haversack.training.runs.log import LOG
from haversack.training.runs.report import Run, read

if TYPE_CHECKING:
    from haversack.training.keras.export import Which
    from haversack.training.runs.plot import Plot

__all__ = ["Verified", "every", "export", "plot", "show", "verified"]


def every(where: str | Path | None = None) -> list[Run]:
    """Every run logged in the folder `where` (this machine's data folder when None), the last trained one last."""
    folder = location.local_folder(where)
    found = [read(log.parent) for log in folder.glob(f"*/{LOG}")]
    return sorted(found, key=lambda run: run.sessions[-1].last_seen if run.sessions else 0.0)


def show(name: str, where: str | Path | None = None) -> Run:
    """The run `name`, logged in the folder `where`. Raises `NotFound` if there is none."""
    folder = location.local_folder(where) / name
    if not (folder / LOG).is_file():
        raise NotFound(f"There is no run {name} in {folder.parent}.", "List the runs with: haversack runs")
    return read(folder)


@dataclass(frozen=True)
class Verified:
    """A checkpoint that was read back in full; `size` is in bytes, `fault` what is wrong with it, "" if nothing."""

    step: int
    where: str
    size: int
    when: str
    fault: str

    def __str__(self) -> str:
        return f"  checkpoint of step {self.step}: {self.size:,} bytes, {self.when}; {self.fault or 'whole'}"


def verified(name: str, where: str | Path | None = None) -> list[Verified]:
    """Read every checkpoint of the run `name`, oldest first, and compare it with its hashes.

    Raises like `haversack.Checkpoints`, except for the faults that it reports.
    """
    from haversack.training.checkpoints.checkpoints import Checkpoints

    checkpoints = Checkpoints(name, where)
    found = []
    for one in checkpoints.all():
        fault = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # `fault` reports what a restore would warn of
                restored = checkpoints.restore(step=one.step)
            fault = restored.passed_over[0].reason if restored and restored.passed_over else ""
        except IntegrityError as error:
            fault = error.what
        when = f"{one.when.astimezone():%Y-%m-%d %H:%M:%S}"
        found.append(Verified(one.step, one.where, one.size, when, fault))
    return found


def plot(name: str, where: str | Path | None = None) -> Plot:
    """Plot the loss of the run `name` over its epochs, with a line where a session was killed.

    A notebook displays the returned `Plot`; its `save` writes a file. Raises `NotFound` if there is no such run.
    """
    from haversack.training.runs.plot import Plot

    return Plot(show(name, where))


def export(
    name: str, path: str | Path, where: str | Path | None = None, *, checkpoint: Which = "latest", model: Any = None
) -> Path:
    """Write a checkpoint of the run `name` as a `.weights.h5` or `.keras` file, complete or not at all.

    Args:
        name: the run.
        path: the file; its suffix decides between weights and a whole model.
        where: where the run's checkpoints are kept; see `haversack.fit`.
        checkpoint: "latest", "best" (the smallest loss at an epoch's end) or a step, as `haversack runs show` lists it.
        model: the model, built and compiled as for the training, if Keras cannot rebuild it from its configuration.

    Returns `path`. Raises `InputError` for another suffix, `NotFound` if there is no such run or checkpoint,
    `TrainingError` if the model cannot be built or differs from the run's, and `IntegrityError` if no checkpoint is
    intact.
    """
    from haversack.training.keras.export import export as write

    return write(name, path, where, checkpoint=checkpoint, model=model)
