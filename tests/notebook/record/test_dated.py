"""How old a notebook is by its own account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from haversack.notebook.record.dated import month_of

MARCH_2021 = 1_615_000_000_000  # milliseconds


@pytest.fixture
def month(tmp_path: Path) -> Any:
    """`month(cell, cell, metadata…)`: the month of such a notebook."""

    def of(*cells: dict[str, Any], **metadata: Any) -> str:
        path = tmp_path / "nb.ipynb"
        path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 0, "metadata": metadata, "cells": cells}))
        return month_of(path)

    return of


def cell(source: str | list[str] = "", printed: str = "", **metadata: Any) -> dict[str, Any]:
    outputs = [{"output_type": "stream", "name": "stdout", "text": [printed]}] if printed else []
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": outputs}


def test_colab_and_kaggle_say_when_a_cell_was_executed(month: Any) -> None:
    later = cell(executionInfo={"status": "ok", "timestamp": MARCH_2021, "user": {"userId": "1"}})
    assert month(cell(executionInfo={"timestamp": MARCH_2021 - 10**10}), later) == "2021-03"
    assert month(cell(execution={"iopub.execute_input": "2023-10-04T05:06:07.123456Z"})) == "2023-10"
    assert month(cell(), papermill={"start_time": "2022-01-02T03:04:05.678901", "duration": 1.5}) == "2022-01"


def test_where_cells_say_nothing_it_is_when_the_notebook_was_copied(month: Any) -> None:
    colab = {"provenance": [{"file_id": "1a", "timestamp": MARCH_2021}], "name": "nb"}
    assert month(cell(), colab=colab) == "2021-03"
    assert month(cell(executionInfo={"timestamp": MARCH_2021 + 10**11}), colab=colab) == "2024-05"


@pytest.mark.parametrize(
    "old",
    [
        cell("# written for TensorFlow 2.3.0"),
        cell(["import torch\n", "!pip install torch==1.9.0"]),
        cell("print(tf.__version__)", printed="numpy 1.19.5\npandas: 1.1.4\n"),
    ],
)
def test_old_versions_say_that_it_is_no_younger(month: Any, old: dict[str, Any]) -> None:
    assert month(old) == "2023-06"
    assert month(old, cell("# tested with numpy 2.1")) == ""


def test_so_does_an_old_python(month: Any) -> None:
    assert month(cell(), language_info={"name": "python", "version": "3.7.10"}) == "2023-06"
    assert month(cell(), language_info={"name": "python", "version": "3.11.2"}) == ""


@pytest.mark.parametrize("odd", [{"timestamp": "soon"}, {"timestamp": 12}, {"timestamp": 10**30}, [], None, "2021"])
def test_what_is_no_time_says_nothing(month: Any, odd: Any) -> None:
    assert month(cell(executionInfo=odd), colab=odd) == ""
