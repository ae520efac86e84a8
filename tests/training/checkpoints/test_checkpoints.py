from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import haversack
from haversack import disk
from haversack.errors import DiskFull, InputError, IntegrityError, NotFound, RunLost, TrainingError
from haversack.training.checkpoints.checkpoints import Checkpoints
from tests.training.programs.loop import is_whole, state


@pytest.fixture
def run(tmp_path: Path) -> Checkpoints:
    return Checkpoints("run", tmp_path)


def folders(run: Checkpoints) -> list[Path]:
    """The folders of the checkpoints, oldest first."""
    return [Path(checkpoint.where) for checkpoint in run.all()]


def saved(run: Checkpoints, *steps: int) -> Checkpoints:
    for step in steps:
        run.save(step, state(step), wait=True)
    return run


def test_what_is_saved_is_restored(run: Checkpoints) -> None:
    run.save(3, {"a": np.arange(6.0).reshape(2, 3), "b": [1, None]}, facts={"seed": 7}, wait=True)
    restored = run.restore()
    assert restored is not None
    assert restored.step == 3
    assert restored.facts == {"seed": 7}
    assert restored.tree["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert restored.tree["b"] == [1, None]


def test_a_run_that_never_saved_has_nothing(run: Checkpoints) -> None:
    assert run.restore() is None
    assert run.latest is None
    assert run.all() == []
    assert not run.folder.exists()


def test_looking_writes_nothing(run: Checkpoints) -> None:
    saved(run, 1).close()
    before = sorted(run.folder.rglob("*"))
    looking = Checkpoints("run", run.folder.parent)
    looking.restore()
    looking.close()
    assert sorted(run.folder.rglob("*")) == before


def test_what_the_loop_does_after_save_returned_is_not_saved(run: Checkpoints) -> None:
    weights = np.ones(5_000_000, np.float32)
    run.save(1, {"weights": weights})
    weights[:] = 2
    run.save(2, {"weights": weights})
    weights[:] = 3
    run.wait()
    assert [(run.restore(step=step).tree["weights"] == step).all() for step in (1, 2)] == [True, True]  # type: ignore[union-attr]


def test_the_default_place_is_the_data_folder(own_folders: Path) -> None:
    saved(Checkpoints("here"), 1).close()
    assert (own_folders / "data" / "runs" / "here" / "checkpoints").is_dir()


def test_the_newest_are_kept(run: Checkpoints) -> None:
    assert [checkpoint.step for checkpoint in saved(run, 1, 2, 3, 4, 5).all()] == [3, 4, 5]


def test_the_best_is_kept_until_there_is_a_better_one(run: Checkpoints) -> None:
    for step in range(8):
        run.save(step, state(step), best=step in (0, 2), wait=True)
    assert [checkpoint.step for checkpoint in run.all()] == [2, 5, 6, 7]


def test_the_last_one_that_has_not_diverged_is_kept_and_can_be_restored(run: Checkpoints) -> None:
    for step in range(8):
        run.save(step, state(step), diverged=step > 1, wait=True)
    assert [checkpoint.step for checkpoint in run.all()] == [1, 5, 6, 7]
    restored = run.restore(diverged=False)
    assert restored is not None
    assert (restored.step, restored.checkpoint.diverged) == (1, False)


def test_milestones_are_kept(run: Checkpoints) -> None:
    for step in range(6):
        run.save(step, state(step), milestone=step < 2, wait=True)
    assert [checkpoint.step for checkpoint in run.all()] == [0, 1, 3, 4, 5]


def test_a_folder_that_is_not_ours_is_left_alone(run: Checkpoints) -> None:
    saved(run, 1)
    foreign = run.folder / "checkpoints" / "mine"
    foreign.mkdir()
    saved(run, 2, 3, 4, 5)
    assert foreign.is_dir()


def test_what_falls_out_is_gone_from_the_disk(run: Checkpoints) -> None:
    saved(run, 1, 2, 3, 4, 5)
    assert len(list(run.folder.rglob("*.safetensors"))) == 3


def truncated(folder: Path) -> None:
    file = folder / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flipped(folder: Path) -> None:
    content = bytearray((folder / "state.safetensors").read_bytes())
    content[-1000] ^= 1
    (folder / "state.safetensors").write_bytes(content)


def without_its_arrays(folder: Path) -> None:
    (folder / "state.safetensors").unlink()


def without_its_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def with_a_cut_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes()[:99])


