"""What the doctor finds on a real hub, and that it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from haversack import cli, credentials
from haversack.drive.care import doctor
from haversack.drive.care.doctor import Checkup, examine
from haversack.drive.fuse import registry
from haversack.drive.remote.api import DriveApi
from haversack.http import wait
from tests.conftest import RunningHub
from tests.drive.conftest import Proxy


@pytest.fixture
def small_crowds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CROWDED", 5)
    monkeypatch.setattr(doctor, "CROWDED_ROOT", 3)


def fill(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.txt").touch()


def said(found: Checkup) -> str:
    return "\n".join(map(str, found.findings))


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


def test_a_healthy_drive_has_nothing_wrong(own_hub: RunningHub) -> None:
    fill(own_hub.my_drive / "a" / "b", 3)
    found = examine()
    assert (found.reachable, found.files, found.folders, found.depth) == (True, 3, 2, 2)
    assert "Nothing is wrong" in str(found)
    assert found.round_trip > 0


def test_crowds_are_found_my_drive_first(own_hub: RunningHub, small_crowds: None) -> None:
    fill(own_hub.my_drive / "it's crowded", 9)
    fill(own_hub.my_drive, 3)
    found = examine()
    assert list(found.crowded.items()) == [("My Drive", 4), ("it's crowded", 9)]
    assert [finding.mend for finding in found.findings] == [
        "haversack drive spread ''",
        "haversack drive spread 'it'\"'\"'s crowded'",
    ]
    assert all(finding.calls and finding.minutes for finding in found.findings)


def test_one_folder_may_be_looked_at(own_hub: RunningHub, small_crowds: None) -> None:
    fill(own_hub.my_drive / "a" / "b", 6)
    fill(own_hub.my_drive / "other", 7)
    found = examine("a")
    assert (found.files, found.crowded) == (6, {"a/b": 6})


def test_names_that_stand_twice_documents_and_depth_are_found(
    own_hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_DEEP", 3)
    (own_hub.my_drive / "a/b/c/d").mkdir(parents=True)
    api = DriveApi(credentials.drive())
    root = wait(api.get("root")).id
    for _ in range(2):
        wait(api.create_folder(root, "twice"))
    found = examine()
    assert (found.duplicates, found.depth) == (1, 4)
    assert "twice" in said(found)
    assert "nest 4 deep (a/b/c/d" in said(found)


def test_trash_is_found_with_its_command(own_hub: RunningHub) -> None:
    (own_hub.my_drive / "big").write_bytes(bytes(1000))
    api = DriveApi(credentials.drive())
    found = wait(api.lookup(wait(api.get("root")).id, "big"))
    wait(api.trash(found[0].id))
    finding = doctor._space_findings(doctor.Quota(used=1000, limit=1010, in_trash=wait(api.quota()).in_trash))
    assert [one.mend for one in finding] == ["", "haversack drive trash --empty"]


def test_it_only_reads(own_hub: RunningHub, own_folders: Path) -> None:
    fill(own_hub.my_drive / "a", 3)
    token = wait(DriveApi(credentials.drive()).changes_token())
    examine()
    examine("a")
    assert wait(DriveApi(credentials.drive()).changes_token()) == token
    assert not (own_folders / "data" / "drives").exists()


def test_a_thousand_files_cost_one_call(hub: RunningHub, proxy: Proxy) -> None:
    found = examine()
    assert found.calls == len(proxy.calls) == 4 + max(1, -(-(found.files + found.folders) // 1000))


def test_dead_mounts_and_waiting_writes_are_found(own_hub: RunningHub, own_folders: Path) -> None:
    registry.MountRecord("/content/drive", registry.namespace(), "fuse", "the hub", own_hub.url, False, pid=1).write()
    journal = own_folders / "data" / "drives" / "key" / "1-a"
    journal.mkdir(parents=True)
    (journal / "draft.json").write_text("{}")
    found = examine()
    assert (found.stale_mounts, found.waiting) == (["/content/drive"], 1)
    assert "haversack unmount /content/drive" in said(found)


def test_a_drive_that_is_away_is_a_finding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HAVERSACK_HUB", "http://127.0.0.1:9")
    monkeypatch.setenv("HAVERSACK_TOKEN", "a-token")
    monkeypatch.setattr("haversack.http.random.uniform", lambda low, high: 0.0)
    assert run("drive", "doctor", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert "does not answer" in found["findings"][0]["what"]
