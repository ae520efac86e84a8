"""What a checkpoint of a Lightning training holds, as parts: everything that decides what the next batch does.

Model, optimizers, schedulers, gradients that wait for more batches, precision, the callbacks' and the data module's
`state_dict`, what hooks add to Lightning's own checkpoint, attributes, counters and logged metrics. The random streams
are the loader's (`loader`), because they are needed to replay the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash

from haversack.training.lightning import progress
from haversack.training.lightning.attributes import ChangedAttributes, holders_of
from haversack.training.lightning.package import PACKAGES
from haversack.training.part import Part, capture_all, restore_all
from haversack.training.state_tree import decode, encode, stateful_part
from haversack.training.torch.parts import PendingGradients, part

_MODEL = "\0model"
"""Stands for the model's own state in what hooks made of Lightning's checkpoint."""
_ELSEWHERE = (
    "loops", "callbacks", "optimizer_states", "lr_schedulers", "hyper_parameters", "hparams_name", "hparams_type",
    "datamodule_hyper_parameters", "datamodule_hparams_name", "datamodule_hparams_type",
)  # fmt: skip
"""What Lightning's checkpoint has that other parts hold, and settings of the code."""


class TrainerState:
    """The state of a trainer. Made when a fit has its model and optimizers, before anything is trained or restored.

    `record` must be called before the first batch, and before `restore` except for that of a finished run.
    """

    def __init__(self, trainer: Any, model: Any, package: str) -> None:
        self._trainer = trainer
        self._model = model
        self._package = package
        self._gradients = PendingGradients([model], trainer.optimizers)
        self._own_parts = {"model": _required(part("model", model))}
        for number, optimizer in enumerate(trainer.optimizers, 1):
            self._own_parts[f"optimizer {number}"] = _required(part(f"optimizer {number}", optimizer))
        for number, config in enumerate(trainer.lr_scheduler_configs, 1):
            self._own_parts[f"scheduler {number}"] = stateful_part(f"scheduler {number}", config.scheduler)
        if trainer.precision_plugin.state_dict():
            self._own_parts["precision"] = stateful_part("precision", trainer.precision_plugin)
        self._own_parts["gradients"] = self._gradients.part()
        self._attributes = ChangedAttributes(model, [])

    def facts(self) -> dict[str, Any]:
        """The classes of the parts, and which parameters the model has."""
        shapes = [f"{name} {tuple(one.shape)} {one.dtype}" for name, one in self._model.named_parameters()]
        number = sum(one.numel() for one in self._model.parameters())
        fingerprint = xxhash.xxh3_64("\n".join(shapes).encode()).hexdigest()[:8]
        kinds = {name: one.kind for name, one in self._own_parts.items() if name != "gradients"}
        return kinds | {"parameters": f"{number} in {len(shapes)} tensors ({fingerprint})"}

    def record(self, loaders: list[Any]) -> None:
        """Remember the attributes as they are before the first batch; `loaders` are those of the training."""
        self._attributes.holders = holders_of(self._trainer, self._model, self._package, loaders)
        self._attributes.record()

    def begin_batch(self) -> None:
        self._gradients.begin_batch()

    def is_finite(self) -> bool:
        return all(one.is_finite() for one in self._own_parts.values())

    def capture(self) -> dict[str, Any]:
        trainer = self._trainer
        return {
            "parts": capture_all(self._own_parts),
            "callbacks": {one.state_key: encode(one.state_dict(), one.state_key) for one in trainer.callbacks},
            "data module": encode(trainer.datamodule.state_dict()) if trainer.datamodule is not None else {},
            "hooks": self._capture_hooks(),
            "attributes": self._attributes.capture(),
            "loops": progress.capture_loops(trainer),
            "logged": progress.capture_logged(trainer),
            "should stop": bool(trainer.should_stop),
        }

    def restore_callbacks(self, saved: Mapping[str, Any]) -> None:
        """Give callbacks and hooks their state, as Lightning does before a fit: some make groups of parameters then."""
        trainer, model = self._trainer, self._model
        if trainer.datamodule is not None and saved["data module"]:
            trainer.datamodule.load_state_dict(decode(saved["data module"]))
        if saved["hooks"]:
            checkpoint = self._lightnings_checkpoint(saved)
            for callback in trainer.callbacks:
                callback.on_load_checkpoint(trainer, model, checkpoint)
            model.on_load_checkpoint(checkpoint)
        for callback in trainer.callbacks:
            if state := saved["callbacks"].get(callback.state_key):
                state = decode(state, callback.state_dict())
                _keep_folder(trainer, callback, state)
                callback.load_state_dict(state)

    def restore(self, saved: Mapping[str, Any], steps: int | None = None) -> list[str]:
        """Restore everything, where it was captured; return lines for the user. `steps` as in `restore_loops`."""
        self.restore_callbacks(saved)
        lines = restore_all(self._own_parts, saved["parts"])
        self._attributes.restore(saved["attributes"])
        progress.restore_loops(self._trainer, saved["loops"], steps)
        progress.restore_logged(self._trainer, saved["logged"])
        self._trainer.should_stop = saved["should stop"]
        return lines

    def digest_tree(self) -> Any:
        """What a finished training is compared by: its parts."""
        return capture_all(self._own_parts)

    # Hooks that add to Lightning's own checkpoint, such as those of its averaging callbacks

    def _capture_hooks(self) -> dict[str, Any]:
        if not any(_adds_to_checkpoint(one) for one in (self._model, *self._trainer.callbacks)):
            return {}
        checkpoint = self._trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        own = self._model.state_dict()
        kept = {key: value for key, value in checkpoint.items() if key not in _ELSEWHERE}
        return {
            key: _MODEL if _is_same_state(value, own) else encode(value, f"checkpoint[{key!r}]")
            for key, value in kept.items()
        }

    def _lightnings_checkpoint(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        own = saved["parts"]["model"]["state"]
        return {
            key: decode(own if isinstance(value, str) and value == _MODEL else value)
            for key, value in saved["hooks"].items()
        } | {"callbacks": {key: decode(value) for key, value in saved["callbacks"].items() if value}}


def _required(found: Part | None) -> Part:
    assert found is not None
    return found


def _adds_to_checkpoint(value: Any) -> bool:
    """Whether a class other than Lightning's base has an `on_save_checkpoint`."""
    method = getattr(type(value), "on_save_checkpoint", None)
    bases = tuple(f"{package}.{name}" for package in PACKAGES for name in ("callbacks.callback", "core.hooks", "core."))
    return method is not None and not str(getattr(method, "__module__", "")).startswith(bases)


def _is_same_state(value: Any, own: Mapping[str, Any]) -> bool:
    """Whether `value` is the state dict `own`: the same names and the same memory."""
    if not isinstance(value, Mapping) or value.keys() != own.keys():
        return False
    return all(
        isinstance(one, torch.Tensor) and one.data_ptr() == own[name].data_ptr() and one.shape == own[name].shape
        for name, one in value.items()
    )


def _keep_folder(trainer: Any, callback: Any, state: Any) -> None:
    """Let a ModelCheckpoint go on in its folder of the session before.

    By default the folder is that of the logger, which takes a new version in each session. ModelCheckpoint forgets its
    best models if the folder is another one.
    """
    folder = state.get("dirpath") if isinstance(state, dict) else None
    current = getattr(callback, "dirpath", None)
    if not folder or not current or str(folder) == str(current) or not trainer.loggers:
        return
    version = trainer.loggers[0].version
    if Path(current).parent.name in (str(version), f"version_{version}") and Path(folder).is_dir():
        callback.dirpath = str(folder)
