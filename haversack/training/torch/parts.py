"""Modules, optimizers and other objects of PyTorch as parts of a checkpoint.

Everything is restored in place: a module's parameters keep their identity, so that the optimizer and a compiled model
still refer to them, and an optimizer's state is matched to its parameters by their order.

What `state_dict()` leaves out is saved too where training may change it: buffers that are not persistent, which
parameters are frozen, and gradients that wait for more batches to be accumulated. Where the code of the new session
sets another learning rate than that of the session that began the run, the code's counts, and a line says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from haversack.errors import TrainingError
from haversack.training.part import Part
from haversack.training.state_tree import decode, encode


def part(name: str, value: Any) -> Part | None:
    """Return the part for an object of PyTorch, or one with `state_dict` and `load_state_dict`; None for others.

    `name` is the user's name of it, for errors.
    """
    kind = type(value).__qualname__
    if isinstance(value, torch.nn.Module):
        module = ModuleState(name, value)
        return Part(kind, module.capture, module.restore, module.is_finite)
    if isinstance(value, torch.optim.Optimizer):
        optimizer = OptimizerState(name, value)
        return Part(kind, optimizer.capture, optimizer.restore)
    if isinstance(value, torch.Generator):
        return generator_part(value)
    if isinstance(value, torch.Tensor):
        return Part(kind, lambda: encode(value, name), lambda saved: _copy_into(name, value, saved))
    return None


def generator_part(generator: torch.Generator) -> Part:
    """Return the part for a random generator."""

    def restore(saved: Any) -> list[str]:
        generator.set_state(torch.from_numpy(saved.copy()))
        return []

    return Part("Generator", generator.get_state, restore)


class ModuleState:
    """The state of a module: its `state_dict`, and what that leaves out."""

    def __init__(self, name: str, module: torch.nn.Module) -> None:
        self._name = name
        self._module = module
        self._frozen_at_first = self._frozen()

    def capture(self) -> dict[str, Any]:
        saved = self._module.state_dict()
        rest = {name: buffer for name, buffer in self._module.named_buffers() if name not in saved}
        return {
            "state": encode(saved, self._name),
            "buffers": encode(rest, self._name),
            "frozen": self._frozen(),
            "frozen at first": self._frozen_at_first,
        }

    def restore(self, saved: dict[str, Any]) -> list[str]:
        """Set parameters and buffers; raises `TrainingError` if names or shapes are not the module's."""
        try:
            self._module.load_state_dict(decode(saved["state"], self._module.state_dict(), copied=False))
        except (RuntimeError, KeyError) as error:
            raise _other(self._name, error) from error
        buffers = dict(self._module.named_buffers())
        with torch.no_grad():
            for name, value in decode(saved["buffers"], copied=False).items():
                if name in buffers:
                    buffers[name].copy_(value)
        if saved["frozen at first"] != self._frozen_at_first:
            return ["which parameters are frozen was changed in the code, so the code's choice is used"]
        for name, parameter in self._module.named_parameters():
            parameter.requires_grad_(name not in saved["frozen"])
        return []

    def is_finite(self) -> bool:
        """Whether no parameter has NaN or infinity."""
        # The sum of an array with NaN or infinity is not finite either, and reads it once without a copy; a sum of
        # half-precision numbers may overflow by itself.
        values = [one.detach() for one in self._module.parameters() if not one.is_meta]
        return all(torch.isfinite(one.sum()) or bool(torch.isfinite(one).all()) for one in values)

    def _frozen(self) -> list[str]:
        return [name for name, parameter in self._module.named_parameters() if not parameter.requires_grad]


