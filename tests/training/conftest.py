"""The scenarios, trained once on one device and once on eight simulated ones, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Results = dict[str, dict[str, Any]]
SCENARIOS = Path(__file__).with_name("scenarios.py")


@pytest.fixture(scope="session")
def trained() -> dict[int, Results]:
    """What each scenario returned, by number of devices."""
    started = {count: _start(count) for count in (1, 8)}
    # A hang is what the deadline is for: eager programs over simulated devices wait for each other.
    printed = {count: process.communicate(timeout=240)[0] for count, process in started.items()}
    assert all(process.returncode == 0 for process in started.values())
    return {count: json.loads(text) for count, text in printed.items()}


def _start(devices: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen([sys.executable, str(SCENARIOS)], env=environment, stdout=subprocess.PIPE, text=True)
