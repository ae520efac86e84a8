"""Folders listed: streamed, resumed, and ahead of a walk."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote_plus

import pytest
from aiohttp import web

from haversack import cli, credentials
from haversack.drive.filesystem import DriveFileSystem
from haversack.drive.index.index import ListingPage
from haversack.drive.tree import Drive
from haversack.errors import RemoteError
from tests.conftest import RunningHub
from tests.drive.conftest import Call, Proxy


@pytest.fixture
def drive(hub: RunningHub, proxy: Proxy, tmp_path: Path) -> Drive:
    """The suite's drive behind the proxy, of which nothing is known."""
    return Drive(credentials.drive(), tmp_path / "data", tmp_path / "cache")


@pytest.fixture
def tree(hub: RunningHub, folder: str) -> set[str]:
    """A tree of 320 folders with 640 files in the test's folder; the paths of the files."""
    paths = set()
    for number in range(320):
        inside = hub.my_drive / folder / f"{number % 4}" / f"{number // 4 % 10}" / f"{number}"
        inside.mkdir(parents=True)
        for name in ("a", "b"):
            (inside / name).touch()
            paths.add(str((inside / name).relative_to(hub.my_drive)))
    return paths


def listings(calls: list[Call]) -> list[list[str]]:
    """The folders that each listing in `calls` asked about."""
    queries = [
        unquote_plus(call.path) for call in calls if "q=" in call.path and " in parents" in unquote_plus(call.path)
    ]
    return [re.findall(r"'([^']+)' in parents", query) for query in queries if "name = " not in query]


def fill(folder: Path, count: int) -> set[str]:
    for number in range(count):
        (folder / f"{number}").touch()
    return {f"{number}" for number in range(count)}


def test_the_first_names_come_before_the_last_are_known(
    hub: RunningHub, drive: Drive, folder: str, proxy: Proxy
) -> None:
    names = fill(hub.my_drive / folder, 2500)
    proxy.stalls = lambda call: "pageToken" in call.path and "q=" in call.path
    entries = drive.entries((folder,))
    seen = [next(entries)[0] for _ in range(1000)]
    assert not proxy.release.is_set()
    proxy.release.set()
    seen += [name for name, _ in entries]
    assert len(seen) == 2500
    assert set(seen) == names


def test_two_readers_of_one_folder_share_a_listing(hub: RunningHub, drive: Drive, folder: str, proxy: Proxy) -> None:
    names = fill(hub.my_drive / folder, 1500)
    one, other = drive.entries((folder,)), drive.entries((folder,))
    first = {next(one)[0], next(other)[0]}
    assert first | {name for name, _ in one} == names
    assert first | {name for name, _ in other} == names
    assert len(listings(proxy.calls)) == 2


