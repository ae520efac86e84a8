"""What is trained once in processes of its own, for all tests that look at it, in whichever process those run: the
scenarios on one device and on eight, and the conversations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

LEAN = "import sys; sys.modules['sklearn'] = sys.modules['matplotlib'] = None\n"
"""What `programs/lean.py` does, for a program on the command line."""
Results = dict[str, dict[str, Any]]
Conversations = dict[str, dict[str, Any]]
SCENARIOS = Path(__file__).parent / "programs" / "scenarios.py"
CHANGES = Path(__file__).parent / "programs" / "changes.py"
CONVERSATIONS = Path(__file__).parent / "programs" / "conversations.py"


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the suite have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def trained(common: Path) -> dict[int, Results]:
    """What each scenario returned, by number of devices."""

    def train() -> str:
        started = {count: _start(count) for count in (1, 8)}
        # A hang is what the deadline is for: eager programs over simulated devices wait for each other.
        printed = {count: process.communicate(timeout=540)[0] for count, process in started.items()}
        assert all(process.returncode == 0 for process in started.values())
        return json.dumps({count: json.loads(text) for count, text in printed.items()})

    return {int(count): results for count, results in json.loads(_once(common / "trained.json", train)).items()}


@pytest.fixture(scope="session")
def held(held_in: Path) -> Conversations:
    """What came of each conversation."""

    def hold() -> str:
        held_in.mkdir()
        environment = {**os.environ, "HAVERSACK_DATA": str(held_in / "data")}
        command = [sys.executable, str(CONVERSATIONS), str(held_in)]
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, timeout=540, check=True
        ).stdout

    return json.loads(_once(held_in.with_suffix(".json"), hold))


@pytest.fixture(scope="session")
def changed(common: Path) -> Conversations:
    """What came of each change between two sessions of a run."""
    folder = common / "changes"

    def change() -> str:
        folder.mkdir()
        environment = {**os.environ, "HAVERSACK_DATA": str(folder / "data")}
        command = [sys.executable, str(CHANGES), str(folder)]
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, timeout=540, check=True
        ).stdout

    return json.loads(_once(folder.with_suffix(".json"), change))


@pytest.fixture(scope="session")
def held_in(common: Path) -> Path:
    """The folder of the conversations."""
    return common / "conversations"


def _once(file: Path, make: Callable[[], str]) -> str:
    with FileLock(f"{file}.lock"):
        if not file.exists():
            file.write_text(make())
        return file.read_text()


def _start(devices: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen([sys.executable, str(SCENARIOS)], env=environment, stdout=subprocess.PIPE, text=True)
