"""Random work on a mount comes out as it does in an ordinary folder; after unmounting, on the drive as well."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

import pytest

from haversack.drive.fuse.mount import mount, unmount
from tests.conftest import RunningHub, seeds, start_hub
from tests.drive.exerciser import Exerciser

pytestmark = pytest.mark.fuse

OPERATIONS = int(os.environ.get("HAVERSACK_OPERATIONS", "300"))
AHEAD = int(os.environ.get("HAVERSACK_OPERATIONS", "100"))
WHILE_CALLS_FAIL = int(os.environ.get("HAVERSACK_OPERATIONS", "80"))
"""How many; the soak asks for more."""
FAULTS = ("500:0.01", "429x8:0.002", "403.userRateLimitExceeded:0.005", "cut:0.01", "stall:0.0003")


def exercise(
    hub: RunningHub, mountpoint: Path, model: Path, seed: int, operations: int, largest: int = 300_000
) -> None:
    name = f"test-{secrets.token_hex(6)}"
    here = mount(mountpoint).my_drive / name
    here.mkdir()
    model.mkdir()
    exerciser = Exerciser(here, model, seed, largest)
    exerciser.run(operations)
    unmount(mountpoint)
    exerciser.mount = hub.my_drive / name
    exerciser.compare()


@pytest.mark.parametrize("seed", seeds(1, 1))
def test_a_mount_and_an_ordinary_folder_do_not_differ(
    hub: RunningHub, mountpoint: Path, tmp_path: Path, seed: int
) -> None:
    exercise(hub, mountpoint, tmp_path / "model", seed, OPERATIONS)


def test_they_do_not_differ_when_files_go_up_while_they_are_written(
    mountpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "calls.jsonl"
    hub = start_hub(tmp_path / "hub", None, "--log", str(log))
    monkeypatch.setenv("HAVERSACK_HUB", hub.url)
    monkeypatch.setenv("HAVERSACK_TOKEN", hub.token)
    monkeypatch.setenv("HAVERSACK_AHEAD", "0.3")
    try:
        exercise(hub, mountpoint, tmp_path / "model", 4, AHEAD, 3_000_000)
    finally:
        hub.process.terminate()
        hub.process.wait(60)
    assert any(call["status"] == 308 and call["received"] for call in map(json.loads, log.read_text().splitlines()))


def test_they_do_not_differ_when_calls_fail_in_every_way(
    mountpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = start_hub(tmp_path / "hub", None, *(word for fault in FAULTS for word in ("--fail", fault)))
    monkeypatch.setenv("HAVERSACK_HUB", hub.url)
    monkeypatch.setenv("HAVERSACK_TOKEN", hub.token)
    monkeypatch.setenv("HAVERSACK_AHEAD", "0.3")
    try:
        exercise(hub, mountpoint, tmp_path / "model", 3, WHILE_CALLS_FAIL, 1_000_000)
    finally:
        hub.process.terminate()
        hub.process.wait(60)
