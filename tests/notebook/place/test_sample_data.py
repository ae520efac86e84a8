"""The folder `sample_data`: names and columns as on Colab, the same rows each time."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from haversack.notebook.place import sample_data
from tests.notebook import notebooks
from tests.notebook.conftest import Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sample_data.write(tmp_path / "sample_data")
    return tmp_path / "sample_data"


def test_the_files_have_the_names_of_colabs(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "anscombe.json",
        "california_housing_test.csv",
        "california_housing_train.csv",
        "mnist_test.csv",
        "mnist_train_small.csv",
    ]


@pytest.mark.parametrize("name", ["california_housing_train.csv", "california_housing_test.csv"])
def test_the_houses_have_numbers_in_colabs_columns(folder: Path, name: str) -> None:
    with open(folder / name, newline="") as file:
        columns, *rows = csv.reader(file)
    assert columns == [
        "longitude",
        "latitude",
        "housing_median_age",
        "total_rooms",
        "total_bedrooms",
        "population",
        "households",
        "median_income",
        "median_house_value",
    ]
    numbers = [[float(value) for value in row] for row in rows]
    assert len(numbers) >= 200
    assert {len(row) for row in numbers} == {9}
    assert all(15000 <= row[8] <= 500001 for row in numbers)


@pytest.mark.parametrize("name", ["mnist_train_small.csv", "mnist_test.csv"])
def test_the_digits_are_a_label_and_28_by_28_pixels_without_a_header(folder: Path, name: str) -> None:
    rows = [[int(value) for value in line.split(",")] for line in (folder / name).read_text().splitlines()]
    assert {len(row) for row in rows} == {785}
    assert {row[0] for row in rows} == set(range(10))
    assert max(max(row[1:]) for row in rows) <= 255
    shapes = {tuple(pixel > 0 for pixel in row[1:]): row[0] for row in rows}
    assert all(shapes[tuple(pixel > 0 for pixel in row[1:])] == row[0] for row in rows)


def test_the_series_have_eleven_points_each(folder: Path) -> None:
    points = json.loads((folder / "anscombe.json").read_text())
    assert {tuple(point) for point in points} == {("Series", "X", "Y")}
    assert [sum(point["Series"] == name for point in points) for name in ("I", "II", "III", "IV")] == [11] * 4


def test_the_rows_are_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    sample_data.write(tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_a_folder_that_is_there_is_kept(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    sample_data.write(folder)
    assert (folder / "README.md").read_text() == "mine"


def test_a_job_has_them_below_content(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAVERSACK_CONTENT", "literals")
    report = run("open('/content/sample_data/california_housing_train.csv').readline()[:11]")
    assert notebooks.text(report.output, 0) == "'\"longitude\"'"
