"""Why a fit is trained without checkpoints, in words: what haversack cannot resume exactly is never saved."""

from __future__ import annotations

import inspect
from typing import Any

from haversack.training.lightning.package import module

_SEARCHES = ("LearningRateFinder", "BatchSizeFinder")


def reason(trainer: Any, model: Any, package: str) -> str | None:
    """Return why a fit of `model` cannot be resumed exactly, with what to do about it; None if it can."""
    base = module(package)
    if not isinstance(model, base.LightningModule):
        return "the model is no LightningModule of this package"  # Lightning raises its own error
    if trainer.world_size > 1:
        return f"{trainer.world_size} processes train together; Trainer(devices=1) is saved"
    if not isinstance(trainer.strategy, module(package, "strategies").SingleDeviceStrategy):
        return f"the strategy is {type(trainer.strategy).__name__}; Trainer(devices=1) without a strategy is saved"
    if trainer.fast_dev_run:
        return "fast_dev_run trains a few batches to find errors"
    if trainer.barebones:
        return "Trainer(barebones=True) leaves out what a run is saved by; a Trainer without it is saved"
    if trainer.reload_dataloaders_every_n_epochs:
        return "reload_dataloaders_every_n_epochs makes other data; give a loader that shuffles instead"
    if "dataloader_iter" in inspect.signature(model.training_step).parameters:
        return "training_step(dataloader_iter) fetches its batches itself; training_step(batch, batch_idx) is saved"
    for one in trainer.callbacks:
        names = [kind.__name__ for kind in type(one).__mro__]
        if any(name in _SEARCHES for name in names):
            return f"{names[0]} trains to search; set what it finds, and leave it out"
        if "StochasticWeightAveraging" in names:
            return "StochasticWeightAveraging changes the loop; WeightAveraging is saved"
    return None
