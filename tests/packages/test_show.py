"""`haversack env show`: what is printed of a notebook's needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from haversack.notebook.record import document
from haversack.packages.imports import code_cells
from haversack.packages.requirements import requirements_of
from tests.notebook import notebooks

ROOT = Path(__file__).parent.parent.parent


def show(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "haversack", "env", "show", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    cells = ["!pip install seaborn", "import sklearn, seaborn, secretsauce", "from google.colab import drive"]
    return notebooks.write(tmp_path / "one.ipynb", *cells)


def test_a_report_has_every_import_with_its_package(notebook: Path) -> None:
    lines = [" ".join(line.split()) for line in show(str(notebook)).stdout.splitlines()]
    assert "sklearn scikit-learn (Colab has 1.6.1, Kaggle has it) cell 2" in lines
    assert "seaborn seaborn, which cell 1 installs cell 2" in lines
    assert "secretsauce unknown: in no table cell 2" in lines
    assert "google.colab provided by haversack cell 3" in lines
    assert "scikit-learn import sklearn (cell 2)" in lines
    assert "seaborn cell 1" in lines


def test_a_report_ends_with_what_is_missing(notebook: Path) -> None:
    done = show(str(notebook))
    assert done.returncode == 0
    assert "secretsauce (cell 2)" in done.stdout.splitlines()[-1]
    assert "%pip install" in done.stdout.splitlines()[-1]


def test_json_has_the_same_for_scripts(notebook: Path) -> None:
    found = json.loads(show(str(notebook), "--json").stdout)
    assert [one["text"] for one in found["requirements"]] == ["scikit-learn"]
    assert [one["name"] for one in found["modules"] if one["missing"]] == ["secretsauce"]
    assert found["installations"] == [{"requirement": "seaborn", "cell": 1, "certain": True}]
    assert found["python"] == ""
    assert "secretsauce (cell 2)" in found["problem"]


def test_a_requirements_file_beside_the_notebook_is_used(notebook: Path) -> None:
    (notebook.parent / "requirements.txt").write_text("secretsauce==1\n")
    found = json.loads(show(str(notebook), "--json").stdout)
    assert ([one["text"] for one in found["requirements"]], found["problem"]) == (
        ["secretsauce==1", "scikit-learn"],
        "",
    )


def test_what_is_no_notebook_is_an_error(tmp_path: Path) -> None:
    done = show(str(tmp_path / "none.ipynb"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.ipynb")), ids=lambda path: path.stem)
def test_the_imports_of_every_example_are_known(path: Path) -> None:
    content = document.read(path)
    found = requirements_of(code_cells(content), content["metadata"], path.parent)
    unknown = {module.name: module.why for module in found.modules if module.state in ("unknown", "maybe")}
    # The notebook clones the repository that these are in.
    assert unknown.keys() == ({"helpers", "shapes_core"} if path.stem == "git_clone" else set()), unknown
