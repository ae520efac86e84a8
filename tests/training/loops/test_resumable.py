"""Loops over plain iterables, with state of numpy and JAX, go on where they were; the rest is said."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import haversack
from haversack import runs
from haversack.errors import InputError, RunTaken, TrainingError
from haversack.training.loops import loop, resumable
from haversack.training.loops.loop import ResumableLoop
from haversack.training.rhythm import Rhythm

PROGRAM = Path(__file__).parents[1] / "programs" / "loops.py"
KINDS = ["drawn", "state", "iterator", "range"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each kind of loop ended with, unbroken and killed."""
    command = [sys.executable, str(PROGRAM), str(tmp_path_factory.mktemp("loops")), *KINDS]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_is_killed_ends_with_the_same_bits(killed: dict[str, Any], kind: str) -> None:
    assert killed[kind]["unbroken"]["status"] == [0], killed[kind]["unbroken"]["printed"]
    assert killed[kind]["killed"]["status"] == [-9, -9, -9, 0], killed[kind]["killed"]["printed"]
    assert killed[kind]["killed"]["result"] == killed[kind]["unbroken"]["result"]


def test_a_loop_resumes_inside_its_epochs(killed: dict[str, Any]) -> None:
    printed = "".join(killed["drawn"]["killed"]["printed"])
    assert printed.count("haversack: drawn: resumed at epoch") == 3
    assert "step 0;" not in printed
    assert "other batches" not in printed


def test_epochs_that_the_users_code_counts_are_passed_over_and_it_says_so(killed: dict[str, Any]) -> None:
    assert "write `for epoch in run.epochs(…):`" in killed["range"]["killed"]["printed"][-1]


@pytest.fixture(autouse=True)
def save_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RHYTHM", Rhythm(first=0.0, share=0.0, shortest=0.0, largest_share=0.0))


DATA = [np.full(2, number, np.float64) for number in range(5)]


class Left(Exception):
    pass


def train(
    weights: np.ndarray, epochs: int = 3, leave_at: int = 0, data: Any = DATA, **given: Any
) -> tuple[ResumableLoop, list[int]]:
    """Add the batches to `weights`; leave the loop in the batch number `leave_at` of this call. Returns the batches."""
    run = haversack.resumable(data, name="sums", weights=weights, **given)
    trained: list[int] = []
    assert isinstance(run, ResumableLoop)
    try:
        for _ in run.epochs(epochs):
            for batch in run:
                run._run.checkpoints.wait()
                trained.append(int(batch[0]))
                if len(trained) == leave_at:
                    raise Left
                weights *= 1.5
                weights += batch
    except Left:
        pass
    return run, trained


def test_a_loop_that_is_left_goes_on_after_the_last_batch_that_was_done() -> None:
    whole, parts = np.zeros(2), np.zeros(2)
    train(whole, name_of_a_list=[])
    runs_before = haversack.Checkpoints("sums").latest
    assert runs_before is not None
    _, first = train(parts, leave_at=8, restart=True, name_of_a_list=[])
    parts[:] = -1.0
    _, second = train(parts, name_of_a_list=[])
    assert (first[-1], second[0]) == (2, 2)
    assert (whole == parts).all()


def test_a_finished_run_has_a_hash_of_its_end() -> None:
    digests = []
    for epochs, leave_at in ((3, 0), (3, 8), (2, 0)):
        weights = np.zeros(2)
        train(weights, epochs, leave_at, restart=True)
        if leave_at:
            assert runs.show("sums").digest == ""
            train(weights, epochs)
        digests.append(runs.show("sums").digest)
    whole, resumed, shorter = digests
    assert len(whole) == 32
    assert whole == resumed != shorter


def test_a_finished_run_is_loaded_and_more_epochs_go_on() -> None:
    first, second, third = np.zeros(2), np.zeros(2), np.zeros(2)
    train(first)
    assert train(second)[1] == []
    assert (first == second).all()
    assert train(third, epochs=4)[1] == [0, 1, 2, 3, 4]


class Interrupted:
    """Batches in an order that is drawn when a pass is opened; a signal comes while the second pass is opened."""

    def __init__(self, at: int) -> None:
        self.at, self.passes = at, 0

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[np.ndarray]:
        self.passes += 1
        order = np.random.permutation(5)
        if self.passes == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return (DATA[index] for index in order)


