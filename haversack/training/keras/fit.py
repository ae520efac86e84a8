"""`fit`: Keras's `model.fit` on every core, for any number of samples, over as many sessions as it takes.

`fit` takes `model.fit`'s arguments and returns its history. If `distribute()` was not called, `fit` distributes over
all cores and moves a model that is already built onto them. With a `name` the training is a run: its state is saved
while it trains. Whatever ends its session (SIGKILL included), the same call in the next session resumes at the step
that the last checkpoint holds, and ends with the same bits as a training that was never interrupted. The module
`session` has the states of a run; `state`, `attributes` and `log_files` capture and restore what a checkpoint holds;
`data` orders the batches.

What `fit` does not do: it does not save state outside of the model, its callbacks and its data set, such as a variable
of the notebook that a callback increments. It cannot resume on a source without random access, such as a generator.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from haversack.errors import InputError, TrainingError
from haversack.training.devices import devices, import_keras

if TYPE_CHECKING:
    import keras

    from haversack.training.checkpoints.checkpoints import Checkpoints
    from haversack.training.keras.data import Source
    from haversack.training.keras.session import SavedTraining, TrainingSession

_KERAS_BATCH_SIZE = 32
"""Keras's default for arrays."""
_SEEDS = 2**63
_fitting: ContextVar[bool] = ContextVar("fitting", default=False)
_default_namer: Callable[[], str | None] = lambda: None  # noqa: E731


class FitOptions(TypedDict, total=False):
    """The options of Keras's `model.fit` besides `x` and `y`, with Keras's defaults.

    A data set below is a `keras.utils.PyDataset`, haversack's images, or another source that yields batches itself.
    """

    batch_size: int | None
    """The number of samples in a step, of all cores together. Default 32 for arrays; leave it out for a data set."""
    epochs: int
    """Train until this many epochs are done, those of earlier sessions included. Default 1."""
    verbose: Literal["auto"] | int
    """0 prints nothing, 1 a progress bar, 2 a line for each epoch. Default "auto", which mostly means 1."""
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.CallbackList | None
    """Callbacks to run. A run leaves BackupAndRestore out. Default None."""
    validation_split: float
    """The share, 0 to 1, of the samples that is kept for validation: the last ones, before shuffling. Default 0."""
    validation_data: Any
    """Data to validate on after an epoch: (x, y), (x, y, sample_weight) or a data set. It overrides `validation_split`.
    Default None."""
    shuffle: bool | Literal["batch"]
    """Whether to shuffle the samples of arrays, or the batches of a PyDataset, in each pass over the data. "batch"
    shuffles arrays within each batch only. Default True."""
    class_weight: Mapping[int, float] | None
    """The weight of each class in the loss, by class index. Default None: 1."""
    sample_weight: Any
    """The weight of each sample in the loss: an array of shape (samples,), or (samples, length) for sequences; for
    several outputs, one array each. Only for arrays. Default None: 1."""
    initial_epoch: int
    """The epoch, from 0, at which a new training begins; a run that resumes has its own. Default 0."""
    steps_per_epoch: int | None
    """The number of batches in an epoch. Default None: one pass over the data."""
    validation_steps: int | None
    """The number of batches in a validation. Default None: all."""
    validation_batch_size: int | None
    """The number of samples in a validation step. Default None: `batch_size`."""
    validation_freq: int | list[int]
    """Validate after every so many epochs, or after each of the listed epochs, counted from 1. Default 1."""


