"""Whether a loop counts its batches from 0: `enumerate(run)` and `zip(…, run)` do, also in an epoch that is resumed.

Such a count would be wrong in the rest of a resumed epoch, and with it what depends on it, such as a window of
accumulation. Nothing tells an iterator who iterates over it, so the garbage collector is asked: an `enumerate` or `zip`
refers to the pass, or to a generator that iterates over the loop, as `tqdm` does.
"""

from __future__ import annotations

import gc
from types import FrameType, GeneratorType
from typing import Any


def counts_from_zero(loop: Any, frame: FrameType) -> bool:
    """Return whether an `enumerate` or `zip` iterates over the pass of `loop` whose generator runs in `frame`."""
    counters = [one for one in gc.get_objects() if type(one) in (enumerate, zip)]
    return any(_iterates(inner, loop, frame) for counter in counters for inner in gc.get_referents(counter))


def _iterates(iterator: Any, loop: Any, frame: FrameType) -> bool:
    if isinstance(iterator, tuple):  # zip refers to its iterators through a tuple
        return any(_iterates(one, loop, frame) for one in iterator)
    if not isinstance(iterator, GeneratorType) or iterator.gi_frame is None:
        return False
    return iterator.gi_frame is frame or any(value is loop for value in iterator.gi_frame.f_locals.values())
