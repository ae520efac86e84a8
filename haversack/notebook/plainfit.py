"""Durable plain `model.fit`: in a job's kernel, `keras.Model.fit` is routed through `haversack.fit`.

Runs in the kernel. A notebook written without haversack trains with `model.fit`. In a job's kernel each such call
becomes a run named by the job, the cell and the call's number within the cell (`tour-20261122-101500.cell-14.1`). The
name is the same in every session of the job and different in every other job. `haversack.fit` without a name gets one
in the same way.

A training that cannot be resumed exactly is trained from the beginning by Keras's own `fit`, without checkpoints, and a
line says why: its data have no random access (`tf.data`, generators, a torch DataLoader) or are drawn at random in each
session; Keras runs on another backend than JAX; the installed Keras is a version that haversack cannot resume with; or
the model is one of `tf_keras`, which is Keras 2 and which `TF_USE_LEGACY_KERAS` makes `tf.keras`. What holds for the
whole session is said once. Keras is patched only when a cell imports it, and only `keras.Model.fit`: a subclass with a
`fit` of its own keeps it. Nothing is patched outside a job's kernel or with `--plain`.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from haversack import settings
from haversack.errors import InputError, RunLost, RunTaken, TrainingError
from haversack.notebook import channel
from haversack.notebook.clients import interpreter

# The environment variable by which the parent passes `--plain` to the kernel.
PLAIN_VARIABLE = "HAVERSACK_PLAIN"
# The parent executes this code after the last cell; in the kernel it leaves no name in the notebook's namespace.
DELETE_CHECKPOINTS = "__import__('haversack.notebook.plainfit', fromlist=['delete_checkpoints']).delete_checkpoints()"
_STORE = "drive://haversack/runs"

# How backends are written in messages.
_BACKENDS = {"tensorflow": "TensorFlow", "torch": "PyTorch", "openvino": "OpenVINO", "numpy": "NumPy"}

# How many trainings the running cell has started.
_started = 0


def install(ipython: Any) -> None:
    """Patch `fit` of `keras.Model` and `tf_keras.Model` now, or as soon as they are imported.

    Does nothing outside a job or with `--plain`.

    `ipython` is the kernel's shell; its event before each cell restarts the count of the cell's trainings.
    """
    if channel.job_folder() is None or os.environ.get(PLAIN_VARIABLE):
        return
    ipython.events.register("pre_run_cell", lambda info: _reset_count())
    for name, patch in (("keras", _patch_fit), ("tf_keras", _patch_legacy_fit)):
        if name in sys.modules:
            patch(sys.modules[name])
        else:
            sys.meta_path.insert(0, _ImportHook(name, patch))


def delete_checkpoints() -> None:
    """Delete the checkpoints of the runs that this module named, on this disk and, with a named hub, on its drive.

    The parent calls it once the notebook is done, since no session will resume from them. Runs in the kernel, or in
    haversack's own Python if the clients are apart or the kernel has ended. Raises `HaversackError` if a store refuses
    or does not answer.
    """
    job = channel.job_folder()
    runs = settings.load().data / "runs"
    named = [] if job is None else [run for run in runs.glob(f"{job.name}.cell-*") if (run / "checkpoints").is_dir()]
    if not named:
        return
    from haversack.training.checkpoints.checkpoints import Checkpoints

    for run in named:
        with Checkpoints(run.name, store(), take_over=True) as checkpoints:
            for step in {checkpoint.step for checkpoint in checkpoints.all()}:
                checkpoints.delete(step)


class _ImportHook(MetaPathFinder):
    """A finder, first on `sys.meta_path`, that calls `patch` with the module `name` right after it is executed.

    The other finders still find and load the module. The hook stays installed until it is really imported, because
    many libraries only look up Keras's spec to see whether it is installed.
    """

    def __init__(self, name: str, patch: Callable[[Any], None]) -> None:
        self._name = name
        self._patch = patch

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_patch(module: ModuleType) -> None:
            load(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                self._patch(module)

        # Safe to assign: this loader object was created for this import alone.
        spec.loader.exec_module = load_and_patch  # type: ignore[method-assign]
        return spec


def _patch_fit(keras: Any) -> None:
    """Replace `keras.Model.fit`, and let `haversack.fit` name runs that are given no name.

    The replacement raises `RunTaken`, `RunLost` and the errors of the disk or the store. In all other cases in which
    haversack cannot train, it trains with Keras's own method.
    """
    from haversack.training.keras import fit as training

    model, keras_fit = keras.Model, keras.Model.fit

    @functools.wraps(keras_fit)
    def fit(self: Any, *arguments: Any, **named: Any) -> Any:
        overridden = type(self).fit is not fit
        if overridden or training.is_fitting():
            return keras_fit(self, *arguments, **named)
        reason = _reason_not_durable(keras)
        if reason:
            _say_not_durable(reason)
            return keras_fit(self, *arguments, **named)
        try:
            given = dict(inspect.signature(keras_fit).bind(self, *arguments, **named).arguments)
        except TypeError:
            return keras_fit(self, *arguments, **named)  # raises the error in Keras's words
        del given["self"]
        try:
            return training.fit(self, name=next_name(), where=store(), take_over=True, **given)
        except (RunTaken, RunLost):
            raise
        except (TrainingError, InputError) as error:
            # The user called plain `model.fit` and did not ask for durability, so its lack must not stop the training.
            _say(f"trained without checkpoints: {error.what}")
            return keras_fit(self, *arguments, **named)

    model.fit = fit
    training.name_unnamed(next_name)


def _patch_legacy_fit(tf_keras: Any) -> None:
    """Let `tf_keras.Model.fit` print that its trainings are not durable, and train as before."""
    keras_fit = tf_keras.Model.fit

    @functools.wraps(keras_fit)
    def fit(self: Any, *arguments: Any, **named: Any) -> Any:
        _say_not_durable("tf_keras is Keras 2, and haversack resumes trainings of Keras 3")
        return keras_fit(self, *arguments, **named)

    tf_keras.Model.fit = fit


def _reason_not_durable(keras: Any) -> str | None:
    """Why no training of this session can be resumed, in words; None if nothing stands against it."""
    backend = keras.backend.backend()
    if backend != "jax":
        return f"Keras runs on the {_BACKENDS.get(backend, backend)} backend, and haversack resumes trainings on JAX"
    from haversack.training.keras import support

    return support.reason_unsupported()


def _say_not_durable(reason: str) -> None:
    _say_once(f"not durable: {reason}. Keras's own fit trains, and in another session it begins anew")


def _say(text: str) -> None:
    print(f"haversack: {text}", file=sys.stderr, flush=True)


@functools.cache
def _say_once(text: str) -> None:
    """Print `text` in this session; a cell that trains in each session shows it in the final notebook."""
    _say(text)


def _reset_count() -> None:
    global _started
    _started = 0


def next_name() -> str | None:
    """Return the name of the next run of the running cell: `JOB.cell-CELL.NUMBER`, the number counted from 1."""
    global _started
    _started += 1
    job = channel.job_folder()
    assert job is not None
    cell = json.loads(Path(job, "job.json").read_text())["cell"]
    return f"{job.name}.cell-{cell}.{_started}"


def store() -> str | None:
    """Return where checkpoints are replicated: the drive of a named hub; None for the embedded hub, on this disk.

    In a kernel whose clients are apart, fsspec then opens the drive by them.
    """
    hub = os.environ.get("HAVERSACK_HUB")
    if not hub or hub == "embedded":
        return None
    if interpreter.is_apart():
        from haversack.notebook.clients import filesystem

        filesystem.register()
    return _STORE
