from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from haversack import place


def test_kaggle_is_known_by_its_environment() -> None:
    assert place.here({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}) == "kaggle"


def test_a_terminal_is_the_rest_also_with_jupyter_imported() -> None:
    import ipykernel.kernelapp  # noqa: F401

    assert place.here({}) == "terminal"


def test_a_folder_in_memory_does_not_outlive_the_session(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if subprocess.run(["stat", "-f", "-c", "%T", memory], capture_output=True, text=True).stdout.strip() != "tmpfs":
        pytest.skip("no file system in memory here")
    assert not place.disk_outlives_session(memory / "not" / "there" / "yet")


@pytest.mark.parametrize(
    ("root", "outlives"), [("ext4 /dev/sda1 rw", True), ("overlay overlay rw", False), ("btrfs /dev/sda1 rw", True)]
)
def test_the_file_system_decides(tmp_path: Path, root: str, outlives: bool) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 8:1 / / rw,relatime shared:1 - {root}\n")
    assert (place.file_system(Path("/home/x"), mounts) not in place.FLEETING) is outlives


def test_a_volume_in_a_container_is_seen(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 0 0:1 / / rw - overlay overlay rw\n2 1 8:1 / /my\\040data rw - ext4 /dev/sda1 rw\n")
    assert place.file_system(Path("/my data/hub"), mounts) == "ext4"
