"""`fit`: Keras's `model.fit` on every core, for any number of samples, over as many sessions as it takes.

It takes `model.fit`'s arguments and returns its history. The cores are taken into use where `distribute()` was not
called, and a model that was built before they were is moved onto them as it is. With a `name` the training is a run: it
is saved while it goes on, and whatever ends its session (SIGKILL included), the same call in the next session goes on
at the step it had come to, to the bit what it would have been. How, stands in `session`; what is saved, in `state` and
`memory`; where batches come from, in `data`.

What it will not do: save what lives outside of the model, its callbacks and its data set, such as a variable of the
notebook that a callback counts in; or make a source exact that cannot be asked for its n-th batch.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haversack.errors import InputError
from haversack.training.devices import devices, import_keras

if TYPE_CHECKING:
    import keras

    from haversack.training.checkpoints.checkpoints import Checkpoints, Restored
    from haversack.training.keras.session import Saved

_KERAS_BATCH_SIZE = 32
_SEEDS = 2**63
_inside: ContextVar[bool] = ContextVar("inside", default=False)
_name_unnamed: Callable[[], str | None] = lambda: None  # noqa: E731


def fit(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    name: str | None = None,
    where: str | Path | None = None,
    restart: bool = False,
    take_over: bool = False,
    **arguments: Any,
) -> keras.callbacks.History:
    """Train a compiled `model` on all cores; `model.fit(x, y, **arguments)` in every other respect.

    Args:
        model: a compiled Keras model, built before or after `distribute()`.
        x, y: what `model.fit` takes: arrays with a sample per row, or a data set that yields batches.
        name: the run's name. A run that was cut off goes on where it was; one that is finished gives its history and
            its weights at once, and goes on when `epochs` has grown. Without a name nothing is saved, except in a
            notebook that haversack executes, which names its trainings itself.
        where: where the run's checkpoints are kept; see `haversack.Checkpoints`. Without it they are in this machine's
            data folder, and also on the drive of the hub that is named where this machine's disk goes with its session.
        restart: begin anew, and keep the run that there is under another name. In a job it is done once, not again in
            each of its sessions.
        take_over: take the run from a session that seems to be training it still.
        arguments: `batch_size` (of all cores together), `epochs`, `validation_split` and the others of `model.fit`.

    With a name, the order of the data is a function of a seed (drawn from numpy's stream when the run begins), the
    epoch and the step; `shuffle` and `steps_per_epoch` mean what they mean in Keras.

    Returns Keras's `History`, of all sessions. A distribution that was set with `keras.distribution.set_distribution`
    is kept. Raises `InputError` when `model` is no Keras model, `TypeError` for an argument that `model.fit` does not
    have, `TrainingError` when model or data are not those the run began with (`RunTaken`, `RunLost` when another
    session has it), and like `distribute()`.
    """
    keras = import_keras()
    if not isinstance(model, keras.Model):
        raise InputError(
            f"haversack.fit trains a Keras model, and got {type(model).__name__} first.",
            "Write haversack.fit(model, x, y, epochs=…).",
        )
    from haversack.training.keras import data

    cores = len(devices())
    if cores > 1 and _takes_all_cores():
        _lay_out(model)
        _note_whole_batches(arguments.get("batch_size"), y is not None, cores)
    name = name or _name_unnamed()
    token = _inside.set(True)
    try:
        if "validation_data" in arguments:
            arguments["validation_data"] = data.to_validate(arguments["validation_data"])
        if name is None or not model.compiled:
            return _fit_plainly(model, x, y, arguments)
        return _fit_run(model, x, y, arguments, name, where, restart, take_over)
    finally:
        _inside.reset(token)


def is_fitting() -> bool:
    """Whether `fit` is at work here: a `model.fit` that is called now is its own."""
    return _inside.get()


def name_unnamed(by: Callable[[], str | None]) -> None:
    """Let `by` name each fit that is given no name; None from it leaves the fit without one."""
    global _name_unnamed
    _name_unnamed = by


def _fit_plainly(model: Any, x: Any, y: Any, given: dict[str, Any]) -> Any:
    from haversack.training.keras import data

    if data.is_stepped(x):
        given = {**given, "shuffle": False}  # it has an order, in which its batches are ready before they are asked for
    return model.fit(data.as_keras_takes_it(x), y, **given)


def _fit_run(
    model: Any, x: Any, y: Any, given: dict[str, Any], name: str, where: Any, restart: bool, take_over: bool
) -> Any:
    from haversack.training import location
    from haversack.training.checkpoints.checkpoints import Checkpoints
    from haversack.training.interrupts import Interrupts
    from haversack.training.keras import data
    from haversack.training.keras.session import TrainingSession, say

    arguments = _bound(model, x, y, given)
    arrays = (x, y, arguments["sample_weight"])
    why = data.why_it_cannot_seek(x, arrays, arguments["validation_data"]) or _why_alone()
    if why:
        say(f"{name}: trained without checkpoints: {why}")
        return _fit_plainly(model, x, y, given)
    where, told = location.of(name, where)
    if told:
        say(told)
    restarted_by = _name_unnamed() if restart else None
    if restart:
        _set_aside(name, where, take_over, restarted_by)
    validation = arguments["validation_data"]
    if arguments["validation_split"] and validation is None:
        arrays, validation = data.split(arrays, arguments["validation_split"])
    source = data.open_source(arrays, arguments, model.steps_per_execution)
    facts = _facts(source, arguments, model)
    checkpoints = Checkpoints(name, where, take_over=take_over)
    saved, whole = _resumed(checkpoints, facts, arguments["epochs"])
    source.seed = saved.seed if saved else _drawn_seed()
    facts["restarted by"] = restarted_by or (saved.facts.get("restarted by") if saved else None)
    with Interrupts() as interrupts:
        session = TrainingSession(
            model,
            source,
            _without_backups(arguments["callbacks"]),
            checkpoints,
            facts=facts,
            saved=saved,
            interrupts=interrupts,
            epochs=arguments["epochs"],
            steps=arguments["steps_per_epoch"],
            verbose=arguments["verbose"],
        )
        begin = saved.position.epoch if saved else arguments["initial_epoch"]
        return _watched(
            session,
            lambda: model.fit(
                source,
                epochs=arguments["epochs"],
                callbacks=session,
                validation_data=validation,
                shuffle=False,
                initial_epoch=max(begin, arguments["epochs"]) if whole else begin,
                validation_steps=arguments["validation_steps"],
                validation_batch_size=arguments["validation_batch_size"] or arguments["batch_size"],
                validation_freq=arguments["validation_freq"],
            ),
        )


def _set_aside(name: str, where: str | Path | None, take_over: bool, restarted_by: str | None) -> None:
    """Keep the run `name` under another name, unless the same call of the same job did so in an earlier session."""
    from haversack.training import location
    from haversack.training.checkpoints.checkpoints import Checkpoints

    with Checkpoints(name, where, take_over=take_over) as before:
        latest = before.latest
        if latest is None or (restarted_by and latest.facts.get("restarted by") == restarted_by):
            return
        before.claim()
    location.rename_run(name, where)


def _resumed(checkpoints: Checkpoints, facts: dict[str, Any], epochs: int) -> tuple[Saved | None, bool]:
    """What a run goes on from, and whether it is all of it; where something is left, the run is this session's now."""
    from haversack.training.keras.session import Saved, check_same, say

    restored = checkpoints.restore()
    saved = Saved.of(restored)
    if saved:
        check_same(checkpoints.name, "data", saved.facts, facts)
        if saved.is_all_of(epochs):
            say(f"{checkpoints.name}: finished before; its history and weights are loaded")
            return saved, True
    checkpoints.claim()
    if checkpoints.take_over and _has_newer(checkpoints, restored):
        # The session that it was taken from came to one more; now it cannot.
        saved = Saved.of(checkpoints.restore())
    return saved, False


def _has_newer(checkpoints: Checkpoints, restored: Restored | None) -> bool:
    """Whether there is a checkpoint after the one that was restored, besides those that were passed over."""
    passed_over = {one.where for one in restored.passed_over} if restored else set()
    newest = next((one for one in reversed(checkpoints.all()) if one.where not in passed_over), None)
    return newest is not None and (restored is None or newest.id != restored.checkpoint.id)


def _watched(session: Any, train: Callable[[], Any]) -> Any:
    """What `train` returns; the session is closed whatever happens in it."""
    failed = "failed"
    try:
        history = train()
        failed = ""
    except KeyboardInterrupt:
        failed = "interrupted"
        raise
    finally:
        session.close(failed)
    return history


def _bound(model: Any, x: Any, y: Any, given: dict[str, Any]) -> dict[str, Any]:
    """All arguments of `model.fit`, those that were not given with Keras's defaults. Raises `TypeError` like it."""
    bound = inspect.signature(type(model).fit).bind(model, x, y, **given)
    bound.apply_defaults()
    return dict(bound.arguments)


def _why_alone() -> str | None:
    import jax

    return "several processes train together, and each would save its own part" if jax.process_count() > 1 else None


def _drawn_seed() -> int:
    """A seed from numpy's global stream, so that `keras.utils.set_random_seed` decides it too."""
    import numpy as np

    return int(np.random.randint(_SEEDS, dtype=np.int64))


def _facts(source: Any, arguments: dict[str, Any], model: Any) -> dict[str, Any]:
    """What has to stay as it is for a run to go on, and what its last digits depend on."""
    from haversack.training.keras import fingerprint

    weights = arguments["class_weight"]
    settings = {
        "steps_per_epoch": arguments["steps_per_epoch"],
        "steps_per_execution": model.steps_per_execution,
        "shuffle": arguments["shuffle"] if isinstance(arguments["shuffle"], str) else bool(arguments["shuffle"]),
        "class_weight": sorted([int(key), float(value)] for key, value in weights.items()) if weights else None,
    }
    return {"data": {**source.fingerprint(), **settings}, "machine": fingerprint.of_machine()}


def _without_backups(callbacks: Any) -> list[Any]:
    """The callbacks, without Keras's own way to go on after a stop, which would load older weights over ours."""
    import keras

    from haversack.training.keras.session import say

    given = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else callbacks
    every = keras.tree.flatten(given) if given else []
    kept = [one for one in every if not isinstance(one, keras.callbacks.BackupAndRestore)]
    if len(kept) < len(every):
        say("BackupAndRestore is left out: this run goes on by itself, and it would begin the epoch again")
    return kept


def _takes_all_cores() -> bool:
    """Whether our distribution is in force; it is put there unless the user has chosen another."""
    from keras import distribution

    from haversack.training.keras import batch

    if distribution.distribution() is None:
        batch.install()
    return batch.is_installed()


def _lay_out(model: keras.Model) -> None:
    """Move what was built before the distribution was set onto all devices, in place.

    Compiled steps are dropped where something moved: they hold the old places.
    """
    variables = [*model.variables, *model.metrics_variables]
    if getattr(model, "optimizer", None) is not None:
        variables += model.optimizer.variables
    before = [variable for variable in variables if variable._layout is None]
    for variable in before:
        variable._initialize_layout()
        variable._direct_assign(variable._value)
    if before:
        model.train_function = model.test_function = model.predict_function = None


def _note_whole_batches(batch_size: int | None, takes_arrays: bool, cores: int) -> None:
    """Say when no batch can be shared, so that the cores bring nothing."""
    size = batch_size or (_KERAS_BATCH_SIZE if takes_arrays else None)
    if size is not None and size % cores:
        warnings.warn(
            f"Batches of {size} samples do not divide among {cores} cores, so each core computes all of them. "
            f"Take a batch_size that is a multiple of {cores}.",
            stacklevel=3,
        )