def fit(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    name: str | None = None,
    where: str | Path | None = None,
    restart: bool = False,
    take_over: bool = False,
    **options: Unpack[FitOptions],
) -> keras.callbacks.History:
    """Train a compiled `model` on all cores; in every other respect it is `model.fit(x, y, **options)`.

    With a name, the order of the data is a function of a seed (drawn from numpy's global stream when the run begins),
    the epoch and the step, instead of a stream of random numbers.

    Args:
        model: a compiled Keras model, built before or after `distribute()`.
        x: the samples: an array of shape (samples, …), a list or dict of arrays for several inputs, or a data set.
        y: the targets: an array of shape (samples, …), or a list or dict of them; None for a data set.
        name: the run's name. A run that was interrupted resumes. For a run that is finished, or that already has
            `epochs` epochs behind it, `fit` loads its weights and returns its history at once; with more `epochs` the
            run continues. Without a name nothing is saved, except in a notebook that haversack executes, which names
            its trainings itself. Data without random access (a generator) and several JAX processes are trained without
            checkpoints, and a printed line tells why.
        where: where the run's checkpoints are kept: a folder, or a URL that fsspec opens, in addition to this machine's
            data folder; see `haversack.Checkpoints`. By default this machine's data folder; if this machine's disk is
            lost with its session and a hub is configured, also `drive://haversack/runs` on that hub's drive.
        restart: rename the existing run to `NAME.before-N` and train from the beginning. In a job, one call restarts
            the run once, not again in each session of the job.
        take_over: take the run from a session that seems to be alive, which can then save no more.
        options: `batch_size`, `epochs`, `validation_split` and the others of `model.fit`; see `FitOptions`.

    Returns Keras's `History`, with the epochs of all sessions. A distribution that was set with
    `keras.distribution.set_distribution` is kept. A run in the main thread holds SIGINT and SIGTERM until the current
    step ends; then it saves its state, except during a validation, and the signal takes effect. A save that fails is
    printed and does not stop the training.

    Raises:
        InputError: `model` is not a Keras model, the data has no sample, or `name` is not a folder's name.
        TypeError: `model.fit` has no such option.
        ValueError: `model.fit` refuses the options, or the model is not compiled.
        TrainingError: model or data differ from those that the run began with, or the installed Keras cannot be used:
            it runs on another backend than JAX, or is a version whose trainings haversack cannot resume.
        RunTaken: another session owns the run and seems alive.
        RunLost: another session took the run over while this one trained.
        IntegrityError: the run has checkpoints, but none is intact.
        DiskFull: this machine's disk has no room to begin or to resume the run.
        ConnectionFailed: the store does not answer, and this machine has no checkpoint. Other errors of the store, such
            as `SignInError`, are raised likewise.
        ExtraMissing: Keras or JAX is not installed.
    """
    keras = import_keras()
    if not isinstance(model, keras.Model):
        raise InputError(
            f"haversack.fit trains a Keras model, and got {type(model).__name__} as its first argument.",
            "Write haversack.fit(model, x, y, epochs=…).",
        )
    from haversack.training.keras import support

    support.check()
    from haversack.training.keras import data

    cores = len(devices())
    if cores > 1 and _ensure_distribution():
        _distribute_model(model)
        _warn_if_indivisible(options.get("batch_size"), y is not None, cores)
    name = name or _default_namer()
    token = _fitting.set(True)
    try:
        if "validation_data" in options:
            options["validation_data"] = data.as_validation_data(options["validation_data"])
        if name is None or not model.compiled:
            return _fit_without_checkpoints(model, x, y, options)
        return _fit_run(model, x, y, options, name, where, restart, take_over)
    finally:
        _fitting.reset(token)


def is_fitting() -> bool:
    """Whether `fit` is running in this context (`contextvars`), so that a call of `model.fit` comes from `fit`."""
    return _fitting.get()


def name_unnamed(by: Callable[[], str | None]) -> None:
    """Let `by` name each later `fit` that is given no name; if it returns None, the `fit` has no name.

    `by` is also called for each `fit(restart=True)`; its result identifies that call in all sessions of a job. It
    replaces the function of an earlier call.
    """
    global _default_namer
    _default_namer = by


def _fit_without_checkpoints(model: keras.Model, x: Any, y: Any, options: FitOptions) -> keras.callbacks.History:
    from haversack.training.keras import data

    if data.is_random_access(x):
        # The data set has an order of its own and prefetches in that order.
        options = {**options, "shuffle": False}
    return model.fit(data.as_training_data(x), y, **options)


def _fit_run(
    model: keras.Model,
    x: Any,
    y: Any,
    options: FitOptions,
    name: str,
    where: str | Path | None,
    restart: bool,
    take_over: bool,
) -> keras.callbacks.History:
    """Train the run `name`: restore its last checkpoint if there is one, and save while it trains.

    Data that cannot be resumed on is trained without checkpoints, and the reason is printed.
    """
    from haversack.training import location
    from haversack.training.checkpoints.checkpoints import Checkpoints
    from haversack.training.console import print_line
    from haversack.training.interrupts import Interrupts
    from haversack.training.keras.session import TrainingSession
    from haversack.training.owned_run import rename_old_run

    arguments = _with_defaults(model, x, y, options)
    opened = _open_data(model, arguments)
    if isinstance(opened, str):
        print_line(f"{name}: trained without checkpoints: {opened}")
        return _fit_without_checkpoints(model, x, y, options)
    arguments["callbacks"] = _without_backups(arguments["callbacks"])
    source, facts = opened.source, opened.facts | _dependencies(model, opened.validation_data, arguments)
    where, notice = location.resolve(name, where)
    if notice:
        print_line(notice)
    restarted_by = _default_namer() if restart else None
    if restart:
        rename_old_run(name, where, take_over, restarted_by)
    checkpoints = Checkpoints(name, where, take_over=take_over)
    saved, finished = _restore_and_claim(checkpoints, facts, arguments["epochs"], model)
    source.seed = saved.seed if saved else _draw_seed()
    facts["restarted by"] = restarted_by or (saved.facts.get("restarted by") if saved else None)
    with Interrupts() as interrupts:
        session = TrainingSession(
            model,
            source,
            arguments["callbacks"],
            checkpoints,
            facts=facts,
            saved=saved,
            interrupts=interrupts,
            epochs=arguments["epochs"],
            steps=arguments["steps_per_epoch"],
            verbose=arguments["verbose"],
        )
        first_epoch = saved.position.epoch if saved else arguments["initial_epoch"]
        return _run_and_close(
            session,
            lambda: model.fit(
                source,
                epochs=arguments["epochs"],
                callbacks=session,
                validation_data=opened.validation_data,
                shuffle=False,
                initial_epoch=max(first_epoch, arguments["epochs"]) if finished else first_epoch,
                validation_steps=arguments["validation_steps"],
                validation_batch_size=arguments["validation_batch_size"] or arguments["batch_size"],
                validation_freq=arguments["validation_freq"],
            ),
        )