def test_a_killed_listing_goes_on_with_the_page_it_had_come_to(
    hub: RunningHub, folder: str, proxy: Proxy, own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAVERSACK_FOLLOW", "0.1")  # a process that begins sooner after the other believes what it knew
    names = fill(hub.my_drive / folder, 3500)
    seen: list[Call] = []
    proxy.stalls = lambda call: "pageToken" in call.path and "q=" in call.path and (seen.append(call) or len(seen) == 3)
    command = [sys.executable, "-m", "haversack", "drive", "ls", folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    assert proxy.stalled.wait(60)
    process.kill()
    process.wait()
    (hub.my_drive / folder / "1").unlink()
    (hub.my_drive / folder / "later").touch()
    proxy.stalls = lambda call: False
    proxy.release.set()
    proxy.calls.clear()
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert {os.path.basename(line.split()[-1]) for line in done.stdout.splitlines()} == names - {"1"} | {"later"}
    assert len(listings(proxy.calls)) <= 2, "it began anew"


def test_a_page_token_that_the_drive_forgot_is_no_harm(hub: RunningHub, drive: Drive, folder: str) -> None:
    names = fill(hub.my_drive / folder, 10)
    parent = drive.find((folder,)).id
    drive.index.begin_listing(parent)
    drive.index.learn_pages([ListingPage([], drive.index.mark(), parent, "no-such-page")])
    assert set(drive.listing((folder,))) == names


def test_a_walk_is_listed_ahead_many_folders_to_a_query(
    hub: RunningHub, tree: set[str], folder: str, proxy: Proxy
) -> None:
    fs = DriveFileSystem(hub=proxy.url)
    assert set(fs.find(folder)) == tree
    asked = listings(proxy.calls)
    assert len(asked) <= 40
    assert max(len(parents) for parents in asked) <= 50
    proxy.calls.clear()
    assert set(fs.find(folder)) == tree
    assert listings(proxy.calls) == []


def test_a_walk_is_listed_ahead_also_while_the_list_of_changes_cannot_be_had(
    hub: RunningHub, tree: set[str], folder: str, proxy: Proxy
) -> None:
    fs = DriveFileSystem(hub=proxy.url)
    fs.drive.api.http.attempts = 1
    proxy.answers = lambda call: web.Response(status=503) if "/drive/v3/changes" in call.path else None
    with pytest.raises(RemoteError):
        fs.drive.follower.refresh()
    assert set(fs.find(folder)) == tree
    assert all(fs.exists(path) for path in tree)
    assert len([call for call in proxy.calls if "q=" in call.path]) <= 60


def test_an_answer_of_nothing_is_asked_for_again_one_by_one(
    hub: RunningHub, tree: set[str], folder: str, proxy: Proxy
) -> None:
    def nothing(call: Call) -> web.Response | None:
        many = unquote_plus(call.path).count(" in parents") > 1
        return web.json_response({"files": []}) if many else None

    proxy.answers = nothing
    fs = DriveFileSystem(hub=proxy.url)
    assert set(fs.find(folder)) == tree


def test_who_only_looks_into_one_folder_does_not_list_the_rest(
    hub: RunningHub, drive: Drive, tree: set[str], folder: str, proxy: Proxy
) -> None:
    drive.listing((folder,))
    drive.listing((folder, "1"))
    assert len({parent for parents in listings(proxy.calls) for parent in parents}) < 60


def test_names_asked_for_again_and_again_make_the_folder_known(
    hub: RunningHub, drive: Drive, folder: str, proxy: Proxy
) -> None:
    names = sorted(fill(hub.my_drive / folder, 300))
    for name in names:
        assert drive.find((folder, name)).size == 0
    assert len([call for call in proxy.calls if "q=" in call.path]) < 100


def test_an_error_in_the_middle_is_said_and_the_next_try_goes_on(
    hub: RunningHub, drive: Drive, folder: str, proxy: Proxy
) -> None:
    names = fill(hub.my_drive / folder, 1500)
    drive.api.http.attempts = 1
    proxy.answers = lambda call: web.Response(status=500) if "pageToken" in call.path and "q=" in call.path else None
    with pytest.raises(RemoteError):
        drive.listing((folder,))
    proxy.answers = lambda call: None
    assert set(drive.listing((folder,))) == names


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    hub: RunningHub, folder: str, proxy: Proxy, tmp_path: Path
) -> None:
    fill(hub.my_drive / folder, 3)
    filesystem = DriveFileSystem(hub=proxy.url)
    filesystem.drive.api.http.attempts = 1
    proxy.answers = lambda call: web.Response(status=500) if "in+parents" in call.path else None
    for search in (filesystem.find, filesystem.du):
        with pytest.raises(RemoteError):
            search(folder)
    proxy.answers = lambda call: None
    assert len(filesystem.find(folder)) == 3


def test_the_command_lists_all_that_lies_below(
    hub: RunningHub, folder: str, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    (hub.my_drive / folder / "a" / "b").mkdir(parents=True)
    (hub.my_drive / folder / "a" / "b" / "c").write_text("deep")
    with pytest.raises(SystemExit):
        cli.main(["drive", "ls", folder, "--recursive", "--json"])
    found = {entry["name"]: entry["size"] for entry in json.loads(capsys.readouterr().out)["entries"]}
    assert found == {f"{folder}/a": 0, f"{folder}/a/b": 0, f"{folder}/a/b/c": 4}
    with pytest.raises(SystemExit):
        cli.main(["drive", "ls", f"{folder}/a/b/c"])
    assert "4 B" in capsys.readouterr().out


def test_the_command_prints_each_folder_before_what_is_in_it(
    hub: RunningHub, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (hub.my_drive / folder / "a").mkdir()
    for name in ("a/x", "a.txt", "b"):
        (hub.my_drive / folder / name).touch()
    with pytest.raises(SystemExit):
        cli.main(["drive", "ls", folder, "-r"])
    printed = [line.split()[-1].removeprefix(f"{folder}/") for line in capsys.readouterr().out.splitlines()]
    assert printed == ["a/", "a/x", "a.txt", "b"]


def test_the_command_fails_where_a_folder_cannot_be_listed(
    hub: RunningHub, folder: str, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    (hub.my_drive / folder / "a").mkdir()
    DriveFileSystem(hub=proxy.url).drive.api.http.attempts = 1
    proxy.answers = lambda call: web.Response(status=500) if "in+parents" in call.path else None
    with pytest.raises(SystemExit) as ended:
        cli.main(["drive", "ls", folder, "-r", "--hub", proxy.url])
    assert ended.value.code == 1
    assert "500" in capsys.readouterr().err
