"""A checkpoint of `haversack.fit` as a file of Keras's own: `NAME.weights.h5` or `NAME.keras`.

A run keeps its model's configuration beside its variables, as the JSON that Keras writes into a `.keras` file. So the
model is built again from that, gets the checkpoint's values, and Keras saves it: whoever opens the file needs Keras and
nothing of ours. The last checkpoint of a training that is over gives the model as `fit` left it, with moving averages
in place and EarlyStopping's best weights put back; any other one gives it as it was at that step.

A model that Keras cannot build from its configuration (a class of the notebook's own, a Lambda layer) is to be given.
Code in a configuration is not run: Keras's safe mode stays on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from haversack import disk
from haversack.errors import InputError, NotFound, TrainingError
from haversack.training.checkpoints.checkpoints import Checkpoints
from haversack.training.devices import import_keras

if TYPE_CHECKING:
    pass

_KINDS = (".weights.h5", ".keras")

_Word = Literal["latest", "best"]
_WORDS: tuple[_Word, ...] = ("latest", "best")
Which = int | _Word
"""A checkpoint: the newest, that with the smallest loss of those saved at an epoch's end, or that after a step."""


def export(
    name: str, path: str | Path, where: str | Path | None = None, *, checkpoint: Which = "latest", model: Any = None
) -> Path:
    """Write a checkpoint of the run `name` as `path`, which ends in `.weights.h5` or `.keras`, complete or not at all.

    Args:
        where: where the run's checkpoints are kept; see `haversack.fit`.
        checkpoint: "latest", "best" or a step, counted over all epochs as `haversack runs show` lists them.
        model: the model, built and compiled as for the training, where Keras cannot build it from its configuration;
            it gets the checkpoint's values.

    Returns the file. Raises `InputError` for another ending, `NotFound` when there is no such run or checkpoint,
    `TrainingError` when the model cannot be built or is another one, and as `Checkpoints.restore`.
    """
    kind = next((kind for kind in _KINDS if str(path).endswith(kind)), None)
    if kind is None:
        raise InputError(f"{path} is neither weights nor a model.", "End its name in .weights.h5 or .keras.")
    keras = import_keras()
    from haversack.training.keras import state
    from haversack.training.keras.session import Saved

    checkpoints = Checkpoints(name, where)
    saved = Saved.of(checkpoints.restore(step=_step(checkpoints, checkpoint)))
    assert saved is not None
    streams = state.streams()  # building a model draws from them
    try:
        built = model if model is not None else _built(keras, name, saved.tree)
        _assign(name, built, saved.tree["variables"])
        if saved.ended:
            _end(built, saved.tree["memory"])
        return _written(built, Path(path), kind)
    finally:
        state.put_back_streams(streams)


def which(text: str) -> Which:
    """A checkpoint as it is named on the command line. Raises `InputError` for what names none."""
    for word in _WORDS:
        if text == word:
            return word
    if not text.isdecimal():
        raise InputError(
            f"{text!r} names no checkpoint.", "Say latest, best, or a step as in: haversack runs show NAME"
        )
    return int(text)


def _step(checkpoints: Checkpoints, which: Which) -> int | None:
    """The step to be restored, None for the newest that is whole."""
    every = checkpoints.all()
    found = [one.step for one in every if which == "latest" or one.step == which or (which == "best" and one.best)]
    if not found:
        said = f" of step {which}" if isinstance(which, int) else " of a best epoch's end" if every else ""
        next_step = f"See what it has with: haversack runs show {checkpoints.name}"
        raise NotFound(f"The run {checkpoints.name} has no checkpoint{said}.", next_step)
    return None if which == "latest" else found[-1]


def _built(keras: Any, name: str, tree: dict[str, Any]) -> Any:
    next_step = "Give one of its kind in Python: haversack.runs.export(name, path, model=model)."
    if tree.get("architecture") is None:
        raise TrainingError(f"The model of {name} has no configuration to be built from.", next_step)
    try:
        return keras.saving.deserialize_keras_object(json.loads(tree["architecture"].tobytes()))
    except Exception as error:
        said = str(error).partition("\n")[0].rstrip(". ")
        raise TrainingError(f"Keras cannot build the model of {name}: {said}.", next_step) from error


def _assign(name: str, model: Any, variables: dict[str, list[Any]]) -> None:
    from haversack.training.keras import state

    try:
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        state.assign(model, variables, (*state.WEIGHTS, *state.OPTIMIZER))
    except (AttributeError, ValueError) as error:
        said = str(error).partition("\n")[0].rstrip(". ")
        raise TrainingError(
            f"The model is another one than that of {name}: {said}.", "Build and compile it as for the training."
        ) from error


def _end(model: Any, memories: list[dict[str, Any]]) -> None:
    """What `fit` does to the weights when it ends, in its order."""
    from haversack.training.keras.attributes import decode

    model.optimizer.finalize_variable_values(model.trainable_weights)
    for one in memories:
        remembered = one["values"]
        if one["class"] == "EarlyStopping" and remembered.get("restore_best_weights") and remembered["best_weights"]:
            model.set_weights(decode(remembered["best_weights"]))


def _written(model: Any, path: Path, kind: str) -> Path:
    with disk.replacing(path, suffix=kind) as temporary:
        if kind == ".keras":
            model.save(temporary)
        else:
            model.save_weights(temporary)
    return path
