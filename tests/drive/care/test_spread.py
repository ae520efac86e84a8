"""A crowded folder's files into subfolders and back, on a real hub, also killed in the middle."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from haversack.drive import tree
from haversack.drive.care.manifest import Rule, SpreadEntry, SpreadManifest
from haversack.drive.care.spread import NAME, spread, undo
from haversack.drive.remote.calls import File
from haversack.errors import Forbidden, InputError, NotFound
from haversack.http import wait
from tests.conftest import RunningHub, start_hub
from tests.drive.conftest import Call, Proxy
from tests.hub.conftest import send

State = dict[str, tuple[bytes, int]]


def state(folder: Path) -> State:
    """Every file below a folder: its bytes and its time, by path. The manifest is left out."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != NAME
    }


def ids() -> dict[str, str]:
    """The names of the drive's scans by their ids, wherever they lie."""

    drive = tree.connect()

    async def collect() -> dict[str, str]:
        pages = drive.api.search("name contains 'scan' and trashed = false")
        return {file.id: file.name async for page in pages for file in page.files if not file.is_folder}

    return wait(collect())


def listed(folder: str) -> Coroutine[Any, Any, list[File]]:
    """What lies in a folder of the drive."""
    drive = tree.connect()
    folder_id = drive.folder((folder,)).id

    async def collect() -> list[File]:
        return [file async for file in drive.api.list(folder_id)]

    return collect()


@pytest.fixture
def crowded(hub: RunningHub, folder: str) -> Path:
    """A folder of 250 files that the hub knows of."""
    made = filled(hub.my_drive / folder, 250)
    until = time.monotonic() + 60
    while len(wait(listed(folder))) < 250:
        assert time.monotonic() < until, "the hub did not take the folder in"
        time.sleep(0.1)
    return made


def filled(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"scan {number:04}.txt").write_text(f"content {number}")
        os.utime(folder / f"scan {number:04}.txt", (1_600_000_000 + number, 1_600_000_000 + number))
    return folder


def settled(folder: Path) -> int:
    """How many files are left in a folder, once the hub is through with what it had received."""
    before, now = -1, 0
    while now != before:
        time.sleep(0.3)
        before, now = now, len(list(folder.glob("scan*")))
    return now


def subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "haversack", "drive", "spread", *arguments]


def test_files_go_where_the_rule_says_and_stay_what_they_are(crowded: Path) -> None:
    before, known = state(crowded), ids()
    report = spread(crowded.name, size=50)
    assert (report.moved, report.subfolders) == (250, 5)
    for path, content in state(crowded).items():
        number = int(hashlib.md5(Path(path).name.encode()).hexdigest(), 16) % 5
        assert path == f"{number}/{Path(path).name}"
        assert content == before[Path(path).name]
    assert ids() == known


def test_undo_brings_everything_back_exactly(crowded: Path) -> None:
    before, known = state(crowded), ids()
    spread(crowded.name, size=50)
    report = undo(crowded.name)
    assert report.moved == 250
    assert state(crowded) == before
    assert sorted(os.listdir(crowded)) == sorted(before)
    assert ids() == known


def test_ranges_of_names_hold_as_many_files_as_was_said(crowded: Path) -> None:
    spread(crowded.name, by="name", size=100)
    assert subfolders(crowded) == ["0 from scan 0000.txt", "1 from scan 0100.txt", "2 from scan 0200.txt"]
    assert [len(list((crowded / name).iterdir())) for name in subfolders(crowded)] == [100, 100, 50]


def test_a_dry_run_changes_nothing_and_estimates(crowded: Path, hub: RunningHub) -> None:
    before = state(hub.my_drive)
    report = spread(f"My Drive/{crowded.name}", size=50, dry_run=True)
    assert (report.files, report.subfolders, report.moved) == (250, 5, 0)
    assert 255 < report.calls < 300
    assert report.minutes > 0
    assert state(hub.my_drive) == before
    assert not (crowded / NAME).exists()
    spread(crowded.name, size=50)
    report = undo(crowded.name, dry_run=True)
    assert (report.files, report.moved) == (250, 0)
    assert len(subfolders(crowded)) == 5


def test_what_lay_in_subfolders_before_is_not_touched(crowded: Path) -> None:
    (crowded / "mine").mkdir()
    (crowded / "mine" / "a.txt").write_text("mine")
    spread(crowded.name, size=50)
    undo(crowded.name)
    assert (crowded / "mine" / "a.txt").read_text() == "mine"


def test_a_small_folder_is_left_as_it_is(crowded: Path) -> None:
    report = spread(crowded.name)
    assert "nothing to move" in str(report)
    assert subfolders(crowded) == []
    assert not (crowded / NAME).exists()


