"""What nvidia-smi shows, and what CUDA_VISIBLE_DEVICES allows of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.errors import JobError
from haversack.gpus.nvidia_smi import Gpu, present, visible
from tests.gpus.conftest import StandIn, card

DIVIDED = (
    card(0),
    "  MIG 1g.5gb      Device  0: (UUID: MIG-aa)",
    "  MIG 2g.10gb     Device  1: (UUID: MIG-ab)",
    card(1),
)


def test_gpus_have_memory_and_processes(machine: StandIn) -> None:
    machine.use({"GPU-1": "2048"})
    machine.run({"GPU-1": [7, 8]})
    first, second = present()
    assert (first.index, first.uuid, first.name, first.driver) == (0, "GPU-0", "Tesla T4", "570.1")
    assert (first.memory, first.used, first.processes, first.is_idle) == (16 << 30, 3 << 20, (), True)
    assert (second.used, second.processes, second.is_idle) == (2 << 30, ("7", "8"), False)


def test_memory_in_use_without_a_process_counts(machine: StandIn) -> None:
    """In a container, processes of others are not shown."""
    machine.use({"GPU-0": "2048", "GPU-1": "600"})
    assert [gpu.is_idle for gpu in present()] == [False, True]


@pytest.mark.parametrize("printed", ["[N/A]", "[Insufficient Permissions]", "[Not Supported]"])
def test_memory_that_is_not_shown_is_unknown(machine: StandIn, printed: str) -> None:
    machine.use({"GPU-0": printed})
    assert present()[0].used is None
    assert present()[0].is_idle


def test_a_divided_gpu_stands_for_its_mig_devices(machine: StandIn) -> None:
    machine.have(*DIVIDED)
    assert [(gpu.index, gpu.uuid, gpu.name) for gpu in present()] == [
        (0, "MIG-aa", "Tesla T4 MIG 1g.5gb"),
        (0, "MIG-ab", "Tesla T4 MIG 2g.10gb"),
        (1, "GPU-1", "Tesla T4"),
    ]


def test_without_the_program_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert present() == []


def test_a_program_that_fails_is_named(machine: StandIn) -> None:
    (machine.folder / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed.'\nexit 9\n")
    with pytest.raises(JobError, match=r"nvidia-smi fails: NVIDIA-SMI has failed\. Run nvidia-smi by hand"):
        present()


GPUS = [Gpu(0, "GPU-aaaa1111", ""), Gpu(1, "GPU-bbbb2222", ""), Gpu(2, "MIG-cc", ""), Gpu(2, "MIG-cd", "")]


@pytest.mark.parametrize(
    ("variable", "chosen"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("1,0", [1, 0]),
        ("0,7,1", [0]),  # as in CUDA: what follows an invalid entry does not count
        ("0,-1,1", [0]),
        ("0,0", [0]),
        ("GPU-bbbb2222", [1]),
        (" GPU-bb , 0", [1, 0]),
        ("GPU-", []),
        ("2", [2, 3]),
        ("MIG-cd", [3]),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(variable: str | None, chosen: list[int]) -> None:
    assert visible(GPUS, variable) == [GPUS[number] for number in chosen]
