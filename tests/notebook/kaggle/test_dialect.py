"""Whether a notebook speaks of Colab, of Kaggle or of both, told from its cells and metadata."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from haversack import place
from haversack.notebook.kaggle.dialect import Dialect, dialect_of


def told(*cells: str, has_inputs: bool = False, **metadata: Any) -> Dialect:
    return dialect_of(new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=metadata), has_inputs)


@pytest.mark.parametrize(
    "cell", ["print(1)", "from google.colab import drive", "!mkdir -p ~/.kaggle", "x = '/kaggle.com'"]
)
def test_plain_and_colab_notebooks_are_colabs(cell: str) -> None:
    assert told(cell) == Dialect(("colab",), has_kaggle=False)


@pytest.mark.parametrize(
    "cell",
    [
        "pd.read_csv('/kaggle/input/titanic/train.csv')",
        "pd.read_csv('../input/train.csv')",
        "%cd /kaggle/working",
        "import kaggle_secrets",
        "os.environ.get('KAGGLE_KERNEL_RUN_TYPE')",
    ],
)
def test_a_notebook_that_names_what_kaggle_has_is_kaggles(cell: str) -> None:
    found = told(cell)
    assert found.marks == ("kaggle",)
    assert found.has_kaggle
    assert found.works_in_kaggle


def test_metadata_and_given_inputs_make_a_notebook_kaggles() -> None:
    assert told("print(1)", kaggle={"accelerator": "none", "dataSources": []}).works_in_kaggle
    assert told("print(1)", has_inputs=True).works_in_kaggle


ASKS = "if 'google.colab' in sys.modules:\n    p = '/content'\nelse:\n    p = '/kaggle/input/x'"


def test_of_a_notebook_that_asks_the_inputs_decide() -> None:
    assert told(ASKS).marks == ("colab",)
    assert told(ASKS).has_kaggle
    assert told(ASKS, has_inputs=True).marks == ("kaggle",)


def test_an_input_does_not_move_a_notebook_that_speaks_of_colab_only() -> None:
    found = told("from google.colab import drive", has_inputs=True)
    assert found.marks == ("colab",)
    assert found.has_kaggle


def test_a_package_that_is_imported_unasked_brings_its_marks() -> None:
    both = ("from google.colab import files", "open('/kaggle/input/x/a.csv')")
    assert told(*both, has_inputs=True).marks == ("kaggle", "colab")
    guarded = "try:\n    import google.colab\nexcept ImportError:\n    pass"
    assert told(guarded, both[1], has_inputs=True).marks == ("kaggle",)


def test_the_newer_paths_are_noticed() -> None:
    assert told("x = '/kaggle/input/competitions/titanic/train.csv'").names_new_paths
    assert not told("x = '/kaggle/input/titanic/train.csv'").names_new_paths


def test_it_survives_a_jobs_record() -> None:
    found = told("open('../input/datasets/a/b/c.csv')")
    assert Dialect.decode(json.loads(json.dumps(asdict(found)))) == found
    assert Dialect.decode({}) == Dialect()


def test_a_jobs_marks_do_not_make_the_machine_kaggles() -> None:
    variables = told("open('../input/a/b.csv')").variables({})
    assert variables["KAGGLE_KERNEL_RUN_TYPE"] == "Batch"
    assert place.here(variables) == "terminal"


def test_on_kaggle_its_own_variables_stay() -> None:
    variables = told("open('../input/a/b.csv')").variables({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"})
    assert not [name for name in variables if name.startswith("KAGGLE_")]