def test_my_drive_itself_can_be_spread(own_hub: RunningHub) -> None:
    for number in range(5):
        (own_hub.my_drive / f"scan {number}").write_text("x")
    assert spread("", size=2).moved == 5
    assert undo("").moved == 5
    assert len([path for path in own_hub.my_drive.iterdir() if path.is_file()]) == 5


def test_what_came_later_is_spread_by_the_same_rule_and_undone_with_the_rest(crowded: Path) -> None:
    spread(crowded.name, size=50)
    (crowded / "late.txt").write_text("late")
    report = spread(crowded.name, size=3)
    assert (report.moved, report.subfolders) == (1, 5)
    assert not (crowded / "late.txt").exists()
    assert undo(crowded.name).moved == 251
    assert (crowded / "late.txt").read_text() == "late"


def test_a_spread_that_was_killed_goes_on_and_can_be_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = start_hub(tmp_path / "hub", None, "--latency", "30ms")
    try:
        monkeypatch.setenv("HAVERSACK_HUB", hub.url)
        monkeypatch.setenv("HAVERSACK_TOKEN", hub.token)
        folder = filled(hub.my_drive / "crowded", 900)
        before = state(folder)
        process = subprocess.Popen(command("crowded", "--size", "300"))
        end = time.monotonic() + 60
        while not any(folder.glob("*/scan*")) and time.monotonic() < end:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = settled(folder)
        assert 0 < left < 900
        assert {Path(path).name: kept for path, kept in state(folder).items()} == before
        report = spread("crowded")
        assert (report.moved, report.subfolders) == (left, 3)
        assert undo("crowded").moved == 900
        assert state(folder) == before
        assert sorted(os.listdir(folder)) == sorted(before)
    finally:
        hub.process.terminate()
        hub.process.wait(60)


