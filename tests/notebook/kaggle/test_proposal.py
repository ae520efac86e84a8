"""Inputs that the cells read and nobody attached are named in one sentence, with the command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from haversack.datasets.publication import put
from haversack.notebook.kaggle import inputs
from haversack.notebook.kaggle.proposal import missing_inputs, sentence
from tests.conftest import RunningHub


def notebook(*cells: str, **metadata: Any) -> Any:
    return new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=metadata)


def nobody(name: str) -> Sequence[str]:
    return []


@pytest.mark.parametrize(
    ("cell", "missing"),
    [
        ("open('/kaggle/input/titanic/train.csv')", {"titanic": "/kaggle/input/titanic/train.csv"}),
        ("open('../input/titanic/train.csv')", {"titanic": "../input/titanic/train.csv"}),
        ("x = '/kaggle/input/datasets/ann/cats/a'", {"ann/cats": "/kaggle/input/datasets/ann/cats/a"}),
        ("x = '/kaggle/input/competitions/titanic'", {"c/titanic": "/kaggle/input/competitions/titanic"}),
        ("!ls /kaggle/input", {}),
        ("os.walk('/kaggle/input/datasets')", {}),
        ("x = f'/kaggle/input/{name}/a.csv'", {}),
    ],
)
def test_inputs_are_found_in_the_paths_of_cells(cell: str, missing: dict[str, str]) -> None:
    assert missing_inputs(notebook(cell), []) == missing


def test_what_is_attached_is_not_missing() -> None:
    cells = ("open('/kaggle/input/titanic/a')", "open('/kaggle/input/datasets/ann/cats/a')", "open('../input/other/b')")
    assert list(missing_inputs(notebook(*cells), ["titanic", "cats"])) == ["other"]


def test_a_file_directly_below_input_is_of_the_single_input() -> None:
    assert list(missing_inputs(notebook("open('../input/train.csv')"), ["titanic"])) == []
    assert said("open('../input/train.csv')").endswith("--input kaggle:OWNER/NAME")


def said(cell: str, lookup: Any = nobody, **metadata: Any) -> str:
    page = notebook(cell, **metadata)
    return sentence(page, missing_inputs(page, []), lookup)


def test_the_sentence_has_the_path_and_the_option() -> None:
    assert said("open('../input/datasets/ann/cats/a.csv')") == (
        "The notebook reads ../input/datasets/ann/cats/a.csv, and no such input is attached: "
        "give haversack run --input kaggle:ann/cats"
    )
    assert said("print(1)") == ""


def test_metadata_says_that_the_one_source_is_a_competition() -> None:
    kaggle = {"dataSources": [{"sourceId": 3136, "databundleVersionId": 26502, "sourceType": "competition"}]}
    assert said("open('../input/titanic/a')", kaggle=kaggle).endswith("--input kaggle:c/titanic")
    assert said("open('../input/cats/a')", kaggle={"dataSources": [{"sourceType": "datasetVersion"}]}).endswith(
        "--input kaggle:OWNER/cats"
    )


def test_a_named_hub_tells_whose_the_data_set_is(own_hub: RunningHub, tmp_path: Path) -> None:
    folder = tmp_path / "cats"
    folder.mkdir()
    (folder / "a.csv").write_text("a\n1\n")
    put(folder, "kaggle:ann/cats")
    put(folder, "kaggle:c/lions")
    put(folder, "kaggle:ann/cats-and-dogs")
    assert inputs.sources_named("cats", None) == ["kaggle:ann/cats"]
    assert inputs.sources_named("lions", None) == ["kaggle:c/lions"]
    assert inputs.sources_named("mice", None) == []


def test_nobody_is_asked_without_a_server_that_is_named() -> None:
    assert inputs.sources_named("cats", None) == []
