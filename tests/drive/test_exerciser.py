"""Random work on a mount comes out as it does in an ordinary folder; after unmounting, on the drive as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.drive.mount import mount, unmount
from tests.conftest import RunningHub
from tests.drive.exerciser import Exerciser

pytestmark = pytest.mark.fuse


@pytest.mark.parametrize("seed", [1, 2])
def test_a_mount_and_an_ordinary_folder_do_not_differ(
    hub: RunningHub, folder: str, mountpoint: Path, tmp_path: Path, seed: int
) -> None:
    here = mount(mountpoint).my_drive / folder
    (tmp_path / "model").mkdir()
    exerciser = Exerciser(here, tmp_path / "model", seed)
    exerciser.run(300)
    unmount(mountpoint)
    exerciser.mount = hub.my_drive / folder
    exerciser.compare()