def test_another_machine_undoes_it(crowded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(crowded)
    spread(crowded.name, size=50)
    monkeypatch.setenv("HAVERSACK_DATA", str(tmp_path / "elsewhere"))
    undo(crowded.name)
    assert state(crowded) == before


def test_this_machines_manifest_serves_where_the_drives_was_removed(crowded: Path) -> None:
    before = state(crowded)
    spread(crowded.name, size=50)
    (crowded / NAME).unlink()
    undo(crowded.name)
    assert state(crowded) == before


def test_a_manifest_of_what_was_undone_elsewhere_is_forgotten(crowded: Path, tmp_path: Path) -> None:
    spread(crowded.name, size=50)
    kept = next((Path(os.environ["HAVERSACK_DATA"]) / "spread").glob("*.gz"))
    stale = kept.read_bytes()
    undo(crowded.name)
    kept.write_bytes(stale)
    assert spread(crowded.name, size=50).moved == 250


def test_a_file_that_went_or_changed_meanwhile_is_left_alone_and_said(
    proxy: Proxy, hub: RunningHub, folder: str
) -> None:
    place = hub.my_drive / folder
    for number in range(6):
        (place / f"scan {number}").write_text("x")
    (place / "mine").mkdir()
    files = {file.name: file.id for file in wait(listed(folder))}

    def meddle(call: Call) -> bool:
        """After the files were looked at, before the first of them moves."""
        if call.path.startswith("/upload"):
            send(hub, "PATCH", f"/drive/v3/files/{files['scan 1']}?addParents={files['mine']}", "{}")
            send(hub, "PATCH", f"/upload/drive/v3/files/{files['scan 2']}?uploadType=media", "somebody else's words")
            send(hub, "PATCH", f"/drive/v3/files/{files['scan 3']}", json.dumps({"trashed": True}))
        return False

    proxy.stalls = meddle
    report = spread(folder, size=2)
    assert report.moved == 3
    assert {left.name: left.why for left in report.left} == {
        "scan 1": "moved during the spread",
        "scan 2": "changed during the spread",
        "scan 3": "deleted during the spread",
    }
    assert (place / "mine" / "scan 1").exists()
    assert (place / "scan 2").read_text() == "somebody else's words"


def test_undo_says_what_came_and_went_since(crowded: Path) -> None:
    spread(crowded.name, size=50)
    first = crowded / subfolders(crowded)[0]
    (first / "new.txt").write_text("new")
    next(first.glob("scan*")).unlink()
    report = undo(crowded.name)
    assert report.moved == 249
    assert sorted(left.why for left in report.left) == ["added after the spread", "no longer in its subfolder"]
    assert (first / "new.txt").exists()


def test_files_of_others_and_shared_ones_stay(proxy: Proxy, hub: RunningHub, folder: str) -> None:
    for number in range(6):
        (hub.my_drive / folder / f"scan {number}").write_text("x")
    proxy.rewrite = lambda body: shared(foreign(body, "scan 1"), "scan 2")
    report = spread(folder, size=2)
    assert report.moved == 4
    assert {left.name: left.why for left in report.left} == {"scan 1": "owned by another user", "scan 2": "shared"}


def test_a_shared_folder_is_refused(proxy: Proxy, hub: RunningHub, folder: str) -> None:
    (hub.my_drive / folder / "scan").write_text("x")
    proxy.rewrite = lambda body: shared(body, folder)
    with pytest.raises(Forbidden, match="is shared"):
        spread(folder, size=1)


def foreign(body: bytes, name: str) -> bytes:
    return _said(body, name, {"ownedByMe": False})


def shared(body: bytes, name: str) -> bytes:
    return _said(body, name, {"shared": True})


def _said(body: bytes, name: str, said: dict[str, bool]) -> bytes:
    answer = json.loads(body)
    for file in [answer, *answer.get("files", [])]:
        if file.get("name") == name:
            file.update(said)
    return json.dumps(answer).encode()


def test_a_folder_whose_name_a_subfolder_needs_is_in_the_way(crowded: Path) -> None:
    (crowded / "3").mkdir()
    with pytest.raises(InputError, match="folder '3'"):
        spread(crowded.name, size=50)
    assert len(list(crowded.glob("scan*"))) == 250


def test_a_subfolder_in_the_trash_is_said(crowded: Path) -> None:
    spread(crowded.name, size=50)
    (crowded / "late.txt").write_text("late")
    name = Rule("hash", 5).subfolder("late.txt")
    drive = tree.connect()
    wait(drive.api.trash(drive.folder((crowded.name, name)).id))
    with pytest.raises(InputError, match=f"subfolder {name} is not in"):
        spread(crowded.name)
    assert (crowded / "late.txt").exists()


def test_without_a_spread_there_is_nothing_to_undo(crowded: Path) -> None:
    with pytest.raises(NotFound, match="no spread to undo"):
        undo(crowded.name)


@pytest.mark.parametrize(("by", "size"), [("size", 10), ("hash", 0), ("name", -1)])
def test_a_rule_that_is_none_is_refused(by: str, size: int) -> None:
    with pytest.raises(InputError):
        spread("crowded", by=by, size=size)


def test_the_command_prints_json(crowded: Path) -> None:
    done = subprocess.run(command(crowded.name, "--size", "100", "--json"), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["moved"] == 250
    done = subprocess.run(command(crowded.name, "--undo"), capture_output=True, text=True, check=True)
    assert done.stdout == f"{crowded.name}: 250 files moved back from 3 subfolders.\n"


# The manifest


def manifest() -> SpreadManifest:
    rule = Rule.of("name", ["a", "b", "c"], 2)
    files = {name: SpreadEntry(name, name, 1, "md5", 7) for name in "abc"}
    return SpreadManifest("folder", "own", rule, {rule.subfolder(name): f"id of {name}" for name in "ac"}, files)


@pytest.mark.parametrize("by", ["hash", "name"])
def test_every_name_has_its_subfolder_also_later_ones(by: str) -> None:
    rule = Rule.of(by, [f"{number}" for number in range(100)], 10)
    places = {rule.subfolder(name) for name in ["", "0", "55", "zebra", "ü", "a/b"]}
    assert places <= {rule.subfolder(f"{number}") for number in range(100)}


def test_names_that_stand_twice_share_a_subfolder() -> None:
    assert Rule.of("name", ["a"] * 50 + ["b"] * 50, 1).parts == 2


def test_a_manifest_is_read_back_as_it_was_written() -> None:
    assert SpreadManifest.decoded(manifest().encoded()) == manifest()
    assert manifest().encoded() == manifest().encoded()


def test_a_manifest_that_was_cut_off_is_refused() -> None:
    whole = manifest().encoded()
    for length in range(len(whole)):
        with pytest.raises(InputError, match="damaged"):
            SpreadManifest.decoded(whole[:length])


def test_a_manifest_that_does_not_fit_together_is_refused() -> None:
    with pytest.raises(InputError, match="damaged"):
        SpreadManifest.decoded(replace(manifest(), subfolders={}).encoded())
    with pytest.raises(InputError, match="damaged"):
        SpreadManifest.decoded(replace(manifest(), rule=Rule("name", 2, ("b", "a"))).encoded())


def test_a_file_is_the_same_while_its_version_or_its_bytes_are() -> None:
    file = a_file("a", "md5", 7)
    entry = SpreadEntry.of(file)
    assert entry.matches(replace(file, version=8))
    assert not entry.matches(replace(file, version=8, md5="other"))
    assert not entry.matches(replace(file, id="other"))


def a_file(name: str, md5: str, version: int) -> File:
    return File(name, name, "folder", "text/plain", 1, md5, 0.0, version)
