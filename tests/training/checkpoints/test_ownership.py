"""One owner at a time: real processes that claim, sleep, die and come back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from haversack.errors import RunLost, RunTaken
from haversack.training import owned_run
from haversack.training.checkpoints.checkpoints import Checkpoints
from haversack.training.checkpoints.manifest import CheckpointManifest
from haversack.training.checkpoints.ownership import RunOwner
from haversack.training.checkpoints.remote import RemoteStore
from haversack.training.checkpoints.store import Link, LocalStore
from tests.training.programs.loop import is_whole, state


class Owner:
    """A session in another process; with a data folder of its own it is on another machine as far as disks go."""

    def __init__(self, where: str, data: Path | None = None, *, take: bool = False, failpoint: str = "") -> None:
        command = [sys.executable, "-m", "tests.training.programs.owner", "run", where, *(["take"] if take else [])]
        environment = {**os.environ, "HAVERSACK_FAILPOINT": failpoint}
        environment |= {"HAVERSACK_DATA": str(data)} if data else {}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, *words: object) -> None:
        assert self.process.stdin is not None
        for word in words:
            self.process.stdin.write(f"{word}\n")

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def says(self, *words: object) -> str:
        """Its answer to the last word."""
        said = ""
        for word in words:
            self.ask(word)
            said = self.answer()
        return said

    def wait_for_sleep(self) -> None:
        """Until its failpoint has put it to sleep."""
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def die(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    """A living session that has saved step 1."""
    running = Owner(str(tmp_path))
    assert running.says(1) == "done"
    yield running
    running.die()


def steps(where: Path) -> list[int]:
    return [checkpoint.step for checkpoint in Checkpoints("run", where).all()]


def test_a_second_session_is_told_who_where_and_since_when(owner: Owner, tmp_path: Path) -> None:
    with pytest.raises(RunTaken) as told:
        Checkpoints("run", tmp_path).save(2, state(2))
    assert f"process {owner.process.pid} on {os.uname().nodename}" in str(told.value)
    assert time.strftime("since %Y-%m-%d") in str(told.value)
    assert "take_over=True" in str(told.value)
    assert owner.says(2) == "done"


def test_looking_needs_no_ownership(owner: Owner, tmp_path: Path) -> None:
    restored = Checkpoints("run", tmp_path).restore()
    assert restored is not None
    assert restored.step == 1
    assert owner.says(2) == "done"


def test_a_run_whose_owner_died_is_free(owner: Owner, tmp_path: Path) -> None:
    owner.die()
    Checkpoints("run", tmp_path).save(2, state(2), wait=True)
    assert steps(tmp_path) == [1, 2]


def test_a_run_that_was_closed_is_free(tmp_path: Path) -> None:
    with Checkpoints("run", tmp_path) as first:
        first.save(1, state(1))
    second = Owner(str(tmp_path))
    assert second.says(2) == "done"
    second.die()


def test_the_former_owner_stops_and_can_commit_no_more(owner: Owner, tmp_path: Path) -> None:
    new = Checkpoints("run", tmp_path, take_over=True)
    new.claim()
    assert owner.says(2).startswith(f"RunLost: The run run was taken over by process {os.getpid()}")
    assert owner.says(3).startswith("RunLost")
    new.save(7, state(7), wait=True)
    assert steps(tmp_path) == [1, 7]


def test_an_owner_that_slept_while_its_successors_came_and_went(owner: Owner, tmp_path: Path) -> None:
    owner.process.send_signal(signal.SIGSTOP)
    new = Checkpoints("run", tmp_path, take_over=True)
    for step in range(10, 16):
        new.save(step, state(step), wait=True)
    owner.process.send_signal(signal.SIGCONT)
    assert owner.says(2).startswith("RunLost")
    new.save(16, state(16), wait=True)
    assert steps(tmp_path) == [14, 15, 16]


def test_a_new_object_in_the_same_process_goes_on_and_the_old_one_stops(tmp_path: Path) -> None:
    first, second = Checkpoints("run", tmp_path), Checkpoints("run", tmp_path)
    first.save(1, state(1), wait=True)
    second.save(2, state(2), wait=True)
    with pytest.raises(RunLost):
        first.save(3, state(3), wait=True)
    with pytest.raises(RunLost):
        first.save(4, state(4))
    assert steps(tmp_path) == [1, 2]


def elsewhere(folder: Path, heard: float) -> None:
    """A run that a session on another machine claimed at `heard`."""
    session = replace(RunOwner.of_this_process(), machine="another", host="camp-2", id="ab" * 8)
    store = LocalStore(folder / "run" / "checkpoints")
    store.commit_claim(CheckpointManifest("cd" * 8, "claim", session, heard, 1, 0), [])


@pytest.mark.parametrize("ahead", [-5.0, 1e6], ids=["lately", "in the future"])
def test_of_another_machine_the_time_tells_whether_it_seems_alive(tmp_path: Path, ahead: float) -> None:
    elsewhere(tmp_path, time.time() + ahead)
    with pytest.raises(RunTaken, match="on camp-2"):
        Checkpoints("run", tmp_path).claim()
    Checkpoints("run", tmp_path, take_over=True).claim()


def test_another_machine_that_said_nothing_for_long_is_taken_for_dead(tmp_path: Path) -> None:
    elsewhere(tmp_path, time.time() - 3600)
    Checkpoints("run", tmp_path).claim()


def test_a_process_of_the_same_number_is_not_the_owner(tmp_path: Path) -> None:
    session = replace(RunOwner.of_this_process(), started="1", id="ab" * 8)
    LocalStore(tmp_path / "run" / "checkpoints").commit_claim(
        CheckpointManifest("cd" * 8, "claim", session, time.time(), 1, 0), []
    )
    Checkpoints("run", tmp_path).claim()


def test_of_many_that_claim_at_once_the_chain_is_one_line(tmp_path: Path) -> None:
    owners = [Owner(str(tmp_path), take=True) for _ in range(4)]
    for owner in owners:
        owner.ask("claim", *range(1, 9))
    for owner in owners:
        for _ in range(9):
            owner.answer()
        owner.die()
    check_one_line(LocalStore(tmp_path / "run" / "checkpoints").links())


def check_one_line(links: list[Link]) -> None:
    """No place twice, and no session commits after another did."""
    numbers = [link.number for link in links]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    sessions = [link.manifest.session.id for link in links if link.manifest]
    changes = [one for one, before in zip(sessions, [None, *sessions], strict=False) if one != before]
    assert len(changes) == len(set(changes))


# Through a store that two machines share


@pytest.fixture(params=["file", "drive"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/store"
    request.getfixturevalue("hub")
    return f"drive://owners {tmp_path.name}"


def test_a_session_on_another_machine_is_told(shared: str, tmp_path: Path) -> None:
    first, second = Owner(shared, tmp_path / "first"), Owner(shared, tmp_path / "second")
    assert first.says(1) == "done"
    assert second.says(2).startswith(f"RunTaken: The run run belongs to process {first.process.pid}")
    assert first.says(2) == "done"
    first.die()
    assert second.says(3) == "done"
    second.die()


def test_taken_over_on_another_machine_the_first_stops(shared: str, tmp_path: Path) -> None:
    first, second = Owner(shared, tmp_path / "first"), Owner(shared, tmp_path / "second", take=True)
    assert first.says(1, 2) == "done"
    first.process.send_signal(signal.SIGSTOP)
    assert second.says(10, 11, 12, 13, 14) == "done"
    first.process.send_signal(signal.SIGCONT)
    assert first.says(3).startswith(f"RunLost: The run run was taken over by process {second.process.pid}")
    assert second.says(15) == "done"
    first.die()
    second.die()
    restored = Checkpoints("run", shared).restore()
    assert restored is not None
    assert (restored.step, is_whole(restored.tree)) == (15, True)


def test_back_on_the_first_machine_the_newest_is_the_others(shared: str, tmp_path: Path) -> None:
    first, second = Owner(shared, tmp_path / "first"), Owner(shared, tmp_path / "second", take=True)
    assert first.says(500) == "done"
    first.die()
    assert second.says(300) == "done"
    second.die()
    third = Owner(shared, tmp_path / "first")
    assert third.says("claim") == "done"
    third.die()
    shutil.copytree(tmp_path / "first", os.environ["HAVERSACK_DATA"])
    restored = Checkpoints("run", shared).restore()
    assert restored is not None
    assert restored.step == 300


def test_of_two_machines_that_begin_at_once_one_goes_on(shared: str, tmp_path: Path) -> None:
    owners = [Owner(shared, tmp_path / str(number), take=True) for number in range(2)]
    for owner in owners:
        owner.ask("claim", *range(1, 6))
    for owner in owners:
        for _ in range(6):
            owner.answer()
        owner.die()
    check_one_line(RemoteStore(shared, "run").links())
    restored = Checkpoints("run", shared).restore()
    assert restored is None or is_whole(restored.tree)


@pytest.mark.parametrize("whole", [True, False], ids=["made whole meanwhile", "never whole"])
def test_a_link_that_was_passed_over_is_looked_at_again(tmp_path: Path, whole: bool) -> None:
    store, link = f"file://{tmp_path}/store", tmp_path / "store" / "run" / "00000003.json"
    first = Owner(store, failpoint="after-remote-manifest:3:SIGSTOP")
    assert first.says("claim", 1) == "done"
    link.touch()  # another session begins to make it
    first.ask(2)
    first.wait_for_sleep()
    assert link.with_name("00000004.json").exists()
    if whole:
        theirs = replace(RunOwner.of_this_process(), machine="another", host="camp-2")
        link.write_bytes(CheckpointManifest("cd" * 8, "claim", theirs, time.time(), 2, 1, number=3).encode())
    first.process.send_signal(signal.SIGCONT)
    assert first.answer().startswith("RunLost: The run run was taken over by process" if whole else "done")
    assert link.with_name("00000004.json").exists() is not whole
    first.die()


def test_a_save_that_came_before_the_run_was_taken_is_seen(tmp_path: Path) -> None:
    first, second = Checkpoints("run", tmp_path), Checkpoints("run", tmp_path, take_over=True)
    assert not owned_run.has_newer(second, None)
    first.save(1, state(1), wait=True)
    restored = second.restore()
    assert owned_run.has_newer(second, None)
    assert not owned_run.has_newer(second, restored)
    first.save(2, state(2), wait=True)
    second.claim()
    assert owned_run.has_newer(second, restored)
    (tmp_path / "run" / "checkpoints" / "00000003" / "state.safetensors").write_bytes(b"")
    with pytest.warns(match="passed over"):
        assert not owned_run.has_newer(second, second.restore())
