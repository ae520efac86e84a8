"""Durable plain `Trainer.fit` of Lightning: in a job's kernel it is routed through `training.lightning`.

Runs in the kernel. As with `model.fit` of Keras (`plainfit`), each call becomes a run named by the job, the cell and
the call's number within the cell. What cannot be resumed exactly is trained by Lightning alone, and a line says why.
Lightning is patched only when a cell imports it. Nothing is patched outside a job's kernel or with `--plain`.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from haversack.notebook import channel, plainfit
from haversack.notebook.import_hook import ImportHook

_MODULES = ("lightning.pytorch.trainer.trainer", "pytorch_lightning.trainer.trainer")


def install() -> None:
    """Patch the `Trainer` of both packages now, or as soon as they are imported; nothing outside a job."""
    if channel.job_folder() is None or os.environ.get(plainfit.PLAIN_VARIABLE):
        return
    sys.meta_path.insert(0, ImportHook(dict.fromkeys(_MODULES, _patch)))
    for name in _MODULES:
        if name in sys.modules:
            _patch(sys.modules[name])


def _patch(trainer_module: Any) -> None:
    """Replace `Trainer.fit`. The replacement raises `RunTaken`, `RunLost` and the errors of the disk or the store."""
    trainer, lightnings_fit = trainer_module.Trainer, trainer_module.Trainer.fit

    @functools.wraps(lightnings_fit)
    def fit(self: Any, *arguments: Any, **named: Any) -> Any:
        from haversack.training.lightning import fit as training

        plain = functools.partial(lightnings_fit, self)
        if training.is_fitting():
            return plain(*arguments, **named)
        name = plainfit.next_name()
        assert name is not None
        return training.durable_fit(
            self, plain, arguments, named, name=name, where=plainfit.store(), take_over=True, strict=False
        )

    trainer.fit = fit
