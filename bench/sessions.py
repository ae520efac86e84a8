"""What is left of a training's time when it is saved in rhythm, and when it is killed again and again.

`measure_rhythm` trains the same model for the same number of steps with `haversack.fit`, in turns with a name, so that
it is saved, and without one. What is compared is the time from the end of the first steps to the end of the last.

`measure_kills` kills a training with SIGKILL, again and again, and starts it anew. Start-up (Python, compiling,
restoring, up to the end of the session's first step) is counted apart. Of the rest, useful is what was neither repeated
nor lost to saves. Repeated is the time from the end of the last step that the newest checkpoint holds to the kill; the
time since that checkpoint was taken stands beside it. Lost to a save is by how much the step behind it took longer than
the steps of that place in the epoch do; what the writer takes of the cores later on is in `measure_rhythm`.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import trained

import haversack
from haversack import Checkpoints

WARM = 8
"""Steps before the clock runs."""


class Clock(keras.callbacks.Callback):
    """When each step ended."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ends.append(time.perf_counter())


def measure_rhythm(size: int, rounds: int, seconds: float, scratch: Path) -> dict[str, Any]:
    """Trainings of about `seconds`, in turns without and with saves."""
    model = trained.model_of(size)
    usual = _train(model, 40, None, scratch)[1]
    steps = WARM + max(WARM, int(seconds / usual))
    ratios, saves = [], []
    for number in range(rounds):
        taken = {}
        for name in (None, f"round-{number}") if number % 2 else (f"round-{number}", None):
            taken[name is not None] = _train(model, steps, name, scratch)[0]
        ratios.append(taken[True] / taken[False])
        saves.append(_saves(scratch, f"round-{number}"))
    return {
        "with saves / without": statistics.median(ratios),
        "in each round": ratios,
        "saves in each round": saves,
        "seconds of a training": seconds,
        "seconds of a step": usual,
    }


def _train(model: keras.Model, steps: int, name: str | None, scratch: Path) -> tuple[float, float]:
    """Seconds from the first steps to the last, and of the median step."""
    clock = Clock()
    arguments = {"batch_size": trained.BATCH, "verbose": 0, "callbacks": [clock]}
    with contextlib.redirect_stderr(io.StringIO()):
        haversack.fit(model, *trained.samples(steps), name=name, where=scratch, **arguments)
    ends = clock.ends[WARM - 1 :]
    return ends[-1] - ends[0], float(np.median(np.diff(ends)))


def _saves(scratch: Path, name: str) -> int:
    lines = (scratch / name / "log.jsonl").read_text().splitlines()
    return sum('"event": "save"' in line for line in lines)


@dataclass(frozen=True)
class Killed:
    """One session: when each of its steps ended, and how many were done in all by then; `at` is its end, `saved` the
    steps that the newest checkpoint held then, `since_save` how long before the kill that was taken, `saves` the steps
    that had a save before them."""

    ends: np.ndarray
    done: np.ndarray
    at: float
    saved: int
    since_save: float
    saves: list[int]

    @property
    def repeated(self) -> float:
        return float(self.at - self.ends[self.done == self.saved][0])

    @property
    def trained(self) -> float:
        return float(self.at - self.ends[0])

    @property
    def lost_to_saves(self) -> float:
        taken, steps = np.diff(self.ends), self.done[1:]
        places = steps % trained.STEPS
        usual = np.array([np.median(taken[places == place]) for place in range(trained.STEPS)])
        return float((taken - usual[places])[np.isin(steps, self.saves)].sum())


def measure_kills(size: int, kills: int, every: float, scratch: Path) -> dict[str, Any]:
    """Sessions that are killed `every` so many seconds after their first step."""
    sessions = [_session(size, every, scratch) for _ in range(kills)]
    lost = sum(session.repeated + session.lost_to_saves for session in sessions)
    return {
        "useful share": 1 - lost / sum(session.trained for session in sessions),
        "repeated": [session.repeated for session in sessions],
        "since the last save": [session.since_save for session in sessions],
        "lost to saves": [session.lost_to_saves for session in sessions],
        "saves": [len(session.saves) for session in sessions],
        "trained": [session.trained for session in sessions],
    }


def _session(size: int, seconds: float, scratch: Path) -> Killed:
    command = [sys.executable, trained.__file__, str(scratch), "--megabytes", str(size / 10**6), "--epochs", "1000000"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not _steps_of(process.pid, scratch):
        if process.poll() is not None:
            raise SystemExit("The training ended by itself.")
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    at, now = time.monotonic(), time.time()
    process.wait()
    latest = Checkpoints("run", scratch).latest
    assert latest is not None
    ends, done = (np.array(column) for column in zip(*_steps_of(process.pid, scratch), strict=True))
    return Killed(ends, done, at, latest.step, now - latest.when.timestamp(), _saves_of(process.pid, scratch))


def _saves_of(pid: int, scratch: Path) -> list[int]:
    """The steps that a process saved before, counted as they are done."""
    events = [json.loads(line) for line in (scratch / "run" / "log.jsonl").read_text().splitlines()]
    saves = [event for event in events if event["event"] == "save" and event["pid"] == pid]
    return [event["epoch"] * trained.STEPS + event["step"] + 1 for event in saves]


def _steps_of(pid: int, scratch: Path) -> list[tuple[float, int]]:
    file = scratch / "steps"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []  # the last one may have been cut off
    rows = [line.split() for line in lines]
    return [(float(end), int(done)) for number, end, done in rows if int(number) == pid]


def said(measured: dict[str, Any]) -> str:
    """The figures of either measurement in one paragraph."""
    values = {name: value if isinstance(value, list) else [value] for name, value in measured.items()}
    return "; ".join(f"{name} {', '.join(format(one, '.4g') for one in found)}" for name, found in values.items())
