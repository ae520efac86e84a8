"""What the world does to a training: a drive that goes away, a clock that jumps, a second session."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from haversack.training.checkpoints.checkpoints import Checkpoints
from tests.conftest import RunningHub

FAULTY = Path(__file__).parent / "programs" / "faulty.py"

# In place of libc's, which Python's time.time() asks: the wall clock jumps as soon as a file is there.
JUMP = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME && access(getenv("JUMPS"), F_OK) == 0) now->tv_sec += atol(getenv("JUMP"));
    return failed;
}
"""
DAY = 86400


class Training:
    """A session of the faulty training; what it says is read while it runs."""

    def __init__(self, folder: Path, where: str = "", *, environment: dict[str, str] | None = None, **options: object):
        command = [sys.executable, str(FAULTY), "run", where, json.dumps(options)]
        self.out = folder / f"{time.monotonic_ns()}.out"
        with open(self.out, "wb") as out:
            settings = {**os.environ, "HAVERSACK_DATA": str(folder / "data"), **(environment or {})}
            self.process = subprocess.Popen(command, env=settings, stdout=out, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        return self.out.read_text()

    @property
    def numbers(self) -> list[int]:
        """The batches of this session, counted over all sessions."""
        return [int(line.split()[1]) for line in self._lines()]

    @property
    def times(self) -> list[float]:
        """When each was trained, by the clock that the session saw."""
        return [float(line.split()[2]) for line in self._lines()]

    @property
    def batches(self) -> int:
        return len(self._lines())

    def _lines(self) -> list[str]:
        return [line for line in self.said.splitlines(keepends=True) if line.startswith("batch ") and line[-1] == "\n"]

    def wait_until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + 120
        while not happened():
            assert self.process.poll() is None or happened(), self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.05)

    def end(self) -> str:
        """Its last line."""
        self.process.wait(120)
        return self.said.splitlines()[-1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The last line of a training that nothing disturbs."""
    return Training(tmp_path_factory.mktemp("unbroken")).end()


def test_a_second_session_is_refused_and_one_that_takes_over_ends_the_training(tmp_path: Path, unbroken: str) -> None:
    first = Training(tmp_path, gate=12, opens=str(tmp_path / "opened"))
    first.wait_until(lambda: first.batches == 12 and latest(tmp_path) > 0)
    assert Training(tmp_path).end().startswith(f"RunTaken: The run run belongs to process {first.process.pid} on ")
    third = Training(tmp_path, take_over=True)
    assert third.end() == unbroken
    assert third.batches < 30  # it went on, and did not begin anew
    (tmp_path / "opened").touch()
    assert first.end().startswith(f"RunLost: The run run was taken over by process {third.process.pid} on ")


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler for the clock that jumps")
def test_a_clock_that_jumps_back_and_ahead_changes_nothing(tmp_path: Path, unbroken: str) -> None:
    library, reached = tmp_path / "jump.so", 0
    (tmp_path / "jump.c").write_text(JUMP)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "jump.c"], check=True)
    for jump in (-DAY, DAY):
        jumps = tmp_path / f"jumps {jump}"
        clock = {"LD_PRELOAD": str(library), "JUMP": str(jump), "JUMPS": str(jumps)}
        training = Training(tmp_path, environment=clock, gate=3, opens=str(jumps), pause=0.5)
        training.wait_until(lambda training=training: training.batches == 3)
        before = training.numbers[-1]
        jumps.touch()
        training.wait_until(lambda before=before: latest(tmp_path) > before)
        training.kill()
        assert abs(training.times[-1] - time.time() - jump) < DAY / 2
        assert training.numbers[0] == reached + 1
        reached = latest(tmp_path)
    last = Training(tmp_path)
    assert last.end() == unbroken
    assert last.numbers == [*range(reached + 1, 31)]


def latest(folder: Path) -> int:
    """The step of the newest checkpoint."""
    found = Checkpoints("run", folder / "data" / "runs").latest
    return found.step if found else 0


def test_a_training_goes_on_while_the_drive_is_away_and_ends_when_it_is_back(
    own_hub: RunningHub, tmp_path: Path
) -> None:
    enough = tmp_path / "enough"
    training = Training(tmp_path, "drive://runs", gate=1, opens=str(tmp_path), pause=0.05, until=str(enough))
    training.wait_until(lambda: any(own_hub.my_drive.glob("runs/run/*.safetensors")))
    own_hub.process.send_signal(signal.SIGKILL)
    own_hub.process.wait()
    training.wait_until(lambda: "replicated once it works again" in training.said)
    reached = training.batches
    training.wait_until(lambda: training.batches >= reached + 5)
    enough.touch()
    training.wait_until(lambda: "waiting up to 10 min" in training.said)
    back = _start_again(own_hub)
    try:
        assert training.end().startswith("weights ")
        assert training.said.count("replicated once it works again") == 1
        there = Checkpoints("run", "drive://runs").latest  # with a data folder of its own: another machine
        assert there is not None
        assert there.step == training.batches
    finally:
        back.terminate()
        back.wait(60)


def _start_again(hub: RunningHub) -> subprocess.Popen[bytes]:
    port = str(urlsplit(hub.url).port)
    command = [sys.executable, "-m", "haversack", "hub", "--root", str(hub.root), "--port", port]
    return subprocess.Popen(command, env={**os.environ, "HAVERSACK_TOKEN": hub.token})
