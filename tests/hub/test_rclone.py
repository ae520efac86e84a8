"""rclone, whose host is fixed, against the hub: over TLS and through the hub's proxy."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import RunningHub, start_hub

from .conftest import google_client

pytestmark = pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is not installed")


@dataclass(frozen=True)
class Rclone:
    hub: RunningHub
    environment: dict[str, str]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(["rclone", *arguments], env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout


def settings(hub: RunningHub, folder: Path) -> dict[str, str]:
    """The environment in which rclone has a remote `hub:`; its configuration is put into `folder`."""
    token = f'{{"access_token": "{hub.token}", "token_type": "Bearer", "expiry": "2099-01-01T00:00:00Z"}}'
    (folder / "rclone.conf").write_text(f"[hub]\ntype = drive\nscope = drive\ntoken = {token}\n")
    return {
        **os.environ,
        "HTTPS_PROXY": hub.state["proxy"],
        "RCLONE_CA_CERT": hub.state["ca"],
        "RCLONE_CONFIG": str(folder / "rclone.conf"),
        "RCLONE_DRIVE_PACER_MIN_SLEEP": "10ms",
    }


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    """rclone with a remote `hub:`, and a hub that answers it."""
    folder = tmp_path_factory.mktemp("rclone")
    hub = start_hub(folder / "root", None, "--tls")
    yield Rclone(hub, settings(hub, folder))
    hub.process.terminate()
    hub.process.wait(60)


def library(folder: Path) -> Path:
    """A folder of 12 files in three folders, the largest in several chunks."""
    for name in ["a.txt", "b/ü.bin", "b/c/empty", *(f"many/{number}.txt" for number in range(8))]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if path.name == "empty" else os.urandom(2000))
    (folder / "large.bin").write_bytes(os.urandom(20_000_000))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_copied_there_and_back_is_the_same(rclone: Rclone, tmp_path: Path) -> None:
    source = library(tmp_path / "source")
    rclone("copy", str(source), "hub:copied", "--drive-chunk-size", "8M")
    assert tree(rclone.hub.my_drive / "copied") == tree(source)
    rclone("check", str(source), "hub:copied")
    rclone("copy", "hub:copied", str(tmp_path / "back"))
    assert tree(tmp_path / "back") == tree(source)


def test_listing_goes_down_into_every_folder(rclone: Rclone, tmp_path: Path) -> None:
    source = library(tmp_path / "source")
    shutil.copytree(source, rclone.hub.my_drive / "by hand")
    listed = set(rclone("lsf", "-R", "--files-only", "--fast-list", "hub:by hand").splitlines())
    assert listed == set(tree(source))


def test_a_changed_file_is_copied_again_and_a_removed_one_goes_to_the_trash(rclone: Rclone, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "kept").write_text("1")
    (source / "gone").write_text("1")
    rclone("sync", str(source), "hub:synced")
    (source / "kept").write_text("22")
    (source / "gone").unlink()
    rclone("sync", str(source), "hub:synced")
    assert tree(rclone.hub.my_drive / "synced") == {"kept": b"22"}
    trashed = google_client(rclone.hub).files().list(q="trashed = true", fields="files(name)").execute()["files"]
    assert {"name": "gone"} in trashed


def test_about_tells_the_quota(rclone: Rclone) -> None:
    assert "Trashed:" in rclone("about", "hub:")


def test_a_hub_that_is_told_to_end_while_it_is_busy_does_so_and_keeps_nothing_half(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):
        (source / f"{number}").write_bytes(os.urandom(20_000_000 if number < 4 else 4000))
    hub = start_hub(tmp_path / "root", None, "--tls", "--bandwidth", "20MB")
    copying = subprocess.Popen(
        ["rclone", "copy", str(source), "hub:", "--transfers", "16", "--drive-chunk-size", "8M"],
        env=settings(hub, tmp_path),
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: any(hub.my_drive.iterdir()))
    hub.process.terminate()
    assert hub.process.wait(60) == 0
    copying.kill()
    copying.wait()
    there = tree(hub.my_drive)
    assert there == {name: (source / name).read_bytes() for name in there}


@pytest.mark.fuse
def test_the_mount_reads_and_writes(rclone: Rclone, tmp_path: Path) -> None:
    if not Path("/dev/fuse").exists():
        pytest.skip("there is no FUSE here")
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    (rclone.hub.my_drive / "mounted").mkdir()
    (rclone.hub.my_drive / "mounted" / "there.txt").write_text("there")
    process = subprocess.Popen(
        ["rclone", "mount", "hub:mounted", str(mountpoint), "--vfs-cache-mode", "full", "--vfs-write-back", "0s"],
        env={**rclone.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    try:
        wait_for(lambda: mountpoint.is_mount())
        assert (mountpoint / "there.txt").read_text() == "there"
        (mountpoint / "new.txt").write_text("new")
        wait_for(lambda: (rclone.hub.my_drive / "mounted" / "new.txt").exists())
        wait_for(lambda: (rclone.hub.my_drive / "mounted" / "new.txt").read_text() == "new")
    finally:
        subprocess.run(["fusermount3", "-u", str(mountpoint)], check=False)
        process.wait(60)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
