"""Where a run's checkpoints are kept when nobody says, on machines that stay and machines that go."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import pytest

from haversack import place, runs, settings
from haversack.training import location
from haversack.training.checkpoints.checkpoints import Checkpoints
from tests.conftest import RunningHub


@pytest.fixture
def fleeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Kaggle machine, whose disk goes with its session."""
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")


@pytest.mark.usefixtures("fleeting")
def test_on_a_machine_that_goes_the_drive_of_the_named_hub_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_HUB", "http://127.0.0.1:8080")
    where, told = location.resolve("first", None)
    assert where == "drive://haversack/runs"
    assert told.startswith("first: saved to drive://haversack/runs on http://127.0.0.1:8080")
    assert location.resolve("second", None) == (where, "")


@pytest.mark.usefixtures("fleeting")
def test_a_hub_that_was_asked_for_on_a_machine_that_goes_is_not_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_HUB", "embedded")
    assert location.resolve("run", None) == (None, "")


@pytest.mark.usefixtures("fleeting")
def test_what_was_said_stands(tmp_path: Path) -> None:
    assert location.resolve("run", tmp_path) == (tmp_path, "")


@pytest.mark.usefixtures("fleeting")
def test_a_run_is_read_where_its_training_saved_it(monkeypatch: pytest.MonkeyPatch, hub: RunningHub) -> None:
    monkeypatch.setenv("HAVERSACK_HUB", hub.url)
    monkeypatch.setenv("HAVERSACK_TOKEN", hub.token)
    name = f"run-{secrets.token_hex(4)}"
    with Checkpoints(name, location.resolve(name)[0]) as checkpoints:
        checkpoints.save(3, {"weight": 1.5})
    shutil.rmtree(settings.load().data)  # the next session's machine
    assert [(one.step, one.fault) for one in runs.verified(name)] == [(3, "")]


def test_on_a_machine_that_stays_they_stay() -> None:
    if not place.disk_outlives_session(settings.load().data):
        pytest.skip("this machine goes with its session")
    assert location.resolve("run", None) == (None, "")