def with_another_number_in_its_manifest(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"step": 3', '"step": 4'))


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        flipped,
        without_its_arrays,
        without_its_manifest,
        with_a_cut_manifest,
        with_another_number_in_its_manifest,
    ],
)
def test_a_checkpoint_that_is_not_whole_is_passed_over_and_said(run: Checkpoints, damage: object) -> None:
    damage(folders(saved(run, 1, 2, 3))[-1])  # type: ignore[operator]
    with pytest.warns(UserWarning, match="passed over"):
        restored = run.restore()
    assert restored is not None
    assert (restored.step, is_whole(restored.tree), len(restored.passed_over)) == (2, True, 1)


def test_in_a_store_that_never_got_the_last_bytes_the_one_before_is_taken(tmp_path: Path, own_folders: Path) -> None:
    store = tmp_path / "store"
    with Checkpoints("run", f"file://{store}") as run:
        saved(run, 1, 2)
    latest = max(store.glob("run/*.safetensors"), key=os.path.getmtime)
    os.truncate(latest, latest.stat().st_size - 4096)
    shutil.rmtree(own_folders / "data" / "runs")
    with pytest.warns(UserWarning, match="bytes instead of"):
        restored = Checkpoints("run", f"file://{store}").restore()
    assert restored is not None
    assert (restored.step, is_whole(restored.tree)) == (1, True)


def test_after_a_damage_the_next_save_is_the_newest(run: Checkpoints) -> None:
    saved(run, 1, 2, 3).close()
    without_its_manifest(folders(run)[-1])
    saved(Checkpoints("run", run.folder.parent), 3).close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        restored = run.restore()
    assert restored is not None
    assert restored.step == 3


def test_when_none_is_whole_it_says_so(run: Checkpoints) -> None:
    for folder in folders(saved(run, 1, 2)):
        flipped(folder)
    with pytest.warns(match="passed over"), pytest.raises(IntegrityError, match="None of the 2"):
        run.restore()


def test_an_older_step_can_be_had_and_gone_on_from(run: Checkpoints) -> None:
    saved(run, 1, 2, 3)
    older = run.restore(step=1)
    assert older is not None
    saved(run, older.step + 1)
    assert run.latest is not None
    assert [checkpoint.step for checkpoint in run.all()] == [2, 3, 2]


def test_a_step_that_is_not_there(run: Checkpoints) -> None:
    with pytest.raises(NotFound, match="no checkpoint of step 9"):
        saved(run, 1).restore(step=9)


def test_a_step_can_be_deleted(run: Checkpoints) -> None:
    saved(run, 1, 2).delete(2)
    assert [checkpoint.step for checkpoint in run.all()] == [1]
    with pytest.raises(NotFound):
        run.delete(2)


def test_a_checkpoint_says_what_it_is(run: Checkpoints) -> None:
    run.save(4, state(4), best=True, facts={"loss": 0.5}, wait=True)
    latest = run.latest
    assert latest is not None
    assert (latest.step, latest.best, latest.milestone, latest.facts) == (4, True, False, {"loss": 0.5})
    assert latest.size == sum(file.stat().st_size for file in Path(latest.where).glob("*.safetensors"))


def test_a_run_that_was_moved_away_is_not_written_into_the_new_one(run: Checkpoints) -> None:
    saved(run, 1, 2, 3)
    run.folder.rename(run.folder.with_name("before"))
    with pytest.raises(RunLost, match="were moved or deleted"):
        saved(run, 4)
    assert not list(run.folder.rglob("*.safetensors"))


