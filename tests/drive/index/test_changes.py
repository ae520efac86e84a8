"""What others do to the drive is seen by itself; what cannot be seen is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from haversack import credentials
from haversack.drive.resolve import Names
from haversack.drive.tree import Drive
from haversack.http import wait
from tests.conftest import RunningHub
from tests.drive.conftest import Proxy

Machine = Callable[[str], Drive]


@pytest.fixture
def machine(hub: RunningHub, tmp_path: Path) -> Machine:
    """The drive as a machine of that name sees it, which looks for changes often."""

    def make(name: str) -> Drive:
        drive = Drive(credentials.drive(), tmp_path / name / "data", tmp_path / name / "cache")
        drive.follower.pace = 0.1
        return drive

    return make


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def write(drive: Drive, path: Names, content: bytes) -> None:
    draft = drive.open_draft(path, truncate=True)
    drive.journal.write(draft, content, 0)
    drive.journal.commit(draft)
    drive.journal.wait(draft)
    drive.journal.release(draft)


def test_what_another_machine_does_is_seen_without_asking_for_it(machine: Machine, folder: str, proxy: Proxy) -> None:
    one, other = machine("one"), machine("other")
    write(other, (folder, "a"), b"a")
    write(other, (folder, "b"), b"b")
    assert sorted(one.listing((folder,))) == ["a", "b"]
    proxy.calls.clear()
    write(other, (folder, "a"), b"longer")
    other.remove((folder, "b"))
    other.make_folder((folder, "new"))
    until(lambda: sorted(one.listing((folder,))) == ["a", "new"] and one.find((folder, "a")).size == 6)


def test_an_own_write_is_known_at_once_and_stays(machine: Machine, folder: str) -> None:
    drive = machine("one")
    assert drive.listing((folder,)) == {}
    for number in range(30):
        write(drive, (folder, "a"), b"x" * number)
        assert drive.find((folder, "a")).size == number
        drive.remove((folder, "a"))
        assert not drive.exists((folder, "a"))


def test_what_is_known_costs_no_call_however_long_ago_it_was_learned(
    machine: Machine, folder: str, proxy: Proxy
) -> None:
    drive = machine("one")
    write(drive, (folder, "a"), b"a")
    assert drive.exists((folder, "a"))
    time.sleep(0.5)
    proxy.calls.clear()
    assert drive.exists((folder, "a"))
    assert not [call.path for call in proxy.calls if call.path.startswith("/drive/v3/files")]


def test_after_a_pause_one_question_makes_everything_sure(machine: Machine, folder: str, proxy: Proxy) -> None:
    drive = machine("one")
    drive.follower._start = lambda: None  # type: ignore[method-assign]
    drive.listing((folder,))
    write(machine("other"), (folder, "a"), b"a")
    time.sleep(0.3)
    proxy.calls.clear()
    assert drive.exists((folder, "a"))
    assert any(call.path.startswith("/drive/v3/changes") for call in proxy.calls)
    assert not [call.path for call in proxy.calls if call.path.startswith("/drive/v3/files")]


def test_without_the_list_of_changes_the_drive_is_asked(machine: Machine, folder: str, proxy: Proxy) -> None:
    one, other = machine("one"), machine("other")
    one.api.http.attempts = other.api.http.attempts = 1
    write(other, (folder, "a"), b"a")
    assert list(one.listing((folder,))) == ["a"]
    proxy.answers = lambda call: web.Response(status=503) if "/drive/v3/changes" in call.path else None
    until(lambda: one.known().trouble)
    other.remove((folder, "a"))
    write(other, (folder, "b"), b"b")
    time.sleep(2 * one.follower.pace)  # so long what was listed just now is believed all the same
    assert (one.exists((folder, "a")), one.exists((folder, "b"))) == (False, True)
    assert list(one.listing((folder,))) == ["b"]
    proxy.answers = lambda call: None
    until(lambda: not one.known().trouble)
    assert list(one.listing((folder,))) == ["b"]


def test_a_token_that_the_drive_forgot_costs_only_what_was_known(machine: Machine, folder: str) -> None:
    drive = machine("one")
    write(drive, (folder, "a"), b"a")
    drive.listing((folder,))
    drive.index.set_facts(token="not-a-token")
    until(lambda: drive.index.fact("token") != "not-a-token")
    assert list(drive.listing((folder,))) == ["a"]


def test_who_wants_to_know_is_told_the_paths_that_others_touched(machine: Machine, folder: str) -> None:
    one, other = machine("one"), machine("other")
    write(other, (folder, "a"), b"a")
    one.listing((folder,))
    told: list[Names | None] = []
    end = one.subscribe(lambda paths: told.extend(paths if paths is not None else [None]))
    write(one, (folder, "mine"), b"x")
    write(other, (folder, "a"), b"changed")
    other.rename((folder, "a"), (folder, "b"))
    until(lambda: (folder, "b") in told)
    assert set(told) == {(folder, "a"), (folder, "b")}
    end()


def test_a_folder_moved_by_another_machine_takes_its_files_along(machine: Machine, folder: str) -> None:
    one, other = machine("one"), machine("other")
    other.make_folder((folder, "old"))
    write(other, (folder, "old", "a"), b"a")
    assert one.exists((folder, "old", "a"))
    other.rename((folder, "old"), (folder, "new"))
    until(lambda: one.exists((folder, "new", "a")) and not one.exists((folder, "old")))


def test_figures_say_what_is_known_and_how_sure(machine: Machine, folder: str) -> None:
    drive = machine("one")
    write(drive, (folder, "a"), b"a")
    drive.listing((folder,))
    known = drive.known()
    assert (known.names, known.folders, known.trouble) == (2, 1, "")
    assert known.age is not None
    assert known.age < 60


def test_machines_that_work_in_one_folder_agree_in_the_end(machine: Machine, folder: str) -> None:
    drives = [machine("one"), machine("other")]

    def work(number: int) -> None:
        for turn in range(15):
            write(drives[number], (folder, f"{number}-{turn}"), b"x" * turn)
            if turn % 3 == 0:
                drives[number].remove((folder, f"{number}-{turn}"))
            drives[number].listing((folder,))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {f"{number}-{turn}": turn for number in range(2) for turn in range(15) if turn % 3}
    for drive in drives:
        until(lambda: {name: file.size for name, file in drive.listing((folder,)).items()} == expected)  # noqa: B023
        there = {file.name: file.size for file in _on_drive(drive, folder)}
        assert there == expected


def _on_drive(drive: Drive, folder: str) -> list:  # type: ignore[type-arg]
    async def listed() -> list:  # type: ignore[type-arg]
        return [file async for file in drive.api.list(drive.find((folder,)).id)]

    return wait(listed())
