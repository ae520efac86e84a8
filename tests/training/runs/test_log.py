"""What a run's log tells, in Python and on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from haversack import runs
from haversack.errors import InputError, NotFound
from haversack.training import location
from haversack.training.checkpoints.checkpoints import Checkpoints
from haversack.training.runs.log import RunLog


@pytest.fixture
def killed(own_folders: Path) -> Path:
    """A run that was killed in its third epoch and went on in its second, as its sessions wrote it down."""
    folder = own_folders / "data" / "runs" / "digits"
    first = RunLog(folder)
    first.begin(4, None, None)
    for epoch in (0, 1):
        first.write("epoch", epoch=epoch, logs={"loss": 1.0 - epoch / 10, "val_loss": 1.0})
    first.write("save", epoch=1, step=3)
    first.beat(20.0, epoch=2, step=4)
    second = RunLog(folder)
    second.begin(4, (1, 3), 7.5, steps=8)
    for epoch in (1, 2, 3):
        second.write("epoch", epoch=epoch, logs={"loss": 0.5 - epoch / 10, "val_loss": 0.9})
    second.write("end", outcome="finished")
    with Checkpoints("digits") as checkpoints:
        checkpoints.save(40, {"weight": 1.5})
    return folder


def haversack(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "haversack", "runs", *arguments], capture_output=True, text=True)
    return done.stdout + done.stderr


def test_a_repeated_epoch_stands_once_as_it_was_computed_last(killed: Path) -> None:
    epochs = runs.show("digits").epochs
    assert [(epoch.number, epoch.session, epoch.logs["loss"]) for epoch in epochs][:2] == [(0, 0, 1.0), (1, 1, 0.4)]


def test_sessions_say_how_they_began_and_ended(killed: Path) -> None:
    first, second = runs.show("digits").sessions
    assert (first.resumed, first.outcome, first.ended, first.saves, first.reached) == (None, "killed", None, 1, (2, 4))
    assert (second.resumed, second.outcome, second.repeated) == ((1, 3), "finished", 7.5)


def test_a_run_that_is_not_there_is_said(killed: Path) -> None:
    with pytest.raises(NotFound, match="no run other"):
        runs.show("other")


def test_a_line_that_a_kill_cut_off_is_passed_over(killed: Path) -> None:
    log = killed / "log.jsonl"
    log.write_text(log.read_text() + '{"event": "epo')
    RunLog(killed).write("end", outcome="finished")
    assert runs.show("digits").finished


def test_the_pulse_outlives_its_writer(killed: Path) -> None:
    RunLog(killed).beat(12.25, epoch=3, step=2)
    assert RunLog(killed).last_pulse() == 12.25


def test_a_pulse_that_is_cut_off_is_no_pulse(killed: Path) -> None:
    (killed / "pulse").write_text("")
    assert RunLog(killed).last_pulse() is None


def test_runs_set_aside_are_counted(killed: Path) -> None:
    assert location.rename_run("digits") == "digits.before-1"
    killed.mkdir()
    assert location.rename_run("digits") == "digits.before-2"
    assert location.rename_run("digits") is None


def test_a_session_that_never_beat_reached_nothing(killed: Path) -> None:
    RunLog(killed).begin(6, (4, 0), 0.0)
    RunLog(killed).begin(6, (4, 0), 0.0)
    assert [session.reached for session in runs.show("digits").sessions[2:]] == [None, None]


def test_the_end_of_an_overtaken_session_is_its_own(killed: Path) -> None:
    log = killed / "log.jsonl"
    first = [{**json.loads(line), "pid": 1} for line in log.read_text().splitlines()[:4]]
    rest = log.read_text().splitlines()[4:]
    late = {"event": "end", "time": 0.0, "pid": 1, "outcome": "failed"}
    log.write_text("\n".join([*map(json.dumps, first), *rest, json.dumps(late)]) + "\n")
    assert [session.outcome for session in runs.show("digits").sessions] == ["failed", "finished"]


def test_the_plot_is_a_picture(killed: Path, tmp_path: Path) -> None:
    assert runs.plot("digits").save(tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


def test_the_plot_marks_the_kill_and_what_was_trained_again(killed: Path, tmp_path: Path) -> None:
    drawn = runs.plot("digits").save(tmp_path / "digits.svg").read_text()
    figure = runs.plot("digits").figure
    [axes] = figure.axes
    assert [text.get_text() for text in axes.texts] == ["killed at epoch 3, step 4"]
    assert [text.get_text() for text in axes.get_legend().get_texts()][-2:] == ["killed", "trained again"]
    [line] = [line for line in axes.get_lines() if line.get_label() == "killed"]
    assert line.get_xdata() == [2.5, 2.5]
    assert "<svg" in drawn


def test_a_plot_shows_itself_in_a_notebook(killed: Path) -> None:
    from IPython.core.formatters import DisplayFormatter

    shown, _ = DisplayFormatter().format(runs.plot("digits"))
    assert shown["image/png"].startswith(b"\x89PNG")


def test_a_picture_of_no_known_kind_is_refused(killed: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no suffix of an image format"):
        runs.plot("digits").save(tmp_path / "digits.doc")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_checkpoint_is_shown_as_one(killed: Path) -> None:
    [checkpoint] = runs.verified("digits")
    assert checkpoint.fault == ""
    [state] = killed.rglob("state.safetensors")
    state.write_bytes(state.read_bytes()[:-1] + b"?")
    [checkpoint] = runs.verified("digits")
    assert checkpoint.fault


def test_the_command_lists_runs(killed: Path) -> None:
    assert haversack().startswith("digits  keras, finished, 2 sessions, 7.5 s repeated  loss 0.2")
    assert json.loads(haversack("--json"))["runs"][0]["name"] == "digits"


def test_the_command_shows_a_run(killed: Path) -> None:
    shown = haversack("show", "digits")
    assert "session 2: " in shown
    assert "killed at epoch 3, step 4" in shown
    assert "resumed at epoch 2, step 3; 7.5 s repeated" in shown
    assert "checkpoint of step 40:" in shown


def test_no_runs_are_said(own_folders: Path) -> None:
    assert haversack() == "There are no runs yet.\n"
