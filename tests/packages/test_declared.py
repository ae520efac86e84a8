"""`haversack.environment(…)` in a cell, or in a page that a cell runs, is known before anything is executed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from haversack.errors import InputError
from haversack.packages.imports import needs
from haversack.packages.requirements import requirements_of

CALL = 'haversack.environment(packages=["pandas==2.3.*"], apt=["ffmpeg"], env={"SEED": "1"}, run=["echo made"])'


def texts(*cells: str, folder: Path | None = None) -> set[str]:
    return {one.text for one in requirements_of(cells, {}, folder).requirements}


@pytest.mark.parametrize(
    "cell",
    [
        f"import haversack\n{CALL}",
        f"import haversack as hs\n{CALL.replace('haversack.', 'hs.')}",
        f"from haversack import environment\n{CALL.removeprefix('haversack.')}",
        f"from haversack import environment as made\n{CALL.replace('haversack.environment', 'made')}",
    ],
)
def test_a_call_is_read_under_each_of_its_names(cell: str) -> None:
    found = needs([cell]).environment
    assert found.packages == ("pandas==2.3.*",)
    assert (found.apt, found.env, found.run) == (("ffmpeg",), {"SEED": "1"}, ("echo made",))
    assert found.cells == (1,)


def test_another_function_called_environment_is_none_of_ours() -> None:
    assert needs(["environment(packages=['x'])\nos.environment(packages=['y'])"]).environment.packages == ()


def test_its_packages_come_and_those_of_imports_too() -> None:
    assert texts(f"import haversack\n{CALL}", "import pandas, seaborn") == {"pandas==2.3.*", "seaborn"}


def test_several_calls_are_one_environment() -> None:
    second = 'haversack.environment(packages=["polars"], env={"SEED": "2"})'
    found = needs([f"import haversack\n{CALL}", second]).environment
    assert found.packages == ("pandas==2.3.*", "polars")
    assert found.env == {"SEED": "2"}
    assert found.cells == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("['pandas']", "an argument without a name"),
        ("packages=NAMES", "`packages` that is not a literal, though it is read before any cell is executed"),
        ("**OPTIONS", "`**` that is not a literal, though it is read before any cell is executed"),
        ("packages='pandas'", "`packages` that is not a list of strings"),
        ("apt=[1]", "`apt` that is not a list of strings"),
        ("env={'A': 1}", "`env` that is not a dict from string to string"),
        ("package=['pandas']", "the unknown argument `package`"),
    ],
)
def test_a_call_that_cannot_be_read_is_an_error(arguments: str, what: str) -> None:
    with pytest.raises(InputError) as raised:
        needs(["1", f"import haversack\nhaversack.environment({arguments})"])
    assert raised.value.what == f"haversack.environment in cell 2 has {what}."


def test_a_page_that_a_cell_runs_is_read_with_it(tmp_path: Path) -> None:
    page = {"cells": [{"cell_type": "code", "source": ["import haversack\n", CALL]}]}
    (tmp_path / "setup.ipynb").write_text(json.dumps(page))
    assert texts("1", "%run setup.ipynb", folder=tmp_path) == {"pandas==2.3.*"}
    assert needs(["1", "%run setup.ipynb"], tmp_path).environment.cells == (2,)


def test_a_script_that_a_cell_runs_is_read_with_it(tmp_path: Path) -> None:
    (tmp_path / "clean.py").write_text("import polars\n")
    assert texts("%run -i clean.py --fast", folder=tmp_path) == {"polars"}


def test_pages_that_run_each_other_are_read_once(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        page = {"cells": [{"cell_type": "code", "source": f"%run {other}.ipynb\nimport polars"}]}
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(page))
    assert texts("%run a.ipynb", folder=tmp_path) == {"polars"}
