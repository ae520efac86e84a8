"""What is trained once in processes of its own: the scenarios on one device and on eight, and the conversations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Results = dict[str, dict[str, Any]]
Conversations = dict[str, dict[str, Any]]
SCENARIOS = Path(__file__).with_name("scenarios.py")
CONVERSATIONS = Path(__file__).with_name("conversations.py")


@pytest.fixture(scope="session")
def trained() -> dict[int, Results]:
    """What each scenario returned, by number of devices."""
    started = {count: _start(count) for count in (1, 8)}
    # A hang is what the deadline is for: eager programs over simulated devices wait for each other.
    printed = {count: process.communicate(timeout=240)[0] for count, process in started.items()}
    assert all(process.returncode == 0 for process in started.values())
    return {count: json.loads(text) for count, text in printed.items()}


@pytest.fixture(scope="session")
def held(held_in: Path) -> Conversations:
    """What came of each conversation."""
    environment = {**os.environ, "HAVERSACK_DATA": str(held_in / "data")}
    command = [sys.executable, str(CONVERSATIONS), str(held_in)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=240, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def held_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the conversations."""
    return tmp_path_factory.mktemp("conversations")


def _start(devices: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen([sys.executable, str(SCENARIOS)], env=environment, stdout=subprocess.PIPE, text=True)
