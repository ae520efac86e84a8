"""Random streams as parts of a checkpoint: Python's and numpy's global ones, which a process shares, and generators.

JAX has no global stream. Those of PyTorch are in the room `torch`.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from haversack.training.part import Part


def parts() -> dict[str, Part]:
    """Return the global streams of Python and numpy by name."""
    return {
        "python": Part("random", lambda: python_state(random), lambda saved: set_python_state(random, saved)),
        "numpy": Part("numpy.random", lambda: np.random.get_state(legacy=False), _set_global_state),
    }


def generator_part(value: Any) -> Part | None:
    """Return the part for a random generator of Python or numpy; None for anything else."""
    kind = type(value).__qualname__
    if isinstance(value, np.random.Generator):
        return Part(kind, lambda: value.bit_generator.state, lambda saved: _set_bits(value.bit_generator, saved))
    if isinstance(value, np.random.RandomState):
        return Part(kind, lambda: value.get_state(legacy=False), lambda saved: _set_state(value, saved))
    if isinstance(value, random.Random):
        return Part(kind, lambda: python_state(value), lambda saved: set_python_state(value, saved))
    return None


def python_state(stream: Any) -> dict[str, Any]:
    """Return the state of a `random.Random` (or of the module) as a tree: the words as an array, which is smaller."""
    version, words, gauss = stream.getstate()
    return {"version": version, "words": np.array(words, np.uint64), "gauss": gauss}


def set_python_state(stream: Any, saved: dict[str, Any]) -> list[str]:
    """Set the state of a `random.Random` (or of the module) to what `python_state` returned; return no line."""
    stream.setstate((saved["version"], tuple(saved["words"].tolist()), saved["gauss"]))
    return []


def _set_global_state(saved: dict[str, Any]) -> list[str]:
    np.random.set_state(saved)
    return []


def _set_bits(bits: Any, saved: dict[str, Any]) -> list[str]:
    bits.state = saved
    return []


def _set_state(stream: np.random.RandomState, saved: dict[str, Any]) -> list[str]:
    stream.set_state(saved)
    return []