def test_a_run_begun_anew_under_the_name_is_not_disturbed_by_the_one_before(run: Checkpoints) -> None:
    saved(run, 1, 2, 3, 4, 5, 6)
    run.folder.rename(run.folder.with_name("before"))
    new = saved(Checkpoints("run", run.folder.parent), 1)
    with pytest.raises(RunLost):
        saved(run, 7)
    saved(new, 2)
    assert [checkpoint.step for checkpoint in new.all()] == [1, 2]


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "a\nb", "C:", "x" * 300])
def test_a_name_that_would_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of a run"):
        Checkpoints(name)


@pytest.mark.parametrize("facts", [{"a": float("nan")}, {"a": object()}])
def test_facts_that_are_no_json_are_refused(run: Checkpoints, facts: dict) -> None:
    with pytest.raises(InputError, match="facts"):
        run.save(1, {}, facts=facts)


def test_a_tree_that_cannot_be_saved_leaves_the_run_as_it_was(run: Checkpoints) -> None:
    with pytest.raises(InputError, match="a/b is of type object"):
        saved(run, 1).save(2, {"a": {"b": object()}})
    assert [checkpoint.step for checkpoint in run.all()] == [1]


def test_after_close_it_can_be_used_again(run: Checkpoints) -> None:
    saved(run, 1).close()
    saved(run, 2).close()
    assert [checkpoint.step for checkpoint in run.all()] == [1, 2]


def test_it_is_haversacks_own_name() -> None:
    assert haversack.Checkpoints is Checkpoints


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_on_a_full_disk_the_loop_goes_on_and_the_next_save_works(small_disk: Path) -> None:
    run = saved(Checkpoints("run", small_disk), 1)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(4 << 20))
    run.save(2, state(2))
    with pytest.raises(DiskFull, match="step 2 of the run run was not written"):
        run.save(3, state(3))
    filler.unlink()
    saved(run, 3)
    assert [checkpoint.step for checkpoint in run.all()] == [1, 3]
    assert not [path for path in (run.folder / "checkpoints").iterdir() if path.name.startswith(".")]
    restored = run.restore()
    assert restored is not None
    assert is_whole(restored.tree)


def test_a_disk_that_is_full_from_the_start_is_said_at_once(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(8 << 20))
    with pytest.raises(DiskFull, match="the claim of the run run was not written"):
        Checkpoints("run", small_disk).save(1, state(1))


def test_an_interrupted_wait_keeps_what_is_being_written_whole(run: Checkpoints) -> None:
    first, second = np.ones(5_000_000), np.full(5_000_000, 2.0)
    run.save(1, first)
    timer = threading.Timer(0.01, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
    timer.start()
    with contextlib.suppress(KeyboardInterrupt):
        run.wait()
        timer.join()
    run.save(2, second, wait=True)
    assert [(run.restore(step=step).tree == step).all() for step in (1, 2)] == [True, True]  # type: ignore[union-attr]


def test_a_save_that_could_not_be_synced_leaves_nothing_and_the_next_works(
    run: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(run, 1)

    def fail(folder: Path) -> None:
        if folder == run.folder / "checkpoints":
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(disk, "sync_folder", fail)
        with pytest.raises(TrainingError, match="checkpoint of step 2 of the run run could not be written"):
            run.save(2, state(2), wait=True)
    assert [checkpoint.step for checkpoint in run.all()] == [1]
    assert [checkpoint.step for checkpoint in saved(run, 3).all()] == [1, 3]


def test_deleting_from_a_run_that_was_taken_over_says_who_has_it(run: Checkpoints, tmp_path: Path) -> None:
    saved(run, 1, 2)
    other = Checkpoints("run", tmp_path, take_over=True)
    other.claim()
    with pytest.raises(RunLost):
        run.delete(1)


def test_deleting_on_a_disk_that_fails_is_one_error(run: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(run, 1, 2)

    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(disk, "sync_folder", fail)
    with pytest.raises(TrainingError, match="deletion of step 1 of the run run could not be written"):
        run.delete(1)
