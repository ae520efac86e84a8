"""Files are replaced whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from haversack import disk


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    disk.write(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(IsADirectoryError), disk.replacing(path) as temporary:
        temporary.write_text(f"half {os.open(tmp_path, os.O_WRONLY)}")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_in_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    code = (
        "import os, sys; from pathlib import Path; from haversack import disk\n"
        "with disk.replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.read_text() == "old"
    left = [one for one in tmp_path.iterdir() if one != path]
    assert [one.name.startswith(disk.TEMPORARY) for one in left] == [True]


def test_a_name_of_the_greatest_length_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    disk.write(path, "text")
    assert path.read_text() == "text"


@pytest.mark.skipif(sys.platform == "win32", reason="no modes on Windows")
def test_a_private_file_is_its_users_alone(tmp_path: Path) -> None:
    disk.write(tmp_path / "secret", "s", private=True)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_text_from_a_path_that_is_not_unicode_is_written(tmp_path: Path) -> None:
    disk.write(tmp_path / "file", os.fsdecode(b"\xff"))
    assert (tmp_path / "file").read_bytes() == b"\xff"


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    assert disk.md5(tmp_path / "file") == hashlib.md5(b"bytes").hexdigest()
