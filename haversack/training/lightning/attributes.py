"""The plain attributes of a module, its callbacks and its data, saved in a checkpoint and restored from it.

A `state_dict` has parameters and buffers only. Programs keep more: a list of the losses of an epoch, the best accuracy,
a moving average in a callback without a `state_dict`, and every metric of torchmetrics, whose counts are attributes. So
an attribute that training has changed since the session's first batch is saved: numbers, texts, tensors, arrays, random
generators, modules and optimizers, and lists and dicts of plain values. What training has not changed is a setting, and
the code's value counts.

Not saved are attributes that refer to the model's own parameters, and objects of other classes (files, functions).
Lightning's own classes are left out, because their `state_dict` has what counts, except the names in `_OF_LIGHTNING`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xxhash

from haversack.errors import InputError, TrainingError
from haversack.training import batches, streams
from haversack.training.lightning.package import PACKAGES, module
from haversack.training.part import Part
from haversack.training.state_tree import decode, encode, stateful_part
from haversack.training.torch.parts import part

_OF_LIGHTNING = {
    "ModelCheckpoint": {"_last_global_step_saved", "_last_checkpoint_saved", "_defer_save_until_validation"},
    "WeightAveraging": {"_latest_update_epoch"},
    "LearningRateMonitor": {"lrs", "last_momentum_values", "last_weight_decay_values"},
}
"""Private attributes of Lightning's callbacks that their `state_dict` lacks."""
_ONLY_SHOW = ("ProgressBar", "ModelSummary", "DeviceStatsMonitor", "Timer")
_LARGEST_HASHED = 16 << 20
"""Of larger arrays, in bytes, evenly spaced numbers are hashed."""
_LARGEST_OF_DATA = 1000
"""The most elements of a list, dict or tensor of a data set or data module: larger ones are the data."""


@dataclass(frozen=True)
class Holder:
    """An object whose attributes are saved.

    Attributes:
        name: for people.
        value: the object.
        excluded: names of attributes that are not saved.
        only: if not None, the only names that are.
        is_data: whether large attributes are data and not state.
    """

    name: str
    value: Any
    excluded: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    is_data: bool = False

    def names(self) -> list[str]:
        found = vars(self.value) if hasattr(self.value, "__dict__") else {}
        return [name for name in found if name not in self.excluded and (self.only is None or name in self.only)]


