"""A checkpoint of `haversack.fit` as a file of Keras's own: `NAME.weights.h5` or `NAME.keras`.

A checkpoint holds the model's configuration, as the JSON that Keras writes into a `.keras` file. `export` rebuilds the
model from it, assigns the checkpoint's values, and lets Keras save it: to open the file takes Keras and nothing of
haversack's. The last checkpoint of a finished training gives the model that `fit` left, with moving averages applied
and EarlyStopping's best weights restored. Any other checkpoint gives the model as it was at that step.

Keras cannot rebuild every model (a class that the notebook defines, a Lambda layer); the caller passes such a model to
`export`. Code in a configuration is never run: Keras's safe mode stays on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from haversack import disk
from haversack.errors import InputError, NotFound, TrainingError
from haversack.training import location
from haversack.training.checkpoints.checkpoints import Checkpoints
from haversack.training.devices import import_keras

if TYPE_CHECKING:
    import keras

_SUFFIXES = (".weights.h5", ".keras")

_Word = Literal["latest", "best"]
_WORDS: tuple[_Word, ...] = ("latest", "best")
Which = int | _Word
"""A checkpoint: "latest", "best" (the newest saved at the end of an epoch with the smallest loss so far), or a step."""


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
        where: the folder or URL that was given to the training; None if it was given none.
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
    suffix = next((suffix for suffix in _SUFFIXES if str(path).endswith(suffix)), None)
    if suffix is None:
        raise InputError(
            f"{path} is neither a file of weights nor of a model.", "Use a name that ends in .weights.h5 or .keras."
        )
    keras = import_keras()
    from haversack.training.keras import state
    from haversack.training.keras.session import SavedTraining

    checkpoints = Checkpoints(name, location.checkpoints_of(where))
    saved = SavedTraining.of(checkpoints.restore(step=_step(checkpoints, checkpoint)))
    assert saved is not None
    streams = state.streams()  # building a model draws from them
    try:
        exported = model if model is not None else _rebuild(keras, name, saved.tree)
        _assign(name, exported, saved.tree["variables"])
        if saved.ended:
            _finish(exported, saved.tree["memory"])
        return _write(exported, Path(path), suffix)
    finally:
        state.restore_streams(streams)


def parse_checkpoint(text: str) -> Which:
    """Parse the command line's name of a checkpoint: "latest", "best" or a step in digits, which becomes an int.

    Raises `InputError` for any other text.
    """
    for word in _WORDS:
        if text == word:
            return word
    if not text.isdecimal():
        raise InputError(
            f"{text!r} does not name a checkpoint.",
            "Use latest, best, or a step that this command lists: haversack runs show NAME",
        )
    return int(text)


def _step(checkpoints: Checkpoints, which: Which) -> int | None:
    """The step of a checkpoint, or None for the newest that is intact. Raises `NotFound`."""
    every = checkpoints.all()
    found = [one.step for one in every if which == "latest" or one.step == which or (which == "best" and one.best)]
    if not found:
        missing = f" of step {which}" if isinstance(which, int) else " of a best epoch's end" if every else ""
        next_step = f"List its checkpoints with: haversack runs show {checkpoints.name}"
        raise NotFound(f"The run {checkpoints.name} has no checkpoint{missing}.", next_step)
    return None if which == "latest" else found[-1]


def _rebuild(keras: Any, name: str, tree: dict[str, Any]) -> Any:
    """Build the model of the run `name` from the configuration in `tree`. Raises `TrainingError`."""
    next_step = "Build and compile it yourself, and pass it: haversack.runs.export(name, path, model=model)."
    if tree.get("architecture") is None:
        raise TrainingError(f"The model of {name} has no configuration to be built from.", next_step)
    try:
        return keras.saving.deserialize_keras_object(json.loads(tree["architecture"].tobytes()))
    except Exception as error:
        raise TrainingError(f"Keras cannot build the model of {name}: {_first_line(error)}.", next_step) from error


def _assign(name: str, model: Any, variables: dict[str, list[Any]]) -> None:
    """Assign saved weights and optimizer variables to `model`. Raises `TrainingError` if it is not the run's model."""
    from haversack.training.keras import state

    try:
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        state.assign(model, variables, (*state.WEIGHTS, *state.OPTIMIZER))
    except (AttributeError, ValueError) as error:
        raise TrainingError(
            f"The model differs from that of the run {name}: {_first_line(error)}.",
            "Build and compile it as for the training.",
        ) from error


def _finish(model: Any, attributes: list[dict[str, Any]]) -> None:
    """Change the weights as the end of `fit` does: apply moving averages, then restore EarlyStopping's best weights."""
    from haversack.training.keras.attributes import decode

    model.optimizer.finalize_variable_values(model.trainable_weights)
    for one in attributes:
        values = one["values"]
        if one["class"] == "EarlyStopping" and values.get("restore_best_weights") and values["best_weights"]:
            model.set_weights(decode(values["best_weights"]))


def _write(model: Any, path: Path, suffix: str) -> Path:
    with disk.replacing(path, suffix=suffix) as temporary:
        if suffix == ".keras":
            model.save(temporary)
        else:
            model.save_weights(temporary)
    return path


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ")
