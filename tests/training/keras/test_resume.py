"""A notebook's trainings, killed and run again from the top, end as if nothing had happened, to the bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from haversack import runs

NOTEBOOK = Path(__file__).parents[1] / "programs" / "notebook.py"
TRAININGS = ["arrays", "data_set", "augmented", "read_ahead"]
ASPECTS = ["weights", "optimizer", "metrics", "history", "epochs", "batches", "counted", "drawn", "csv", "counters"]
KILLS = [
    "arrays batch 8",
    "arrays validation 2",
    "arrays epoch 4",
    "data_set batch 5",
    "augmented batch 8",
    "read_ahead batch 9",
]
RANDOM_KILLS = 2  # make soak has fifty
COMPILED = "arrays data_set"


@dataclass
class Life:
    """A notebook's sessions up to its end: what it came to, and what each session printed."""

    folder: Path
    result: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    killed: int = 0


@dataclass
class Lives:
    """Every notebook that the tests look at, each lived once, two at a time."""

    folder: Path
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))
    started: dict[str, Future[Life]] = field(default_factory=dict)

    def start(self, name: str, kills: list[str | float], *, devices: int = 1, last: int = 0, only: str = "") -> None:
        """Sessions on `devices` devices, the last one on `last` where that is given."""
        counts = [devices] * len(kills) + [last or devices]
        self.started[name] = self.pool.submit(self._live, self.folder / name, kills, counts, only)

    def __getitem__(self, name: str) -> Life:
        return self.started[name].result()

    def _live(self, folder: Path, kills: list[str | float], counts: list[int], only: str) -> Life:
        folder.mkdir()
        life = Life(folder)
        for kill, devices in zip([*kills, ""], counts, strict=True):
            process = self._session(folder, "" if isinstance(kill, float) else kill, devices, only)
            if isinstance(kill, float):
                _kill_after(process, folder, kill)
            life.said.append(process.communicate(timeout=540)[0])
            life.killed += process.returncode == -signal.SIGKILL
            assert process.returncode in (0, -signal.SIGKILL), life.said[-1]
        life.result = json.loads((folder / "result.json").read_text())
        return life

    def _session(self, folder: Path, kill: str, devices: int, only: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "HAVERSACK_DATA": str(folder / "data"),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        command = [sys.executable, str(NOTEBOOK), str(folder), kill, only]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )


def _kill_after(process: subprocess.Popen[str], folder: Path, seconds: float) -> None:
    """Kill it `seconds` after a training of this session began; what has ended by then has ended."""
    log = folder / "sessions"
    before = log.stat().st_size if log.exists() else 0
    while process.poll() is None and not (log.exists() and log.stat().st_size > before):
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()


def _losses(life: Life) -> list[float]:
    return [float.fromhex(loss) for loss in life.result["arrays"]["history"]["loss"]]


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Lives:
    found = Lives(tmp_path_factory.mktemp("lives"))
    moments = random.Random(20)
    found.start("unbroken", [])
    found.start("killed", [*KILLS])
    # The first ones come soon, so that they find a training also on a machine that is done with it in seconds.
    seconds = [moments.uniform(0.0, 1.0 + 0.75 * number) for number in range(RANDOM_KILLS)]
    found.start("killed at random", [*seconds], only=COMPILED)
    found.start("eight", [], devices=8, only="arrays")
    found.start("eight killed", ["arrays batch 7", "arrays validation 3"], devices=8, only="arrays")
    found.start("eight, then one", ["arrays batch 17"], devices=8, last=1, only="arrays")
    return found


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("training", TRAININGS)
def test_a_killed_training_ends_as_the_unbroken_one(lives: Lives, training: str, aspect: str) -> None:
    assert lives["killed"].result[training][aspect] == lives["unbroken"].result[training][aspect]


@pytest.mark.parametrize("training", TRAININGS)
def test_the_random_streams_are_where_they_would_be(lives: Lives, training: str) -> None:
    assert lives["killed"].result[training]["streams"] == lives["unbroken"].result[training]["streams"]


def test_every_kill_was_one(lives: Lives) -> None:
    assert lives["killed"].killed == len(KILLS)


@pytest.mark.parametrize("training", COMPILED.split())
def test_kills_at_random_moments_change_nothing(lives: Lives, training: str) -> None:
    assert lives["killed at random"].killed > 0
    assert lives["killed at random"].result[training] == lives["unbroken"].result[training]


def test_eight_devices_go_on_to_the_bit(lives: Lives) -> None:
    assert lives["eight killed"].killed == 2
    assert lives["eight killed"].result == lives["eight"].result


def test_fewer_devices_go_on_with_the_same_trajectory(lives: Lives) -> None:
    moved, stayed = (_losses(lives[name]) for name in ("eight, then one", "eight"))
    np.testing.assert_allclose(moved, stayed, rtol=1e-4)


def test_fewer_devices_are_said(lives: Lives) -> None:
    said = lives["eight, then one"].said[-1]
    assert "the last digits may differ, because of devices 8, now 1" in said


def test_a_csv_has_each_epoch_once(lives: Lives) -> None:
    rows = (lives["killed"].folder / "arrays.csv").read_text().splitlines()
    epochs = lives["killed"].result["arrays"]["epochs"]
    assert [row.split(",")[0] for row in rows] == ["epoch", *map(str, epochs)]


def test_early_stopping_did_stop(lives: Lives) -> None:
    assert len(lives["unbroken"].result["arrays"]["epochs"]) < 14


def test_a_session_first_says_where_it_goes_on(lives: Lives) -> None:
    assert any("arrays: resumed at epoch " in said and " s repeated" in said for said in lives["killed"].said[1:])


def test_a_finished_training_is_not_repeated(lives: Lives) -> None:
    assert "haversack: arrays: finished before" in lives["killed"].said[-1]


def test_a_later_fit_without_the_name_trains_its_epoch(lives: Lives) -> None:
    assert lives["killed"].result["one more epoch"] == 1


def test_the_run_shows_its_sessions(lives: Lives) -> None:
    run = runs.show("arrays", lives["killed"].folder / "data" / "runs")
    assert run.finished
    assert [session.outcome for session in run.sessions] == ["killed", "killed", "killed", "finished"]
    assert [epoch.number for epoch in run.epochs] == lives["killed"].result["arrays"]["epochs"]