@dataclass(frozen=True)
class _OpenedData:
    """The data of a training that can be resumed: its batches, what to validate on, and the facts of a checkpoint."""

    source: Source
    validation_data: Any
    facts: dict[str, Any]


def _open_data(model: keras.Model, arguments: dict[str, Any]) -> _OpenedData | str:
    """Open the data in `arguments`, those of `model.fit` by name; or return why it cannot be resumed on, in words.

    Raises `InputError` if there is no sample.
    """
    from haversack.training.keras import data

    arrays = (arguments["x"], arguments["y"], arguments["sample_weight"])
    validation = arguments["validation_data"]
    reason = data.reason_not_seekable(arguments["x"], arrays, validation) or _reason_not_single()
    if reason:
        return reason
    try:
        if arguments["validation_split"] and validation is None:
            arrays, validation = data.split(arrays, arguments["validation_split"])
        source = data.open_source(arrays, arguments, model.steps_per_execution)
        return _OpenedData(source, validation, _facts(source, arguments, model))
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - arrays of any library may raise anything; Keras may still train on them
        first_line = (str(error).splitlines() or [""])[0]
        return f"its data cannot be read in an order of haversack's own ({type(error).__name__}: {first_line})"


def _restore_and_claim(
    checkpoints: Checkpoints, facts: dict[str, Any], epochs: int, model: keras.Model
) -> tuple[SavedTraining | None, bool]:
    """Restore the newest intact checkpoint, and claim the run unless it is finished.

    Returns the saved training, None for a new run, and whether it already has all `epochs`. Raises `TrainingError` if
    the data is not the run's, and `RunTaken` if another session owns the run.
    """
    from haversack.training.console import print_line
    from haversack.training.keras.session import SavedTraining, check_unchanged
    from haversack.training.owned_run import has_newer

    restored = checkpoints.restore()
    saved = SavedTraining.of(restored)
    if saved:
        for what in ("data", "compilation"):
            check_unchanged(checkpoints.name, what, saved.facts, facts)
        if "diverged" in saved.facts:
            saved = _before_divergence(checkpoints, saved, facts, model)
    if saved and saved.is_finished(epochs):
        print_line(f"{checkpoints.name}: {_reached(saved, epochs)}; its history and weights are loaded")
        return saved, True
    checkpoints.claim()
    if checkpoints.take_over and has_newer(checkpoints, restored):
        # The previous owner committed one more checkpoint between the restore and the claim; now it cannot.
        saved = SavedTraining.of(checkpoints.restore())
    return saved, False


def _before_divergence(
    checkpoints: Checkpoints, saved: SavedTraining, facts: dict[str, Any], model: keras.Model
) -> SavedTraining | None:
    """Return what a run is resumed from whose weights or loss were NaN or infinite in `saved`, and print why.

    That is the last good checkpoint before, None for a run that had none, if the optimizer has other settings now or
    the callbacks are others; else it is `saved`, since the training would only end so again. Raises `TrainingError` if
    there was none and the model has the weights of that training.
    """
    from haversack.training.console import print_line
    from haversack.training.keras import divergence, state
    from haversack.training.keras.session import SavedTraining, changes

    epoch, step = saved.facts["diverged"]
    since = f"{checkpoints.name}: weights or loss were NaN or infinite by epoch {epoch + 1}, step {step}"
    changed = [*changes(saved, facts).optimizer]
    if saved.facts.get("callbacks", facts["callbacks"]) != facts["callbacks"]:
        changed.append("other callbacks")
    if not changed:
        facts["diverged"] = saved.facts["diverged"]
        print_line(
            f"{since}, and with nothing changed they would be so again; to go on from before, {divergence.NEXT_STEP}"
        )
        return saved
    before = SavedTraining.of(checkpoints.restore(diverged=False))
    if before is None and model.built and not math.isfinite(state.largest_weight(model)):
        raise TrainingError(
            f"The run {checkpoints.name} has no checkpoint from before its weights were NaN or infinite.",
            "Build and compile the model again, so that it begins with other weights.",
        )
    where = f"from epoch {before.position.epoch + 1}, step {before.position.step}" if before else "from the beginning"
    print_line(f"{since}; with {'; '.join(changed)} it is trained {where}")
    return before