class OptimizerState:
    """The state of an optimizer: its `state_dict`, and the settings that the code gave it when the run began."""

    def __init__(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        self._name = name
        self._optimizer = optimizer
        self._at_first = [_settings(group) for group in optimizer.param_groups]

    def capture(self) -> dict[str, Any]:
        return {"state": encode(self._optimizer.state_dict(), self._name), "at first": encode(self._at_first)}

    def restore(self, saved: dict[str, Any]) -> list[str]:
        """Set moments and settings. Raises `TrainingError` if the parameters are others, or a setting was changed in
        the code while a scheduler computes from it."""
        state = decode(saved["state"], self._optimizer.state_dict())
        groups = self._optimizer.param_groups
        try:
            self._optimizer.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise _other(self._name, error) from error
        self._keep_groups(groups)
        self._keep_dtypes(state)
        return self._use_changed_settings(decode(saved["at first"]))

    def _keep_groups(self, groups: list[dict[str, Any]]) -> None:
        """Let the dicts of the parameter groups be those from before, to which the user's code may refer."""
        for before, loaded in zip(groups, self._optimizer.param_groups, strict=True):
            before.clear()
            before.update(loaded)
        self._optimizer.param_groups = groups

    def _keep_dtypes(self, state: dict[str, Any]) -> None:
        """Put back tensors that `load_state_dict` rounded to their parameter's dtype, such as moments of bfloat16."""
        numbers = [number for group in state["param_groups"] for number in group["params"]]
        parameters = [one for group in self._optimizer.param_groups for one in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            loaded = self._optimizer.state.get(parameter, {})
            for key, value in state["state"].get(number, {}).items():
                if isinstance(value, torch.Tensor) and value.dtype != loaded[key].dtype:
                    loaded[key] = value.to(loaded[key].device)

    def _use_changed_settings(self, at_first: list[dict[str, Any]]) -> list[str]:
        lines = []
        pairs = zip(at_first, self._at_first, self._optimizer.param_groups, strict=False)
        for before, now, group in pairs:
            for key in before:
                if key not in now or before[key] == now[key]:
                    continue
                if key == "lr" and "initial_lr" in group:
                    raise TrainingError(
                        f"{self._name} began this run with lr {before[key]} and has {now[key]} in the code, while a "
                        "scheduler computes the learning rate.",
                        "Set it back, or give the training another name.",
                    )
                group[key] = now[key]
                lines.append(f"{key} {before[key]}, now {now[key]} as in the code")
        self._at_first = [_settings(group) | now for group, now in zip(at_first, self._at_first, strict=False)]
        return lines


class PendingGradients:
    """The gradients of parameters that no optimizer has applied yet: those of a window of accumulation.

    After `optimizer.step()` gradients are of no use, and saving them would cost a third more. So they are saved only if
    some optimizer has not stepped since the last batch began.
    """

    def __init__(self, modules: Iterable[torch.nn.Module], optimizers: Iterable[torch.optim.Optimizer]) -> None:
        self._parameters = [one for module in modules for one in module.parameters()]
        self._optimizers = [*optimizers]
        self._stepped: set[int] = set()
        for optimizer in self._optimizers:
            optimizer.register_step_post_hook(lambda stepped, *_: self._stepped.add(id(stepped)))

    def part(self) -> Part:
        return Part("gradients", self._capture, self._restore)

    def begin_batch(self) -> None:
        """Note that a batch begins: none of the optimizers has stepped in it."""
        self._stepped.clear()

    def _capture(self) -> dict[int, Any]:
        if self._optimizers and len(self._stepped) == len(self._optimizers):
            return {}
        return {
            number: encode(one.grad, "gradients") for number, one in enumerate(self._parameters) if one.grad is not None
        }

    def _restore(self, saved: dict[int, Any]) -> list[str]:
        for number, one in enumerate(self._parameters):
            value = saved.get(number)
            one.grad = None if value is None else decode(value).to(one.device)
        return []


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    """The plain settings of a parameter group, such as `lr` and `weight_decay`."""
    return {
        key: list(value) if isinstance(value, (list, tuple)) else value
        for key, value in group.items()
        if key not in ("params", "initial_lr") and isinstance(value, (bool, int, float, str, list, tuple, type(None)))
    }


def _copy_into(name: str, tensor: torch.Tensor, saved: Any) -> list[str]:
    value = decode(saved, copied=False)
    if value.shape != tensor.shape:
        raise _other(name, ValueError(f"shape {tuple(tensor.shape)} instead of {tuple(value.shape)}"))
    with torch.no_grad():
        tensor.copy_(value)
    return []


def _other(name: str, error: Exception) -> TrainingError:
    reasons = [line.strip() for line in str(error).splitlines() if line.strip()]
    return TrainingError(
        f"{name} is not what this run began with: {' '.join(reasons)}",
        "Give this training another name, or begin again with restart=True, which renames the old run.",
    )
