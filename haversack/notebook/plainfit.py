"""Plain `model.fit` in a job's kernel, made durable: it is routed through `haversack.fit`.

A notebook that never heard of haversack trains with `model.fit`. In our kernel that call becomes a run of its own,
named by the job, the cell and its place among the cell's trainings (`tour-20261122-101500.cell-14.1`), which is the
same in every session of the job and in no other job. `haversack.fit` without a name is given one in the same way.

A training that is not what it was in the session before (its data are drawn anew each time, say) cannot go on: it is
trained from its beginning, without checkpoints, and says so. Keras is changed only once a cell imports it, and only the
method of `keras.Model` itself: a class that has a `fit` of its own keeps it, and so do trainings on another backend
than JAX. Nothing is changed outside of a job's kernel, nor where the user asked for `--plain`.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from haversack import settings
from haversack.errors import RunLost, RunTaken, TrainingError
from haversack.notebook import channel

PLAIN = "HAVERSACK_PLAIN"
STORE = "drive://haversack/runs"
CLEAR = "__import__('haversack.notebook.plainfit', fromlist=['clear']).clear()"

# How many trainings the running cell has begun.
_begun = 0


def start(ipython: Any) -> None:
    """Route the trainings of this kernel, which belongs to a job."""
    if channel.job() is None or os.environ.get(PLAIN):
        return
    ipython.events.register("pre_run_cell", lambda info: _begin_cell())
    if "keras" in sys.modules:
        _route(sys.modules["keras"])
    else:
        sys.meta_path.insert(0, _WhenImported())


def clear() -> None:
    """Delete the checkpoints of the runs that were named here: the job is done, so nothing goes on from them."""
    job = channel.job()
    runs = settings.load().data / "runs"
    named = [] if job is None else [run for run in runs.glob(f"{job.name}.cell-*") if (run / "checkpoints").is_dir()]
    if not named:
        return
    from haversack.training.checkpoints.checkpoints import Checkpoints

    for run in named:
        with Checkpoints(run.name, _store(), take_over=True) as checkpoints:
            for step in {checkpoint.step for checkpoint in checkpoints.all()}:
                checkpoints.delete(step)


class _WhenImported(MetaPathFinder):
    """Asked first for `keras`: has whoever finds it load it, and routes its trainings once it is loaded.

    It stays until then, since many only ask whether there is a Keras.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_route(module: ModuleType) -> None:
            load(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                _route(module)

        # The loader was made for this import alone.
        spec.loader.exec_module = load_and_route  # type: ignore[method-assign]
        return spec


def _route(keras: Any) -> None:
    from haversack.training.keras import fit as training

    model, train = keras.Model, keras.Model.fit

    @functools.wraps(train)
    def fit(self: Any, *arguments: Any, **named: Any) -> Any:
        own = type(self).fit is not fit
        if own or training.is_fitting() or keras.backend.backend() != "jax":
            return train(self, *arguments, **named)
        given = dict(inspect.signature(train).bind(self, *arguments, **named).arguments)
        del given["self"]
        try:
            return training.fit(self, name=_next_name(), where=_store(), take_over=True, **given)
        except (RunTaken, RunLost):
            raise
        except TrainingError as error:
            # Such as data that are drawn anew in every session: whoever asked for nothing must not be refused.
            print(f"haversack: trained without checkpoints: {error.what}", file=sys.stderr, flush=True)
            return train(self, *arguments, **named)

    model.fit = fit
    training.name_unnamed(_next_name)


def _begin_cell() -> None:
    global _begun
    _begun = 0


def _next_name() -> str | None:
    """The name of the next training of the running cell."""
    global _begun
    _begun += 1
    job = channel.job()
    assert job is not None
    cell = json.loads(Path(job, "job.json").read_text())["cell"]
    return f"{job.name}.cell-{cell}.{_begun}"


def _store() -> str | None:
    """Where the runs' checkpoints go besides this machine's disk: to a named hub; the embedded one is on that disk."""
    hub = os.environ.get("HAVERSACK_HUB")
    return STORE if hub and hub != "embedded" else None
