"""The notebooks of `examples/kaggle`, with small data of our own that is published to a hub."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from haversack.datasets.publication import put
from haversack.notebook.job import job
from tests.conftest import RunningHub
from tests.notebook import notebooks

KAGGLE = Path(__file__).parents[2] / "examples" / "kaggle"
pytestmark = pytest.mark.fuse


def penguins(folder: Path) -> None:
    """Two tables: birds with flippers and masses, and where the islands are."""
    chance = np.random.default_rng(3)
    names = ["North", "South", "East", "West"]
    flipper = chance.normal(200, 12, 200)
    table = pd.DataFrame({"island": chance.choice(names, 200), "flipper": flipper.round(1)})
    table["mass"] = (flipper * 40 - 3800 + chance.normal(0, 200, 200)).round()
    table.loc[chance.choice(200, 5, replace=False), "mass"] = np.nan
    (folder / "extra").mkdir(parents=True)
    table.to_csv(folder / "penguins.csv", index=False)
    pd.DataFrame({"island": names, "latitude": [-60, -70, -65, -66]}).to_csv(folder / "extra/islands.csv", index=False)


def visitors(folder: Path) -> None:
    """The three tables of a competition: who visited, and whether they came back."""
    chance = np.random.default_rng(5)
    count = 600
    table = pd.DataFrame(
        {
            "id": range(count),
            "visits": chance.poisson(6, count),
            "minutes": chance.exponential(30, count).round(1),
            "age": chance.integers(18, 80, count).astype(float),
            "plan": chance.choice(["free", "basic", "plus"], count),
        }
    )
    likely = 0.5 * table["visits"] + 0.03 * table["minutes"] + 2 * (table["plan"] == "plus") - 4.5
    table["returned"] = (chance.random(count) < 1 / (1 + np.exp(-likely))).astype(int)
    table.loc[chance.choice(count, 20, replace=False), "age"] = np.nan
    folder.mkdir()
    table[:450].to_csv(folder / "train.csv", index=False)
    table[450:].drop(columns="returned").to_csv(folder / "test.csv", index=False)
    table[450:][["id"]].assign(returned=0.5).to_csv(folder / "sample_submission.csv", index=False)


def test_the_data_set_is_explored(own_hub: RunningHub, tmp_path: Path) -> None:
    penguins(tmp_path / "penguins")
    put(tmp_path / "penguins", "kaggle:haversack/island-penguins")
    report = job.run(KAGGLE / "eda.ipynb", tmp_path / "out.ipynb", inputs=["kaggle:haversack/island-penguins"])
    assert report.status == "done", report.error
    assert "island-penguins/penguins.csv" in notebooks.text(report.output, 1)
    assert "(200, 3) 5 missing" in notebooks.text(report.output, 3)
    assert "correlation 0.9" in notebooks.text(report.output, 5)
    assert [one["name"] for one in report.outputs] == ["clean.csv", "masses.png"]


def test_the_competition_gets_its_submission(own_hub: RunningHub, tmp_path: Path) -> None:
    visitors(tmp_path / "visitors")
    put(tmp_path / "visitors", "kaggle:c/who-comes-back")
    report = job.run(KAGGLE / "competition.ipynb", tmp_path / "out.ipynb", inputs=["c/who-comes-back"])
    assert report.status == "done", report.error
    assert "accuracy 0.8" in notebooks.text(report.output, 5) or "accuracy 0.7" in notebooks.text(report.output, 5)
    [submission] = report.outputs
    assert submission["name"] == "submission.csv"
    table = pd.read_csv(submission["path"])
    assert list(table.columns) == ["id", "returned"]
    assert len(table) == 150
    assert table["returned"].between(0, 1).all()
    assert table["returned"].nunique() > 100


def test_they_are_kept_without_outputs() -> None:
    for path in KAGGLE.glob("*.ipynb"):
        assert not any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)
