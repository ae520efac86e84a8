"""A machine with GPUs: a stand-in for nvidia-smi on the PATH, which prints what files say."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

_PROGRAM = """#!/bin/sh
case "$1" in
    -L) cat "{folder}/list" ;;
    --query-gpu=uuid,memory.total,memory.used,driver_version) cat "{folder}/memory" ;;
    --query-compute-apps=gpu_uuid,pid) cat "{folder}/processes" ;;
    *) echo "unexpected: $*" >&2; exit 2 ;;
esac
"""


@dataclass(frozen=True)
class StandIn:
    """What nvidia-smi prints, in files; a test changes them at any time."""

    folder: Path

    def have(self, *lines: str) -> None:
        """Print these lines for `nvidia-smi -L`, as it does, and no memory or process in use."""
        (self.folder / "list").write_text("".join(f"{line}\n" for line in lines))
        self.use({})
        self.run({})

    def use(self, used: dict[str, str]) -> None:
        """Let these GPUs (UUID → MiB or what else it prints) use memory."""
        uuids = [f"GPU-{number}" for number in range(8)]
        rows = [f"{uuid}, 16384, {used.get(uuid, '3')}, 570.1" for uuid in uuids]
        (self.folder / "memory").write_text("\n".join(rows) + "\n")

    def run(self, processes: dict[str, list[int]]) -> None:
        """Let these processes compute, by UUID."""
        rows = [f"{uuid}, {pid}" for uuid, pids in processes.items() for pid in pids]
        (self.folder / "processes").write_text("".join(f"{row}\n" for row in rows))


def card(number: int) -> str:
    return f"GPU {number}: Tesla T4 (UUID: GPU-{number})"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A machine with two GPUs that nobody uses."""
    folder = tmp_path / "nvidia"
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(_PROGRAM.format(folder=folder))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    stand_in = StandIn(folder)
    stand_in.have(card(0), card(1))
    return stand_in
