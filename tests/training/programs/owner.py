"""A session that owns a run: saves a step for each line it is sent, and prints what came of it.

`python -m tests.training.programs.owner NAME WHERE [take]`.
"""

import sys

import haversack
from tests.training.programs.loop import state

if __name__ == "__main__":
    checkpoints = haversack.Checkpoints(sys.argv[1], sys.argv[2], take_over=sys.argv[3:] == ["take"])
    for line in sys.stdin:
        try:
            if line.strip() == "claim":
                checkpoints.claim()
            else:
                checkpoints.save(int(line), state(int(line)), wait=True)
            print("done", flush=True)
        except haversack.errors.HaversackError as error:
            print(f"{type(error).__name__}: {error}", flush=True)
