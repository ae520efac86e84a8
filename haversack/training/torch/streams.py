"""PyTorch's global random streams, on the CPU and on accelerators, as parts of a checkpoint."""

from __future__ import annotations

from typing import Any

import torch

from haversack.training.part import Part
from haversack.training.torch.parts import generator_part


def parts() -> dict[str, Part]:
    """Return the global streams by name; those of accelerators only where this process uses one."""
    found = {"torch": generator_part(torch.default_generator)}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["torch.cuda"] = Part("cuda", _cuda_states, _set_cuda_states)
    return found


def _cuda_states() -> list[Any]:
    return list(torch.cuda.get_rng_state_all())


def _set_cuda_states(saved: list[Any]) -> list[str]:
    if len(saved) != torch.cuda.device_count():
        return [f"there were {len(saved)} GPUs and are {torch.cuda.device_count()}, so other numbers are drawn on them"]
    torch.cuda.set_rng_state_all([torch.from_numpy(state.copy()) for state in saved])
    return []