def test_a_signal_while_a_pass_is_opened_waits_for_its_first_batch() -> None:
    def sums(name: str, at: int) -> np.ndarray:
        np.random.seed(1)
        weights = np.zeros(2)
        run = haversack.resumable(Interrupted(at), name=name, weights=weights)
        for _ in run.epochs(3):
            for batch in run:
                weights *= 1.5
                weights += batch
        return weights

    unbroken = sums("quiet", at=0)
    with pytest.raises(KeyboardInterrupt):
        sums("signalled", at=2)
    assert (sums("signalled", at=0) == unbroken).all()
    assert runs.show("signalled").sessions[1].resumed == (1, 1)


def test_fewer_epochs_than_were_trained_load_the_state_that_was_reached() -> None:
    first, second = np.zeros(2), np.zeros(2)
    train(first, leave_at=13)
    assert train(second, epochs=1)[1] == []
    assert second.any()


def test_a_run_is_listed_with_its_framework_and_what_was_logged() -> None:
    run = haversack.resumable(DATA, name="listed", total=[])
    for _ in run.epochs(2):
        for _ in run:
            pass
        run.log(loss=0.5)
    shown = runs.show("listed")
    assert (shown.framework, shown.finished, shown.steps) == ("python", True, 5)
    assert [epoch.logs for epoch in shown.epochs] == [{"loss": 0.5}] * 2


def test_a_loop_that_stops_itself_is_finished() -> None:
    run = haversack.resumable(DATA, name="stopped", total=[])
    for epoch in run.epochs(10):
        for _ in run:
            pass
        if epoch == 1:
            run.stop()
    assert runs.show("stopped").finished
    assert list(haversack.resumable(DATA, name="stopped", total=[]).epochs(10)) == []


def step(state: dict[str, Any], batch: np.ndarray) -> dict[str, Any]:
    key, drawn = jax.random.split(state["key"])
    return {"key": key, "sum": state["sum"] + batch.sum() * jax.random.uniform(drawn), "count": state["count"] + 1}


def train_jax(name: str, leave_at: int = 0) -> dict[str, Any]:
    state = {"key": jax.random.key(3), "sum": jnp.zeros(()), "count": 0}
    run = haversack.resumable(DATA, name=name, state=state)
    for _ in run.epochs(2):
        for number, batch in run.enumerate():
            run._run.checkpoints.wait()
            if leave_at and number + 1 == leave_at:
                run.close()
                return run.state
            run.state = step(run.state, batch)
    return run.state


def test_a_loop_whose_epochs_the_users_code_counts_is_saved_at_its_end() -> None:
    def sums() -> np.ndarray:
        weights = np.zeros(2)
        for batch in haversack.resumable(DATA, name="once", weights=weights):
            weights *= 1.5
            weights += batch
        return weights

    first = sums()
    assert (sums() == first).all()
    assert runs.show("once").sessions[1].resumed == (0, 5)


def test_a_pytree_of_jax_is_handed_back() -> None:
    unbroken = train_jax("unbroken")
    train_jax("broken", leave_at=4)
    state = train_jax("broken")
    assert isinstance(state["sum"], jax.Array)
    assert (state["sum"], state["count"]) == (unbroken["sum"], 10)
    assert jax.random.key_data(state["key"]).tolist() == jax.random.key_data(unbroken["key"]).tolist()
    assert runs.show("broken").framework == "jax"


def test_a_state_that_diverged_is_said_and_not_saved(capfd: pytest.CaptureFixture[str]) -> None:
    run = haversack.resumable(DATA, name="diverged", state={"w": jnp.ones(2), "best": np.inf})
    for _ in run.epochs(1):
        for number, _ in run.enumerate():
            run._run.checkpoints.wait()
            if number == 2:
                run.state = {"w": run.state["w"] * jnp.nan, "best": 1.0}
    assert "diverged: state: NaN or infinity among the numbers at epoch 1, step 3" in capfd.readouterr().err
    again = haversack.resumable(DATA, name="diverged", state={"w": jnp.zeros(2), "best": 0.0})
    epochs = again.epochs(1)
    next(epochs)
    assert len(list(again)) in (3, 4)
    assert again.state["w"].tolist() == [1.0, 1.0]


