"""Programs that people use, on a mount over a bad network."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack.drive.fuse.mount import is_mounted, mount, unmount
from tests.conftest import RunningHub

pytestmark = pytest.mark.fuse

FILES = int(os.environ.get("HAVERSACK_FILES", "120"))
"""How many files the tree has; the soak asks for thousands."""


@pytest.fixture
def here(bad_hub: RunningHub, mountpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HAVERSACK_HUB", bad_hub.url)
    monkeypatch.setenv("HAVERSACK_TOKEN", bad_hub.token)
    yield mount(mountpoint).my_drive
    if is_mounted(mountpoint):
        unmount(mountpoint)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of many small files in folders, and one large one."""
    root = tmp_path / "tree"
    for number in range(FILES):
        path = root / f"{number % 7}" / f"{number % 3}" / f"file {number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number % 120 * 50))
        os.utime(path, (1.6e9 + number, 1.6e9 + number))
    (root / "large").write_bytes(os.urandom(7 << 20))
    return root


def run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, env=environment).stdout


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def test_cp_and_what_lands_on_the_drive(here: Path, tree: Path, bad_hub: RunningHub, mountpoint: Path) -> None:
    run("cp", "-r", "--preserve=timestamps", tree, here / "copied")
    run("diff", "-r", tree, here / "copied")
    unmount(mountpoint)
    run("diff", "-r", tree, bad_hub.my_drive / "copied")


def test_git_clones_into_a_mount(here: Path, tree: Path, tmp_path: Path) -> None:
    needs("git")
    run("git", "init", "-q", "-b", "main", tree)
    run("git", "-C", tree, "add", ".")
    run("git", "-C", tree, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "all")
    run("git", "clone", "-q", "--no-local", tree, here / "cloned")
    run("git", "-C", here / "cloned", "fsck", "--full")
    assert run("git", "-C", here / "cloned", "status", "--porcelain") == ""
    (here / "cloned" / "0" / "0" / "file 0.bin").write_bytes(b"changed")
    run("git", "-C", here / "cloned", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-am", "one")
    assert run("git", "-C", here / "cloned", "show", "--name-only", "--format=").strip() == "0/0/file 0.bin"


def test_tar_and_zip_are_packed_and_unpacked(here: Path, tree: Path) -> None:
    run("tar", "-cf", here / "tree.tar", "-C", tree, ".")
    (here / "untarred").mkdir()
    run("tar", "-xf", here / "tree.tar", "-C", here / "untarred")
    run("diff", "-r", tree, here / "untarred")
    shutil.make_archive(str(tree.parent / "tree"), "zip", tree)
    shutil.copyfile(tree.parent / "tree.zip", here / "tree.zip")
    needs("unzip")
    run("unzip", "-q", here / "tree.zip", "-d", here / "unzipped")
    run("diff", "-r", tree, here / "unzipped")


def test_a_database_lives_on_a_mount(here: Path) -> None:
    needs("sqlite3")
    database = here / "data.db"
    run("sqlite3", database, "CREATE TABLE t (n INTEGER, x TEXT)")
    for number in range(3):
        run("sqlite3", database, f"BEGIN; INSERT INTO t VALUES ({number}, hex(randomblob(20000))); COMMIT")
    run("sqlite3", database, "VACUUM")
    assert run("sqlite3", database, "SELECT count(*), sum(n) FROM t; PRAGMA integrity_check").split() == ["3|3", "ok"]


def test_rsync_sends_only_what_changed(here: Path, tree: Path) -> None:
    needs("rsync")
    run("rsync", "-a", "--no-perms", "--no-owner", "--no-group", f"{tree}/", here / "synced")
    run("diff", "-r", tree, here / "synced")
    (tree / "0" / "0" / "file 0.bin").write_bytes(b"changed")
    sent = run("rsync", "-ai", "--no-perms", "--no-owner", "--no-group", f"{tree}/", here / "synced")
    assert [line.split(" ", 1)[1] for line in sent.splitlines() if line.startswith(">")] == ["0/0/file 0.bin"]
