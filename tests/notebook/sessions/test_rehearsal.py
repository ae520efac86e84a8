"""Which training is killed for a rehearsal, and when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from haversack.notebook.sessions import rehearsal
from haversack.notebook.sessions.rehearsal import Rehearsal
from haversack.training.checkpoints.checkpoints import Checkpoints
from haversack.training.runs.log import RunLog


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs in which the job `train-1` trains one, which it has saved inside its second epoch."""
    monkeypatch.setattr(rehearsal, "_MAX_PULSE_AGE", 3600.0)
    monkeypatch.setattr(rehearsal, "_MIN_LOST", 0.0)
    monkeypatch.setenv("HAVERSACK_JOB", str(tmp_path / "jobs" / "train-1"))
    with Checkpoints("fit", tmp_path / "runs") as checkpoints:
        log = RunLog(checkpoints.folder)
        log.begin(10, None, None, steps=100)
        checkpoints.save(150, {"weights": np.zeros(1)}, wait=True)
        log.write("save", epoch=1, step=50, total=150)
    return tmp_path / "runs"


def beat(runs: Path, epoch: int, step: int) -> None:
    RunLog(runs / "fit").beat(3.0, epoch=epoch, step=step)


def test_a_training_of_the_job_is_killed_inside_an_epoch(runs: Path) -> None:
    beat(runs, epoch=2, step=20)
    assert Rehearsal(runs.parent / "jobs" / "train-1", runs, began=0.0).run_to_kill() == "fit"


def test_a_training_of_another_job_is_left_alone(runs: Path) -> None:
    beat(runs, epoch=2, step=20)
    assert Rehearsal(runs.parent / "jobs" / "train-2", runs, began=0.0).run_to_kill() is None


@pytest.mark.parametrize(("epoch", "step"), [(1, 60), (2, 0), (2, 90)])
def test_a_training_is_not_killed_early_or_between_epochs(runs: Path, epoch: int, step: int) -> None:
    beat(runs, epoch=epoch, step=step)
    assert Rehearsal(runs.parent / "jobs" / "train-1", runs, began=0.0).run_to_kill() is None
