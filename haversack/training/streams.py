"""The random streams that a whole process shares: Python's and numpy's global ones, as parts of a checkpoint.

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
        "numpy": Part("numpy.random", lambda: np.random.get_state(legacy=False), _set_numpy_state),
    }


def python_state(stream: Any) -> dict[str, Any]:
    """Return the state of a `random.Random` (or of the module) as a tree: the words as an array, which is smaller."""
    version, words, gauss = stream.getstate()
    return {"version": version, "words": np.array(words, np.uint64), "gauss": gauss}


def set_python_state(stream: Any, saved: dict[str, Any]) -> list[str]:
    """Set the state of a `random.Random` (or of the module) to what `python_state` returned; return no line."""
    stream.setstate((saved["version"], tuple(saved["words"].tolist()), saved["gauss"]))
    return []


def _set_numpy_state(saved: dict[str, Any]) -> list[str]:
    np.random.set_state(saved)
    return []