def _reached(saved: SavedTraining, epochs: int) -> str:
    """Why a `fit` of `epochs` has nothing left to do, in words."""
    if saved.ended:
        return "finished before"
    position = saved.position
    steps = f" and {position.step} steps" if position.step else ""
    return f"trained beyond epochs={epochs} before, {position.epoch} epochs{steps} so far"


def _run_and_close(session: TrainingSession, train: Callable[[], keras.callbacks.History]) -> keras.callbacks.History:
    """Call `train`, close the session with its outcome, and return what `train` returned."""
    failure = "failed"
    try:
        history = train()
        failure = ""
    except KeyboardInterrupt:
        failure = "interrupted"
        raise
    finally:
        session.close(failure)
    return history


def _with_defaults(model: keras.Model, x: Any, y: Any, options: FitOptions) -> dict[str, Any]:
    """All arguments of `model.fit` by name, with Keras's defaults. Raises `TypeError` for an unknown option."""
    bound = inspect.signature(type(model).fit).bind(model, x, y, **options)
    bound.apply_defaults()
    return dict(bound.arguments)


def _reason_not_single() -> str | None:
    """Why several processes train without checkpoints, in words for the user; None for a single process."""
    import jax

    return "several processes train together, and each would save its own part" if jax.process_count() > 1 else None


def _draw_seed() -> int:
    """A seed from numpy's global stream, which `keras.utils.set_random_seed` seeds."""
    import numpy as np

    return int(np.random.randint(_SEEDS, dtype=np.int64))


def _facts(source: Source, arguments: dict[str, Any], model: keras.Model) -> dict[str, Any]:
    """The facts that a checkpoint records: "data" must not change in a run, "machine" decides the last digits."""
    from haversack.training.keras import fingerprint

    weights = arguments["class_weight"]
    settings = {
        "steps_per_epoch": arguments["steps_per_epoch"],
        "steps_per_execution": model.steps_per_execution,
        "shuffle": arguments["shuffle"] if isinstance(arguments["shuffle"], str) else bool(arguments["shuffle"]),
        "class_weight": sorted([int(key), float(value)] for key, value in weights.items()) if weights else None,
    }
    return {"data": {**source.fingerprint(), **settings}, "machine": fingerprint.of_machine()}


def _dependencies(model: keras.Model, validation_data: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """The facts of what the training depends on and that is known before the model is built."""
    from haversack.training.keras import dependencies

    return {
        "compilation": dependencies.of_compilation(model),
        "optimizer": dependencies.of_optimizer(model.optimizer),
        "rate": dependencies.of_rate(model.optimizer),
        "validation": dependencies.of_validation(validation_data, arguments),
        "callbacks": [type(one).__name__ for one in arguments["callbacks"]],
    }


def _without_backups(callbacks: Any) -> list[Any]:
    """The callbacks as a list, without BackupAndRestore, which would load older weights over the restored ones."""
    import keras

    from haversack.training.console import print_line

    given = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else callbacks
    every = keras.tree.flatten(given) if given else []
    kept = [one for one in every if not isinstance(one, keras.callbacks.BackupAndRestore)]
    if len(kept) < len(every):
        print_line("BackupAndRestore is left out: this run resumes by itself, and BackupAndRestore repeats the epoch")
    return kept


def _ensure_distribution() -> bool:
    """Install `ExactDataParallel` unless the user has set a distribution; return whether it is the current one."""
    from keras import distribution

    from haversack.training.keras import batch

    if distribution.distribution() is None:
        batch.install()
    return batch.is_installed()


def _distribute_model(model: keras.Model) -> None:
    """Move the variables that were built before the distribution was set onto all devices, in place.

    If any moved, drop the compiled functions: they hold the old layouts.
    """
    variables = [*model.variables, *model.metrics_variables]
    if getattr(model, "optimizer", None) is not None:
        variables += model.optimizer.variables
    undistributed = [variable for variable in variables if variable._layout is None]
    for variable in undistributed:
        variable._initialize_layout()
        variable._direct_assign(variable._value)
    if undistributed:
        model.train_function = model.test_function = model.predict_function = None


def _warn_if_indivisible(batch_size: int | None, is_arrays: bool, cores: int) -> None:
    """Warn if full batches do not divide among the cores, so that several cores bring no speed."""
    size = batch_size or (_KERAS_BATCH_SIZE if is_arrays else None)
    if size is not None and size % cores:
        warnings.warn(
            f"Batches of {size} samples do not divide among {cores} cores, so each core computes all of them. "
            f"Use a batch_size that is a multiple of {cores}.",
            stacklevel=3,
        )
