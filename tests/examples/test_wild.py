"""Notebooks as people write them, each as a job: those whose packages haversack's development environment has.

Those that need more packages, TensorFlow or PyTorch are in `wild.CASES` too.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.examples import wild


@pytest.mark.parametrize("name", wild.names("dev"))
def test_it_runs_to_its_end(name: str, tmp_path: Path) -> None:
    assert wild.CASES[name].check(tmp_path).sessions == 1


def test_each_notebook_is_a_case() -> None:
    assert {path.stem for path in wild.WILD.glob("*.ipynb")} == set(wild.CASES)


def test_they_are_kept_without_outputs() -> None:
    for path in wild.WILD.glob("*.ipynb"):
        assert not any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)
