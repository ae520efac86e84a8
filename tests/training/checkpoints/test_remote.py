"""The store that outlives the machine: in memory, in a folder behind a URL, and on a real hub."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from haversack.drive.filesystem import DriveFileSystem
from haversack.errors import ConnectionFailed, IntegrityError, RunLost
from haversack.notebook.clients import filesystem
from haversack.training.checkpoints.checkpoints import Checkpoints
from tests.conftest import RunningHub, seeds
from tests.training.programs import loop
from tests.training.programs.loop import is_whole, state


@pytest.fixture(params=["memory", "file", "drive", "drive of a process"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty store; "drive of a process" is the drive as a kernel sees it whose clients are apart."""
    if request.param.startswith("drive"):
        request.getfixturevalue("hub")
        if request.param != "drive":
            request.getfixturevalue("apart")
        yield f"drive://runs of {tmp_path.name}"
    else:
        yield {"memory": "memory://runs", "file": f"file://{tmp_path}/store"}[request.param]
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def apart(hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`drive://` is carried out by another process, here and in the processes of this test."""
    monkeypatch.setenv("HAVERSACK_CLIENTS", "process")
    filesystem.register()
    yield
    filesystem.close()
    fsspec.register_implementation("drive", DriveFileSystem, clobber=True)


@pytest.fixture
def another_machine(own_folders: Path) -> Path:
    """Call it a new machine: what was in the data folder is gone when this is removed."""
    return own_folders / "data"


def saved(run: Checkpoints, *steps: int) -> Checkpoints:
    for step in steps:
        run.save(step, state(step), wait=True)
    return run


def stored(where: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(f"{where}/run")
    files.invalidate_cache(root)
    return sorted(path.rpartition("/")[2] for path in files.ls(root, detail=False))


def test_a_new_machine_goes_on_from_the_store(where: str, another_machine: Path) -> None:
    saved(Checkpoints("run", where), 1, 2, 3).close()
    shutil.rmtree(another_machine / "runs")
    run = Checkpoints("run", where)
    restored = run.restore()
    assert restored is not None
    assert (restored.step, is_whole(restored.tree)) == (3, True)
    saved(run, 4).close()
    assert [checkpoint.step for checkpoint in Checkpoints("run", where).all()] == [2, 3, 4]


def test_the_store_keeps_what_is_to_be_kept_and_no_more(where: str) -> None:
    run = Checkpoints("run", where, keep=2)
    for step in range(7):
        run.save(step, state(step), best=step == 1, milestone=step == 2, wait=True)
    run.close()
    assert len([name for name in stored(where) if name.endswith(".safetensors")]) == 4
    assert len([name for name in stored(where) if name.endswith(".json")]) == 5  # and that the session ended


def test_a_file_that_is_not_ours_stays(where: str) -> None:
    files, root = fsspec.core.url_to_fs(f"{where}/run")
    files.makedirs(root, exist_ok=True)
    files.pipe_file(f"{root}/notes.txt", b"mine")
    saved(Checkpoints("run", where), 1, 2, 3, 4, 5).close()
    assert "notes.txt" in stored(where)


def test_a_copy_here_that_is_broken_is_replaced_by_the_one_there(where: str) -> None:
    run = saved(Checkpoints("run", where), 1, 2)
    latest = run.latest
    assert latest is not None
    (Path(latest.where) / "state.safetensors").write_bytes(b"")
    with pytest.warns(match="passed over"):
        restored = run.restore()
    assert restored is not None
    assert (restored.step, is_whole(restored.tree), len(restored.passed_over)) == (2, True, 1)


def test_one_there_that_is_broken_is_passed_over(where: str, another_machine: Path) -> None:
    saved(Checkpoints("run", where), 1, 2).close()
    shutil.rmtree(another_machine / "runs")
    files, root = fsspec.core.url_to_fs(f"{where}/run")
    latest = Checkpoints("run", where).latest
    assert latest is not None
    files.pipe_file(f"{root}/{latest.id}.safetensors", b"other bytes")
    with pytest.warns(match="passed over"):
        restored = Checkpoints("run", where).restore()
    assert restored is not None
    assert restored.step == 1


def test_a_deleted_step_is_gone_from_both(where: str) -> None:
    run = saved(Checkpoints("run", where), 1, 2)
    run.delete(2)
    assert [checkpoint.step for checkpoint in run.all()] == [1]
    assert len([name for name in stored(where) if name.endswith(".safetensors")]) == 1
    saved(run, 3).close()


def test_looking_at_a_store_that_is_empty(where: str) -> None:
    assert Checkpoints("run", where).all() == []
    assert Checkpoints("run", where).restore() is None


def test_a_run_that_was_moved_away_there_is_not_written_into_the_new_one(where: str) -> None:
    run = saved(Checkpoints("run", where), 1, 2, 3, 4, 5, 6)
    files, root = fsspec.core.url_to_fs(where)
    files.mv(f"{root}/run", f"{root}/before", recursive=True)
    run.folder.rename(run.folder.with_name("before"))
    new = saved(Checkpoints("run", where), 1)
    with pytest.raises(RunLost):
        saved(run, 7)
    saved(new, 2).close()
    assert [checkpoint.step for checkpoint in Checkpoints("run", where).all()] == [1, 2]


@pytest.mark.parametrize("seed", seeds(1, 4))
def test_killed_at_random_a_new_machine_gets_what_was_committed(where: str, another_machine: Path, seed: int) -> None:
    if where.startswith("memory"):
        pytest.skip("memory ends with its process")
    command = [sys.executable, "-m", "tests.training.programs.loop", "run", where, "1", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(random.Random(seed).uniform(0.0, 0.5))
    process.kill()
    printed = process.stdout.read().split()
    process.wait()
    shutil.rmtree(another_machine / "runs")
    restored = Checkpoints("run", where).restore()
    assert restored is not None
    assert is_whole(restored.tree)
    assert restored.step >= int(printed[-1] if printed else 1)


def test_after_a_link_that_cannot_be_read_the_chain_goes_on(where: str) -> None:
    saved(Checkpoints("run", where), 1).close()
    files, root = fsspec.core.url_to_fs(f"{where}/run")
    newest = [name for name in stored(where) if name.endswith(".json")][-1]
    files.pipe_file(f"{root}/{newest}", b"{")
    saved(Checkpoints("run", where), 2).close()
    saved(Checkpoints("run", where), 3).close()
    assert [checkpoint.step for checkpoint in Checkpoints("run", where).all()] == [1, 2, 3]


# A store that is away


@pytest.fixture
def away(tmp_path: Path) -> str:
    """A store that does not answer: a file stands where its folder belongs."""
    (tmp_path / "store").write_text("")
    return f"file://{tmp_path}/store"


def back(where: str) -> None:
    place = Path(where.removeprefix("file://"))
    place.unlink()
    place.mkdir()


def test_the_loop_goes_on_while_the_store_is_away_and_it_is_said_once(
    away: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = Checkpoints("run", away)
    with caplog.at_level(logging.WARNING, "haversack"):
        for step in range(5):
            run.save(step, state(step))
        with pytest.raises(ConnectionFailed):
            run.close()
    assert [checkpoint.step for checkpoint in Checkpoints("run").all()] == [2, 3, 4]
    assert len([record for record in caplog.records if "replicated once it works again" in record.message]) == 1


def test_a_store_that_is_back_catches_up(away: str, another_machine: Path) -> None:
    run = Checkpoints("run", away)
    for step in range(3):
        run.save(step, state(step), milestone=step == 0)
    with pytest.raises(ConnectionFailed):
        run.wait()
    back(away)
    saved(run, 3).close()
    shutil.rmtree(another_machine / "runs")
    assert [checkpoint.step for checkpoint in Checkpoints("run", away).all()] == [0, 3]


def test_a_session_that_ended_while_the_store_was_away_is_caught_up_by_the_next(
    away: str, another_machine: Path
) -> None:
    with pytest.raises(ConnectionFailed):
        saved(Checkpoints("run", away), 1)
    back(away)
    with Checkpoints("run", away) as run:
        run.claim()
    shutil.rmtree(another_machine / "runs")
    restored = Checkpoints("run", away).restore()
    assert restored is not None
    assert restored.step == 1


def test_a_store_that_is_away_when_nothing_is_here_is_an_error(away: str) -> None:
    with pytest.raises(ConnectionFailed):
        Checkpoints("run", away).restore()


def test_what_was_overtaken_on_another_machine_is_not_sent_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, store = f"file://{tmp_path}/store", tmp_path / "store"
    first = saved(Checkpoints("run", where), 1)
    store.rename(tmp_path / "unplugged")
    store.write_text("")
    first.save(2, state(2))
    with pytest.raises(ConnectionFailed):
        first.close()
    store.unlink()
    (tmp_path / "unplugged").rename(store)
    with monkeypatch.context() as second_machine:
        second_machine.setenv("HAVERSACK_DATA", str(tmp_path / "second"))
        saved(Checkpoints("run", where, take_over=True), 10).close()
    back_again = Checkpoints("run", where)
    restored = back_again.restore()
    assert restored is not None
    assert restored.step == 10
    back_again.claim()
    back_again.close()
    assert len([name for name in stored(where) if name.endswith(".safetensors")]) == 2


def test_saves_go_on_while_a_hub_stalls(own_hub: RunningHub, own_folders: Path) -> None:
    run = saved(Checkpoints("run", "drive://runs"), 1)
    own_hub.process.send_signal(signal.SIGSTOP)
    run.save(2, state(2))
    run.save(3, state(3))
    own_hub.process.send_signal(signal.SIGCONT)
    run.close()
    shutil.rmtree(own_folders / "data" / "runs")
    restored = Checkpoints("run", "drive://runs").restore()
    assert restored is not None
    assert restored.step == 3


def test_what_falls_out_of_a_drive_is_not_in_its_trash(own_hub: RunningHub) -> None:
    saved(Checkpoints("run", "drive://runs", keep=1), 1, 2, 3).close()
    assert len(list(own_hub.root.rglob("*.safetensors"))) == 1


# Killed

KILLED_AT = ["before-upload:3", "before-remote-manifest:4", "after-remote-manifest:4", "during-remote-removal:1"]


@pytest.mark.parametrize("failpoint", KILLED_AT)
@pytest.mark.parametrize("kind", ["file", "drive"])
def test_killed_there_a_new_machine_gets_a_whole_state(
    kind: str, failpoint: str, tmp_path: Path, request: pytest.FixtureRequest, another_machine: Path
) -> None:
    if kind == "drive":
        request.getfixturevalue("hub")
    where = f"drive://killed {tmp_path.name}" if kind == "drive" else f"file://{tmp_path}/store"
    printed = killed(where, failpoint)
    shutil.rmtree(another_machine / "runs")
    run = Checkpoints("run", where, take_over=True)
    restored = run.restore()
    assert restored is not None
    assert loop.is_whole(restored.tree)
    assert restored.step >= printed
    assert restored.passed_over == []
    saved(run, restored.step + 1, restored.step + 2, restored.step + 3).close()
    named = {checkpoint.id for checkpoint in run.all()}
    assert {name.split(".")[0] for name in stored(where) if name.endswith(".safetensors")} <= named


def killed(where: str, failpoint: str) -> int:
    """Run the loop until it dies; the last step that it said was committed."""
    command = [sys.executable, "-m", "tests.training.programs.loop", "run", where, "1", "9"]
    done = subprocess.run(
        command, env={**os.environ, "HAVERSACK_FAILPOINT": failpoint}, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    return int(done.stdout.split()[-1])


def test_arrays_that_are_gone_from_the_store_are_said(where: str, another_machine: Path) -> None:
    saved(Checkpoints("run", where), 1).close()
    shutil.rmtree(another_machine / "runs")
    files, root = fsspec.core.url_to_fs(f"{where}/run")
    for path in files.glob(f"{root}/*.safetensors"):
        files.rm_file(path)
    with pytest.warns(match="passed over"), pytest.raises(IntegrityError):
        Checkpoints("run", where).restore()
