"""Every boundary of a commit, with a process killed at it for real."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from haversack.training.checkpoints.checkpoints import Checkpoints
from tests.conftest import seeds
from tests.training.programs import loop

# Links are a claim, then a checkpoint a step: the fourth is that of step 3, and step 1 falls out after step 4.
KILLED_AT = {
    "before-snapshot:3": 2,
    "after-snapshot:3": 2,
    "before-write:4": 2,
    "mid-write:5": 2,
    "before-fsync:3": 2,
    "after-fsync:3": 2,
    "before-manifest:4": 2,
    "after-manifest:4": 2,
    "before-rename:4": 2,
    "after-rename:4": 3,
    "during-removal": 4,
    "after-removal:4": 4,
}


def started(folder: Path, first: int = 1, last: int = 6, failpoint: str = "", trail: str = "") -> subprocess.Popen[str]:
    environment = {**os.environ, "HAVERSACK_FAILPOINT": failpoint, "HAVERSACK_FAILPOINT_TRAIL": trail}
    command = [sys.executable, "-m", "tests.training.programs.loop", "run", str(folder), str(first), str(last)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("failpoint", "expected"), KILLED_AT.items(), ids=KILLED_AT)
def test_killed_there_the_newest_complete_state_is_restored(tmp_path: Path, failpoint: str, expected: int) -> None:
    process = started(tmp_path, failpoint=failpoint)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    run = Checkpoints("run", tmp_path)
    restored = run.restore()
    assert restored is not None
    assert (restored.step, restored.passed_over) == (expected, [])
    assert loop.is_whole(restored.tree)
    assert restored.step >= int(printed.split()[-1])


@pytest.mark.parametrize("failpoint", ["mid-write:5", "during-removal"])
def test_the_next_session_goes_on_and_leaves_no_rest(tmp_path: Path, failpoint: str) -> None:
    started(tmp_path, failpoint=failpoint).communicate(timeout=60)
    process = started(tmp_path, first=5, last=9)
    process.communicate(timeout=60)
    assert process.returncode == 0
    run = Checkpoints("run", tmp_path)
    assert [checkpoint.step for checkpoint in run.all()][-3:] == [7, 8, 9]
    assert not [path for path in (run.folder / "checkpoints").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("seed", seeds(2, 18))
def test_killed_at_random_nothing_that_was_committed_is_lost(tmp_path: Path, seed: int) -> None:
    process = started(tmp_path, last=100_000)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(random.Random(seed).uniform(0.0, 0.3))
    process.kill()
    printed = process.stdout.read().split()
    process.wait()
    restored = Checkpoints("run", tmp_path).restore()
    assert restored is not None
    assert loop.is_whole(restored.tree)
    assert restored.step >= int(printed[-1] if printed else 1)
    assert restored.passed_over == []


def test_a_trail_tells_every_boundary_in_its_order(tmp_path: Path) -> None:
    process = started(tmp_path, last=1, trail=str(tmp_path / "trail"))
    process.communicate(timeout=60)
    passed = [line.split() for line in (tmp_path / "trail").read_text().splitlines()]
    assert {int(pid) for pid, _, _ in passed} == {process.pid}
    writer = [point for _, thread, point in passed if thread.startswith("haversack-checkpoint")]
    assert list(dict.fromkeys(writer)) == [
        "before-write", "mid-write", "before-fsync", "after-fsync", "before-manifest", "after-manifest",
        "before-rename", "after-rename", "after-removal",
    ]  # fmt: skip


def test_without_the_variable_nothing_dies(tmp_path: Path) -> None:
    process = started(tmp_path, last=2)
    process.communicate(timeout=60)
    assert process.returncode == 0
