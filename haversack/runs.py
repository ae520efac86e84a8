"""The runs, which are the trainings that were given a name: list, show, verify, plot and export them.

haversack.runs.every()               # the runs of this machine
haversack.runs.show("rsna")          # sessions and epochs of one
haversack.runs.plot("rsna")          # its loss, in a notebook; .save("rsna.png") elsewhere
haversack.runs.export("rsna", "rsna.keras", checkpoint="best")
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from haversack.errors import IntegrityError, NotFound
from haversack.training import location
from haversack.training.runs.log import LOG
from haversack.training.runs.report import Run, read

if TYPE_CHECKING:
    import keras

    from haversack.training.keras.export import Which
    from haversack.training.runs.plot import Plot

__all__ = ["Verified", "every", "export", "plot", "show", "verified"]


def every(where: str | Path | None = None) -> list[Run]:
    """Return the runs that are logged in one folder of this machine, the most recently trained last.

    That is the folder `where`, or this machine's data folder if `where` is None or a URL: a run whose checkpoints go to
    a URL is logged in the data folder too, so both return the same runs.
    """
    folder = location.local_folder(where)
    found = [read(log.parent) for log in folder.glob(f"*/{LOG}")]
    return sorted(found, key=lambda run: run.sessions[-1].last_seen if run.sessions else 0.0)


def show(name: str, where: str | Path | None = None) -> Run:
    """Return the run `name` as logged on this machine.

    The log is searched in the folder `where`, or in this machine's data folder if `where` is None or a URL. Raises
    `NotFound` if no run of this name is logged there.
    """
    folder = location.local_folder(where) / name
    if not (folder / LOG).is_file():
        raise NotFound(f"There is no run {name} in {folder.parent}.", "List the runs with: haversack runs")
    return read(folder)


@dataclass(frozen=True)
class Verified:
    """The result of reading a checkpoint in full.

    Attributes:
        step: the number of steps that were done, of all epochs.
        where: its folder on this machine, or its URL in the store.
        size: in bytes.
        when: when it was saved, as YYYY-MM-DD HH:MM:SS in local time.
        fault: what is wrong with it; "" if it is intact.
    """

    step: int
    where: str
    size: int
    when: str
    fault: str

    def __str__(self) -> str:
        return f"  checkpoint of step {self.step}: {self.size:,} bytes, {self.when}; {self.fault or 'intact'}"


def verified(name: str, where: str | Path | None = None) -> list[Verified]:
    """Read every checkpoint of the run `name` and compare it with its hashes; return the results, oldest first.

    `where` is the folder or URL that was given to the training, None if it was given none: the checkpoints are then in
    this machine's data folder and, if that is lost with the session, on the drive of the configured hub. Those that
    only a store has are downloaded into the run's folder on this machine. A damaged checkpoint is reported in
    `fault`, not raised. Returns [] if there is no such run.

    Raises `InputError` if `name` is not a folder's name, `NotFound` if the run's owner deletes a checkpoint before it
    is read, `DiskFull` or `TrainingError` if a download cannot be written, and `ConnectionFailed` or another
    `HaversackError` of the store if it fails and this machine has no checkpoint.
    """
    from haversack.training.checkpoints.checkpoints import Checkpoints

    checkpoints = Checkpoints(name, location.checkpoints_of(where))
    found = []
    for one in checkpoints.all():
        fault = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # `fault` reports what `restore` warns of
                restored = checkpoints.restore(step=one.step)
            fault = restored.passed_over[0].reason if restored and restored.passed_over else ""
        except IntegrityError as error:
            fault = error.what
        when = f"{one.when.astimezone():%Y-%m-%d %H:%M:%S}"
        found.append(Verified(one.step, one.where, one.size, when, fault))
    return found


def plot(name: str, where: str | Path | None = None) -> Plot:
    """Return a plot of the loss of the run `name` over its epochs, with a line where each session but the last ended.

    The run's log is searched in the folder `where`, or in this machine's data folder if `where` is None or a URL. A
    notebook displays the returned `Plot`; its `save` writes a file. Raises `NotFound` if no run of this name is logged
    there; without matplotlib, drawing the `Plot` raises `ExtraMissing`.
    """
    from haversack.training.runs.plot import Plot

    return Plot(show(name, where))


def export(
    name: str,
    path: str | Path,
    where: str | Path | None = None,
    *,
    checkpoint: Which = "latest",
    model: keras.Model | None = None,
) -> Path:
    """Write a checkpoint of the run `name` to the file `path`, by atomic replace.

    Args:
        name: the run.
        path: the file. It ends in `.weights.h5` for weights or in `.keras` for the whole model.
        where: the folder or URL that was given to the training; None if it was given none (see `verified`).
        checkpoint: "latest", the newest intact one; "best", the newest one saved at the end of an epoch whose
            `val_loss` (`loss` without validation) was the smallest so far; or a step. Steps count from the run's first
            epoch; `haversack runs show` lists them.
        model: the model, built and compiled as for the training, if Keras cannot rebuild it from its configuration.
            Its variables are set to the checkpoint's values.

    Returns `path`.

    Raises `InputError` for another suffix; `NotFound` if there is no such run or checkpoint; `TrainingError` if the
    model cannot be rebuilt or differs from the run's, if the run is not one of `haversack.fit`, if a download cannot be
    written, or if Keras runs on another backend than JAX; `IntegrityError` if the checkpoint is damaged ("latest": all
    of them); `ConnectionFailed` or another `HaversackError` of the store if it fails and this machine has no copy;
    `DiskFull`; `OSError` if `path` cannot be written; `ExtraMissing` if Keras or JAX is not installed.
    """
    from haversack.training.keras.export import export as write

    return write(name, path, where, checkpoint=checkpoint, model=model)
