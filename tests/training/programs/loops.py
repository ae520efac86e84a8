"""Loops without PyTorch that are killed in tests: `python loops.py FOLDER KIND…`, as `tests/frameworks/loop.py`.

A session is a process of its own, forked from this one.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

import haversack
from haversack.training.loops import loop

loop.RHYTHM = loop.Rhythm(first=0.0, share=0.0, shortest=0.0, largest_share=0.0)
STEPS, EPOCHS = 7, 3


class Drawn:
    """Batches that draw from the global streams whenever they are made."""

    def __iter__(self):
        order = np.random.permutation(STEPS)
        for index in order:
            yield np.array([index, random.random(), np.random.random()])

    def __len__(self):
        return STEPS


def endless():
    """Numbers of one iterator, which has a single pass."""
    while True:
        yield np.array([np.random.random(), random.random(), 1.0])


def train(kind, folder, kill):
    """Train one session, which kills itself in the batch number `kill` of all sessions, if not 0."""
    random.seed(1)
    np.random.seed(1)
    weights, own, seen = np.zeros(3), np.random.default_rng(3), []
    source = endless() if kind == "iterator" else Drawn()
    given = {"name": kind, "where": folder, "own": own, "seen": seen}
    given |= {"state": {"weights": weights}} if kind == "state" else {"weights": weights}
    run = haversack.resumable(source, **given)
    count = range(EPOCHS) if kind == "range" else run.epochs(EPOCHS)
    for _ in count:
        for i, batch in run.enumerate():
            wait_for_save(run)
            noise = own.random() + np.random.random() + random.random()
            seen.append(float(batch.sum()))
            if len(seen) == kill:
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "state":
                run.state = {"weights": run.state["weights"] + batch * noise}
            else:
                weights += batch * noise
            if kind == "iterator" and i + 1 == STEPS:
                break
        if kind == "range":
            seen.append("epoch")
    if kind == "state":
        weights = run.state["weights"]
    rest = [random.random(), float(np.random.random()), float(own.random())]
    run.close()
    return hashlib.sha256(weights.tobytes() + json.dumps([seen, rest]).encode()).hexdigest()


def wait_for_save(run):
    """Let every step be saved, so that kills find checkpoints inside epochs also where steps take microseconds."""
    while run._run.checkpoints.saving:
        time.sleep(0.001)


def session(kind, folder, kill):
    """Run `train` in a process of its own; return its exit status, negative for a signal, and what it printed."""
    folder.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(folder / "printed", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
        try:
            (folder / "result").write_text(train(kind, folder, kill))
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the test shows what was printed
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, (folder / "printed").read_text()


if __name__ == "__main__":
    root, moments, found = Path(sys.argv[1]), random.Random(2), {}
    for kind in sys.argv[2:]:
        kills = sorted(moments.sample(range(2, STEPS * EPOCHS), 3))
        lives = {}
        for name, at in (("unbroken", []), ("killed", kills)):
            sessions = [session(kind, root / f"{kind}-{name}", kill) for kill in [*at, 0]]
            result = root / f"{kind}-{name}" / "result"
            lives[name] = {
                "result": result.read_text() if result.exists() else "",
                "status": [status for status, _ in sessions],
                "printed": [text for _, text in sessions],
            }
        found[kind] = {**lives, "kills": kills}
    print(json.dumps(found))