def counted(run: Any, how: str) -> Iterator[Any]:
    return {
        "enumerate": lambda: enumerate(run),
        "zip": lambda: zip(range(5), run, strict=False),
        "through a generator": lambda: enumerate(through(run)),
    }[how]()


def through(batches: Any) -> Iterator[Any]:
    """As tqdm does."""
    iterable = batches
    yield from iterable


@pytest.mark.parametrize("how", ["enumerate", "zip", "through a generator"])
def test_counting_from_zero_saves_between_epochs_only(capfd: pytest.CaptureFixture[str], how: str) -> None:
    run = haversack.resumable(DATA, name="counted", total=[])
    for _ in run.epochs(2):
        for _, _ in counted(run, how):
            run._run.checkpoints.wait()
    assert "saved between epochs only" in capfd.readouterr().err
    steps = {json.loads(line).get("step") for line in (run._run.checkpoints.folder / "log.jsonl").open()}
    assert steps <= {None, 0}


def test_counting_from_zero_is_refused_in_the_middle_of_an_epoch() -> None:
    weights = np.zeros(2)
    train(weights, leave_at=3)
    run = haversack.resumable(DATA, name="sums", weights=weights)
    epochs = run.epochs(3)
    next(epochs)
    with pytest.raises(TrainingError, match="would count its batches from 0"):
        next(enumerate(run))


def test_batches_have_their_numbers_in_an_epoch_that_is_resumed() -> None:
    weights = np.zeros(2)
    train(weights, leave_at=3)
    run = haversack.resumable(DATA, name="sums", weights=weights)
    epochs = run.epochs(1)
    next(epochs)
    assert [(number, int(batch[0])) for number, batch in run.enumerate()] == [(2, 2), (3, 3), (4, 4)]


def test_a_source_with_other_batches_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    train(np.zeros(2), leave_at=4)
    train(np.zeros(2), data=[batch + 7 for batch in DATA])
    assert "the source yields other batches than in the session before" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [({"data": DATA[:3]}, "other data: batches 5, now 3"), ({"more": []}, "other objects: more none, now list")],
)
def test_other_data_and_other_objects_are_refused(change: dict[str, Any], words: str) -> None:
    train(np.zeros(2), leave_at=4)
    with pytest.raises(TrainingError, match=words):
        train(np.zeros(2), **change)


def test_an_array_of_another_shape_is_refused() -> None:
    train(np.zeros(2), leave_at=4)
    with pytest.raises(TrainingError, match=r"weights is float64 of shape \(1, 2\)"):
        train(np.zeros((1, 2)))


@pytest.mark.parametrize("value", [object(), (1, 2), 3.0], ids=["object", "tuple", "number"])
def test_what_cannot_be_restored_in_place_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InputError, match=r"counter is of type \w+, which cannot be restored in place"):
        haversack.resumable(DATA, name="refused", counter=value)


def test_a_state_that_cannot_be_saved_is_refused_before_the_training() -> None:
    with pytest.raises(InputError, match="state/0 is of type object"):
        haversack.resumable(DATA, name="refused", state={"made": object()})


@pytest.mark.parametrize("source", [None, 5, train], ids=["none", "number", "function"])
def test_a_source_that_is_no_iterable_is_refused(source: Any) -> None:
    with pytest.raises(InputError, match=r"A source of type \w+ has no batches"):
        haversack.resumable(source, name="refused", total=[])


def test_a_training_without_a_batch_is_refused_and_not_finished() -> None:
    run = haversack.resumable(iter([]), name="empty", total=[])
    epochs = run.epochs(2)
    next(epochs)
    with pytest.raises(InputError, match="empty has no batch to train on"):
        list(run)
    epochs.close()
    assert not runs.show("empty").finished


def test_an_epoch_after_the_only_pass_of_an_iterator_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    run = haversack.resumable(iter(DATA), name="single", total=[])
    assert [len(list(run)) for _ in run.epochs(2)] == [5, 0]
    assert "single: there is no batch in epoch 2; an iterator has a single pass" in capfd.readouterr().err


