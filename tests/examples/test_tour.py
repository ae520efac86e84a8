"""The tour as a user runs it, once for all of these tests: on the embedded hub, with a Kaggle key of the user's own.

Its packages are those that haversack runs with. `make long` runs it once more in an environment of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from haversack.notebook.job import packages

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN_KEY = {"username": "ada", "key": "0123456789abcdef" * 2}


@dataclass(frozen=True)
class Tour:
    home: Path
    files_twice: list[str]
    report: dict[str, Any]
    notebook: Any
    raw: str

    def outputs(self, cell: str) -> list[Any]:
        [found] = [each for each in self.notebook.cells if each["id"] == cell]
        return list(found.outputs)

    def text(self, cell: str) -> str:
        return "".join(output.get("text") or output["data"].get("text/plain", "") for output in self.outputs(cell))

    def pictures(self, cell: str) -> int:
        return sum("image/png" in output.get("data", {}) for output in self.outputs(cell))


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Tour:
    # pip keeps the installed version of kaggle, instead of asking a registry for a newer one.
    return taken(tmp_path_factory.mktemp("user"), HAVERSACK_INSTALL="no", PIP_NO_INDEX="1")


def taken(home: Path, **variables: str) -> Tour:
    """Run the tour as a user with this HOME and these environment variables."""
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "kaggle.json").write_text(json.dumps(OWN_KEY))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HAVERSACK_", "KAGGLE_"))}
    folders = {"HAVERSACK_DATA": str(home / "data"), "HAVERSACK_CACHE": str(home / "cache")}
    environment = {**clean, **folders, "HOME": str(home), "HAVERSACK_HUB": "embedded", **variables}

    def run(*command: str) -> str:
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout

    files_twice = [run(sys.executable, str(EXAMPLES / "tour_files.py")) for _ in range(2)]
    executed = home / "tour.ipynb"
    job = ["run", str(EXAMPLES / "tour.ipynb"), "--cores", "8", "-o", str(executed), "--json"]
    report = json.loads(run(sys.executable, "-m", "haversack", *job).splitlines()[-1])
    return Tour(home, files_twice, report, nbformat.read(executed, as_version=4), executed.read_text())


def test_the_files_are_put_once(tour: Tour) -> None:
    first, second = tour.files_twice
    assert "kaggle:haversack/digits is there now, at version 1." in first
    assert "now" not in second


def test_every_cell_is_executed(tour: Tour) -> None:
    assert tour.report["status"] == "done"
    assert tour.report["cells"] == sum(cell.cell_type == "code" for cell in tour.notebook.cells)


def test_the_photograph_is_shown(tour: Tour) -> None:
    assert "RGB" in tour.text("show")
    assert tour.pictures("show") == 1


def test_what_is_written_to_the_drive_is_on_it(tour: Tour) -> None:
    assert (tour.home / "data" / "hub" / "My Drive" / "1-gray.png").is_file()


def test_the_kaggle_command_brings_every_image(tour: Tour) -> None:
    assert "17970 images" in tour.text("downloaded")


def test_the_data_set_is_read_without_unpacking(tour: Tour) -> None:
    assert "(17970, 28, 28, 1) (17970,)" in tour.text("arrays")


def test_the_cores_are_listed(tour: Tour) -> None:
    assert tour.text("distribute").startswith("Cores:            8")


def test_the_model_has_learned(tour: Tour) -> None:
    accuracy = re.search(r"validation accuracy: (\S+)", tour.text("evaluate"))
    assert accuracy is not None
    assert float(accuracy[1]) > 0.95


def test_evaluation_agrees_with_the_last_epoch(tour: Tour) -> None:
    last = re.findall(r"val_accuracy: (\S+)", tour.text("fit"))[-1]
    assert f"validation accuracy: {last}" in tour.text("evaluate")


def test_images_are_shown_out_of_the_archive(tour: Tour) -> None:
    assert "14,376 of 28 × 28 × 1" in tour.text("images")
    assert tour.pictures("images") == 1


def test_a_model_learns_from_images(tour: Tour) -> None:
    assert float(re.findall(r"val_accuracy: (\S+)", tour.text("fit-images"))[-1]) > 0.6


def test_the_weights_and_the_history_are_downloaded(tour: Tour) -> None:
    weights, history = map(Path, tour.report["downloads"])
    assert weights.name == "digits.weights.h5"
    assert weights.stat().st_size > 100_000
    assert len(json.loads(history.read_text())["val_loss"]) == 5


def test_the_uploaded_picture_is_shown_with_its_digit(tour: Tour) -> None:
    assert "Saving digit.png to digit.png" in tour.text("upload")
    assert tour.pictures("predict") == 1


def test_nothing_is_printed_as_an_error(tour: Tour) -> None:
    streams = [output for cell in tour.notebook.cells for output in cell.get("outputs", []) if "name" in output]
    assert [output.text for output in streams if output.name == "stderr"] == []
    assert "ipywidgets" not in tour.raw


def test_no_key_is_in_the_executed_notebook(tour: Tour) -> None:
    embedded = json.loads((tour.home / "data" / "embedded" / "hub.json").read_text())
    assert embedded["kaggle_key"] not in tour.raw
    assert embedded["token"] not in tour.raw


def test_the_users_own_kaggle_key_is_untouched(tour: Tour) -> None:
    assert json.loads((tour.home / ".kaggle" / "kaggle.json").read_text()) == OWN_KEY


def test_the_packages_that_it_needs_are_known() -> None:
    needed = packages.needed_by(nbformat.read(EXAMPLES / "tour.ipynb", as_version=4), EXAMPLES, {})
    packages.check(needed, None)
    assert {"keras", "jax", "matplotlib", "pillow"} <= {one.project for one in needed.requirements}


@pytest.mark.long
def test_in_an_environment_of_its_own_packages_it_comes_to_the_same_end(tmp_path: Path) -> None:
    own = taken(tmp_path)
    assert own.report["environment"]["packages"] > 20
    test_every_cell_is_executed(own)
    test_the_model_has_learned(own)
    test_nothing_is_printed_as_an_error(own)


def test_the_notebook_is_kept_without_outputs() -> None:
    kept = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in kept.cells)