@dataclass
class ChangedAttributes:
    """Captures and restores the attributes of `holders`; `model` is the module whose parameters are saved elsewhere.

    `_first` has a digest of each attribute at the session's first batch; `record` sets it before the state of an
    earlier session is restored. `_own` are the addresses of the model's own tensors.
    """

    model: torch.nn.Module
    holders: list[Holder]
    _first: dict[str, dict[str, str]] = field(default_factory=dict)
    _own: set[int] = field(default_factory=set)

    def record(self) -> None:
        """Remember the current values as those that the code set."""
        self._own = self._own_tensors()
        self._first = {
            holder.name: {name: _digest(state) for name, _, state in self._states(holder)} for holder in self.holders
        }

    def capture(self) -> dict[str, Any]:
        """Return the state of each attribute that has changed since `record`, by the holder's and its own name."""
        self._own = self._own_tensors()
        found: dict[str, Any] = {}
        for holder in self.holders:
            first = self._first.get(holder.name, {})
            changed = {
                name: {"kind": one.kind, "state": state}
                for name, one, state in self._states(holder)
                if _digest(state) != first.get(name)
            }
            if changed:
                found[holder.name] = changed
        return {"changed": found, "modes": self._modes()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Set the attributes to what `capture` returned. Raises `TrainingError` for one that has no object to fill."""
        self._own = self._own_tensors()
        for holder in self.holders:
            for name, one in saved["changed"].get(holder.name, {}).items():
                self._restore_attribute(holder, name, one)
        for name, one in self.model.named_modules():
            one.training = name not in saved["modes"]

    def _restore_attribute(self, holder: Holder, name: str, saved: Mapping[str, Any]) -> None:
        if saved["kind"] == "plain":
            current = getattr(holder.value, name, None)
            _set(holder.value, name, current, decode(saved["state"], current))
            return
        found = self._part(holder, name)
        if found is None or found.kind != saved["kind"]:
            raise TrainingError(
                f"{holder.name}.{name} was a {saved['kind']} when the run was saved, and is none at the first batch.",
                "Make it in setup() or on_fit_start(), or begin again with restart=True, which renames the old run.",
            )
        found.restore(saved["state"])

    def _states(self, holder: Holder) -> Iterator[tuple[str, Part, Any]]:
        """Yield name, part and state of each attribute that can be saved."""
        for name in holder.names():
            found = self._part(holder, name)
            if found is None:
                continue
            try:
                yield name, found, found.capture()
            except InputError:
                continue  # it holds an object that no checkpoint can hold, such as a file or a function

    def _part(self, holder: Holder, name: str) -> Part | None:
        value = vars(holder.value).get(name)
        if isinstance(value, torch.nn.Module):
            is_own = isinstance(holder.value, torch.nn.Module) or any(one is value for one in self.model.modules())
            return None if is_own or holder.is_data else part(name, value)
        if isinstance(value, (torch.optim.Optimizer, torch.Generator)):
            return part(name, value)
        if (generator := streams.generator_part(value)) is not None:
            return generator
        if hasattr(value, "state_dict") and hasattr(value, "load_state_dict") and not holder.is_data:
            return None if _is_of_lightning(value) else stateful_part(f"{holder.name}.{name}", value)
        if callable(value) or (holder.is_data and _size(value) > _LARGEST_OF_DATA):
            return None
        if any(tensor.data_ptr() in self._own for tensor in _tensors(value)):
            return None
        return Part("plain", lambda: encode(value, f"{holder.name}.{name}"), lambda saved: [])

    def _modes(self) -> list[str]:
        """The modules that are in evaluation mode, by name."""
        return [name for name, one in self.model.named_modules() if not one.training]

    def _own_tensors(self) -> set[int]:
        """The addresses of the model's parameters and buffers."""
        found = {one.data_ptr() for one in [*self.model.parameters(), *self.model.buffers()]}
        return found - {0}


def holders_of(trainer: Any, model: Any, package: str, loaders: list[Any]) -> list[Holder]:
    """Return the objects of a fit whose attributes are saved: modules, callbacks, data module and data sets."""
    base = module(package)
    internal = frozenset(vars(base.LightningModule())) | frozenset(vars(torch.nn.Module()))
    found = [Holder(f"model.{name}".rstrip("."), one, internal) for name, one in model.named_modules()]
    found += [_of_callback(number, one) for number, one in enumerate(trainer.callbacks)]
    if trainer.datamodule is not None:
        internal = frozenset(vars(base.LightningDataModule()))
        found.append(Holder("data module", trainer.datamodule, internal, is_data=True))
    for number, loader in enumerate(loaders):
        data = getattr(loader, "dataset", None)
        while data is not None:
            found.append(Holder(f"data {number} {type(data).__qualname__}", data, is_data=True))
            data = getattr(data, "dataset", None)  # such as a Subset's
    return found


def _of_callback(number: int, callback: Any) -> Holder:
    name = f"{type(callback).__qualname__} {number}"
    kinds = [kind.__name__ for kind in type(callback).__mro__]
    if any(kind in kinds for kind in _ONLY_SHOW):
        return Holder(name, callback, only=frozenset())
    known = frozenset().union(*(names for kind, names in _OF_LIGHTNING.items() if kind in kinds))
    if _is_of_lightning(callback):
        return Holder(name, callback, only=known)
    if any(_is_lightnings(kind) and kind.__name__ != "Callback" for kind in type(callback).__mro__):
        return Holder(name, callback, only=known | {one for one in vars(callback) if not one.startswith("_")})
    return Holder(name, callback)


def _is_of_lightning(value: Any) -> bool:
    return _is_lightnings(type(value))


def _is_lightnings(kind: type) -> bool:
    return kind.__module__.startswith(tuple(f"{package}." for package in PACKAGES))


def _set(holder: Any, name: str, current: Any, value: Any) -> None:
    """Set an attribute; a dict or list of its own keeps its identity, since other objects may refer to it."""
    if isinstance(current, dict) and isinstance(value, dict):
        current.clear()
        current.update(value)
    elif isinstance(current, list) and isinstance(value, list):
        current[:] = value
    else:
        device = current.device if isinstance(current, torch.Tensor) else None
        value = value.to(device) if device is not None and isinstance(value, torch.Tensor) else value
        object.__setattr__(holder, name, value)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (list, tuple, set)):
        for one in value:
            yield from _tensors(one)


def _size(value: Any) -> int:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.numel() if isinstance(value, torch.Tensor) else value.size
    try:
        return len(value)
    except TypeError:
        return 1


def _digest(tree: Any) -> str:
    hasher = xxhash.xxh3_64()
    _update(hasher, tree)
    return hasher.hexdigest()


def _update(hasher: xxhash.xxh3_64, tree: Any) -> None:
    """Feed a state to `hasher`, with the types and lengths that tell equal bytes apart."""
    if isinstance(tree, Mapping):
        hasher.update(f"dict{len(tree)}".encode())
        for key, one in tree.items():
            hasher.update(repr(key).encode())
            _update(hasher, one)
    elif isinstance(tree, (list, tuple)):
        hasher.update(f"{type(tree).__name__}{len(tree)}".encode())
        for one in tree:
            _update(hasher, one)
    elif isinstance(tree, (torch.Tensor, np.ndarray)):
        array = tree.detach().cpu().numpy() if isinstance(tree, torch.Tensor) else tree
        hasher.update(f"{array.dtype}{array.shape}".encode())
        hasher.update(array.tobytes() if array.nbytes <= _LARGEST_HASHED else batches.digest(array).encode())
    else:
        hasher.update(f"{type(tree).__name__}{tree!r}".encode())