def test_a_second_loop_of_the_same_run_is_refused_while_the_first_trains() -> None:
    first, second = (haversack.resumable(DATA, name="both", total=[]) for _ in range(2))
    epochs = first.epochs(1)
    next(epochs)
    with pytest.raises(InputError, match="Another loop of this process trains the run both"):
        next(second.epochs(1))
    assert len(list(first)) == 5
    assert list(epochs) == []
    assert runs.show("both").finished


def test_the_epochs_of_a_loop_that_was_left_inside_one_are_refused() -> None:
    run, _ = train(np.zeros(2), leave_at=3)
    with pytest.raises(InputError, match="sums was left in the middle of an epoch"):
        next(run.epochs(3))


def test_iterating_before_the_epochs_and_twice_in_one_is_refused() -> None:
    run = haversack.resumable(DATA, name="looked", total=[])
    next(iter(run))
    with pytest.raises(InputError, match="iterated over before its first epoch"):
        next(run.epochs(2))
    run = haversack.resumable(DATA, name="twice", total=[])
    epochs = run.epochs(1)
    next(epochs)
    list(run)
    with pytest.raises(InputError, match="twice in one epoch"):
        list(run)


def test_checkpoints_of_something_else_are_refused() -> None:
    with haversack.Checkpoints("foreign") as checkpoints:
        checkpoints.save(1, {"weights": 1.0})
    with pytest.raises(TrainingError, match=r"not those of haversack\.resumable"):
        haversack.resumable(DATA, name="foreign", total=[])


def test_the_loop_has_the_length_and_the_attributes_of_its_source() -> None:
    run = haversack.resumable(DATA, name="length", total=[])
    assert len(run) == 5
    assert run.index is not None
    with pytest.raises(AttributeError):
        _ = run.nothing


def test_generators_of_the_users_own_are_restored() -> None:
    def drawn(leave_at: int = 0) -> list[float]:
        own, python, old = np.random.default_rng(1), random.Random(1), np.random.RandomState(1)
        values: list[float] = []
        run = haversack.resumable(DATA, name=f"own{leave_at}", own=own, python=python, old=old, values=values)
        for _ in run.epochs(1):
            for _ in run:
                run._run.checkpoints.wait()
                if leave_at and len(values) == leave_at:
                    run.close()
                    return drawn_rest()
                values.append(own.random() + python.random() + old.random_sample())
        return values

    def drawn_rest() -> list[float]:
        own, python, old = np.random.default_rng(9), random.Random(9), np.random.RandomState(9)
        values: list[float] = []
        run = haversack.resumable(DATA, name="own3", own=own, python=python, old=old, values=values)
        for _ in run.epochs(1):
            for _ in run:
                values.append(own.random() + python.random() + old.random_sample())
        return values

    assert drawn(leave_at=3) == drawn()


def test_several_processes_train_without_checkpoints(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    run = haversack.resumable(DATA, name="several", state=jnp.ones(2))
    assert [len(list(run)) for _ in run.epochs(2)] == [5, 5]
    assert "several: trained without checkpoints: 2 processes train together" in capfd.readouterr().err
    assert resumable.PlainLoop is type(run)


def test_a_run_can_be_taken_over_from_a_session_that_lives() -> None:
    code = (
        "import haversack, sys\n"
        "run = haversack.resumable([1, 2, 3], name='taken', total=[])\n"
        "for _ in run.epochs(1):\n"
        "    for _ in run:\n"
        "        print('training', flush=True)\n"
        "        sys.stdin.readline()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as owner:  # type: ignore[call-overload]
        assert owner.stdout.readline() == "training\n"
        with pytest.raises(RunTaken, match="take_over=True"):
            next(haversack.resumable([1, 2, 3], name="taken", total=[]).epochs(1))
        run = haversack.resumable([1, 2, 3], name="taken", total=[], take_over=True)
        assert [list(run) for _ in run.epochs(1)] == [[1, 2, 3]]
        _, printed = owner.communicate("\n\n\n", timeout=300)
        assert "RunLost" in printed
        assert owner.returncode == 1
