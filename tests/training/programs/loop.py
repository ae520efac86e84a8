"""A loop without Keras that is killed in tests: `python loop.py NAME WHERE FIRST LAST [KEEP]`.

Saves every step, in arrays that are used again, and prints the number of each that was committed.
"""

import os
import sys

import numpy as np

import haversack

SIZE = 300_000


def state(step, weights=None):
    """Everything in it follows from the step, so that a mixture of two steps shows."""
    weights = np.empty(SIZE) if weights is None else weights
    weights[:] = step
    return {"weights": weights, "counters": [step, (float(step), str(step))], "tail": np.full(7, step, np.int16)}


def is_whole(tree):
    step = tree["counters"][0]
    return (
        tree["counters"] == [step, (float(step), str(step))]
        and (tree["weights"] == step).all()
        and (tree["tail"] == step).all()
    )


if __name__ == "__main__":
    name, where, first, last = sys.argv[1], sys.argv[2] or None, int(sys.argv[3]), int(sys.argv[4])
    memory = np.empty(SIZE)
    if os.environ.get("HAVERSACK_CLIENTS"):
        from haversack.notebook.clients import filesystem

        filesystem.register()
    with haversack.Checkpoints(name, where) as checkpoints:
        for step in range(first, last + 1):
            checkpoints.save(step, state(step, memory), milestone=step == 2, wait=True)
            print(step, flush=True)
