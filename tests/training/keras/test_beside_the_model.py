"""State that `model.variables` does not list, and models that change in the middle, end as in an unbroken training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from haversack import runs
from haversack.notebook.job import comparison

KINDS = ["unbroken", "resumed"]
PROGRAM = Path(__file__).parents[1] / "programs" / "beside_the_model.py"


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("kinds")
    environment = {**os.environ, "HAVERSACK_DATA": str(folder / "data")}
    command = [sys.executable, str(PROGRAM), str(folder)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=1200, check=True)
    return {**json.loads(done.stdout), "runs": folder / "data" / "runs"}


@pytest.mark.parametrize("kind", ["second_optimizer", "held_by_callbacks", "frozen"])
def test_a_resumed_training_ends_as_the_unbroken_one(kinds: dict[str, Any], kind: str) -> None:
    unbroken, resumed = kinds[kind]["ends"]
    assert ": resumed at epoch 3, step 2;" in kinds[kind]["said"]
    assert resumed == unbroken


@pytest.mark.parametrize(
    ("name", "found"),
    [("gan", []), ("frozen", []), ("hidden", ["hidden has other weights, or another state of its optimizers"])],
)
def test_a_comparison_finds_state_that_no_checkpoint_holds(kinds: dict[str, Any], name: str, found: list[str]) -> None:
    unbroken, resumed = (comparison.Ends({name: runs.show(f"{name} {kind}", kinds["runs"])}) for kind in KINDS)
    assert comparison.differences(unbroken, resumed) == found


def test_a_comparison_finds_other_weights(kinds: dict[str, Any]) -> None:
    run = runs.show("gan unbroken", kinds["runs"])
    found = comparison.differences(comparison.Ends({"gan": run}), comparison.Ends({"gan": replace(run, digest="0")}))
    assert found == ["gan has other weights, or another state of its optimizers"]
    assert len(run.digest) == 32


def test_a_comparison_finds_a_training_that_is_missing_or_not_finished(kinds: dict[str, Any]) -> None:
    run = runs.show("gan unbroken", kinds["runs"])
    whole, without, unfinished = (
        comparison.Ends(ends) for ends in ({"gan": run}, {}, {"gan": replace(run, finished=False)})
    )
    assert comparison.differences(whole, without) == ["gan did not finish"]
    assert comparison.differences(whole, unfinished) == ["gan did not finish"]
    assert comparison.differences(unfinished, unfinished) == []


def test_the_second_optimizer_counts_every_step(kinds: dict[str, Any]) -> None:
    assert kinds["second_optimizer"]["ends"][1]["second"][0] == 15


def test_what_a_callback_holds_counts_every_step(kinds: dict[str, Any]) -> None:
    assert kinds["held_by_callbacks"]["ends"][1]["held"][0][0] == 15


def test_state_that_is_no_longer_there_is_refused_by_name(kinds: dict[str, Any]) -> None:
    words = "TrainingError: The run's checkpoint has the state of model.d_opt, which is not there."
    assert kinds["no_longer_there"]["said"].startswith(words)
